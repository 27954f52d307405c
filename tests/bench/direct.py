"""A warm call of a session against the same function under FastAPI + uvicorn, one keep-alive connection each."""

from contextlib import ExitStack

from bench import bars, services
from bench.client import Caller
from bench.compare import Comparison, interleaved
from bench.figures import Figure, median_of, progress
from bench.priority import preferred


def measure(quick: bool) -> list[Figure]:
    ridge = _compare(services.ridge(), "Ridge", quick)
    boosting = _compare(services.diabetes(), "GradientBoosting", quick)
    return [
        median_of(bars.DIRECT_TO_DEF, ridge.ratios("def"), "x", ridge.valid),
        median_of(bars.DIRECT_TO_ASYNC, ridge.ratios("async def"), "x", ridge.valid),
        *_for_information(ridge, "Ridge"),
        median_of("GradientBoosting: direct call / FastAPI def", boosting.ratios("def"), "x"),
        median_of("GradientBoosting: direct call / FastAPI async def", boosting.ratios("async def"), "x"),
        *_for_information(boosting, "GradientBoosting"),
    ]


def _compare(service: services.Service, name: str, quick: bool) -> Comparison:
    rounds, calls = (3, 50) if quick else (13, 200)
    with ExitStack() as stack:
        progress(f"direct: start a session and two FastAPI servers with {name}")
        pod = stack.enter_context(services.session_pod(service))
        servers = {
            "session": services.Server(pod.base_port, int(pod.slot()["pid"])),
            "def": stack.enter_context(services.fastapi(service, "def")),
            "async def": stack.enter_context(services.fastapi(service, "async def")),
        }
        callers = {kind: stack.enter_context(Caller(server.port, service.inputs)) for kind, server in servers.items()}
        stack.enter_context(preferred(pid for server in servers.values() for pid in server.pids))
        for caller in callers.values():
            caller.p50(calls)  # warm, and thrown away
        progress(f"direct: {rounds} rounds of {calls} calls to each")
        return interleaved({kind: lambda c=caller: c.p50(calls) for kind, caller in callers.items()}, rounds)  # type: ignore[misc]


def _for_information(found: Comparison, name: str) -> list[Figure]:
    return [
        median_of(f"{name}: session against itself", found.control, "x"),
        median_of(f"{name}: p50 of a direct call", found.p50s("session"), "µs"),
        median_of(f"{name}: p50 under FastAPI def", found.p50s("def"), "µs"),
        median_of(f"{name}: p50 under FastAPI async def", found.p50s("async def"), "µs"),
    ]
