"""One test for both clients: the blocking one is awaited too."""

import inspect
from typing import Any


class Both:
    """A client, blocking or awaiting, whose methods are all awaited."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return Both(found)

        async def call(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return call
