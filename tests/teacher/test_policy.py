from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from protocol.errors import InvalidInput
from teacher.policy import Policy
from teacher.sampling import SeededGumbel
from teacher.settings import FinetuneSettings, TeacherSettings

PROMPTS = ["The passage:\n", "A much longer prompt about the people and the harp:\n", "Q"]


def settings(model: str, **changes: object) -> TeacherSettings:
    return TeacherSettings(**{"model": model, "max_new_tokens": 12, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def policy(llama: str) -> Policy:
    return Policy(settings(llama))


def test_noise_turns_greedy_decoding_into_sampling_from_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.2, 0.0])
    noise = SeededGumbel(range(4000))
    drawn = noise(torch.zeros(4000, 1, dtype=torch.long), probabilities.log().expand(4000, 4)).argmax(-1)  # type: ignore[arg-type]
    shares = torch.bincount(drawn, minlength=4) / 4000
    assert torch.allclose(shares, probabilities, atol=0.03)
    assert shares[3] == 0


def test_a_candidate_depends_on_its_prompt_and_seed_not_on_its_batch(policy: Policy) -> None:
    together = policy.sample(PROMPTS, [1, 2, 3])
    assert [policy.sample([prompt], [seed])[0] for prompt, seed in zip(PROMPTS, [1, 2, 3], strict=True)] == together
    assert policy.sample(PROMPTS[::-1], [3, 2, 1]) == together[::-1]
    assert policy.sample(PROMPTS, [4, 5, 6]) != together


def test_low_temperature_is_greedy(llama: str) -> None:
    cold = Policy(settings(llama, temperature=1e-4))
    assert len({cold.sample(PROMPTS[:1], [seed])[0] for seed in range(3)}) == 1


@pytest.mark.parametrize("lora", [True, False])
def test_finetuning_teaches_the_completions_and_reloads_the_same(llama: str, tmp_path: Path, lora: bool) -> None:
    policy = Policy(settings(llama, temperature=1e-4))
    finetune = FinetuneSettings(lora=lora, rank=8, alpha=16, learning_rate=2e-2, epochs=40, batch_size=2)
    policy.finetune([(PROMPTS[0], "harp"), (PROMPTS[1], "lute")], finetune, seed=1, output=tmp_path / "round-1")
    assert policy.sample(PROMPTS[:2], [1, 2]) == ["harp", "lute"]
    folder = str(tmp_path / "round-1")
    assert (tmp_path / "round-1" / "adapter_config.json").exists() == lora
    reloaded = Policy(settings(folder, temperature=1e-4))
    assert reloaded.fingerprint == policy.fingerprint
    assert reloaded.sample(PROMPTS[:2], [1, 2]) == ["harp", "lute"]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_second_round_goes_on_with_the_same_adapter(llama: str, tmp_path: Path) -> None:
    policy = Policy(settings(llama))
    finetune = FinetuneSettings(rank=8, alpha=16, learning_rate=1e-3, epochs=1, batch_size=1)
    policy.finetune([(PROMPTS[0], "harp")], finetune, seed=1, output=tmp_path / "round-1")
    policy.finetune([(PROMPTS[0], "lute")], finetune, seed=2, output=tmp_path / "round-2")
    first, second = (load_file(tmp_path / f"round-{n}" / "adapter_model.safetensors") for n in (1, 2))
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert max((first[name] - second[name]).abs().max() for name in first) < 0.01


def test_an_adapter_that_does_not_fit_is_refused(llama: str, olmo: str, tmp_path: Path) -> None:
    policy = Policy(settings(llama))
    policy.finetune([(PROMPTS[0], "harp")], FinetuneSettings(rank=4, epochs=1), seed=1, output=tmp_path / "round-1")
    with pytest.raises(InvalidInput, match=r"teacher\.adapter .*round-1' does not fit on"):
        Policy(settings(olmo, adapter=str(tmp_path / "round-1")))


def test_training_all_weights_of_an_adapted_teacher_keeps_what_it_had_learned(llama: str, tmp_path: Path) -> None:
    policy = Policy(settings(llama, temperature=1e-4))
    lora = FinetuneSettings(rank=8, alpha=16, learning_rate=2e-2, epochs=40, batch_size=2)
    policy.finetune([(PROMPTS[0], "harp"), (PROMPTS[1], "lute")], lora, seed=1, output=tmp_path / "round-1")
    policy.finetune([(PROMPTS[2], "oboe")], FinetuneSettings(lora=False, learning_rate=1e-6, epochs=1), seed=1, output=tmp_path / "round-2")
    reloaded = Policy(settings(str(tmp_path / "round-2"), temperature=1e-4))
    assert reloaded.fingerprint == policy.fingerprint
    assert reloaded.sample(PROMPTS[:2], [1, 2]) == ["harp", "lute"]
