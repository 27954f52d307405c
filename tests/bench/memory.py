"""Memory of whole session pods, and what one more session costs beside one more interpreter.

Proportional set size after 100 calls to each session: pages that processes share count by share, pages that only one
has count in full. Run it while nothing else on the machine uses the same libraries; what they share would be divided.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TypeVar

from bench import bars, services
from bench.client import Caller
from bench.figures import Figure, figure, progress
from support.runtime_pod import Pod

T = TypeVar("T")

_CALLS = 100
_MANY = 6


def measure(quick: bool) -> list[Figure]:
    del quick  # it takes what it takes: starting processes
    service = services.diabetes()
    process = {count: _sessions(service, count) for count in (1, _MANY)}
    pods = _each(lambda: services.session_pod(service), _pod_memory, "pod", service)
    interpreters = _each(
        lambda: services.own_interpreter(service, _CALLS), lambda pid: _memory([pid]), "interpreter", service
    )
    further = (process[_MANY] - process[1]) / (_MANY - 1)
    further_interpreter = (interpreters[-1] - interpreters[0]) / (_MANY - 1)
    return [
        figure(bars.MEMORY, further / further_interpreter, "x"),
        figure("pod with 1 session", process[1], "MB PSS"),
        figure("pod with 6 sessions, Process", process[_MANY], "MB PSS"),
        figure("6 pods with 1 session each, Pod", pods[-1], "MB PSS"),
        figure("further session, Process", further, "MB PSS"),
        figure("further session, Pod", (pods[-1] - pods[0]) / (_MANY - 1), "MB PSS"),
        figure("further interpreter without Session Pools", further_interpreter, "MB PSS"),
    ]


def _sessions(service: services.Service, count: int) -> float:
    with services.session_pod(service, initial=count) as pod:
        _call_all(pod, service, count)
        found = _pod_memory(pod)
        progress(f"memory: Process, {count} sessions: {found:.0f} MB")
        return found


def _each(
    start: Callable[[], AbstractContextManager[T]],
    memory: Callable[[T], float],
    what: str,
    service: services.Service,
) -> list[float]:
    """The memory of all after one was started, after two, ..."""
    found = []
    with ExitStack() as stack:
        started: list[T] = []
        for _ in range(_MANY):
            one = stack.enter_context(start())
            if isinstance(one, Pod):
                _call_all(one, service, 1)
            started.append(one)
            found.append(sum(memory(item) for item in started))
        progress(f"memory: 1 {what}: {found[0]:.0f} MB, {_MANY} of them: {found[-1]:.0f} MB")
    return found


def _call_all(pod: Pod, service: services.Service, count: int) -> None:
    for slot in range(count):
        with Caller(pod.base_port + slot, service.inputs) as caller:
            for _ in range(_CALLS):
                caller.call()


def _pod_memory(pod: Pod) -> float:
    return _memory(services.pids(pod))


def _memory(pids: Iterable[int]) -> float:
    """PSS of processes, in MB."""
    return sum(_pss_kb(pid) for pid in pids) / 1000


def _pss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError(f"no PSS of process {pid}")
