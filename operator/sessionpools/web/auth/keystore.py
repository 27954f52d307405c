"""The keys in the cluster: the Secret `session-pools-keys` and, for the gateways, the ConfigMap with the public ones.

Every replica of the web API runs a `KeyRing`: each `SYNC_SECONDS` it reads both, asks `keys.due` what the keys should
be, and writes what is not so. Every write carries the resourceVersion that was read (a create carries none and fails if
there is one), so of replicas that act at once one wins and the others read what it wrote. The ConfigMap is read before
the Secret: whoever has written it since had a newer Secret, and our write conflicts instead of putting back the old.

An operator turns the keys with an annotation on the Secret, `sessionpools.dev/rotate-at`, and makes every token invalid
by emptying it (docs/operations/auth.md). What is there and can not be read is never overwritten.

RBAC, in the release's namespace: get and patch of these two names; create as well, unless the chart makes them empty.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from sessionpools.api.names import ANNOTATION_ROTATE_AT
from sessionpools.kube.protocol import CONFIG_MAPS, SECRETS, Conflict, Json, KubeApi, KubeError, NotFound, Resource
from sessionpools.web.auth import keys as deciding
from sessionpools.web.auth.errors import KeysUnavailable
from sessionpools.web.auth.keys import Key, KeySet

__all__ = ["PUBLIC_KEYS", "SECRET_KEYS", "KeyRing"]

_log = logging.getLogger(__name__)

SECRET_KEYS: Final = "session-pools-keys"  # noqa: S105  its name
PUBLIC_KEYS: Final = "session-pools-keys-public"  # a file KID.pem for each key
_ENTRY: Final = "keys.json"

SYNC_SECONDS: Final = 30.0  # how soon an annotation, or another replica's key, is seen; two reads
_ATTEMPTS: Final = 5  # to write before another does; each loss means that another has made progress


@dataclass(frozen=True, slots=True)
class _Known:
    keys: KeySet = field(default_factory=KeySet)
    published: frozenset[str] = frozenset()


class KeyRing:
    """One replica's view of the keys. `clock` is in seconds since the epoch."""

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        *,
        labels: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._labels = dict(labels or {})
        self._clock = clock
        self._known = _Known()
        self._trouble = "they have not been read yet"

    # --- what the rest of the web API asks ----------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether there is a key to sign with."""
        return self._signer() is not None

    @property
    def keys(self) -> KeySet:
        """As last seen or written."""
        return self._known.keys

    def signing_key(self) -> Key:
        """Raises KeysUnavailable."""
        key = self._signer()
        if key is None:
            raise KeysUnavailable(f"there is no key to sign access tokens with: {self._trouble or 'none is published'}")
        return key

    def public_key(self, kid: str) -> RSAPublicKey | None:
        key = self._known.keys.find(kid)
        return key.public if key else None

    def jwks(self) -> dict[str, Any]:
        """The answer of /.well-known/jwks.json."""
        return deciding.jwks(self._known.keys)

    def _signer(self) -> Key | None:
        return deciding.signer(self._known.keys, self._clock(), self._known.published)

    # --- keeping them -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Sync until cancelled. Trouble is logged when it begins and when it is another; the keys known so far stay."""
        while True:
            try:
                await self.sync()
            except (KubeError, KeysUnavailable) as error:
                if str(error) != self._trouble:
                    _log.error("keys not read or written: the last ones hold", extra={"error": str(error)})
                self._trouble = str(error)
            await asyncio.sleep(SYNC_SECONDS)

    async def sync(self) -> None:
        """Read, decide, write, publish: once. Raises KubeError or KeysUnavailable; what was known then stays."""
        for attempt in range(_ATTEMPTS):
            try:
                self._known = await self._turn()
            except Conflict:
                if attempt + 1 == _ATTEMPTS:
                    raise
                continue
            break
        if self._trouble:
            self._trouble = ""
            _log.info("keys read", extra={"keys": len(self._known.keys.keys)})

    async def _turn(self) -> _Known:
        public = await self._read(CONFIG_MAPS, PUBLIC_KEYS)
        secret = await self._read(SECRETS, SECRET_KEYS)
        there = self._parsed(secret)
        decided = deciding.due(there, self._clock(), self._rotate_at(secret))
        now = self._clock()
        made = [await asyncio.to_thread(deciding.make_key, now, signs_from) for signs_from in decided.make]
        keys = KeySet.of([*decided.keep.keys, *made])
        if keys != there:
            content = base64.b64encode(deciding.dump(keys).encode()).decode()
            await self._write(SECRETS, SECRET_KEYS, secret, {_ENTRY: content}, {"type": "Opaque"})
            _log.info("keys changed", extra={"before": _told(there), "after": _told(keys)})
        files = {f"{key.kid}.pem": key.public_pem for key in keys.keys}
        published: Mapping[str, str] = (public or {}).get("data") or {}
        if published != files:
            gone: dict[str, str | None] = {name: None for name in published if name not in files}
            await self._write(CONFIG_MAPS, PUBLIC_KEYS, public, files | gone, {})
        return _Known(keys, frozenset(key.kid for key in keys.keys))

    async def _read(self, resource: Resource, name: str) -> Json | None:
        try:
            return await self._api.get(resource, name, namespace=self._namespace)
        except NotFound:
            return None

    async def _write(
        self, resource: Resource, name: str, read: Json | None, data: Mapping[str, str | None], also: Json
    ) -> None:
        """Set entries of an object's data, and take those away that are None. Raises Conflict if it is not as read."""
        if read is None:
            metadata = {"name": name, "namespace": self._namespace, "labels": self._labels}
            head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
            await self._api.create(resource, head | also | {"data": dict(data)}, namespace=self._namespace)
            return
        body = {"metadata": {"resourceVersion": read["metadata"]["resourceVersion"]}, "data": dict(data)}
        await self._api.merge_patch(resource, name, body, namespace=self._namespace)

    def _parsed(self, secret: Json | None) -> KeySet:
        content = ((secret or {}).get("data") or {}).get(_ENTRY)
        if not content:
            return KeySet()
        try:
            return deciding.load(base64.b64decode(content).decode())
        except ValueError as error:
            where = f"Secret {self._namespace}/{SECRET_KEYS}, {_ENTRY}"
            message = f"{where}: {error}: restore it, or take the entry away, and new keys are made"
            raise KeysUnavailable(message) from None

    def _rotate_at(self, secret: Json | None) -> float | None:
        text = ((secret or {}).get("metadata", {}).get("annotations") or {}).get(ANNOTATION_ROTATE_AT)
        if not text:
            return None
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            when = None
        if when is None or when.tzinfo is None:
            _log.warning(
                "annotation not understood: use a time such as 2026-01-31T12:00:00Z",
                extra={"secret": SECRET_KEYS, "annotation": ANNOTATION_ROTATE_AT, "value": text},
            )
            return None
        return when.timestamp()


def _told(keys: KeySet) -> dict[str, int]:
    """For the log: kid and since when it signs."""
    return {key.kid: key.signs_from for key in keys.keys}
