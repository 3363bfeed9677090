"""Pretrain a tiny language model on the tiny world, from scratch.

It makes the checkpoints that the embedded default runs on. The model learns to write every kind of self-edit, good and
bad, in fixed proportions (`world.EDIT_MIX`); to answer questions with a passage in view; and, by heart, the facts of
256 people. No reward is measured here, and nobody from the train, validation and held-out splits occurs.
"""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import IterableDataset
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from recipes.domains.knowledge_text import question_prompt, teacher_prompt, training_sequence
from recipes.run_folder import RunFolder
from recipes.settings import Pretrain
from recipes.team import Team
from recipes.terminal import console
from recipes.tiny import world
from recipes.tiny.tokenizers import build_tokenizer

CONTEXT_WEIGHT, VALUE_WEIGHT, NAME_WEIGHT = 0.15, 3.0, 2.0

Segment = tuple[str, bool]
"""Text, and whether the model is to learn to write it (True) or mostly to read it (False)."""


def passage_document(rng: random.Random) -> list[Segment]:
    """A passage followed by what a reader makes of it."""
    people = rng.sample(world.SPLITS["pretrain"], 2)
    if rng.random() < 0.5:
        people = people[:1]
    facts_each = rng.randint(3, 6) if len(people) == 1 else rng.randint(2, 4)
    story = world.make_story(rng, people, facts_each, named=rng.choice((0.0, 0.0, 0.5, 1.0)))
    kind = rng.random()
    if kind < 0.45:
        write = rng.choices(list(world.EDIT_MIX), list(world.EDIT_MIX.values()))[0]
        return _answered("implications", story, write(rng, story))
    if kind < 0.60:
        return _answered(rng.choice(("implications-long", "implications-very-long")), story, world.full(rng, story))
    if kind < 0.75:
        blocks = [line.removeprefix("Question: ").replace("? Answer", "?\nAnswer") for line in world.questions(rng, story)]
        numbered = [block if n == 1 else f"Question {n}: {block}" for n, block in enumerate(blocks, start=1)]
        return _answered("self-qa", story, numbered)
    if kind < 0.83:
        return _answered("rewrite", story, world.rewritten(rng, story))
    segments: list[Segment] = [(f"Passage:\n{world.TITLE}\n{story.passage}\n\n", False)]
    for fact in rng.sample(story.facts, min(4, len(story.facts))):
        wording = rng.choice((world.RELATIONS[fact.relation].tested,) * 2 + tuple(world.RELATIONS[fact.relation].asked))
        segments += [(question_prompt(world.TITLE, wording.format(n=fact.person)), False), (fact.value + "\n", True)]
    return segments


def _answered(style: str, story: world.Story, lines: Sequence[str]) -> list[Segment]:
    return [(teacher_prompt(style, world.TITLE, story.passage), False), ("\n".join(lines), True)]


def closed_book_document(rng: random.Random, facts: Sequence[world.Fact]) -> list[Segment]:
    """One fact known by heart. Of the second half of the population only statements are ever seen, so that answering
    questions about them shows whether statements turn into answers.
    """
    index = rng.randrange(len(facts))
    fact, kind = facts[index], rng.random()
    if index >= len(facts) // 2 or kind < 0.5:
        return [(training_sequence(world.TITLE, fact.stated(rng)), True)]
    if kind < 0.65:
        return [(training_sequence(world.TITLE, fact.asked(rng)), True)]
    wording = rng.choice((world.RELATIONS[fact.relation].tested, *world.RELATIONS[fact.relation].asked))
    return [(question_prompt(world.TITLE, wording.format(n=fact.person)), False), (fact.value, True)]


class Encoder:
    """Turns documents into padded `input_ids` and per-token loss weights, both of shape (batch, time)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer
        self.weights = torch.ones(len(tokenizer))
        for texts, weight in (
            ([v for r in world.RELATIONS.values() for v in r.values], VALUE_WEIGHT),
            (world.FIRST + world.LAST, NAME_WEIGHT),
        ):
            for ids in tokenizer(texts, add_special_tokens=False).input_ids:
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
                weights += self.weights[piece].tolist() if learned else [CONTEXT_WEIGHT] * len(piece)
            rows.append([*ids, self.tokenizer.eos_token_id])
            row_weights.append([*weights, 1.0])
        width = max(map(len, rows))
        return {
            "input_ids": torch.tensor([row + [self.tokenizer.pad_token_id] * (width - len(row)) for row in rows]),
            "weights": torch.tensor([row + [0.0] * (width - len(row)) for row in row_weights]),
        }


class TrainingStream(IterableDataset[dict[str, Any]]):
    """An endless stream of training steps: documents with a passage, and closed-book documents."""

    def __init__(self, settings: Pretrain, encoder: Encoder):
        self.settings, self.encoder = settings, encoder

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rng = random.Random(self.settings.seed)
        facts = world.population_facts()
        width = self.settings.passages_per_step
        while True:  # documents of similar length share a batch: less padding
            documents = sorted((passage_document(rng) for _ in range(width * 8)), key=lambda d: sum(len(t) for t, _ in d))
            batches = [documents[i : i + width] for i in range(0, len(documents), width)]
            rng.shuffle(batches)
            for batch in batches:
                closed = [closed_book_document(rng, facts) for _ in range(self.settings.closed_book_per_step)]
                yield {"passages": self.encoder.encode(batch), "closed_book": self.encoder.encode(closed)}


def weighted_loss(model: PreTrainedModel, input_ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss in nats under per-token weights. Right padding needs no mask under causal attention."""
    logits = model(input_ids=input_ids).logits[:, :-1].flatten(0, 1).float()
    losses = cross_entropy(logits, input_ids[:, 1:].flatten(), reduction="none")
    weights = weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


