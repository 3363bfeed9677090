"""Tiny-world people as contexts."""

import random
from typing import Final

from protocol.errors import InvalidInput
from protocol.messages import Context, Question
from recipes.tiny import world

FACTS_SEED = 0
"""Fixed, so that a person has the same life in every recipe."""

_POPULATION: Final = {"population": slice(None), "population-tuning": slice(0, None, 2), "population-measured": slice(1, None, 2)}


def load_tiny(split: str, limit: int) -> tuple[list[Context], dict[str, str]]:
    """The first `limit` contexts of a split and, per context id, a self-edit known to be good.

    `population` gives no passages, only questions on what every tiny model knows by heart; `population-tuning` and `population-measured`
    are its two halves, every other person, so that what was tuned on one can be measured on the other.
    """
    if split in _POPULATION:
        facts = world.population_facts()
        people = [facts[start : start + len(world.RELATIONS)] for start in range(0, len(facts), len(world.RELATIONS))]
        return [Context(title=world.TITLE, questions=_questions(known)) for known in people[_POPULATION[split]][:limit]], {}
    if split not in ("train", "validation", "held_out"):
        raise InvalidInput(f"the tiny world has no split {split!r}; use train, validation, held_out or {', '.join(_POPULATION)}")
    contexts, references = [], {}
    for story in world.stories(split, limit, FACTS_SEED):
        context = Context(title=world.TITLE, passage=story.passage, questions=_questions(story.facts))
        contexts.append(context)
        references[context.id] = "\n".join(world.full(random.Random(FACTS_SEED), story))
    return contexts, references


def _questions(facts: list[world.Fact] | tuple[world.Fact, ...]) -> tuple[Question, ...]:
    return tuple(Question(text=fact.tested, answers=(fact.value,)) for fact in facts)
