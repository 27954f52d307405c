"""What a session is: the revision's hash and the document session.json that the session runtime reads.

The hash covers all that decides what a session is (DESIGN: resolved image, code, entrypoint, init, modules, warm-up,
env, volumes, resources, forkSafe, isolation), and nothing that may change under a running session (sizes, timeouts,
queue, chart or controller version). Of a bundle it covers the digest: where the archive lies is of no matter.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from sessionpools.api import names
from sessionpools.api.v1alpha1 import Isolation, SessionPool, WebService

__all__ = ["CodeFiles", "Revision", "code_files_of", "resolve"]

# Part of the hash. A new number rolls out every pool, so it changes only when what is hashed has changed its meaning.
_FORMAT: Final = 1
_DIGEST_LENGTH: Final = 10


@dataclass(frozen=True, slots=True)
class CodeFiles:
    """A revision's code as (path, bytes), sorted by path; none for imagePath and bundles."""

    files: tuple[tuple[str, bytes], ...] = ()

    @property
    def size(self) -> int:
        return sum(len(content) for _, content in self.files)


@dataclass(frozen=True, slots=True)
class Revision:
    """`name` is the hash; `session` is the content of session.json."""

    name: str
    image: str
    isolation: Isolation
    code: CodeFiles
    session: Mapping[str, Any] = field(default_factory=dict)

    @property
    def document(self) -> str:
        """session.json"""
        return json.dumps(self.session, sort_keys=True)


def code_files_of(service: WebService) -> CodeFiles:
    """The code that stands in the WebService itself (inline), else none."""
    inline = service.spec.code.inline or {}
    return CodeFiles(tuple(sorted((path, text.encode()) for path, text in inline.items())))


def resolve(
    pool: SessionPool,
    service: WebService,
    code: CodeFiles,
    default_image: str,
    images: Mapping[str, str] = MappingProxyType({}),
) -> Revision:
    """The revision that this pool's sessions should have. `images` are those of its session pods, by revision.

    A service that names no image takes the default one, resolved once per revision: while the rest is as it was when
    the pool's status recorded its image, that image stays, whatever the default is now. So does that of sessions that
    still serve: what was before a bad rollout is applied again, and they are current at once.
    """
    session = _session_document(service)
    content = _content(pool, service, code, session)
    known = {pool.status.revision: pool.status.image, **images}
    resolved = (image for revision, image in known.items() if image and revision == _digest(image, content))
    image = service.spec.image or next(resolved, default_image)
    return Revision(_digest(image, content), image, pool.spec.isolation, code, session)


def _session_document(service: WebService) -> dict[str, Any]:
    spec, bundle = service.spec, service.spec.code.bundle
    return {
        "format": _FORMAT,
        "service": {"name": spec.name, "version": spec.version},
        "code": spec.code.image_path or (names.BUNDLE_CODE_DIR if bundle else names.CODE_DIR),
        **({"bundle": {"sha256": bundle.sha256}} if bundle else {}),
        "entrypoint": spec.entrypoint,
        "script": spec.script,
        "init": spec.init,
        "modules": list(spec.modules),
        "warmup": spec.warmup,
        "inputs": None if spec.inputs is None else [{"name": p.name, "type": p.type} for p in spec.inputs],
        "outputs": None if spec.outputs is None else [{"name": p.name, "type": p.type} for p in spec.outputs],
        "outputFiles": list(spec.output_files),
        "forkSafe": spec.fork_safe,
    }


def _content(pool: SessionPool, service: WebService, code: CodeFiles, session: Mapping[str, Any]) -> str:
    spec = service.spec
    return json.dumps(
        {
            "format": _FORMAT,
            "session": session,
            "code": [(path, hashlib.sha256(content).hexdigest()) for path, content in code.files],
            "env": spec.env,
            "envFrom": spec.env_from,
            "volumes": spec.volumes,
            "volumeMounts": spec.volume_mounts,
            "imagePullSecrets": [secret.name for secret in spec.image_pull_secrets],
            "serviceAccountName": spec.service_account_name,
            "resources": spec.resources,
            "isolation": pool.spec.isolation,
            "restartedAt": pool.metadata.annotations.get(names.ANNOTATION_RESTARTED_AT, ""),
            # That it was named: else, once it is no more, it would be taken for the default image as it was resolved.
            **({"image": spec.image} if spec.image else {}),
        },
        sort_keys=True,
        separators=(",", ":"),
    )


def _digest(image: str, content: str) -> str:
    return hashlib.sha256(f"{image}\0{content}".encode()).hexdigest()[:_DIGEST_LENGTH]
