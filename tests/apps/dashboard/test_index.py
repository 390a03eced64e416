"""The index follows the run folders, and filters, sorts and groups as documented."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from kplab.apps.dashboard import query
from kplab.apps.dashboard.index import VERSION, Index, Watcher, blocks, cache_folder, leaves, parsed
from kplab.apps.dashboard.query import Query
from kplab.apps.dashboard.views import run_view
from kplab.errors import ConfigError, RunError
from kplab.metrics.score import Scores
from kplab.runs import notes
from kplab.runs.run import Run


@pytest.fixture
def index(made, tmp_path: Path):
    found = Index(made.runs_dir, tmp_path / "index.sqlite")
    found.update()
    yield found
    found.close()


def names(index: Index, text: str = "", **more) -> list[str]:
    return [row["run"] for row in query.page(index, Query(text, **more))["rows"]]


def test_a_row_has_the_values_of_its_run(index: Index, made) -> None:
    (row,) = query.page(index, Query(f"run={made.a}"))["rows"]
    scores = Scores.read(made.runs_dir / made.a / "scores" / "dots-test.json")
    assert row["AP"] == scores.summary["AP"]
    assert row["mean_px"] == scores.summary["mean_px"]
    assert (row["status"], row["set"], row["dataset"], row["family"]) == ("finished", "dots-test", "dots", "heatmap")
    assert query.page(index, Query())["all"] == 9


def test_runs_state_the_images_that_their_splits_share(made, tmp_path: Path) -> None:
    """In the list by a number, on their page by pairs of splits; a record from elsewhere may have anything there."""
    folder = tmp_path / "runs" / made.a
    shutil.copytree(made.runs_dir / made.a, folder)
    record = json.loads((folder / "run.json").read_text())
    pair = {"one": "train", "other": "test", "images": 9, "same": 1, "near": 2, "neighbours": 4, "groups": 1}
    examples = {"same": [["a.png", "b.png"]], "near": "none"}
    index = Index(tmp_path / "runs", tmp_path / "index.sqlite")
    for leaks, number in (
        ([{**pair, "examples": examples}, {"one": "val", "same": "many", "near": True}, 7], 7),
        ([], 0),
        (None, None),
        ({"one": 1}, None),
    ):
        (folder / "run.json").write_text(json.dumps({**record, "leaks": leaks}))
        index.update()
        (row,) = query.page(index, Query())["rows"]
        assert row.get("leaks") == number
        shown = run_view(Run.open(folder))["leaks"]
        assert (shown is None) == (number is None)
        if number:
            assert names(index, "leaks>6") == [made.a]
            assert shown[0] == {**pair, "examples": ["same: a.png, b.png"]}
            assert shown[1]["same"] is shown[1]["near"] is None
            assert len(shown) == 2
    index.close()


def test_runs_that_did_not_end_well_have_a_reason(index: Index, made) -> None:
    rows = {row["run"]: row for row in query.page(index, Query())["rows"]}
    assert rows[made.broken]["status"] == "unreadable"
    assert "half written" in rows[made.broken]["error"]
    assert rows[made.failed]["status"] == "failed"
    assert "loss is NaN" in rows[made.failed]["error"]
    assert rows[made.running]["status"] == "running"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mean_px<5", {"a", "seeds", "other_card"}),
        ("mean_px>=5", {"b"}),
        ("status=running,failed", {"running", "failed"}),
        ("status!=finished", {"running", "failed", "broken"}),
        ("experiment~AMM", {"seeds"}),
        ("gam", {"seeds"}),
        ("seed=1", {"seeds"}),
        ('experiment="alpha"', {"a"}),
        ("trainer.max_epochs=12 status=finished mean_px<5 alpha", {"a"}),
        ("nothing-like-this", set()),
    ],
)
def test_filters(index: Index, made, text: str, expected: set[str]) -> None:
    found = set(names(index, text))
    each = {key: getattr(made, key) for key in ("a", "b", "seeds", "other_card", "failed", "running", "broken")}
    fits = {key for key, value in each.items() if (set(value) if isinstance(value, list) else {value}) & found}
    assert fits == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [("mean_ps>1", "Similar: mean_px"), ("mean_px>much", "is no number"), ("max_epochs=1", "trainer.max_epochs")],
)
def test_a_wrong_filter_says_what_is_wrong(index: Index, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        query.page(index, Query(text))


@pytest.mark.parametrize("evil", ["x' OR 1=1 --", "run='; DROP TABLE run; --", 'a"b=1', "run~%"])
def test_a_filter_is_no_sql(index: Index, evil: str) -> None:
    """It finds nothing, or is refused; the index stays as it was."""
    with contextlib.suppress(ConfigError):
        assert names(index, evil) == []
    assert query.page(index, Query())["all"] == 9


def test_sorting_puts_rows_without_a_value_last(index: Index) -> None:
    for sort in ("mean_px", "-mean_px"):
        rows = query.page(index, Query(sort=sort))["rows"]
        values = [row.get("mean_px") for row in rows]
        known = [v for v in values if v is not None]
        assert known == sorted(known, reverse=sort.startswith("-"))
        assert values[len(known) :] == [None] * (9 - len(known))


def test_pages_are_disjoint_and_complete(index: Index) -> None:
    parts = [names(index, sort="mean_px", offset=o, limit=4) for o in (0, 4, 8)]
    assert [len(p) for p in parts] == [4, 4, 1]
    assert [name for part in parts for name in part] == names(index, sort="mean_px")


def test_a_column_of_the_config(index: Index, made) -> None:
    (row,) = query.page(index, Query(f"run={made.a}", columns=["trainer.max_epochs", "head._target_"]))["rows"]
    assert row["trainer.max_epochs"] == 12
    assert row["head._target_"].endswith("HeatmapHead")


def test_groups_have_mean_and_spread(index: Index, made) -> None:
    found = query.groups(index, Query("gamma", columns=["mean_px"], sort="-count"), ["training"])
    (group,) = found["groups"]
    values = [Scores.read(made.runs_dir / name / "scores" / "dots-test.json").summary["mean_px"] for name in made.seeds]
    mean = sum(values) / 3
    spread = (sum((v - mean) ** 2 for v in values) / 2) ** 0.5
    assert group["count"] == 3
    assert group["means"]["mean_px"] == pytest.approx([mean, spread, 3], rel=1e-6)
    by_seed = query.groups(index, Query("status=finished", sort="seed"), ["seed"])["groups"]
    assert [g["by"] for g in by_seed] == [[0.0, "dots-test"], [1.0, "dots-test"], [2.0, "dots-test"]]


def test_groups_never_average_different_scores_of_a_run(made, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / made.a
    shutil.copytree(made.runs_dir / made.a, folder)
    for kind in ("scores", "predictions"):
        for path in list((folder / kind).glob("dots-test.*")):
            content = path.read_bytes()
            if ".record" in path.name:
                content = content.replace(b"dots-test", b"dots-test-annotated")
            path.with_name(path.name.replace("dots-test", "dots-test-annotated")).write_bytes(content)
    index = Index(tmp_path / "runs", tmp_path / "index.sqlite")
    index.update()
    found = query.groups(index, Query(columns=["mean_px"]), ["training"])
    assert found["by"] == ["training", "set"]
    assert sorted(g["by"][1] for g in found["groups"]) == ["dots-test", "dots-test-annotated"]
    assert [g["means"]["mean_px"][1] for g in found["groups"]] == [None, None]


def test_the_index_follows_the_folder(made, tmp_path: Path) -> None:
    runs_dir = tmp_path / "runs"
    shutil.copytree(made.runs_dir / made.a, runs_dir / made.a)
    index = Index(runs_dir, tmp_path / "index.sqlite")
    assert index.update() == [made.a]
    assert index.update() == []
    shutil.copytree(made.runs_dir / made.b, runs_dir / made.b)
    assert index.update() == [made.b]
    notes.write(runs_dir / made.b, ["good", "to keep"], "seen")
    assert index.update() == [made.b]
    assert names(index, "tags~to-keep") == [made.b]
    shutil.rmtree(runs_dir / made.b / "scores")
    assert index.update() == [made.b]
    assert names(index, "mean_px>0") == [made.a]
    shutil.rmtree(runs_dir / made.a)
    assert index.update() == [made.a]
    assert names(index) == [made.b]
    assert index.select("SELECT COUNT(*) FROM value WHERE row NOT IN (SELECT id FROM row)") == [(0,)]
    index.close()


def test_a_running_run_whose_process_has_ended_is_shown_as_failed(made, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / made.running
    shutil.copytree(made.runs_dir / made.running, folder)
    index = Index(tmp_path / "runs", tmp_path / "index.sqlite")
    watcher = Watcher(index)
    watcher.check(force=True)
    assert names(index, "status=running") == [made.running]
    before = watcher.check(force=True)
    record = json.loads((folder / "run.json").read_text())
    record["process"]["started"] = "0"  # another process has the number now
    stat = (folder / "run.json").stat()
    (folder / "run.json").write_text(json.dumps(record))
    assert watcher.check(force=True) > before
    assert names(index, "status=failed") == [made.running]
    assert stat.st_size
    index.close()


@pytest.mark.parametrize("content", [b"no database", b""])
def test_a_damaged_or_old_index_is_made_again(made, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "index.sqlite"
    if content:
        path.write_bytes(content)
    else:
        other = sqlite3.connect(path)
        other.execute(f"PRAGMA user_version = {VERSION + 1}")
        other.close()
    index = Index(made.runs_dir, path)
    index.update()
    assert query.page(index, Query())["all"] == 9
    index.close()


def test_the_index_of_a_folder_that_cannot_be_written_is_elsewhere(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "runs"
    blocked.mkdir()
    (blocked / ".dashboard").touch()  # a file in its place, as rights don't stop the superuser
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder(blocked).is_relative_to(tmp_path / "cache")


def test_notes_are_limited_and_stay_inside(made, tmp_path: Path) -> None:
    folder = tmp_path / "a_run"
    folder.mkdir()
    assert notes.read(folder) == {"tags": [], "note": ""}
    assert notes.write(folder, ["b", " a ", "b", ""], "x") == {"tags": ["a", "b"], "note": "x"}
    with pytest.raises(RunError, match="Shorten"):
        notes.write(folder, ["x" * 51], "")
    (folder / "notes.json").write_text("[]")
    with pytest.raises(RunError, match="can't be read as notes"):
        notes.read(folder)
    outside = tmp_path / "outside.json"
    (folder / "notes.json").unlink()
    (folder / "notes.json").symlink_to(outside)
    with pytest.raises(RunError, match="leads out of"):
        notes.write(folder, [], "x")
    assert not outside.exists()


TEXTS = st.one_of(
    st.text(max_size=30), st.sampled_from(["a: b", "- x", "#c", "'", '"', "*", "&a", "x\ny", "---", "1e3", ""])
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS)
NODES = st.recursive(
    LEAVES,
    lambda n: st.lists(n, max_size=3) | st.dictionaries(st.from_regex(r"[a-z_]\w{0,8}", fullmatch=True), n, max_size=3),
)


@given(st.dictionaries(st.from_regex(r"[a-zA-Z_]\w{0,8}", fullmatch=True), NODES, min_size=1, max_size=5))
def test_a_config_in_parts_is_the_config(content: dict) -> None:
    """Whatever its values are, reading entry by entry gives what reading the whole gives."""
    text = OmegaConf.to_yaml(OmegaConf.create(content, flags={"allow_objects": True}))
    whole = yaml.load(text, Loader=yaml.CSafeLoader)
    expected = tuple(leaves("", whole))
    assert tuple(pair for block in blocks(text) for pair in parsed(block)) == expected
