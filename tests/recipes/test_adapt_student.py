from collections.abc import Iterator, Sequence
from pathlib import Path

from scripted import TASK, ScriptedStudent, refusal

from protocol.exchange import InProcessExchange
from protocol.journal import Journal
from protocol.messages import (
    Change,
    Context,
    Lesson,
    Outcome,
    Question,
    Refusal,
    RewardRequest,
    VersionCard,
)
from recipes.adapt_student import best_lessons, describe_versions, group_lessons, report_versions
from recipes.domains import DOMAINS
from recipes.settings import AdaptStudent

ADA, BOB = (Context(title=name, passage="x", questions=(Question(text="?", answers=("y",)),)) for name in ("Ada", "Bob"))


def appraise(request: RewardRequest) -> float | Refusal:
    """Pays what the edit's text says, and refuses "no"."""
    text = request.edit.examples[0].completion
    return refusal(request) if text == "no" else float(text)


def lessons(context: Context, texts: Sequence[str]) -> Iterator[Lesson]:
    for text in texts:
        yield Lesson(context=context, edit=DOMAINS["knowledge"].parse(text, context))


def test_each_contexts_best_lesson_is_kept_and_ties_keep_the_earlier(tmp_path: Path) -> None:
    given = [*lessons(ADA, ["0.1", "0.7", "0.70"]), *lessons(BOB, ["no", "-0.5"])]
    best = best_lessons(
        InProcessExchange(ScriptedStudent(appraise)), TASK, given, AdaptStudent(), "adapt", Journal(tmp_path / "journal.jsonl")
    )
    assert [(lesson.context.title, lesson.edit.examples[0].completion) for lesson in best] == [("Ada", "0.7"), ("Bob", "-0.5")]


def version(*changes: Change, path: str = "nowhere") -> VersionCard:
    ids = {name: str(number) * 32 for number, name in enumerate(("key", "request", "parent", "fingerprint"))}
    return VersionCard(path=path, changes=changes, seconds=0.0, trained_tokens=1, **ids)


def test_a_lasting_students_intervals_are_over_groups() -> None:
    wrong, right = (Outcome(answer="", correct=False),), (Outcome(answer="", correct=True),)
    contexts = [context.model_copy(update={"group": "people"}) for context in (ADA, BOB)]
    card = version(Change(base=wrong, adapted=(right,)), Change(base=wrong, adapted=(wrong,)))
    report = report_versions([(card, [lesson for context in contexts for lesson in lessons(context, ["x"])])], DOMAINS["knowledge"])
    assert report["gain"] == report["scores"]["after"] == {"mean": 0.5, "low": 0.5, "high": 0.5, "n": 2, "groups": 1}


def test_contexts_may_have_an_adapter_each() -> None:
    wrong, right = (Outcome(answer="z", correct=False),), (Outcome(answer="y", correct=True),)
    learned = [*lessons(ADA, ["a", "b"]), *lessons(BOB, ["c"])]
    assert [title for title, _ in group_lessons(learned, "together")] == [""]
    groups = group_lessons(learned, "single")
    assert [(title, [lesson.edit.examples[0].completion for lesson in own]) for title, own in groups] == [
        ("Ada", ["a", "b"]),
        ("Bob", ["c"]),
    ]
    cards = [version(*[Change(base=wrong, adapted=(right,))] * 2, path="one"), version(Change(base=wrong, adapted=(wrong,)), path="two")]
    report = report_versions([(card, own) for card, (_, own) in zip(cards, groups, strict=True)], DOMAINS["knowledge"])
    assert [card["path"] for card in report["versions"]] == ["one", "two"]
    assert [(row["title"], row["before"], row["after"]) for row in report["answers"]] == [("Ada", "z", "y"), ("Bob", "z", "z")]
    assert "lasting student: one (1 tokens, 0.0 s)\nlasting student: two" in describe_versions(report)
