"""Greedy answers to many questions in one batch: by one model, or by each question's own adapter."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from protocol.errors import InnerLoopFailed
from protocol.prompts import tokenize
from student.inner_loop import InnerLoop
from student.sft import is_out_of_memory, release_memory
from student.stacked import Stack

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
def answer_routed(stack: Stack, loops: Sequence[InnerLoop], rows: Sequence[torch.Tensor]) -> list[list[str]]:
    """Ask every inner loop's prompts of its own adapter.

    Args:
        rows: One adapter per loop, a row of the stack.

    Returns:
        For each inner loop one answer per prompt, as `answer` would give with that adapter alone.
    """
    answers = [[""] * len(loop.prompts) for loop in loops]
    for longest in sorted({loop.answer_tokens for loop in loops}):
        asked = [(i, n) for i, loop in enumerate(loops) if loop.answer_tokens == longest for n in range(len(loop.prompts))]
        texts = _in_batches(asked, stack.base.settings.answer_batch, lambda part: _generate_routed(stack, loops, rows, part))
        for (i, n), text in zip(asked, texts, strict=True):
            answers[i][n] = text
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


def _generate_routed(stack: Stack, loops: Sequence[InnerLoop], rows: Sequence[torch.Tensor], part: Sequence[tuple[int, int]]) -> list[str]:
    """Ask some prompts, given as (loop, prompt) in order, each of its loop's adapter."""
    owners = sorted({i for i, _ in part})
    counts = [sum(i == owner for i, _ in part) for owner in owners]
    model, tokenizer, chat = stack.base.model.get_base_model(), stack.base.tokenizer, stack.base.settings.chat
    adapters = torch.stack([rows[i] for i in owners])
    if stack.device.type == "cuda":  # once, and not at every token
        adapters = adapters.to(model.dtype)
    with stack.routed(stack.pairs(adapters), [loops[i].plan.rank for i in owners], counts):
        return _generate(model, tokenizer, [loops[i].prompts[n] for i, n in part], loops[owners[0]].answer_tokens, chat)
