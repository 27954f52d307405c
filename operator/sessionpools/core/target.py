"""What a pool's sessions should be, or why that can not be said: the first of the three decisions of a reconciliation
(target, then plan, then status).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.core.keys import elder_of, service_of
from sessionpools.core.model import PodView
from sessionpools.core.revision import CodeFiles, Revision, code_files_of, resolve

__all__ = ["BUNDLE_SCHEMES", "Blocked", "CodeProblem", "Target", "needs_config_map", "target"]

# A ConfigMap holds 1 MiB, keys included (ConfigMap, in the Kubernetes API reference).
CODE_LIMIT_BYTES: Final = 1024 * 1024 - 4096
# What session pods fetch bundles by (session/fetch.py); a file's URL names one in the session's own container.
BUNDLE_SCHEMES: Final = ("https", "http", "file")


@dataclass(frozen=True, slots=True)
class Target:
    service: WebService
    revision: Revision

    @property
    def bundle_url(self) -> str:
        """Where a session pod that is made now fetches its bundle; "" if the code is no bundle."""
        return self.service.spec.code.bundle.url if self.service.spec.code.bundle else ""


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
    pods: Iterable[PodView] = (),
) -> Target | Blocked:
    """`pools` and `services`: at least all that have the pool's key; `config_map_code`: what needs_config_map named;
    `pods`: the pool's."""
    spec = pool.spec
    if not spec.service_name:
        return Blocked(
            "GenericPoolNotSupported", "a pool without serviceName is the generic pool, which does not work yet", True
        )
    older = elder_of(pool, pools)
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
    code = code_files_of(service)
    if needs_config_map(service):
        if isinstance(config_map_code, CodeProblem):
            return Blocked(config_map_code.reason, config_map_code.message)
        code = config_map_code or code
    problem = _missing_file(service, code) or _strange_address(service)
    if problem:
        return Blocked("InvalidCode", f"{label}: {problem}")
    images = {pod.owner.revision: pod.image for pod in pods if pod.alive}
    revision = resolve(pool, service, code, default_image, images)
    size = code.size + len(revision.document.encode())
    if size > CODE_LIMIT_BYTES:
        message = f"{label}: code and warm-up input have {size} bytes, at most {CODE_LIMIT_BYTES} fit; use imagePath"
        return Blocked("CodeTooLarge", message)
    return Target(service, revision)


def _key(pool: SessionPool) -> str:
    return f"with name {pool.spec.service_name!r} and version {pool.spec.service_version!r}"


def _missing_file(service: WebService, code: CodeFiles) -> str:
    """A script that is not among the files can be told at once; modules are found by Python's own rules, in the pod."""
    paths = [path for path, _ in code.files]
    if service.spec.script and code.files and service.spec.script not in paths:
        return f"script {service.spec.script!r} is not among its files: {', '.join(paths[:10])}"
    return ""


def _strange_address(service: WebService) -> str:
    """The CRD lets every scheme pass: which ones there are is this version's to say."""
    bundle = service.spec.code.bundle
    scheme = bundle.url.partition(":")[0] if bundle else ""
    if scheme and scheme not in BUNDLE_SCHEMES:
        return f"code.bundle.url begins with {scheme!r}: use {', '.join(BUNDLE_SCHEMES)}"
    return ""
