"""The notebooks show the run that is named, of any family; `make test` also runs each of them as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pytest

from kplab.apps import course
from kplab.runs.run import Run

COURSE = (
    "01_the_data", "02_targets_and_ceilings", "03_train_and_watch", "04_see_predictions", "05_compare_runs",
    "06_from_pictures_to_a_model", "07_what_makes_a_keypoint", "08_use_it_on_a_video", "09_fitness",
    "10_augmented_reality", "11_robot_arm",
)  # fmt: skip

#: Notebooks of applications, whose first cell of code names the user's own data.
APPLICATIONS = ("12_gestures", "13_behaviour", "14_object_memory")


def cells(path: Path) -> list[tuple[str, str]]:
    """(kind, text) of each cell of a notebook."""
    return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text())["cells"]]


def code_of(path: Path, until: str = "") -> str:
    """The code cells of a notebook, up to the markdown cell that starts with ``until``."""
    found = []
    for kind, text in cells(path):
        if until and text.startswith(until):
            break
        found += [text] if kind == "code" else []
    return "\n".join(found)


def execute(path: Path, folder: Path, until: str = "", **changes: str) -> dict[str, Any]:
    """Execute a notebook on the run in a folder; returns its names.

    Args:
        changes: further lines ``name = value`` that are replaced, by name.
    """
    source = code_of(path, until)
    for name, value in {"RUN": repr(str(folder)), **changes}.items():
        (line,) = [line for line in source.splitlines() if line.startswith(f"{name} = ")]
        source = source.replace(line, f"{name} = {value}", 1)
    exec(source, names := {})
    return names


@pytest.fixture(autouse=True)
def own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The notebooks find their runs, and keep what they make, in the test's own folder."""
    monkeypatch.setenv(course.FOLDER_VARIABLE, str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_each_notebook_is_a_question_and_begins_with_a_picture(root: Path) -> None:
    """A title that asks, RUN or data in the first cell of code, a picture in the fifth at the latest; short cells."""
    assert tuple(path.stem for path in sorted((root / "notebooks").glob("*.ipynb"))) == COURSE + APPLICATIONS
    for name in COURSE + APPLICATIONS:
        found = cells(root / "notebooks" / f"{name}.ipynb")
        title, _, rest = found[0][1].partition("\n")
        assert title.startswith("# "), name
        assert title.endswith("?"), name
        assert rest, name
        first = 'RUN = "latest"' if name in COURSE else r"(RUN|PREDICTIONS|PICTURES) = "
        assert re.match(first, found[1][1]), name
        head = []
        for kind, text in found[1:]:
            if (
                kind == "markdown"
                and head
                and any(word in "\n".join(head) for word in ("explore(", "Curves(", "figures."))
            ):
                break
            head += [text] if kind == "code" else []
        assert len(head) <= 5, f"{name}: no picture on the first screen"
        assert found[-2][1].startswith("## Answer"), name
        assert all(text.count("\ndef ") == 0 for kind, text in found if kind == "code"), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [(), ("head=centernet",), ("model=exemplar", "flip_test=false")], ids=["heatmap", "centernet", "exemplar"]
)
def test_predictions_of_a_named_run_of_any_family(
    root: Path, finished: Callable[..., Run], more: tuple[str, ...]
) -> None:
    """With and without heatmaps; nothing is trained."""
    folder = finished(*more).folder
    before = sorted(folder.parent.iterdir())
    names = execute(root / "notebooks" / "04_see_predictions.ipynb", folder, until="## How keypoints become")
    shown = names["shown"]
    shown.controls["keypoint"].value = 1
    assert bytes(shown.picture.value).startswith(b"\x89PNG")
    assert "can't" not in shown.caption.value
    assert sorted(folder.parent.iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("model=exemplar", "flip_test=false")], ids=["heatmap", "exemplar"])
def test_curves_of_a_named_run(root: Path, finished: Callable[..., Run], more: tuple[str, ...]) -> None:
    """The notebook of a training shows a run without training it again; one without curves too."""
    folder = finished(*more).folder
    names = execute(root / "notebooks" / "03_train_and_watch.ipynb", folder)
    assert names["run"].run.folder == folder
    assert bool(names["view"].picture.value) == (not more)


@pytest.mark.slow
def test_a_video_of_a_run_with_several_poses(root: Path, finished: Callable[..., Run]) -> None:
    """Whole images, and frames in which the model finds nothing."""
    names = execute(root / "notebooks" / "08_use_it_on_a_video.ipynb", finished("head=centernet").folder)
    assert len(names["found"]) == len(names["clip"]) == 50
    assert names["film"].is_file()


@pytest.mark.slow
def test_the_data_of_a_named_run(root: Path, finished: Callable[..., Run]) -> None:
    """Groups that a split by group divides are a leak; a split by image divides them on purpose."""
    folder = finished().folder
    names = execute(root / "notebooks" / "01_the_data.ipynb", folder)
    assert (names["images"], names["groups"], names["rule"]) == (0, 0, "image")
    assert not names["leak"]
    for labels in names["splits"].values():
        labels.group[0] = "a video"
    assert course.overlap(names["splits"], "group") == 3


