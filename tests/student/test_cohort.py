"""A cohort gives what separate trainings give, and these tests fail where it would not."""

import json
import logging
import random
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import AutoModelForCausalLM, get_scheduler
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import student.cohort_trainer
import student.stacked
from protocol.errors import InnerLoopFailed, InvalidInput, TutelageError
from student.answers import answer
from student.base import FrozenBase
from student.cohort import Cohort, slots_by_budget, slots_by_memory
from student.cohort_trainer import CohortSFTTrainer, timetable
from student.engines import choose_engine
from student.inner_loop import Adapted, InnerLoop, Plan, Row
from student.self_check import check_gradients
from student.settings import StudentSettings
from student.single import Single
from student.stacked import Stack

SETTINGS = StudentSettings(rank=8, alpha=16, cohort=3)
PLAN = Plan(1e-2, epochs=2, rank=8, batch_size=2, loss_on="all", schedule="constant", max_grad_norm=0.1, weight_decay=0.0)


def make_loops(base: FrozenBase, count: int, seed: int, mixed: bool) -> list[InnerLoop]:
    """Random rows, half of them with a masked prompt; `mixed` has every loop train by rules of its own."""
    draw = random.Random(seed)
    vocabulary = base.model.get_input_embeddings().num_embeddings
    loops = []
    for number in range(count):
        rows = []
        for _ in range(draw.randint(3, 6)):
            ids = [draw.randrange(4, vocabulary) for _ in range(draw.randint(3, 40))]
            masked = draw.choice([0, len(ids) // 2])
            rows.append(Row(ids, [-100] * masked + ids[masked:]))
        plan = PLAN
        if mixed:
            plan = Plan(
                learning_rate=draw.choice([3e-3, 1e-2, 3e-2]),
                epochs=draw.choice([1, 2, 4]),
                rank=draw.choice([1, 4, 12]),
                batch_size=draw.choice([1, 2, 3]),
                loss_on="all",
                schedule=draw.choice(["linear", "cosine", "constant"]),
                max_grad_norm=draw.choice([0.0, 0.1, 1.0]),
                weight_decay=draw.choice([0.0, 0.1]),
                warmup_steps=(0, 1, 3, 99)[number % 4],
            )
        prompts = tuple(base.tokenizer.decode(row.input_ids[: 2 + n]) for n, row in enumerate(rows[:3]))
        loops.append(InnerLoop(tuple(rows), plan, seed=number // 2, prompts=prompts, answer_tokens=draw.choice([4, 8])))
    return loops


def open_base(model: str, dtype: torch.dtype = torch.float32, settings: StudentSettings = SETTINGS) -> FrozenBase:
    base = FrozenBase(replace(settings, model=model))
    base.model.to(dtype)
    return base


def train_plainly(base: FrozenBase, loop: InnerLoop) -> torch.Tensor:
    """One adapter by PEFT, AdamW, clipping and a scheduler as they come, in the dtype of the model."""
    base.reset_adapter(loop.plan.rank, loop.seed)
    weights = [p for p in base.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=loop.plan.learning_rate, weight_decay=loop.plan.weight_decay)
    schedule = "constant_with_warmup" if loop.plan.schedule == "constant" else loop.plan.schedule
    scheduler = get_scheduler(schedule, optimizer, loop.plan.warmup_steps, loop.steps)
    for batch in loop.batches:
        losses = []
        for row in batch:
            logits = base.model(input_ids=torch.tensor([row.input_ids], device=base.device)).logits[0, :-1]
            labels = torch.tensor(row.labels[1:], device=base.device)
            losses.append(F.cross_entropy(logits, labels, ignore_index=-100, reduction="none")[labels != -100])
        torch.cat(losses).mean().backward()
        if loop.plan.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(weights, loop.plan.max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return Stack(base, 12).read_template(loop.plan.rank)


def train_together(base: FrozenBase, loops: list[InnerLoop]) -> list[torch.Tensor]:
    stack, trained = Cohort(base).train(loops)
    rows = []
    for loop, row in zip(loops, trained, strict=True):
        assert isinstance(row, torch.Tensor)
        stack.write_template(row, loop.plan.rank)
        rows.append(Stack(base, 12).read_template(loop.plan.rank))
    return rows


def furthest(
    base: FrozenBase, loops: list[InnerLoop], rows: list[torch.Tensor], train_alone: Callable[[FrozenBase, InnerLoop], torch.Tensor]
) -> float:
    """The largest difference from training alone, relative to what training moved (Frobenius)."""
    differences = []
    for loop, row in zip(loops, rows, strict=True):
        base.reset_adapter(loop.plan.rank, loop.seed)
        start = Stack(base, 12).read_template(loop.plan.rank)
        alone = train_alone(base, loop)
        differences.append(float((row - alone).norm() / (alone - start).norm()))
    return max(differences)


def train_by_trl(base: FrozenBase, loop: InnerLoop) -> torch.Tensor:
    Single(base).learn(loop)
    return Stack(base, 12).read_template(loop.plan.rank)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_in_float64_adapters_and_answers_are_those_of_a_plain_loop(family: str, request: pytest.FixtureRequest) -> None:
    base = open_base(request.getfixturevalue(family), torch.float64)
    loops = make_loops(base, 8, seed=1, mixed=True)
    assert furthest(base, loops, train_together(base, loops), train_plainly) < 1e-10
    untrained = answer(base.model.get_base_model(), base.tokenizer, loops[0].prompts, 8, 8)
    together = [result.answers for result in Cohort(base).run(loops) if isinstance(result, Adapted)]
    assert any(texts != untrained for texts in together)
    for loop, texts in zip(loops, together, strict=True):
        train_plainly(base, loop)
        assert answer(base.model, base.tokenizer, loop.prompts, loop.answer_tokens, 8) == texts


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_in_float32_adapters_are_those_of_separate_trl_trainings(family: str, request: pytest.FixtureRequest) -> None:
    base = open_base(request.getfixturevalue(family))
    loops = make_loops(base, 6, seed=2, mixed=True)
    assert furthest(base, loops, train_together(base, loops), train_by_trl) < 1e-3


def test_in_bfloat16_adapters_are_near_those_of_separate_trl_trainings(llama: str) -> None:
    base = open_base(llama, settings=replace(SETTINGS, dtype="bfloat16"))
    loops = make_loops(base, 4, seed=3, mixed=False)
    assert furthest(base, loops, train_together(base, loops), train_by_trl) < 0.2


def clip_all_as_one(trainer: CohortSFTTrainer, _: object) -> torch.Tensor:
    norm = trainer._gradients.norm()
    trainer._gradients.mul_((0.1 / (norm + 1e-6)).clamp(max=1.0))
    return CLIP(trainer, _)


def share_one_mean(slots: object, *rest: object) -> object:
    batch = student.packing.pack(slots, *rest)  # type: ignore[arg-type]
    batch.weights.fill_(1 / len(batch.targets))
    return batch


def leave_finished_in(trainer: CohortSFTTrainer, turns: list[tuple[int, int] | None]) -> None:
    before = list(trainer._present)
    states = dict(trainer.optimizer.state)
    SEAT(trainer, turns)
    for slot, turn in enumerate(turns):
        if turn is None and before[slot] is not None:
            trainer._present[slot] = before[slot]
            trainer._slots[slot].grad = trainer._gradients[slot]
            trainer.optimizer.state[trainer._slots[slot]] = states[trainer._slots[slot]]


CLIP, SEAT = CohortSFTTrainer._clip_grad_norm, CohortSFTTrainer._seat


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("student.cohort_trainer.CohortSFTTrainer._clip_grad_norm", clip_all_as_one),
        ("student.cohort_trainer.pack", share_one_mean),
        ("student.cohort_trainer.CohortSFTTrainer._seat", leave_finished_in),
    ],
)
def test_equality_breaks_with_a_planted_fault(place: str, fault: object, llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = open_base(llama, torch.float64)
    loops = make_loops(base, 4, seed=4, mixed=False)
    assert furthest(base, loops, train_together(base, loops), train_plainly) < 1e-10
    monkeypatch.setattr(place, fault)
    assert furthest(base, loops, train_together(base, loops), train_plainly) > 1e-3


def test_a_slice_is_an_ordinary_peft_folder(llama: str, tmp_path: Path) -> None:
    base = open_base(llama)
    loops = [replace(loop, answer_tokens=8) for loop in make_loops(base, 3, seed=5, mixed=True)]
    results = Cohort(base).run(loops)
    stack = Stack(base, 12)
    for loop, row, result in zip(loops, train_together(base, loops), results, strict=True):
        stack.write_template(row, loop.plan.rank)
        base.model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32), tmp_path)
        assert loaded.peft_config["default"].r == loop.plan.rank
        assert isinstance(result, Adapted)
        assert answer(loaded.to(base.device).eval(), base.tokenizer, loop.prompts, 8, 8) == result.answers


def test_a_free_slot_goes_to_the_next_loop() -> None:
    assert timetable([2, 1, 2], slots=2) == [[(0, 0), (1, 0)], [(0, 1), (2, 0)], [None, (2, 1)]]
    assert timetable([1], slots=3) == [[(0, 0), None, None]]
    assert timetable([], slots=2) == []


def test_one_that_diverges_fails_alone_and_leaves_no_trace(llama: str) -> None:
    base = open_base(llama)
    loops = make_loops(base, 5, seed=6, mixed=True)
    wild = replace(loops[2], plan=replace(loops[2].plan, learning_rate=1e30, rank=32))
    _, trained = Cohort(base).train([*loops[:2], wild, *loops[3:]])
    _, without = Cohort(base).train([*loops[:2], *loops[3:]])
    assert "diverged; lower the learning rate 1e+30" in str(trained.pop(2))
    for row, expected in zip(trained, without, strict=True):
        assert isinstance(row, torch.Tensor) and isinstance(expected, torch.Tensor)
        assert torch.equal(row, expected)
    results = Cohort(base).run([*loops[:2], wild])
    assert [type(result) for result in results] == [Adapted, Adapted, InnerLoopFailed]
    (failure,) = Cohort(base).run([wild])
    assert isinstance(failure, InnerLoopFailed)


@pytest.fixture
def limit_slots(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Cohorts of more slots run out of memory; gives what is tried."""
    run = CohortSFTTrainer.run
    tried: list[int] = []

    def set_limit(limit: int) -> list[int]:
        def limited(trainer: CohortSFTTrainer) -> torch.Tensor:
            tried.append(len(trainer._slots))
            if len(trainer._slots) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return run(trainer)

        monkeypatch.setattr(CohortSFTTrainer, "run", limited)
        return tried

    return set_limit


def test_out_of_memory_is_tried_again_with_half_as_many(
    llama: str, limit_slots: Callable[[int], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    base = open_base(llama, settings=replace(SETTINGS, cohort=6))
    loops = make_loops(base, 6, seed=7, mixed=False)
    _, expected = Cohort(base).train(loops)
    cohort = Cohort(base)
    tried = limit_slots(2)
    with caplog.at_level(logging.WARNING):
        _, trained = cohort.train(loops)
    assert tried == [6, 3, 1]
    cohort.train(loops)
    assert tried == [6, 3, 1, 1]  # it does not try again what did not fit
    assert "out of memory with 6 self-edits at once; going on with 3" in caplog.text
    for row, other in zip(trained, expected, strict=True):
        assert isinstance(row, torch.Tensor) and isinstance(other, torch.Tensor)
        assert torch.allclose(row, other, atol=1e-5)


def test_one_that_does_not_fit_alone_fails_and_the_others_get_their_slots_back(
    llama: str, limit_slots: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = open_base(llama)
    loops = make_loops(base, 3, seed=7, mixed=False)
    huge = replace(loops[1], rows=loops[1].rows * 20)
    tried = limit_slots(99)
    run = CohortSFTTrainer.run

    def run_out_on_many_rows(trainer: CohortSFTTrainer) -> torch.Tensor:
        if any(len(loop.rows) > 50 for loop in trainer.loops):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return run(trainer)

    monkeypatch.setattr(CohortSFTTrainer, "run", run_out_on_many_rows)
    cohort = Cohort(base)
    results = cohort.run([loops[0], huge, loops[2]])
    assert [type(result) for result in results] == [Adapted, InnerLoopFailed, Adapted]
    assert "lower student.batch_size" in str(results[1])
    assert tried[-1] == 2
    cohort.run(loops)
    assert tried[-1] == 3


def test_answers_that_run_out_of_memory_are_asked_in_halves(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = open_base(llama)
    loops = make_loops(base, 3, seed=8, mixed=False)
    expected = [result.answers for result in Cohort(base).run(loops) if isinstance(result, Adapted)]
    alone = answer(base.model, base.tokenizer, loops[0].prompts, 8, 8)
    generate = student.answers._generate

    def run_out_above(limit: int) -> Callable[..., list[str]]:
        def limited(model: object, tokenizer: object, prompts: list[str], *rest: object) -> list[str]:
            if len(prompts) > limit:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return generate(model, tokenizer, prompts, *rest)  # type: ignore[arg-type]

        return limited

    monkeypatch.setattr("student.answers._generate", run_out_above(2))
    assert [result.answers for result in Cohort(base).run(loops) if isinstance(result, Adapted)] == expected
    assert answer(base.model, base.tokenizer, loops[0].prompts, 8, 8) == alone
    monkeypatch.setattr("student.answers._generate", run_out_above(0))
    with pytest.raises(InnerLoopFailed, match="out of memory at a single question"):
        Cohort(base).run(loops)


def test_how_many_train_at_once_follows_from_the_token_budget(llama: str) -> None:
    base = open_base(llama, settings=replace(SETTINGS, cohort=None, cohort_tokens=100))
    row = Row(list(range(4, 14)), list(range(4, 14)))
    one_at_a_time = InnerLoop((row,) * 4, replace(PLAN, batch_size=1), seed=0)
    all_at_once = InnerLoop((row,) * 4, replace(PLAN, batch_size=4), seed=0)
    assert slots_by_budget([one_at_a_time] * 3, base) == 10
    assert slots_by_budget([all_at_once], base) == 2
    assert slots_by_budget([], base) == 1
    assert Cohort(base).cohort_sizes([one_at_a_time]) == (10, 20)


def test_who_trains_together_does_not_change_what_is_learned(llama: str) -> None:
    base = open_base(llama, torch.float64)
    loops = make_loops(base, 5, seed=9, mixed=True)
    for rows in (train_together(base, loops[::-1])[::-1], [train_together(base, [loop])[0] for loop in loops]):
        for row, expected in zip(rows, train_together(base, loops), strict=True):
            assert torch.allclose(row, expected, rtol=1e-10, atol=1e-12)


def no_adapter(base_layer: torch.nn.Module, a: object, b: object, route: object, x: torch.Tensor) -> torch.Tensor:
    return base_layer(x)  # type: ignore[no-any-return]


def first_adapter_for_all(base_layer: torch.nn.Module, a: torch.Tensor, b: torch.Tensor, route: object, x: torch.Tensor) -> torch.Tensor:
    return base_layer(x) + 2.0 * x @ a[0].T @ b[0].T  # type: ignore[no-any-return]


def see_across_sequences(
    module: object, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: object, **rest: object
) -> object:
    output = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return output.transpose(1, 2), None


@pytest.mark.parametrize(
    ("place", "fault"),
    [("student.stacked._forward", no_adapter), ("student.stacked._forward", first_adapter_for_all), ("attention", see_across_sequences)],
)
def test_the_check_at_start_up_finds_a_cohort_that_does_not_train(
    place: str, fault: object, llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = open_base(llama)
    check_gradients(base)
    if place == "attention":
        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, student.packing.ATTENTION, fault)
    else:
        monkeypatch.setattr(place, fault)
    with pytest.raises(TutelageError, match=r"set student\.inner_loop=single"):
        choose_engine(base)


def test_a_finished_cohort_gives_its_memory_back(llama: str) -> None:
    base = open_base(llama)
    cohort = Cohort(base)
    trainers: list[weakref.ref[CohortSFTTrainer]] = []
    run = CohortSFTTrainer.run
    with pytest.MonkeyPatch.context() as patch:

        def watched(trainer: CohortSFTTrainer) -> torch.Tensor:
            assert all(earlier() is None for earlier in trainers)
            trainers.append(weakref.ref(trainer))
            return run(trainer)

        patch.setattr(CohortSFTTrainer, "run", watched)
        for seed in range(3):
            cohort.run(make_loops(base, 2, seed, mixed=False))
    assert len(trainers) == 3


def test_how_many_fit_follows_from_free_memory(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = open_base(llama, settings=replace(SETTINGS, cohort=None, cohort_tokens=10))
    stack = Stack(base, 8)
    assert slots_by_memory(stack, base) > 1000
    monkeypatch.setattr("student.cohort.free_memory", lambda device: 100 * stack.size * 4)
    assert 5 <= slots_by_memory(stack, base) <= 14
    monkeypatch.setattr("student.cohort.free_memory", lambda device: 0)
    assert slots_by_memory(stack, base) == 1


def test_a_training_that_moves_nothing_is_an_error(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = open_base(llama)
    cohort = Cohort(base)
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_, **__: None)
    with pytest.raises(TutelageError, match="untouched"):
        cohort.run(make_loops(base, 2, seed=1, mixed=False))


def test_weights_that_part_from_the_optimizers_are_an_error(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = open_base(llama)
    cohort = Cohort(base)
    train = CohortSFTTrainer.train

    def move_away(trainer: CohortSFTTrainer) -> object:
        a, _ = trainer._pairs[0]
        a.data = a.data.clone()  # as `Module.to` may do
        return train(trainer)

    monkeypatch.setattr(CohortSFTTrainer, "train", move_away)
    with pytest.raises(TutelageError, match="untouched"):
        cohort.run(make_loops(base, 2, seed=1, mixed=False))


def test_an_edit_that_asks_for_a_vanishing_learning_rate_only_harms_itself(llama: str) -> None:
    base = open_base(llama)
    loops = make_loops(base, 2, seed=1, mixed=False)
    still = replace(loops[0], plan=replace(loops[0].plan, learning_rate=1e-300))
    assert [type(result) for result in Cohort(base).run([still, loops[1]])] == [Adapted, Adapted]


@pytest.mark.parametrize(
    ("changes", "name", "why"),
    [
        ({}, "cohort", "plain LoRA on linear layers"),
        ({"inner_loop": "single"}, "single", "asks for it"),
        ({"dropout": 0.1}, "single", "depend on its companions"),
        ({"seal_compat": True}, "single", "pads every sequence"),
        ({"seal_compat": True, "inner_loop": "single"}, "single", "asks for it"),
        ({"targets": "q_proj,embed_tokens"}, "single", "embed_tokens is not plain LoRA on a linear layer (Embedding)"),
        ({"targets": "q_proj,lm_head"}, "single", "sees labelled tokens only"),
    ],
)
def test_the_engine_is_chosen_with_a_reason(llama: str, changes: dict[str, object], name: str, why: str) -> None:
    engine, reason = choose_engine(open_base(llama, settings=replace(SETTINGS, **changes)))  # type: ignore[arg-type]
    assert engine.name == name
    assert why in reason


def test_one_that_ends_where_its_warm_up_begins_only_harms_itself(llama: str) -> None:
    base = open_base(llama)
    loops = make_loops(base, 2, seed=1, mixed=False)
    still = replace(loops[0], rows=loops[0].rows[:1], plan=replace(PLAN, epochs=1, warmup_steps=11))
    assert still.steps == 1
    stack, trained = Cohort(base).train([still, loops[1]])
    assert [bool(torch.cat([b[i].flatten() for _, b in stack.pairs(torch.stack(trained))]).any()) for i in (0, 1)] == [False, True]


def quantise(base: FrozenBase) -> None:
    base.lora_layers()[0].__class__ = type("Linear4bit", (type(base.lora_layers()[0]),), {})


def decompose(base: FrozenBase) -> None:
    base.lora_layers()[0].lora_variant["default"] = object()


def make_an_expert(base: FrozenBase) -> None:
    layer = base.model.get_base_model().model.layers[0].mlp
    layer.experts = torch.nn.ModuleList([layer.gate_proj])
    del layer.gate_proj


def drop_out(base: FrozenBase) -> None:
    base.model.get_base_model().config.resid_pdrop = 0.1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (drop_out, "with dropout"),
        (quantise, "not plain LoRA on a linear layer (Linear4bit)"),
        (decompose, "not plain LoRA"),
        (make_an_expert, "sees some tokens only"),
    ],
)
def test_layers_that_cannot_be_routed_are_trained_one_at_a_time(llama: str, change: Callable[[FrozenBase], None], why: str) -> None:
    base = open_base(llama)
    change(base)
    engine, reason = choose_engine(base)
    assert engine.name == "single"
    assert why in reason


def test_a_model_that_does_not_take_packed_sequences_is_trained_one_at_a_time(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise TypeError("forward() got an unexpected keyword argument 'packing'")

    monkeypatch.setattr("student.self_check.packed_loss", refuse)
    engine, reason = choose_engine(open_base(llama))
    assert engine.name == "single"
    assert "does not take packed sequences (forward() got an unexpected keyword" in reason
    with pytest.raises(InvalidInput, match="does not take packed sequences"):
        choose_engine(open_base(llama, settings=replace(SETTINGS, inner_loop="cohort")))


def test_a_cohort_that_cannot_be_had_is_refused(llama: str) -> None:
    with pytest.raises(InvalidInput, match=r"student\.inner_loop is 'cohort', but with dropout"):
        choose_engine(open_base(llama, settings=replace(SETTINGS, dropout=0.1, inner_loop="cohort")))


def test_a_sliding_window_is_kept(tmp_path: Path, qwen2: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(qwen2, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0, "layer_types": ["sliding_attention"] * 2}
    (folder / "config.json").write_text(json.dumps(config))
    base = open_base(str(folder), torch.float64)
    loops = make_loops(base, 3, seed=2, mixed=False)
    assert furthest(base, loops, train_together(base, loops), train_plainly) < 1e-10
