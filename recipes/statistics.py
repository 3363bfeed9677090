"""Means with 95% bootstrap intervals over contexts, or over groups of contexts that are not independent (the cluster bootstrap)."""

from collections.abc import Sequence

import numpy as np

Summary = dict[str, float | int]

Groups = Sequence[str] | None
"""Each context's group. One without a name is a group of its own, and so is every one if there are no names at all."""


def summarize(values: Sequence[float], groups: Groups = None, resamples: int = 10_000) -> Summary:
    """Mean and percentile bootstrap interval.

    Args:
        values: One per context: the context is what is resampled, since answers within one are not independent.
        groups: Then groups are resampled, each with all its contexts. Contexts count alike, so a larger group counts for more.

    Returns:
        `mean`, `low`, `high`; `n` contexts; and how many `groups`, where a group has several contexts.
    """
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise ValueError("nothing to summarize; give at least one value")
    return _summary(float(array.mean()), _resample(array, groups, resamples), array.size, groups)


def summarize_known(values: Sequence[float | None]) -> Summary | None:
    """The same of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return summarize(known) if known else None


def mean_by_context(rows: Sequence[Sequence[float]]) -> list[float]:
    """Means over rows, of every seed say, for each context; a row has one figure per context."""
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]


def difference(ours: Sequence[float], theirs: Sequence[float], groups: Groups = None) -> Summary:
    """Mean of the paired differences, context by context, with its interval."""
    return summarize([a - b for a, b in zip(ours, theirs, strict=True)], groups)


def rank_correlation(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Spearman's, ties having their mean rank; None where one side does not differ."""
    first, second = _ranks(ours), _ranks(theirs)
    if first.std() == 0 or second.std() == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    return np.array([(array < value).sum() + ((array == value).sum() + 1) / 2 for value in array])


def ratio(ours: Sequence[float], theirs: Sequence[float], groups: Groups = None, resamples: int = 10_000) -> Summary | None:
    """Ratio of two means over the same contexts, with its interval.

    Returns:
        None where the interval of the second mean reaches zero: then there is nothing to be a share of.
    """
    array = np.array([ours, theirs], dtype=float)
    numerators, denominators = _resample(array, groups, resamples)
    if np.quantile(denominators, 0.025) <= 0:
        return None
    return _summary(float(array[0].mean() / array[1].mean()), numerators / denominators, array.shape[1], groups)


def sum_by_group(values: np.ndarray, groups: Groups) -> np.ndarray:
    """Sums over each group's contexts, in the order in which groups begin; contexts are the last axis."""
    names = [name or context for context, name in enumerate(groups or [""] * values.shape[-1])]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    sums = np.zeros((*values.shape[:-1], len(numbers)))
    np.add.at(sums.T, [numbers[name] for name in names], values.T)
    return sums


def _resample(values: np.ndarray, groups: Groups, resamples: int) -> np.ndarray:
    """Means over all contexts of as many groups as there are, drawn with replacement; contexts are the last axis."""
    sums, sizes = sum_by_group(values, groups), sum_by_group(np.ones(values.shape[-1]), groups)
    drawn = np.random.default_rng(0).integers(0, sizes.size, size=(resamples, sizes.size))
    means: np.ndarray = sums[..., drawn].sum(axis=-1) / sizes[drawn].sum(axis=-1)
    return means


def _summary(mean: float, resampled: np.ndarray, contexts: int, groups: Groups) -> Summary:
    low, high = np.quantile(resampled, [0.025, 0.975])
    count = len(sum_by_group(np.ones(contexts), groups))
    return {"mean": mean, "low": float(low), "high": float(high), "n": contexts} | ({"groups": count} if count < contexts else {})
