"""The short version of `killing.py`: some moments of short runs, with one process and with two."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from killing import Moment, check_moment, whole_run

TRAIN = (
    "recipes/tiny/train_teacher.yaml name=killed rounds=1 contexts_per_round=2 candidates=4 teacher.batch_size=2 student.cohort=1 "
    "student.epochs=4 teacher.max_new_tokens=60 finetune.batch_size=2 finetune.epochs=2 finetune.save_every=1"
).split()
ADAPT = (
    "recipes/tiny/adapt_student.yaml name=killed contexts.limit=2 candidates=2 teacher.batch_size=2 teacher.max_new_tokens=60 use=best "
    "student.cohort=1 student.epochs=4 student.save_every=1"
).split()


@pytest.mark.parametrize(
    ("words", "moments"),
    [
        (TRAIN, [Moment("journaling", count=5), Moment("checkpointing", count=2)]),
        (ADAPT, [Moment("updating", count=2)]),
    ],
    ids=["train", "adapt"],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, words: list[str], moments: list[Moment]) -> None:
    expected, _ = whole_run(1, tmp_path / "whole", words)
    for moment in moments:
        assert check_moment(1, tmp_path / "killed", moment, expected, words).endswith("0 twice; report equal")


@pytest.fixture(scope="module")
def expected_of_two(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return whole_run(2, tmp_path_factory.mktemp("whole") / "run", TRAIN)[0]


def test_so_does_a_run_of_two_processes_of_which_one_is_killed(tmp_path: Path, expected_of_two: Any) -> None:
    told = check_moment(2, tmp_path / "killed", Moment("training", count=2, rank=1), expected_of_two, TRAIN)
    assert told.endswith("0 twice; report equal")


def test_a_run_of_two_processes_that_are_both_killed_goes_on_with_one(tmp_path: Path, expected_of_two: Any) -> None:
    moment = Moment("finetuning", count=2, all_of_them=True)
    told = check_moment(2, tmp_path / "killed", moment, expected_of_two, TRAIN, go_on_with=1)
    assert told.endswith("0 twice; report equal")
