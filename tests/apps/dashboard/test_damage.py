"""Runs that are damaged, or made to do harm: every address answers with what is wrong, and the others still work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from kplab.apps.dashboard.server import Service, application

FILES = (
    "run.json", "config.yaml", "curves.csv", "notes.json", "scores/dots-test.json", "scores/dots-test.record.json",
    "predictions/dots-test.record.json", "predictions/dots-test.card.json",
)  # fmt: skip
CONTENTS = (
    b"", b"null", b"[]", b"{}", b"3", b'"text"', b"{", b"\xff\xfe\x00", b"[" * 100_000, b"a: &a [*a]", b"- - -\n\t",
    b'{"a": NaN, "b": 1e999}', b"epoch,loss\n0,1\n" * 3, b"*x", b"a: !!python/object/apply:os.system [true]",
)  # fmt: skip
VALUES = (None, [], "x", -1, float("nan"), 10**400, "\ud800", {"a": {"b": []}})
PATHS = ("runs", "run", "curves", "compare", "keys", "groups")


@pytest.fixture(scope="module")
def copied(made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Path, Path]]:
    """A client, the run that may be damaged, and where its files are whole."""
    runs_dir = tmp_path_factory.mktemp("damage") / "runs"
    for name in (made.a, made.b):
        shutil.copytree(made.runs_dir / name, runs_dir / name)
    service = Service(runs_dir)
    yield TestClient(application(service), base_url="http://127.0.0.1:8000"), runs_dir / made.a, made.runs_dir / made.a
    service.close()


def ask(client: TestClient, run: Path, other: str, what: str, paths: Sequence[str] = PATHS) -> None:
    """Every address answers, and the other run is as before."""
    args = {"name": run.name, "runs": f"{run.name},{other}", "by": "experiment", "columns": "AP,head.sigma"}
    client.app.state.service.watcher.check(force=True)  # type: ignore[attr-defined]
    for path in paths:
        answer = client.get(f"/api/{path}", params=args)
        assert answer.status_code in (200, 400), (what, path, answer.text[:300])
        json.loads(answer.content)
    rows = client.get("/api/runs").json()["rows"]
    assert {row["run"] for row in rows} == {run.name, other}, what
    live = client.app.state.service.results.live(client.app.state.service.watcher, client.app.state.service.index)  # type: ignore[attr-defined]
    json.dumps(live)


def restore(run: Path, whole: Path) -> None:
    shutil.rmtree(run)
    shutil.copytree(whole, run)


@pytest.mark.parametrize("file", FILES)
def test_files_of_anything(copied: tuple[TestClient, Path, Path], made, file: str) -> None:
    client, run, whole = copied
    try:
        for content in CONTENTS:
            (run / file).write_bytes(content)
            ask(client, run, made.b, f"{file}: {content[:40]!r}")
        (run / file).unlink()
        ask(client, run, made.b, f"{file} is missing")
        (run / file).mkdir()
        ask(client, run, made.b, f"{file} is a folder")
    finally:
        restore(run, whole)


@pytest.mark.parametrize("file", [f for f in FILES if f.endswith(".json") and f != "notes.json"])
def test_entries_of_anything(copied: tuple[TestClient, Path, Path], made, file: str) -> None:
    client, run, whole = copied
    entries = json.loads((whole / file).read_text())
    try:
        for key in entries:
            for value in VALUES:
                (run / file).write_text(json.dumps({**entries, key: value}))
                ask(client, run, made.b, f"{file}: {key} = {value!r}"[:200], ("run", "compare"))
    finally:
        restore(run, whole)
