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


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Summary:
    """Mean of the paired differences, context by context, with its interval."""
    return summarize([a - b for a, b in zip(ours, theirs, strict=True)])
