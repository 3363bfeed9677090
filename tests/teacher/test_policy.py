import pytest
import torch

from protocol.errors import InvalidInput
from teacher.policy import Policy
from teacher.sampling import SeededGumbel
from teacher.settings import TeacherSettings

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


def test_in_chat_a_prompt_is_a_users_message(chatting: str) -> None:
    plain, chat = Policy(settings(chatting)), Policy(settings(chatting, chat=True))
    told = [f"26 Jul 2024\n[user] {prompt.strip()}\n[assistant] " for prompt in PROMPTS]
    assert chat.sample(PROMPTS, [1, 2, 3]) == plain.sample(told, [1, 2, 3])
    assert chat.sample(PROMPTS, [1, 2, 3]) != plain.sample(PROMPTS, [1, 2, 3])
    room = 4095 - len("<26 Jul 2024\n[user] \n[assistant] ")
    assert chat.find_too_long(["x" * room]) is None
    assert chat.find_too_long(["x", "x" * (room + 1)]) == (1, 4096, 4096)
    assert plain.find_too_long(["x" * (room + 1)]) is None


def test_a_model_without_a_chat_template_is_refused(llama: str) -> None:
    with pytest.raises(InvalidInput, match=r"teacher\.chat is true, but the tokenizer of .* has no chat template; set it to false, or"):
        Policy(settings(llama, chat=True))


def test_low_temperature_is_greedy(llama: str) -> None:
    cold = Policy(settings(llama, temperature=1e-4))
    assert len({cold.sample(PROMPTS[:1], [seed])[0] for seed in range(3)}) == 1
