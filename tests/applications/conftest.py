"""Films of rendered subjects, whose keypoints, angles and counts are exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from kplab.structures.skeleton import Skeleton


@pytest.fixture(scope="session")
def skeleton() -> Callable[[str], Skeleton]:
    """From a name to the skeleton of ``conf/skeleton``."""
    folder = Path(__file__).parents[2] / "conf" / "skeleton"
    return lambda name: Skeleton.from_config(yaml.safe_load((folder / f"{name}.yaml").read_text()))
