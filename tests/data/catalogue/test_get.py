"""A dataset is fetched, verified and unpacked as a whole; the entries of the product are complete."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from tests.data.catalogue.server import Served, serving
from tests.data.catalogue.test_unpack import tree, write_tar, write_zip

from kplab.config import conf_dir
from kplab.data.catalogue import get as getting
from kplab.data.catalogue.download import Limits
from kplab.data.catalogue.entry import Entry, find_entries
from kplab.data.catalogue.get import get
from kplab.errors import ConfigError, DataError
from kplab.tasks import compose
from kplab.tasks.data_actions import get as action
from kplab.tasks.wiring.datasets import skeleton_of
from kplab.tasks.wiring.nodes import build_node

LIMITS = Limits(timeout=0.3, attempts=2, pause=0.01, loopback=True)
WANTED = {"coco", "crowdpose", "mpii", "lspet", "face_300w", "wflw", "freihand", "onehand10k", "ap10k", "animal_pose"}


class Silent:
    """Keeps what a reporter is given."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def downloaded(self, name: str, done: int, total: int | None) -> None:
        pass

    def unpacked(self, name: str, files: int) -> None:
        pass


def node(folder: Path, files: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A dataset's configuration."""
    texts = {
        "title": "Dots",
        "homepage": "https://example.org",
        "licence": "free",
        "citation": "Dot et al.",
        "tried": True,
    }
    return {"name": "dots", "folder": str(folder), "catalogue": {**texts, "files": files, **more}}


def test_a_dataset_is_fetched_once(tmp_path: Path) -> None:
    images = write_zip(tmp_path / "images.zip", [("images/1.jpg", b"one"), ("images/2.jpg", b"two")]).read_bytes()
    labels = write_tar(tmp_path / "labels.tar.gz", [("labels.json", b"{}")], "w:gz").read_bytes()
    with serving() as server:
        server.files = {
            "images.zip": Served(images, cut=100),
            "labels.tar.gz": Served(labels),
            "list.txt": Served(b"1\n2\n"),
        }
        sha256 = hashlib.sha256(images).hexdigest()
        files: list[dict[str, Any]] = [
            {"url": server.url("images.zip"), "checksum": f"sha256:{sha256}"},
            {"url": server.url("labels.tar.gz"), "checksum": None, "into": "annotations"},
            {"url": server.url("list.txt"), "unpack": False},
        ]
        entry = Entry.from_config(node(tmp_path / "dots", files))
        got = get(entry, LIMITS, Silent())
        assert got.unknown == ["labels.tar.gz", "list.txt"]
        assert got.fetched["labels.tar.gz"] == hashlib.sha256(labels).hexdigest()
        found = tree(tmp_path / "dots")
        receipt = json.loads(found.pop("catalogue.json"))
        assert found == {
            "images/1.jpg": b"one",
            "images/2.jpg": b"two",
            "annotations/labels.json": b"{}",
            "list.txt": b"1\n2\n",
        }
        assert receipt["images.zip"]["sha256"] == sha256
        server.asked.clear()
        again = get(entry, LIMITS, Silent())
        assert again.present == ["images.zip", "labels.tar.gz", "list.txt"]
        assert server.asked == []
        # a checksum that is recorded later is that of the receipt, and another one fetches the file again
        files[1]["checksum"] = f"sha256:{hashlib.sha256(labels).hexdigest()}"
        assert not get(Entry.from_config(node(tmp_path / "dots", files)), LIMITS, Silent()).fetched
        files[1]["checksum"] = "sha256:" + 64 * "0"
        with pytest.raises(DataError, match="the sha256 of"):
            get(Entry.from_config(node(tmp_path / "dots", files)), LIMITS, Silent())


def test_a_damaged_archive_leaves_the_dataset_as_it_was(tmp_path: Path) -> None:
    content = write_zip(tmp_path / "a.zip", [("x", b"content"), ("../evil", b"x")]).read_bytes()
    with serving() as server:
        server.files = {"a.zip": Served(content)}
        entry = Entry.from_config(node(tmp_path / "dots", [{"url": server.url("a.zip")}]))
        with pytest.raises(DataError, match="leads out of the folder"):
            get(entry, LIMITS, Silent())
    assert list(tree(tmp_path / "dots")) == ["downloads/a.zip"]


def test_files_by_hand_are_asked_for_and_used(tmp_path: Path) -> None:
    files: list[dict[str, Any]] = [
        {"name": "a.zip", "by_hand": "the form on the page"},
        {"name": "b.txt", "by_hand": "by mail", "unpack": False},
    ]
    entry = Entry.from_config(node(tmp_path / "dots", files))
    with pytest.raises(DataError, match=r"(?s)2 files can't.*downloads.*a.zip: the form on the page.*b.txt: by mail"):
        get(entry, LIMITS, Silent())
    (tmp_path / "dots/downloads").mkdir(parents=True)
    write_zip(tmp_path / "dots/downloads/a.zip", [("x", b"content")])
    (tmp_path / "dots/downloads/b.txt").write_bytes(b"b")
    assert list(get(entry, LIMITS, Silent()).fetched) == ["a.zip", "b.txt"]
    assert tree(tmp_path / "dots")["x"] == b"content"
    # the user's own archive stays
    assert (tmp_path / "dots/downloads/a.zip").exists()


def test_space_is_checked_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(getting.shutil, "disk_usage", lambda path: free)
    entry = Entry.from_config(node(tmp_path / "dots", [{"url": "https://example.org/a.zip", "bytes": 600}]))
    with pytest.raises(DataError, match="GB are needed"):
        get(entry, LIMITS, Silent())


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({}, "give 'url', or 'by_hand'"),
        ({"url": "https://e.org/a", "by_hand": "x"}, "give 'url', or 'by_hand'"),
        ({"url": "https://e.org/"}, "is no file name"),
        ({"url": "https://e.org/..%2Fa"}, "is no file name"),
        ({"url": "https://e.org/a", "name": "../a"}, "is no file name"),
        ({"url": "https://e.org/a", "into": "../out"}, "leads out"),
        ({"url": "https://e.org/a", "checksum": "abc"}, "sha256:HEX"),
        ({"url": "https://e.org/a", "checksum": "md5:abc"}, "sha256:HEX"),
        ({"url": "https://e.org/a", "size": 3}, "has no key 'size'"),
    ],
)
def test_entries_that_contradict_themselves(file: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Entry.from_config(node(Path("x"), [file]))


def test_entries_that_lack_keys() -> None:
    with pytest.raises(ConfigError, match="is not in the catalogue"):
        Entry.from_config({"name": "dots", "folder": "x"})
    with pytest.raises(ConfigError, match="'files' is empty"):
        Entry.from_config(node(Path("x"), []))
    with pytest.raises(ConfigError, match="needs 'licence'"):
        Entry.from_config(node(Path("x"), [{"url": "https://e.org/a"}], licence=None))
    with pytest.raises(ConfigError, match="two files have one name"):
        Entry.from_config(node(Path("x"), [{"url": "https://e.org/a"}, {"url": "https://e.com/a"}]))


ENTRIES = find_entries(conf_dir() / "dataset")


def test_the_catalogue_is_complete() -> None:
    assert {entry.name for entry in ENTRIES} >= {*WANTED, "tigdog", "openfield"}
    for entry in ENTRIES:
        assert not entry.tried, "no address was tried yet; one that was is marked in its file"
        for file in entry.files:
            # http only where the publisher offers nothing else, and is then stated
            assert file.url is None or file.url.startswith("https://") or file.http


def test_the_command_ends_with_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of an entry of the product, from a mirror on this machine: labels for which a reader exists."""
    labels = write_tar(tmp_path / "zebra_annotations.tar", [("annotations/zebra_train.json", b"{}")]).read_bytes()
    with serving() as server:
        server.files = {"labels.tar": Served(labels)}
        files = f"dataset.catalogue.files=[{{url:'{server.url('labels.tar')}'}}]"
        action.main(["dataset=zebra", f"dataset.folder={tmp_path}/zebra", files, "loopback=true"])
    said = capsys.readouterr().out
    assert "licence:  Apache-2.0" in said
    assert f"checksum: sha256:{hashlib.sha256(labels).hexdigest()}" in said
    assert f"missing: {tmp_path}/zebra/images" in said
    action.main([])
    assert "coco " in capsys.readouterr().out


SAMPLES = {
    "ap10k": "ap10k", "animal_pose": "animalpose", "crowdpose": "crowdpose", "freihand": "freihand", "wflw": "wflw",
    "onehand10k": "onehand10k", "horse10": "horse10", "macaque": "macaque", "zebra": "zebra", "ochuman": "ochuman",
    "mpii": "mpii",
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_the_configuration_reads_samples_of_the_real_files(name: str, real_data: Path) -> None:
    """Names, order and keys of the reader are those of the published label files."""
    folder = real_data / "mmpose_samples" / SAMPLES[name]
    config = compose("train", [f"dataset={name}"]).dataset
    source = next(iter(config.sources.values()))
    OmegaConf.update(source, "annotations", str(folder / f"test_{SAMPLES[name]}.json"))
    OmegaConf.update(source, "images", str(folder))
    labels = build_node(source, "dataset", skeleton=skeleton_of(config))
    assert len(labels) >= 2
    assert labels.poses.labelled.any(1).mean() > 0.5
    assert labels.read(0).shape[:2] == tuple(labels.size[0][::-1])
