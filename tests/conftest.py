"""Fixtures for tests on the real cluster, of which nothing happens before a test asks for one of them; and at the end
of a run what the simulation has covered.
"""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from support.cluster import CONTEXT, kubectl, require_cluster, temporary_namespace
from support.seed import SEED
from support.tally import TALLY
from support.tools import ROOT

# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


def pytest_report_header() -> str:
    return "simulation: " + (f"SIMULATION_SEED={SEED}" if SEED is not None else "the same as each time")


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:  # one of several processes (pytest-xdist)
        output["tally"] = TALLY.parts()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    TALLY.merge(*getattr(node, "workeroutput", {}).get("tally", ({}, {}, [])))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lines := list(TALLY.lines()):
        terminalreporter.section("the simulation has covered")
        for line in lines:
            terminalreporter.line(line)
        if SEED is not None:
            terminalreporter.line(f"the same again: SIMULATION_SEED={SEED}")


@pytest.fixture(scope="session")
def kube_context() -> str:
    """The kubectl context of the test cluster, which answers."""
    require_cluster()
    return CONTEXT


@pytest.fixture(scope="session")
def crds(kube_context: str) -> None:
    """The kinds, known to the test cluster as the chart installed them: applied here they would no longer be Helm's."""
    done = kubectl(
        "wait", "--for=condition=Established", "--timeout=60s", "--filename", str(ROOT / "crds"), check=False
    )
    if done.returncode:
        pytest.fail(f"the CRDs are not installed: {done.stderr.strip()}\n`make deploy` installs them.", pytrace=False)


@pytest.fixture
def namespace(kube_context: str) -> Iterator[str]:
    """A namespace of the test's own."""
    with temporary_namespace() as name:
        yield name
