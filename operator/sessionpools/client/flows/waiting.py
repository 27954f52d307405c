"""Asking again until something holds."""

from collections.abc import Callable
from typing import Final, TypeVar

from sessionpools.client.errors import WaitTimeout
from sessionpools.client.exchange import Clock, Flow, Sleep

__all__ = ["Progress", "until"]

T = TypeVar("T")
Progress = Callable[[T], object]

_FIRST_PAUSE_SECONDS: Final = 0.25  # a session of an isolation Process pool is ready within a second
_LONGEST_PAUSE_SECONDS: Final = 5.0
_GROWTH: Final = 1.3


def until(
    ask: Callable[[], Flow[T]],
    done: Callable[[T], bool],
    *,
    timeout: float,
    clock: Clock,
    what: Callable[[T], str],
    progress: Progress[T] | None = None,
) -> Flow[T]:
    """What `ask` gives when `done` holds for it; each different answer on the way goes to `progress`.

    `what` says in a word where it stands, for the message. Raises WaitTimeout after `timeout` seconds, and what `ask`
    and `done` raise.
    """
    deadline = clock.monotonic() + timeout
    pause = _FIRST_PAUSE_SECONDS
    last: T | None = None
    while True:
        found = yield from ask()
        if progress is not None and found != last:
            progress(found)
        last = found
        if done(found):
            return found
        left = deadline - clock.monotonic()
        if left <= 0:
            raise WaitTimeout(f"{what(found)} after {timeout:g} s", found)
        yield Sleep(min(pause * (0.9 + clock.random() / 5), left))
        pause = min(pause * _GROWTH, _LONGEST_PAUSE_SECONDS)
