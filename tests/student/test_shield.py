"""A shield lets pass what it must, and an adapter trained on a footing is what plain training on merged weights behind it gives."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from student.base import ADAPTER, FrozenBase
from student.cohort_trainer import CohortSFTTrainer, packed_divergence
from student.covariance import measure_inputs
from student.footing import Footing
from student.inner_loop import InnerLoop, Plan, Row
from student.packing import pack, packed_attention
from student.settings import StudentSettings
from student.shield import Shield, make_shield
from student.stacked import Stack

PLAN = Plan(1e-2, epochs=3, rank=8, batch_size=2, loss_on="all", schedule="linear", max_grad_norm=0.5, weight_decay=0.0)
TEXTS = [[5, 9, 12, 7, 30], [8, 8, 15], [21, 40, 6, 17, 11, 33]]


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(inputs: int, samples: int, seed: int = 0) -> torch.Tensor:
    x = draw(samples, inputs, seed=seed)
    return x.T @ x / samples


def as_matrix(shield: Shield) -> torch.Tensor:
    return shield(torch.eye(shield.directions.shape[0], dtype=shield.directions.dtype))


@pytest.mark.parametrize("left", [1e-4, 1e-2, 0.3])
@pytest.mark.parametrize("kept", [None, 4])
def test_a_shield_leaves_the_share_of_energy_that_it_should(left: float, kept: int | None) -> None:
    c = covariance(16, 100)
    p = as_matrix(make_shield(c, left, kept))
    assert float((p @ c @ p).trace() / c.trace()) == pytest.approx(left, rel=0.01)
    assert torch.allclose(p, p.T)
    assert float(torch.linalg.eigvalsh(p).min()) > 0


def test_a_direction_that_was_never_seen_passes_whole() -> None:
    c = covariance(8, 50)
    c = torch.block_diag(c, torch.zeros(1, 1, dtype=c.dtype))
    unseen = F.one_hot(torch.tensor([8]), 9).double()
    assert torch.allclose(make_shield(c, 1e-3)(unseen), unseen)


def test_nothing_seen_is_no_shield() -> None:
    a = draw(3, 8, seed=1)
    assert torch.equal(make_shield(torch.zeros(8, 8, dtype=torch.float64), 1e-3)(a), a)


def test_a_shield_is_the_inverse_of_what_was_seen() -> None:
    """`λ(C + λI)⁻¹` for some λ: its inverse is C/λ + I, so C times it is C - λ(I - P)."""
    c = covariance(12, 60)
    p = as_matrix(make_shield(c, 1e-2))
    inverse = torch.linalg.inv(p) - torch.eye(12, dtype=torch.float64)
    damping = float(c.trace() / inverse.trace())
    assert torch.allclose(inverse * damping, c, rtol=1e-6, atol=1e-8)


def test_the_strongest_directions_alone_take_less_memory() -> None:
    shield = make_shield(covariance(64, 200), 1e-3, kept=8)
    assert shield.directions.shape == (64, 8) and shield.lifted.shape == (8,)
    assert 0 < shield.rest < 1


@pytest.fixture(scope="module")
def base(llama: str) -> FrozenBase:
    opened = FrozenBase(StudentSettings(model=llama, rank=8, alpha=16))
    opened.model.to(torch.float64)
    return opened


def make_footing(stack: Stack, rank: int, seed: int, left: float | None) -> Footing:
    learned = tuple((draw(rank, i, seed=seed + n) * 0.1, draw(o, rank, seed=seed + 99 + n) * 0.1) for n, (i, o) in enumerate(stack.shapes))
    shields = [make_shield(covariance(inputs, 20, seed + n), left) for n, (inputs, _) in enumerate(stack.shapes)] if left else []
    return Footing(learned, tuple(shields))


def make_loop(footing: Footing | None, seed: int, **changes: object) -> InnerLoop:
    rows = tuple(Row(text, text) for text in TEXTS)
    return replace(InnerLoop(rows, PLAN, seed, footing=footing), **changes)  # type: ignore[arg-type]


def train(stack: Stack, loops: list[InnerLoop], folder: object) -> torch.Tensor:
    return CohortSFTTrainer(stack, loops, slots=2, folder=str(folder)).run()


@contextmanager
def merged(stack: Stack, footing: Footing | None) -> Iterator[None]:
    """Plain weights with what was learned in them, and shields in front of PEFT's own adapter."""
    if footing is None:
        yield
        return
    before = [layer.base_layer.weight.detach().clone() for layer in stack.layers]
    handles = []
    for number, (layer, (a, b)) in enumerate(zip(stack.layers, footing.learned, strict=True)):
        layer.base_layer.weight.data += b @ a
        if footing.shields:
            p = as_matrix(footing.shields[number])
            handles.append(layer.lora_A[ADAPTER].register_forward_pre_hook(lambda _, x, p=p: (x[0] @ p,)))
    try:
        yield
    finally:
        for layer, weight in zip(stack.layers, before, strict=True):
            layer.base_layer.weight.data = weight
        for handle in handles:
            handle.remove()


