"""Bundles for tests: ordinary ones, and ones that mean ill."""

import gzip
import hashlib
import io
import tarfile
import textwrap
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

PREDICT = "def predict(x: float = 1.0) -> float:\n    return 2 * x\n"


@dataclass(frozen=True)
class Archive:
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def tar_gz(files: Mapping[str, str | bytes]) -> Archive:
    return Archive(gzip.compress(tar(files).data, mtime=0))


def tar(files: Mapping[str, str | bytes]) -> Archive:
    return members(member(name, content) for name, content in files.items())


def bundle(text: str = PREDICT, **files: str | bytes) -> Archive:
    """A .tar.gz whose service.py is `text`; other files by keyword, `__` standing for a slash."""
    others = {f"{name.replace('__', '/')}.py": content for name, content in files.items()}
    return tar_gz({"service.py": textwrap.dedent(text), **others})


def zipped(files: Mapping[str, str | bytes], compression: int = zipfile.ZIP_DEFLATED) -> Archive:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return Archive(target.getvalue())


Entry = tuple[tarfile.TarInfo, bytes]


def member(
    name: str,
    content: str | bytes = b"",
    *,
    type_: bytes = tarfile.REGTYPE,
    to: str = "",
    mode: int = 0o644,
    change: Callable[[tarfile.TarInfo], None] = lambda _: None,
) -> Entry:
    data = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = type_, to, mode, len(data)
    change(info)
    return info, data


def members(entries: Iterable[Entry]) -> Archive:
    """A .tar as it is told, however strange that is."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data) if data else None)
    return Archive(target.getvalue())
