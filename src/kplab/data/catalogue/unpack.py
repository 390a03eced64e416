"""Unpacking of archives from elsewhere: nothing is written outside the folder, and nothing of a damaged archive stays.

An archive is unpacked into a folder beside its destination; its files are moved when all of them are there. Refused are
absolute names, ``..``, links that leave the archive, devices, encrypted members, names that occur twice, and contents that are
much larger than the archive. Links to files of the same archive become copies. Permissions and owners are not taken over.
"""

from __future__ import annotations

import lzma
import posixpath
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from kplab.errors import DataError

CHUNK = 1 << 20
#: A content may have this many times the bytes of its archive, or ``ALWAYS`` bytes: compressed label files reach 20.
RATIO, ALWAYS = 200, 1 << 30
MEMBERS = 5_000_000
#: What the libraries raise on damaged archives.
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True)
class _Member:
    """A file, folder or link of an archive: ``open`` is None of folders, ``link`` the name that a link refers to."""

    name: str
    size: int
    open: Callable[[], IO[bytes]] | None
    link: str | None = None


def unpack(archive: Path, into: Path, progress: Callable[[int], None] | None = None) -> int:
    """Unpack a zip or tar archive; of several files of one name, the unpacked one replaces what was there.

    Args:
        archive: the file; tar may be compressed by gzip, bzip2 or xz.
        into: folder, which is made where it does not exist.
        progress: called with the number of files that are unpacked.

    Returns:
        Number of files.

    Raises:
        DataError: the archive is damaged or not allowed; names the archive and the member. Nothing was unpacked.
    """
    into.mkdir(parents=True, exist_ok=True)
    limit = min(max(RATIO * archive.stat().st_size, ALWAYS), shutil.disk_usage(into).free)
    # beside the destination, so that moving is renaming
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=into) as folder:
        home = Path(folder)
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as opened:
                    names = _write(archive, _zip_members(archive, opened), home, limit, progress)
            elif tarfile.is_tarfile(archive):
                with tarfile.open(archive) as tar:
                    names = _write(archive, _tar_members(archive, tar), home, limit, progress)
            else:
                raise DataError(
                    f"{archive}: neither a zip nor a tar archive, or its beginning is damaged. Fetch it again."
                )
        except DAMAGED as error:
            raise DataError(f"{archive}: the archive is damaged ({error}). Delete it, and fetch it again.") from None
        except OSError as error:
            # bz2 reports damaged data like this; a full or failing disk has a number
            if error.errno is not None:
                raise
            raise DataError(f"{archive}: the archive is damaged ({error}). Delete it, and fetch it again.") from None
        for name in names:
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (home / name).replace(target)
    return len(names)


def checked_name(archive: Path, name: str) -> str:
    """The name of a member, normalised.

    Raises:
        DataError: it leads out of the folder, or is no name.

    >>> checked_name(Path("a.zip"), "./train//1.jpg")
    'train/1.jpg'
    """
    drive = len(name) > 1 and name[1] == ":"
    if name.startswith("/") or drive or "\\" in name or "\0" in name or ".." in PurePosixPath(name).parts:
        raise DataError(
            f"{archive}: member '{name}' leads out of the folder. The archive is not safe: don't unpack it."
        )
    return posixpath.normpath(name)


