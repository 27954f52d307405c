"""Where in the store what is kept. One prefix of a bucket, or one directory, belongs to one release.

    bundles/SHA256.tar.gz                       published code, by the digest of the archive
    blobs/SHA256                                content of authoring sessions and snapshots, by its digest
    authoring/sessions/ID                       a session: whose, and which blobs are its objects and files
    authoring/snapshots/ID                      a snapshot, likewise
    batches/open/CREATED.SERVICE.ID.OWNER       a batch that is not finished, empty: so that finding them is one list
    batches/states/SERVICE/ID.OWNER             a batch's state, compared and swapped
    batches/data/ID/...                         a batch's inputs, results and files
    leases/NAME                                 who does what only one replica does
    doomed/KEY                                  that the content KEY is about to be removed
    health/...                                  probes

SERVICE and OWNER are the first digits of digests, as names of services and users may hold anything.
"""

from __future__ import annotations

import hashlib

__all__ = ["short_digest"]


def short_digest(*parts: str) -> str:
    """64 bits that stand for these strings in a key; who must be sure compares what the object says."""
    text = "\0".join(parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
