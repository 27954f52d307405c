"""When a pod takes over what its live settings say: at once, but for a lower maximum, which gateways hear of first.

Reads the file that the kubelet replaces; the keeper of the slots carries out what it says. Called by the supervisor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sessionpools.session.config import ConfigError, Settings, SettingsFile
from sessionpools.session.keeper import SlotKeeper
from sessionpools.session.log import Log

_LET_GO_SECONDS = 3.0  # before slots are closed by a lower maximum: gateways, told at the same time, close them first


class LiveSettings:
    """Of a pod; in force are those of its keeper."""

    def __init__(self, path: str, keeper: SlotKeeper, log: Log, now: Callable[[], float]) -> None:
        self._file = SettingsFile(path)
        self._keeper = keeper
        self._log = log
        self._now = now
        self._lower_at = 0.0  # when a lower maximum that was read is taken over; 0: none was read
        self._lower_to = 0  # meaningless without

    def begin(self) -> None:
        """Open the first slots. Raises OSError when a port is taken."""
        self._keeper.resize(self._read())

    def take_over(self) -> str:
        """Once a second: take over what has changed; why not all of it could be, "" when it could."""
        settings = self._read()
        if settings.max_pool_size < self._keeper.settings.max_pool_size:
            self._lower_at = self._lower_at or self._now() + _LET_GO_SECONDS
            self._lower_to = settings.max_pool_size
            if self._now() < self._lower_at:
                return ""
        self._lower_at = 0.0
        if settings != self._keeper.settings:
            self._log("settings", settings=settings.as_json())
        elif len(self._keeper.slots) >= settings.max_pool_size:
            return ""
        try:
            self._keeper.resize(settings)
        except OSError as error:
            return str(error)
        return ""

    def announced(self) -> Settings:
        """As in force, but for a lower maximum: that counts from when it was read, so that no gateway opens a slot
        which is about to be closed."""
        if not self._lower_at:
            return self._keeper.settings
        return replace(self._keeper.settings, max_pool_size=self._lower_to)

    def _read(self) -> Settings:
        try:
            return self._file.read()
        except ConfigError as error:
            self._log("settings-unreadable", level="error", message=str(error))
            return self._keeper.settings
