"""Which changes of a pool's status its readers have to hear of at once, and which tell no more than how far it is."""

from sessionpools.api.v1alpha1 import SessionPoolStatus

__all__ = ["only_progress"]


def only_progress(before: SessionPoolStatus, after: SessionPoolStatus) -> bool:
    """Whether only counts, rows of nodes and messages differ: a pool that fills hundreds of session pods has another
    count each second."""
    return _news(before) == _news(after)


def _news(status: SessionPoolStatus) -> tuple[object, ...]:
    conditions = [(c.type, c.status, c.reason) for c in status.conditions]
    return status.observed_generation, status.state, status.image, status.revision, conditions
