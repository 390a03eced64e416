"""The Python interface: its documentation runs, it starts light, and it gives what the verbs give."""

from __future__ import annotations

import doctest
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import kplab
from kplab import config as configs
from kplab.errors import ConfigError, DataError
from kplab.structures.predictions import Predictions
from kplab.tasks import compose
from kplab.tasks.inference.predict_source import predict_source
from kplab.tasks.training.train import train

TINY = [
    "dataset=synthetic_hand", "dataset.images=40", "dataset.max_subjects=1", "backbone=resnet10_half", "neck.channels=32",
    "size=[64,64]", "trainer=cpu", "trainer.max_epochs=1", "augment=none", "logger=csv", "workers=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def workspace(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace with two trained runs, of which ``first`` is the latest."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copytree(root / "conf", folder / "conf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KPLAB_WORKSPACE", str(folder))
        configs.workspace.cache_clear()
        for name in ("second", "first"):
            run = train(compose("train", [*TINY, f"name={name}"]))
            assert run is not None
            # names begin with the second of their start
            run.folder.rename(run.folder.with_name(f"{'1' if name == 'second' else '2'}_{name}"))
        yield folder
    configs.workspace.cache_clear()


def test_the_documentation_runs(workspace: Path, root: Path) -> None:
    path = root / "docs" / "api.md"
    assert path.read_text().count(">>>") > 10
    result = doctest.testfile(
        str(path), module_relative=False, optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    )
    assert result.failed == 0


def test_the_documentation_lists_every_function(root: Path) -> None:
    text = (root / "docs" / "api.md").read_text()
    for name in kplab.__all__:
        assert f"kplab.{name}(" in text, name


def test_every_way_to_name_an_image_gives_the_same_poses(workspace: Path, tmp_path: Path) -> None:
    """An array, an image of PIL, a path, a list of each, a folder, a glob; and the table that ``kplab predict`` writes."""
    run = kplab.load("first", device="cpu")
    labels = run.labels("test")
    files = [labels.path(i) for i in range(2)]
    images = [Image.open(path) for path in files]
    arrays = [np.asarray(image) for image in images]
    for path in files:
        shutil.copy(path, tmp_path)
    alone = [run.predict(path).xy for path in files]
    assert not np.array_equal(*alone)
    for single in (images, arrays, [str(path) for path in files]):
        for item, xy in zip(single, alone, strict=True):
            np.testing.assert_array_equal(run.predict(item).xy, xy)
    names = [path.name for path in files]
    for many, called in (
        (files, names), (tmp_path, names), (f"{tmp_path}/*", names), (images, ["0", "1"]), (arrays, ["0", "1"]),
    ):  # fmt: skip
        found = dict(run.predict(many, batch_size=1))
        assert list(found) == called
        for poses, xy in zip(found.values(), alone, strict=True):
            np.testing.assert_allclose(poses.xy, xy, atol=1e-3)
    (written,) = predict_source(run.run, str(tmp_path), tmp_path / "out", device="cpu")
    table = pd.read_csv(written.path.with_name("keypoints.csv"))
    np.testing.assert_allclose(
        table[["x_pixel_index", "y_pixel_index"]].to_numpy() + 0.5, np.concatenate(alone).reshape(-1, 2), atol=1e-3
    )


def test_what_is_not_an_image_is_refused(workspace: Path, tmp_path: Path) -> None:
    run = kplab.load("first")
    for wrong in (
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((4, 4, 3)),
        [],
        [tmp_path, np.zeros((4, 4, 3), np.uint8)],
        tmp_path,
    ):
        with pytest.raises(DataError, match=r"Give|Convert"):
            list(run.predict(wrong))


def test_scores_are_those_of_the_verb(workspace: Path) -> None:
    """From memory and from a file; other settings give other figures, and unknown ones are refused."""
    run = kplab.load("first")
    stored, found = run.scores("test"), run.predictions("test")
    path = run.run.folder / "predictions" / "synthetic_hand-test.json"
    for predictions in (found, found.poses, path, str(path)):
        scores = kplab.evaluate(predictions, run, "test")
        pd.testing.assert_frame_equal(scores.per_keypoint, stored.per_keypoint, check_dtype=False)
        assert scores.card["truth_hash"] == stored.card["truth_hash"]
    wide = kplab.evaluate(found, run, "test", pck_thresholds=[100.0]).summary
    assert wide["pck@100"] == 1
    with pytest.raises(ConfigError, match="colour"):
        kplab.evaluate(found, run.labels("test"), colour=3)
    with pytest.raises(ConfigError, match="several splits"):
        kplab.evaluate(found, run)


def test_a_comparison_of_a_run_with_itself_is_zero(workspace: Path) -> None:
    """The second run has the same seed and config: every difference is 0."""
    result = kplab.compare([kplab.load("first"), workspace / "runs" / "1_second"], "test", resamples=20)
    assert set(result.values["run"]) == {"first", "second"}
    assert set(kplab.compare({"a": "first", "b": "second"}, resamples=20).values["run"]) == {"a", "b"}
    assert (result.differences["difference"].dropna() == 0).all()
    assert isinstance(kplab.load("first").predictions("test"), Predictions)


def test_import_is_light_and_typed(root: Path) -> None:
    """``import kplab`` loads no library, and type checkers find its marker."""
    code = (
        "import sys, kplab; heavy = {'torch', 'pandas', 'numpy', 'hydra', 'lightning'} & set(sys.modules); "
        "assert not heavy, heavy; assert callable(kplab.load); assert 'torch' not in sys.modules; "
        "assert not hasattr(kplab, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
    assert (Path(kplab.__file__).parent / "py.typed").is_file()
