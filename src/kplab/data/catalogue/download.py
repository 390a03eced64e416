"""Downloads that resume: a file appears under its name when all of it is there, and its checksum is right.

What has arrived is kept as ``<name>.part``, with the address and the validator of the server in ``<name>.part.json``. Later
attempts ask for the rest (HTTP Range with If-Range, RFC 9110, sections 13.1.5 and 14) and begin anew where the server offers
another version of the file.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from kplab.data.catalogue.entry import File
from kplab.errors import DataError

CHUNK = 1 << 18
LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Answers of servers after which another attempt may succeed.
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Limits:
    """Limits of a download.

    Args:
        timeout: seconds without a byte after which a connection is given up.
        attempts: attempts in a row that bring nothing new, after which the download is given up.
        pause: seconds before the second such attempt; doubled with each further one, at most a minute.
        redirects: largest number of redirections.
        loopback: allow http and https to this machine, for a mirror on it.
    """

    timeout: float = 30.0
    attempts: int = 5
    pause: float = 1.0
    redirects: int = 5
    loopback: bool = False


class _Again(Exception):
    """An attempt ended early, and another one may succeed."""


def check_address(url: str, http: bool, limits: Limits) -> None:
    """Refuse addresses that are not https, or that are of this machine.

    Args:
        url: the address.
        http: whether http is allowed.
        limits: ``loopback`` allows this machine.

    Raises:
        DataError: names the address.
    """
    parts = urlsplit(url)
    local = (parts.hostname or "") in LOOPBACK
    if local and limits.loopback and parts.scheme in ("http", "https"):
        return
    if not parts.hostname or local or parts.username is not None:
        raise DataError(f"{url}: is no address of a public server. Correct it; loopback=true allows this machine.")
    if parts.scheme != "https" and not (http and parts.scheme == "http"):
        raise DataError(f"{url}: is not https, so that the file could be changed on its way. Use an https address.")


def fetch(file: File, to: Path, limits: Limits | None = None, progress: Progress | None = None) -> None:
    """Download a file; what an earlier attempt has left is continued.

    Args:
        file: with an address.
        to: path of the complete file.
        limits: of the download.
        progress: called with the bytes that are there and their total, or None where the server does not state it.

    Raises:
        DataError: the server refuses, gives up too often, redirects to an address that is not allowed, or sends a page in
            place of the file; or the checksum is another one.
    """
    limits = limits or Limits()
    assert file.url is not None
    check_address(file.url, file.http, limits)
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f"{to.name}.part")
    with _locked(part) as stream:
        resumed = stream.seek(0, os.SEEK_END) > 0
        _complete(file, part, stream, limits, progress or _silent)
        try:
            verify(part, file)
        except DataError:
            if not resumed:
                _forget(part)
                raise
            # the beginning may be the damaged part: once more, from the first byte
            stream.truncate(0)
            _complete(file, part, stream, limits, progress or _silent)
            try:
                verify(part, file)
            except DataError:
                _forget(part)
                raise
        stream.flush()
        os.fsync(stream.fileno())
        part.replace(to)
    _forget(part)


def verify(path: Path, file: File) -> None:
    """Compare the checksum of a file with the one that the catalogue states; nothing where it states none.

    Raises:
        DataError: it is another one; names both.
    """
    if file.checksum is None:
        return
    algorithm, _, expected = file.checksum.partition(":")
    found = digest(path, algorithm)
    if found != expected:
        raise DataError(
            f"{file.name}: the {algorithm} of the {path.stat().st_size} bytes is {found}, expected {expected}. The file is "
            "damaged, or its publisher has changed it: fetch it again; if the same hash comes, compare it with the "
            "publisher's, and correct the checksum in the dataset's configuration."
        )


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The hash of a file, hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _silent(done: int, total: int | None) -> None:
    pass


def _forget(part: Path) -> None:
    for path in (part, _state_path(part)):
        path.unlink(missing_ok=True)


def _state_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


@contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """The partial file, open for this process only."""
    with part.open("ab") as stream:
        with suppress(ImportError):  # Windows has no such locks
            import fcntl

            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise DataError(f"{part}: another process downloads this file. Wait for it, or end it.") from None
        yield stream


def _complete(file: File, part: Path, stream: IO[bytes], limits: Limits, progress: Progress) -> None:
    """Attempts until the file is complete, or none of the last ones has brought anything."""
    failed, reason = 0, ""
    while failed < limits.attempts:
        if failed > 1:
            time.sleep(min(60.0, limits.pause * 2 ** (failed - 2)))
        before = stream.seek(0, os.SEEK_END)
        try:
            _attempt(file, part, stream, limits, progress)
            return
        except (_Again, OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and getattr(error, "filename", None):
                raise  # of this machine's disk, not of the network
            reason = str(getattr(error, "reason", "")) or str(error) or type(error).__name__
        failed = 0 if stream.seek(0, os.SEEK_END) > before else failed + 1
    raise DataError(
        f"{file.url}: {limits.attempts} attempts in a row failed ({reason}). What has arrived is kept: run the command "
        "again to continue, or download the file with a browser and put it into the folder 'downloads'."
    )


def _attempt(file: File, part: Path, stream: IO[bytes], limits: Limits, progress: Progress) -> None:
    """One request for what is missing."""
    state = _read_state(part)
    offset = stream.seek(0, os.SEEK_END)
    if offset and (state.get("url") != file.url or not (state.get("validator") or file.checksum)):
        offset = _begin(stream)
    headers = {"User-Agent": "kplab", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if state.get("validator"):
            headers["If-Range"] = str(state["validator"])
    opener = urllib.request.build_opener(_Redirects(limits))
    try:
        answer = opener.open(urllib.request.Request(str(file.url), headers=headers), timeout=limits.timeout)
    except urllib.error.HTTPError as error:
        _refused(file, error, offset, state, stream)
        return
    with answer:
        if "text/html" in answer.headers.get("Content-Type", "") and not file.name.endswith((".html", ".htm")):
            raise DataError(
                f"{file.url}: the server sends a page in place of {file.name}; it may want a login or a confirmation. "
                "Download the file with a browser, and put it into the folder 'downloads'."
            )
        length = answer.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
        if answer.status == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
            if not found or int(found[1]) != offset:
                _begin(stream)
                raise _Again("the server sent another part of the file than was asked for")
            total = None if found[2] == "*" else int(found[2])
            if state.get("total") not in (None, total):
                _begin(stream)
                raise _Again("the file has another size than before")
        elif offset:
            offset = _begin(stream)
        _write_state(part, {"url": file.url, "validator": _validator(answer.headers), "total": total})
        progress(offset, total)
        while chunk := answer.read1(CHUNK):
            stream.write(chunk)
            offset += len(chunk)
            progress(offset, total)
    stream.flush()
    if total is not None and offset < total:
        raise _Again(f"the connection ended after {offset} of {total} bytes")
    if total is not None and offset > total:
        _begin(stream)
        raise _Again(f"{offset} bytes arrived, but the file has {total}")


def _refused(file: File, error: urllib.error.HTTPError, offset: int, state: dict[str, Any], stream: IO[bytes]) -> None:
    """An answer that is no success: all is there already, another attempt, or the end."""
    with error:
        if error.code == 416 and offset:
            if state.get("total") == offset:
                return
            _begin(stream)
            raise _Again("the server has no such part of the file")
        if error.code in TEMPORARY:
            raise _Again(f"the server answers {error.code} {error.reason}")
        raise DataError(
            f"{file.url}: the server answers {error.code} {error.reason}. Check the address on the dataset's page, or "
            "download the file with a browser and put it into the folder 'downloads'."
        ) from None


def _begin(stream: IO[bytes]) -> int:
    stream.truncate(0)
    return 0


def _validator(headers: Message) -> str | None:
    """What states that a file is still the same: a strong ETag, else the time of its last change."""
    tag = str(headers.get("ETag") or "")
    return tag if tag.startswith('"') else headers.get("Last-Modified")


def _read_state(part: Path) -> dict[str, Any]:
    try:
        content = json.loads(_state_path(part).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_state(part: Path, state: dict[str, Any]) -> None:
    _state_path(part).write_text(json.dumps(state))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a limited number of redirections, to https only."""

    max_repeats = max_redirections = 1 << 16  # ``limits`` counts

    def __init__(self, limits: Limits) -> None:
        self.limits, self.count = limits, 0

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        self.count += 1
        if self.count > self.limits.redirects:
            raise DataError(f"{req.full_url}: more than {self.limits.redirects} redirections. Check the address.")
        try:
            check_address(newurl, False, self.limits)
        except DataError as error:
            raise DataError(f"redirected to {error}") from None
        return super().redirect_request(req, fp, code, msg, headers, newurl)
