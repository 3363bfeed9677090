"""How much of a reward is the self-edit's and how much is luck, and which candidates are worth another repeat.

A repeat trains the same self-edit with another seed. Analysis of variance within contexts parts the variance of rewards into that between
self-edits and that between repeats of one; their shares are the intraclass correlation. Where all self-edits of a context share the
seed of a repeat (common random numbers), what the seed does to all of them alike is no noise, and is taken out first (Shrout & Fleiss
1979, case 3; case 1 otherwise). Numbers of repeats may differ: sums of squares are fitted (Henderson's method III).
"""

import math
import statistics
from collections.abc import Sequence

import numpy as np

from recipes.statistics import Groups, sum_by_group

Repeats = Sequence[float]
"""One candidate's results, a number per repeat."""

Estimate = dict[str, float | int]

_LEAST_VARIANCE = 1e-6


def estimate_reliability(
    contexts: Sequence[Sequence[Repeats]], *, common_seeds: bool, groups: Groups = None, resamples: int = 2_000
) -> Estimate | None:
    """Estimate how much of the rewards' variance within contexts is the self-edits'.

    Args:
        contexts: For each context its candidates' results, which may differ in number.
        common_seeds: Whether the same repeat of a context's candidates has the same seed.
        groups: Of the contexts.
        resamples: Of contexts, or of their groups, for the 95% bootstrap interval.

    Returns:
        `single` (of one repeat) and `reward` (of the mean over `repeats`, the repeats of an average candidate) in [0, 1], the latter with
        `low` and `high`; the standard deviations `between` self-edits and `within` one; `n` contexts; and how many `groups`, where a group
        has several contexts. None where nothing was repeated, no context has two candidates, or nothing varies.
    """
    parts = np.array([_sums(candidates, common_seeds) for candidates in contexts if candidates])
    if not len(parts) or parts[:, 1].sum() == 0 or parts[:, 3].sum() == 0:
        return None
    counts = [len(repeats) for candidates in contexts for repeats in candidates]
    each = statistics.fmean(counts)
    names = [name for name, candidates in zip(groups, contexts, strict=True) if candidates] if groups else None
    by_group = np.ascontiguousarray(sum_by_group(parts.T, names).T)
    drawn = np.random.default_rng(0).integers(0, len(by_group), size=(resamples, len(by_group)))
    between, within = _variances(parts.sum(axis=0))
    if between + within == 0:
        return None
    low, high = np.nanquantile([_share(*_variances(sums), each) for sums in by_group[drawn].sum(axis=1)], [0.025, 0.975])
    return {
        "single": _share(between, within, 1),
        "reward": _share(between, within, each),
        "low": float(low),
        "high": float(high),
        "repeats": each,
        "between": math.sqrt(between),
        "within": math.sqrt(within),
        "n": len(parts),
        **({"groups": len(by_group)} if len(by_group) < len(parts) else {}),
    }


def describe_reliability(estimate: Estimate) -> str:
    """What the user is told of it."""
    return (
        f"reward reliability {estimate['reward']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}] at {estimate['repeats']:.3g} repeats "
        f"({estimate['single']:.2f} at one): standard deviation {estimate['between']:.3f} between self-edits, "
        f"{estimate['within']:.3f} between repeats of one"
    )


def _sums(candidates: Sequence[Repeats], common_seeds: bool) -> tuple[float, float, float, float, float]:
    """Of one context: squares and degrees of freedom between candidates and within them, and the weight of the variance between."""
    results = np.array([x for repeats in candidates for x in repeats])
    owners = np.repeat(np.arange(len(candidates)), [len(repeats) for repeats in candidates])
    rounds = np.concatenate([np.arange(len(repeats)) for repeats in candidates]) if common_seeds else np.zeros(len(results), dtype=int)
    by_candidate = (owners[:, None] == np.arange(len(candidates))).astype(float)
    by_round = (rounds[:, None] == np.unique(rounds)).astype(float)
    both = np.hstack([by_candidate, by_round])
    without_rounds = np.eye(len(results)) - by_round @ np.linalg.pinv(by_round)
    left = float(results @ without_rounds @ results)
    within = float(results @ (results - both @ np.linalg.lstsq(both, results, rcond=None)[0]))
    rank, rounds_rank = int(np.linalg.matrix_rank(both)), by_round.shape[1]
    weight = float(np.trace(by_candidate.T @ without_rounds @ by_candidate))
    return left - within, rank - rounds_rank, within, len(results) - rank, weight


def _variances(sums: np.ndarray) -> tuple[float, float]:
    """Variance between self-edits and within one. What sampling error makes negative is zero."""
    between, between_freedom, within, within_freedom, weight = (float(x) for x in sums)
    if not between_freedom or not within_freedom:
        return math.nan, math.nan
    noise = within / within_freedom
    return max(0.0, (between - between_freedom * noise) / weight), noise


def _share(between: float, within: float, repeats: float) -> float:
    total = between + within / repeats
    return between / total if total else math.nan


def find_contenders(results: Sequence[Repeats], keep: int, repeats: int, give_up_below: float, noise: float, between: float) -> list[int]:
    """Which of a context's candidates may still be among the best when all repeats are done.

    Rewards are taken to be normal: the true difference to the last one that would be kept is shrunk towards none by what is known of
    `between` and `noise`, and repeats to come add noise.

    Args:
        results: One per candidate still in the running, equally many each; empty for candidates that have dropped out.
        keep: How many are to be kept.
        repeats: How many each gets in all.
        give_up_below: The chance below which a candidate drops out.
        noise: Variance of repeats of one self-edit.
        between: Variance between self-edits of a context.

    Returns:
        Their indices; at least `keep` of them if there are so many.
    """
    running = [i for i, own in enumerate(results) if own]
    ranked = sorted(running, key=lambda i: -statistics.fmean(results[i]))
    if len(ranked) <= keep:
        return running
    bar, done = statistics.fmean(results[ranked[keep - 1]]), len(results[ranked[0]])
    left, between, noise = repeats - done, max(between, _LEAST_VARIANCE), max(noise, _LEAST_VARIANCE)
    trust = between / (between + noise / done)
    spread = math.sqrt(left**2 * (1 - trust) * 2 * between + left * 2 * noise) / repeats

    def chance(i: int) -> float:
        lag = bar - statistics.fmean(results[i])
        return 0.5 * math.erfc((done * lag + left * trust * lag) / repeats / spread / math.sqrt(2))

    return sorted(set(ranked[:keep]) | {i for i in running if chance(i) >= give_up_below})


def guess_variances(contexts: Sequence[Sequence[Repeats]], questions: Sequence[int]) -> tuple[float, float]:
    """Noise and the variance between self-edits, as far as a round with common seeds has shown them.

    Before anything was repeated, noise is that of as many coins as a context has `questions`, which is an upper bound.
    """
    scored = [([own for own in candidates if own], count) for candidates, count in zip(contexts, questions, strict=True) if any(candidates)]
    if not scored:
        return 0.0, 0.0
    squares, freedom = np.array([_sums(candidates, common_seeds=True) for candidates, _ in scored]).sum(axis=0)[2:4]
    if freedom:
        noise = float(squares / freedom)
    else:
        shares = [(statistics.fmean(own[0] for own in candidates), count) for candidates, count in scored]
        noise = statistics.fmean(share * (1 - share) / max(1, count) for share, count in shares)
    firsts = [[own[0] for own in candidates] for candidates, _ in scored if len(candidates) > 1]
    total = statistics.fmean(statistics.variance(results) for results in firsts) if firsts else 0.0
    return noise, max(0.0, total - noise)
