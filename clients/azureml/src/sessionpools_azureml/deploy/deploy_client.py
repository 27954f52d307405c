"""The factory of clients: `DeployClient(host, use=MLServer, auth=(user, password))`."""

import importlib
import importlib.util
import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from sessionpools_azureml.common.configuration import Configuration
from sessionpools_azureml.common.http_client import HttpClient
from sessionpools_azureml.deploy.operationalization import Operationalization

__all__ = ["DeployClient"]

_SHORT: Final = {"MLServer": "sessionpools_azureml.deploy.server.MLServer"}


class DeployClient:
    """A client of the server at `host`, such as http://localhost:12800.

    - use: the implementation: a class (`MLServer`), its name ('MLServer', or with its module), or a tuple of a name
      for a module and the path of its file
    - auth: (user, password), or an access token

    What comes out is an object of a class DeployClientComposedMLServer, which derives from both. Raises ImportError
    when `use` is none, HttpException, and what `requests` raises when there is no answer.
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What the implementation has."""

    def __new__(cls, host: str, auth: Any = None, use: Any = None) -> "DeployClient":
        implementation = _implementation(use)
        body = {"__init__": cls.__init__, "__del__": cls.__del__, "__doc__": implementation.__doc__}
        composed = type(f"{cls.__name__}Composed{implementation.__name__}", (implementation, cls), body)
        made: DeployClient = object.__new__(composed)
        return made

    def __init__(self, host: str, auth: Any = None, use: Any = None) -> None:
        config = Configuration()
        config.host = host
        self.initializer(HttpClient(config.host), config)
        if auth is not None:
            self.authentication(auth)

    def __del__(self) -> None:
        self.destructor()

    def initializer(self, http_client: Any, config: Any) -> None:
        """The implementation's, which comes first."""

    def authentication(self, context: Any) -> None:
        """The implementation's, which comes first."""

    def destructor(self) -> None:
        """The implementation's, which comes first."""


def _implementation(use: Any) -> type[Operationalization]:
    try:
        if use is None:
            raise TypeError("it is required: use=MLServer, from azureml.deploy.server import MLServer")
        if isinstance(use, str):
            return _in_module(*_SHORT.get(use, use).rpartition(".")[::2])
        if isinstance(use, tuple):
            return _in_file(*use)
        if isinstance(use, type) and issubclass(use, Operationalization):
            return use
        raise TypeError("it is neither a class that derives from Operationalization, nor the name of one")
    except Exception as error:  # as the old client: whatever the cause is, the message says it
        raise ImportError(f"No module named `use={use}`\n   {type(error).__name__}: {error}") from error


def _in_module(module: str, name: str) -> type[Operationalization]:
    if not module:
        raise ValueError("give the class with its module, such as azureml.deploy.server.MLServer")
    found = getattr(importlib.import_module(module), name, None)
    if not (isinstance(found, type) and issubclass(found, Operationalization)):
        raise TypeError(f"{module} has no class {name} that derives from Operationalization")
    return found


def _in_file(name: str, path: str) -> type[Operationalization]:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TypeError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    found = [each for each in _classes_of(module) if issubclass(each, Operationalization)]
    own = [each for each in found if each.__module__ == name]
    if len(own or found) != 1:
        names = ", ".join(each.__name__ for each in found) or "none"
        raise TypeError(f"{path} has to have one class that derives from Operationalization; it has {names}")
    return (own or found)[0]


def _classes_of(module: ModuleType) -> list[type]:
    return [each for _, each in inspect.getmembers(module, inspect.isclass) if each is not Operationalization]