def test_copies_are_the_most_similar_images(config: Callable[..., Any]) -> None:
    """A copy of a training image in the test split is found, also if its brightness differs."""
    from kplab.data.sources.arrays import ArraySource
    from kplab.tasks.wiring import datasets

    splits = datasets.read_splits(config().dataset)
    test, train = splits["test"], splits["train"]
    pictures = [test.read(i) for i in range(len(test))]
    pictures[2] = (train.read(5) * 0.7).astype("uint8")
    test.source = ArraySource(pictures)
    (first, *others) = course.most_similar(train, test)
    assert first[1:] == (5, 2)
    assert first[0] > 0.99
    assert max(other[0] for other in others) < first[0]


@pytest.mark.slow
def test_which_run_is_shown(
    finished: Callable[..., Run], own_runs: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """latest is the newest finished run that fits; what exists is not trained; a name is a name."""
    run = finished()
    trained: list[Any] = []

    def train(config: Any) -> Run:
        trained.append(config)
        return run

    assert course.find_run("latest", [], train=train).name == run.name
    assert run.name in capsys.readouterr().out
    assert course.find_run(run.name, [], train=train).name == run.name
    assert not trained
    course.find_run("latest", ["experiment=heatmap_small"], lambda config: config.name == "other", train)
    course.find_run(None, ["experiment=heatmap_small"], train=train)
    assert [config.runs_dir for config in trained] == [str(own_runs)] * 2
    other = course.with_data_of(course.config_of("latest", []), ["head=simcc", "neck.levels=[8]"])
    assert other.dataset.name == "dots"
    assert course.comparable(run, run, "test")
    assert not course.comparable(run, run, "val")


@pytest.mark.slow
def test_which_run_an_application_shows(
    finished: Callable[..., Run], own_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with other keypoints is refused by name and passed over as latest; one with the keypoints predicts the film."""
    import kplab
    from kplab.apps import films
    from kplab.errors import ConfigError

    run, arm = finished(), films.skeleton("arm6")
    monkeypatch.setenv(course.FOLDER_VARIABLE, str(run.folder.parent))
    with pytest.raises(ConfigError, match="this application needs 'arm6'"):
        films.find_run(str(run.folder), arm)
    assert films.find_run("latest", arm) is None
    assert films.find_run(None, arm) is None
    own = kplab.load(run).skeleton
    latest = films.find_run("latest", own)
    assert latest is not None
    assert latest.name == run.name
    clip, _ = films.moving_arm(np.zeros((3, 4)))
    found = films.detect(clip, own, latest)
    assert sorted(found.predictions.poses) == [0, 1, 2]
    assert found.source == f"predictions of run {run.name}"
    measured = kplab.load(run).scores("test").per_keypoint["median_px"]
    np.testing.assert_allclose(found.sigma, measured / np.sqrt(2 * np.log(2)))


def test_a_control_for_each_kind_of_value() -> None:
    from kplab.apps.explore import between, control

    assert isinstance(control("a", range(3)), ipywidgets.IntSlider)
    assert control("a", range(2, 9, 3)).max == 8
    assert control("a", ["x", "y"]).value == "x"
    assert control("a", {"first": 7}).value == 7
    assert isinstance(control("a", True), ipywidgets.Checkbox)
    slider = control("a", between(0, 2))
    assert (slider.value, slider.description) == (1, "a")
    with pytest.raises(TypeError, match="the values of 'a' are 3"):
        control("a", 3)


def test_a_picture_follows_its_controls() -> None:
    """It is drawn once at first, and an error while drawing is shown in its place; a mistake in the function is an error."""
    from kplab.apps.explore import explore

    calls = []

    def draw(number: int, wide: bool) -> tuple[np.ndarray, str]:
        calls.append((number, wide))
        if number == 2:
            raise ValueError("no picture 2")
        return np.full((4, 8 if wide else 4, 3), number, dtype=np.uint8), f"number {number}"

    shown = explore(draw, number=range(4), wide=False)
    assert calls == [(0, False)]
    first = bytes(shown.picture.value)
    shown.controls["wide"].value = True
    shown.controls["number"].value = 1
    assert calls[1:] == [(0, True), (1, True)]
    assert bytes(shown.picture.value) != first
    assert shown.caption.value == "number 1"
    shown.controls["number"].value = 2
    assert shown.caption.value == "ValueError: no picture 2"
    bundle = shown._repr_mimebundle_()
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= set(bundle)
    with pytest.raises(ZeroDivisionError):
        explore(lambda number: 1 / number, number=range(2))


@pytest.mark.slow
def test_curves_are_drawn_while_a_training_goes_on(config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file that the training writes, in a thread, after each epoch; at last all epochs are drawn."""
    from kplab.apps import watch

    drawn: list[tuple[str, int]] = []
    update = watch.Curves.update

    def seen(self: watch.Curves, run: Run) -> None:
        update(self, run)
        drawn.append((run.status, self.rows))

    monkeypatch.setattr(watch.Curves, "update", seen)
    run = watch.train_and_watch(config("trainer.max_epochs=8"), every=0.05)
    assert run is not None
    live = {rows for status, rows in drawn if status == "running" and rows > 0}
    assert len(live) >= 2, drawn
    assert drawn[-1] == ("finished", 8)
