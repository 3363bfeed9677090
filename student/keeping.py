"""How an update is made so that little else changes: one inner loop, on what was learned before, behind a shield, beside what is kept.

Sources: constraining an adapter's input (OWM, arXiv 1810.01256; Adam-NSCL, 2103.07113; AlphaEdit, 2410.02355); holding a student to its
base on text that the base writes (LwF, 1606.09282; SSR, 2403.01244) and on distractors, the new lesson told of others; consolidating from
the base (Progress & Compress, 1805.06370).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from protocol.domain import Domain
from protocol.errors import InnerLoopFailed
from protocol.identity import derive_seed
from protocol.messages import Example, Lesson
from student.base import FrozenBase
from student.covariance import measure_inputs
from student.footing import Footing
from student.inner_loop import InnerLoop, Row, encode, make_plan, prepare
from student.own_texts import find_own_texts
from student.settings import KeepingSettings
from student.shield import Shield, make_shield
from student.stacked import Adapter, Stack

Draws = tuple[tuple[Row, ...], ...]
"""Rows for each step."""


@dataclass(frozen=True)
class Learned:
    """What one student has learned.

    Attributes:
        lessons: In their order.
        adapter: The whole change against the base, with its scale in B.
    """

    lessons: tuple[Lesson, ...]
    adapter: Adapter


class Keeping:
    """What a base knows, as far as it is to be kept, and the inner loops that keep it."""

    def __init__(self, base: FrozenBase, domain: Domain, settings: KeepingSettings, seed: int):
        """What the base writes of itself is asked for here, unless the strategies have no use for it."""
        self._base, self._domain, self._settings, self._seed = base, domain, settings, seed
        self._stack = Stack(base, base.settings.rank)
        self._keeps = not {"constrain", "replay"}.isdisjoint(settings.strategies)
        self._own_inputs = self._measure(self.nothing.adapter, self._own_rows) if "constrain" in settings.strategies else []

    @property
    def nothing(self) -> Learned:
        """What a student has learned that has learned nothing yet."""
        return Learned((), [(a[0, :0], b[0, :, :0]) for a, b in self._stack.pairs(self._stack.empty(1))])

    @cached_property
    def own_texts(self) -> list[str]:
        """What the base writes of itself."""
        told = self._settings
        return find_own_texts(self._base, told.texts, told.text_tokens, self._seed, told.texts_from)

    @property
    def own_tokens(self) -> list[list[int]]:
        """The same as token ids."""
        return [row.input_ids for row in self._own_rows]

    @cached_property
    def _own_rows(self) -> list[Row]:
        written = [self._base.tokenizer(text).input_ids[: self._base.longest_example] for text in self.own_texts]
        return [Row(ids, ids) for ids in written if len(ids) > 1]

    def update(self, student: Learned, lessons: Sequence[Lesson], seed: int) -> InnerLoop:
        """Learn new lessons on top of earlier ones.

        Raises:
            InnerLoopFailed: There is nothing to train on, a limit is exceeded, or the lessons ask for different updates.
        """
        told, settings = self._settings, self._base.settings
        updates = {lesson.edit.update for lesson in lessons}
        if len(updates) > 1:
            raise InnerLoopFailed(f"the lessons ask for {len(updates)} different updates; learn them one by one")
        plan = make_plan(updates.pop(), settings)
        if told.epochs and "constrain" in told.strategies:
            plan = replace(plan, epochs=told.epochs, tokens=None)
        loop = prepare(self._base, self._expand(lessons, seed), plan, seed, lessons=len(lessons))
        earlier, others = self._rows_of(student.lessons, seed), self._rows_of_others(lessons, seed)
        pools = [(self._own_rows, told.kept_texts), (others, told.kept_others)] if self._keeps else []
        loop = self._keep(loop, student.adapter, [others, earlier], pools, seed)
        if "replay" in told.strategies:
            loop = replace(loop, replayed=_draw(loop.steps, [(earlier, told.replayed)], derive_seed(seed, "replayed")))
        return loop

    def consolidation(self, student: Learned, seed: int) -> InnerLoop:
        """Learn all lessons anew, from the base.

        Raises:
            InnerLoopFailed: A limit is exceeded.
        """
        told = self._settings
        plan = replace(
            make_plan(student.lessons[0].edit.update, self._base.settings),
            learning_rate=told.consolidate_learning_rate,
            epochs=told.consolidate_epochs,
            rank=told.consolidate_rank,
            batch_size=told.consolidate_batch_size,
            tokens=None,
        )
        loop = prepare(self._base, self._expand(student.lessons, seed), plan, seed, lessons=len(student.lessons))
        others = self._rows_of_others(student.lessons, seed)
        pools = [(self._own_rows, told.consolidate_texts), (others, told.consolidate_others)] if self._keeps else []
        return self._keep(loop, self.nothing.adapter, [others], pools, seed)

    def _keep(
        self,
        loop: InnerLoop,
        learned: Adapter,
        shielded: Sequence[Sequence[Row]],
        pools: Sequence[tuple[Sequence[Row], int]],
        seed: int,
    ) -> InnerLoop:
        """An inner loop on what was learned, behind a shield over some rows, and held to the base on so many of each pool in every step."""
        told = self._settings
        shields = self._make_shields(learned, shielded) if "constrain" in told.strategies else ()
        kept = _draw(loop.steps, pools, derive_seed(seed, "kept")) if "replay" in told.strategies else ()
        return replace(loop, footing=Footing(learned, shields), kept=kept, kept_weight=told.kept_weight)

    def _expand(self, lessons: Sequence[Lesson], seed: int) -> list[Example]:
        return [example for lesson in lessons for example in self._domain.expand(lesson.context, lesson.edit, seed)]

    def _rows_of(self, lessons: Sequence[Lesson], seed: int) -> list[Row]:
        settings = self._base.settings
        rows = encode(self._expand(lessons, seed), self._base.tokenizer, "all", settings.chat)
        return [row for row in rows if len(row.input_ids) <= self._base.longest_example]

    def _rows_of_others(self, lessons: Sequence[Lesson], seed: int) -> list[Row]:
        """Distractors, if the strategies have any use for them."""
        if not self._keeps:
            return []
        others = [
            other
            for lesson in lessons
            for other in self._domain.tell_of_others(
                lesson, self.own_texts, self._settings.others, derive_seed(seed, "others", lesson.context.id)
            )
        ]
        return self._rows_of(others, seed)

    def _make_shields(self, adapter: Adapter, rows: Sequence[Sequence[Row]]) -> tuple[Shield, ...]:
        """Over the base's own texts and other rows; of each kind the mean counts, so that many lessons weigh no more than one."""
        inputs = [self._own_inputs, *(self._measure(adapter, some) for some in rows if some)]
        return tuple(make_shield(sum(layer), self._settings.left, self._settings.shield_rank) for layer in zip(*inputs, strict=True))

    def _measure(self, adapter: Adapter, rows: Sequence[Row]) -> list[torch.Tensor]:
        return measure_inputs(self._stack, adapter, [row.input_ids for row in rows])


def _draw(steps: int, pools: Sequence[tuple[Sequence[Row], int]], seed: int) -> Draws:
    """For each step so many rows of each pool, or all if it has no more."""
    draw = random.Random(seed)
    if not any(count and pool for pool, count in pools):
        return ()
    return tuple(tuple(row for pool, count in pools for row in draw.sample(pool, min(count, len(pool)))) for _ in range(steps))
