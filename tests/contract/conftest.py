"""Every head of conf/head goes through the suite, at the size that it is built for and at another one."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest

# tests are no package, and the strategies are shared by all of them
sys.path.append(str(Path(__file__).resolve().parents[1]))

from contract.cases import OTHER, SIZE, Case, heads, make_head

built = cache(make_head)


@pytest.fixture(scope="module", params=heads())
def case(request: pytest.FixtureRequest) -> Case:
    """Each head, at the size that it is built for."""
    return Case(request.param, built(request.param), SIZE)


@pytest.fixture(scope="module", params=[SIZE, OTHER], ids=["own size", "other size"])
def sized(request: pytest.FixtureRequest, case: Case) -> Case:
    """Each head at each size that it works at."""
    if case.head.fixed_size and request.param != SIZE:
        pytest.skip("works at one size only; the refusal is tested")
    return Case(case.name, case.head, request.param)
