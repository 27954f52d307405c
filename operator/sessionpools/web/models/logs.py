"""GET /services/N/V/logs: what Machine Learning Server kept on each of its nodes."""

from __future__ import annotations

from sessionpools.web.models.base import Answer

__all__ = ["PodLog", "ServiceLogs"]


class PodLog(Answer):
    """The end of a session pod's log."""

    node: str
    compute_node_endpoint: str
    pod: str
    lines: list[str]
    """As they were written, the newest last; none from a pod that has not started. What calls print is in lines of JSON
    whose `event` is `console`."""
    cut: bool = False
    """There are fewer lines than were asked for, or only the beginning of one, as the last ones are large."""
    error: str | None = None
    """Why they could not be read."""


class ServiceLogs(Answer):
    """What the sessions of a service have written last, by node and pod."""

    name: str
    version: str
    pods: list[PodLog]
    not_read: int
    """Further session pods; those that are not ready are read first. Name a node."""
