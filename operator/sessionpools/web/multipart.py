"""Reads the one file of a `multipart/form-data` body piece by piece, however large it is (RFC 7578, RFC 2046).

Machine Learning Server's upload of session files has this form. No I/O of its own: pieces in, pieces out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Final

from sessionpools.web.errors import BadRequest

__all__ = ["Part", "file_part"]

_HEAD_AT_MOST: Final = 16 * 1024  # bytes of a part's headers
_BOUNDARY_AT_MOST: Final = 70  # characters; RFC 2046


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is a file. `content` has to be read before anything else of the body is."""

    field: str
    file_name: str
    content: AsyncIterator[bytes]


class _Reader:
    """The body, with what of it has been read and not been taken."""

    def __init__(self, pieces: AsyncIterator[bytes], delimiter: bytes) -> None:
        self._pieces = pieces
        self._delimiter = delimiter
        self._held = b"\r\n"  # the first delimiter has no line before it

    async def more(self) -> bool:
        async for piece in self._pieces:
            if piece:
                self._held += piece
                return True
        return False

    async def until_delimiter(self) -> AsyncGenerator[bytes, None]:
        """What comes before the next delimiter, which is taken as well."""
        while True:
            before, found, after = self._held.partition(self._delimiter)
            if found:
                self._held = after
                if before:
                    yield before
                return
            keep = len(self._delimiter) - 1  # the delimiter may have begun
            ready, self._held = self._held[:-keep], self._held[-keep:]
            if ready:
                yield ready
            if not await self.more():
                raise BadRequest("the multipart body ends before its last boundary: send it again")

    async def head(self) -> Message | None:
        """The headers of the part that follows a delimiter; None after the last."""
        while len(self._held) < 2:
            if not await self.more():
                return None
        if self._held.startswith(b"--"):
            return None
        while True:
            head, found, rest = self._held.partition(b"\r\n\r\n")
            if found:
                self._held = rest
                return BytesHeaderParser().parsebytes(head.lstrip(b" \t\r\n"))
            if len(self._held) > _HEAD_AT_MOST:
                raise BadRequest(f"a part of the multipart body has headers of more than {_HEAD_AT_MOST} bytes")
            if not await self.more():
                raise BadRequest("the multipart body ends within the headers of a part: send it again")


async def file_part(content_type: str, pieces: AsyncIterator[bytes]) -> Part:
    """The first part with a file name. Raises BadRequest, also while its content is read."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary("")
    if message.get_content_type() != "multipart/form-data" or not boundary or len(boundary) > _BOUNDARY_AT_MOST:
        raise BadRequest("Content-Type: send the file as multipart/form-data with a boundary, in the part `file`")
    reader = _Reader(pieces, b"\r\n--" + boundary.encode())
    async for _ in reader.until_delimiter():
        pass
    while (head := await reader.head()) is not None:
        name = head.get_filename()
        if name:
            field = str(head.get_param("name", "", "content-disposition"))
            return Part(field, name, reader.until_delimiter())
        async for _ in reader.until_delimiter():
            pass
    raise BadRequest("file: the multipart body has no part with a file name: send one, named `file`")
