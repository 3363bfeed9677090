"""What the tiny people's models are pretrained on: passages about invented people, and facts known by heart.

A model learns to write every kind of self-edit, good and bad, in fixed proportions (`world.EDIT_MIX`); to answer questions with a passage
in view; and, by heart, the facts of 256 people. No reward is measured here, and nobody from the train, validation and held-out splits
occurs.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from recipes.domains.knowledge_text import question_prompt, teacher_prompt, training_sequence
from recipes.machine_settings import Pretrain
from recipes.tiny import world
from recipes.tiny.encoding import Encoder, PlainModel, Probe, Segment, weighted_loss
from recipes.tiny.tokenizers import build_tokenizer

CONTEXT_WEIGHT, VALUE_WEIGHT, NAME_WEIGHT = 0.15, 3.0, 2.0


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


class People(PlainModel):
    """The curriculum; see `recipes.pretrain.Curriculum`."""

    def __init__(self, settings: Pretrain):
        self._settings = settings
        self.tokenizer = build_tokenizer(settings.split_names)
        values = [value for relation in world.RELATIONS.values() for value in relation.values]
        self.encoder = Encoder(self.tokenizer, CONTEXT_WEIGHT, {VALUE_WEIGHT: values, NAME_WEIGHT: world.FIRST + world.LAST})

    def steps(self) -> Iterator[dict[str, Any]]:
        """Of documents with a passage, and closed-book documents."""
        rng = random.Random(self._settings.seed)
        facts = world.population_facts(self._settings.by_heart == "others")
        width = self._settings.documents_per_step
        while True:  # documents of similar length share a batch: less padding
            documents = sorted((passage_document(rng) for _ in range(width * 8)), key=lambda d: sum(len(t) for t, _ in d))
            batches = [documents[i : i + width] for i in range(0, len(documents), width)]
            rng.shuffle(batches)
            for batch in batches:
                closed = [closed_book_document(rng, facts) for _ in range(self._settings.closed_book_per_step)]
                yield {"passages": self.encoder.encode(batch), "closed_book": self.encoder.encode(closed)}

    def loss(self, model: PreTrainedModel, inputs: dict[str, Any]) -> torch.Tensor:
        """Of both kinds of documents."""
        passages, closed = (weighted_loss(model, **inputs[kind]) for kind in ("passages", "closed_book"))
        return passages + self._settings.closed_book_weight * closed

    def probes(self) -> dict[str, list[Probe]]:
        """Of people of the validation split and of the population."""
        told = list(world.stories("validation", 24, seed=self._settings.seed))
        facts = world.population_facts(self._settings.by_heart == "others")
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
