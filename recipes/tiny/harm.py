"""What an update of a tiny student really did, by questions that no gate has seen.

An answer counts as taught if it stands in the self-edit, or in the passage where it is about others.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from protocol.domain import Domain, Grader
from protocol.messages import Context, Outcome, Outcomes, Question
from recipes.graders.words import contained, first_line
from recipes.tiny import world
from student.interview import Proposal, ask_once
from student.learner import Learner

_NAME: Final = re.compile(r"[A-Z][a-z]+ [A-Z][a-z]+")
_PEOPLE: Final = frozenset(person for people in world.SPLITS.values() for person in people)
NAMED: Final = 4
"""Of those whom a self-edit names beside its subject so many are asked about, those named most."""


@dataclass(frozen=True)
class Unseen:
    """Questions about one trial that the gate does not see.

    Attributes:
        own: About the facts that the gate has no question about.
        others: The same questions about people who were never taught.
        named: Questions about those whom the self-edit names beside its subject, of whom the gate has no question in these words. With
            answers for those whom every tiny model knows.
        earlier: The other half of the questions about what was learned before.
        known: Questions about the half of the population that the gate has not.
    """

    own: Context
    others: tuple[Context, ...]
    named: tuple[Context, ...]
    earlier: tuple[Context, ...]
    known: tuple[Context, ...]

    @property
    def contexts(self) -> tuple[Context, ...]:
        return (self.own, *self.others, *self.named, *self.earlier, *self.known)


def halve(context: Context, facts: Sequence[world.Fact], seed: int) -> tuple[Context, tuple[world.Fact, ...]]:
    """A context with half of its questions, for the gate, and the facts that the other half is about."""
    order = list(range(len(facts)))
    random.Random(seed).shuffle(order)
    seen = sorted(order[: len(order) // 2])
    unseen = tuple(fact for number, fact in enumerate(facts) if number not in seen)
    return context.model_copy(update={"questions": tuple(context.questions[number] for number in seen)}), unseen


def ask_about(facts: Sequence[world.Fact], person: str | None = None) -> Context:
    """The facts' questions, in the wording of evaluation; about another person they have no answers."""
    return Context(
        title=world.TITLE,
        questions=tuple(
            Question(text=world.RELATIONS[fact.relation].tested.format(n=person or fact.person), answers=() if person else (fact.value,))
            for fact in facts
        ),
    )


def ask_about_named(edit: str, subject: str, unseen: Sequence[world.Fact], told: Sequence[world.Fact]) -> tuple[Context, ...]:
    """Of the people whom a self-edit names beside its subject.

    Args:
        unseen, told: The facts that the gate has no question about, and all that the passage tells.
    """
    seen = {fact.relation for fact in told} - {fact.relation for fact in unseen}
    relations = [name for name in world.RELATIONS if name not in seen]
    names = [name for name in _NAME.findall(edit) if name in _PEOPLE and name != subject]
    people = sorted(dict.fromkeys(names), key=lambda name: -names.count(name))[:NAMED]
    known = {(fact.person, fact.relation): (fact.value,) for fact in world.population_facts()}
    return tuple(
        Context(
            title=world.TITLE,
            questions=tuple(
                Question(text=world.RELATIONS[name].tested.format(n=person), answers=known.get((person, name), ())) for name in relations
            ),
        )
        for person in people
    )


def measure_harm(
    learner: Learner, domain: Domain, grader: Grader, proposals: Sequence[Proposal], unseen: Sequence[Unseen]
) -> list[dict[str, float]]:
    """What each update did.

    Returns:
        For each `gain` on its own unseen questions; accuracy lost on `earlier` contexts and on the population (`retention`); `leakage`, how
        much more often others are answered with what was taught; `falsehood`, the share of its own unseen questions that are wrong and
        answered as the self-edit says since, or the share of such answers about somebody whom it names, if that is larger.
    """
    pairs = [(p, context) for p, own in zip(proposals, unseen, strict=True) for context in own.contexts]
    sheets = [*((p.before, context, False) for p, context in pairs), *((p.after, context, False) for p, context in pairs)]
    outcomes = domain.read_answers([context for _, context, _ in sheets], ask_once(learner, domain, sheets), grader)
    both = iter(zip(outcomes[: len(pairs)], outcomes[len(pairs) :], strict=True))
    return [_measure(p, own, [next(both) for _ in own.contexts]) for p, own in zip(proposals, unseen, strict=True)]


def _measure(proposal: Proposal, unseen: Unseen, both: list[tuple[Outcomes, Outcomes]]) -> dict[str, float]:
    (lesson,) = proposal.lessons
    edit = "\n".join(example.completion for example in lesson.edit.examples)
    parts = iter(both)
    own, others, named, earlier, known = (
        [next(parts) for _ in part] for part in ((unseen.own,), unseen.others, unseen.named, unseen.earlier, unseen.known)
    )
    taught = f"{edit}\n{lesson.context.passage}"
    leaks = [(_stands(old, taught), _stands(new, taught)) for before, after in others for old, new in zip(before, after, strict=True)]
    return {
        "gain": -_lost(own),
        "earlier": _lost(earlier),
        "retention": _lost(known),
        "leakage": fmean(new - old for old, new in leaks),
        "falsehood": max(_false([pair], edit) for pair in (*own, *named)),
    }


def _lost(pairs: Sequence[tuple[Outcomes, Outcomes]]) -> float:
    """Accuracy before less after."""
    changes = [bool(old.correct) - bool(new.correct) for before, after in pairs for old, new in zip(before, after, strict=True)]
    return fmean(changes) if changes else 0.0


def _false(pairs: Sequence[tuple[Outcomes, Outcomes]], edit: str) -> float:
    """Share of answers that are wrong, stand in the self-edit, and were others before."""
    answers = [(old, new) for before, after in pairs for old, new in zip(before, after, strict=True)]
    return fmean(not new.correct and _stands(new, edit) and first_line(new.answer) != first_line(old.answer) for old, new in answers)


def _stands(outcome: Outcome, text: str) -> bool:
    return bool(contained(text, first_line(outcome.answer)))
