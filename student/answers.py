"""Greedy answers to many questions in one batch: by one model, or by each question's own adapter."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from student.inner_loop import InnerLoop
from student.sft import is_out_of_memory, release_memory
from student.stacked import Stack


@torch.inference_mode()
def answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_new_tokens: int, batch_size: int
) -> list[str]:
    """Continue every prompt greedily until the end-of-text token or `max_new_tokens`.

    Returns:
        One answer per prompt, in order, without the prompt and special tokens.
    """
    greedy = GenerationConfig(max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    answers: list[str] = []
    for start in range(0, len(prompts), batch_size):
        batch = tokenizer(list(prompts[start : start + batch_size]), padding=True, padding_side="left", return_tensors="pt")
        batch = batch.to(model.device)
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            generation_config=greedy,
        )
        answers += tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


@torch.inference_mode()
def answer_routed(stack: Stack, loops: Sequence[InnerLoop], rows: Sequence[torch.Tensor]) -> list[list[str]]:
    """Ask every inner loop's prompts of its own adapter.

    Args:
        rows: One adapter per loop, a row of the stack.

    Returns:
        For each inner loop one answer per prompt, as `answer` would give with that adapter alone.
    """
    answers = [[""] * len(loop.prompts) for loop in loops]
    batch_size = stack.base.settings.answer_batch
    for longest in sorted({loop.answer_tokens for loop in loops}):
        asked = [(i, n) for i, loop in enumerate(loops) if loop.answer_tokens == longest for n in range(len(loop.prompts))]
        for start in range(0, len(asked), batch_size):
            part = asked[start : start + batch_size]
            for (i, n), text in zip(part, _answer_part(stack, loops, rows, part), strict=True):
                answers[i][n] = text
    return answers


def _answer_part(stack: Stack, loops: Sequence[InnerLoop], rows: Sequence[torch.Tensor], part: Sequence[tuple[int, int]]) -> list[str]:
    """Ask some prompts, given as (loop, prompt) in order, at once; out of memory, half of them at a time."""
    owners = sorted({i for i, _ in part})
    counts = [sum(i == owner for i, _ in part) for owner in owners]
    pairs = stack.pairs(torch.stack([rows[i] for i in owners]))
    base = stack.base
    try:
        with stack.routed(pairs, [loops[i].plan.rank for i in owners], counts):
            prompts = [loops[i].prompts[n] for i, n in part]
            return answer(base.model.get_base_model(), base.tokenizer, prompts, loops[owners[0]].answer_tokens, len(part))
    except RuntimeError as error:
        if not is_out_of_memory(error) or len(part) == 1:
            raise
    release_memory()
    half = len(part) // 2
    return _answer_part(stack, loops, rows, part[:half]) + _answer_part(stack, loops, rows, part[half:])
