"""`python -m bench.log_reader DIRECTORY`: count the gateway's log lines, with what the agent does it with."""

import asyncio
import sys
from pathlib import Path

from sessionpools.gateway.files import REQUESTS_SOCKET
from sessionpools.gateway.requests import RequestMetrics, listen


async def main() -> None:
    await listen(Path(sys.argv[1]) / REQUESTS_SOCKET, RequestMetrics())
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
