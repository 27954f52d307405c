"""The reference of the client and the command line names what there is."""

import inspect
import re

from typer.testing import CliRunner

import sessionpools.client
from sessionpools.client import Client, SessionPoolsError, errors
from sessionpools.client.cli.main import app
from support.tools import ROOT

REFERENCE = (ROOT / "docs" / "reference" / "client.md").read_text()
COMMANDS = (ROOT / "docs" / "reference" / "cli.md").read_text()


def test_each_exception_is_in_the_reference_and_in_its_modules_tree() -> None:
    kinds = {
        found.__name__
        for found in vars(sessionpools.client).values()
        if inspect.isclass(found) and issubclass(found, SessionPoolsError)
    }
    for text in (REFERENCE, errors.__doc__ or ""):
        assert kinds <= set(re.findall(r"\w+", text[text.index("SessionPoolsError\n") :])), kinds


def test_each_method_is_in_the_reference() -> None:
    client = Client("http://a")
    for part in (client, client.services, client.pools, client.batches):
        for name, _ in inspect.getmembers(part, callable):
            assert name.startswith("_") or name == "close" or f"{name}(" in REFERENCE, name


def test_each_command_is_in_the_reference_and_each_exit_code_in_the_help() -> None:
    text = CliRunner().invoke(app, ["--help"]).stdout
    commands = set(re.findall(r"^  ([a-z-]+)  ", text[text.index("Commands:") :], re.M))
    assert "pools" in commands
    for command in commands:
        assert re.search(rf"`({command}|[^`]*, `?{command})\b|`{command}[ `]", COMMANDS), command
    for code in re.findall(r"^\| (\d+) \|", COMMANDS, re.M):
        assert re.search(rf"\b{code}\b", text), code


def test_the_main_modules_docstring_names_each_module() -> None:
    folder = ROOT / "operator" / "sessionpools" / "client"
    named = set(re.findall(r"\w+", sessionpools.client.__doc__ or ""))
    hidden = {"__init__", "__main__", "client", "aio", "pyfile"}
    assert {path.stem for path in folder.glob("*.py")} - hidden <= named
