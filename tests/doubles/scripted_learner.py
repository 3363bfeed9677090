"""A student that learns by a script and has no weights: what it knows is which passages it was taught."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.errors import InnerLoopFailed
from protocol.messages import Lesson
from recipes.domains.knowledge import Knowledge
from student.keeping import Learned
from student.settings import KeepingSettings

ADAPTER: Any = ()


class ScriptedLearner:
    """Cannot learn a passage about poison; answers "harp" once it was taught of one.

    Attributes:
        tried: The passages of each update.
    """

    def __init__(self) -> None:
        self.base = SimpleNamespace(
            fingerprint="b" * 32, positions=1000, settings=SimpleNamespace(chat=False, model="m"), model=None, tokenizer=None
        )
        self.domain, self.settings, self.nothing = Knowledge(), KeepingSettings(strategies=[]), Learned((), ADAPTER)
        self.own_texts: list[str] = []
        self.tried: list[list[str]] = []

    def learn(self, students: Sequence[Learned], lessons: Sequence[Sequence[Lesson]], seed: int) -> list[Learned | InnerLoopFailed]:
        (student,), (new,) = students, lessons
        self.tried.append([lesson.context.passage for lesson in new])
        if any("poison" in passage for passage in self.tried[-1]):
            return [InnerLoopFailed("it is poison")]
        return [Learned((*student.lessons, *new), ADAPTER)]

    def ask(self, students: Sequence[Learned], prompts: Sequence[Sequence[str]]) -> list[list[str]]:
        knows = ["harp" if any("harp" in lesson.context.passage for lesson in student.lessons) else "" for student in students]
        return [[known] * len(own) for known, own in zip(knows, prompts, strict=True)]


def stand_in(monkeypatch: pytest.MonkeyPatch) -> ScriptedLearner:
    """Has the recipe for watching teach one of these, whose versions' folders are a few bytes each."""
    learner = ScriptedLearner()

    def save(base: object, learned: Learned, folder: Path) -> None:
        (folder / "adapter_config.json").write_text(json.dumps([lesson.context.passage for lesson in learned.lessons]))

    monkeypatch.setattr("recipes.watch.FrozenBase", lambda settings: learner.base)
    monkeypatch.setattr("recipes.watch.Learner", lambda *arguments: learner)
    monkeypatch.setattr("student.updating.save", save)
    monkeypatch.setattr("student.updating.load", lambda base, folder: ADAPTER)
    monkeypatch.setattr("student.updating.fingerprint", lambda model, tokenizer: "f" * 32)
    return learner
