"""The other side of the comparison: the function of service.py under FastAPI, written as its documentation shows it.

Imported by uvicorn in a process of its own. BENCH_KIND says whether the endpoint is a `def`, which FastAPI runs in a
thread, or an `async def`, which blocks the event loop while the model works.
"""

import os

import service  # type: ignore[import-not-found]  # the measured code, put on the path by services.py
from fastapi import FastAPI
from pydantic import BaseModel


class Inputs(BaseModel):
    age: float
    sex: int
    bmi: float
    bp: float


class Outputs(BaseModel):
    score: float


service.load()
app = FastAPI()

if os.environ["BENCH_KIND"] == "def":

    @app.post("/predict")
    def predict(inputs: Inputs) -> Outputs:
        return Outputs(score=service.predict(inputs.age, inputs.sex, inputs.bmi, inputs.bp))

else:

    @app.post("/predict")
    async def predict_async(inputs: Inputs) -> Outputs:
        return Outputs(score=service.predict(inputs.age, inputs.sex, inputs.bmi, inputs.bp))
