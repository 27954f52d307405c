"""Everything that store and batches raise on purpose, with the status that the REST API answers for it.

    StoreError                what follows; never raised itself
    ├── StoreUnavailable      503: the store did not answer, or refused us; whether a write took is not known
    │   ├── StoreUnfit        at start: it answers, and lacks what is needed of it, so that nothing is begun
    │   ├── StoreFull         there is no space left; nothing was written
    │   ├── NoRoom            the temporary directory has no space for it now
    │   └── Unreadable        an object of ours has not the form that it should have
    ├── NotFound              404: there is no such object, session, snapshot, bundle or batch, or it is another's
    ├── Changed               409: somebody else has written it since it was read
    └── Refused               400: what was given can't be kept: a name, a number, a form
        ├── TooLarge          413: a size or count above its limit
        └── TooMany           429: its owner has as many as anybody may have at a time

A message names the object, what is wrong with it and what to do, and may be shown to callers: it has no credentials.
"""

import errno
from typing import Final

__all__ = [
    "FULL",
    "Changed",
    "NoRoom",
    "NotFound",
    "Refused",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "StoreUnfit",
    "TooLarge",
    "TooMany",
    "Unreadable",
]


# Of an OSError: a disk, a quota or a limit of the process takes no more.
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StoreError(Exception):
    """Base of all; catch it where any of them is the same to you."""


class StoreUnavailable(StoreError):  # noqa: N818
    """The store did not answer in time, or answered that it can't or won't. A write may have taken or not."""


class StoreUnfit(StoreUnavailable):
    """It ignores the conditions of writes: another store is needed."""


class StoreFull(StoreUnavailable):
    """A write found no space. It was not done."""


class NoRoom(StoreUnavailable):
    """What comes in, or is made, has no space in the temporary directory of this replica."""


class Unreadable(StoreUnavailable):
    """An object can't be read as what it should be: it was damaged, or another version wrote it."""


class NotFound(StoreError):  # noqa: N818
    """There is no such thing, or none that its asker may see."""


class Changed(StoreError):  # noqa: N818
    """The object is no longer the one that was read."""


class Refused(StoreError):  # noqa: N818
    """It can't be kept as it is."""


class TooLarge(Refused):
    """It is larger, or they are more, than is kept."""


class TooMany(Refused):
    """There are as many as one may have: some have to end before."""
