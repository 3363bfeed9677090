from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.domains.augmentations import (
    BASIC,
    CHAIN,
    REPEAT,
    SIZE,
    VIEWS,
    Augmentations,
    Augmenter,
    Transformation,
    View,
    double,
    double_height,
    double_width,
    flip_left_right,
    flip_up_down,
    reflect,
    repeat,
    rotate_90,
    rotate_180,
    rotate_270,
    translate,
    translate_randomly,
    transpose,
)
from recipes.domains.grids import Grid, from_text, to_text


def grid(text: str) -> Grid:
    read = from_text(text.replace("/", "\n"))
    assert read is not None
    return read


def text(of: Grid) -> str:
    return to_text(of).replace("\n", "/")


GRID = grid("123/450")

GRIDS = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32 - 1)).map(
    lambda drawn: np.random.RandomState(drawn[2]).randint(0, 10, size=drawn[:2]).astype(np.int8)
)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (rotate_90, "30/25/14"),
        (rotate_180, "054/321"),
        (rotate_270, "41/52/03"),
        (flip_up_down, "450/123"),
        (flip_left_right, "321/054"),
        (transpose, "14/25/30"),
        (partial(reflect, axis=0, mirror_first=True), "450/123/123/450"),
        (partial(reflect, axis=1, mirror_first=True), "321123/054450"),
        (partial(reflect, axis=0, mirror_first=False), "123/450/450/123"),
        (partial(reflect, axis=1, mirror_first=False), "123321/450054"),
        (partial(repeat, down=2, across=1), "123/450/123/450"),
        (partial(repeat, down=1, across=2), "123123/450450"),
        (partial(repeat, down=2, across=2), "123123/450450/123123/450450"),
        (double, "112233/112233/445500/445500"),
        (double_height, "123/123/450/450"),
        (double_width, "112233/445500"),
        (partial(translate, down=1, across=1), "045/312"),
        (partial(translate, down=0, across=2), "231/504"),
    ],
)
def test_every_transformation_gives_the_grid_made_by_hand(transform: Transformation, expected: str) -> None:
    assert text(transform(GRID)) == expected


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (SIZE, ["112233/112233/445500/445500", "123/123/450/450", "112233/445500"]),
        (
            CHAIN,
            [
                "3300/3300/2255/2255/1144/1144",
                "4411/4411/5522/5522/0033/0033",
                "005544/005544/332211/332211",
                "445500/445500/112233/112233",
                "332211/332211/005544/005544",
                "1144/1144/2255/2255/3300/3300",
            ],
        ),
        (REPEAT, ["123/450/123/450", "123123/450450", "123123/450450/123123/450450"]),
        (
            BASIC,
            [
                "30/25/14",
                "41/52/03",
                "054/321",
                "450/123",
                "321/054",
                "450/123/123/450",
                "321123/054450",
                "123/450/450/123",
                "123321/450054",
                "312/045",
                "14/25/30",
            ],
        ),
    ],
)
def test_every_group_maps_the_input_in_the_published_order(group: tuple[Augmenter, ...], expected: list[str]) -> None:
    assert [text(augment((GRID, GRID), 0)[0]) for augment in group] == expected


def test_a_translation_moves_the_output_by_draws_of_its_own() -> None:
    square = grid("1000/0000/0000/0000")
    assert [text(moved) for moved in translate_randomly((square, square), seed=0)] == ["0001/0000/0000/0000", "0000/1000/0000/0000"]


def test_a_translation_is_drawn_under_the_grids_own_sides() -> None:
    assert [text(moved) for moved in translate_randomly((grid("5"), grid("12")), seed=0)] == ["5", "12"]
    assert [text(moved) for moved in translate_randomly((grid("5"), grid("12")), seed=1)] == ["5", "21"]


