"""Answers become outcomes: those of a whole cohort are graded in one go, since a grader may take long."""

import itertools
from collections.abc import Callable, Sequence

from protocol.domain import Domain, Grader
from protocol.messages import Change, Context, Outcome, Outcomes, Task, graded_twice
from protocol.processes import is_first_process


def by_context(domain: Domain, contexts: Sequence[Context], answers: Sequence[str]) -> list[tuple[Context, Sequence[str]]]:
    """Answers to all contexts' prompts in order, each context's own."""
    left = iter(answers)
    return [(context, list(itertools.islice(left, len(domain.ask(context))))) for context in contexts]


def grade(resolve: Callable[[Task], tuple[Domain, Grader]], asked: Sequence[tuple[Task, Context, Sequence[str]]]) -> list[Outcomes]:
    """The outcomes of the answers about each context, in order.

    Where several processes do the same together, the first asks the grader, and only what it returns is used.

    Args:
        resolve: The domain and the grader of a task.
    """
    if not is_first_process():
        return [tuple(Outcome(answer=answer, correct=None) for answer in answers) for _, _, answers in asked]
    graded: list[Outcomes] = [()] * len(asked)
    for task in {task: None for task, _, _ in asked}:
        domain, grader = resolve(task)
        own = [i for i, (other, _, _) in enumerate(asked) if other == task]
        outcomes = domain.read_answers([asked[i][1] for i in own], [asked[i][2] for i in own], grader)
        for i, read in zip(own, outcomes, strict=True):
            graded[i] = read
    return graded


def value(domain: Domain, change: Change) -> float | None:
    """What a change pays: the mean over repeats, on questions that were graded both before and after.

    Returns:
        None if there are none in some repeat. That is nothing to pay for, which is not a reward of nothing.
    """
    pairs = [graded_twice(change.base, repeat) for repeat in change.adapted]
    if not all(base for base, _ in pairs):
        return None
    return sum(domain.value(base, adapted) for base, adapted in pairs) / len(pairs)


def first_line(answer: str) -> str:
    """The part of an answer that exact match and F1 read; base models go on rambling after it."""
    return next((line.strip() for line in answer.splitlines() if line.strip()), "")
