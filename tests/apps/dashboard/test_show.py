"""``kplab.show``: the image view of the dashboard as a widget."""

from __future__ import annotations

import base64
import json
import re

import pytest

import kplab
from kplab.apps.dashboard.server import STATIC
from kplab.errors import ConfigError
from kplab.runs.run import Run


def test_the_module_of_the_view_knows_no_host() -> None:
    """A notebook loads this file alone, and gives it a model with get, set, on and save_changes."""
    text = (STATIC / "pose_view.js").read_text()
    assert not re.search(r"^import\b|\bimport\(", text, flags=re.MULTILINE)
    assert set(re.findall(r"\bmodel\.(\w+)", text)) == {"get", "set", "on", "save_changes"}
    assert "export default { render" in text


def test_images_of_two_runs(made) -> None:
    shown = kplab.show(made.a, Run.open(made.runs_dir / made.b), runs_dir=made.runs_dir)
    view = shown.view
    assert view.skeleton["keypoints"][0] == "nose"
    assert [layer["name"] for layer in view.layers] == ["truth", "alpha", "beta"]
    assert view.size == [96, 72]
    first = view.image
    assert base64.b64decode(first.partition(",")[2])[:2] == b"\xff\xd8"
    shown.number.value = 3
    assert view.image != first
    view.zoom = 2.0
    shown.drawn[1].value = False
    assert [layer["shown"] for layer in view.layers] == [True, False, True]
    assert view.zoom == 2.0, "the same image keeps its zoom"
    shown.order.value = "changed"
    assert shown.number.value == 0
    assert view.zoom == 1.0
    shown.keypoint.value = 2
    assert view.keypoint == 2
    assert "px" in shown.caption.value
    nulls = 0
    for number in range(shown.number.max + 1):
        shown.number.value = number
        nulls += None in view.layers[0]["poses"][0]["xy"]
        json.dumps(view.get_state(), default=str, allow_nan=False)
    assert nulls


def test_what_cannot_be_shown(made) -> None:
    with pytest.raises(ConfigError, match="share no scores"):
        kplab.show(made.running, runs_dir=made.runs_dir)
    with pytest.raises(ConfigError, match="share no scores"):
        kplab.show(made.a, split="train", runs_dir=made.runs_dir)
