import json
import random
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.domains.augmentations import Augmentations, Demonstrations, Pair
from recipes.domains.expansion import TrainingTask, count_tasks, draw_colours, make_tasks
from recipes.domains.grids import Grid, from_text, read_grid, to_text

EVERYTHING = Augmentations(basic=True, size=True, chain=True, repeat=True)


def pair(before: str, after: str) -> Pair:
    grids = [from_text(text.replace("/", "\n")) for text in (before, after)]
    assert grids[0] is not None and grids[1] is not None
    return grids[0], grids[1]


def texts(example: Pair) -> str:
    return " ".join(to_text(grid).replace("\n", "/") for grid in example)


def lines(tasks: list[TrainingTask]) -> list[str]:
    """Each task as a line, the test behind a bar."""
    return [" ".join([*(f"({texts(example)})" for example in task.demonstrations), "|", texts(task.test)]) for task in tasks]


def grids_of(task: TrainingTask) -> list[Grid]:
    return [grid for example in (*task.demonstrations, task.test) for grid in example]


ONE, TWO, THREE = pair("1", "2"), pair("3", "4"), pair("5", "6")
LARGE = pair("1" * 16, "20")


@st.composite
def demonstrations(draw: st.DrawFn) -> list[Pair]:
    numbers = np.random.RandomState(draw(st.integers(0, 2**32 - 1)))
    sides = draw(st.lists(st.tuples(*[st.integers(1, 6)] * 4), min_size=2, max_size=4))
    return [(numbers.randint(0, 10, (a, b)).astype(np.int8), numbers.randint(0, 10, (c, d)).astype(np.int8)) for a, b, c, d in sides]


CHOICES = st.builds(Augmentations, st.booleans(), st.booleans(), st.booleans(), st.booleans())
SEEDS = st.integers(0, 2**63 - 1)


def test_counts_are_those_of_the_published_code(released: Path) -> None:
    folder = released / "arc"
    expected = json.loads((folder / "expected_counts.json").read_text())["tasks"]
    names = ("arc-agi_training_challenges", "arc-agi_evaluation_challenges_filtered_1B_eval_set")
    tasks = {id: task for name in names for id, task in json.loads((folder / f"{name}.json").read_text()).items()}
    assert len(expected) == 6
    for id, counts in expected.items():
        examples = [(read_grid(e["input"], id), read_grid(e["output"], id)) for e in tasks[id]["train"]]
        counted = {
            "".join(str(int(group)) for group in chosen): count_tasks(examples, Augmentations(*chosen))
            for chosen in product((False, True), repeat=4)
        }
        assert counted == counts, id


def test_without_augmentation_each_example_is_the_test_in_turn_and_one_more_may_be_left_out() -> None:
    made = set(lines(make_tasks([ONE, TWO, THREE], Augmentations(), seed=0, max_sequences=250)))
    leave_1_out = {"(3 4) (5 6) | 1 2", "(1 2) (5 6) | 3 4", "(1 2) (3 4) | 5 6"}
    leave_2_out = {"(3 4) | 1 2", "(5 6) | 1 2", "(1 2) | 3 4", "(5 6) | 3 4", "(1 2) | 5 6", "(3 4) | 5 6"}
    in_another_order = {"(5 6) (3 4) | 1 2", "(5 6) (1 2) | 3 4", "(3 4) (1 2) | 5 6"}
    assert leave_1_out | leave_2_out <= made <= leave_1_out | leave_2_out | in_another_order


def test_demonstrations_come_in_another_order_for_some_seed() -> None:
    made = {line for seed in range(10) for line in lines(make_tasks([ONE, TWO, THREE], Augmentations(), seed, max_sequences=250))}
    assert {"(5 6) (3 4) | 1 2", "(5 6) (1 2) | 3 4", "(3 4) (1 2) | 5 6"} <= made


@pytest.mark.parametrize(
    ("examples", "one", "two"),
    [([], 0, 0), ([ONE], 1, 0), ([ONE, TWO], 2, 2), ([ONE, TWO, THREE], 3, 6), ([ONE, ONE], 1, 1), ([ONE, ONE, ONE, TWO], 2, 3)],
)
def test_initial_tasks_are_counted_once(examples: Demonstrations, one: int, two: int) -> None:
    assert count_tasks(examples, Augmentations()) == {"leave_1_out": one, "leave_2_out": two}


def test_with_two_examples_tasks_that_have_only_a_test_count() -> None:
    made = make_tasks([ONE, TWO], Augmentations(), seed=0, max_sequences=250)
    assert sorted(lines(made)) == ["(1 2) | 3 4", "(3 4) | 1 2", "| 1 2", "| 3 4"]


def test_a_task_that_an_augmentation_leaves_as_it_was_counts_once() -> None:
    assert count_tasks([ONE, TWO], Augmentations(basic=True)) == {"leave_1_out": 2 * 3, "leave_2_out": 2 * 3}


def test_a_result_with_too_long_a_side_is_dropped_with_every_example_of_its_task() -> None:
    assert count_tasks([LARGE, ONE], Augmentations(size=True)) == {"leave_1_out": 2 * 2, "leave_2_out": 2 + 4}
    assert count_tasks([LARGE, ONE], Augmentations(size=True), max_side=32) == {"leave_1_out": 2 * 4, "leave_2_out": 2 * 4}


