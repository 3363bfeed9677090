"""Documents of which some parts are to be learned more than others, as tensors; and how well a model answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from tokenizers import Tokenizer, processors
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

Segment = tuple[str, bool]
"""Text, and whether the model is to learn to write it (True) or mostly to read it (False)."""
Probe = tuple[str, str]
"""A prompt and the answer it should get."""


SPECIAL: Final = ("<pad>", "<bos>", "<eos>", "<unk>")
"""Tokens that every vocabulary begins with; the last, where not every text can be written."""


def finish_tokenizer(tokenizer: Tokenizer, longest: int = 1024) -> PreTrainedTokenizerFast:
    """A tokenizer as transformers has it: texts begin with `<bos>`, and nothing is tidied up."""
    bos = ("<bos>", tokenizer.token_to_id("<bos>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[bos])
    names = {f"{token.strip('<>')}_token": token for token in SPECIAL if tokenizer.token_to_id(token) is not None}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, model_max_length=longest, **names)


class PlainModel:
    """The part of a curriculum whose model is trained and saved as it is."""

    def build(self, architecture: PretrainedConfig) -> PreTrainedModel:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(architecture, attn_implementation="eager", dtype=torch.float32)
        return model

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        return model


class Encoder:
    """Turns documents into padded `input_ids` and per-token loss weights, both of shape (batch, time)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, context_weight: float, emphasis: Mapping[float, Sequence[str]] = {}):
        """What is learned weighs 1, what is read `context_weight`, and the tokens of some texts more: `emphasis`, by their weight."""
        self.tokenizer, self.context_weight = tokenizer, context_weight
        self.weights = torch.ones(len(tokenizer))
        for weight, texts in emphasis.items():
            for ids in tokenizer(list(texts), add_special_tokens=False).input_ids:
                self.weights[ids] = weight

    def encode(self, documents: Sequence[Sequence[Segment]]) -> dict[str, torch.Tensor]:
        texts = [text for document in documents for text, _ in document]
        pieces = iter(self.tokenizer(texts, add_special_tokens=False).input_ids)
        rows, row_weights = [], []
        for document in documents:
            ids, weights = [self.tokenizer.bos_token_id], [0.0]
            for _, learned in document:
                piece = next(pieces)
                ids += piece
                weights += self.weights[piece].tolist() if learned else [self.context_weight] * len(piece)
            rows.append([*ids, self.tokenizer.eos_token_id])
            row_weights.append([*weights, 1.0])
        width = max(map(len, rows))
        return {
            "input_ids": torch.tensor([row + [self.tokenizer.pad_token_id] * (width - len(row)) for row in rows]),
            "weights": torch.tensor([row + [0.0] * (width - len(row)) for row in row_weights]),
        }


def weighted_loss(model: Any, input_ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss in nats under per-token weights. Right padding needs no mask under causal attention."""
    logits = model(input_ids=input_ids).logits[:, :-1].flatten(0, 1).float()
    losses = cross_entropy(logits, input_ids[:, 1:].flatten(), reduction="none")
    weights = weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def share_correct(model: Any, encoder: Encoder, asked: Sequence[Probe]) -> float:
    """Share answered exactly: every token of the answer is the most likely one after the true ones before it."""
    correct = 0
    for start in range(0, len(asked), 64):
        rows = [[(prompt, False), (answer, True)] for prompt, answer in asked[start : start + 64]]
        batch = encoder.encode(rows)
        guessed = model(input_ids=batch["input_ids"]).logits[:, :-1].argmax(-1)
        truth = batch["input_ids"][:, 1:]
        answered = (batch["weights"][:, 1:] > encoder.context_weight) & (truth != encoder.tokenizer.eos_token_id)
        correct += ((guessed == truth) | ~answered).all(1).sum().item()
    return correct / len(asked)
