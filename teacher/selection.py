"""Selection: which candidates a teacher is finetuned on."""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

Candidate = TypeVar("Candidate")


def keep_best(
    candidates: Sequence[Candidate],
    rewards: Sequence[float],
    per_context: int,
    minimum: float | None = None,
    *,
    context_of: Callable[[Candidate], str],
) -> list[Candidate]:
    """Keep the best-rewarded candidates of each context (the selection of ReST-EM).

    Source: SEAL, arXiv 2506.10943, section 3.1 ("rejection sampling + SFT").

    Args:
        candidates: One round's candidates, any order.
        rewards: One per candidate, mean over repeats, in [-1, 1]; higher is better.
        per_context: How many to keep per context, at least 1.
        minimum: Rewards below it are not kept; None keeps the best whatever it is, as published.
        context_of: The context id of a candidate.

    Returns:
        The kept candidates in their given order; ties keep the earlier.

    Raises:
        ValueError: If the two sequences differ in length or `per_context` is below 1.
    """
    if len(candidates) != len(rewards):
        raise ValueError(f"{len(candidates)} candidates but {len(rewards)} rewards; give one reward per candidate")
    if per_context < 1:
        raise ValueError(f"per_context is {per_context}; keep at least 1")
    kept: list[int] = []
    for indices in _by_context(candidates, context_of):
        ranked = sorted(indices, key=lambda i: -rewards[i])
        kept += [i for i in ranked[:per_context] if minimum is None or rewards[i] >= minimum]
    return [candidates[i] for i in sorted(kept)]


def keep_random(
    candidates: Sequence[Candidate], per_context: int, seed: int, *, context_of: Callable[[Candidate], str], at_most: int | None = None
) -> list[Candidate]:
    """Keep candidates of each context by lot, `at_most` so many in all: the control that shows what finetuning alone does."""
    rng = random.Random(seed)
    kept: list[int] = []
    for indices in _by_context(candidates, context_of):
        kept += rng.sample(indices, min(per_context, len(indices)))
    if at_most is not None and len(kept) > at_most:
        kept = rng.sample(kept, at_most)
    return [candidates[i] for i in sorted(kept)]


def _by_context(candidates: Sequence[Candidate], context_of: Callable[[Candidate], str]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for index, candidate in enumerate(candidates):
        groups.setdefault(context_of(candidate), []).append(index)
    return list(groups.values())