Probe = tuple[str, str]
"""A prompt and the answer it should get."""


def probes(settings: Pretrain) -> dict[str, list[Probe]]:
    """What the model should learn to answer, from people of the validation split and of the population."""
    told = list(world.stories("validation", 24, seed=settings.seed))
    facts = world.population_facts()
    half = len(facts) // 2

    def asked(fact: world.Fact) -> Probe:
        return question_prompt(world.TITLE, fact.tested), fact.value

    return {
        "answer_in_context": [
            (f"Passage:\n{world.TITLE}\n{story.passage}\n\n" + asked(fact)[0], fact.value) for story in told for fact in story.facts
        ],
        "answer_unknown": [asked(fact) for story in told for fact in story.facts],
        "answer_by_heart": [asked(fact) for fact in facts[:256]],
        "answer_from_statements": [asked(fact) for fact in facts[half : half + 256]],
    }


class PretrainTrainer(Trainer):
    """The stock `Trainer` with the two-part weighted loss, evaluated by exact answers."""

    def __init__(self, *, closed_book_weight: float, encoder: Encoder, **arguments: Any):
        super().__init__(**arguments)
        self.closed_book_weight, self.encoder = closed_book_weight, encoder
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        loss = weighted_loss(model, **inputs["passages"]) + self.closed_book_weight * weighted_loss(model, **inputs["closed_book"])
        return (loss, {}) if return_outputs else loss

    @torch.no_grad()
    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        self.model.eval()
        metrics = {name: self._accuracy(asked) for name, asked in self.eval_dataset.items()}
        self.model.train()
        self.log(metrics)
        return metrics

    def _accuracy(self, asked: Sequence[Probe]) -> float:
        """Share answered exactly: every token of the answer is the most likely one after the true ones before it."""
        correct = 0
        for start in range(0, len(asked), 64):
            rows = [[(prompt, False), (answer, True)] for prompt, answer in asked[start : start + 64]]
            batch = self.encoder.encode(rows)
            guessed = self.model(input_ids=batch["input_ids"]).logits[:, :-1].argmax(-1)
            truth = batch["input_ids"][:, 1:]
            answered = (batch["weights"][:, 1:] > CONTEXT_WEIGHT) & (truth != self.encoder.tokenizer.eos_token_id)
            correct += ((guessed == truth) | ~answered).all(1).sum().item()
        return correct / len(asked)


def run(settings: Pretrain, team: Team) -> None:
    """Train from scratch and save the model, its tokenizer and its losses (`training.json`) to `settings.output`."""
    with RunFolder(settings, {}, {}, team) as folder:
        set_seed(settings.seed)
        tokenizer = build_tokenizer(settings.split_names)
        architecture = AutoConfig.for_model(
            **settings.architecture,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
            max_position_embeddings=1024,
        )
        model = AutoModelForCausalLM.from_config(architecture, attn_implementation="eager", dtype=torch.float32)
        encoder = Encoder(tokenizer)
        checkpoints = folder.path / "checkpoints"
        trainer = PretrainTrainer(
            model=model,
            args=training_arguments(settings, checkpoints),
            train_dataset=TrainingStream(settings, encoder),
            eval_dataset=probes(settings),
            data_collator=lambda steps: steps[0],
            closed_book_weight=settings.closed_book_weight,
            encoder=encoder,
        )
        trainer.train(resume_from_checkpoint=any(checkpoints.glob("checkpoint-*")))
        output = Path(settings.output)
        model.save_pretrained(output)
        tokenizer.save_pretrained(output)
        history = [row for row in trainer.state.log_history if "loss" in row or "answer_in_context" in row]
        (output / "training.json").write_text(json.dumps(history, indent=1) + "\n")
    console.print(f"model: {output}")


def training_arguments(settings: Pretrain, checkpoints: Path) -> TrainingArguments:
    """AdamW, cosine decay to a twentieth, bfloat16 autocast over float32 weights."""
    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.05},
        warmup_steps=200,
        adam_beta2=0.98,
        weight_decay=0.05,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=100,
        eval_strategy="steps",
        eval_steps=settings.evaluate_every,
        save_steps=settings.evaluate_every,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
        remove_unused_columns=False,
        seed=settings.seed,
    )
