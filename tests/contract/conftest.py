"""Every head of conf/head goes through the suite."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# tests are no package, and the strategies are every room's
sys.path.append(str(ROOT / "tests"))

from contract.cases import NARROW, ROUND_TRIP, Case, make_head  # noqa: E402


@pytest.fixture(scope="module", params=sorted((ROOT / "conf" / "head").glob("*.yaml")), ids=lambda file: file.stem)
def case(request: pytest.FixtureRequest) -> Case:
    """Each head in turn."""
    file: Path = request.param
    return Case(
        file.stem, make_head(file, **NARROW.get(file.stem, {})), ROUND_TRIP.get(file.stem, ROUND_TRIP["default"])
    )
