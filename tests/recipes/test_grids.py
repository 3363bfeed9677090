import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recipes.domains.grids import Grid, Notation, from_text, read_answer, to_text, write_grid, write_output, write_task

GRIDS = arrays.arrays(np.int8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(0, 9))


def grid(*rows: str) -> Grid:
    return np.array([[int(cell) for cell in row] for row in rows], dtype=np.int8)


def read(text: str, notation: Notation) -> list[list[int]] | None:
    found = read_answer(text, notation)
    return None if found is None else found.tolist()


def test_a_grid_as_text_is_a_line_of_digits_for_each_row() -> None:
    assert to_text(grid("120", "003")) == "120\n003"


@settings(deadline=None)
@given(GRIDS)
def test_text_gives_the_grid_back(of: Grid) -> None:
    again = from_text(to_text(of))
    assert again is not None and again.dtype == np.int8
    assert np.array_equal(again, of)


@pytest.mark.parametrize(
    "text", ["", "\n", "12\n3", "12\n", " 12", "1a", "-1", "1 2", "\u0661\u0662", "\u00b2", "12\r\n34", "1" * 31, "\n".join("1" * 31)]
)
def test_other_text_is_no_grid(text: str) -> None:
    assert from_text(text) is None


def test_arrays_are_asked_in_the_published_words() -> None:
    demonstrations = [(grid("10", "01"), grid("22")), (grid("3"), grid("40", "04"))]
    assert write_task(demonstrations, grid("56"), "arrays") == (
        "Figure out the underlying transformation in the following examples and apply it to the test case. Here are some examples from "
        "this transformation, your answer must follow the format.\n"
        "The input-output grids are provided as python arrays:\n"
        "[[1 0]\n [0 1]] -> [[2 2]]#\n"
        "[[3]] -> [[4 0]\n [0 4]]#\n"
        "\n"
        "[[5 6]] -> "
    )
    assert write_output(grid("78", "90"), "arrays") == "[[7 8]\n [9 0]]#"


def test_arrays_look_as_numpy_prints_them() -> None:
    of = grid("1234567890", "0000000000", "9999999999")
    assert write_grid(of, "arrays", "o") == str(of)


def test_cells_say_side_colour_row_and_column() -> None:
    demonstrations = [(grid("10", "01"), grid("22")), (grid("3"), grid("4"))]
    assert write_task(demonstrations, grid("56"), "cells") == (
        "in 2x2 i1r0c0 i0r0c1 i0r1c0 i1r1c1 out 1x2 o2r0c0 o2r0c1\nin 1x1 i3r0c0 out 1x1 o4r0c0\nin 1x2 i5r0c0 i6r0c1 out"
    )
    assert write_output(grid("78", "90"), "cells") == " 2x2 o7r0c0 o8r0c1 o9r1c0 o0r1c1"


def test_without_demonstrations_the_test_stands_alone() -> None:
    assert write_task([], grid("1"), "cells") == "in 1x1 i1r0c0 out"
    assert write_task([], grid("1"), "arrays").endswith("provided as python arrays:\n\n[[1]] -> ")


@settings(deadline=None)
@given(GRIDS, st.sampled_from(["arrays", "cells"]))
def test_what_is_written_can_be_read(of: Grid, notation: Notation) -> None:
    for written in (write_grid(of, notation, "o"), write_output(of, notation), write_output(of, notation) + "\nin 1x1 [[0]]"):
        assert read(written, notation) == of.tolist()


@pytest.mark.parametrize(
    "text",
    [
        "[[1 2]\n [3 4]]#\n\n[[9]] -> [[9]]#",
        "The answer is [[1 2]\n [3 4]], I think.",
        "[[1, 2], [3, 4]]",
        "[[1,2],\n[3,4],]",
        "[ [1 2]\n\n   [3 4] ]",
        "[[[1 2]\n  [3 4]]]",
        "[9] [[1 2] [3 4]]",
    ],
)
def test_an_array_is_found_in_what_stands_around_it(text: str) -> None:
    assert read(text, "arrays") == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no grid",
        "1 2\n3 4",
        "[1 2]",
        "[[]]",
        "[[,]]",
        "[[1 2]\n [3]]",
        "[[1 10]]",
        "[[01]]",
        "[[1 -2]]",
        "[[1.5]]",
        "[[1 2]\n [3 4]",
        "[[1 a]]",
        "[[\u0661 \u0662]]",
        "[[" + "1 " * 31 + "]]",
        "[" + "[1]" * 31 + "]",
    ],
)
def test_an_array_that_is_no_grid_is_none(text: str) -> None:
    assert read(text, "arrays") is None


def test_the_first_array_counts_even_if_it_is_no_grid() -> None:
    assert read("[[1 2] [3]] [[4]]", "arrays") is None


def test_words_after_the_last_cell_are_passed_over() -> None:
    assert read(" 1x2 o7r0c0 o8r0c1\nin 1x1 i3r0c0 out 1x1 o4r0c0", "cells") == [[7, 8]]
    assert read("1x1 o7r0c0 o7r0c0 and so on", "cells") == [[7]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "2x2",
        "1x2 o7r0c0",
        "1x2 o7r0c0 out",
        "1x2 o7r0c1 o8r0c0",
        "1x2 o7r0c0 o8r1c0",
        "1x2 i7r0c0 i8r0c1",
        "1x2 o7r0c0 o10r0c1",
        "out 1x1 o7r0c0",
        "o7r0c0",
        "0x0",
        "0x1 o7r0c0",
        "31x1 " + " ".join(f"o1r{row}c0" for row in range(31)),
        "1x31 " + " ".join(f"o1r0c{column}" for column in range(31)),
        "-1x1 o7r0c0",
        "\u0661x\u0661 o7r0c0",
        "1x1 o\u0667r0c0",
        "1x1 o7r\u0660c0",
    ],
)
def test_cells_that_are_no_grid_are_none(text: str) -> None:
    assert read(text, "cells") is None


@pytest.mark.parametrize(
    "text",
    [
        "999999999x999999999 o1r0c0",
        "9" * 100_000 + "x1 o1r0c0",
        "1x1 o1r" + "9" * 100_000 + "c0",
        "30x30 " + "o1r0c0 " * 100_000,
        "[" + "\n ".join(["[1 0]"] * 30),
        "[" + "[1] , " * 20_000,
        "[[1]" + " " * 100_000 + "x",
        "[[1" + " 1" * 100_000,
        "[" * 100_000,
        "[[1 " * 50_000,
        "[[" + "9" * 100_000 + "]]",
    ],
    ids=lambda text: text[:12],
)
@pytest.mark.parametrize("notation", ["arrays", "cells"])
def test_hostile_answers_are_given_up_at_once(text: str, notation: Notation) -> None:
    started = time.perf_counter()
    assert read(text, notation) is None
    assert time.perf_counter() - started < 0.5
