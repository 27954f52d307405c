"""Machine Learning Server's implementation: what DeployClient(use=MLServer) can do."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Mapping
from typing import Any

import requests

from sessionpools_azureml.common.http_client import HttpClient
from sessionpools_azureml.deploy.operationalization import Operationalization
from sessionpools_azureml.deploy.server.service import Service
from sessionpools_azureml.deploy.server.services import WebServiceService

__all__ = ["MLServer"]


class MLServer(Operationalization):
    """Session Pools, or whatever else speaks Machine Learning Server's REST API.

    Everything raises HttpException for an answer of 400 or above, the exceptions of `requests` when there is no
    answer, and ValueError for what can not be sent.
    """

    _http_client: HttpClient | None = None
    _service: WebServiceService

    def initializer(self, http_client: Any, config: Any, adapters: Any = None) -> None:
        """Called by DeployClient. Microsoft's DeployClient brings an HTTP client of its own, which is not used: it has
        no timeouts. `adapters` are (prefix, adapter) of `requests`, or one adapter for the whole server."""
        self._http_client = http_client if isinstance(http_client, HttpClient) else _client(config)
        self._service = WebServiceService(self._http_client)
        if adapters is None:
            return
        for prefix, adapter in adapters if isinstance(adapters, list) else [(config.host, adapters)]:
            if not hasattr(adapter, "send"):
                raise ValueError(f"Invalid `adapter` {adapter!r} for {prefix}: give one of requests.adapters")
            self._http_client.mount(prefix, adapter)

    def destructor(self) -> None:
        """Called by DeployClient at its end."""
        if self._http_client is not None:
            self._http_client.close()
            self._http_client = None

    def authentication(self, context: Any) -> None:
        """By (user, password), whose token is renewed from then on, or by an access token."""
        client = self._http()
        if isinstance(context, tuple | list):
            if len(context) != 2:
                raise ValueError("auth: give (user, password)")
            client.log_in(*map(str, context))
        elif isinstance(context, Mapping):
            raise ValueError(
                "auth: logging in to Azure Active Directory is not offered: give (user, password), or the "
                "access token that POST /login gives"
            )
        else:
            client.authorization = str(context)

    # --- services

    def list_services(self, name: str | None = None, **opts: Any) -> list[dict[str, Any]]:
        """What is published: all services, the versions of one, or one version."""
        version = _only(opts, "version").get("version")
        if name is None:
            return self._service.get_all_services()
        if version is None:
            return self._service.get_service_versions(name)
        found = self._service.get_service(name, version)
        return [found] if found else []

    def get_service(self, name: str, **opts: Any) -> Service:
        """A service to be called: of this `version`, else the last one. Raises ValueError when there is none."""
        version, service = _only(opts, "version").get("version"), self._service
        found = service.get_latest_service(name) if version is None else service.get_service(name, version)
        if not found:
            raise ValueError(f"No service found for {name} version {version}")
        return Service(found, self._http())

    def deploy_service(self, name: str, **opts: Any) -> Service:
        """Publish: version, description, code_fn and init_fn or code_str and init_str, objects, models, inputs,
        outputs, artifacts, alias. Without a version a unique id is made."""
        opts["version"] = opts.get("version") or str(uuid.uuid4())
        self._service.create_service(name, **opts)
        return Service(self._service.get_service(name, opts["version"], fresh=True), self._http())

    def redeploy_service(self, name: str, **opts: Any) -> Service:
        """Change what is given, of this `version`, else of the last one; what is left out stays.

        With force=True also what Helm, Flux or Argo CD manages, and may change back."""
        if opts.get("version") is None:
            opts["version"] = self.get_service(name).capabilities()["version"]
        self._service.update_service(name, **opts)
        return self.get_service(name, version=opts["version"])

    def delete_service(self, name: str, **opts: Any) -> bool:
        """Unpublish a `version`: True. Anything else is raised."""
        version = _only(opts, "version").get("version")
        if version is None:
            raise ValueError("Missing the required parameter `version`")
        self._service.delete_service(name, version)
        return True

    def deploy_realtime(self, name: str, **opts: Any) -> Service:
        """Publish a model that rx_serialize_model has made. Session Pools refuses it, and says what to do instead."""
        self._service.create_realtime(name, **opts)
        return self.get_service(name, version=opts.get("version"))

    def redeploy_realtime(self, name: str, **opts: Any) -> Service:
        """Change one. Session Pools refuses it, and says what to do instead."""
        self._service.update_realtime_service(name, **opts)
        return self.get_service(name, version=opts.get("version"))

    # --- pools

    def create_or_update_service_pool(
        self, name: str, version: str, initial_pool_size: int, max_pool_size: int | None = None, **opts: Any
    ) -> requests.Response:
        """Ask for warm sessions on every compute node: `<Response [200]>`. They are ready when the status says Success.

        `maximum_pool_size`, as the examples of the old reference have it, is taken for max_pool_size.
        """
        other = _only(opts, "maximum_pool_size").get("maximum_pool_size")
        maximum = other if max_pool_size is None else max_pool_size
        if maximum is None or (other is not None and other != maximum):
            raise ValueError("max_pool_size: give the most sessions on every compute node, once")
        return self._service.create_pool(name, version, initial_pool_size, maximum)

    def get_service_pool_status(self, name: str, version: str, **opts: Any) -> Any:
        """[{'computeNodeEndpoint': ..., 'status': 'Success', 'Pending' or 'NotFound'}, ...]"""
        _only(opts)
        return self._service.pool_status(name, version)

    def delete_service_pool(self, name: str, version: str, **opts: Any) -> requests.Response:
        """Ask for its end: `<Response [200]>`. It is gone when the status is NotFound on every compute node."""
        _only(opts)
        return self._service.delete_pool(name, version)

    def _http(self) -> HttpClient:
        if self._http_client is None:
            raise ValueError("this client is not initialized: make it by DeployClient(host, use=MLServer)")
        return self._http_client


def _client(config: Any) -> HttpClient:
    """For the settings of Microsoft's Configuration, which are those of ours."""
    from sessionpools_azureml.common.configuration import Configuration

    ours = Configuration()
    for field in ("host", "verify_ssl", "cert", "proxies", "api_key_prefix"):
        value = getattr(config, field, None)
        if value is not None:
            setattr(ours, field, value)
    return HttpClient(ours.host)


def _only(opts: Mapping[str, Any], *known: str) -> Mapping[str, Any]:
    """The options. Raises TypeError for one that there is not, which the old client took without a word."""
    for name in opts:
        if name not in known:
            raise TypeError(f"{name!r} is no option here: there are {', '.join(known) or 'none'}")
    return opts


def _be_one_of_microsofts() -> None:
    """Let Microsoft's DeployClient take MLServer, where it is installed: it asks for a subclass of its own class."""
    import _sessionpools_azureml_finder as finder

    if not finder.FINDER.microsofts():
        return
    try:
        theirs = importlib.import_module("azureml.deploy.operationalization")
    except ImportError:  # it needs what later versions of Python or its dependencies have not: nobody can use it
        return
    register = getattr(getattr(theirs, "Operationalization", None), "register", None)
    if register is not None:
        register(MLServer)


_be_one_of_microsofts()
