from pathlib import Path

from scripted import ScriptedStudent, refusal

from protocol.exchange import InProcessExchange
from protocol.journal import Journal
from protocol.messages import (
    Context,
    Question,
    Refusal,
    RewardRequest,
)
from recipes.constants import Constant, choose_constant
from recipes.inputs import choose_task
from recipes.scoring import Scoring
from recipes.settings import LoopSettings, RecipeSettings

PAID = {("Ada", "one"): 1.0, ("Bob", "one"): 0.0, ("Ada", "two"): 0.5, ("Bob", "two"): 0.5, ("Ada", "three"): 0.75}


def pay(request: RewardRequest) -> float | Refusal:
    paid = PAID.get((request.context.title, request.edit.examples[0].completion))
    return refusal(request) if paid is None else paid


def test_the_constant_with_the_best_mean_comes_first_and_ties_keep_the_earlier(tmp_path: Path) -> None:
    domain, task = choose_task(RecipeSettings(grader="exact_match"))
    contexts = [Context(title=name, passage="x", questions=(Question(text="?", answers=("y",)),)) for name in ("Ada", "Bob")]
    scoring = Scoring(domain, task, LoopSettings(), repeats=1, seed=0)
    texts = ["three", "one", "two"]  # Bob's "three" is refused, and paid the floor
    constants = choose_constant(
        scoring, texts, InProcessExchange(ScriptedStudent(pay)), contexts, "seed-0", Journal(tmp_path / "journal.jsonl")
    )
    assert constants == [Constant("one", 0.5), Constant("two", 0.5), Constant("three", -0.125)]
