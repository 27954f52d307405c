"""Clients of Machine Learning Server against Session Pools as installed: the lines of the documentation, unchanged; the
SDK and the command line; and Microsoft's own client.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessionpools.client import CallFailed, Client, NotFound, PoolUsage
from support.cluster import wait_for
from support.environments import Environment
from support.microsofts import ON_A_NEW_PYTHON, install_microsofts
from support.secured import Secured

PORT = 12800  # as the documentation has it
READY_SECONDS = 180


@pytest.fixture(scope="module")
def url(release: Secured) -> Iterator[str]:
    """The gateway, at the address that the documentation gives."""
    with release.forwarded(PORT):
        yield f"http://localhost:{PORT}"


@pytest.fixture(scope="module")
def password(release: Secured) -> str:
    return release.password


@pytest.fixture(scope="module")
def client(url: str, password: str) -> Iterator[Client]:
    with Client(url, user="admin", password=password) as made:
        yield made


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


@contextlib.contextmanager
def published(client: Client, name: str, version: str = "v1.0.0") -> Iterator[None]:
    """Whatever the test publishes under this name is gone afterwards."""
    try:
        yield
    finally:
        with contextlib.suppress(NotFound):
            client.services.delete(name, version)
        client.pools.delete(name, version)
        client.pools.wait_until_gone(name, version, timeout=READY_SECONDS)


SNIPPET = """
from azureml.deploy import DeployClient
from azureml.deploy.server import MLServer
client = DeployClient("http://localhost:12800", use=MLServer, auth=("admin", "..."))
client.list_services()
client.create_or_update_service_pool(name="myWebservice1234", version="v1.0.0", initial_pool_size=5, max_pool_size=10)
client.get_service_pool_status(name="myWebservice1234", version="v1.0.0")
client.delete_service_pool(name="myWebservice1234", version="v1.0.0")
"""
# What is looked at between the lines; the lines stay as they are.
LOOKED_AT = """
import json, time

def until(wanted):
    deadline = time.monotonic() + %d
    while True:
        rows = client.get_service_pool_status(name="myWebservice1234", version="v1.0.0")
        states = {row["status"] for row in rows}
        if states == {wanted}:
            return len(rows)
        assert time.monotonic() < deadline, rows
        time.sleep(1)
"""


def test_the_lines_of_the_documentation_run_unchanged(
    client: Client, url: str, password: str, environments: Path
) -> None:
    """In an environment that has our clients and nothing of Microsoft's."""
    environment = Environment(environments / "ours")
    environment.install_ours()
    lines = SNIPPET.replace('"..."', json.dumps(password)).strip().splitlines()
    *before, create, status, delete = lines
    looked_at = [
        *before,
        LOOKED_AT % READY_SECONDS,
        f"assert repr({create}) == '<Response [200]>'",
        f"assert {{row['status'] for row in {status}}} <= {{'Pending', 'Success'}}",
        "print(until('Success'))",
        f"assert repr({delete}) == '<Response [200]>'",
        "print(until('NotFound'))",
    ]
    with published(client, "myWebservice1234"):
        client.services.publish(
            "myWebservice1234", "v1.0.0", "y = 2 * x\n", script=True, inputs={"x": float}, outputs={"y": float}
        )
        assert environment.run("\n".join(looked_at)).split() == ["2", "2"]


MICROSOFTS = """
import time
import numpy as np, pandas as pd
from azureml.deploy import DeployClient
from azureml.deploy.server import MLServer
from azureml.common.http_client import HttpException

client = DeployClient({url!r}, use=MLServer, auth=("admin", {password!r}))

def until(seconds, made, wanted):
    deadline = time.monotonic() + seconds
    while not wanted(value := made()):
        assert time.monotonic() < deadline, value
        time.sleep(1)
    return value
"""
PUBLISH = """
from sklearn.linear_model import LinearRegression

cars = pd.DataFrame({{"hp": [0.0, 1.0, 0.0], "wt": [0.0, 0.0, 1.0]}})
model = LinearRegression().fit(cars[["hp", "wt"]], np.array([10.0, 11.0, 12.0]))
code = "\\n".join([
    "cars = cars[:1].assign(hp=hp, wt=wt)",
    "answer = round(float(model.predict(cars)[0]) * scale[0], 6)",
    "open('plot.png', 'wb').write(b'plotted')",
])
service = client.deploy_service(
    "mtcars", version="v1", code_str=code,
    objects={{"cars": cars, "scale": np.array([1.0])}}, models={{"model": model}},
    inputs={{"hp": float, "wt": float}}, outputs={{"answer": float}}, alias="manual", artifacts=["plot.png"],
)
assert [each["version"] for each in client.list_services("mtcars")] == ["v1"]
print("published")
"""
CONSUME = """
service = client.get_service("mtcars", version="v1")
response = service.manual(1, 2)
assert response.output("answer") == 15.0, response
assert response.artifact("plot.png") == b"plotted"
batch = service.batch(pd.DataFrame({{"hp": [1.0, 3.0], "wt": [2.0, 4.0]}}), parallel_count=2).start()
results = until(60, batch.results, lambda results: results.state == "complete")
assert [results.execution(n).output("answer") for n in (0, 1)] == [15.0, 21.0]
assert service.list_batch_executions() == [batch.execution_id]
batch.cancel()
service = client.redeploy_service("mtcars", version="v1", code_str="answer = hp * wt")
assert service.capabilities()["inputs"][0]["name"] == "hp"
call = getattr(service, service.capabilities()["operation_id"])
until({seconds}, lambda: call(3, 4).output("answer"), lambda answer: answer == 12.0)
assert client.delete_service("mtcars", version="v1") is True
try:
    client.delete_service("mtcars", version="v1")
except HttpException as error:
    assert (error.status, error.reason) == (404, "Not Found")
    print("deleted")
"""


