"""Greedy answers to many questions in one batch: by one model, or by each question's own adapter."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from protocol.errors import InnerLoopFailed
from protocol.prompts import tokenize
from student.sft import is_out_of_memory, release_memory
from student.stacked import Adapter, Stack, stack_adapters

T = TypeVar("T")


@torch.no_grad()  # in inference mode, what ZeRO gathers could not be trained afterwards
def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
    chat: bool = False,
) -> list[str]:
    """Continue every prompt greedily until the end-of-text token or `max_new_tokens`.

    Args:
        batch_size: How many at once; out of memory, half as many, unless the model is spread over processes.
        chat: Put prompts in chat.

    Returns:
        One answer per prompt, in order, without the prompt and special tokens.
    """
    spread = is_spread(model)

    def ask(part: Sequence[str]) -> list[str]:
        return _generate(model, tokenizer, part, max_new_tokens, chat, spread)

    return _in_batches(prompts, batch_size, ask, may_halve=not spread)


@torch.inference_mode()
def answer_routed(
    stack: Stack, adapters: Sequence[Adapter], scales: Sequence[float], prompts: Sequence[Sequence[str]], answer_tokens: Sequence[int]
) -> list[list[str]]:
    """Ask every adapter its own prompts.

    Args:
        scales, prompts, answer_tokens: Of each adapter: what it is multiplied by, what it is asked, and its longest answer.

    Returns:
        For each adapter one answer per prompt, as `answer` would give with it alone.
    """
    answers = [[""] * len(own) for own in prompts]
    for longest in sorted(set(answer_tokens)):
        asked = [(i, text) for i, own in enumerate(prompts) if answer_tokens[i] == longest for text in own]

        def ask(part: Sequence[tuple[int, str]], longest: int = longest) -> list[str]:
            return _generate_routed(stack, adapters, scales, part, longest)

        given = iter(_in_batches(asked, stack.base.settings.answer_batch, ask))
        for i, own in enumerate(prompts):
            if answer_tokens[i] == longest:
                answers[i] = [next(given) for _ in own]
    return answers


def is_spread(model: torch.nn.Module) -> bool:
    """Whether ZeRO stage 3 has spread a model over processes: then all must take every step together."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def _in_batches(asked: Sequence[T], batch_size: int, ask: Callable[[Sequence[T]], list[str]], may_halve: bool = True) -> list[str]:
    answers: list[str] = []
    while len(answers) < len(asked):
        try:
            answers += ask(asked[len(answers) : len(answers) + batch_size])
            continue
        except (RuntimeError, MemoryError) as error:
            if not (may_halve and is_out_of_memory(error)):
                raise
        if batch_size == 1:
            raise InnerLoopFailed("out of memory at a single question; take a smaller student or dtype")
        release_memory()
        batch_size //= 2
    return answers


def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    chat: bool,
    spread: bool = False,
) -> list[str]:
    greedy = GenerationConfig(max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    batch = tokenize(tokenizer, prompts, chat, padding=True, padding_side="left", return_tensors="pt").to(model.device)
    output = model.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], generation_config=greedy, synced_gpus=spread
    )
    texts: list[str] = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def _generate_routed(
    stack: Stack, adapters: Sequence[Adapter], scales: Sequence[float], part: Sequence[tuple[int, str]], answer_tokens: int
) -> list[str]:
    """Ask some prompts, each with its adapter's number, in order."""
    owners = sorted({i for i, _ in part})
    counts = [sum(i == owner for i, _ in part) for owner in owners]
    model, tokenizer, chat = stack.base.model.get_base_model(), stack.base.tokenizer, stack.base.settings.chat
    pairs = stack_adapters([adapters[i] for i in owners])
    if stack.device.type == "cuda":  # once, and not at every token
        pairs = [(a.to(model.dtype), b.to(model.dtype)) for a, b in pairs]
    with stack.routed(pairs, [scales[i] for i in owners], counts):
        return _generate(model, tokenizer, [text for _, text in part], answer_tokens, chat)
