"""A student that learns on keeps what it knew, several do so without touching each other, and what they know is an ordinary adapter."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from protocol.errors import InnerLoopFailed, InvalidInput
from protocol.messages import Context, Example, Lesson, SelfEdit, Update
from recipes.domains.knowledge import Knowledge
from recipes.tiny import world
from recipes.tiny.source import load_tiny
from student.answers import answer
from student.base import FrozenBase
from student.keeping import Learned
from student.learner import Learner, save
from student.settings import KeepingSettings, StudentSettings

SETTINGS = StudentSettings(
    model=str(Path(__file__).resolve().parents[2] / "recipes/tiny/models/seed_oss"),
    rank=8,
    alpha=16,
    learning_rate=1e-2,
    epochs=8,
    batch_size=8,
    answer_batch=64,
)
FEW = {"texts": 64, "text_tokens": 24, "others": 2, "kept_others": 4}
MERGE = KeepingSettings(strategies=[], **FEW)
KEEP = KeepingSettings(strategies=["constrain", "replay", "consolidate"], epochs=24, consolidate_every=2, **FEW)


def lessons(count: int) -> list[Lesson]:
    stories = world.stories("validation", count, 0)
    contexts = load_tiny("validation", count)[0]
    edits = ["\n".join(world.questions(random.Random(0), story)) for story in stories]
    return [Lesson(context=c, edit=Knowledge().parse(edit, c)) for c, edit in zip(contexts, edits, strict=True)]


@pytest.fixture(scope="module")
def base() -> FrozenBase:
    return FrozenBase(SETTINGS)


def accuracy(learner: Learner, student: Learned, contexts: Sequence[Context]) -> float:
    """On contexts whose every question has one answer."""
    prompts = [prompt for context in contexts for prompt in Knowledge().ask(context)]
    golds = [question.answers[0] for context in contexts for question in context.questions]
    (answers,) = learner.ask([student], [prompts])
    return sum(given.strip() == gold for given, gold in zip(answers, golds, strict=True)) / len(golds)


def learn(learner: Learner, taught: Sequence[Lesson]) -> list[Learned]:
    """What a student knows at first, and after each lesson."""
    students = [learner.nothing]
    for number, lesson in enumerate(taught):
        (result,) = learner.learn(students[-1:], [[lesson]], seed=number)
        assert isinstance(result, Learned)
        students.append(result)
    return students


@pytest.fixture(scope="module")
def merging(base: FrozenBase) -> Learner:
    return Learner(base, Knowledge(), MERGE)


@pytest.fixture(scope="module")
def keeping(base: FrozenBase) -> Learner:
    return Learner(base, Knowledge(), KEEP)


@pytest.fixture(scope="module")
def careful(keeping: Learner) -> list[Learned]:
    """A student that keeps what it knew, after each of three lessons."""
    return learn(keeping, lessons(3))


def test_a_student_that_keeps_knows_what_a_merging_one_has_forgotten(merging: Learner, keeping: Learner, careful: list[Learned]) -> None:
    taught = lessons(3)
    known = load_tiny("population-tuning", 8)[0]
    forgetful = learn(merging, taught)[-1]
    assert accuracy(keeping, careful[-1], [lesson.context for lesson in taught]) > 0.9
    assert accuracy(keeping, careful[-1], known) > accuracy(merging, forgetful, known) + 0.3
    assert careful[-1].lessons == tuple(taught)


def test_what_is_learned_grows_until_it_is_consolidated(careful: list[Learned]) -> None:
    assert [student.adapter[0][0].shape[0] for student in careful] == [0, 8, KEEP.consolidate_rank, KEEP.consolidate_rank + 8]


def test_students_side_by_side_do_not_touch_each_other(keeping: Learner) -> None:
    first, second = lessons(2)
    # One cannot learn: its edit asks for more than the student allows.
    wild = first.model_copy(update={"edit": SelfEdit(update=Update(rank=SETTINGS.max_rank + 1))})
    together = keeping.learn([keeping.nothing] * 3, [[first], [wild], [second]], seed=5)
    (alone,) = keeping.learn([keeping.nothing], [[second]], seed=5)
    assert isinstance(together[1], InnerLoopFailed) and "max_rank" in str(together[1])
    assert isinstance(together[2], Learned) and isinstance(alone, Learned)
    for (a, b), (own_a, own_b) in zip(together[2].adapter, alone.adapter, strict=True):
        assert (b @ a).allclose(own_b @ own_a, atol=1e-4)


def test_lessons_of_one_update_are_learned_together_and_must_ask_for_the_same(merging: Learner) -> None:
    taught = lessons(2)
    (student,) = merging.learn([merging.nothing], [taught], seed=1)
    assert isinstance(student, Learned)
    assert accuracy(merging, student, [lesson.context for lesson in taught]) > 0.7
    other = taught[1].model_copy(update={"edit": taught[1].edit.model_copy(update={"update": Update(epochs=2)})})
    (refused,) = merging.learn([merging.nothing], [[taught[0], other]], seed=1)
    assert isinstance(refused, InnerLoopFailed) and "different updates" in str(refused)


def test_what_is_learned_is_saved_as_a_peft_folder_that_answers_alike(
    base: FrozenBase, keeping: Learner, careful: list[Learned], tmp_path: Path
) -> None:
    prompts = [prompt for lesson in lessons(3) for prompt in Knowledge().ask(lesson.context)]
    (answers,) = keeping.ask(careful[-1:], [prompts])
    save(base, careful[-1], tmp_path / "saved")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(SETTINGS.model), tmp_path / "saved")
    model.eval()
    assert answer(model, base.tokenizer, prompts, Knowledge.answer_tokens, 64) == answers


def test_a_context_without_a_subject_is_learned_all_the_same(keeping: Learner) -> None:
    unnamed = Lesson(context=Context(passage="it rains in the old town."), edit=SelfEdit(examples=(Example(completion="it rains."),)))
    (student,) = keeping.learn([keeping.nothing], [[unnamed]], seed=0)
    assert isinstance(student, Learned)


def test_a_student_that_cannot_train_in_cohorts_is_refused() -> None:
    single = FrozenBase(StudentSettings(model=SETTINGS.model, dropout=0.1))
    with pytest.raises(InvalidInput, match="in cohorts, but with dropout"):
        Learner(single, Knowledge(), KEEP)
