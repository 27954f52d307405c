"""What a pool's sessions should be, or why that can not be said: the first of the three decisions of a reconciliation
(target, then plan, then status).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.core.revision import CodeFiles, Revision, code_files_of, resolve

__all__ = ["Blocked", "CodeProblem", "Target", "duplicate_service_of", "needs_config_map", "service_of", "target"]

# etcd's limit for one object is 1.5 MiB and a ConfigMap's own is 1 MiB; what is around the code needs some of it.
CODE_LIMIT_BYTES: Final = 1024 * 1024 - 64 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    service: WebService
    revision: Revision


@dataclass(frozen=True, slots=True)
class Blocked:
    """No target. `reason` and `message` are the Stalled condition's. Sessions that run go on unless `retire`."""

    reason: str
    message: str
    retire: bool = False


@dataclass(frozen=True, slots=True)
class CodeProblem:
    """Why the code of a service can not be had: the ConfigMap is missing, say."""

    reason: str
    message: str


def service_of(pool: SessionPool, services: Iterable[WebService]) -> WebService | None:
    """The web service of a pool's namespace with its (case-sensitive) name and version; the oldest of two."""
    key = (pool.spec.service_name, pool.spec.service_version)
    same = [
        s for s in services if (s.spec.name, s.spec.version) == key and s.metadata.namespace == pool.metadata.namespace
    ]
    return min(same, key=_age, default=None)


def duplicate_service_of(service: WebService, services: Iterable[WebService]) -> WebService | None:
    """The older WebService that has this one's name and version, if any: that one is served."""
    key = (service.spec.name, service.spec.version)
    older = [
        s
        for s in services
        if s.metadata.namespace == service.metadata.namespace
        and (s.spec.name, s.spec.version) == key
        and s.metadata.uid != service.metadata.uid
        and _age(s) < _age(service)
    ]
    return min(older, key=_age, default=None)


def needs_config_map(service: WebService | None) -> str:
    """The name of the user's ConfigMap that holds the code, "" if the code is elsewhere."""
    source = service.spec.code.config_map if service else None
    return source.name if source else ""


def target(
    pool: SessionPool,
    pools: Iterable[SessionPool],
    services: Iterable[WebService],
    config_map_code: CodeFiles | CodeProblem | None,
    default_image: str,
) -> Target | Blocked:
    """`pools` and `services` are all that there are; `config_map_code` is what needs_config_map named, once read."""
    spec = pool.spec
    if not spec.service_name:
        return Blocked(
            "GenericPoolNotSupported", "a pool without serviceName is the generic pool, which does not work yet", True
        )
    older = _older_pool(pool, pools)
    if older:
        return Blocked(
            "DuplicatePool",
            f"SessionPool {older.metadata.name!r} is older and serves the one {_key(pool)}; delete one of them",
            retire=True,
        )
    service = service_of(pool, services)
    if service is None:
        message = f"this namespace has no WebService {_key(pool)}; publish it"
        return Blocked("ServiceNotFound", message, retire=True)
    label = f"WebService {service.metadata.name!r}"
    if service.metadata.deletion_timestamp:
        return Blocked("ServiceNotFound", f"{label} is being deleted", retire=True)
    if service.spec.code.bundle:
        return Blocked(
            "BundleNotSupported", f"{label}: code.bundle does not work yet; use inline, configMap or imagePath"
        )
    code = code_files_of(service)
    if needs_config_map(service):
        if isinstance(config_map_code, CodeProblem):
            return Blocked(config_map_code.reason, config_map_code.message)
        code = config_map_code or code
    if code.size > CODE_LIMIT_BYTES:
        return Blocked(
            "CodeTooLarge",
            f"{label}: its code has {code.size} bytes, at most {CODE_LIMIT_BYTES} fit; use imagePath",
        )
    missing = _missing_file(service, code)
    if missing:
        return Blocked("InvalidCode", f"{label}: {missing}")
    return Target(service, resolve(pool, service, code, default_image))


def _key(pool: SessionPool) -> str:
    return f"with name {pool.spec.service_name!r} and version {pool.spec.service_version!r}"


def _missing_file(service: WebService, code: CodeFiles) -> str:
    """A script that is not among the files can be told at once; modules are found by Python's own rules, in the pod."""
    paths = [path for path, _ in code.files]
    if service.spec.script and code.files and service.spec.script not in paths:
        return f"script {service.spec.script!r} is not among its files: {', '.join(paths[:10])}"
    return ""


def _older_pool(pool: SessionPool, pools: Iterable[SessionPool]) -> SessionPool | None:
    key = (pool.spec.service_name, pool.spec.service_version)
    older = [
        p
        for p in pools
        if p.metadata.namespace == pool.metadata.namespace
        and (p.spec.service_name, p.spec.service_version) == key
        and p.metadata.uid != pool.metadata.uid
        and not p.metadata.deletion_timestamp
        and _age(p) < _age(pool)
    ]
    return min(older, key=_age, default=None)


def _age(thing: SessionPool | WebService) -> tuple[str, str]:
    """Oldest first; the uid decides between two of one second, so that the answer is the same each time."""
    return (str(thing.metadata.creation_timestamp or ""), thing.metadata.uid)