def test_microsofts_client_goes_through_the_life_of_a_service(
    client: Client, url: str, password: str, environments: Path
) -> None:
    """Its files as they were published; the pool is made by ours, as it has no function for it."""
    environment = Environment(environments / "microsofts")
    install_microsofts(environment)
    said = {"url": url, "password": password, "seconds": READY_SECONDS}

    def run(lines: str) -> str:
        return environment.run("\n".join([ON_A_NEW_PYTHON, MICROSOFTS.format(**said), lines.format(**said)]))

    with published(client, "mtcars", "v1"):
        assert run(PUBLISH) == "published"
        client.pools.create_or_update("mtcars", "v1", 1, 2)
        client.pools.wait_until_ready("mtcars", "v1", timeout=READY_SECONDS)
        assert run(CONSUME) == "deleted"


def test_a_function_is_published_pooled_called_and_updated(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "score.py"
    path.write_text(
        "import pandas as pd\n\ndef predict(rows: pd.DataFrame, factor: float = 2) -> list[float]:\n"
        "    print(len(rows))\n    return (rows['bmi'] * factor).tolist()\n"
    )
    with published(client, "SdkScore"):
        client.services.publish("SdkScore", "v1.0.0", path, warmup={"rows": {"bmi": [1.0]}})
        client.pools.create_or_update("SdkScore", "v1.0.0", 1, 2)
        seen: list[PoolUsage] = []
        pool = client.pools.wait_until_ready("SdkScore", "v1.0.0", timeout=READY_SECONDS, progress=seen.append)
        assert (pool.ready, {node.status for node in pool.nodes}) == (2, {"Success"})
        assert seen[0].status == "Pending"
        result = client.call("SdkScore", "v1.0.0", rows={"bmi": [20.5, None]})
        assert result.output() == [41.0, None]
        assert result.console == "2\n"
        with pytest.raises(CallFailed, match="KeyError"):
            client.call("SdkScore", "v1.0.0", rows={"age": [1]})
        batch = client.batches.start("SdkScore", "v1.0.0", [{"rows": {"bmi": [n]}} for n in range(20)], parallel=4)
        status = client.batches.wait(batch, timeout=120)
        assert [item.output() for item in status.results] == [[2.0 * n] for n in range(20)]
        path.write_text(path.read_text().replace("* factor", "* factor + 1"))
        client.services.update("SdkScore", "v1.0.0", path)
        wait_for(
            lambda: client.call("SdkScore", "v1.0.0", rows={"bmi": [1]}).output() == [3.0],
            READY_SECONDS,
            "the new code",
        )
        usage = client.pools.usage("SdkScore", "v1.0.0")
        assert usage.gateways >= 1
        assert usage.busy + usage.idle >= 2


def test_the_command_line_publishes_pools_and_calls(
    client: Client, url: str, password: str, environments: Path, tmp_path: Path
) -> None:
    environment = Environment(environments / "command-line")
    environment.install_ours()
    (tmp_path / "cli_score.py").write_text("def predict(x: float) -> float:\n    return x + 1\n")

    def sessionpools(*arguments: str, typed: str = "") -> str:
        done = subprocess.run(
            [str(environment.folder / "bin" / "sessionpools"), *arguments],
            input=typed,
            capture_output=True,
            text=True,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            timeout=READY_SECONDS + 60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with published(client, "cli_score", "v1"):
        sessionpools("login", url, "--password-stdin", typed=f"{password}\n")
        sessionpools("publish", str(tmp_path / "cli_score.py"), "--warmup", '{"x": 1}')
        sessionpools("pools", "set", "cli_score", "v1", "--initial", "1", "--max", "2", "--watch")
        assert sessionpools("call", "cli_score", "v1", "x=41") == "42.0\n"
        assert "cli_score" in sessionpools("usage")
        assert sessionpools("status").splitlines()[1].split()[1] == "pass"
        sessionpools("logout")
