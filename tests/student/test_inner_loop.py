from dataclasses import replace

import pytest
import torch
from transformers import get_scheduler

from protocol.errors import InnerLoopFailed
from protocol.messages import Example, Update
from student.base import FrozenBase
from student.inner_loop import InnerLoop, Row, check_prompts, encode, make_plan, prepare
from student.settings import StudentSettings

EXAMPLES = [Example(completion="Ada plays the harp."), Example(prompt="Who plays? ", completion="Ada")]


@pytest.fixture(scope="module")
def base(llama: str) -> FrozenBase:
    return FrozenBase(StudentSettings(model=llama, rank=4, alpha=8, learning_rate=1e-2, epochs=3, batch_size=2, max_steps=50, max_rank=16))


def loop(base: FrozenBase, examples: list[Example] = EXAMPLES, **update: object) -> InnerLoop:
    return prepare(base, examples, make_plan(Update.model_validate(update), base.settings), seed=1)


def test_labels_cover_all_or_only_the_completion_and_the_end_of_text(base: FrozenBase) -> None:
    prompt, completion = (base.tokenizer(text).input_ids for text in ("Who plays? ", "Ada"))
    end = base.tokenizer.eos_token_id
    (row,) = encode(EXAMPLES[1:], base.tokenizer, "completion")
    assert row.input_ids == [*prompt, *completion, end]
    assert row.labels == [-100] * len(prompt) + [*completion, end]
    assert encode(EXAMPLES[1:], base.tokenizer, "all")[0].labels == row.input_ids


def test_in_chat_a_prompt_is_a_users_message_and_an_example_without_one_stays_plain(chatting: str) -> None:
    base = FrozenBase(StudentSettings(model=chatting, rank=4, chat=True))
    plain, chat = encode(EXAMPLES, base.tokenizer, "completion", chat=True)
    assert base.tokenizer.decode(plain.input_ids) == "<s>Ada plays the harp.</s>"
    assert base.tokenizer.decode(chat.input_ids) == "<s>26 Jul 2024\n[user] Who plays?\n[assistant] Ada</s>"
    assert chat.labels == [-100] * (len(chat.input_ids) - 4) + chat.input_ids[-4:]
    assert loop(base, loss_on="completion").rows == (plain, chat)


def test_a_question_in_chat_needs_positions_for_the_template_too(chatting: str) -> None:
    bases = [FrozenBase(StudentSettings(model=chatting, rank=4, chat=chat)) for chat in (False, True)]
    frame = len("26 Jul 2024\n[user] \n[assistant] ")
    for base, room in zip(bases, (4095, 4095 - frame), strict=True):
        check_prompts(base, ["x" * (room - 8)], 8)
        with pytest.raises(InnerLoopFailed, match="take 4097 tokens, but the student has 4096 positions"):
            check_prompts(base, ["x" * (room - 7)], 8)


def test_an_update_goes_before_the_students_settings(base: FrozenBase) -> None:
    plan = loop(base, epochs=7, rank=2).plan
    assert (plan.epochs, plan.rank, plan.learning_rate, plan.batch_size, plan.schedule) == (7, 2, 1e-2, 2, "linear")


def test_trained_tokens_are_those_in_the_loss(base: FrozenBase) -> None:
    lengths = [len(base.tokenizer(e.prompt + e.completion).input_ids) for e in EXAMPLES]
    assert loop(base, epochs=2).trained_tokens == 2 * sum(lengths)
    assert loop(base, EXAMPLES[1:], epochs=2, loss_on="completion").trained_tokens == 2 * (len("Ada") + 1)


