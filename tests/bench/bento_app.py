"""The function of service.py under BentoML, written as its documentation shows it; runs in build/peer-venv.

Without access log, as FastAPI's is off too.
"""

import os

import bentoml  # type: ignore[import-not-found]  # only in build/peer-venv
import service  # type: ignore[import-not-found]  # the measured code, put on the path by peer.py


@bentoml.service(workers=int(os.environ["BENCH_WORKERS"]), logging={"access": {"enabled": False}})
class Peer:
    def __init__(self) -> None:
        service.load()

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, age: float, sex: int, bmi: float, bp: float) -> float:
        score: float = service.predict(age, sex, bmi, bp)
        return score
