"""The policy: a causal language model that writes self-edits. It is frozen; `teacher.finetune` makes the next one."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from protocol.prompts import tokenize
from teacher.loading import load
from teacher.sampling import SeededGumbel
from teacher.settings import TeacherSettings


class Policy:
    """A teacher at work."""

    def __init__(self, settings: TeacherSettings):
        """Load a full model, or a PEFT folder on its base.

        Raises:
            InvalidInput: A PEFT folder does not fit on the model, or it has no chat template to put prompts in.
        """
        self.settings = settings
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model, self.tokenizer = load(settings)
        self.model.to(self.device)

    def find_too_long(self, prompts: Sequence[str]) -> tuple[int, int, int] | None:
        """The first prompt that the model has no positions for: its index, its tokens, and the positions there are."""
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
        for index, prompt in enumerate(prompts):
            if self.settings.chat or len(prompt.encode(errors="replace")) >= positions:  # no token is shorter than a byte
                tokens = len(tokenize(self.tokenizer, [prompt], self.settings.chat).input_ids[0])
                if tokens >= positions:
                    return index, tokens, positions
        return None

    @torch.inference_mode()
    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Write one candidate per prompt, in one batch with a KV cache, until end of text or `max_new_tokens`.

        Args:
            seeds: One per prompt; the same prompt and seed give the same candidate in any batch.
        """
        chat = self.settings.chat
        batch = tokenize(self.tokenizer, prompts, chat, padding=True, padding_side="left", return_tensors="pt").to(self.device)
        processors = LogitsProcessorList([TemperatureLogitsWarper(self.settings.temperature)])
        if self.settings.top_p < 1:
            processors.append(TopPLogitsWarper(self.settings.top_p))
        processors.append(SeededGumbel(seeds))
        output: Any = self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            logits_processor=processors,
            max_new_tokens=self.settings.max_new_tokens,
        )
        texts: list[str] = self.tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return texts
