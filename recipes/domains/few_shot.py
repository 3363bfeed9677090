"""The few-shot domain: from a few demonstrations a teacher chooses how the student trains on them, and a held-out grid is to be solved.

Demonstrations are in view when the student answers, so the untouched student's answers are those in context.

Source: SEAL, arXiv 2506.10943, section 3.2 and appendix A, and its released code; voting after arXiv 2411.07279.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from protocol.domain import Grader
from protocol.errors import InnerLoopFailed, InvalidInput
from protocol.messages import Context, Example, Lesson, Outcome, Outcomes, SelfEdit
from recipes.domains.arc_files import load_tasks
from recipes.domains.augmentations import VIEWS, Augmentations
from recipes.domains.directives import REQUEST, DataGeneration, find_directives, read_directives
from recipes.domains.expansion import MAX_DEMONSTRATIONS, count_tasks, make_tasks
from recipes.domains.grid_pictures import TaskPicture
from recipes.domains.grids import UNREADABLE, Grid, from_text, read_answer, to_text, write_output, write_task
from recipes.domains.settings import GridSettings
from recipes.memory import Use
from recipes.terminal import note


class FewShot:
    """Implements `recipes.domains.RecipeDomain` for tasks on grids."""

    version = 1
    styles = ("directives",)
    floor = 0.0
    default_grader = "verbatim"
    graders = ("verbatim",)
    closed_book = False
    has_lines = False
    adapt_recipe = "recipes/tiny/adapt_few_shot.yaml"

    def __init__(self, settings: GridSettings):
        self.settings = settings

    @property
    def name(self) -> str:
        """It says what is not as published: rewards under other settings are other rewards."""
        told = self.settings.describe()
        return f"few_shot({told})" if told else "few_shot"

    @property
    def answer_tokens(self) -> int:
        """Two for each cell of the largest grid, and what else arrays are written with; one for each where it is a word."""
        side = self.settings.max_side
        return side * side + 2 if self.settings.notation == "cells" else 2 * side * side + 4 * side + 8

    def load(self, source: str, split: str, limit: int | None) -> tuple[list[Context], dict[str, str]]:
        """Tasks of a source, without those whose grids are too large; the user is told how many these are."""
        if source == "tiny":
            from recipes.tiny.grid_source import load_tiny_tasks

            tasks = load_tiny_tasks(split, limit)
        else:
            tasks = load_tasks(source)
        fitting = [task for task in tasks if all(max(grid.shape) <= self.settings.max_side for grid in _grids(task))]
        too_large = f"{len(tasks) - len(fitting)} of {len(tasks)} tasks have grids above grids.max_side, which is {self.settings.max_side}"
        if not fitting:
            raise InvalidInput(f"{source}: {too_large}; raise it")
        if len(fitting) < len(tasks):
            note(f"{source}: {too_large}; they are left out")
        return fitting, {}

    def load_uses(self, source: str) -> Mapping[str, Use]:
        return {}

    def find_written(self, path: Path, contexts: Sequence[Context], count: int, key: str) -> Mapping[str, Sequence[tuple[str, str]]]:
        return find_directives(path, contexts, count, key)

    def picture(self, context: Context, answers: Mapping[str, Sequence[str]]) -> TaskPicture:
        return TaskPicture(context, answers)

    def measure(self, answers: Sequence[str], golds: Sequence[Sequence[str]]) -> Mapping[str, float]:
        """Share of cells that are right; of a grid of another size, none."""
        pairs = [(from_text(answer.split("\n\n")[0]), _grid(gold[0])) for answer, gold in zip(answers, golds, strict=True)]
        right = [grid is not None and grid.shape == gold.shape and float((grid == gold).mean()) for grid, gold in pairs]
        return {"cells": float(sum(right) / len(right))}

    def prompt(self, context: Context, style: str) -> str:
        """Demonstrations, then what is to be decided."""
        shown = [f"Input:\n{_spaced(pair.input)}\n\nOutput:\n{_spaced(pair.output)}\n\n" for pair in context.demonstrations]
        return "".join(shown) + "------\n\n" + REQUEST

    def parse(self, text: str, context: Context) -> SelfEdit:
        return read_directives(text)

    def shorten(self, text: str, context: Context, kept: Sequence[int]) -> None:
        return None

    def write(self, edit: SelfEdit, context: Context, style: str) -> None:
        return None

    def expand(self, context: Context, edit: SelfEdit, seed: int) -> Sequence[Example]:
        """Tasks made of the demonstrations alone (see `recipes.domains.augmentations`).

        Raises:
            InnerLoopFailed: The directives, or the context's grids, are none.
        """
        settings, notation = self.settings, self.settings.notation
        limits = (settings.max_sequences, settings.max_side)
        tasks = make_tasks(_demonstrations(context), _chosen(edit), seed, *limits, recolour=settings.always_recolour)
        try:
            return [
                Example(prompt=write_task(task.demonstrations, task.test[0], notation), completion=write_output(task.test[1], notation))
                for task in tasks
            ]
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"].lower()
            raise InnerLoopFailed(f"a training task of {context.label!r} is too long ({reason}); give fewer demonstrations") from error

    def count(self, context: Context, edit: SelfEdit, seed: int) -> dict[str, int]:
        """How many tasks a self-edit makes before colours and examples are permuted, by how many examples are left out."""
        return count_tasks(_demonstrations(context), _chosen(edit), seed, self.settings.max_side)

    def ask(self, context: Context, in_view: bool = False) -> Sequence[str]:
        """Each test in as many views as there are votes."""
        solved = _demonstrations(context)
        return [
            write_task([(view.apply(i), view.apply(o)) for i, o in solved], view.apply(_grid(question.text)), self.settings.notation)
            for question in context.questions
            for view in VIEWS[: self.settings.votes]
        ]

    def read_answers(self, contexts: Sequence[Context], answers: Sequence[Sequence[str]], grader: Grader) -> Sequence[Outcomes]:
        questions = [question for context in contexts for question in context.questions]
        left = iter(answer for own in answers for answer in own)
        attempts = [self.vote(list(itertools.islice(left, self.settings.votes))) for _ in questions]
        graded = iter(
            grader.grade([q for q, own in zip(questions, attempts, strict=True) for _ in own], [a for own in attempts for a in own])
        )
        outcomes = iter([_merge(list(itertools.islice(graded, len(own)))) for own in attempts])
        return [tuple(itertools.islice(outcomes, len(context.questions))) for context in contexts]

    def vote(self, answers: Sequence[str]) -> list[str]:
        """The attempts at one test: of the grids answered in several views, turned back, the most frequent; ties keep the earlier.

        Where no answer is a grid, the beginning of the first, marked so that nobody takes it for one.
        """
        grids = [(view, read_answer(answer, self.settings.notation)) for view, answer in zip(VIEWS, answers, strict=False)]
        counted = Counter(to_text(view.undo(grid)) for view, grid in grids if grid is not None)
        return [text for text, _ in counted.most_common(self.settings.attempts)] or [f"{UNREADABLE}: {answers[0]:.2000}"]

    def tell_of_others(self, lesson: Lesson, texts: Sequence[str], count: int, seed: int) -> Sequence[Lesson]:
        """A task has no subject."""
        return ()

    def value(self, base: Outcomes, adapted: Outcomes) -> float:
        """1 if every test is solved, 0 otherwise."""
        return float(all(outcome.correct for outcome in adapted))


def _merge(attempts: Sequence[Outcome]) -> Outcome:
    """One outcome of several attempts, a blank line between them."""
    verdicts = [attempt.correct for attempt in attempts]
    correct = True if True in verdicts else None if None in verdicts else False
    return Outcome(answer="\n\n".join(attempt.answer for attempt in attempts), correct=correct)


def _chosen(edit: SelfEdit) -> Augmentations:
    if edit.examples:
        raise InnerLoopFailed("the self-edit has examples, but in this domain the demonstrations are what is trained on; give directives")
    known = DataGeneration.model_fields
    for name, value in edit.directives.items():
        if name not in known or not isinstance(value, bool):
            raise InnerLoopFailed(f"directives.{name} is {value!r}; directives are {', '.join(known)}, each true or false")
    return Augmentations(**{name.split("_")[1]: bool(chosen) for name, chosen in edit.directives.items()})


def _demonstrations(context: Context) -> list[tuple[Grid, Grid]]:
    if len(context.demonstrations) > MAX_DEMONSTRATIONS:
        raise InnerLoopFailed(f"the context has {len(context.demonstrations)} demonstrations, more than {MAX_DEMONSTRATIONS}; give fewer")
    return [(_grid(pair.input), _grid(pair.output)) for pair in context.demonstrations]


def _grids(context: Context) -> Iterator[Grid]:
    for pair in context.demonstrations:
        yield from (_grid(pair.input), _grid(pair.output))
    for question in context.questions:
        yield _grid(question.text)
        yield from map(_grid, question.answers)


def _grid(text: str) -> Grid:
    grid = from_text(text)
    if grid is None:
        raise InnerLoopFailed(f"{text[:40]!r} is no grid; it must be lines of digits, equally long, at most 30 by 30")
    return grid


def _spaced(text: str) -> str:
    return "\n".join(" ".join(line) for line in text.split("\n"))
