from collections.abc import Sequence
from pathlib import Path

import pytest
from scripted import RIGHT, TASK, WRONG, ScriptedStudent, refusal

from protocol.errors import TutelageError
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
from recipes.loop_settings import LoopSettings
from recipes.m_step import Outer, Trained, tell_why_none
from recipes.scoring import Scoring
from recipes.train_teacher import next_step, select
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


def choose_from(texts: Sequence[str], folder: Path, **loop: float) -> tuple[int, str]:
    """How many of some candidates on one context are kept, and what is said if none is. A gong is refused, a blank no self-edit."""
    domain, context = DOMAINS["knowledge"], Context(title="Ada", passage="x", questions=(Question(text="?", answers=("x",)),))

    def pay(request: RewardRequest) -> Change | Refusal:
        text = request.edit.examples[0].completion
        return refusal(request) if "gong" in text else Change(base=WRONG, adapted=(RIGHT if "harp" in text else WRONG,))

    candidates = [record_candidate(domain, context, text, "round-1", index, 0, "") for index, text in enumerate(texts)]
    scoring = Scoring(domain, TASK, LoopSettings(**loop), repeats=1, seed=0)  # type: ignore[arg-type]
    outer = Outer(scoring, {"student": InProcessExchange(ScriptedStudent(pay))}, TeacherSettings(), FinetuneSettings(), deepspeed=None)
    selection = select(outer, [context], candidates, "round-1", Journal(folder / "journal.jsonl"))
    return len(selection.kept), tell_why_none(selection, candidates, scoring.loop.minimum)


def test_a_round_whose_every_self_edit_is_refused_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(TutelageError, match="no self-edit has a reward, so there is nothing to learn from; the first reason: no"):
        choose_from(["gong", "gong"], tmp_path)


def test_a_round_of_refused_and_malformed_candidates_keeps_nothing(tmp_path: Path) -> None:
    assert choose_from(["gong", " "], tmp_path) == (0, "no self-edit has a reward")


def test_a_round_below_the_minimum_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    assert choose_from(["lute", "gong"], tmp_path, minimum=1.0) == (0, "no self-edit is worth minimum=1.0")


def test_a_round_without_any_self_edit_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    assert choose_from([" ", " "], tmp_path) == (0, "no candidate is a self-edit")


def test_the_next_step_tells_what_is_not_as_with_every_teacher() -> None:
    plain, chatting = TeacherSettings(model="m", adapter="a"), TeacherSettings(model="m", chat=True, dtype="bfloat16")
    assert next_step(Trained(plain), "x.yaml") == "next: tutelage run x.yaml teacher.model=m teacher.adapter=a name=my-student"
    told = "next: tutelage run y.yaml teacher.model=m teacher.chat=True teacher.dtype=bfloat16 name=my-student"
    assert next_step(Trained(chatting), "y.yaml") == told
    elsewhere = "next: tutelage run x.yaml teacher.model=m teacher.adapter=a student.model= student.exchange=folder:/shared name=my-student"
    assert next_step(Trained(plain), "x.yaml", "folder:/shared") == elsewhere