def test_the_seeds_of_a_translation_repeat_after_two_to_the_32() -> None:
    pair = (grid("123/456/789"), grid("10/02"))
    for first, second in zip(translate_randomly(pair, seed=7), translate_randomly(pair, seed=2**32 + 7), strict=True):
        assert text(first) == text(second)


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        (Augmentations(), 0),
        (Augmentations(basic=True), 11),
        (Augmentations(size=True), 3),
        (Augmentations(chain=True), 6),
        (Augmentations(repeat=True), 3),
        (Augmentations(basic=True, size=True, chain=True, repeat=True), 23),
    ],
)
def test_an_edit_has_the_augmenters_of_the_groups_it_chose(chosen: Augmentations, count: int) -> None:
    assert len(chosen.augmenters()) == count


def test_chosen_groups_come_in_the_published_order() -> None:
    assert Augmentations(basic=True, size=True, chain=True, repeat=True).augmenters() == BASIC + SIZE + CHAIN + REPEAT


def test_the_eight_views_show_the_eight_symmetries_the_grid_itself_first() -> None:
    assert [text(view.apply(GRID)) for view in VIEWS] == [
        "123/450",
        "30/25/14",
        "054/321",
        "41/52/03",
        "14/25/30",
        "450/123",
        "03/52/41",
        "321/054",
    ]


@settings(deadline=None)
@given(GRIDS, st.sampled_from(VIEWS))
def test_every_view_is_undone(of: Grid, view: View) -> None:
    assert np.array_equal(view.undo(view.apply(of)), of)
    assert np.array_equal(view.apply(view.undo(of)), of)
    assert view.apply(of).flags["C_CONTIGUOUS"] and view.undo(of).flags["C_CONTIGUOUS"]


@settings(deadline=None)
@given(GRIDS)
def test_four_quarter_turns_and_two_flips_change_nothing(of: Grid) -> None:
    assert np.array_equal(rotate_90(rotate_90(rotate_90(rotate_90(of)))), of)
    assert np.array_equal(rotate_270(rotate_90(of)), of)
    assert np.array_equal(rotate_180(rotate_180(of)), of)
    for flip in (flip_up_down, flip_left_right, transpose):
        assert np.array_equal(flip(flip(of)), of)


@settings(deadline=None)
@given(GRIDS)
def test_sides_swap_or_double_or_stay(of: Grid) -> None:
    height, width = of.shape
    for turn in (rotate_90, rotate_270, transpose):
        assert turn(of).shape == (width, height)
    for stay in (rotate_180, flip_up_down, flip_left_right):
        assert stay(of).shape == (height, width)
    for tall in (double_height, partial(repeat, down=2, across=1), partial(reflect, axis=0, mirror_first=True)):
        assert tall(of).shape == (2 * height, width)
    for wide in (double_width, partial(repeat, down=1, across=2), partial(reflect, axis=1, mirror_first=False)):
        assert wide(of).shape == (height, 2 * width)
    for large in (double, partial(repeat, down=2, across=2)):
        assert large(of).shape == (2 * height, 2 * width)


@settings(deadline=None)
@given(GRIDS, GRIDS, st.integers(0, 2**40))
def test_a_translation_keeps_shapes_and_cells(before: Grid, after: Grid, seed: int) -> None:
    for of, moved in zip((before, after), translate_randomly((before, after), seed), strict=True):
        assert moved.shape == of.shape
        assert sorted(moved.ravel().tolist()) == sorted(of.ravel().tolist())


@settings(deadline=None)
@given(GRIDS, GRIDS, st.integers(0, 2**40))
def test_grids_of_equal_sides_are_translated_equally_in_all_examples(before: Grid, after: Grid, seed: int) -> None:
    marks = np.arange(before.size).reshape(before.shape).astype(np.int8)
    moved, _ = translate_randomly((before, after), seed)
    moved_marks, _ = translate_randomly((marks, after), seed)
    assert moved.ravel().tolist() == before.ravel()[moved_marks.ravel()].tolist()
