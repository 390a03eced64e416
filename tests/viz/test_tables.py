"""Text tables are aligned in terminal cells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from kplab.viz import tables

ROWS = [{"run": "heatmap", "AP": 0.71234, "images": 5}, {"run": "a longer [red]name", "AP": None, "seed": np.int64(3)}]


def test_numbers_are_aligned_right_and_words_left() -> None:
    assert tables.text(ROWS).splitlines() == [
        "run                     AP  images  seed",
        "------------------  ------  ------  ----",
        "heatmap             0.7123       5     –",
        "a longer [red]name       –       –     3",
    ]


def test_columns_are_those_given() -> None:
    assert tables.text(ROWS, ["AP", "nothing"]).splitlines()[2:] == ["0.7123  –", "     –  –"]
    assert tables.text([], ["run"]).splitlines() == ["run", "---"]


@given(st.lists(st.text(st.characters(exclude_categories=("C", "M", "Z")), max_size=8), min_size=1, max_size=5))
def test_the_second_column_is_aligned_for_every_script(words: list[str]) -> None:
    lines = tables.text([{"name": w, "mark": "|"} for w in words]).splitlines()
    # wide characters take two cells of a terminal
    assert len({cell_len(line) - 1 for line in lines[2:]}) == 1
    assert all(line.endswith("|") for line in lines[2:])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234.5, "1234"),
        (123456.0, "123456"),
        (0.00012345, "0.0001234"),
        (np.float32(0.5), "0.5"),
        (False, "no"),
        (np.nan, "–"),
    ],
)
def test_a_value_is_shown_to_four_digits(value: object, shown: str) -> None:
    assert tables.cell(value) == shown
