"""The continual-learning recipe: it runs, goes on where it was stopped, and says what is wrong with its settings."""

import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from random_kills import KILLS, kill_later, start
from safetensors.numpy import load_file

from protocol.errors import InvalidInput
from protocol.messages import Context, Lesson, SelfEdit
from recipes import continual
from recipes.checks import check
from recipes.config import load_recipe
from recipes.exam import Step
from recipes.launching import Seat
from recipes.learning_settings import Continual
from recipes.progress_file import read_progress
from recipes.team import Team

RECIPE = Path("recipes/tiny/continual.yaml")
LENGTH = max(2, KILLS // 2)
LONG = f"length={LENGTH}"
SMALL = [
    "sequences=2",
    "length=2",
    "retention.limit=2",
    "student.epochs=1",
    "strategies.constrain=null",
    "strategies.replay=null",
    "strategies.consolidate=null",
    "strategies.all.epochs=2",
    "strategies.all.texts=8",
    "strategies.all.text_tokens=16",
    "strategies.all.consolidate_every=2",
    "strategies.all.consolidate_epochs=1",
]


def recipe(runs: Path, *overrides: str) -> Continual:
    settings = load_recipe(RECIPE, [*SMALL, f"runs={runs}", *overrides])
    assert isinstance(settings, Continual)
    check(settings)
    return settings


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run that nobody stopped."""
    return continual.run(recipe(tmp_path_factory.mktemp("whole"), LONG), Team(Seat()))


def figures(report: Path) -> dict[str, Any]:
    """A report without its times, which no two runs have in common."""

    def strip(content: Any) -> Any:
        return {key: strip(value) for key, value in content.items() if "seconds" not in key} if isinstance(content, dict) else content

    return strip(json.loads(report.read_text()))


def test_students_learn_in_turn(whole: Path) -> None:
    report = json.loads(whole.read_text())
    for name in ("merge", "all"):
        assert [len(row) for row in report["strategies"][name]["matrix"]] == list(range(1, LENGTH + 1))
    assert whole.with_name("forgetting.png").exists()


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


def watch_for_writing(paths: Sequence[Path]) -> Callable[[], bool]:
    """Says whether one of these files was written since."""

    def dates() -> list[int]:
        return [path.stat().st_mtime_ns if path.exists() else 0 for path in paths]

    before = dates()
    return lambda: dates() != before


def steps_of(folder: Path) -> dict[str, tuple[Step, ...]]:
    """What every strategy's file says that was done."""
    sequences = [[Lesson(context=Context(title="any"), edit=SelfEdit())] * LENGTH] * 2
    found = {name: read_progress(folder / f"{name}.safetensors", sequences) for name in ("all", "merge")}
    return {name: progress.steps if progress else () for name, progress in found.items()}


def adapters_of(path: Path) -> dict[str, tuple[tuple[int, ...], bytes]]:
    """What a strategy's students know, bit for bit."""
    return {key: (tensor.shape, tensor.tobytes()) for key, tensor in load_file(path).items()}


@pytest.mark.timeout(120 + 60 * KILLS)
def test_killed_at_random_moments_it_loses_no_update_and_makes_none_twice(whole: Path, tmp_path: Path) -> None:
    rng, killed, writing = random.Random(0), 0, 0
    folder = tmp_path / "continual"
    unfinished = [folder / f"{name}.safetensors.tmp" for name in ("all", "merge")]
    known = steps_of(folder)
    for number in range(KILLS):
        writes = watch_for_writing(unfinished)
        process = start("run", str(RECIPE), *SMALL, LONG, f"runs={tmp_path}")
        if number % 2:  # while it writes what was learned
            killed += kill_later(process, "writing self-edits", rng.choice((0.0, 0.01)), writes)
        else:
            killed += kill_later(process, "writing self-edits", rng.uniform(0.0, 4.0))
        writing += writes() and any(path.exists() for path in unfinished)
        now = steps_of(folder)
        assert {name: steps[: len(known[name])] for name, steps in now.items()} == known  # with their times: none was made again
        known = now
    made = sum(max(0, len(steps) - 1) for steps in known.values())
    started = time.monotonic()
    report = continual.run(recipe(tmp_path, LONG), Team(Seat()))
    print(
        f"killed {killed} of {KILLS} times, {writing} of them while writing, {made} of {2 * LENGTH} updates were made by then, "
        f"the last run {time.monotonic() - started:.0f} s"
    )
    assert figures(report) == figures(whole)
    for name, steps in steps_of(folder).items():
        assert (len(steps), steps[: len(known[name])]) == (1 + LENGTH, known[name])
        assert adapters_of(folder / f"{name}.safetensors") == adapters_of(whole.with_name(f"{name}.safetensors"))
