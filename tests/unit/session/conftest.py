"""The fixture of the session runtime's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from support.runtime_pod import Pod


class StartPod(Protocol):
    def __call__(self, code: str, *, ready: bool = True, **options: Any) -> Pod: ...


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of tests are on loopback, whatever proxies this machine's user has."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def start_pod(tmp_path: Path) -> Iterator[StartPod]:
    """Start a pod with this service.py; it and all that it started end with the test."""
    pods: list[Pod] = []

    def start(code: str, *, ready: bool = True, **options: Any) -> Pod:
        pod = Pod(tmp_path / f"pod-{len(pods)}", code, **options)
        pods.append(pod)
        pod.start()
        return pod.wait_ready() if ready else pod

    yield start
    for pod in pods:
        pod.stop()
