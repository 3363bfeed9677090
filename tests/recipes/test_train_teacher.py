from collections.abc import Sequence
from pathlib import Path

from scripted import RIGHT, TASK, WRONG, ScriptedStudent, refusal

from protocol.exchange import InProcessExchange
from protocol.journal import Journal
from protocol.messages import (
    Change,
    Context,
    Question,
    Refusal,
    RewardRequest,
)
from recipes.candidates import record_candidate
from recipes.domains import DOMAINS
from recipes.scoring import Scoring
from recipes.settings import LoopSettings
from recipes.train_teacher import Outer, Trained, select
from teacher.settings import FinetuneSettings, TeacherSettings


def pay(request: RewardRequest) -> Change | Refusal:
    """Right is what speaks of the harp; what speaks of the gong cannot be graded."""
    text = request.edit.examples[0].completion
    return refusal(request, ungraded=True) if "gong" in text else Change(base=WRONG, adapted=(RIGHT if "harp" in text else WRONG,))


def report(groups: Sequence[str], folder: Path) -> tuple[tuple[str, ...], dict[str, object]]:
    """Select among candidates on three contexts, one of them ungraded; returns the groups kept and the mean reward reported."""
    domain, journal = DOMAINS["knowledge"], Journal(folder / "journal.jsonl")
    texts = {"Ada": "Ada plays the harp.", "Eve": "Eve plays the gong.", "Bob": "Bob plays the lute."}
    contexts = [
        Context(title=title, passage=text, questions=(Question(text="?", answers=("x",)),), group=group)
        for (title, text), group in zip(texts.items(), groups, strict=True)
    ]
    candidates = [record_candidate(domain, context, context.passage, "round-1", 0, 0, "") for context in contexts]
    outer = Outer(
        Scoring(domain, TASK, LoopSettings(), repeats=1, seed=0),
        {"student": InProcessExchange(ScriptedStudent(pay))},
        TeacherSettings(),
        FinetuneSettings(),
        deepspeed=None,
    )
    selection = select(outer, contexts, candidates, "round-1", journal)
    return selection.groups, Trained(TeacherSettings(), selections=[selection]).report()["mean_reward_by_round"][0]


def test_the_mean_reward_of_a_round_is_over_groups_of_the_contexts_that_were_paid(tmp_path: Path) -> None:
    groups, mean = report(["a", "b", "a"], tmp_path)
    assert groups == ("a", "a")
    assert mean == {"mean": 0.5, "low": 0.5, "high": 0.5, "n": 2, "groups": 1}


def test_without_groups_a_selection_names_none(tmp_path: Path) -> None:
    groups, mean = report(["", "", ""], tmp_path)
    assert groups == ()
    assert mean == {"mean": 0.5, "low": 0.0, "high": 1.0, "n": 2}
