"""Every head of conf/head goes through the suite, at the size that it is built for and at another one."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest
from hydra.utils import get_class

# tests are no package, and the strategies are shared by all of them
sys.path.append(str(Path(__file__).resolve().parents[1]))

from contract.cases import OTHER, SIZE, Case, heads, make_head
from kplab.tasks import compose

built = cache(make_head)


@pytest.fixture(scope="module", params=heads())
def case(request: pytest.FixtureRequest) -> Case:
    """Each head, at the size that it is built for."""
    return Case(request.param, built(request.param), SIZE)


def sizes() -> list[tuple[str, tuple[int, int]]]:
    """Each head with each size of view that it works at; heads of one size have a test of their refusal."""
    fixed = {name: get_class(compose("train", [f"head={name}"]).head["_target_"]).fixed_size for name in heads()}
    return [(name, size) for name in heads() for size in ((SIZE,) if fixed[name] else (SIZE, OTHER))]


@pytest.fixture(scope="module", params=sizes(), ids=lambda p: f"{p[0]}-{'own' if p[1] == SIZE else 'other'} size")
def sized(request: pytest.FixtureRequest) -> Case:
    """Each head at each size that it works at."""
    name, size = request.param
    return Case(name, built(name), size)
