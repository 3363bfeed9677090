"""What the tiny few-shot teacher is pretrained on: to answer the published request with directives, drawn from a broad prior.

The prior does not depend on the task: augmentations and strategy by the toss of a coin, learning rates from 1e-5 to 1e-1 and epochs from 1
to 8, each as likely as the other. So the untrained teacher knows how directives are written, and nothing of which are good.
"""

import json
import random
from collections.abc import Iterator
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from protocol.messages import Context, Demonstration
from recipes.domains import DOMAINS
from recipes.domains.directives import DataGeneration
from recipes.domains.grids import to_text
from recipes.machine_settings import Pretrain
from recipes.tiny.encoding import SPECIAL, Encoder, PlainModel, Probe, Segment, finish_tokenizer, weighted_loss
from recipes.tiny.grids import SEEN, make_task

LEARNING_RATES: Final = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
EPOCHS: Final = (1, 2, 3, 4, 6, 8)
STRATEGIES: Final = ("train_using_all_tokens", "train_using_output_tokens")
CONTEXT_WEIGHT: Final = 0.02
VOCABULARY: Final = 512


def draw_directives(rng: random.Random) -> str:
    """Directives from the prior, as the request has them."""
    return json.dumps(
        {
            "data_generation": {name: rng.random() < 0.5 for name in DataGeneration.model_fields},
            "training": {
                "strategy": rng.choice(STRATEGIES),
                "learning_rate": rng.choice(LEARNING_RATES),
                "num_train_epochs": rng.choice(EPOCHS),
            },
        },
        indent=2,
    )


def draw_document(rng: random.Random) -> list[Segment]:
    """A task of a seen family, and directives for it."""
    pairs = None
    while pairs is None:
        pairs = make_task(rng, rng.choice(list(SEEN.values())), rng.randint(3, 6), rng.choice((3, 4, 5, 6)))
    shown = tuple(Demonstration(input=to_text(grid), output=to_text(result)) for grid, result in pairs)
    domain = DOMAINS["few_shot"]
    return [(domain.prompt(Context(demonstrations=shown), domain.styles[0]), False), (draw_directives(rng), True)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on such documents; any text can be read and written."""
    rng = random.Random(0)
    texts = ["".join(text for text, _ in draw_document(rng)) for _ in range(500)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token in SPECIAL if token != "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    return finish_tokenizer(tokenizer, longest=2048)


class DirectivesCurriculum(PlainModel):
    """The curriculum; see `recipes.pretrain.Curriculum`."""

    def __init__(self, settings: Pretrain):
        self._settings = settings
        self.tokenizer = build_tokenizer()
        self.encoder = Encoder(self.tokenizer, CONTEXT_WEIGHT)

    def steps(self) -> Iterator[dict[str, Any]]:
        rng = random.Random(self._settings.seed)
        while True:
            yield self.encoder.encode([draw_document(rng) for _ in range(self._settings.documents_per_step)])

    def loss(self, model: PreTrainedModel, inputs: dict[str, Any]) -> torch.Tensor:
        return weighted_loss(model, **inputs)

    def probes(self) -> dict[str, list[Probe]]:
        """How directives begin: what of them is no choice."""
        rng = random.Random(self._settings.seed + 1)
        prompts = [draw_document(rng)[0][0] for _ in range(16)]
        opening, chosen, _ = draw_directives(rng).partition('"use_basic_augmentations":')
        return {"opening": [(prompt, opening + chosen) for prompt in prompts]}
