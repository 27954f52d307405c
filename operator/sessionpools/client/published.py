"""What `sessionpools run` serves: web services and their pools, read from YAML, a folder of it, or a Python file.

YAML is read as the API server reads it, unknown fields being errors; the CEL rules of the kinds are the API server's
alone. Called by run.py.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import yaml
from pydantic import ValidationError

from sessionpools.api import names
from sessionpools.api.v1alpha1 import Bundle, Isolation, SessionPool, SessionPoolSpec, WebService, WebServiceSpec
from sessionpools.client.errors import InputInvalid
from sessionpools.client.pyfile import functions_of
from sessionpools.core.keys import key_of, pool_of
from sessionpools.core.revision import CodeFiles, code_files_of
from sessionpools.core.target import BUNDLE_SCHEMES

__all__ = ["InputError", "Published", "Sizes", "read"]

_YAML: Final = (".yaml", ".yml")
_VERSION: Final = "v1"
_SHA256: Final = re.compile("[0-9a-f]{64}")


InputError = InputInvalid  # what was given can not be served: names the file, the object, the field and the remedy


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a pool that no SessionPool among the files describes."""

    initial: int = 1
    maximum: int = 4


@dataclass(frozen=True, slots=True)
class Published:
    """A web service, the pool that serves it, and its code."""

    service: WebService
    pool: SessionPool
    code: CodeFiles
    folder: str = ""  # of the code, when it is used where it is
    bundle_url: str = ""  # where its archive is fetched, when it is in one

    @property
    def label(self) -> str:
        return f"{self.service.spec.name} {self.service.spec.version}"


def read(path: Path, sizes: Sizes) -> list[Published]:
    """Everything that `path` publishes. Raises InputError; also when that is nothing."""
    if path.suffix == ".py" and path.is_file():
        return [_from_python(path, sizes)]
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if path.is_file() and path.suffix not in _YAML:
        raise InputError(f"{path}: give a .py file, a .yaml file, or a folder of them")
    documents = list(_documents(path))
    pools = [_pool(where, body) for where, body in documents if body.get("kind") == "SessionPool"]
    services = [_service(where, body) for where, body in documents if body.get("kind") == "WebService"]
    config_maps = {
        (body.get("metadata") or {}).get("name", ""): body for _, body in documents if body.get("kind") == "ConfigMap"
    }
    if not services:
        raise InputError(f"{path}: holds no WebService; publish one (kind: WebService) or give a .py file")
    keys = [key_of(service) for service in services]
    for service in services:
        if keys.count(key_of(service)) > 1:
            raise InputError(f"{path}: two WebServices are {service.spec.name!r} {service.spec.version!r}; remove one")
    for pool in pools:
        if key_of(pool) not in keys:
            wanted = f"{pool.spec.service_name!r} {pool.spec.service_version!r}"
            raise InputError(f"SessionPool {pool.metadata.name!r}: there is no WebService {wanted} in {path}")
    folder = path if path.is_dir() else path.parent
    return [_published(service, pool_of(service, pools), config_maps, sizes, folder) for service in services]


# --- YAML -----------------------------------------------------------------------------------------------------------


def _documents(path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    if path.is_file():
        files = [path]
    elif (path / "kustomization.yaml").exists():
        rendered = _kustomize(path)
        if rendered is not None:
            yield from _parse(str(path), rendered)
            return
        files = _files(path)
    else:
        files = _files(path)
    for file in files:
        yield from _parse(str(file), file.read_text())


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in _YAML and file.name != "kustomization.yaml")


def _kustomize(folder: Path) -> str | None:
    """As kubectl or kustomize renders it; None where neither is there, which is enough for folders of plain objects."""
    for command in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise InputError(f"{folder}: {' '.join(command)} failed: {done.stderr.strip()}")
            return done.stdout
    return None


