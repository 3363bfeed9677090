import pytest
import torch

from protocol.errors import InnerLoopFailed
from protocol.messages import Example, Update
from student.base import FrozenBase
from student.inner_loop import encode, make_plan, train_adapter
from student.settings import StudentSettings

EXAMPLES = [Example(completion="Ada plays the harp."), Example(prompt="Who plays? ", completion="Ada")]


@pytest.fixture(scope="module")
def base(llama: str) -> FrozenBase:
    return FrozenBase(StudentSettings(model=llama, rank=4, alpha=8, learning_rate=1e-2, epochs=3, batch_size=2, max_steps=50, max_rank=16))


def plan(base: FrozenBase, **update: object):  # type: ignore[no-untyped-def]
    return make_plan(Update.model_validate(update), base.settings)


def adapter(base: FrozenBase) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for n, p in base.model.named_parameters() if "lora_" in n])


def test_labels_cover_all_or_only_the_completion_and_the_end_of_text(base: FrozenBase) -> None:
    prompt, completion = (base.tokenizer(text).input_ids for text in ("Who plays? ", "Ada"))
    end = base.tokenizer.eos_token_id
    (row,) = encode(EXAMPLES[1:], base.tokenizer, "completion")
    assert row["input_ids"] == [*prompt, *completion, end]
    assert row["labels"] == [-100] * len(prompt) + [*completion, end]
    assert encode(EXAMPLES[1:], base.tokenizer, "all")[0]["labels"] == row["input_ids"]


def test_an_update_goes_before_the_students_settings(base: FrozenBase) -> None:
    completed = plan(base, epochs=7, rank=2)
    assert (completed.epochs, completed.rank, completed.learning_rate, completed.batch_size) == (7, 2, 1e-2, 2)


def test_training_is_repeatable_and_its_seed_decides(base: FrozenBase) -> None:
    trained = {}
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        train_adapter(base, EXAMPLES, plan(base), seed)
        trained[name] = adapter(base)
    assert torch.equal(trained["first"], trained["again"])
    assert not torch.equal(trained["first"], trained["other"])


def test_candidates_start_from_the_same_weights(base: FrozenBase) -> None:
    base.reset_adapter(4, seed=5)
    start = adapter(base)
    train_adapter(base, EXAMPLES, plan(base), seed=5)
    assert not torch.equal(adapter(base), start)
    base.reset_adapter(4, seed=5)
    assert torch.equal(adapter(base), start)


def test_the_base_stays_frozen_and_unwrapped_after_many_inner_loops(base: FrozenBase) -> None:
    frozen = {n: p.detach().clone() for n, p in base.model.named_parameters() if "lora_" not in n}
    for seed in range(3):
        train_adapter(base, EXAMPLES, plan(base), seed)
    for name, parameter in base.model.named_parameters():
        if "lora_" not in name:
            assert torch.equal(parameter, frozen[name]), name
    assert "forward" not in base.model.get_base_model().__dict__


def test_rank_may_differ_from_edit_to_edit(base: FrozenBase) -> None:
    sizes = []
    for rank in (2, 8, 4):
        train_adapter(base, EXAMPLES, plan(base, rank=rank), seed=1)
        sizes.append(adapter(base).numel())
    assert sizes[1] == 4 * sizes[0] == 2 * sizes[2]


def test_trained_tokens_are_those_in_the_loss(base: FrozenBase) -> None:
    lengths = [len(base.tokenizer(e.prompt + e.completion).input_ids) for e in EXAMPLES]
    assert train_adapter(base, EXAMPLES, plan(base, epochs=2), seed=1) == 2 * sum(lengths)
    assert train_adapter(base, EXAMPLES[1:], plan(base, epochs=2, loss_on="completion"), seed=1) == 2 * (len("Ada") + 1)


def test_training_lowers_the_loss(base: FrozenBase) -> None:
    (row,) = encode(EXAMPLES[:1], base.tokenizer, "all")
    ids = torch.tensor([row["input_ids"]])
    train_adapter(base, EXAMPLES[:1], plan(base, epochs=30), seed=1)
    with torch.no_grad():
        after = base.model(input_ids=ids, labels=ids).loss.item()
        with base.without_adapter() as model:
            before = model(input_ids=ids, labels=ids).loss.item()
    assert after < before - 0.3


@pytest.mark.parametrize(
    ("examples", "update", "message"),
    [
        (EXAMPLES, {"rank": 17}, r"update\.rank is 17, but this student allows 1 to 16"),
        (EXAMPLES, {"epochs": 51}, r"51 training steps, but this student allows 50"),
        ([Example(completion="x")] * 257, {}, r"257 examples, but this student allows 256"),
        ([Example(completion="x" * 3000)], {}, r"3001 tokens in the longest example, but this student allows 2048"),
        ([], {}, "nothing to train on"),
    ],
)
def test_what_an_edit_may_not_ask_for(base: FrozenBase, examples: list[Example], update: dict[str, object], message: str) -> None:
    with pytest.raises(InnerLoopFailed, match=message):
        train_adapter(base, examples, plan(base, **update), seed=1)


def test_a_diverging_update_is_an_error_and_leaves_no_trace(base: FrozenBase) -> None:
    train_adapter(base, EXAMPLES, plan(base), seed=1)
    healthy = adapter(base)
    base.model.get_base_model().lm_head.weight.data.mul_(float("inf"))
    try:
        with pytest.raises(InnerLoopFailed, match="training diverged"):
            train_adapter(base, EXAMPLES, plan(base), seed=1)
    finally:
        fresh = FrozenBase(base.settings)
        base.model, base.fingerprint = fresh.model, fresh.fingerprint
    train_adapter(base, EXAMPLES, plan(base), seed=1)
    assert torch.equal(adapter(base), healthy)