def _write(
    archive: Path, members: Iterator[_Member], home: Path, limit: int, progress: Callable[[int], None] | None
) -> list[str]:
    """Write files, then copies for links; returns the names of the files."""
    written: dict[str, None] = {}
    links: dict[str, str] = {}
    total = 0
    for count, member in enumerate(members):
        if count >= MEMBERS:
            raise DataError(f"{archive}: more than {MEMBERS} members. The archive is not safe: don't unpack it.")
        name = checked_name(archive, member.name)
        if member.open is None and member.link is None:
            if name != ".":
                (home / name).mkdir(parents=True, exist_ok=True)
            continue
        if name in written or name in links or name == ".":
            raise DataError(f"{archive}: member '{name}' occurs twice, or is no file. Fetch another archive.")
        if member.link is not None:
            links[name] = checked_name(archive, member.link)
            continue
        assert member.open is not None
        total = _copy(archive, member, _place(archive, home, name), total, limit)
        written[name] = None
        if progress is not None:
            progress(len(written))
    for name in links:
        target, seen = name, set()
        while target in links and target not in seen:
            seen.add(target)
            target = links[target]
        if target not in written:
            raise DataError(
                f"{archive}: member '{name}' is a link to '{links[name]}', which is no file of the archive."
            )
        total += (home / target).stat().st_size
        _check_size(archive, total, limit)
        shutil.copyfile(home / target, _place(archive, home, name))
    return [*written, *links]


def _place(archive: Path, home: Path, name: str) -> Path:
    """The path of a file to write, in a folder that exists."""
    path = home / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{archive}: member '{name}' is below a file. Fetch another archive.") from None
    if path.exists():
        raise DataError(f"{archive}: member '{name}' has the name of another one. Fetch another archive.")
    return path


def _copy(archive: Path, member: _Member, path: Path, total: int, limit: int) -> int:
    """Write one file; returns the bytes that are written of the archive."""
    assert member.open is not None
    size = 0
    with member.open() as source, path.open("xb") as target:
        while chunk := source.read(CHUNK):
            size += len(chunk)
            _check_size(archive, total + size, limit)
            target.write(chunk)
    if size != member.size:
        raise DataError(f"{archive}: the archive ends within '{member.name}'. Delete it, and fetch it again.")
    return total + size


def _check_size(archive: Path, total: int, limit: int) -> None:
    if total > limit:
        raise DataError(
            f"{archive}: its content is larger than {limit / 1e9:.3g} GB, which is more than the disk has left, or {RATIO} "
            "times the archive. Free space, or unpack it by hand if you trust it."
        )


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[_Member]:
    for info in opened.infolist():
        # zipfile cuts names at a NUL and replaces separators: the name as it is stored is checked
        name, mode = info.orig_filename, info.external_attr >> 16
        if info.flag_bits & 1:
            raise DataError(f"{archive}: member '{name}' is encrypted. Unpack it by hand, with its password.")
        if stat.S_ISLNK(mode):
            target = opened.read(info).decode("utf-8", "replace") if info.file_size < 4096 else "/"
            yield _Member(name, 0, None, _relative(name, target))
        elif info.is_dir():
            yield _Member(name, 0, None)
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise DataError(f"{archive}: member '{name}' is a device. The archive is not safe: don't unpack it.")
        else:
            yield _Member(name, info.file_size, partial(opened.open, info))


def _opened(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(info)
    assert stream is not None, "a regular file has content"
    return stream


def _tar_members(archive: Path, tar: tarfile.TarFile) -> Iterator[_Member]:
    for info in tar:
        if info.isdir():
            yield _Member(info.name, 0, None)
        elif info.issym():
            yield _Member(info.name, 0, None, _relative(info.name, info.linkname))
        elif info.islnk():
            yield _Member(info.name, 0, None, info.linkname)
        elif info.isreg():
            yield _Member(info.name, info.size, partial(_opened, tar, info))
        else:
            raise DataError(f"{archive}: member '{info.name}' is a device. The archive is not safe: don't unpack it.")
    assert tar.fileobj is not None
    # a tar ends with a block of zeros; one that is cut between two members does not
    if tar.fileobj.tell() < tar.offset + tarfile.BLOCKSIZE:
        raise DataError(f"{archive}: the archive has no end: it is cut. Delete it, and fetch it again.")
    # the checksum of a compressed file is at its end
    while tar.fileobj.read(CHUNK):
        pass


def _relative(name: str, target: str) -> str:
    """What a symbolic link refers to, relative to the archive; an absolute target stays absolute."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
