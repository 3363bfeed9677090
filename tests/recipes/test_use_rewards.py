"""A teacher's round on self-edits that were in use: what is read of a line, what it is paid, what is kept."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted import RIGHT, TASK, WRONG, ScriptedStudent, refusal
from versioned import add, attempt, row

from protocol.errors import InvalidInput
from protocol.exchange import InProcessExchange
from protocol.journal import Journal
from protocol.messages import Change, Context, Example, Provenance, Question, Refusal, RewardRequest, SelfEdit, Update
from recipes import m_step
from recipes.cli import main
from recipes.domains import DOMAINS
from recipes.feedback import UseReward
from recipes.loop_settings import LoopSettings, UseSettings
from recipes.scoring import Scoring
from recipes.use_rewards import UsedEdit, read_use, record_used, select_used
from student.version_answers import AnswerRow
from student.version_contexts import keep_contexts
from student.version_records import LearnedLesson
from student.versions import Line

NOW = 4e9
KNOWLEDGE = DOMAINS["knowledge"]
ADA = Context(title="Ada", passage="Ada plays the harp.", questions=(Question(text="What does Ada play?", answers=("harp",)),))
BOB = Context(title="Bob", passage="Bob plays the lute.")


def edit(*lines: str, **more: object) -> SelfEdit:
    return SelfEdit(examples=tuple(Example(completion=line) for line in lines), **more)  # type: ignore[arg-type]


ADAS, BOBS = edit("Ada plays the harp.", "Ada is a harpist."), edit("Bob plays the lute.")
"""Self-edits."""
UNSAID = UseReward(None, 0, 0)


def learn(line: Line, context: Context, learned: SelfEdit, *answers: AnswerRow) -> str:
    """Add a version; returns its fingerprint."""
    keep_contexts(line.path, [context])
    lesson = LearnedLesson(context=context.id, title=context.title, edit=learned)
    return add(line, attempt(context.id).model_copy(update={"lessons": (lesson,)}), answers).fingerprint


@pytest.fixture
def used(tmp_path: Path) -> tuple[UseSettings, list[str]]:
    """A line of two versions, and their fingerprints: the first has learned of Ada, the second of Bob as well."""
    with Line(tmp_path / "line") as line:
        first = learn(line, ADA, ADAS)
        asked = row("What does Bob play?", "the lute", None, "")
        second = learn(line, BOB, BOBS, asked.model_copy(update={"context": BOB.id}))
    return UseSettings(line=str(tmp_path / "line"), feedback=[str(tmp_path / "use.jsonl")]), [first, second]


def say(settings: UseSettings, *said: tuple[str, Context, str, bool]) -> None:
    """Thumbs: of which version, about which context, to which question, up or down."""
    rows = [
        {
            "version": version,
            "context": context.id,
            "question": question,
            "kind": "thumb",
            "value": value,
            "time": NOW - 10,
            "id": str(number),
        }
        for number, (version, context, question, value) in enumerate(said)
    ]
    Path(settings.feedback[0]).write_text("".join(json.dumps(told) + "\n" for told in rows))


def values(settings: UseSettings) -> list[float | None]:
    return [one.reward.value for one in read_use(settings, NOW)]


def test_feedback_pays_what_a_version_learned_and_what_its_parents_had(used: tuple[UseSettings, list[str]]) -> None:
    settings, (first, second) = used
    say(settings, (second, ADA, "What does Ada play?", True), (second, BOB, "What does Bob play?", False))
    assert values(settings) == [0.5, -0.5], "one thumb, drawn halfway to 0"
    say(settings, (first, ADA, "What does Ada play?", True))
    assert values(settings) == [0.5, None]


def test_rows_that_are_wrong_do_not_count_and_are_told(used: tuple[UseSettings, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    settings, (first, _) = used
    say(settings, ("0" * 32, ADA, "What does Ada play?", True), (first, BOB, "What does Bob play?", True), (first, ADA, "?", True))
    assert values(settings) == [None, None]
    told = " ".join(capsys.readouterr().out.split())
    assert "0 pieces of feedback pay 0 of 2 self-edits (3 refused); the first refused:" in told
    assert "use.jsonl, line 1: version is 00000000000000000000000000000000, which is none of those" in told


def test_a_test_looks_at_the_answers_of_each_version(used: tuple[UseSettings, list[str]]) -> None:
    settings, _ = used
    settings.feedback, settings.test = (
        [],
        [sys.executable, "-c", "import json, sys; sys.exit('lute' not in json.load(sys.stdin)['answer'])"],
    )
    assert values(settings) == [None, 0.5]
    settings.test = [sys.executable, "-c", "import sys; sys.exit(2)"]
    with pytest.raises(InvalidInput, match="which has no verdict on any answer: the test ended by exit code 2"):
        values(settings)


def test_a_test_is_of_the_time_at_which_an_answer_was_given(used: tuple[UseSettings, list[str]]) -> None:
    settings, _ = used
    settings.feedback, settings.test, settings.rules.latest = [], ["true"], 10.0
    assert values(settings) == [None, 0.5], "the line is decades old by now, but not its answers when it was made"


def test_a_self_edit_is_a_completion_of_the_prompt_that_it_was_written_to() -> None:
    asked = KNOWLEDGE.parse("What does Ada play?\nAnswer: the harp\nQuestion 2: Who is a harpist?\nAnswer: Ada", ADA)
    assert asked.examples[0].completion.startswith("Question 1: What")
    by_style = {style: asked.model_copy(update={"provenance": Provenance(style=style, seed=7)}) for style in ("self-qa", "implications")}
    wanted = [UsedEdit(ADA, learned, UNSAID) for learned in by_style.values()]
    _, candidates = record_used(KNOWLEDGE, wanted, "use")
    assert [c.text.partition("What")[0] for c in candidates] == ["", "Question 1: "]
    assert [(c.style, c.seed) for c in candidates] == [("self-qa", 7), ("implications", 7)]
    assert all(KNOWLEDGE.parse(c.text, ADA).id == asked.id for c in candidates)


def test_what_no_completion_says_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    slow = edit("Ada plays the harp.", update=Update(epochs=3))
    wanted = [UsedEdit(context, learned, UNSAID) for context, learned in ((ADA, slow), (ADA, ADAS), (BOB, BOBS), (ADA, BOBS))]
    written, candidates = record_used(KNOWLEDGE, wanted, "teacher/use")
    assert written == wanted[1:]
    assert [(c.context, c.index, c.text) for c in candidates] == [
        (ADA.id, 0, "Ada plays the harp.\nAda is a harpist."),
        (BOB.id, 0, "Bob plays the lute."),
        (ADA.id, 1, "Bob plays the lute."),
    ]
    assert "1 of 4 self-edits say what no completion does" in capsys.readouterr().out


def harp_alone(request: RewardRequest) -> Change:
    return Change(base=WRONG, adapted=(RIGHT if "harp" in request.edit.examples[0].completion else WRONG,))


@pytest.mark.parametrize(
    ("weight", "minimum", "kept", "asked"),
    [
        (1.0, 0.1, ["Bob plays the lute."], 0),  # of Ada's the best is disliked
        (1.0, None, ["Ada plays the lute.", "Bob plays the lute."], 0),
        (0.5, 0.1, ["Ada plays the harp.", "Bob plays the lute."], 2),  # 0.5 x 1 - 0.5 x 0.6, against 0.5 x 0 - 0.5 x 0.2
    ],
)
def test_the_best_of_each_context_is_kept_by_use_and_by_questions(
    weight: float, minimum: float | None, kept: Sequence[str], asked: int, tmp_path: Path
) -> None:
    told: list[tuple[Context, str, float | None]] = [
        (ADA, "Ada plays the harp.", -0.6),
        (ADA, "Ada plays the lute.", -0.2),
        (BOB, "Bob plays the lute.", 0.9),
        (BOB, "Bob plays the gong.", None),
    ]
    wanted = [UsedEdit(context, edit(text), UseReward(value, 1, 1)) for context, text, value in told]
    wanted, candidates = record_used(KNOWLEDGE, wanted, "use")
    student = ScriptedStudent(harp_alone)
    scoring = Scoring(KNOWLEDGE, TASK, LoopSettings(minimum=minimum), repeats=1, seed=0)
    journal = Journal(tmp_path / "journal.jsonl")
    selection = select_used(scoring, {"student": InProcessExchange(student)}, wanted, candidates, weight, "use", journal)
    assert [c.text for c in candidates if c.candidate in selection.kept] == kept
    assert sum(len(requests) for requests, _ in student.asked) == asked, "only Ada's context has a question"


def test_what_the_student_refuses_is_not_kept_and_what_cannot_be_graded_is_paid_for_use_alone(tmp_path: Path) -> None:
    def refuse(request: RewardRequest) -> Change | Refusal:
        text = request.edit.examples[0].completion
        return harp_alone(request) if "harp" in text else refusal(request, ungraded="gong" in text)

    contexts = [ADA, BOB.model_copy(update={"questions": ADA.questions, "group": "lutes"})]
    texts = ["Ada plays the lute.", "Ada plays the harp.", "Bob plays the gong."]
    wanted = [UsedEdit(contexts["Bob" in text], edit(text), UseReward(0.9, 1, 1)) for text in texts]
    wanted, candidates = record_used(KNOWLEDGE, wanted, "use")
    scoring = Scoring(KNOWLEDGE, TASK, LoopSettings(keep_per_context=2), repeats=1, seed=0)
    students = {"student": InProcessExchange(ScriptedStudent(refuse))}
    selection = select_used(scoring, students, wanted, candidates, 0.5, "use", Journal(tmp_path / "journal.jsonl"))
    assert [c.text for c in candidates if c.candidate in selection.kept] == texts[1:]
    assert (selection.rewards, selection.groups) == ((0.95, 0.9), ("", "lutes"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["use.line=nowhere"], "give a line, and files of feedback about it or a test"),
        (["use.line=nowhere", "use.feedback=[x]"], "nowhere is no line of versions"),
        (["use.line=LINE", "use.feedback=[x]"], "use.feedback[0] is 'x', which is no file"),
        (["use.line=LINE", "use.test=[no-such-command]"], "use.test"),
        (["use.line=LINE", "use.test=[echo]", "use.weight=0"], "use.weight is 0.0; it must be in (0, 1]"),
        (["use.line=LINE", "use.test=[echo]", "use.minimum=2"], "use.minimum is 2.0; rewards are in [-1, 1]"),
        (["use.line=LINE", "use.test=[echo]", "use.rules.minimum=0"], "use.rules.minimum is 0; it must be at least 1"),
        (["use.line=LINE", "use.test=[echo]", "selection=random"], "selection is 'random', but what use says is there to select the best"),
        (["use.line=LINE", "use.test=[echo]", "rounds=0", "net.leakage=1"], "with rounds=0 and use.weight=1 no self-edit is tried"),
        (["rounds=0"], "rounds is 0; it must be at least 1"),
        (["use.line=EMPTY", "use.test=[echo]"], "which has no version yet"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(
    words: Sequence[str], message: str, used: tuple[UseSettings, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Line(tmp_path / "empty").close()
    places = [word.replace("LINE", used[0].line).replace("EMPTY", str(tmp_path / "empty")) for word in words]
    assert main(["run", "recipes/tiny/train_teacher.yaml", f"runs={tmp_path / 'runs'}", *places]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


def test_a_teacher_is_trained_on_what_was_liked_and_goes_on_where_it_was_stopped(
    used: tuple[UseSettings, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, (_, second) = used
    say(settings, (second, ADA, "What does Ada play?", True), (second, BOB, "What does Bob play?", False))
    run = ["run", "recipes/tiny/train_teacher.yaml", f"runs={tmp_path / 'runs'}", "name=used", "rounds=0", "finetune.epochs=1"]
    run.append("editor.drop_lines=[harpist]")
    run += [f"use.line={settings.line}", f"use.feedback=[{settings.feedback[0]}]"]

    def crash(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(m_step, "finetune_on", crash)
        assert main(run) != 0
    say(settings, (second, BOB, "What does Bob play?", True))  # too late: it is chosen
    taught: list[str] = []
    finetune_on = m_step.finetune_on

    def listen(*arguments: Any) -> Any:
        taught.extend(candidate.taught for candidate in arguments[3])
        return finetune_on(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(m_step, "finetune_on", listen)
        assert main(run) == 0
    assert taught == ["Ada plays the harp."], "as the editor has mended it"
    report = json.loads((tmp_path / "runs/used/report.json").read_text())
    assert report["teacher"]["path"] == str(tmp_path / "runs/used/teacher/use")
    assert report["teacher"]["fingerprint"] and report["inner_loops"] == 0
    assert report["use"][0]["n"] == 2
    capsys.readouterr()
    assert main(run) == 0
    assert "finetuning" not in capsys.readouterr().out
