import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from protocol.messages import (
    AskRequest,
    Change,
    CommitRequest,
    Context,
    Example,
    Lesson,
    Message,
    Outcome,
    Passage,
    Provenance,
    Question,
    Refusal,
    RewardRequest,
    SelfEdit,
    Task,
    Update,
)

TASK = Task(domain="knowledge", domain_version=1, grader="exact_match", grader_version=1)
CONTEXT = Context(title="Ada", passage="Ada plays the harp.", questions=(Question(text="What does Ada play?", answers=("harp",)),))


def outcome(correct: bool | None) -> Outcome:
    return Outcome(answer="x", correct=correct)


def test_messages_are_frozen() -> None:
    with pytest.raises(ValidationError):
        CONTEXT.title = "Bob"  # type: ignore[misc]


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        SelfEdit.model_validate({"examples": [], "run": "rm -rf /"})


@pytest.mark.parametrize(
    "update",
    [{"learning_rate": 0}, {"learning_rate": 2}, {"learning_rate": float("nan")}, {"epochs": 0}, {"rank": 10**9}, {"loss_on": "tests"}],
)
def test_updates_out_of_bounds_are_refused(update: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Update.model_validate(update)


def test_too_many_examples_are_refused() -> None:
    with pytest.raises(ValidationError, match="at most 1024"):
        SelfEdit(examples=(Example(completion="x"),) * 1025)


def test_a_huge_example_is_refused() -> None:
    with pytest.raises(ValidationError, match="200000"):
        Example(completion="x" * 200_001)


def test_another_protocol_version_is_refused() -> None:
    request = RewardRequest(task=TASK, context=CONTEXT, edit=SelfEdit(), seeds=(1,)).model_dump()
    with pytest.raises(ValidationError):
        RewardRequest.model_validate({**request, "version": 2})


def test_equal_content_has_an_equal_id() -> None:
    assert CONTEXT.id == Context.model_validate_json(CONTEXT.model_dump_json()).id
    assert CONTEXT.id != CONTEXT.model_copy(update={"title": "Bob"}).id
    assert len(CONTEXT.id) == 32


def test_provenance_is_no_part_of_an_edits_identity() -> None:
    edit = SelfEdit(examples=(Example(completion="Ada plays the harp."),))
    told = edit.model_copy(update={"provenance": Provenance(teacher="t", style="s", seed=3)})
    assert edit.id == told.id
    one, other = (RewardRequest(task=TASK, context=CONTEXT, edit=e, seeds=(1,)) for e in (edit, told))
    assert one.id == other.id


@pytest.mark.parametrize("group", ["", "people"])
def test_a_contexts_group_is_no_part_of_any_identity(group: str) -> None:
    context = CONTEXT.model_copy(update={"group": group})
    about: list[Message] = [
        context,
        RewardRequest(task=TASK, context=context, edit=SelfEdit(), seeds=(1,), probes=(context,)),
        AskRequest(task=TASK, context=context),
        CommitRequest(task=TASK, lessons=(Lesson(context=context, edit=SelfEdit()),), seed=1),
    ]
    assert [message.id for message in about] == [
        "ac47ba046df763db9752f46409fc5e83",
        "a58fb1adcef8b46bc182f8253576f2dc",
        "b0ad14c6db638682a30636238a29260a",
        "ec92d25203d27c7ee234bf69c359de6e",
    ]
    assert Context.model_validate_json(context.model_dump_json()).group == group


def test_what_was_looked_up_for_a_question_is_part_of_every_identity_but_that_of_the_unaided_context() -> None:
    found = (Passage(title="Bob", text="Bob plays the lute."),)
    context = CONTEXT.model_copy(update={"questions": (CONTEXT.questions[0].model_copy(update={"found": found}),)})
    aided, plain = (
        [
            about,
            AskRequest(task=TASK, context=about),
            RewardRequest(task=TASK, context=about, edit=SelfEdit(), seeds=(1,)),
            CommitRequest(task=TASK, lessons=(Lesson(context=about, edit=SelfEdit()),), seed=1),
        ]
        for about in (context, CONTEXT)
    )
    assert len({message.id for message in (*aided, *plain)}) == 8
    assert context.unaided == CONTEXT
    assert Context.model_validate_json(context.model_dump_json()) == context


def test_a_question_for_which_nothing_was_looked_up_is_sent_without_the_field() -> None:
    assert CONTEXT.questions[0].model_dump() == {"text": "What does Ada play?", "answers": ("harp",)}
    with pytest.raises(ValidationError, match="at most 64"):
        Question(text="?", found=(Passage(text="x"),) * 65)


def test_gained_and_lost_answers_are_counted_over_all_repeats() -> None:
    change = Change(
        base=(outcome(True), outcome(False), outcome(None)),
        adapted=((outcome(False), outcome(True), outcome(None)), (outcome(True), outcome(True), outcome(None))),
    )
    assert (change.gained, change.lost) == (2, 1)
    assert change.base_accuracy == 0.5
    assert change.adapted_accuracy == 0.75


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=50), max_size=5), st.dictionaries(st.text(min_size=1, max_size=20), st.booleans(), max_size=3))
def test_any_edit_survives_json(lines: list[str], directives: dict[str, bool]) -> None:
    try:
        edit = SelfEdit(examples=tuple(Example(completion=line) for line in lines), directives=directives)
    except ValidationError:
        return  # pydantic refuses lone surrogates
    again = SelfEdit.model_validate_json(edit.model_dump_json())
    assert again == edit
    assert again.id == edit.id


def test_a_long_reason_is_cut() -> None:
    """It may quote what a stranger has sent."""
    refusal = Refusal(key="0" * 32, request="1" * 32, reason="x" * 20_000)
    assert (len(refusal.reason), refusal.reason[-1]) == (2000, "…")
    assert Refusal.model_validate_json(refusal.model_dump_json()) == refusal
