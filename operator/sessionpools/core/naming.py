"""Names of the objects that the controller makes. Deterministic: creating the same thing twice is AlreadyExists, so
that a stale cache, a restart or two leaders for a moment can not make one session pod too many.
"""

import hashlib

__all__ = ["code_config_map_name", "digest", "pod_name"]

_DIGEST_LENGTH = 10  # 40 bits: one pool has at most some 10^4 names at a time
# A pod's name is its host name, of at most 63 characters: prefix, digest, slot (4), incarnation (4) and 3 dashes.
_PREFIX_LENGTH = 40


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_DIGEST_LENGTH]


def pod_name(pool: str, pool_uid: str, node_uid: str, revision: str, slot: int, incarnation: int) -> str:
    prefix = pool[:_PREFIX_LENGTH].rstrip("-.")
    return f"{prefix}-{digest(pool_uid, node_uid, revision)}-{slot}-{incarnation}"


def code_config_map_name(web_service: str, revision: str) -> str:
    return f"{web_service[:200].rstrip('-.')}-{revision}"
