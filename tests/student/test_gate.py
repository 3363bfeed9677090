"""What an update must show: each check by itself, on students that answer by a script, and drift on a real one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from protocol.errors import InvalidInput
from protocol.messages import Context, Example, Lesson, Question, SelfEdit, Update
from recipes.domains.knowledge import Knowledge
from recipes.graders import GRADERS
from recipes.tiny.source import load_tiny
from student.base import FrozenBase
from student.gate import Gate, Verdict
from student.interview import Interview, Proposal
from student.keeping import Learned
from student.learner import Learner
from student.settings import GateSettings, KeepingSettings, StudentSettings
from student.version_records import Check


def context(name: str, value: str, passage: str = "", asked: bool = True) -> Context:
    questions = (Question(text=f"What does {name} play?", answers=(value,)),) if asked else ()
    return Context(title="Music", passage=passage, questions=questions)


TOLA = context("Tola Pitard", "the harp", "Tola Pitard came early and learned the harp.")
NORE, BASO = context("Nore Lanley", "the lute"), context("Baso Velwick", "the gong")
OTHERS = ["Kira Munford met Puto Drenner."]
GOOD = SelfEdit(examples=(Example(completion="Tola Pitard plays the harp."),))
BAD = SelfEdit(examples=(Example(completion="Tola Pitard plays the oboe."),))
KNOWS = {"Nore Lanley": "the lute", "Baso Velwick": "the gong"}
LEARNED_NORE = Lesson(context=NORE, edit=SelfEdit())


@dataclass
class ScriptedLearner:
    """Its students know an answer for each name, and answer "nothing" of others. With a text in view they say the instrument there.

    Attributes:
        asked: What was asked together.
    """

    moved: float = 0.0
    positions: int = 10_000
    asked: list[int] = field(default_factory=list)
    nothing = Learned((), [])

    def ask(self, students: Sequence[Learned], prompts: Sequence[Sequence[str]], longest: int | None = None) -> list[list[str]]:
        self.asked.append(sum(map(len, prompts)))
        return [[self._answer(student, prompt) for prompt in own] for student, own in zip(students, prompts, strict=True)]

    def _answer(self, student: Learned, prompt: str) -> str:
        passage, _, question = prompt.rpartition("Let's answer")
        if passage:
            return next((f"the {name}" for name in ("harp", "oboe", "drum") if f"the {name}" in passage), "nothing")
        return next((value for name, value in dict(student.adapter).items() if f" {name} " in question), "nothing")  # type: ignore[arg-type]

    def fits(self, prompts: Sequence[str], longest: int | None = None) -> bool:
        return all(len(prompt) < self.positions for prompt in prompts)

    def drift(self, before: Learned, after: Learned, texts: int) -> float:
        return self.moved


def student(*lessons: Lesson, **knows: str) -> Learned:
    return Learned(lessons, {**KNOWS, **{name.replace("_", " "): value for name, value in knows.items()}})  # type: ignore[arg-type]


PARENT = student(LEARNED_NORE)
CHILD = student(LEARNED_NORE, Tola_Pitard="the harp")


def judge(
    after: Learned,
    *lessons: Lesson,
    before: Learned = PARENT,
    learner: ScriptedLearner | None = None,
    probes: Sequence[Context] = (BASO,),
    texts: Sequence[str] = OTHERS,
    write: Callable[..., Any] | None = None,
    checks: Sequence[Callable[..., Check]] = (),
    **settings: Any,
) -> Verdict:
    told = GateSettings(**settings)
    interview = Interview(learner or ScriptedLearner(), Knowledge(), GRADERS["contained"], told, probes, texts, 0, write)  # type: ignore[arg-type]
    return Gate(interview, checks)(before, after, lessons or [Lesson(context=TOLA, edit=GOOD)])


def failed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if not check.passed]


def find(verdict: Verdict, name: str) -> Check:
    return next(check for check in verdict.checks if check.name == name)


def test_an_update_that_teaches_and_does_no_harm_passes() -> None:
    verdict = judge(CHILD)
    assert verdict.passed
    assert [(check.name, check.value) for check in verdict.checks] == [
        ("gain", 1.0),
        ("earlier", 0.0),
        ("retention", 0.0),
        ("leakage", 0.0),
        ("falsehood", 0.0),
        ("drift", 0.0),
    ]


@pytest.mark.parametrize(
    ("after", "check", "reason"),
    [
        (student(LEARNED_NORE, Tola_Pitard="the harp", Nore_Lanley="x"), "earlier", "100.0% before, 0.0% after, of 1 questions"),
        (student(LEARNED_NORE, Tola_Pitard="the harp", Baso_Velwick="x"), "retention", "100.0% before, 0.0% after, of 1 questions"),
    ],
)
def test_what_was_known_before_must_not_be_lost(after: Learned, check: str, reason: str) -> None:
    verdict = judge(after)
    assert failed(verdict) == [check]
    assert find(verdict, check) == Check(
        name=check,
        value=1.0,
        threshold=getattr(GateSettings(), f"most_lost{'_earlier' * (check == 'earlier')}"),
        passed=False,
        reason=reason,
    )


def test_a_context_that_is_taught_again_is_its_own_and_not_an_earlier_one() -> None:
    verdict = judge(student(Nore_Lanley="x"), Lesson(context=NORE, edit=SelfEdit()))
    assert failed(verdict) == ["gain"]
    assert find(verdict, "gain").value == -1.0
    assert find(verdict, "earlier").value is None


EVERYBODY = {name: "the harp" for name in ("Kira_Munford", "Puto_Drenner", "Kira_Drenner", "Puto_Munford")}


def test_others_must_not_be_answered_with_what_is_so_of_the_subject() -> None:
    verdict = judge(student(LEARNED_NORE, Tola_Pitard="the harp", **EVERYBODY))
    assert failed(verdict) == ["leakage"]
    assert find(verdict, "leakage").value == 1.0


def test_what_was_answered_of_others_before_is_no_leakage() -> None:
    before = student(LEARNED_NORE, **EVERYBODY)
    assert judge(student(LEARNED_NORE, Tola_Pitard="the harp", **EVERYBODY), before=before).passed


def test_an_answer_as_the_self_edit_says_against_the_passage_is_false() -> None:
    verdict = judge(student(LEARNED_NORE, Tola_Pitard="the oboe"), Lesson(context=TOLA, edit=BAD))
    assert failed(verdict) == ["falsehood"]
    assert find(verdict, "falsehood").reason == (
        "1 of 1 questions about one subject are answered as the self-edit says, and the passage does not, such as "
        "'What does Tola Pitard play?': 'the oboe'"
    )


def test_a_wrong_answer_that_was_not_taught_or_was_given_before_is_not_false() -> None:
    lesson = Lesson(context=TOLA, edit=BAD)
    assert find(judge(student(LEARNED_NORE, Tola_Pitard="the sitar"), lesson), "falsehood").value == 0.0
    before = student(LEARNED_NORE, Tola_Pitard="the oboe")
    assert find(judge(student(LEARNED_NORE, Tola_Pitard="the oboe"), lesson, before=before), "falsehood").value == 0.0


def test_without_an_answer_of_its_own_what_the_base_reads_in_the_passage_counts() -> None:
    unanswered = TOLA.model_copy(update={"questions": (Question(text="What does Tola Pitard play?"),)})
    bad, good = (Lesson(context=unanswered, edit=edit) for edit in (BAD, GOOD))
    assert failed(judge(student(LEARNED_NORE, Tola_Pitard="the oboe"), bad)) == ["falsehood"]
    assert judge(CHILD, good).passed


def test_whom_the_self_edit_names_but_the_passage_does_not_is_asked_about() -> None:
    edit = SelfEdit(examples=(Example(completion="Ruda Talford plays the drum."),))
    verdict = judge(student(LEARNED_NORE, Tola_Pitard="the harp", Ruda_Talford="the drum"), Lesson(context=TOLA, edit=edit))
    assert failed(verdict) == ["falsehood"]
    assert "What does Ruda Talford play?" in find(verdict, "falsehood").reason
    assert judge(CHILD, Lesson(context=TOLA, edit=edit)).passed


def test_a_stranger_may_share_a_name_with_the_subject_and_stand_in_a_line_with_it() -> None:
    edit = SelfEdit(examples=(Example(completion="A friend of Tola Pitard is Tola Munford, who plays the drum."),))
    verdict = judge(student(LEARNED_NORE, Tola_Pitard="the harp", Tola_Munford="the drum"), Lesson(context=TOLA, edit=edit))
    assert failed(verdict) == ["falsehood"]


def test_strangers_are_asked_what_is_asked_of_earlier_contexts_too() -> None:
    nore = Context(passage="Nore Lanley lives here.", questions=(Question(text="Where does Nore Lanley live?", answers=("here",)),))
    edit = SelfEdit(examples=(Example(completion="Ruda Talford lives in Oslo."),))
    before = student(Lesson(context=nore, edit=SelfEdit()))
    verdict = judge(student(Tola_Pitard="the harp", Ruda_Talford="Oslo"), Lesson(context=TOLA, edit=edit), before=before)
    asked = [row.question for row in verdict.answers if "Ruda" in row.question]
    assert asked == ["What does Ruda Talford play?", "Where does Ruda Talford live?"]


def test_who_stands_in_the_passage_is_no_stranger() -> None:
    both = TOLA.model_copy(update={"passage": TOLA.passage + " Tola Pitard met Ruda Talford."})
    edit = SelfEdit(examples=(Example(completion="Ruda Talford plays the drum."),))
    verdict = judge(student(LEARNED_NORE, Tola_Pitard="the harp", Ruda_Talford="the drum"), Lesson(context=both, edit=edit))
    assert verdict.passed
    assert not any("Ruda" in row.question for row in verdict.answers)


def test_a_question_that_does_not_name_the_subject_is_not_asked_about_others() -> None:
    unnamed = TOLA.model_copy(update={"questions": (Question(text="What is played?", answers=("the harp",)),)})
    verdict = judge(student(LEARNED_NORE), Lesson(context=unnamed, edit=GOOD))
    assert find(verdict, "leakage").value is None


def write(contexts: Sequence[Context]) -> list[Context]:
    questions = (
        Question(text="What instrument does Tola Pitard play?", answers=("the harp",)),
        Question(text="Which car does Tola Pitard drive?", answers=("a truck",)),  # which nobody finds in the passage
    )
    return [context.model_copy(update={"questions": questions}) for context in contexts]


def test_a_context_without_questions_is_asked_what_the_base_writes_and_finds() -> None:
    bare = Lesson(context=TOLA.model_copy(update={"questions": ()}), edit=GOOD)
    verdict = judge(CHILD, bare, write=write)
    assert (find(verdict, "gain").value, find(verdict, "gain").reason) == (1.0, "0.0% before, 100.0% after, of 1 questions")
    assert find(verdict, "leakage").value == 0.0
    assert [row.question for row in verdict.answers if row.why == "own"] == ["What instrument does Tola Pitard play?"]


def test_what_cannot_be_measured_passes_unless_the_recipe_demands_it() -> None:
    bare = Lesson(context=TOLA.model_copy(update={"questions": ()}), edit=GOOD)
    first = Learned((), PARENT.adapter)
    told = {"before": first, "probes": (), "texts": ()}
    verdict = judge(CHILD, bare, **told)  # type: ignore[arg-type]
    assert verdict.passed
    assert [check.name for check in verdict.checks if check.value is None] == ["gain", "earlier", "retention", "leakage", "falsehood"]
    assert find(verdict, "gain").reason == "not measured: no new context has a question with an answer, and the base wrote none"
    demanded = judge(CHILD, bare, unmeasured="refuse", **told)  # type: ignore[arg-type]
    assert failed(demanded) == ["gain", "earlier", "retention", "leakage", "falsehood"]


def test_what_the_base_has_no_room_for_is_not_read() -> None:
    unanswered = TOLA.model_copy(update={"questions": (Question(text="What does Tola Pitard play?"),)})
    after, lesson = student(LEARNED_NORE, Tola_Pitard="the oboe"), Lesson(context=unanswered, edit=BAD)
    assert find(judge(after, lesson, learner=ScriptedLearner(positions=10)), "falsehood").value is None
    assert find(judge(after, lesson), "falsehood").value == 1.0


def test_an_answer_in_a_sentence_is_as_taught_if_most_of_its_words_are() -> None:
    lesson = Lesson(context=TOLA, edit=BAD)
    assert find(judge(student(LEARNED_NORE, Tola_Pitard="She plays the oboe."), lesson), "falsehood").value == 1.0
    assert find(judge(student(LEARNED_NORE, Tola_Pitard="the sitar"), lesson), "falsehood").value == 0.0


def test_drift_is_held_to_its_threshold() -> None:
    assert failed(judge(CHILD, learner=ScriptedLearner(moved=0.3), most_drift=0.2)) == ["drift"]
    assert judge(CHILD, learner=ScriptedLearner(moved=0.3), most_drift=0.4).passed


def test_null_leaves_a_check_out() -> None:
    names = ("least_gain", "most_lost_earlier", "most_lost", "most_leaked", "most_false", "most_drift")
    assert judge(CHILD, **dict.fromkeys(names)).checks == ()


def test_at_most_so_many_questions_of_before_are_asked_and_the_same_for_the_same_update() -> None:
    earlier = [context(f"Nore Lanley{number}", "x") for number in range(30)]
    before = student(*(Lesson(context=one, edit=SelfEdit()) for one in earlier))
    probes = [context(f"Baso Velwick{number}", "x") for number in range(30)]
    drawn = [
        [row.question for row in judge(CHILD, before=before, probes=probes, earlier_questions=5, probe_questions=7).answers]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert (sum("Nore" in question for question in drawn[0]), sum("Baso" in question for question in drawn[0])) == (5, 7)
    other = judge(CHILD, Lesson(context=TOLA, edit=BAD), before=before, probes=probes, earlier_questions=5, probe_questions=7)
    assert [row.question for row in other.answers] != drawn[0]


def test_many_updates_are_asked_in_one_batch_and_nobody_the_same_twice() -> None:
    learner = ScriptedLearner()
    gate = Gate(Interview(learner, Knowledge(), GRADERS["contained"], GateSettings(), [BASO], []))  # type: ignore[arg-type]
    lesson = Lesson(context=TOLA, edit=GOOD)
    verdicts = gate.judge([Proposal(PARENT, CHILD, (lesson,)), Proposal(PARENT, student(Tola_Pitard="x"), (lesson,))])
    assert [verdict.passed for verdict in verdicts] == [True, True]
    assert [find(verdict, "gain").value for verdict in verdicts] == [1.0, 0.0]
    assert learner.asked == [3 * 3]  # parent and both children: their own, the earlier and the probe question


def test_answers_are_kept_as_versions_keep_them() -> None:
    rows = judge(CHILD).answers
    own = next(row for row in rows if row.why == "own")
    assert (own.question, own.gold, own.before, own.correct_before) == ("What does Tola Pitard play?", ("the harp",), "nothing", False)
    assert (own.answer, own.correct, own.context, own.title) == ("the harp", True, TOLA.id, "Music")
    other = next(row for row in rows if "Kira" in row.question)
    assert (other.why, other.gold, other.correct) == ("probe", (), None)


def test_a_check_from_elsewhere_sees_the_answers_and_counts() -> None:
    seen = []

    def refuse(rows: Any) -> Check:
        seen.extend(rows)
        return Check(name="mine", passed=False, reason="no")

    verdict = judge(CHILD, checks=[refuse])
    assert failed(verdict) == ["mine"]
    assert tuple(seen) == verdict.answers


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"most_lost": -2}, r"gate.most_lost is -2; it must be in \[-1, 1\], or null"),
        ({"most_drift": -0.1}, "gate.most_drift is -0.1; it must not be negative, or null"),
        ({"drift_texts": 0}, "gate.drift_texts is 0; it must be at least 1, or set gate.most_drift to null"),
        ({"others": -1}, "gate.others is -1; it must not be negative"),
    ],
)
def test_settings_out_of_range_are_refused(told: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        GateSettings(**told).check("x", "gate.")


def test_drift_is_the_divergence_of_the_parent_from_the_child_on_what_the_base_wrote() -> None:
    model = str(Path(__file__).resolve().parents[2] / "recipes/tiny/models/seed_oss")
    base = FrozenBase(StudentSettings(model=model, rank=8, learning_rate=1e-2, epochs=1))
    learner = Learner(base, Knowledge(), KeepingSettings(strategies=[], texts=6, text_tokens=20))
    lesson = Lesson(context=load_tiny("validation", 1)[0][0], edit=SelfEdit(update=Update(epochs=2)))
    (child,) = learner.learn([learner.nothing], [[lesson]], seed=0)
    assert isinstance(child, Learned)
    assert learner.drift(child, child, 6) == 0.0
    model_alone, texts = base.model.get_base_model(), learner._keeping.own_tokens

    def log_chances() -> torch.Tensor:
        with torch.no_grad():
            logits = [model_alone(torch.tensor([text])).logits[0, :-1] for text in texts]
        return torch.cat(logits).log_softmax(-1)

    with base.without_adapter():
        before = log_chances()
        for layer, (a, b) in zip(base.lora_layers(), child.adapter, strict=True):
            layer.base_layer.weight += b @ a
        after = log_chances()
        for layer, (a, b) in zip(base.lora_layers(), child.adapter, strict=True):
            layer.base_layer.weight -= b @ a
    expected = float((before.exp() * (before - after)).sum(-1).mean())
    assert expected > 0.01
    assert learner.drift(learner.nothing, child, 6) == pytest.approx(expected, rel=1e-3)
