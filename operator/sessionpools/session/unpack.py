"""From an archive to a folder: what a bundle may hold, and how much.

    BundleError             a bundle cannot be had; the message is a sentence, `reason` the word before it
      BundleInvalidError    it is no archive, is damaged, or holds what it must not
      BundleTooLargeError   it is larger than a bundle may be, packed or unpacked, or than the disk

Whatever the archive says is checked here, before it is done: names are relative and stay below the folder, nothing is
written twice, no device is made, and what is written is counted rather than what headers promise. No symbolic link
exists while files are written, so that none can be followed: they are made at the end, each with a target whose way
goes up first, not beyond the folder, and then down only (from a real folder, as no link is any name's parent). So none
leads out, whatever others it goes through.

Called by fetch.py, in a process that holds nothing and has a memory limit of its own.
"""

from __future__ import annotations

import errno
import gzip
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

# Each session pod has a copy on its node's disk, written at its start: 2 GiB are some ten seconds on a good one. What
# is larger belongs into an image, of which all pods of a node share one copy, or on a volume.
MAX_UNPACKED_BYTES: Final = 2 << 30
# Files, folders and links. numpy, scipy, pandas and scikit-learn together have 5,000 files, 10,000 with their bytecode;
# a disk has some millions of inodes, which no other limit guards.
MAX_ENTRIES: Final = 20_000
# What headers, padding and extended headers of so many entries may take in a tar beside the contents.
_MAX_TAR_BYTES: Final = MAX_UNPACKED_BYTES + MAX_ENTRIES * 4096
_MAX_LINK_BYTES: Final = 4096  # PATH_MAX
_CHUNK_BYTES: Final = 256 << 10
_SHOWN_CHARACTERS: Final = 120  # of a name in a message
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY: Final = 0o444
_EXECUTABLE: Final = 0o111
_ENCRYPTED: Final = 0x1  # of the flags of an entry of a zip
_ELSEWHERE: Final = "put what is large into an image (code.imagePath) or on a volume"
_MAKE: Final = "make it anew, for example with tar --create --gzip --file bundle.tar.gz --directory FOLDER ."


class BundleError(Exception):
    reason = "BundleError"


class BundleInvalidError(BundleError):
    reason = "BundleInvalid"


class BundleTooLargeError(BundleError):
    reason = "BundleTooLarge"


@dataclass(frozen=True)
class Limits:
    """Smaller ones are for tests."""

    bytes: int = MAX_UNPACKED_BYTES
    tar_bytes: int = _MAX_TAR_BYTES
    entries: int = MAX_ENTRIES


def unpack(archive: str, folder: str, limits: Limits = Limits()) -> None:
    """Fill the folder, which must not exist, with the content of a .tar.gz, .tar or .zip (its first bytes tell which).

    Raises BundleError, and OSError for what is no fault of the archive; the folder is then left as it is.
    """
    target = _Target(folder, limits)
    try:
        with open(archive, "rb") as file:
            start = file.read(512)
            file.seek(0)
            if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                _unpack_zip(file, target)
            elif start.startswith(b"\x1f\x8b"):
                with gzip.GzipFile(fileobj=file) as inner:
                    _unpack_tar(_Counted(inner, limits.tar_bytes), target)
            elif start[257:262] == b"ustar":
                _unpack_tar(_Counted(file, limits.tar_bytes), target)
            else:
                raise BundleInvalidError(f"it is neither a .tar.gz nor a .tar nor a .zip; {_MAKE}")
        target.finish()
    except BundleError:
        raise
    except gzip.BadGzipFile as error:  # an OSError
        raise _damaged(error) from error
    except OSError as error:
        if full := no_room(error):
            raise full from error
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EILSEQ):
            raise BundleInvalidError(f"it holds a name that cannot be a file's here: {error.strerror}") from error
        raise
    except MemoryError as error:
        raise BundleInvalidError(f"its headers take more memory than any bundle's should; {_MAKE}") from error
    except Exception as error:  # TarError, BadZipFile, zlib.error, EOFError, RecursionError (headers of headers), ...
        raise _damaged(error) from error


def no_room(error: OSError) -> BundleTooLargeError | None:
    """What an error of the disk says of the bundle, if that it does not fit."""
    if error.errno in _FULL:
        return BundleTooLargeError(f"there is no room for it on the node's disk ({error.strerror}); {_ELSEWHERE}")
    return None


def _damaged(error: BaseException) -> BundleInvalidError:
    words = " ".join(str(error).split())[:_SHOWN_CHARACTERS] or type(error).__name__
    return BundleInvalidError(f"it is damaged ({words}); {_MAKE}")


# --- reading ----------------------------------------------------------------------------------------------------------


class _Counted:
    """A file of which no more than so many bytes are read: what is packed in few bytes may have no end."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, limit: int) -> None:
        self._file = file
        self._left = limit

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        self._left -= len(data)
        if self._left < 0:
            raise BundleTooLargeError("unpacked it is larger than any bundle may be; " + _ELSEWHERE)
        return data


class _Member(tarfile.TarInfo):
    """tarfile takes a header that is damaged for the end of the archive, but for the first one."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise BundleInvalidError(f"it is damaged or not whole ({error}); {_MAKE}") from error