def test_every_epoch_takes_every_row_once_in_an_order_of_its_own(base: FrozenBase) -> None:
    examples = [Example(completion=word) for word in ("one", "two", "three", "four", "five")]
    batches = loop(base, examples, epochs=3, batch_size=2).batches
    assert [len(batch) for batch in batches] == [2, 2, 1] * 3
    rows = encode(examples, base.tokenizer, "all")
    orders = [[rows.index(row) for batch in batches[start : start + 3] for row in batch] for start in (0, 3, 6)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("warmup_steps", [0, 1, 2, 5, 11])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_learning_rates_follow_the_schedulers_of_transformers(base: FrozenBase, schedule: str, warmup_steps: int) -> None:
    trained = loop(base, epochs=5)
    trained = replace(trained, plan=replace(trained.plan, schedule=schedule, warmup_steps=warmup_steps))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=trained.plan.learning_rate)
    scheduler = get_scheduler("constant_with_warmup" if schedule == "constant" else schedule, optimizer, warmup_steps, trained.steps)
    for step in range(trained.steps):
        assert trained.learning_rate(step) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("schedule", "warmup_steps", "expected"),
    [
        ("linear", 0, [0.01, 0.0075, 0.005, 0.0025]),
        ("linear", 2, [0, 0.005, 0.01, 0.005]),
        ("cosine", 2, [0, 0.005, 0.01, 0.005]),
        ("cosine", 1, [0, 0.01, 0.0075, 0.0025]),
        ("constant", 2, [0, 0.005, 0.01, 0.01]),
        ("cosine", 10, [0, 0.001, 0.002, 0.003]),
    ],
)
def test_a_warm_up_rises_from_zero_and_need_not_end(base: FrozenBase, schedule: str, warmup_steps: int, expected: list[float]) -> None:
    settings = replace(base.settings, schedule=schedule, warmup_steps=warmup_steps)  # type: ignore[arg-type]
    trained = prepare(base, EXAMPLES, make_plan(Update(epochs=4), settings), seed=1)
    assert [trained.learning_rate(step) for step in range(trained.steps)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("examples", "update", "message"),
    [
        (EXAMPLES, {"rank": 17}, r"update\.rank is 17, but this student allows 1 to 16"),
        (EXAMPLES, {"epochs": 51}, r"51 training steps, but this student allows 50"),
        ([Example(completion="x")] * 257, {}, r"257 examples, but this student allows 256"),
        ([Example(completion="x" * 3000)], {}, r"3001 tokens in the longest example, but this student allows 2048; raise student"),
        (
            [Example(completion="x" * 999)] * 40,
            {"batch_size": 40},
            r"40000 tokens in the largest step, but this student allows 32768; lower",
        ),
        ([], {}, "nothing to train on"),
        ([Example(completion="")] * 3, {}, "nothing to train on: no example has a token to learn"),
    ],
)
def test_what_an_edit_may_not_ask_for(base: FrozenBase, examples: list[Example], update: dict[str, object], message: str) -> None:
    with pytest.raises(InnerLoopFailed, match=message):
        loop(base, examples, **update)


def test_an_example_with_nothing_to_learn_is_left_out(base: FrozenBase) -> None:
    assert len(loop(base, [Example(completion=""), *EXAMPLES]).rows) == 2


def test_long_examples_are_cut_and_counted_where_the_student_says_so(llama: str) -> None:
    base = FrozenBase(StudentSettings(model=llama, rank=4, long_examples="truncate", max_example_tokens=10))
    cut = loop(base, [Example(completion="x" * 3000), Example(completion="short"), Example(prompt="y" * 20, completion="z")])
    assert [len(row.input_ids) for row in cut.rows] == [10, 6, 10]
    assert cut.truncated == 2
    with pytest.raises(InnerLoopFailed, match="nothing to train on"):  # what is left of it is all prompt
        loop(base, [Example(prompt="y" * 20, completion="z")], loss_on="completion")


def test_long_examples_are_left_out_and_counted_where_the_student_says_so(llama: str) -> None:
    base = FrozenBase(StudentSettings(model=llama, rank=4, long_examples="drop", max_example_tokens=10, max_examples=2))
    short, exact, long = Example(completion="short"), Example(prompt="1234", completion="56789"), Example(completion="x" * 10)
    kept = loop(base, [long, short, exact, long])
    assert [len(row.input_ids) for row in kept.rows] == [6, 10]
    assert kept.truncated == 2
    assert kept.trained_tokens == 10 * (5 + 9)
    with pytest.raises(
        InnerLoopFailed, match=r"nothing to train on: examples over 10 tokens are left out \(2 of them\), .*; raise student"
    ):
        loop(base, [long, Example(completion=""), long])
    with pytest.raises(InnerLoopFailed, match="nothing to train on: no example has a token to learn"):
        loop(base, [Example(completion="")])


def test_a_sequence_longer_than_the_models_context_is_refused(base: FrozenBase) -> None:
    base = FrozenBase(replace(base.settings, max_example_tokens=10_000))
    with pytest.raises(
        InnerLoopFailed, match="4097 tokens in the longest example, but this student allows 4096; its model has no more positions"
    ):
        loop(base, [Example(completion="x" * 4096)])


def test_a_row_counts_its_labels_but_the_first() -> None:
    assert Row([5, 6, 7], [5, 6, 7]).tokens_in_loss == 2
    assert Row([5, 6, 7], [-100, -100, 7]).tokens_in_loss == 1