def test_tasks_as_they_were_given_are_held_to_a_lower_limit_too() -> None:
    assert count_tasks([LARGE, ONE, TWO], Augmentations(), max_side=15) == {"leave_1_out": 0, "leave_2_out": 2}
    made = make_tasks([LARGE, ONE, TWO], Augmentations(), seed=0, max_sequences=250, max_side=15)
    assert sorted(lines(made)) == ["(1 2) | 3 4", "(3 4) | 1 2"]


def test_tasks_are_equal_by_their_grids_in_order() -> None:
    task = TrainingTask(demonstrations=(ONE, TWO), test=THREE)
    assert task == TrainingTask(demonstrations=(pair("1", "2"), pair("3", "4")), test=pair("5", "6"))
    assert hash(task) == hash(TrainingTask(demonstrations=(ONE, TWO), test=THREE))
    assert task != TrainingTask(demonstrations=(TWO, ONE), test=THREE)
    assert TrainingTask(demonstrations=(), test=pair("12", "3")) != TrainingTask(demonstrations=(), test=pair("1/2", "3"))


@settings(deadline=None)
@given(SEEDS)
def test_permuted_colours_keep_the_background_and_are_a_bijection(seed: int) -> None:
    colours = draw_colours(random.Random(seed)).tolist()
    assert colours[0] == 0
    assert sorted(colours) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_colours_are_permuted_alike_in_all_grids_of_a_task() -> None:
    made = make_tasks([pair("10/22", "12"), pair("21/00", "20")], Augmentations(repeat=True), seed=3, max_sequences=250)
    patterns = set()
    for task in made:
        names: dict[int, str] = {0: "."}
        before, after = task.test
        cells = [
            *before.ravel().tolist(),
            *after.ravel().tolist(),
            *(c for d in task.demonstrations for g in d for c in g.ravel().tolist()),
        ]
        patterns.add("".join(names.setdefault(cell, "abc"[len(names) - 1]) for cell in cells))
        assert len(names) == 3
    assert len(patterns) == 16
    assert any(grids_of(task)[0].max() > 2 for task in made)


@settings(deadline=None, max_examples=50)
@given(demonstrations(), CHOICES, SEEDS)
def test_without_a_cut_every_counted_task_is_made_and_at_most_one_copy_of_each(given: list[Pair], chosen: Augmentations, seed: int) -> None:
    counted = sum(count_tasks(given, chosen, seed).values())
    made = make_tasks(given, chosen, seed, max_sequences=10_000)
    assert counted <= len(made) <= 2 * counted
    assert len(set(made)) == len(made)


@settings(deadline=None, max_examples=50)
@given(demonstrations(), CHOICES, SEEDS, st.integers(1, 30), st.integers(1, 12))
def test_tasks_are_as_few_and_as_small_as_asked(
    given: list[Pair], chosen: Augmentations, seed: int, max_sequences: int, max_side: int
) -> None:
    made = make_tasks(given, chosen, seed, max_sequences, max_side)
    assert len(made) <= max_sequences
    for grid in (grid for task in made for grid in grids_of(task)):
        assert max(grid.shape) <= max_side
        assert grid.dtype == np.int8 and grid.flags["C_CONTIGUOUS"]


@settings(deadline=None, max_examples=30)
@given(demonstrations(), CHOICES, SEEDS)
def test_equal_seeds_give_equal_tasks(given: list[Pair], chosen: Augmentations, seed: int) -> None:
    assert make_tasks(given, chosen, seed, 40) == make_tasks(given, chosen, seed, 40)


def test_a_list_too_long_is_cut() -> None:
    given = [pair("12/30", "45"), pair("67/08", "91"), pair("22/35", "10")]
    assert count_tasks(given, EVERYTHING) == {"leave_1_out": 69, "leave_2_out": 138}
    assert len(make_tasks(given, EVERYTHING, 0, 250)) == 250


def test_another_seed_gives_other_tasks() -> None:
    given = [pair("12/30", "45"), pair("67/08", "91"), pair("22/35", "10")]
    assert make_tasks(given, EVERYTHING, 0, 40) != make_tasks(given, EVERYTHING, 1, 40)


@settings(deadline=None, max_examples=50)
@given(demonstrations(), SEEDS)
def test_without_augmentation_no_grid_is_changed(given: list[Pair], seed: int) -> None:
    known = {texts(example) for example in given}
    for task in make_tasks(given, Augmentations(), seed, 250):
        assert {texts(example) for example in (*task.demonstrations, task.test)} <= known


def test_the_demonstrations_stay_as_they_were() -> None:
    given = [pair("12/30", "45"), pair("67/08", "91")]
    make_tasks(given, EVERYTHING, 0, 250)
    assert [texts(example) for example in given] == ["12/30 45", "67/08 91"]


def test_colours_change_without_augmentations_only_if_asked() -> None:
    plain, recoloured = (lines(make_tasks([ONE, TWO, THREE], Augmentations(), 0, 250, recolour=recolour)) for recolour in (False, True))
    assert "(1 2) (3 4) | 5 6" in plain and "(1 2) (3 4) | 5 6" in recoloured
    assert all(set(line) <= set("123456 ()|") for line in plain)
    assert any(set(line) & set("789") for line in recoloured)
