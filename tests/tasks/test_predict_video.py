"""``kplab predict images=clip.mp4``: one result for each frame, with its number and time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import kplab
from kplab.data.sources.files import FileSource
from kplab.errors import DataError
from kplab.runs.records import read_record
from kplab.runs.run import Run
from kplab.structures.predictions import Predictions
from kplab.tasks.predict import main
from kplab.viz.video import write_video


@pytest.mark.slow
def test_a_video_is_predicted_frame_by_frame(finished: Callable[..., Run], tmp_path: Path) -> None:
    """The same poses as of the frames as images; the table has times, and overlays are called by the frame's number."""
    run = finished()
    images = FileSource.find(str(tmp_path / "dots" / "images"))
    pictures = [images.read(i) for i in range(len(images))] * 3  # more than a batch, which a process decodes
    clip = write_video(tmp_path / "clip.mp4", pictures, rate=20, quality=0)
    out = tmp_path / "found"
    main([f"run={run.folder}", f"images={clip}", f"out={out}", "overlays=2", "batch_size=16"])

    names = [f"clip.mp4#{i:06d}" for i in range(len(pictures))]
    table = pd.read_csv(out / "keypoints.csv")
    assert table["file"].drop_duplicates().tolist() == names
    assert table.groupby("file")["time_s"].first().to_numpy() == pytest.approx(np.arange(len(pictures)) / 20)
    assert sorted(path.name for path in (out / "overlays").iterdir()) == [f"{name}.png" for name in names[:2]]
    card = json.loads((out / "predictions.card.json").read_text())
    assert card["video"]["frames"] == len(pictures)
    assert card["video"]["seconds"] == pytest.approx((len(pictures) - 1) / 20)
    read_record(out / "predictions.json")
    (tmp_path / "clips").mkdir()
    clip.rename(tmp_path / "clips" / "clip.mp4")
    with pytest.raises(DataError, match=r"holds 1 videos and no images: clip.mp4. Predict one at a time"):
        main([f"run={run.folder}", f"images={tmp_path / 'clips'}"])
    clip = tmp_path / "clips" / "clip.mp4"

    trained = kplab.load(run)
    found = Predictions.read(out / "predictions.json", trained.skeleton).poses
    for i, (name, poses) in enumerate(trained.predict(clip)):
        assert name == names[i]
        assert np.allclose(found[i + 1].xy, poses.xy, atol=0.02)  # batches of another size round differently
