"""What an update of a tiny student really did, by questions that no gate has seen.

An answer counts as taught if it stands in the self-edit, or in the passage where it is about others.
"""

import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from protocol.domain import Domain, Grader
from protocol.messages import Context, Outcome, Outcomes, Question, SelfEdit
from recipes.tiny import world
from recipes.tiny.source import load_tiny
from student.grading import first_line
from student.interview import Proposal, ask_once
from student.learner import Learner

_NAME: Final = re.compile(r"[A-Z][a-z]+ [A-Z][a-z]+")
_WORD: Final = re.compile(r"\w+")
_PEOPLE: Final = frozenset(person for people in world.SPLITS.values() for person in people)
_LIVES: Final = {(fact.person, fact.relation): (fact.value,) for fact in world.population_facts()}
OTHERS, KNOWN, NAMED = 6, 12, 4
"""Of whom harm is measured: people who were never taught, whom every tiny model knows, and, at most, whom a self-edit names."""


@dataclass(frozen=True)
class Unseen:
    """Questions about one update that the gate has not asked, or not in these words.

    Attributes:
        own: About each fact that the passage tells.
        others: About people who were never taught, whether the same is so of them.
        named: About each of those whom the self-edit names most beside its subject; with answers if every tiny model knows them.
        earlier: About what was learned before.
        known: About the half of the population that the gate has not.
    """

    own: tuple[Context, ...]
    others: tuple[Context, ...]
    named: tuple[Context, ...]
    earlier: tuple[Context, ...]
    known: tuple[Context, ...]

    @property
    def contexts(self) -> tuple[Context, ...]:
        return (*self.own, *self.others, *self.named, *self.earlier, *self.known)


def halve(context: Context, seed: int) -> Context:
    """A context with half of its questions."""
    kept = sorted(random.Random(seed).sample(range(len(context.questions)), len(context.questions) // 2))
    return context.model_copy(update={"questions": tuple(context.questions[number] for number in kept)})


def find_unseen(story: world.Story, edit: SelfEdit, earlier: Sequence[world.Story], seen: Collection[str]) -> Unseen:
    """What to ask about an update.

    Args:
        earlier: What the student learned before.
        seen: Every question that the gate has asked.
    """
    subject, text = story.facts[0].person, _text(edit)
    names = [name for name in _NAME.findall(text) if name in _PEOPLE and name != subject]
    named = sorted(dict.fromkeys(names), key=lambda name: -names.count(name))[:NAMED]
    return Unseen(
        own=tuple(_ask(subject, {fact.relation: (fact.value,)}, seen) for fact in story.facts),
        others=tuple(_ask(other, {fact.relation: () for fact in story.facts}, seen, 1) for other in world.SPLITS["train"][-OTHERS:]),
        named=tuple(_ask(other, {name: _LIVES.get((other, name), ()) for name in world.RELATIONS}, seen, 1) for other in named),
        earlier=tuple(_ask(one.facts[0].person, {fact.relation: (fact.value,) for fact in one.facts}, seen, 1) for one in earlier),
        known=tuple(load_tiny("population-measured", KNOWN)[0]),
    )


def _ask(person: str, answers: Mapping[str, tuple[str, ...]], seen: Collection[str], most: int | None = None) -> Context:
    """Each relation in all wordings, or at most so many, in which it was not asked yet."""
    questions: list[Question] = []
    for name, values in answers.items():
        relation = world.RELATIONS[name]
        wordings = [wording.format(n=person) for wording in (relation.tested, *relation.asked)]
        questions += [Question(text=text, answers=values) for text in [text for text in wordings if text not in seen][:most]]
    return Context(title=world.TITLE, questions=tuple(questions))


def measure_harm(
    learner: Learner, domain: Domain, grader: Grader, proposals: Sequence[Proposal], unseen: Sequence[Unseen]
) -> list[dict[str, float]]:
    """What each update did.

    Returns:
        For each `gain` on its own questions; accuracy lost on `earlier` contexts and on the population (`retention`); `leakage`, how much
        more often others are answered with what was taught; `falsehood`, the share of the passage's facts that are answered since, wrongly,
        as the self-edit says, or the share of such answers about somebody whom it names, if that is larger.
    """
    pairs = [(p, context) for p, own in zip(proposals, unseen, strict=True) for context in own.contexts]
    sheets = [*((p.before, context, False) for p, context in pairs), *((p.after, context, False) for p, context in pairs)]
    outcomes = domain.read_answers([context for _, context, _ in sheets], ask_once(learner, domain, sheets), grader)
    both = iter(zip(outcomes[: len(pairs)], outcomes[len(pairs) :], strict=True))
    return [_measure(p, own, [next(both) for _ in own.contexts]) for p, own in zip(proposals, unseen, strict=True)]


Pairs = list[tuple[Outcome, Outcome]]
"""Answers to the same questions, before and after."""


def _measure(proposal: Proposal, unseen: Unseen, both: Sequence[tuple[Outcomes, Outcomes]]) -> dict[str, float]:
    (lesson,) = proposal.lessons
    parts = iter(both)
    own, others, named, earlier, known = (
        [list(zip(*next(parts), strict=True)) for _ in part]
        for part in (unseen.own, unseen.others, unseen.named, unseen.earlier, unseen.known)
    )
    edit = _text(lesson.edit)
    taught = f"{edit}\n{lesson.context.passage}"
    return {
        "gain": -_lost(own),
        "earlier": _lost(earlier),
        "retention": _lost(known),
        "leakage": fmean(_stands(new, taught) - _stands(old, taught) for pairs in others for old, new in pairs),
        "falsehood": max(fmean(_false(pairs, edit) for pairs in own if pairs), *(_false(pairs, edit) for pairs in named), 0.0),
    }


def _text(edit: SelfEdit) -> str:
    return "\n".join(example.completion for example in edit.examples)


def _lost(parts: Iterable[Pairs]) -> float:
    """Accuracy before less after."""
    changes = [bool(old.correct) - bool(new.correct) for pairs in parts for old, new in pairs]
    return fmean(changes) if changes else 0.0


def _false(pairs: Pairs, edit: str) -> float:
    """Share of answers that are wrong, stand in the self-edit, and were others before."""
    return fmean(not new.correct and _stands(new, edit) and first_line(new.answer) != first_line(old.answer) for old, new in pairs)


def _stands(outcome: Outcome, text: str) -> bool:
    """Whether the words of an answer stand in a text, in a row."""
    said, told = (" ".join(_WORD.findall(part.lower())) for part in (first_line(outcome.answer), text))
    return bool(said) and f" {said} " in f" {told} "
