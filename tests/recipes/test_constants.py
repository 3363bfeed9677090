from pathlib import Path

import pytest
from scripted import ScriptedStudent, refusal

from protocol.errors import TutelageError
from protocol.exchange import InProcessExchange
from protocol.journal import Journal
from protocol.messages import (
    Context,
    Question,
    Refusal,
    RewardRequest,
)
from recipes.base_settings import RecipeSettings
from recipes.constants import Constant, choose_constant
from recipes.inputs import choose_task
from recipes.loop_settings import LoopSettings
from recipes.scoring import Scoring

PAID = {("Ada", "one"): 1.0, ("Bob", "one"): 0.0, ("Ada", "two"): 0.5, ("Bob", "two"): 0.5, ("Ada", "three"): 0.75}


def pay(request: RewardRequest) -> float | Refusal:
    paid = PAID.get((request.context.title, request.edit.examples[0].completion))
    failed = (request.context.title, request.edit.examples[0].completion) == ("Eve", "two")
    return refusal(request, ungraded=failed) if paid is None else paid


def choose(folder: Path, *names: str) -> list[Constant]:
    domain, task = choose_task(RecipeSettings(grader="exact_match"))
    contexts = [Context(title=name, passage="x", questions=(Question(text="?", answers=("y",)),)) for name in names]
    scoring = Scoring(domain, task, LoopSettings(), repeats=1, seed=0)
    exchange = InProcessExchange(ScriptedStudent(pay))
    return choose_constant(scoring, ["three", "one", "two"], exchange, contexts, "seed-0", Journal(folder / "journal.jsonl"))


CHOSEN = [Constant("one", 0.5), Constant("two", 0.5), Constant("three", -0.125)]
"""Bob's "three" is refused, and paid the floor."""


def test_the_constant_with_the_best_mean_comes_first_and_ties_keep_the_earlier(tmp_path: Path) -> None:
    assert choose(tmp_path, "Ada", "Bob") == CHOSEN


def test_a_context_on_which_the_grader_failed_does_not_count_for_any_constant(tmp_path: Path) -> None:
    assert choose(tmp_path, "Ada", "Eve", "Bob") == CHOSEN
    with pytest.raises(TutelageError, match="no training context has verdicts on all constants"):
        choose(tmp_path, "Eve")
