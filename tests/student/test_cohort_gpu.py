"""What only a GPU can show. Everything else in tests/student runs on it too, where there is one."""

import pkgutil
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from student.base import FrozenBase
from student.cohort import Cohort
from student.cohort_trainer import CohortSFTTrainer
from student.inner_loop import InnerLoop, Plan, Row
from student.settings import StudentSettings
from student.single import Single
from student.stacked import _has_grouped_product

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

PLAN = Plan(1e-2, epochs=3, rank=8, batch_size=2, loss_on="all", schedule="linear", max_grad_norm=1.0, weight_decay=0.0)
ROWS = [list(range(start, start + 5 + start % 7)) for start in range(4, 40)]
LOOPS = [InnerLoop(tuple(Row(ids, ids) for ids in ROWS[i : i + 5]), PLAN, seed=i) for i in range(8)]


@pytest.fixture(scope="module")
def base(llama: str) -> FrozenBase:
    return FrozenBase(StudentSettings(model=llama, rank=8, alpha=16, dtype="bfloat16", cohort=4))


def test_bfloat16_takes_the_grouped_and_the_variable_length_kernels(base: FrozenBase, monkeypatch: pytest.MonkeyPatch) -> None:
    called = set()
    for place in ("student.packing.varlen_attn", "torch.nn.functional.grouped_mm"):
        kernel = pkgutil.resolve_name(place)

        def watched(*arguments: object, kernel: Callable[..., object] = kernel, place: str = place, **named: object) -> object:
            called.add(place)
            return kernel(*arguments, **named)

        monkeypatch.setattr(place, watched)
    stack, trained = Cohort(base).train(LOOPS)
    for loop, row in zip(LOOPS, trained, strict=True):
        assert isinstance(row, torch.Tensor)
        base.reset_adapter(8, loop.seed)
        start = stack.read_template(8)
        Single(base).learn(loop)
        alone = stack.read_template(8)
        assert float((row - alone).norm() / (alone - start).norm()) < 0.2
    assert called >= {"student.packing.varlen_attn"} | (
        {"torch.nn.functional.grouped_mm"} if _has_grouped_product("cuda", torch.bfloat16) else set()
    )


def test_no_step_waits_for_the_device(base: FrozenBase, monkeypatch: pytest.MonkeyPatch) -> None:
    step = CohortSFTTrainer.training_step

    def watched(trainer: CohortSFTTrainer, *arguments: object) -> torch.Tensor:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return step(trainer, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    cohort = Cohort(base)
    cohort.train(LOOPS[:2])  # first use compiles and allocates
    monkeypatch.setattr(CohortSFTTrainer, "training_step", watched)
    _, trained = cohort.train([replace(loop, seed=0) for loop in LOOPS])
    assert all(isinstance(row, torch.Tensor) for row in trained)