def train_plainly(stack: Stack, loop: InnerLoop) -> torch.Tensor:
    model = stack.base.model
    with merged(stack, loop.footing):
        stack.base.reset_adapter(loop.plan.rank, loop.seed)
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, weight_decay=0.0)
        for step, batch in enumerate(loop.batches):
            losses = [
                F.cross_entropy(model(torch.tensor([r.input_ids])).logits[0, :-1], torch.tensor(r.labels[1:]), reduction="sum")
                for r in batch
            ]
            loss = torch.stack(losses).sum() / sum(row.tokens_in_loss for row in batch)
            optimizer.param_groups[0]["lr"] = loop.learning_rate(step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, loop.plan.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        return stack.read_template(loop.plan.rank)


def test_an_adapter_on_a_footing_is_what_plain_training_on_merged_weights_gives(base: FrozenBase, tmp_path: object) -> None:
    stack = Stack(base, 8)
    footings = [make_footing(stack, 8, 0, 1e-2), None, make_footing(stack, 16, 500, None), make_footing(stack, 0, 900, 1e-3)]
    loops = [make_loop(footing, seed) for seed, footing in enumerate(footings)]
    for row, loop in zip(train(stack, loops, tmp_path), loops, strict=True):
        assert torch.allclose(row, train_plainly(stack, loop), atol=1e-9)


def test_what_is_learned_is_added_up_as_one_adapter(base: FrozenBase) -> None:
    stack = Stack(base, 8)
    footing = make_footing(stack, 8, 0, 1e-2)
    a, b = draw(4, stack.shapes[0][0], seed=7), draw(stack.shapes[0][1], 4, seed=8)
    new_a, new_b = footing.add(a, b, 0)
    old_a, old_b = footing.learned[0]
    assert new_a.shape[0] == 12
    assert torch.allclose(new_b @ new_a, old_b @ old_a + b @ a @ as_matrix(footing.shields[0]))


def test_inputs_are_measured_under_the_adapter_and_within_each_text(base: FrozenBase, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(base, 8)
    row = draw(stack.size, seed=3) * 0.05
    monkeypatch.setattr(base.settings, "cohort_tokens", 8)  # several parts
    found = measure_inputs(stack, [(a, stack.scale(8) * b) for a, b in stack.adapter(row)], TEXTS)
    stack.write_template(row, 8)
    seen: dict[int, torch.Tensor] = {}

    def add(number: int, x: torch.Tensor) -> None:
        x = x.flatten(0, -2)
        seen[number] = seen.get(number, torch.zeros(())) + x.T @ x

    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, number=number: add(number, inputs[0]))
        for number, layer in enumerate(stack.layers)
    ]
    with torch.no_grad():
        for text in TEXTS:
            base.model(torch.tensor([text]))
    for handle in handles:
        handle.remove()
    for number, c in enumerate(found):
        assert torch.allclose(c, seen[number] / sum(map(len, TEXTS)), atol=1e-10)


def test_the_divergence_is_that_of_the_adapter_from_the_untouched_base(base: FrozenBase) -> None:
    stack = Stack(base, 8)
    rows = torch.stack([draw(stack.size, seed=4) * 0.05, torch.zeros(stack.size, dtype=torch.float64)])
    batch = pack([[Row(TEXTS[0], TEXTS[0])], [Row(TEXTS[1], TEXTS[1])]], stack.dtype, stack.device, [2.0, 1.0])
    with packed_attention(base.model.get_base_model()):
        found = float(packed_divergence(stack, stack.pairs(rows), [stack.scale(8)] * 2, batch))
    text = torch.tensor([TEXTS[0]])
    with torch.no_grad(), base.without_adapter() as model:
        before = F.log_softmax(model(text).logits[0, :-1], -1)
    stack.write_template(rows[0], 8)
    with torch.no_grad():
        after = F.log_softmax(base.model(text).logits[0, :-1], -1)
    expected = 2 * float((before.exp() * (before - after)).sum(-1).mean())
    assert expected > 1e-6
    assert found == pytest.approx(expected, rel=1e-6)


def test_text_to_be_kept_is_changed_less(base: FrozenBase, tmp_path: object) -> None:
    stack = Stack(base, 8)
    kept = (tuple(Row(text, text) for text in ([3, 4, 5, 6], [50, 51, 52])),) * 6
    rows = train(stack, [make_loop(None, 1), make_loop(None, 1, kept=kept, kept_weight=100.0)], tmp_path)
    batch = pack([kept[0]], stack.dtype, stack.device)
    with packed_attention(base.model.get_base_model()):
        freely, held = (float(packed_divergence(stack, stack.pairs(row[None]), [stack.scale(8)], batch)) for row in rows)
    assert held < freely / 2
