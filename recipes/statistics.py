"""Means with 95% bootstrap intervals over contexts."""

from collections.abc import Sequence

import numpy as np

Summary = dict[str, float | int]


def summarize(values: Sequence[float], resamples: int = 10_000) -> Summary:
    """Mean and percentile bootstrap interval.

    Args:
        values: One per context: the context is what is resampled, since answers within one are not independent.
    """
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise ValueError("nothing to summarize; give at least one value")
    drawn = np.random.default_rng(0).integers(0, array.size, size=(resamples, array.size))
    low, high = np.quantile(array[drawn].mean(axis=1), [0.025, 0.975])
    return {"mean": float(array.mean()), "low": float(low), "high": float(high), "n": int(array.size)}


def mean_by_context(rows: Sequence[Sequence[float]]) -> list[float]:
    """Means over rows, of every seed say, for each context; a row has one figure per context."""
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Summary:
    """Mean of the paired differences, context by context, with its interval."""
    return summarize([a - b for a, b in zip(ours, theirs, strict=True)])


def rank_correlation(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Spearman's, ties having their mean rank; None where one side does not differ."""
    first, second = _ranks(ours), _ranks(theirs)
    if first.std() == 0 or second.std() == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    return np.array([(array < value).sum() + ((array == value).sum() + 1) / 2 for value in array])


def ratio(ours: Sequence[float], theirs: Sequence[float], resamples: int = 10_000) -> Summary | None:
    """Ratio of two means over the same contexts, with its interval.

    Returns:
        None where the interval of the second mean reaches zero: then there is nothing to be a share of.
    """
    array = np.array([ours, theirs], dtype=float)
    drawn = np.random.default_rng(0).integers(0, array.shape[1], size=(resamples, array.shape[1]))
    numerators, denominators = array[:, drawn].mean(axis=2)
    if np.quantile(denominators, 0.025) <= 0:
        return None
    low, high = np.quantile(numerators / denominators, [0.025, 0.975])
    return {"mean": float(array[0].mean() / array[1].mean()), "low": float(low), "high": float(high), "n": array.shape[1]}
