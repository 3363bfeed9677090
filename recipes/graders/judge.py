"""A grader that asks a language model whether an answer is right, as SEAL (arXiv 2506.10943) asked GPT-4.1.

What the judge does not say is missing, and never counted as wrong.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from protocol.address import check_address
from protocol.errors import InvalidInput, TutelageError
from protocol.identity import content_id
from protocol.messages import Outcome, Question
from recipes.graders.endpoint import EndpointJudge, judge_address
from recipes.graders.settings import JudgeSettings
from recipes.graders.verdicts import Verdicts
from recipes.graders.wording import CLAIM_VERSION, VERSION, Claim, Judging, Missing, Pair, Verdict, make_pair

logger = logging.getLogger(__name__)

Asked = TypeVar("Asked", Pair, Claim)

ENOUGH: Final = 50
"""So many verdicts are waited for before `max_missing` counts."""


def judge_id(settings: JudgeSettings) -> tuple[str, int]:
    """Name and version; a hub revision is part of the name, since it is of the weights."""
    return f"judge:{settings.model}" + (f"@{settings.revision}" if settings.revision else ""), VERSION


def check_judge(settings: JudgeSettings) -> None:
    """See that a judge can be opened, without network and torch. Whether a local model's folder is whole is not seen here.

    Raises:
        InvalidInput: Names the key and the remedy.
    """
    if not settings.model:
        raise InvalidInput("judge.model is empty; give an endpoint's model such as gpt-4.1, or a folder or hub name")
    if len(judge_id(settings)[0]) > 200:
        raise InvalidInput(f"judge.model {settings.model!r} makes too long a grader's name; give a shorter path to it")
    for key, least in (("batch_size", 1), ("retries", 0)):
        if (value := getattr(settings, key)) < least:
            raise InvalidInput(f"judge.{key} is {value}; it must be at least {least}")
    if not 0 < settings.timeout < float("inf"):
        raise InvalidInput(f"judge.timeout is {settings.timeout}; it must be above 0, in seconds")
    if not 0 <= settings.max_missing <= 1:
        raise InvalidInput(f"judge.max_missing is {settings.max_missing}; it must be in [0, 1]")
    if settings.base_url is not None:
        check_address(judge_address(settings))


def in_folder(settings: JudgeSettings, folder: Path) -> JudgeSettings:
    """The same judge, whose verdicts are kept in a run's folder if the recipe names no other place, so that none is asked for twice."""
    return replace(settings, cache=settings.cache or str(folder / "verdicts"))


class Judge:
    """A language model and the verdicts it has given. Implements `protocol.domain.Grader`.

    Attributes:
        graded, missing: How many answers were to be judged so far, and to how many of these there is no verdict.
    """

    def __init__(self, settings: JudgeSettings):
        """Open the endpoint, or load the local model.

        Raises:
            InvalidInput: The settings cannot be right.
        """
        check_judge(settings)
        self.name, self.version = judge_id(settings)
        self.graded = self.missing = 0
        self._settings = settings
        self._verdicts = Verdicts(settings.cache)
        self._model = _open_model(settings)

    def grade(self, questions: Sequence[Question], answers: Sequence[str]) -> Sequence[Outcome]:
        """Judge all answers in one go, each different one once; an empty answer is wrong without asking, as SEAL's judge had it.

        Returns:
            One outcome per question; `correct` is None where there is no gold answer or no verdict.

        Raises:
            InvalidInput: The endpoint refuses the key, or does not know the model.
            TutelageError: It gives nothing at all, or too many verdicts are missing.
        """
        pairs = [make_pair(question, answer) for question, answer in zip(questions, answers, strict=True)]
        verdicts = self._judge(dict.fromkeys(pair for pair in pairs if pair.golds))
        return [_outcome(answer, verdicts.get(pair)) for pair, answer in zip(pairs, answers, strict=True)]

    def _judge(self, pairs: Collection[Pair]) -> dict[Pair, Verdict]:
        blank = {pair: Verdict(correct=False, score=0) for pair in pairs if not pair.answer}
        return blank | self.ask([pair for pair in pairs if pair.answer])

    def ask(self, pairs: Collection[Asked]) -> dict[Asked, Verdict]:
        """The verdicts that there are on different pairs: known ones, and those that the model gives now.

        Raises:
            InvalidInput, TutelageError: As for `grade`.
        """
        self._verdicts.refresh()
        keys = {pair: self._key(pair) for pair in pairs}
        verdicts = {pair: known for pair, key in keys.items() if (known := self._verdicts.get(key))}
        unknown = [pair for pair in keys if pair not in verdicts]
        reason = ""
        for pair, verdict in zip(unknown, self._model.judge(unknown), strict=True):
            if isinstance(verdict, Missing):
                reason = verdict.reason
            else:
                self._verdicts.add(keys[pair], verdict)
                verdicts[pair] = verdict
        self._count(len(keys), sum(pair not in verdicts for pair in keys), reason)
        return verdicts

    def _key(self, pair: Pair | Claim) -> str:
        """A local model's verdicts are not an endpoint's: they come in another way, and with a dtype."""
        dtype = self._settings.dtype if self._settings.base_url is None else None
        if isinstance(pair, Claim):
            return content_id("contradiction", self.name, CLAIM_VERSION, dtype, pair.passage, pair.statement)
        return content_id("verdict", self.name, self.version, dtype, pair.question, pair.golds, pair.answer)

    def _count(self, graded: int, missing: int, reason: str) -> None:
        self.graded, self.missing = self.graded + graded, self.missing + missing
        if not missing:
            return
        logger.warning("%s: no verdict on %d of %d answers, which do not count; the last: %s", self.name, missing, graded, reason)
        if self.graded >= ENOUGH and self.missing > self._settings.max_missing * self.graded:
            raise TutelageError(
                f"{self.missing} of {self.graded} verdicts of {self.name} are missing, more than judge.max_missing "
                f"{self._settings.max_missing} (the last: {reason}); see to judge.model, or raise judge.max_missing. "
                "The same command goes on"
            )


def _outcome(answer: str, verdict: Verdict | None) -> Outcome:
    return Outcome(answer=answer, correct=None) if verdict is None else Outcome(answer=answer, correct=verdict.correct, score=verdict.score)


def _open_model(settings: JudgeSettings) -> Judging:
    if settings.base_url is not None:
        return EndpointJudge(settings)
    from recipes.graders.local_model import LocalModel

    return LocalModel(settings)
