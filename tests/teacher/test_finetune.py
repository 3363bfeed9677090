import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer
from trl import SFTTrainer

from protocol.errors import InvalidInput
from teacher.finetune import IGNORED, arrange_rows, encode, finetune
from teacher.policy import Policy
from teacher.settings import FinetuneSettings, TeacherSettings

PROMPTS = ["The passage:\n", "A much longer prompt about the people and the harp:\n", "Q"]
PAIRS = [(PROMPTS[0], "harp"), (PROMPTS[1], "lute")]


def settings(model: str, **changes: object) -> TeacherSettings:
    return TeacherSettings(**{"model": model, "max_new_tokens": 12, "temperature": 1e-4, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("lora", [True, False])
def test_finetuning_teaches_the_completions(llama: str, tmp_path: Path, lora: bool) -> None:
    steps: list[int] = []
    plan = FinetuneSettings(lora=lora, rank=8, alpha=16, learning_rate=2e-2, epochs=40, batch_size=2)
    result = finetune(settings(llama), PAIRS, plan, seed=1, output=tmp_path / "round-1", on_step=lambda: steps.append(1))
    assert 0 < result.loss < 10
    assert len(steps) == 40
    assert (tmp_path / "round-1" / "adapter_config.json").exists() == lora
    assert Policy(settings(str(tmp_path / "round-1"))).sample(PROMPTS[:2], [1, 2]) == ["harp", "lute"]
    assert [item.name for item in tmp_path.iterdir()] == ["round-1"]


def test_a_teacher_in_chat_is_finetuned_as_it_is_asked(chatting: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(chatting)
    (row,) = encode([("The passage:\n", "harp")], tokenizer, chat=True)
    assert tokenizer.decode(row["input_ids"]) == "<s>26 Jul 2024\n[user] The passage:\n[assistant] harp</s>"
    assert row["labels"] == [IGNORED] * (len(row["input_ids"]) - 5) + row["input_ids"][-5:]
    teacher = settings(chatting, chat=True)
    plan = FinetuneSettings(rank=8, alpha=16, learning_rate=2e-2, epochs=40, batch_size=2)
    finetune(teacher, PAIRS, plan, seed=1, output=tmp_path / "round-1")
    assert Policy(replace(teacher, model=str(tmp_path / "round-1"))).sample(PROMPTS[:2], [1, 2]) == ["harp", "lute"]


def test_a_second_round_goes_on_with_the_same_adapter(llama: str, tmp_path: Path) -> None:
    plan = FinetuneSettings(rank=8, alpha=16, learning_rate=1e-3, epochs=1, batch_size=1)
    finetune(settings(llama), PAIRS[:1], plan, seed=1, output=tmp_path / "round-1")
    once = settings(llama, adapter=str(tmp_path / "round-1"))
    finetune(once, [(PROMPTS[0], "lute")], plan, seed=2, output=tmp_path / "round-2")
    first, second = (load_file(tmp_path / f"round-{n}" / "adapter_model.safetensors") for n in (1, 2))
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert max((first[name] - second[name]).abs().max() for name in first) < 0.01


def test_an_adapter_that_does_not_fit_is_refused(llama: str, olmo: str, tmp_path: Path) -> None:
    finetune(settings(llama), PAIRS[:1], FinetuneSettings(rank=4, epochs=1), seed=1, output=tmp_path / "round-1")
    with pytest.raises(InvalidInput, match=r"teacher\.adapter .*round-1' does not fit on"):
        Policy(settings(olmo, adapter=str(tmp_path / "round-1")))


def test_training_all_weights_of_an_adapted_teacher_keeps_what_it_had_learned(llama: str, tmp_path: Path) -> None:
    lora = FinetuneSettings(rank=8, alpha=16, learning_rate=2e-2, epochs=40, batch_size=2)
    finetune(settings(llama), PAIRS, lora, seed=1, output=tmp_path / "round-1")
    adapted = settings(llama, adapter=str(tmp_path / "round-1"))
    finetune(
        adapted, [(PROMPTS[2], "oboe")], FinetuneSettings(lora=False, learning_rate=1e-6, epochs=1), seed=1, output=tmp_path / "round-2"
    )
    assert Policy(settings(str(tmp_path / "round-2"))).sample(PROMPTS[:2], [1, 2]) == ["harp", "lute"]


def test_a_step_that_is_not_full_is_filled_with_rows_that_teach_nothing() -> None:
    rows = [{"input_ids": [n, n], "labels": [n, n]} for n in range(3)]
    arranged = arrange_rows(rows, FinetuneSettings(batch_size=2, epochs=2), seed=0)
    assert len(arranged) == 8
    for epoch in (arranged[:4], arranged[4:]):
        assert sorted(row["input_ids"][0] for row in epoch[:3]) == [0, 1, 2]
        assert epoch[3] == {"input_ids": [0], "labels": [IGNORED]}


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "processes", "expected"),
    [(4, 1, 1, (4, 1)), (4, 1, 2, (2, 1)), (4, 4, 2, (4, 2)), (3, 4, 2, (3, 2)), (5, 2, 2, (5, 1)), (1, 8, 4, (1, 2))],
)
def test_a_step_is_divided_without_more_at_a_time(batch_size: int, accumulation: int, processes: int, expected: tuple[int, int]) -> None:
    assert FinetuneSettings(batch_size=batch_size, accumulation=accumulation).divide(processes) == expected


def test_a_step_that_does_not_divide_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match=r"finetune\.batch_size 5 x finetune\.accumulation 1 does not divide by 2 processes; make it a mult"
    ):
        FinetuneSettings().divide(2)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("damage", ["nothing", "a missing file", "a file cut short", "no manifest", "another number of processes"])
def test_a_killed_finetuning_goes_on_from_its_last_whole_checkpoint(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    plan = FinetuneSettings(rank=8, alpha=16, learning_rate=1e-2, epochs=4, batch_size=1, dropout=0.1, save_every=2)
    finetune(settings(llama), PAIRS, plan, seed=1, output=tmp_path / "whole")
    step, trained = SFTTrainer.training_step, [0]

    def count(self: SFTTrainer, *arguments: object, **options: object) -> torch.Tensor:
        trained[0] += 1
        if trained[0] == 6:
            raise Killed
        return step(self, *arguments, **options)

    monkeypatch.setattr(SFTTrainer, "training_step", count)
    with pytest.raises(Killed):
        finetune(settings(llama), PAIRS, plan, seed=1, output=tmp_path / "killed")
    checkpoint = tmp_path / "killed.training" / "checkpoint-4"
    assert checkpoint.exists() and not (tmp_path / "killed").exists()
    if damage == "a missing file":
        (checkpoint / "optimizer.pt").unlink()
    elif damage == "a file cut short":
        weights = checkpoint / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "no manifest":
        (checkpoint / "manifest.json").unlink()
    elif damage == "another number of processes":
        manifest = checkpoint / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"processes": 1', '"processes": 2'))
    trained[0] = 100
    finetune(settings(llama), PAIRS, plan, seed=1, output=tmp_path / "killed")
    assert trained[0] - 100 == (4 if damage == "nothing" else 6)
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    shutil.rmtree(tmp_path / "killed")
    assert [item.name for item in tmp_path.iterdir()] == ["whole"]
