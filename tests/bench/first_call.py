"""The first call on each session after Ready, against the median of its later calls: through the gateway and direct.

The gateway gives a call to the lowest slot that is free. So the sessions are measured from the lowest to the highest:
when one has been measured, a call of the same function that sleeps keeps it busy, and the next call is the first of the
next session. The session of the last slot is called directly, as no gateway knows it, to warm the client.

A first call comes after a pause, and later calls one after the other: the processors have forgotten what the first one
needs. So later calls after pauses are measured as well, to tell what of it a first call is.
"""

import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from bench import bars, services
from bench.client import Caller
from bench.figures import Figure, figure, median_of, progress
from bench.gateway import Pool, gateway
from bench.priority import preferred
from bench.services import Service

_SESSIONS: Final = 6
_HOLD_SECONDS: Final = 120
_PAUSES: Final = 5
_PAUSE_SECONDS: Final = 0.4


@dataclass(frozen=True)
class _Slot:
    """The calls of one session, in µs."""

    first: float
    warm: float  # p50 of calls one after the other
    paused: float  # of calls after pauses

    @property
    def ratio(self) -> float:
        return self.first / self.warm


def measure(quick: bool) -> list[Figure]:
    pods, calls = (1, 50) if quick else (5, 200)
    service = _holding(services.diabetes())
    through, direct = [], []
    for number in range(pods):
        through.append(_through_gateway(service, calls))
        progress(f"first-call: gateway, pod {number + 1} of {pods}: {_shown(through[-1])}")
        direct.append(_direct(service, calls))
        progress(f"first-call: direct, pod {number + 1} of {pods}: {_shown(direct[-1])}")
    return [
        *_figures(bars.GATEWAY_FIRST_CALL, bars.GATEWAY_FIRST_TO_PAUSED, "gateway: ", through),
        *_figures(bars.FIRST_CALL, bars.FIRST_TO_PAUSED, "", direct),
    ]


def _figures(name: str, to_paused: str, who: str, pods: list[list[_Slot]]) -> list[Figure]:
    # One call can meet anything on a shared machine: the median over the pods tells of the slot.
    slots = [statistics.median(slot.ratio for slot in found) for found in zip(*pods, strict=True)]
    measured = [slot for pod in pods for slot in pod]
    return [
        figure(name, max(slots), "x", slots),
        figure(f"{who}first call / warm p50, worst of all", max(slot.ratio for slot in measured), "x"),
        median_of(f"{who}later call after a pause / warm p50", [slot.paused / slot.warm for slot in measured], "x"),
        median_of(to_paused, [slot.first / slot.paused for slot in measured], "x"),
    ]


def _slot(caller: Caller, calls: int) -> _Slot:
    first, warm = caller.timed(), caller.p50(calls)
    paused = []
    for _ in range(_PAUSES):
        time.sleep(_PAUSE_SECONDS)
        paused.append(caller.timed())
    return _Slot(first, warm, statistics.median(paused))


def _through_gateway(service: Service, calls: int) -> list[_Slot]:
    """By slot. The caller's connection to the gateway is open; the gateway's is not."""
    found = []
    with services.session_pod(service, _SESSIONS + 1) as pod, ExitStack() as stack:
        pool = Pool(pod, _SESSIONS)
        front = stack.enter_context(gateway(pool))
        stack.enter_context(preferred([*front.pids, *services.pids(pod)]))
        with Caller(pod.base_port + _SESSIONS, service.inputs) as caller:
            caller.p50(calls)
        caller = stack.enter_context(Caller(front.port, service.inputs, pool.path, front.token))
        with Caller(front.port, service.inputs, "/api/nothing/v1", front.token) as unknown:
            for _ in range(calls):
                unknown.refused()  # the gateway is warm, no session has been called
        for _ in range(_SESSIONS):
            found.append(_slot(caller, calls))
            holding = {**service.inputs, "hold": _HOLD_SECONDS}
            holder = stack.enter_context(Caller(front.port, holding, pool.path, front.token))
            holder.send()
        used = {line["session"] for line in front.log_lines() if line["outcome"] == "ok"}
        if len(used) != _SESSIONS:
            raise RuntimeError(f"{_SESSIONS} first calls went to {sorted(used)}")
    return found


def _direct(service: Service, calls: int) -> list[_Slot]:
    found = []
    # One session more than is measured: its calls warm the client.
    with services.session_pod(service, _SESSIONS + 1) as pod, preferred(services.pids(pod)):
        with Caller(pod.base_port + _SESSIONS, service.inputs) as caller:
            caller.p50(calls)
        for slot in range(_SESSIONS):
            with Caller(pod.base_port + slot, service.inputs) as caller:
                found.append(_slot(caller, calls))  # the session accepts the connection within the first call
    return found


def _holding(service: Service) -> Service:
    """The service with one input more, which makes a call sleep."""
    code = f"""{service.code}

def predict_and_hold(age, sex, bmi, bp, hold):
    if hold:
        import time
        time.sleep(hold)
    return predict(age, sex, bmi, bp)
"""
    inputs = {**service.inputs, "hold": 0}
    declared = [*service.revision["inputs"], {"name": "hold", "type": "numeric"}]
    changed = {"entrypoint": "service:predict_and_hold", "warmup": inputs, "inputs": declared}
    return replace(service, code=code, inputs=inputs, revision={**service.revision, **changed})


def _shown(slots: list[_Slot]) -> str:
    return ", ".join(f"{slot.ratio:.2f}" for slot in slots)
