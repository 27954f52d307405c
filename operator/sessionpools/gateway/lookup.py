"""What the web API's name means now. Called by agent.py; a new address calls `on_change`.

The system's own resolver is asked, so that any form of the name will do that works elsewhere in the pod. The address of
a Service stays for its life, so asking now and then is enough. An address that was found is kept while the name has it
still, and when nothing answers: what was true last is better than nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from sessionpools.gateway import webapi
from sessionpools.gateway.model import OpenSlot
from sessionpools.gateway.options import WebApi

__all__ = ["Lookup", "Resolve", "addresses"]

log = logging.getLogger(__name__)

Resolve = Callable[[WebApi], Awaitable[list[str]]]  # as `addresses`

AGAIN_SECONDS: Final = 10.0
UNKNOWN_AGAIN_SECONDS: Final = 1.0


async def addresses(web: WebApi) -> list[str]:
    """What its name means, in the order in which the system prefers them. Raises OSError, and UnicodeError for what can
    be no name."""
    found = await asyncio.get_running_loop().getaddrinfo(web.host, web.port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found if "%" not in str(address[0])]


class Lookup:
    """`web`: None where there is no web API. `address`: "" while it is not known."""

    def __init__(
        self,
        web: WebApi | None,
        on_change: Callable[[], None],
        resolve: Resolve = addresses,
    ) -> None:
        self.address = ""
        self._web = web
        self._on_change = on_change
        self._resolve = resolve
        self._trouble = ""

    @property
    def server(self) -> OpenSlot | None:
        """Where HAProxy is to send what is for the web API."""
        return webapi.server(self._web, self.address) if self._web else None

    async def run(self) -> None:
        """Until cancelled."""
        while self._web:
            await self._look(self._web)
            await asyncio.sleep(AGAIN_SECONDS if self.address else UNKNOWN_AGAIN_SECONDS)

    async def _look(self, web: WebApi) -> None:
        try:
            found = await self._resolve(web)
        except (OSError, UnicodeError) as error:
            self._say(f"the web API's name {web.host} is not found: {error}")
            return
        self._say("")
        if found and self.address not in found:
            self.address = found[0]
            log.info("the web API has an address", extra={"web_api": str(web), "address": self.address})
            self._on_change()

    def _say(self, trouble: str) -> None:
        """Once for as long as it lasts."""
        if trouble and trouble != self._trouble:
            log.warning(trouble, extra={"address": self.address})
        self._trouble = trouble
