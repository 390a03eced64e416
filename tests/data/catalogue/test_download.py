"""Downloads from a server that cuts, stalls, corrupts and redirects: whole and right, or an error and nothing."""

import fcntl
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.data.catalogue.server import BadServer, Served, serving

from kplab.data.catalogue.download import Limits, check_address, fetch
from kplab.data.catalogue.entry import File
from kplab.errors import DataError

CONTENT = random.Random(0).randbytes(200_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
LIMITS = Limits(timeout=0.3, attempts=3, pause=0.01, loopback=True)


@pytest.fixture(scope="module")
def running() -> Iterator[BadServer]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: BadServer) -> BadServer:
    running.files.clear()
    running.asked.clear()
    running.answers.clear()
    return running


def get(
    server: BadServer, folder: Path, served: Served, checksum: str | None = SHA256, limits: Limits = LIMITS
) -> Path:
    """Serve a file and fetch it."""
    server.files["a.zip"] = served
    to = folder / "a.zip"
    fetch(File("a.zip", server.url("a.zip"), checksum=checksum), to, limits)
    return to


def check_whole(to: Path) -> None:
    """The file is there, and nothing else."""
    assert to.read_bytes() == CONTENT
    assert [path.name for path in to.parent.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("length", [True, False])
def test_a_file_arrives_with_progress(server: BadServer, tmp_path: Path, length: bool) -> None:
    server.files["a.zip"] = Served(CONTENT, length=length)
    seen: list[tuple[int, int | None]] = []
    fetch(
        File("a.zip", server.url("a.zip")), tmp_path / "a.zip", LIMITS, lambda done, total: seen.append((done, total))
    )
    check_whole(tmp_path / "a.zip")
    total = len(CONTENT) if length else None
    assert seen[0] == (0, total)
    assert seen[-1] == (len(CONTENT), total)


def test_a_connection_that_is_cut_is_continued(server: BadServer, tmp_path: Path) -> None:
    check_whole(get(server, tmp_path, Served(CONTENT, cut=70_000)))
    assert [asked for _, asked in server.asked] == [None, "bytes=70000-", "bytes=140000-"]


def test_a_connection_that_stalls_is_continued(server: BadServer, tmp_path: Path) -> None:
    check_whole(get(server, tmp_path, Served(CONTENT, stall=150_000)))
    assert [asked for _, asked in server.asked] == [None, "bytes=150000-"]


def test_a_later_call_continues_what_an_earlier_one_has_left(server: BadServer, tmp_path: Path) -> None:
    server.files["a.zip"] = Served(CONTENT, cut=50_000, ranges=False)
    words = r"(?s)2 attempts in a row.*ended after 50000 of 200000 bytes.*run the command again"
    with pytest.raises(DataError, match=words):
        fetch(File("a.zip", server.url("a.zip")), tmp_path / "a.zip", Limits(0.3, 2, 0.01, loopback=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip.part", "a.zip.part.json"]
    server.asked.clear()
    check_whole(get(server, tmp_path, Served(CONTENT)))
    assert server.asked == [("a.zip", "bytes=50000-")]


def test_a_file_that_changed_meanwhile_begins_anew(server: BadServer, tmp_path: Path) -> None:
    """If-Range: parts of two versions are never joined."""
    (tmp_path / "a.zip.part").write_bytes(b"old" * 1000)
    state = f'{{"url": "{server.url("a.zip")}", "validator": "\\"v0\\"", "total": 200000}}'
    (tmp_path / "a.zip.part.json").write_text(state)
    check_whole(get(server, tmp_path, Served(CONTENT), checksum=None))
    assert server.asked == [("a.zip", "bytes=3000-")]


@pytest.mark.parametrize(
    "state", ["", "[]", '{"url": "https://elsewhere.org/a.zip", "validator": "x"}', '{"url": "%s"}']
)
def test_a_part_of_unknown_origin_is_not_continued(server: BadServer, tmp_path: Path, state: str) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"old" * 1000)
    (tmp_path / "a.zip.part.json").write_text(state.replace("%s", server.url("a.zip")))
    check_whole(get(server, tmp_path, Served(CONTENT), checksum=None))
    assert server.asked == [("a.zip", None)]


def test_a_part_that_is_longer_than_the_file_begins_anew(server: BadServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT + b"more")
    (tmp_path / "a.zip.part.json").write_text(f'{{"url": "{server.url("a.zip")}", "validator": "\\"v1\\""}}')
    check_whole(get(server, tmp_path, Served(CONTENT)))
    assert [asked for _, asked in server.asked] == ["bytes=200004-", None]


def test_a_complete_part_is_used_without_a_byte(server: BadServer, tmp_path: Path) -> None:
    """A process that was killed between the last byte and the renaming."""
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    state = f'{{"url": "{server.url("a.zip")}", "validator": "\\"v1\\"", "total": 200000}}'
    (tmp_path / "a.zip.part.json").write_text(state)
    check_whole(get(server, tmp_path, Served(CONTENT)))


def test_a_corrupt_file_is_refused_and_removed(server: BadServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"the sha256 of the 200000 bytes is .*, expected {SHA256[7:]}"):
        get(server, tmp_path, Served(CONTENT, corrupt=9))
    assert not list(tmp_path.iterdir())


def test_a_corrupt_beginning_of_a_continued_file_is_fetched_again(server: BadServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    (tmp_path / "a.zip.part.json").write_text(f'{{"url": "{server.url("a.zip")}", "validator": "\\"v1\\""}}')
    check_whole(get(server, tmp_path, Served(CONTENT)))
    assert [asked for _, asked in server.asked] == ["bytes=1000-", None]


def test_md5_is_compared_too(server: BadServer, tmp_path: Path) -> None:
    check_whole(get(server, tmp_path, Served(CONTENT), checksum=f"md5:{hashlib.md5(CONTENT).hexdigest()}"))
    with pytest.raises(DataError, match="the md5 of"):
        get(server, tmp_path, Served(CONTENT), checksum="md5:" + 32 * "0")


def test_a_wrong_range_is_not_written(server: BadServer, tmp_path: Path) -> None:
    """A server that sends another part than was asked for."""
    with pytest.raises(DataError, match="another part of the file"):
        get(server, tmp_path, Served(CONTENT, cut=70_000, shift=5), limits=Limits(0.3, 1, 0.01, loopback=True))


def test_temporary_answers_are_tried_again(server: BadServer, tmp_path: Path) -> None:
    check_whole(get(server, tmp_path, Served(CONTENT, status=[503, 429])))


@pytest.mark.parametrize(
    ("served", "message"),
    [
        (Served(CONTENT, status=[404]), "answers 404"),
        (Served(CONTENT, status=[403]), "answers 403"),
        (Served(CONTENT, status=[500] * 5), "3 attempts in a row failed .the server answers 500"),
        (Served(b"<html>", kind="text/html; charset=utf-8"), "a page in place of a.zip"),
        (Served(redirect="http://example.org/a.zip"), "redirected to http://example.org/a.zip: is not https"),
        (Served(redirect="ftp://example.org/a.zip"), "ftp://example.org/a.zip"),
        (Served(redirect="file:///etc/passwd"), "file:///etc/passwd"),
        (Served(redirect="/a.zip"), "more than 5 redirections"),
    ],
)
def test_refusals_name_the_reason(server: BadServer, tmp_path: Path, served: Served, message: str) -> None:
    with pytest.raises(DataError, match=message):
        get(server, tmp_path, served)
    assert not (tmp_path / "a.zip").exists()


def test_redirections_are_followed_with_the_range(server: BadServer, tmp_path: Path) -> None:
    server.files["b.zip"] = Served(CONTENT, cut=150_000)
    check_whole(get(server, tmp_path, Served(redirect="/b.zip")))
    assert server.asked == [("a.zip", None), ("b.zip", None), ("a.zip", "bytes=150000-"), ("b.zip", "bytes=150000-")]


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with serving() as gone:
        url = gone.url("a.zip")
    with pytest.raises(DataError, match=r"3 attempts in a row failed .*refused"):
        fetch(File("a.zip", url), tmp_path / "a.zip", LIMITS)


def test_two_processes_do_not_write_one_file(server: BadServer, tmp_path: Path) -> None:
    with (tmp_path / "a.zip.part").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process downloads"):
            get(server, tmp_path, Served(CONTENT))


@pytest.mark.parametrize(
    ("url", "http", "loopback", "message"),
    [
        ("https://example.org/a", False, False, None),
        ("http://example.org/a", True, False, None),
        ("http://127.0.0.1:80/a", False, True, None),
        ("http://example.org/a", False, True, "not https"),
        ("ftp://example.org/a", True, True, "not https"),
        ("file:///etc/passwd", True, True, "no address"),
        ("http://127.0.0.1/a", True, False, "no address of a public server"),
        ("https://localhost/a", False, False, "no address of a public server"),
        ("https://[::1]/a", False, False, "no address of a public server"),
        ("https://user:secret@example.org/a", False, False, "no address of a public server"),
    ],
)
def test_addresses(url: str, http: bool, loopback: bool, message: str | None) -> None:
    if message is None:
        check_address(url, http, Limits(loopback=loopback))
    else:
        with pytest.raises(DataError, match=message):
            check_address(url, http, Limits(loopback=loopback))
