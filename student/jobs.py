"""Requests made ready for training, and which of them are trained together."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.domain import Domain, Grader
from protocol.messages import Context, RewardRequest
from student.inner_loop import InnerLoop


@dataclass(frozen=True)
class Job:
    """A request made ready: one inner loop per seed, which asks the context's questions, then the probes'."""

    request: RewardRequest
    id: str
    domain: Domain
    grader: Grader
    loops: tuple[InnerLoop, ...]

    @property
    def contexts(self) -> tuple[Context, ...]:
        return (self.request.context, *self.request.probes)


def make_cohorts(jobs: Sequence[Job], sizes: tuple[int, int]) -> list[Sequence[Job]]:
    """Neighbours together, about as many in each cohort, from `least` to `most` inner loops if there are enough.

    If that leaves a choice, the number of cohorts divides by 8, 4 or 2, so that as many processes get equal parts; it never depends
    on how many processes there are.
    """
    least, most = sizes
    loops = sum(len(job.loops) for job in jobs)
    fewest = math.ceil(loops / most)
    allowed = max(fewest, loops // least)
    count = next(count for by in (8, 4, 2, 1) if (count := math.ceil(fewest / by) * by) <= allowed)
    bounds = [len(jobs) * number // count for number in range(count + 1)] if count else []
    return [jobs[start:end] for start, end in itertools.pairwise(bounds) if start < end]
