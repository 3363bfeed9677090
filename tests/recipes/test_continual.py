"""The continual-learning recipe: it runs, goes on where it was stopped, and says what is wrong with its settings."""

import json
from pathlib import Path

import pytest

from protocol.errors import InvalidInput
from recipes import continual
from recipes.checks import check
from recipes.config import load_recipe
from recipes.launching import Seat
from recipes.learning_settings import Continual
from recipes.progress_file import read_progress
from recipes.team import Team

RECIPE = Path("recipes/tiny/continual.yaml")
SMALL = [
    "sequences=2",
    "length=2",
    "retention.limit=2",
    "student.epochs=2",
    "strategies.constrain=null",
    "strategies.replay=null",
    "strategies.consolidate=null",
    "strategies.all.epochs=3",
    "strategies.all.texts=32",
    "strategies.all.consolidate_every=2",
    "strategies.all.consolidate_epochs=2",
    "strategies.merge.texts=32",
]


def recipe(runs: Path, *overrides: str) -> Continual:
    settings = load_recipe(RECIPE, [*SMALL, f"runs={runs}", *overrides])
    assert isinstance(settings, Continual)
    check(settings)
    return settings


def test_students_learn_in_turn_and_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = json.loads(continual.run(recipe(tmp_path / "whole"), Team(Seat())).read_text())
    learn, updates = continual.Learner.learn, []

    def stop_at_the_third(*arguments: object) -> object:
        updates.append(arguments)
        if len(updates) == 4:
            raise KeyboardInterrupt
        return learn(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(continual.Learner, "learn", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        continual.run(recipe(tmp_path / "stopped"), Team(Seat()))
    report = json.loads(continual.run(recipe(tmp_path / "stopped"), Team(Seat())).read_text())
    assert len(updates) == 3 + 1 + 1  # four updates, one of them begun twice
    for name in ("merge", "all"):
        measured, expected = report["strategies"][name], whole["strategies"][name]
        assert [len(row) for row in measured["matrix"]] == [1, 2]
        untimed = {key for key in expected if "seconds" not in key}
        assert {key: measured[key] for key in untimed} == {key: expected[key] for key in untimed}
    assert (tmp_path / "stopped" / "continual" / "forgetting.png").exists()


def test_a_damaged_file_of_progress_is_named(tmp_path: Path) -> None:
    path = tmp_path / "all.safetensors"
    assert read_progress(path, [[]]) is None
    path.write_bytes(b"\x10\0\0\0")
    with pytest.raises(InvalidInput, match=r"all\.safetensors is damaged .*; remove it, and its strategy starts anew"):
        read_progress(path, [[]])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sequences=100", r"contexts has 128, but sequences x length is 100 x 2 = 200"),
        ("length=1", r"length is 1; forgetting shows from 2 contexts on"),
        ("student.exchange=http://127.0.0.1:1", r"trains its students here"),
        ("strategies.a/b.left=0.1", r"'a/b' names a file in the run folder"),
        ("strategies.all.left=0", r"strategies\.all\.left is 0\.0; it must be in \(0, 1\)"),
        ("strategies.all.strategies=[constrain,constrain]", r"name each once"),
        ("strategies.all.strategies=[forget]", r"forget"),
        ("strategies.all.texts_from=nowhere/at/all", r"strategies\.all\.texts_from is 'nowhere/at/all', which does not exist"),
        ("strategies.all.texts=0", r"strategies\.all\.texts is 0; it must be at least 1"),
        ("domain=few_shot", r"few_shot"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=message):
        recipe(tmp_path, override)
