"""The E step's second half: a round's candidates are scored, and repeats spent where they matter.

With `give_up_below` above 0, all candidates are trained once, then those again that may still be kept, and so on. All candidates of a
context have the same seed in the same repeat (common random numbers).
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from protocol.errors import TutelageError
from protocol.exchange import Exchange
from protocol.journal import CandidateRecord, Journal
from protocol.messages import Context, Refusal, Reward, RewardRequest, Task
from recipes.candidates import make_request, read_edit
from recipes.domains import RecipeDomain
from recipes.editor import Editor
from recipes.loop_settings import LoopSettings
from recipes.net_reward import Elsewhere
from recipes.reliability import Estimate, estimate_reliability, find_contenders, guess_variances
from recipes.stages import score
from recipes.terminal import console


@dataclass(frozen=True)
class Scoring:
    """How candidates are scored: `repeats` inner loops each at most, by each of the students, after an editor has seen them, if any.

    Attributes:
        elsewhere: Rewards are net of what self-edits do there, if it is given.
    """

    domain: RecipeDomain
    task: Task
    loop: LoopSettings
    repeats: int
    seed: int
    editor: Editor | None = None
    elsewhere: Elsewhere | None = None


@dataclass
class Scored:
    """What became of a candidate.

    Attributes:
        accuracies: One per repeat, mean over students, net of what is paid for elsewhere; empty where a student refused it or
            a grader failed.
        waves: Of each wave of repeats, the mean reward over students, and how many repeats it had.
        running: Whether it may still be kept.
    """

    accuracies: list[float] = field(default_factory=list)
    waves: list[tuple[float, int]] = field(default_factory=list)
    running: bool = True

    @property
    def reward(self) -> float:
        """Mean over its repeats."""
        return sum(value * repeats for value, repeats in self.waves) / sum(repeats for _, repeats in self.waves)

    @property
    def first_reward(self) -> float | None:
        """That of the first wave, which every candidate has: later ones go to the lucky. None if a grader failed."""
        return self.waves[0][0] if self.waves else None


def score_candidates(
    scoring: Scoring,
    students: Mapping[str, Exchange],
    contexts: Sequence[Context],
    candidates: Sequence[CandidateRecord],
    stage: str,
    journal: Journal,
) -> list[Scored]:
    """Score a round's candidates by one student or, on the average of their rewards, by several.

    Returns:
        One per candidate, in order. What is no self-edit, or was refused by the editor or every student, is out of the running.
    """
    by_id, floor = {context.id: context for context in contexts}, scoring.domain.floor
    edits = [read_edit(c, scoring.domain, by_id[c.context]) for c in candidates]
    scored = [Scored() if edit else Scored(waves=[(floor, scoring.repeats)], running=False) for edit in edits]
    probes = {context.id: scoring.elsewhere.probes(context) if scoring.elsewhere else [] for context in contexts}
    waves = [range(scoring.repeats)] if scoring.loop.give_up_below == 0 else [range(n, n + 1) for n in range(scoring.repeats)]
    for number, repeats in enumerate(waves, start=1):
        requests = [
            make_request(scoring.task, by_id[c.context], edit, scoring.seed, repeats, probes[c.context]) if edit and own.running else None
            for c, edit, own in zip(candidates, edits, scored, strict=True)
        ]
        titles = {name: stage + (f" · {name}" if len(students) > 1 else "") for name in students}
        suffix = f" · repeat {number} of {len(waves)}" if len(waves) > 1 else ""
        answers = [score(student, requests, titles[name] + suffix, journal) for name, student in students.items()]
        _tally(scoring, scored, requests, answers, len(repeats))
        _report_refused(stage, scored, answers, malformed=None in edits)
        if number < len(waves):
            _give_up(scoring, contexts, candidates, scored)
    return scored


def _tally(
    scoring: Scoring,
    scored: Sequence[Scored],
    requests: Sequence[RewardRequest | None],
    answers: Sequence[Sequence[Reward | Refusal | None]],
    repeats: int,
) -> None:
    """Add a wave. What a student refuses is paid the floor; where a grader failed there is nothing to pay, nor to keep."""
    floor, elsewhere = scoring.domain.floor, scoring.elsewhere
    for own, request, *results in zip(scored, requests, *answers, strict=True):
        if request is None:
            continue
        if any(isinstance(result, Refusal) and result.ungraded for result in results):
            own.running, own.accuracies = False, []
            continue
        rewards = [result for result in results if isinstance(result, Reward)]
        prices = [elsewhere.price(request.context, reward) if elsewhere else [0.0] * repeats for reward in rewards]
        paid = [max(-1.0, reward.value - statistics.fmean(price)) for reward, price in zip(rewards, prices, strict=True)]
        own.waves.append((statistics.fmean([*paid, *[floor] * (len(results) - len(rewards))]), repeats))
        if len(rewards) == len(results):
            net = [
                [a - p for a, p in zip(reward.change.accuracies, price, strict=True)] for reward, price in zip(rewards, prices, strict=True)
            ]
            own.accuracies += [statistics.fmean(each) for each in zip(*net, strict=True)]
        if not rewards and len(own.waves) == 1:
            own.running = False


def _report_refused(stage: str, scored: Sequence[Scored], answers: Sequence[Sequence[Reward | Refusal | None]], malformed: bool) -> None:
    """Tell of refusals. If every candidate is a self-edit and none is taken, it is the recipe that is wrong, or the student."""
    refused = [result for results in answers for result in results if isinstance(result, Refusal)]
    if not refused:
        return
    console.print(f"{stage}: {len(refused)} self-edits have no reward, such as: {refused[0].reason}")
    if not malformed and not any(own.running for own in scored):
        raise TutelageError(f"{stage}: no self-edit has a reward, so there is nothing to learn from; the first reason: {refused[0].reason}")


def _give_up(scoring: Scoring, contexts: Sequence[Context], candidates: Sequence[CandidateRecord], scored: Sequence[Scored]) -> None:
    """Take those out of the running that will hardly be kept."""
    groups = group_by_context(candidates, contexts)
    noise, between = guess_variances(
        [[scored[i].accuracies for i in own] for own in groups], [len(context.questions) for context in contexts]
    )
    loop = scoring.loop
    for own in groups:
        running = [i for i in own if scored[i].running and scored[i].accuracies]
        results = [scored[i].accuracies for i in running]
        left = find_contenders(results, loop.keep_per_context, scoring.repeats, loop.give_up_below, noise, between)
        for n, i in enumerate(running):
            scored[i].running = n in left


def group_by_context(candidates: Sequence[CandidateRecord], contexts: Sequence[Context]) -> list[list[int]]:
    """For each context, which candidates are about it."""
    groups: dict[str, list[int]] = {context.id: [] for context in contexts}
    for index, candidate in enumerate(candidates):
        groups[candidate.context].append(index)
    return list(groups.values())


def reliability_of(scored: Sequence[Scored], candidates: Sequence[CandidateRecord], contexts: Sequence[Context]) -> Estimate | None:
    """How much of a round's rewards is the self-edits', from its repeats."""
    results = [[scored[i].accuracies for i in own if scored[i].accuracies] for own in group_by_context(candidates, contexts)]
    return estimate_reliability(results, common_seeds=True, groups=[context.group for context in contexts])
