"""`import azureml.deploy` in real virtual environments: ours where nobody else has it, and never in the way."""

from pathlib import Path

import pytest

from support.environments import AZUREML, Environment
from support.restapi import RestApi

WHOSE = "import azureml.deploy, azureml.deploy.server; print(azureml.deploy.DeployClient.__module__)"
# How packages share a name: Microsoft's use all three.
PKGUTIL = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
THEIRS = {
    "azureml/deploy/__init__.py": "from azureml.deploy.client import DeployClient\n",
    "azureml/deploy/client.py": "class DeployClient: ...\n",
    "azureml/deploy/server/__init__.py": "",
    "azureml/common/__init__.py": "OWN = True\n",
}


@pytest.fixture
def other(installed: Environment, environments: Path, request: pytest.FixtureRequest) -> Environment:
    """A further environment with ours."""
    made = Environment(environments / request.node.name.replace("/", "-")[:80])
    made.lend(installed.site)  # its packages, and, as for each environment, not its .pth files
    made.add({"sessionpools_azureml.pth": (AZUREML / "src" / "sessionpools_azureml.pth").read_text()})
    (made.site / "zz_lent.pth").rename(made.site / "aa_lent.pth")
    made.lend(Path(next(installed.site.glob("zz_lent.pth")).read_text().strip()))
    return made


def test_where_nobody_has_it_it_is_ours(installed: Environment) -> None:
    assert installed.run(WHOSE) == "sessionpools_azureml.deploy.deploy_client"


def test_each_import_line_of_the_old_client_works(installed: Environment) -> None:
    lines = [
        "from azureml.deploy import DeployClient",
        "from azureml.deploy.server import MLServer, WebServiceService, Service, ServiceResponse, EncodingType",
        "from azureml.deploy.server import Batch, BatchResponse",
        "from azureml.deploy.server.service import Service, ServiceResponse, Batch, BatchResponse",
        "from azureml.deploy.operationalization import Operationalization, OperationalizationDefinition",
        "from azureml.deploy.operationalization import ServiceDefinition, RealtimeDefinition",
        "from azureml.common import Configuration, HttpClient",
        "from azureml.common.configuration import Configuration",
        "from azureml.common.http_client import HttpClient, HttpException",
        "import azureml.deploy.server as s; assert s.MLServer is MLServer",
    ]
    installed.run("\n".join(lines))


def test_a_class_is_the_same_whatever_it_is_imported_by(installed: Environment) -> None:
    code = (
        "import sys\n"
        "from azureml.deploy.server import MLServer\n"
        "import sessionpools_azureml.deploy.server as ours\n"
        "assert ours.MLServer is MLServer\n"
        "assert sys.modules['azureml.deploy'] is sys.modules['sessionpools_azureml.deploy']\n"
        "assert ours.__spec__.name == ours.__name__ == 'sessionpools_azureml.deploy.server'\n"
        "import importlib; importlib.reload(ours)\n"
    )
    installed.run(code)


def test_what_there_is_not_is_an_import_error_as_ever(installed: Environment) -> None:
    for name in ("azureml.core", "azureml.deploy.nothing", "azureml.deploy.server.nothing"):
        done = installed.tried(f"import {name}")
        assert f"ModuleNotFoundError: No module named '{name}'" in done.stderr


@pytest.mark.parametrize("kind", ["regular", "pkgutil", "namespace"])
def test_where_somebody_else_has_it_all_of_it_is_theirs(other: Environment, kind: str) -> None:
    package = {"regular": {"azureml/__init__.py": ""}, "pkgutil": {"azureml/__init__.py": PKGUTIL}, "namespace": {}}
    other.add({**THEIRS, **package[kind]})
    assert other.run(WHOSE) == "azureml.deploy.client"
    assert other.run("import azureml.common; print(azureml.common.OWN)") == "True"
    assert other.run("from sessionpools_azureml.deploy.server import MLServer; print(MLServer.__name__)") == "MLServer"
    # not a part of theirs is filled in from ours, which would not fit it
    assert "ModuleNotFoundError" in other.tried("import azureml.common.http_client").stderr


@pytest.mark.parametrize("kind", ["regular", "pkgutil", "namespace"])
def test_where_others_have_azureml_without_deploy_both_are_there(other: Environment, kind: str) -> None:
    package = {
        "regular": {"azureml/__init__.py": "WHO = 1\n"},
        "pkgutil": {"azureml/__init__.py": PKGUTIL},
        "namespace": {},
    }
    other.add({"azureml/core/__init__.py": "WORKSPACE = 2\n", **package[kind]})
    assert other.run(f"import azureml.core; {WHOSE}; print(azureml.core.WORKSPACE)") == (
        "sessionpools_azureml.deploy.deploy_client\n2"
    )
    assert other.run(f"{WHOSE}; import azureml.core") == "sessionpools_azureml.deploy.deploy_client"


def test_python_starts_without_noticing(installed: Environment) -> None:
    loaded = installed.run("import sys; print([n for n in sys.modules if 'sessionpools' in n or n == 'requests'])")
    assert loaded == "['_sessionpools_azureml_finder']"


def test_neither_needs_the_operators_dependencies(installed: Environment) -> None:
    code = (
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('kopf', 'kubernetes', 'aiohttp', 'yaml', 'orjson', 'uvloop'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, No())\n"
        "from azureml.deploy.server import MLServer\n"
        "from sessionpools.client import Client, AsyncClient\n"
        "from sessionpools.client.__main__ import main\n"
        "main(['--help'])\n"
    )
    assert "Usage: sessionpools" in installed.run(code)


def test_run_says_what_it_needs_where_only_the_client_is_installed(installed: Environment) -> None:
    done = installed.tried(
        "import sys; from sessionpools.client.__main__ import main; main(['run', 'x.py'])", PYTHONSAFEPATH="1"
    )
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: sessionpools run needs all of Session Pools: pip install session-pools session-pools-session"
    )


def test_the_console_script_is_installed(installed: Environment, api: RestApi) -> None:
    import subprocess

    done = subprocess.run(
        [str(installed.folder / "bin" / "sessionpools"), "status", "--url", api.url], capture_output=True, text=True
    )
    assert done.returncode == 3
    assert done.stderr.startswith("error: GET /status: 401 Unauthorized")
