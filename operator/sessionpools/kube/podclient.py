"""Asks session pods on their control port what they do. One that does not answer in time has no report.

All that are asked for at a time are asked at once: how many those are is for the caller to bound.
"""

import asyncio
import json
import math
from collections.abc import Iterable
from typing import Any

import aiohttp

from sessionpools.api import names
from sessionpools.core.model import PodView, SessionReport

__all__ = ["PodClient"]

TIMEOUT_SECONDS = 1.0
ANSWER_AT_MOST_BYTES = 256 * 1024  # the pod runs users' code: what it says is bounded and checked


class PodClient:
    def __init__(self, port: int = names.CONTROL_PORT) -> None:
        self._port = port
        self._session: aiohttp.ClientSession | None = None

    async def reports(self, pods: Iterable[PodView]) -> dict[str, SessionReport]:
        """What the pods that answered said, by pod uid."""
        asked = list(pods)
        answers = await asyncio.gather(*(self._get(pod, "/sessions") for pod in asked))
        parsed = ((pod.uid, _report(answer)) for pod, answer in zip(asked, answers, strict=True))
        return {uid: report for uid, report in parsed if report is not None}

    async def signature(self, pod: PodView) -> dict[str, Any] | None:
        """`{"inputs": [...], "outputs": [...]}` of the service as it runs in this pod."""
        answer = await self._get(pod, "/signature")
        return answer if isinstance(answer, dict) else None

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def _get(self, pod: PodView, path: str) -> Any:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
            # No limit of connections in common: the silent pods of one pool would have the others' pods wait.
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=False)
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        url = f"http://{host}:{self._port}{path}"
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                body = await response.content.read(ANSWER_AT_MOST_BYTES + 1)
                while len(body) <= ANSWER_AT_MOST_BYTES and (more := await response.content.read(65536)):
                    body += more
                if response.status != 200 or len(body) > ANSWER_AT_MOST_BYTES:
                    return None
                return json.loads(body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError):
            return None


def _report(answer: Any) -> SessionReport | None:
    try:
        states = [str(session["state"]) for session in answer["sessions"]]
        return SessionReport(
            ready_sessions=sum(state in ("idle", "busy") for state in states),
            busy_sessions=states.count("busy"),
            phase=str(answer["phase"])[:200],
            phase_seconds=_bounded(answer["phaseSeconds"]),
            initial_seen=int(answer["settings"]["initialPoolSize"]),
            max_seen=int(answer["settings"]["maxPoolSize"]),
            warmed=bool(answer["warmed"]),
            threads=tuple(str(thread)[:100] for thread in answer["threads"][:20]),
            idle_seconds=min((_bounded(s.get("idleSeconds", 0.0)) for s in answer["sessions"]), default=0.0),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _bounded(seconds: Any) -> float:
    number = float(seconds)
    return min(max(number, 0.0), 1e9) if math.isfinite(number) else 0.0