def _unpack_tar(file: _Counted, target: _Target) -> None:
    second_look = getattr(tarfile, "data_filter", None)  # not in the oldest Pythons that this runs on
    with tarfile.open(fileobj=file, mode="r|", tarinfo=_Member) as tar:  # type: ignore[call-overload]
        for member in _members(tar):
            name = member.name
            path = _path(name)
            if second_look is not None:
                try:
                    second_look(member, target.root)
                except tarfile.TarError as error:
                    raise BundleInvalidError(f"it holds {_shown(name)}: {error}") from error
            if member.isdir():
                target.folder(path)
            elif member.issym():
                target.link(path, member.linkname)
            elif member.islnk():
                target.hard_link(path, _path(member.linkname))
            elif member.isreg():
                source = tar.extractfile(member)
                assert source is not None  # noqa: S101  it is a file
                target.file(path, source, bool(member.mode & 0o100))
            else:
                raise _strange(name)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    kept: list[tarfile.TarInfo] = vars(tar)["members"]
    while (member := tar.next()) is not None:
        kept.clear()  # it would keep all of them
        yield member


def _unpack_zip(file: IO[bytes], target: _Target) -> None:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            path = _path(info.filename)
            mode = info.external_attr >> 16
            kind = stat.S_IFMT(mode)
            if info.flag_bits & _ENCRYPTED:
                raise BundleInvalidError(f"{_shown(info.filename)} is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BundleInvalidError(
                    f"{_shown(info.filename)} is packed in a way that is not read here: use deflate"
                )
            if info.is_dir():
                target.folder(path)
            elif kind == stat.S_IFLNK:
                with archive.open(info) as source:
                    target.link(path, os.fsdecode(source.read(_MAX_LINK_BYTES + 1)))
            elif kind in (0, stat.S_IFREG):
                with archive.open(info) as source:
                    target.file(path, source, bool(mode & 0o100))
            else:
                raise _strange(info.filename)


def _path(name: str) -> tuple[str, ...]:
    """The parts of a name; () for the folder itself."""
    if name.startswith("/"):
        raise BundleInvalidError(f"it holds {_shown(name)}, which is no relative name; {_MAKE}")
    if "\\" in name or any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise BundleInvalidError(f"it holds {_shown(name)}, a name with a backslash or a control character; {_MAKE}")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise BundleInvalidError(f'it holds {_shown(name)}, a name with ".."; {_MAKE}')
    return parts


def _strange(name: str) -> BundleInvalidError:
    return BundleInvalidError(f"it holds {_shown(name)}, a device or the like; it may hold files, folders and links")


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}...")


# --- writing ----------------------------------------------------------------------------------------------------------


class _Target:
    """The folder that is filled."""

    def __init__(self, root: str, limits: Limits) -> None:
        self.root = root
        self._limits = limits
        self._folders: set[tuple[str, ...]] = {()}
        self._files: set[tuple[str, ...]] = set()
        self._links: list[tuple[tuple[str, ...], str]] = []
        self._entries = 0
        self._bytes = 0
        os.mkdir(root, 0o700)

    def folder(self, path: tuple[str, ...]) -> None:
        """Make it and those above it that are missing."""
        for end in range(1, len(path) + 1):
            part = path[:end]
            if part in self._folders:
                continue
            self._count(part)
            try:
                os.mkdir(self._at(part), 0o700)
            except FileExistsError:
                raise self._twice(part) from None
            self._folders.add(part)

    def file(self, path: tuple[str, ...], source: IO[bytes], executable: bool) -> None:
        self._begin(path)
        try:
            fd = os.open(self._at(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise self._twice(path) from None
        with open(fd, "wb") as file:
            while data := source.read(_CHUNK_BYTES):
                self._bytes += len(data)
                if self._bytes > self._limits.bytes:
                    raise BundleTooLargeError(f"unpacked it has more than {self._limits.bytes} bytes; {_ELSEWHERE}")
                file.write(data)
            os.fchmod(fd, _READ_ONLY | (_EXECUTABLE if executable else 0))
        self._files.add(path)

    def hard_link(self, path: tuple[str, ...], to: tuple[str, ...]) -> None:
        """Another name of a file that is there already."""
        self._begin(path)
        if to not in self._files:
            raise BundleInvalidError(f"it holds {self._name(path)}, a link to {self._name(to)}, which it does not hold")
        try:
            os.link(self._at(to), self._at(path), follow_symlinks=False)
        except FileExistsError:
            raise self._twice(path) from None
        self._files.add(path)

    def link(self, path: tuple[str, ...], to: str) -> None:
        """A symbolic link, made at the end."""
        self._begin(path)
        parts = to.split("/")
        down = [part for part in parts if part != ".."]
        up = len(parts) - len(down)
        inside = parts[:up] == [".."] * up and up < len(path)
        if not to or to.startswith("/") or not inside or len(os.fsencode(to)) > _MAX_LINK_BYTES:
            raise BundleInvalidError(
                f"it holds {self._name(path)}, a link to {_shown(to)}: links must be relative and stay in the bundle"
            )
        self._links.append((path, to))

    def finish(self) -> None:
        """Make the links, and take the right to write away."""
        if not self._files:
            raise BundleInvalidError(f"it holds no file; {_MAKE}")
        for path, to in self._links:
            try:
                os.symlink(to, self._at(path))
            except FileExistsError:
                raise self._twice(path) from None
        for folder in self._folders:
            os.chmod(self._at(folder), _READ_ONLY | _EXECUTABLE)

    def _begin(self, path: tuple[str, ...]) -> None:
        if not path:
            raise BundleInvalidError(f"it holds a file without a name; {_MAKE}")
        self._count(path)
        self.folder(path[:-1])

    def _count(self, path: tuple[str, ...]) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            raise BundleTooLargeError(
                f"it holds more than {self._limits.entries} files and folders (the next is {self._name(path)}); "
                + _ELSEWHERE
            )

    def _at(self, path: tuple[str, ...]) -> str:
        return os.path.join(self.root, *path)

    @staticmethod
    def _name(path: tuple[str, ...]) -> str:
        return _shown("/".join(path))

    def _twice(self, path: tuple[str, ...]) -> BundleInvalidError:
        return BundleInvalidError(f"it holds {self._name(path)} twice; {_MAKE}")
