from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from protocol.exchange import InProcessExchange
from protocol.journal import Journal
from protocol.messages import (
    Change,
    CommitRequest,
    Context,
    Limits,
    Outcome,
    Question,
    Refusal,
    Reward,
    RewardRequest,
    StudentCard,
    VersionCard,
    measurement_key,
)
from recipes.constants import Constant, choose_constant
from recipes.inputs import choose_task
from recipes.scoring import Scoring
from recipes.settings import LoopSettings, RecipeSettings

CARD = StudentCard(fingerprint="1" * 32, model="m", limits=Limits(), settings={}, domains={"knowledge": 1})
PAID = {("Ada", "one"): 1.0, ("Bob", "one"): 0.0, ("Ada", "two"): 0.5, ("Bob", "two"): 0.5, ("Ada", "three"): 0.75}


class Payer:
    """Pays by context and edit what stands above, and refuses what does not."""

    def describe(self) -> StudentCard:
        return CARD

    def score(self, requests: Sequence[RewardRequest], known: Collection[str] = ()) -> Iterator[Sequence[Reward | Refusal]]:
        return ([self._pay(request)] for request in requests)

    def _pay(self, request: RewardRequest) -> Reward | Refusal:
        key, paid = measurement_key(CARD, request), PAID.get((request.context.title, request.edit.examples[0].completion))
        if paid is None:
            return Refusal(key=key, request=request.id, reason="no")
        outcomes = (Outcome(answer="", correct=False),)
        return Reward(
            key=key,
            request=request.id,
            context=request.context.id,
            edit=request.edit.id,
            student=CARD.fingerprint,
            value=paid,
            change=Change(base=outcomes, adapted=(outcomes,)),
            gained=0,
            lost=0,
            seeds=request.seeds,
            seconds=0.0,
            trained_tokens=1,
        )

    def commit(self, request: CommitRequest) -> VersionCard:
        raise NotImplementedError


def test_the_constant_with_the_best_mean_comes_first_and_ties_keep_the_earlier(tmp_path: Path) -> None:
    domain, task = choose_task(RecipeSettings(grader="exact_match"))
    contexts = [Context(title=name, passage="x", questions=(Question(text="?", answers=("y",)),)) for name in ("Ada", "Bob")]
    scoring = Scoring(domain, task, LoopSettings(), repeats=1, seed=0)
    texts = ["three", "one", "two"]  # Bob's "three" is refused, and paid the floor
    constants = choose_constant(scoring, texts, InProcessExchange(Payer()), contexts, "seed-0", Journal(tmp_path / "journal.jsonl"))
    assert constants == [Constant("one", 0.5), Constant("two", 0.5), Constant("three", -0.125)]
