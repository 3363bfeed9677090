import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trl import SFTTrainer

from protocol.errors import InnerLoopFailed
from protocol.messages import Example, Update
from student.base import FrozenBase
from student.cohort import Cohort
from student.inner_loop import Adapted, Engine, InnerLoop, make_plan, prepare
from student.settings import StudentSettings
from student.single import PaddedAsPublished, Single

EXAMPLES = [Example(completion="Ada plays the harp."), Example(prompt="Who plays? ", completion="Ada")]


@pytest.fixture(scope="module")
def base(llama: str) -> FrozenBase:
    return FrozenBase(StudentSettings(model=llama, rank=4, alpha=8, learning_rate=1e-2, epochs=3, batch_size=2))


def make_loop(base: FrozenBase, seed: int = 1, examples: list[Example] = EXAMPLES, **update: object) -> InnerLoop:
    return prepare(base, examples, make_plan(Update.model_validate(update), base.settings), seed)


def adapter(base: FrozenBase) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for n, p in base.model.named_parameters() if "lora_" in n])


def train(base: FrozenBase, loop: InnerLoop) -> torch.Tensor:
    Single(base).learn(loop)
    return adapter(base)


def test_training_is_repeatable_and_its_seed_decides(base: FrozenBase) -> None:
    first, again, other = (train(base, make_loop(base, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_candidates_start_from_the_same_weights(base: FrozenBase) -> None:
    base.reset_adapter(4, seed=5)
    start = adapter(base)
    assert not torch.equal(train(base, make_loop(base, seed=5)), start)
    base.reset_adapter(4, seed=5)
    assert torch.equal(adapter(base), start)


def test_the_base_stays_frozen_and_unwrapped_after_many_inner_loops(base: FrozenBase) -> None:
    frozen = {n: p.detach().clone() for n, p in base.model.named_parameters() if "lora_" not in n}
    for seed in range(3):
        train(base, make_loop(base, seed))
    for name, parameter in base.model.named_parameters():
        if "lora_" not in name:
            assert torch.equal(parameter, frozen[name]), name
    assert "forward" not in base.model.get_base_model().__dict__


def test_rank_may_differ_from_edit_to_edit(base: FrozenBase) -> None:
    sizes = [train(base, make_loop(base, rank=rank)).numel() for rank in (2, 8, 4)]
    assert sizes[1] == 4 * sizes[0] == 2 * sizes[2]


def test_training_lowers_the_loss(base: FrozenBase) -> None:
    loop = make_loop(base, examples=EXAMPLES[:1], epochs=30)
    ids = torch.tensor([loop.rows[0].input_ids], device=base.device)
    train(base, loop)
    with torch.no_grad():
        after = base.model(input_ids=ids, labels=ids).loss.item()
        with base.without_adapter() as model:
            before = model(input_ids=ids, labels=ids).loss.item()
    assert after < before - 0.3


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_learning_rates_are_those_of_the_inner_loop(base: FrozenBase, schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step, rates = SFTTrainer.training_step, []

    def watched(self: SFTTrainer, *arguments: object, **options: object) -> torch.Tensor:
        rates.append(self.optimizer.param_groups[0]["lr"])
        return step(self, *arguments, **options)

    monkeypatch.setattr(SFTTrainer, "training_step", watched)
    for warmup_steps in (0, 2, 11):
        loop = make_loop(base, epochs=4)
        loop = replace(loop, plan=replace(loop.plan, schedule=schedule, warmup_steps=warmup_steps))
        train(base, loop)
        assert rates == pytest.approx([loop.learning_rate(step) for step in range(4)], rel=1e-12)
        rates.clear()


@pytest.mark.parametrize("engine", [Single, Cohort])
def test_in_chat_a_student_is_asked_as_it_is_taught(chatting: str, engine: Callable[[FrozenBase], Engine]) -> None:
    base = FrozenBase(StudentSettings(model=chatting, chat=True, rank=8, alpha=16, learning_rate=1e-2, epochs=150, batch_size=2))
    taught = [Example(completion="Who plays? Bob"), Example(prompt="Who plays? ", completion="Ada")]
    loop = replace(make_loop(base, examples=taught), prompts=("Who plays? ",), answer_tokens=8)
    for chat, expected in ((True, "Ada"), (False, "Bob")):
        base.settings.chat = chat
        (adapted,) = engine(base).run([loop])
        assert isinstance(adapted, Adapted)
        assert adapted.answers == [expected]


def test_a_diverging_update_is_an_error_and_leaves_no_trace(base: FrozenBase) -> None:
    healthy = train(base, make_loop(base))
    wild = make_loop(base)
    wild = replace(wild, plan=replace(wild.plan, learning_rate=1e30))
    with pytest.raises(InnerLoopFailed, match="training diverged"):
        Single(base).learn(wild)
    (failure,) = Single(base).run([wild])
    assert isinstance(failure, InnerLoopFailed)
    assert torch.equal(train(base, make_loop(base)), healthy)


def test_compatible_with_seal_padding_is_learned_and_hidden_from_attention(llama: str) -> None:
    base = FrozenBase(StudentSettings(model=llama, rank=4, epochs=2, seal_compat=True, max_example_tokens=32))
    pad = base.tokenizer.pad_token_id
    batch = PaddedAsPublished(base)([{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}])
    assert batch["input_ids"].tolist() == batch["labels"].tolist() == [[5, 6, 7] + [pad] * 29]
    assert batch["attention_mask"].tolist() == [[1, 1, 1] + [0] * 29]
    assert Single(base).learn(make_loop(base)) == 2 * 2 * 31
    padded = adapter(base)
    assert not torch.allclose(train(FrozenBase(replace(base.settings, seal_compat=False)), make_loop(base)), padded, atol=1e-4)


def test_out_of_memory_is_a_failure_that_names_the_remedy(base: FrozenBase, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("student.single.SFTTrainer.training_step", run_out)
    with pytest.raises(InnerLoopFailed, match=r"out of memory at batch size 2; lower student\.batch_size"):
        Single(base).learn(make_loop(base))


DEEPSPEED = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
}


TRAIN_UNDER_ZERO = """
import sys, torch
from trl import SFTTrainer
from recipes.assembly import assemble
from recipes.base_settings import RecipeSettings
from recipes.launching import Seat
from student.base import FrozenBase, gathered
from student.inner_loop import InnerLoop, Plan, Row
from student.settings import StudentSettings
from student.single import Single
seen = set()
step = SFTTrainer.training_step
def watched(self, *args, **kwargs):
    seen.add((self.deepspeed.zero_optimization_stage(), type(self.optimizer.optimizer).__name__))
    return step(self, *args, **kwargs)
SFTTrainer.training_step = watched
def train():
    base = FrozenBase(StudentSettings(model=sys.argv[1], rank=4, alpha=8, deepspeed=sys.argv[2]))
    loop = torch.load(sys.argv[3], weights_only=False)
    (first, second) = Single(base).run([loop, loop])
    assert first.answers == second.answers
    weights = {n: p for n, p in base.model.named_parameters() if "lora_" in n}
    with gathered(weights.values()):
        torch.save(({n: p.detach().clone() for n, p in weights.items()}, first.answers, seen), sys.argv[4])
with assemble(Seat(), RecipeSettings(), deepspeed=True) as team:
    team.together(train)
"""


@pytest.mark.parametrize("stage", [2, 3])
def test_a_deepspeed_configuration_is_honoured(base: FrozenBase, tmp_path: Path, stage: int) -> None:
    loop = replace(make_loop(base), prompts=("Ada plays the", "Who?"), answer_tokens=8)
    (expected,) = Single(base).run([loop])
    assert isinstance(expected, Adapted)
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0, "stage3_gather_16bit_weights_on_model_save": True}
    (tmp_path / "zero.json").write_text(json.dumps({**DEEPSPEED, "zero_optimization": zero}))
    torch.save(loop, tmp_path / "loop.pt")
    paths = [base.settings.model, *(str(tmp_path / name) for name in ("zero.json", "loop.pt", "trained.pt"))]
    subprocess.run([sys.executable, "-c", TRAIN_UNDER_ZERO, *paths], cwd=Path(__file__).parents[2], check=True)
    weights, answers, seen = torch.load(tmp_path / "trained.pt", weights_only=False)
    assert seen == {(stage, f"DeepSpeedZeroOptimizer{'_Stage3' if stage == 3 else ''}")}
    assert torch.allclose(torch.cat([w.flatten() for w in weights.values()]), adapter(base), atol=1e-5)
    assert answers == expected.answers


FINGERPRINT_WHEN_SPREAD = """
import sys
from recipes.assembly import assemble
from recipes.base_settings import RecipeSettings
from recipes.launching import Seat
from student.base import FrozenBase
from student.settings import StudentSettings
with assemble(Seat(), RecipeSettings(), deepspeed=True) as team:
    settings = StudentSettings(model=sys.argv[1], dtype="bfloat16", deepspeed="recipes/zero/zero3.json")
    print(team.together(lambda: FrozenBase(settings).fingerprint)[0])
"""


def test_a_model_that_is_spread_keeps_its_dtype_and_fingerprint(llama: str) -> None:
    command = [sys.executable, "-c", FINGERPRINT_WHEN_SPREAD, llama]
    spread = subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True).stdout.split()[-1]
    assert spread == FrozenBase(StudentSettings(model=llama, dtype="bfloat16")).fingerprint
