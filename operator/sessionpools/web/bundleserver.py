"""GET /bundles/SHA256.tar.gz on port 12803, for session pods: inside the cluster, without a token.

Who asks knows the digest, which is in the WebService that the pod runs; what it gets it checks against the same digest.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sessionpools.web.store.bundles import Bundles
from sessionpools.web.store.errors import NotFound, StoreError

__all__ = ["create_bundle_server"]

_FILE: Final = re.compile(r"([0-9a-f]{64})\.tar\.gz")


def create_bundle_server(bundles: Bundles) -> Starlette:
    async def bundle(request: Request) -> Response:
        found = _FILE.fullmatch(request.path_params["file"])
        if not found:
            return PlainTextResponse("a bundle is called SHA256.tar.gz, of 64 lower-case hexadecimal digits\n", 404)
        sha256 = found[1]
        try:
            size = await bundles.size(sha256)
            pieces = bundles.stream(sha256)
            first = await anext(pieces, b"")
        except NotFound as error:
            return PlainTextResponse(f"{error}\n", 404)
        except StoreError as error:
            return PlainTextResponse(f"{error}\n", 503, {"Retry-After": "5"})

        async def content() -> AsyncIterator[bytes]:
            yield first
            async for piece in pieces:
                yield piece

        headers = {"Content-Length": str(size), "ETag": f'"{sha256}"'}
        return StreamingResponse(content(), headers=headers, media_type="application/gzip")

    return Starlette(routes=[Route("/bundles/{file}", bundle)])
