"""The policy: a causal language model that writes self-edits. It is frozen; `teacher.finetune` makes the next one."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from teacher.loading import load
from teacher.sampling import SeededGumbel
from teacher.settings import TeacherSettings


class Policy:
    """A teacher at work."""

    def __init__(self, settings: TeacherSettings):
        """Load a full model, or a PEFT folder on its base.

        Raises:
            InvalidInput: A PEFT folder does not fit on the model.
        """
        self.settings = settings
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model, self.tokenizer = load(settings)
        self.model.to(self.device)

    @torch.inference_mode()
    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Write one candidate per prompt, in one batch with a KV cache, until end of text or `max_new_tokens`.

        Args:
            seeds: One per prompt; the same prompt and seed give the same candidate in any batch.
        """
        batch = self.tokenizer(list(prompts), padding=True, padding_side="left", return_tensors="pt").to(self.device)
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
