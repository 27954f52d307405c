"""Which role may do what: one table, and no I/O.

Machine Learning Server's roles: Owner may do everything; Contributor publishes, and does as they like with what they
own; Reader lists and calls. Here somebody without a role does not exist, as every user has one.

An object's owner is who published it. What kubectl or GitOps made has no owner (""), and takes an Owner to change.
The gateway decides on `CONSUME` by itself: whoever has a valid token may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from sessionpools.web.auth.errors import Denied
from sessionpools.web.auth.identity import Principal, Role

__all__ = ["RULES", "Action", "Decision", "Rule", "may", "require"]


class Action(StrEnum):
    """What a request does; with the routes that do it. N and V are a service's name and version."""

    LIST_SERVICES = "list-services"  # GET /services[/N[/V]]
    READ_SWAGGER = "read-swagger"  # GET /api/N/V/swagger.json
    CONSUME = "consume"  # POST /api/N/V, by the gateway
    PUBLISH_SERVICE = "publish-service"  # POST /services/N[/V]
    UPDATE_SERVICE = "update-service"  # PATCH /services/N/V
    DELETE_SERVICE = "delete-service"  # DELETE /services/N/V
    READ_LOGS = "read-logs"  # GET /services/N/V/logs; code may print what callers have sent
    READ_POOL = "read-pool"  # GET /services/N/V/pool
    WRITE_POOL = "write-pool"  # POST /services/N/V/pool; the owner is the service's
    DELETE_POOL = "delete-pool"  # DELETE /services/N/V/pool; the owner is the service's
    START_BATCH = "start-batch"  # POST /api/N/V/batch
    LIST_BATCHES = "list-batches"  # GET /api/N/V/batch: those that READ_BATCH allows
    READ_BATCH = "read-batch"  # GET /api/N/V/batch/ID[/INDEX/files...]; the owner is who started it
    CANCEL_BATCH = "cancel-batch"  # DELETE /api/N/V/batch/ID
    CREATE_SESSION = "create-session"  # POST /sessions
    LIST_SESSIONS = "list-sessions"  # GET /sessions: those that USE_SESSION allows
    USE_SESSION = "use-session"  # everything under /sessions/ID
    LIST_SNAPSHOTS = "list-snapshots"  # GET /snapshots: those that USE_SNAPSHOT allows
    USE_SNAPSHOT = "use-snapshot"  # everything under /snapshots/ID, and publishing from it
    READ_STATUS = "read-status"  # GET /status
    READ_COMPUTE_NODES = "read-compute-nodes"  # GET /computenodes
    WRITE_COMPUTE_NODES = "write-compute-nodes"  # POST, PUT, DELETE /computenodes


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may: `least` on what is their own or nobody's in particular, `others` on what another, or nobody, owns."""

    doing: str  # as the message says it: "may not" + doing
    least: Role
    others: Role


def _rule(doing: str, least: Role, others: Role | None = None) -> Rule:
    return Rule(doing, least, least if others is None else others)


_OWNER, _CONTRIBUTOR, _READER = Role.OWNER, Role.CONTRIBUTOR, Role.READER

RULES: Final[Mapping[Action, Rule]] = MappingProxyType(
    {
        Action.LIST_SERVICES: _rule("list services", _READER),
        Action.READ_SWAGGER: _rule("read a service's description", _READER),
        Action.CONSUME: _rule("call a service", _READER),
        Action.PUBLISH_SERVICE: _rule("publish a service", _CONTRIBUTOR, _OWNER),
        Action.UPDATE_SERVICE: _rule("update a service", _CONTRIBUTOR, _OWNER),
        Action.DELETE_SERVICE: _rule("delete a service", _CONTRIBUTOR, _OWNER),
        Action.READ_LOGS: _rule("read the logs of a service", _CONTRIBUTOR, _OWNER),
        Action.READ_POOL: _rule("see a pool's status", _READER),
        Action.WRITE_POOL: _rule("create or change the pool of a service", _CONTRIBUTOR, _OWNER),
        Action.DELETE_POOL: _rule("delete the pool of a service", _CONTRIBUTOR, _OWNER),
        Action.START_BATCH: _rule("start a batch", _READER),
        Action.LIST_BATCHES: _rule("list batches", _READER),
        Action.READ_BATCH: _rule("read a batch", _READER, _OWNER),
        Action.CANCEL_BATCH: _rule("cancel a batch", _READER, _OWNER),
        Action.CREATE_SESSION: _rule("create a session", _CONTRIBUTOR),
        Action.LIST_SESSIONS: _rule("list sessions", _CONTRIBUTOR),
        Action.USE_SESSION: _rule("use a session", _CONTRIBUTOR, _OWNER),
        Action.LIST_SNAPSHOTS: _rule("list snapshots", _CONTRIBUTOR),
        Action.USE_SNAPSHOT: _rule("use a snapshot", _CONTRIBUTOR, _OWNER),
        Action.READ_STATUS: _rule("see the status", _READER),
        Action.READ_COMPUTE_NODES: _rule("list compute nodes", _OWNER),
        Action.WRITE_COMPUTE_NODES: _rule("change compute nodes", _OWNER),
    }
)

_RANK: Final = {Role.READER: 0, Role.CONTRIBUTOR: 1, Role.OWNER: 2}


@dataclass(frozen=True, slots=True)
class Decision:
    """True if allowed; else `message` says which role it takes."""

    allowed: bool
    message: str = ""

    def __bool__(self) -> bool:
        return self.allowed


def may(principal: Principal, action: Action, owner_of_object: str | None = None) -> Decision:
    """Whether `principal` may do this to an object of `owner_of_object`: "" if nobody owns it, None if there is no
    object yet or none in particular."""
    rule = RULES[action]
    theirs = owner_of_object is None or owner_of_object == principal.name
    needed = rule.least if theirs else rule.others
    if _RANK[principal.role] >= _RANK[needed]:
        return Decision(True)
    whose = "" if theirs else f" of {owner_of_object!r}" if owner_of_object else " that nobody owns"
    remedy = f"it takes the role {needed}"
    if not theirs and owner_of_object and rule.least != rule.others:
        remedy += f", or {owner_of_object!r}"
    return Decision(False, f"{principal.name!r} ({principal.role}) may not {rule.doing}{whose}: {remedy}")


def require(principal: Principal, action: Action, owner_of_object: str | None = None) -> None:
    """Raise Denied if `may` says no."""
    decision = may(principal, action, owner_of_object)
    if not decision:
        raise Denied(decision.message)
