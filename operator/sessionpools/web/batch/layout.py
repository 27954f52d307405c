"""Where a batch's objects are, under the prefixes that `store.keys` lists. Names only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sessionpools.web.batch.state import Service, State
from sessionpools.web.store.keys import short_digest

__all__ = ["DATA", "OPEN", "STATES", "Place"]

OPEN: Final = "batches/open"
STATES: Final = "batches/states"
DATA: Final = "batches/data"

_OPEN_NAME: Final = re.compile(r"\d{13}\.([0-9a-f]{16})\.([0-9a-f-]{36})\.([0-9a-f]{16})")
_STATE_NAME: Final = re.compile(r"([0-9a-f]{16})/([0-9a-f-]{36})\.([0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class Place:
    """What is in the key of a batch's record: enough to find and to list batches without reading them."""

    service: str  # digests
    id: str
    owner: str

    @classmethod
    def of(cls, service: Service, batch_id: str, owner: str) -> Place:
        """The place of a batch."""
        return cls(service_digest(service), batch_id, short_digest(owner))

    @classmethod
    def of_state(cls, state: State) -> Place:
        """The place of a batch whose record is known."""
        return cls.of(state.service, state.id, state.owner)

    @classmethod
    def of_open_key(cls, key: str) -> Place | None:
        """From the key of an open batch's mark."""
        found = _OPEN_NAME.fullmatch(key.removeprefix(f"{OPEN}/"))
        return cls(*found.groups()) if found else None

    @classmethod
    def of_state_key(cls, key: str) -> Place | None:
        """From the key of a batch's record."""
        found = _STATE_NAME.fullmatch(key.removeprefix(f"{STATES}/"))
        return cls(*found.groups()) if found else None

    @property
    def state_key(self) -> str:
        """The record."""
        return f"{STATES}/{self.service}/{self.id}.{self.owner}"

    def open_key(self, created: float) -> str:
        """The mark of a batch that is not finished; the oldest comes first in a sorted list."""
        return f"{OPEN}/{int(created * 1000):013d}.{self.service}.{self.id}.{self.owner}"

    @property
    def data_prefix(self) -> str:
        """Everything else that it has."""
        return f"{DATA}/{self.id}"

    @property
    def items_key(self) -> str:
        """The inputs, a line each."""
        return f"{self.data_prefix}/items"

    def segment_key(self, name: str) -> str:
        """Results, a line each."""
        return f"{self.data_prefix}/results/{name}"

    def file_names_key(self, item: int) -> str:
        """Which output files a call has written: a JSON list, the file at place n being `file_key(item, n)`."""
        return f"{self.data_prefix}/files/{item}/names"

    def file_key(self, item: int, number: int) -> str:
        """One output file."""
        return f"{self.data_prefix}/files/{item}/{number}"


def service_digest(service: Service) -> str:
    """What stands for a web service in keys."""
    return short_digest(service.namespace, service.name, service.version)
