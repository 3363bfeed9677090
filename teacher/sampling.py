"""Sampling with a seed per candidate: what is drawn does not depend on what else is in the batch."""

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor


class SeededGumbel(LogitsProcessor):
    """Adds Gumbel noise from each row's own generator, so that greedy decoding samples from the distribution.

    The arg max of log-probabilities plus Gumbel noise is an exact draw from them (Gumbel-max trick; Maddison et al.,
    arXiv 1411.0030, section 2). Put it after temperature and top-p, and decode with `do_sample=False`.
    """

    def __init__(self, seeds: Sequence[int]):
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores of shape (batch, vocabulary), masked tokens at minus infinity."""
        exponential = torch.stack([torch.empty(scores.shape[-1]).exponential_(generator=g) for g in self._generators])
        noisy = torch.log_softmax(scores.float(), dim=-1) - exponential.to(scores.device).log()
        return noisy  # type: ignore[return-value]