def _parse(where: str, text: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    try:
        for body in yaml.safe_load_all(text):
            if isinstance(body, dict):
                yield where, body
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not YAML: {error}") from None


def _service(where: str, body: Mapping[str, Any]) -> WebService:
    _checked(where, "WebService", body, WebServiceSpec)
    service = WebService.model_validate(body)
    if bool(service.spec.entrypoint) == bool(service.spec.script):
        raise InputError(f"{where}: WebService {service.metadata.name!r}: spec: give one of entrypoint and script")
    return service


def _pool(where: str, body: Mapping[str, Any]) -> SessionPool:
    _checked(where, "SessionPool", body, SessionPoolSpec)
    pool = SessionPool.model_validate(body)
    if not pool.spec.service_name:
        raise InputError(f"{where}: SessionPool {pool.metadata.name!r}: the generic pool needs a cluster")
    if pool.spec.initial_pool_size > pool.spec.max_pool_size:
        raise InputError(
            f"{where}: SessionPool {pool.metadata.name!r}: spec.initialPoolSize is {pool.spec.initial_pool_size}, more "
            f"than maxPoolSize {pool.spec.max_pool_size}"
        )
    return pool


def _checked(where: str, kind: str, body: Mapping[str, Any], spec: type[WebServiceSpec | SessionPoolSpec]) -> None:
    name = (body.get("metadata") or {}).get("name", "")
    if body.get("apiVersion") != names.API_VERSION:
        raise InputError(f"{where}: {kind} {name!r}: apiVersion is {body.get('apiVersion')!r}, not {names.API_VERSION}")
    try:
        spec.model_validate(body.get("spec") or {}, extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in ("spec", *first["loc"]))
        raise InputError(f"{where}: {kind} {name!r}: {field}: {first['msg']}") from None


def _published(
    service: WebService,
    pool: SessionPool | None,
    config_maps: Mapping[str, Mapping[str, Any]],
    sizes: Sizes,
    folder: Path,
) -> Published:
    label = f"WebService {service.metadata.name!r}"
    source = service.spec.code
    if source.config_map:
        config_map = config_maps.get(source.config_map.name)
        if config_map is None:
            raise InputError(
                f"{label}: spec.code.configMap: there is no ConfigMap {source.config_map.name!r} among the files"
                " (one that kustomize generates needs kubectl or kustomize)"
            )
        data = config_map.get("data") or {}
        code = CodeFiles(tuple(sorted((name, text.encode()) for name, text in data.items())))
    else:
        code = code_files_of(service)
    if source.image_path and not Path(source.image_path).is_dir():
        raise InputError(f"{label}: spec.code.imagePath: this machine has no folder {source.image_path}")
    url = _bundle_url(label, source.bundle, folder) if source.bundle else ""
    return Published(service, pool or _default_pool(service, sizes), code, source.image_path, url)


def _bundle_url(label: str, bundle: Bundle, folder: Path) -> str:
    """Where the bundle is fetched. A file's URL without a slash in front of its path, file://build/bundle.tar.gz, names
    a file beside the YAML."""
    where = f"{label}: spec.code.bundle"
    if not _SHA256.fullmatch(bundle.sha256):
        raise InputError(f"{where}.sha256: give the archive's digest, 64 lower-case hexadecimal digits (sha256sum)")
    scheme, separator, rest = bundle.url.partition("://")
    if not separator or scheme not in BUNDLE_SCHEMES:
        raise InputError(f"{where}.url: {bundle.url!r}: give a URL of {', '.join(BUNDLE_SCHEMES)}")
    if scheme != "file":
        return bundle.url
    path = folder.resolve() / unquote(rest.removeprefix("localhost") if rest.startswith("localhost/") else rest)
    if not path.is_file():
        raise InputError(f"{where}.url: there is no file {path}")
    return path.as_uri()


def _default_pool(service: WebService, sizes: Sizes) -> SessionPool:
    spec = SessionPoolSpec(
        service_name=service.spec.name,
        service_version=service.spec.version,
        initial_pool_size=sizes.initial,
        max_pool_size=max(sizes.initial, sizes.maximum),
        isolation=Isolation.PROCESS,
    )
    return SessionPool(metadata=service.metadata, spec=spec)


# --- a Python file --------------------------------------------------------------------------------------------------


def _from_python(path: Path, sizes: Sizes) -> Published:
    functions = functions_of(path)
    service = WebService.model_validate(
        {
            "metadata": {"name": path.stem.lower().replace("_", "-"), "namespace": "default"},
            "spec": {
                "name": path.stem,
                "version": _VERSION,
                "code": {"imagePath": str(path.resolve().parent)},
                "entrypoint": functions.entrypoint,
                "init": functions.init,
            },
        }
    )
    return Published(service, _default_pool(service, sizes), CodeFiles(), service.spec.code.image_path)
