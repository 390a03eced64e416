"""Archives that attack or are damaged leave nothing behind; all others arrive as the libraries of the archives read them."""

import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kplab.data.catalogue import unpack as unpacking
from kplab.data.catalogue.unpack import unpack
from kplab.errors import DataError

FILES = {"train/1.jpg": b"one" * 1000, "train/2.jpg": b"", "labels.json": b"{}", "deep/er/x": os.urandom(3000)}


def write_zip(path: Path, members: list[tuple[zipfile.ZipInfo | str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo | str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; a link would be an error."""
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["zip", "tar", "gz", "bz2", "xz"])
def test_archives_are_unpacked(tmp_path: Path, kind: str) -> None:
    members = list(FILES.items())
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        write_zip(archive, [("train/", b""), *members])
    else:
        write_tar(archive, members, "w" if kind == "tar" else f"w:{kind}")  # type: ignore[arg-type]
    seen: list[int] = []
    assert unpack(archive, tmp_path / "out", seen.append) == 4
    assert tree(tmp_path / "out") == FILES
    assert seen == [1, 2, 3, 4]


def test_what_was_there_stays_and_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out/train").mkdir(parents=True)
    (tmp_path / "out/train/mine.jpg").write_bytes(b"mine")
    (tmp_path / "out/train/1.jpg").write_bytes(b"old")
    unpack(write_zip(tmp_path / "a.zip", list(FILES.items())), tmp_path / "out")
    assert tree(tmp_path / "out") == {**FILES, "train/mine.jpg": b"mine"}


def test_links_within_the_archive_become_copies(tmp_path: Path) -> None:
    members = [
        ("a/x", b"content"),
        (link("b/y", "../a/x"), b""),
        (link("z", "a/x", tarfile.LNKTYPE), b""),
        (link("c", "z"), b""),
    ]
    assert unpack(write_tar(tmp_path / "a.tar", members), tmp_path / "out") == 4
    assert tree(tmp_path / "out") == dict.fromkeys(["a/x", "b/y", "z", "c"], b"content")
    unpack(write_zip(tmp_path / "a.zip", [("a/x", b"content"), (zip_link("b/y"), b"../a/x")]), tmp_path / "zip")
    assert tree(tmp_path / "zip") == dict.fromkeys(["a/x", "b/y"], b"content")


def device() -> tarfile.TarInfo:
    info = tarfile.TarInfo("null")
    info.type = tarfile.CHRTYPE
    return info


ATTACKS = {
    "parent": ("zip", [("ok", b"1"), ("../evil", b"x")], "leads out"),
    "hidden parent": ("tar", [("ok", b"1"), ("a/../../evil", b"x")], "leads out"),
    "absolute": ("tar", [("/tmp/../evil", b"x")], "leads out"),
    "absolute in zip": ("zip", [("/evil", b"x")], "leads out"),
    "drive": ("zip", [("C:evil", b"x")], "leads out"),
    "backslash": ("tar", [("..\\evil", b"x")], "leads out"),
    "link out": ("tar", [(link("a", "../../evil"), b"")], "leads out"),
    "absolute link": ("tar", [(link("a", "/etc/passwd"), b"")], "leads out"),
    "hard link out": ("tar", [(link("a", "../evil", tarfile.LNKTYPE), b"")], "leads out"),
    "link in zip": ("zip", [(zip_link("a"), b"../../evil")], "leads out"),
    "through a link": (
        "tar",
        [("d/x", b"1"), (link("a", "d"), b""), ("a/evil", b"x")],
        "which is no file|occurs twice",
    ),
    "links in a circle": ("tar", [(link("a", "b"), b""), (link("b", "a"), b"")], "which is no file"),
    "twice": ("tar", [("a", b"1"), ("./a", b"2")], "occurs twice"),
    "file and folder": ("tar", [("a", b"1"), ("a/b", b"2")], "below a file"),
    "folder and file": ("tar", [("a/b", b"1"), ("a", b"2")], "name of another"),
    "device": ("tar", [(device(), b"")], "is a device"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_leave_nothing(tmp_path: Path, name: str) -> None:
    kind, members, message = ATTACKS[name]
    archive = (write_zip if kind == "zip" else write_tar)(tmp_path / f"a.{kind}", members)  # type: ignore[operator]
    before = tree(tmp_path)
    with pytest.raises(DataError, match=message):
        unpack(archive, tmp_path / "inner" / "out")
    assert tree(tmp_path) == before


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "ALWAYS", 1_000_000)
    archive = write_zip(tmp_path / "a.zip", [("zeros", bytes(30_000_000))])
    with pytest.raises(DataError, match=r"larger than 0.00"):
        unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {}
    monkeypatch.setattr(unpacking, "MEMBERS", 3)
    with pytest.raises(DataError, match="more than 3 members"):
        unpack(write_zip(tmp_path / "b.zip", list(FILES.items())), tmp_path / "out")


def test_a_zip_that_understates_its_size(tmp_path: Path) -> None:
    """The stated sizes are not believed."""
    archive = write_zip(tmp_path / "a.zip", [("x", b"a" * 5000)])
    content = archive.read_bytes()
    archive.write_bytes(content.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"damaged|ends within"):
        unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {}


@pytest.mark.parametrize("kind", ["zip", "tar", "gz", "bz2", "xz"])
def test_every_truncation_is_an_error_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        write_zip(archive, list(FILES.items()))
    else:
        write_tar(archive, list(FILES.items()), "w" if kind == "tar" else f"w:{kind}")  # type: ignore[arg-type]
    content = archive.read_bytes()
    # the last bytes of a tar are padding: it ends at the first block of zeros after its members
    end = 8 * 512 + 512 * 6 if kind == "tar" else len(content)
    for length in [0, 1, 100, 512, 1024, *range(600, end - 1, max(1, end // 25)), end - 1]:
        archive.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"damaged|neither|cut|ends within"):
            unpack(archive, tmp_path / "out")
        assert tree(tmp_path / "out") == {}


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_a_changed_byte_is_noticed_where_the_format_has_checksums(tmp_path: Path, kind: str) -> None:
    make: Callable[[Path], object] = (
        (lambda p: write_zip(p, list(FILES.items())))
        if kind == "zip"
        else (lambda p: write_tar(p, list(FILES.items()), "w:gz"))
    )
    archive = tmp_path / f"a.{kind}"
    make(archive)
    content = bytearray(archive.read_bytes())
    at = content.find(FILES["deep/er/x"][:40]) + 1500 if kind == "zip" else len(content) // 2
    content[at] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged|ends within"):
        unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {}


def test_modes_of_the_archive_are_not_taken_over(tmp_path: Path) -> None:
    info = tarfile.TarInfo("run")
    info.mode = 0o4777
    unpack(write_tar(tmp_path / "a.tar", [(info, b"#!")]), tmp_path / "out")
    assert not (tmp_path / "out/run").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)


def test_a_full_disk_is_noticed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda path: real._replace(free=100))
    with pytest.raises(DataError, match="more than the disk has left"):
        unpack(write_zip(tmp_path / "a.zip", list(FILES.items())), tmp_path / "out")
