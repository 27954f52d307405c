"""Microsoft's client beside ours, its client with our MLServer, and its published unit tests against ours.

Needs the package index: its wheel is fetched as others get it.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.environments import Environment
from support.microsofts import ON_A_NEW_PYTHON, UNIT_TESTS, install_microsofts
from support.restapi import RestApi

# Its unit tests, one by one: what becomes of each against ours, and why.
LISTED = Path(__file__).with_name("microsofts_unit_tests.txt")

ROUND = """
import numpy as np, pandas as pd
from azureml.deploy import DeployClient
from azureml.common.http_client import HttpException

client = DeployClient({url!r}, use=MLServer, auth=("admin", "secret"))
assert client.list_services() == []
intercept, slope = np.float64(10), np.array([1.0, 2.0])

code = "answer = float(intercept + hp * slope[0] + wt * slope[1])"
service = client.deploy_service(
    "mtcars", version="v1", code_str=code, objects={{"slope": slope}}, models={{"intercept": intercept}},
    inputs={{"hp": float, "wt": float}}, outputs={{"answer": float}}, alias="manual", artifacts=["plot.png"],
)
assert [each["version"] for each in client.list_services("mtcars")] == ["v1"]
response = client.get_service("mtcars", version="v1").manual(1, 2)
assert response.output("answer") == 15.0, response
assert response.artifact("plot.png") == b"plotted"
batch = service.batch(pd.DataFrame({{"hp": [1.0, 3.0], "wt": [2.0, 4.0]}}), parallel_count=2).start()
results = batch.results()
assert (results.state, [results.execution(n).output("answer") for n in (0, 1)]) == ("complete", [15.0, 21.0])
assert service.list_batch_executions() == [batch.execution_id]
batch.cancel()
service = client.redeploy_service("mtcars", version="v1", code_str="answer = hp * wt")
assert service.capabilities()["inputs"][0]["name"] == "hp"
assert getattr(service, service.capabilities()["operation_id"])(3, 4).output("answer") == 12.0
{pools}
assert client.delete_service("mtcars", version="v1") is True
try:
    client.delete_service("mtcars", version="v1")
except HttpException as error:
    assert (error.status, error.reason) == (404, "Not Found")
    print("done", type(client).__mro__[1].__module__)
"""
POOLS = """
assert repr(client.create_or_update_service_pool("mtcars", "v1", 1, 2)) == "<Response [200]>"
assert client.get_service_pool_status("mtcars", "v1")[0]["status"] == "Success"
assert repr(client.delete_service_pool("mtcars", "v1")) == "<Response [200]>"
"""


@pytest.fixture(scope="module")
def microsofts(environments: Path) -> Environment:
    """With both, as who migrates has it."""
    made = Environment(environments / "microsofts")
    made.install_ours()
    install_microsofts(made)
    return made


def test_its_client_stays_its_own(microsofts: Environment) -> None:
    told = microsofts.run("import azureml.deploy as d; print(d.__file__, d.DeployClient.__module__)")
    assert told.split() == [str(microsofts.site / "azureml" / "deploy" / "__init__.py"), "azureml.deploy.deploy_client"]


def test_its_client_goes_through_the_life_of_a_service(microsofts: Environment, api: RestApi) -> None:
    lines = [ON_A_NEW_PYTHON, "from azureml.deploy.server import MLServer", ROUND.format(url=api.url, pools="")]
    assert microsofts.run("\n".join(lines)) == "done azureml.deploy.server.mlserver"
    assert (api.sessions, api.snapshots, api.services) == ({}, {}, {})


@pytest.mark.parametrize("first", ["azureml.deploy", "sessionpools_azureml.deploy.server"])
def test_its_deploy_client_takes_our_class_and_then_has_pools(
    microsofts: Environment, api: RestApi, first: str
) -> None:
    """On a new Python without any help, whichever is imported first."""
    lines = [
        ON_A_NEW_PYTHON.partition("import azureml.common.utils")[0],
        f"import {first}",
        "from sessionpools_azureml.deploy.server import MLServer",
        ROUND.format(url=api.url, pools=POOLS),
    ]
    assert microsofts.run("\n".join(lines)) == "done sessionpools_azureml.deploy.server.mlserver"


def test_its_published_unit_tests_pass_but_for_those_that_are_about_its_own_files(
    microsofts: Environment, installed: Environment, tmp_path: Path
) -> None:
    """Against ours, in the environment that has nothing of Microsoft's but these tests."""
    for part in ("deploy", "common"):
        shutil.copytree(microsofts.site / UNIT_TESTS / part, tmp_path / part)
    installed.install("pytest-mock", "requests-mock")
    done = subprocess.run(
        [
            str(installed.python),
            "-m",
            "pytest",
            "-q",
            "-rA",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "deploy",
            "common",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    outcome = re.findall(r"^(PASSED|FAILED|ERROR) (\S+::\S+)", done.stdout, re.M)
    listed = [line.split() for line in LISTED.read_text().splitlines() if not line.startswith("#")]
    assert {name: kind for kind, name in outcome} == {name: kind for kind, name, *_ in listed}, done.stdout
