"""What the tiny grid student is pretrained on: tasks of the seen families, in the `cells` notation, from few demonstrations to more.

Nothing of the unseen families occurs. A vocabulary of a token for each cell says its side, colour, row and column, and while the model is
trained its embedding is a sum over these, so that what is learned of one token is learned of all that share a part with it.
"""

import random
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Final

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import linear
from transformers import AutoModel, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from recipes.domains.grids import CELL_WORD, COLOURS, SIZE_WORD, cell_word, size_word, write_output, write_task
from recipes.machine_settings import Pretrain
from recipes.tiny.encoding import SPECIAL, Encoder, Probe, Segment, finish_tokenizer, weighted_loss
from recipes.tiny.grids import SEEN, TINY_SIDE, UNSEEN, Family, Pair, make_task

CONTEXT_WEIGHT: Final = 0.05
LONGEST: Final = 300
"""Tokens of a document."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of 762 words: one for each cell, size and role."""
    sides = range(TINY_SIDE)
    sizes = [size_word(height + 1, width + 1) for height in sides for width in sides]
    cells = [cell_word(side, colour, row, column) for side in "io" for colour in range(COLOURS) for row in sides for column in sides]
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, "in", "out", *sizes, *cells])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return finish_tokenizer(tokenizer)


def list_parts(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Which parts each token has: zeros and ones of shape (vocabulary, parts)."""
    named: dict[int, list[str]] = {}
    for word, index in tokenizer.get_vocab().items():
        if cell := CELL_WORD.fullmatch(word):
            side, colour, row, column = cell.groups()
            named[index] = [side, f"colour {colour}", f"row {row}", f"column {column}", f"place {row} {column}", f"{side} colour {colour}"]
        elif size := SIZE_WORD.fullmatch(word):
            height, width = size.groups()
            named[index] = [f"height {height}", f"width {width}", word]
        else:
            named[index] = [word]
    parts = {part: number for number, part in enumerate(sorted({part for own in named.values() for part in own}))}
    table = torch.zeros(len(named), len(parts))
    for index, own in named.items():
        table[index, [parts[part] for part in own]] = 1.0
    return table


class SumOfParts(torch.nn.Module):
    """A model whose embeddings, of input and output alike, are sums over the parts of each token."""

    parts: torch.Tensor

    def __init__(self, architecture: PretrainedConfig, parts: torch.Tensor):
        super().__init__()
        self.inner = AutoModel.from_config(architecture, attn_implementation="sdpa", dtype=torch.float32)
        self.inner.get_input_embeddings().requires_grad_(False)
        self.register_buffer("parts", parts, persistent=False)
        self.embeddings = torch.nn.Parameter(torch.randn(parts.shape[1], architecture.hidden_size) * 0.02)

    def table(self) -> torch.Tensor:
        """The embeddings, of shape (vocabulary, hidden)."""
        return self.parts @ self.embeddings

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        table = self.table()
        hidden = self.inner(inputs_embeds=table[input_ids]).last_hidden_state
        return SimpleNamespace(logits=linear(hidden, table.to(hidden.dtype)))


def task_document(pairs: Sequence[Pair]) -> list[Segment]:
    """Demonstrations one after the other; every output is to be learned."""
    segments: list[Segment] = []
    for grid, result in pairs:
        segments += [(write_task([], grid, "cells"), False), (write_output(result, "cells") + "\n", True)]
    return segments


def count_tokens(pairs: Sequence[Pair]) -> int:
    return 2 + sum(4 + grid.size + result.size for grid, result in pairs)


def draw_task(rng: random.Random, family: Family, counts: Sequence[int], max_side: int) -> Sequence[Pair]:
    while True:
        pairs = make_task(rng, family, rng.choice(counts), max_side)
        if pairs and count_tokens(pairs) <= LONGEST:
            return pairs


class Grids:
    """The curriculum; see `recipes.pretrain.Curriculum`."""

    def __init__(self, settings: Pretrain):
        self._settings = settings
        self.tokenizer = build_tokenizer()
        self.encoder = Encoder(self.tokenizer, CONTEXT_WEIGHT)

    def build(self, architecture: PretrainedConfig) -> SumOfParts:
        return SumOfParts(architecture, list_parts(self.tokenizer))

    def finish(self, model: SumOfParts) -> PreTrainedModel:
        """The same as an ordinary model, with a table of embeddings."""
        whole: PreTrainedModel = AutoModelForCausalLM.from_config(model.inner.config, dtype=torch.float32)
        whole.base_model.load_state_dict(model.inner.state_dict())
        whole.get_input_embeddings().weight.data.copy_(model.table())
        whole.tie_weights()
        return whole

    def steps(self) -> Iterator[dict[str, Any]]:
        """Small grids first, then larger ones."""
        rng, families = random.Random(self._settings.seed), list(SEEN.values())
        width, made = self._settings.documents_per_step, 0
        while True:  # documents of similar length share a batch: less padding
            done = made / self._settings.steps
            sides = (3,) if done < 0.06 else (4,) if done < 0.25 else (4, 5, 5, 6)
            tasks = [draw_task(rng, rng.choice(families), (3, 4, 5, 6), rng.choice(sides)) for _ in range(width * 8)]
            tasks.sort(key=count_tokens)
            batches = [tasks[i : i + width] for i in range(0, len(tasks), width)]
            rng.shuffle(batches)
            for batch in batches:
                made += 1
                yield self.encoder.encode([task_document(pairs) for pairs in batch])

    def loss(self, model: SumOfParts, inputs: dict[str, Any]) -> torch.Tensor:
        return weighted_loss(model, **inputs)

    def probes(self) -> dict[str, list[Probe]]:
        """The last output of tasks of five pairs, of families that are seen and of those that are not."""
        rng = random.Random(self._settings.seed + 1)
        drawn = {
            name: [draw_task(rng, family, (5,), 4) for family in families.values() for _ in range(8)]
            for name, families in (("seen_families", SEEN), ("unseen_families", UNSEEN))
        }
        return {
            name: [(write_task(pairs[:-1], pairs[-1][0], "cells"), write_output(pairs[-1][1], "cells")) for pairs in tasks]
            for name, tasks in drawn.items()
        }
