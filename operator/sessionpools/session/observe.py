"""What the control port says of a pod: read from the supervisor, never changed.

Called by the control server (an answer) and the supervisor (once a second).
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from sessionpools.session import control, linux
from sessionpools.session.config import Paths, RevisionSpec, Settings
from sessionpools.session.keeper import SlotKeeper
from sessionpools.session.loop import Loop

# Reading a session's memory walks its page tables, milliseconds for a large one: seldom, and only when somebody looks.
_MEMORY_SECONDS = 30.0


class Pod(Protocol):
    """What is read of the supervisor."""

    paths: Paths
    spec: RevisionSpec
    loop: Loop
    keeper: SlotKeeper
    phase: str
    phase_at: float
    message: str
    signature: Any
    threads: list[str]
    template_restarts: int

    def is_ready(self) -> bool:
        """Whether the pod may be sent callers."""

    def settings(self) -> Settings:
        """What gateways may count on."""


class Observer:
    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._asked = False

    def answer(self, path: str) -> control.Answer:
        pod = self._pod
        if path == "/signature":
            return control.json_answer(200 if pod.signature else 503, pod.signature or {})
        if path not in ("/livez", "/readyz", "/sessions", "/metrics"):
            return 404, "text/plain", b"GET /livez /readyz /sessions /signature /metrics\n"
        view = self.view()
        if path == "/metrics":
            rows = [(number, slot.row) for number, slot in sorted(pod.keeper.slots.items())]
            body = control.metrics(view, rows, pod.keeper.ends, pod.template_restarts)
            self._asked = True
            return 200, "text/plain; version=0.0.4", body
        self._asked = self._asked or path == "/sessions"
        good = {"/livez": pod.phase != "failed", "/readyz": view["ready"]}.get(path, True)
        return control.json_answer(200 if good else 503, view)

    def view(self) -> dict[str, Any]:
        pod, now_ns = self._pod, time.monotonic_ns()
        return {
            "pool": pod.paths.pool,
            "service": pod.spec.name,
            "version": pod.spec.version,
            "phase": pod.phase,
            "phaseSeconds": round(pod.loop.now() - pod.phase_at, 3),
            "ready": pod.is_ready(),
            "message": pod.message,
            "settings": pod.settings().as_json(),
            "warmed": pod.spec.warmup is not None,
            "threads": pod.threads,
            "sessions": [control.slot_view(slot, now_ns) for _, slot in sorted(pod.keeper.slots.items())],
        }

    def tick(self) -> None:
        """Measure one session whose figure is old, if anybody has asked since the last."""
        if not self._asked:
            return
        now = self._pod.loop.now()
        for session in self._pod.keeper.sessions():
            if session.pid and session.memory_at < now - _MEMORY_SECONDS:
                session.memory_bytes = linux.memory_bytes(session.pid)
                session.memory_at = now
                return
        self._asked = False
