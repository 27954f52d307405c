"""What a server's implementation derives from, and the fluent definitions of services:

client.service("scoring").version("v1").code_fn(score, init).inputs(x=float).outputs(y=float).models(m=model).deploy()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

__all__ = ["Operationalization", "OperationalizationDefinition", "RealtimeDefinition", "ServiceDefinition"]


class Operationalization(ABC):
    """An implementation for one kind of server. DeployClient calls `initializer`, then `authentication` when there is
    something to authenticate with, and `destructor` at the end."""

    def __init__(self) -> None:  # noqa: B027  (as in the old client: there to be overridden)
        pass

    def initializer(self, http_client: Any, config: Any) -> None:  # noqa: B027
        """Called once, before anything else."""

    def destructor(self) -> None:  # noqa: B027
        """Called at the end."""

    def authentication(self, context: Any) -> None:  # noqa: B027
        """Called with what DeployClient was given as `auth`."""

    @abstractmethod
    def get_service(self, name: str, **opts: Any) -> Any:
        """A service, to be called."""

    @abstractmethod
    def list_services(self, name: str | None = None, **opts: Any) -> Any:
        """What is published."""

    @abstractmethod
    def delete_service(self, name: str, **opts: Any) -> Any:
        """Unpublish."""

    @abstractmethod
    def deploy_service(self, name: str, **opts: Any) -> Any:
        """Publish."""

    @abstractmethod
    def redeploy_service(self, name: str, **opts: Any) -> Any:
        """Change what is published."""

    @abstractmethod
    def deploy_realtime(self, name: str, **opts: Any) -> Any:
        """Publish a serialized model."""

    @abstractmethod
    def redeploy_realtime(self, name: str, **opts: Any) -> Any:
        """Change a published model."""

    def service(self, name: str) -> ServiceDefinition:
        """Begin the definition of a web service."""
        return ServiceDefinition(name, self)

    def realtime_service(self, name: str) -> RealtimeDefinition:
        """Begin the definition of a realtime web service."""
        return RealtimeDefinition(name, self)


class OperationalizationDefinition(ABC):
    """The definition of a service; each method returns it, until `deploy` or `redeploy` returns the service."""

    def __init__(self, name: str, op: Any, defs_extent: Mapping[str, Any] | None = None) -> None:
        self._name = name
        self._op = op
        self._defs: dict[str, Any] = {"version": None, "alias": None, "description": None, **(defs_extent or {})}

    def version(self, version: str) -> Self:
        """Its version; without one a unique id is made."""
        return self._set("version", version)

    def alias(self, alias: str) -> Self:
        """The name of the function that calls it; else that of `code_fn`, else `consume`."""
        return self._set("alias", alias)

    def description(self, description: str) -> Self:
        return self._set("description", description)

    @abstractmethod
    def deploy(self) -> Any:
        """Publish it."""

    @abstractmethod
    def redeploy(self, force: bool = False) -> Any:
        """Change what is published: what the definition says; the rest stays."""

    def _set(self, field: str, value: Any) -> Self:
        self._defs[field] = value
        return self

    def __str__(self) -> str:
        fields = {"name": self._name, **self._defs}
        return "\n".join([f"<{type(self).__name__}>", *(f"   {field}: {value}" for field, value in fields.items())])


class ServiceDefinition(OperationalizationDefinition):
    """A web service: a function or a block of code, what it needs, what it is given and gives."""

    def __init__(self, name: str, op: Any) -> None:
        fields = ("code_str", "init_str", "code_fn", "init_fn")
        parts = ("objects", "models", "inputs", "outputs", "artifacts")
        super().__init__(name, op, dict.fromkeys((*fields, *parts)))

    def code_str(self, code: str, init: str | None = None) -> Self:
        """A block of code that runs for each call, and one that runs once before."""
        return self._set("code_str", code)._set("init_str", init)

    def code_fn(self, code: Callable[..., Any], init: Callable[[], Any] | None = None) -> Self:
        """A function that answers calls, and one that runs once before."""
        return self._set("code_fn", code)._set("init_fn", init)

    def objects(self, **objects: Any) -> Self:
        """Values that are variables of the code."""
        return self._add("objects", objects)

    def models(self, **models: Any) -> Self:
        """Models that are variables of the code."""
        return self._add("models", models)

    def inputs(self, **inputs: Any) -> Self:
        """Names and types."""
        return self._add("inputs", inputs)

    def outputs(self, **outputs: Any) -> Self:
        """Names and types."""
        return self._add("outputs", outputs)

    def artifacts(self, artifacts: Iterable[str] | None) -> Self:
        """Names of files that a call writes, and that are returned."""
        if artifacts is None:
            return self
        if isinstance(artifacts, str):
            raise ValueError(f"artifacts is the text {artifacts!r}: give a list of file names, or call artifact()")
        return self._set("artifacts", [*(self._defs["artifacts"] or ()), *artifacts])

    def artifact(self, artifact: str | None) -> Self:
        """The name of one such file."""
        return self if artifact is None else self.artifacts([artifact])

    def deploy(self) -> Any:
        return self._op.deploy_service(self._name, **self._defs)

    def redeploy(self, force: bool = False) -> Any:
        return self._op.redeploy_service(self._name, **self._defs, **({"force": True} if force else {}))

    def _add(self, field: str, more: Mapping[str, Any]) -> Self:
        return self._set(field, {**(self._defs[field] or {}), **more})


class RealtimeDefinition(OperationalizationDefinition):
    """A realtime web service: a model that revoscalepy has serialized."""

    def __init__(self, name: str, op: Any) -> None:
        super().__init__(name, op, {"serialized_model": None})

    def serialized_model(self, model: bytes | None) -> Self:
        """The model; there is exactly one."""
        if model is None:
            return self
        if self._defs["serialized_model"] is not None:
            raise ValueError("The realtime service should have one and only one model.")
        return self._set("serialized_model", model)

    def deploy(self) -> Any:
        return self._op.deploy_realtime(self._name, **self._defs)

    def redeploy(self, force: bool = False) -> Any:
        return self._op.redeploy_realtime(self._name, **self._defs)
