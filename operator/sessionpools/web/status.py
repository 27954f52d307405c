"""GET /status: a tree of `{statusCode, components, details}`, pass, warn or fail, as Machine Learning Server had it.

A component is as bad as the worst of those below it, but for a compute node that fails while others do not: that is a
warning for all of them. What ML Server told of its generic pool's shells is 0 while there is no generic pool; what it
never told, the sessions of dedicated pools, stands beside it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sessionpools.api.v1alpha1 import Placement, SessionPool
from sessionpools.core.model import NodeView
from sessionpools.core.placement import Place, place
from sessionpools.web.poolrows import endpoint

__all__ = ["FAIL", "PASS", "WARN", "Part", "backends", "tree"]

PASS: Final = "pass"  # noqa: S105
WARN: Final = "warn"
FAIL: Final = "fail"
_RANK: Final = {PASS: 0, WARN: 1, FAIL: 2}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """One that has no further parts: `trouble` is "" when all is well, and then `code` is pass."""

    code: str
    details: Mapping[str, Any]

    def to_json(self) -> Json:
        return {"statusCode": self.code, "components": None, "details": dict(self.details)}


def tree(components: Mapping[str, Json], details: Mapping[str, Any]) -> Json:
    """The whole, or a part with parts."""
    return {
        "statusCode": _worst(each["statusCode"] for each in components.values()),
        "components": dict(components),
        "details": dict(details),
    }


def backends(nodes: Sequence[NodeView], pools: Sequence[SessionPool]) -> Json:
    """The compute nodes, by their endpoints."""
    places = [place(Placement(), node) for node in nodes]
    parts = {endpoint(each.node.name): _node(each, pools).to_json() for each in places if each.compute_node}
    whole = tree(parts, {})
    codes = [each["statusCode"] for each in parts.values()]
    if not codes:
        return whole | {"statusCode": FAIL, "details": {"message": "there is no compute node: no node takes sessions"}}
    if FAIL in codes and any(code != FAIL for code in codes):
        whole["statusCode"] = WARN
    return whole


def _node(where: Place, pools: Iterable[SessionPool]) -> Part:
    rows = [row for pool in pools for row in pool.status.nodes if row.name == where.node.name]
    details: Json = {
        "pythonMaxPoolSize": 0,
        "pythonActiveShellCount": 0,
        "pythonCurrentPoolSize": 0,
        "pythonCanOpenShell": "False",
        "dedicatedPools": len(rows),
        "dedicatedSessionsDesired": sum(row.desired for row in rows),
        "dedicatedSessionsReady": sum(row.ready for row in rows),
        "apiVersion": "1.0",
    }
    if where.closed:
        details["message"] = where.closed.message
    return Part(FAIL if not where.node.ready else WARN if where.closed else PASS, details)


def _worst(codes: Iterable[str]) -> str:
    return max(codes, key=lambda code: _RANK[code], default=PASS)
