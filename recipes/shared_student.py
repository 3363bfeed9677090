"""A student that every process of a run has: they share out its cohorts, and train what is lasting together."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final

from pydantic import TypeAdapter

from protocol.domain import Domain, Grader
from protocol.errors import TutelageError
from protocol.exchange import Take
from protocol.messages import Answers, AskRequest, CommitRequest, Refusal, Reward, RewardRequest, StudentCard, VersionCard
from recipes.team import Placed, Team
from recipes.zero_configs import find_config
from student.settings import StudentSettings
from student.student import Student

RESULTS: Final = TypeAdapter(list[Reward | Refusal])
ANSWERS: Final = TypeAdapter(Answers | Refusal)


class SharedStudent:
    """Implements `protocol.exchange.StudentService`.

    Cohorts are composed from the requests alone, so the number of processes changes nothing but the order of answers.
    """

    def __init__(self, team: Team, settings: StudentSettings, domain: Domain, grader: Placed[Grader], folder: Path, deepspeed: str | None):
        """Open the student in every process.

        Args:
            folder: Where lasting updates are saved.
            deepspeed: The configuration for lasting updates, if the student's settings have none.

        Raises:
            TutelageError: The processes hold different models under one name.
        """
        self._team, self._one_at_a_time = team, settings.deepspeed is not None
        self._student = team.place(open_student_here, settings, domain, grader, folder, deepspeed)
        self._card, *others = team.together(Student.describe, self._student)
        for rank, card in enumerate(others, start=1):
            if card != self._card:
                raise TutelageError(f"{settings.model} is another model in process {rank} than in process 0; copy it to every machine anew")

    def __enter__(self) -> "SharedStudent":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._team.drop(self._student)

    def describe(self) -> StudentCard:
        return self._card

    def score(
        self, requests: Sequence[RewardRequest], known: Collection[str] = (), take: Take | None = None
    ) -> Iterator[Sequence[Reward | Refusal]]:
        (refused, cohorts), *_ = self._team.together(Student.arrange, self._student, list(requests), frozenset(known))
        if refused:
            yield refused
        if take is None:
            yield from self._score_cohorts(list(cohorts))
            return
        wanted = iter(cohorts.items())
        while batch := list(itertools.islice(wanted, self._team.size)):  # whoever asks late may have others taken
            yield from self._score_cohorts([number for number, ids in batch if take(ids)])

    def _score_cohorts(self, numbers: Sequence[int]) -> Iterator[Sequence[Reward | Refusal]]:
        if self._one_at_a_time:
            for number in numbers:
                yield self._team.together(Student.score_cohort, self._student, number)[0]
        else:
            for _, results in self._team.share(Student.score_cohort, [(self._student, number) for number in numbers], RESULTS):
                yield results

    def ask(self, requests: Sequence[AskRequest]) -> Iterator[Sequence[Answers | Refusal]]:
        if self._one_at_a_time:
            for request in requests:
                yield [self._team.together(Student.ask_one, self._student, request)[0]]
        else:
            for _, answers in self._team.share(Student.ask_one, [(self._student, request) for request in requests], ANSWERS):
                yield [answers]

    def commit(self, request: CommitRequest) -> VersionCard:
        return self._team.together(Student.commit, self._student, request)[0]


def open_student_here(settings: StudentSettings, domain: Domain, grader: Grader, folder: Path, deepspeed: str | None) -> Student:
    """The student in this process."""
    settings = replace(settings, deepspeed=find_config(settings.deepspeed))
    return Student(settings, {domain.name: domain}, {grader.name: grader}, folder, find_config(deepspeed))
