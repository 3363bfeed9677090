"""Students that keep learning: an update stands on all that was learned before, and is made so that little else changes.

Several students learn side by side on one base, each its own lessons; how an inner loop is made is in `student.keeping`.

Source: sequential self-edits (SEAL, arXiv 2506.10943, section 6), which are merged one after the other as published.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file

from protocol.domain import Domain
from protocol.errors import InnerLoopFailed, InvalidInput
from protocol.messages import Lesson
from student.answers import answer_routed
from student.base import ADAPTER, FrozenBase
from student.cohort import Cohort, Trained
from student.drift import measure_drift
from student.engines import obstacle_to_cohort
from student.inner_loop import InnerLoop, check_prompts
from student.keeping import Keeping, Learned
from student.lasting import save_version
from student.settings import KeepingSettings
from student.stacked import Adapter, Stack


class Learner:
    """A base, and the way in which students on it learn on.

    Attributes:
        base, domain, settings: As they were given.
    """

    def __init__(self, base: FrozenBase, domain: Domain, settings: KeepingSettings, seed: int = 0):
        """`seed` decides what the base writes of itself.

        Raises:
            InvalidInput: The base cannot be trained in cohorts.
        """
        if obstacle := obstacle_to_cohort(base):
            raise InvalidInput(f"a student that keeps learning is trained in cohorts, but {obstacle}; take another student")
        self.base, self.domain, self.settings = base, domain, settings
        self._engine, self._stack = Cohort(base), Stack(base, base.settings.rank)
        self._keeping = Keeping(base, domain, settings, seed)

    @property
    def nothing(self) -> Learned:
        """What a student has learned that has learned nothing yet."""
        return self._keeping.nothing

    @property
    def own_texts(self) -> Sequence[str]:
        """What the base writes of itself."""
        return self._keeping.own_texts

    def learn(self, students: Sequence[Learned], lessons: Sequence[Sequence[Lesson]], seed: int) -> list[Learned | InnerLoopFailed]:
        """One update of each student, from lessons of its own. One that fails does not touch the others."""
        loops = [_attempt(self._keeping.update, student, new, seed) for student, new in zip(students, lessons, strict=True)]
        learned: list[Learned | InnerLoopFailed] = [
            adapter if isinstance(adapter, InnerLoopFailed) else Learned((*student.lessons, *new), adapter)
            for student, new, adapter in zip(students, lessons, self._train(loops), strict=True)
        ]
        due = {i: now for i, now in enumerate(learned) if isinstance(now, Learned) and self._is_due(students[i], now)}
        loops = [_attempt(self._keeping.consolidation, student, seed) for student in due.values()]
        for (i, student), adapter in zip(due.items(), self._train(loops), strict=True):
            learned[i] = adapter if isinstance(adapter, InnerLoopFailed) else replace(student, adapter=adapter)
        return learned

    def ask(self, students: Sequence[Learned], prompts: Sequence[Sequence[str]], longest: int | None = None) -> list[list[str]]:
        """Ask each student its own prompts. The longest answer, in tokens, is the domain's unless it is given."""
        alike, tokens = [1.0] * len(students), [longest or self.domain.answer_tokens] * len(students)
        return answer_routed(self._stack, [student.adapter for student in students], alike, prompts, tokens)

    def fits(self, prompts: Sequence[str], longest: int | None = None) -> bool:
        """Whether the base has positions for every prompt and its answer."""
        try:
            check_prompts(self._stack.base, prompts, longest or self.domain.answer_tokens)
        except InnerLoopFailed:
            return False
        return True

    def drift(self, before: Learned, after: Learned, texts: int) -> float:
        """How far an update has moved a student on so many texts that the base wrote of itself, in nats per token."""
        return measure_drift(self._stack, before.adapter, after.adapter, self._keeping.own_tokens[:texts])

    def _is_due(self, before: Learned, after: Learned) -> bool:
        every = self.settings.consolidate_every
        return "consolidate" in self.settings.strategies and len(before.lessons) // every < len(after.lessons) // every

    def _train(self, loops: Sequence[InnerLoop | InnerLoopFailed]) -> list[Adapter | InnerLoopFailed]:
        """What each student has learned after its inner loop."""
        ready = [loop for loop in loops if isinstance(loop, InnerLoop)]
        if not ready:
            return [loop for loop in loops if isinstance(loop, InnerLoopFailed)]
        stack, trained = self._engine.train(ready)
        results = iter(trained)
        return [loop if isinstance(loop, InnerLoopFailed) else _add(stack, loop, next(results)) for loop in loops]


def _attempt(make: Callable[..., InnerLoop], *arguments: Any) -> InnerLoop | InnerLoopFailed:
    try:
        return make(*arguments)
    except InnerLoopFailed as error:
        return error


def _add(stack: Stack, loop: InnerLoop, trained: Trained) -> Adapter | InnerLoopFailed:
    """What was learned before and now."""
    if isinstance(trained, InnerLoopFailed):
        return trained
    assert loop.footing is not None
    rank, scale = loop.plan.rank, stack.scale(loop.plan.rank)
    return [loop.footing.add(a[:rank], scale * b[:, :rank], layer) for layer, (a, b) in enumerate(stack.adapter(trained))]


def save(base: FrozenBase, learned: Learned, folder: Path) -> None:
    """Write what a student has learned as a PEFT folder, or as the model that it makes (`student.merge`), whole or not at all.

    The folder's adapter is scaled by 1, so that `load` gives back the same bits.
    """
    rank = learned.adapter[0][0].shape[0]
    stack = Stack(base, rank)
    row = stack.empty(1)
    for (a, b), (own_a, own_b) in zip(stack.pairs(row), learned.adapter, strict=True):
        a[0, :rank], b[0, :, :rank] = own_a, own_b
    stack.write_template(row[0], rank)
    template = base.model.peft_config[ADAPTER]
    template.lora_alpha = rank
    try:
        save_version(base, base.settings, folder)
    finally:
        template.lora_alpha = base.settings.alpha


def load(base: FrozenBase, folder: Path) -> Adapter:
    """The adapter of a folder that `save` has written.

    Raises:
        InvalidInput: It holds none, or one of another model.
    """
    names = [name for name, module in base.model.named_modules() if isinstance(module, LoraLayer)]
    stack = Stack(base, 1)
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        rank, scale = config["r"], config["lora_alpha"] / config["r"]
        weights = {key: tensor.to(stack.device, stack.dtype) for key, tensor in load_file(folder / "adapter_model.safetensors").items()}
        adapter = [(weights.pop(f"{name}.lora_A.weight"), scale * weights.pop(f"{name}.lora_B.weight")) for name in names]
    except (OSError, ValueError, TypeError, KeyError, ArithmeticError, SafetensorError) as error:
        raise InvalidInput(
            f"{folder} holds no adapter of {base.settings.model} ({error}); give the model that it was trained on"
        ) from error
    shapes = [((rank, inputs), (outputs, rank)) for inputs, outputs in stack.shapes]
    if weights or [(tuple(a.shape), tuple(b.shape)) for a, b in adapter] != shapes:
        raise InvalidInput(f"{folder} holds an adapter of another model than {base.settings.model}; give the model that it was trained on")
    return adapter
