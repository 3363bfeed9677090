import pytest

from teacher.selection import keep_best, keep_random

CANDIDATES = ["a0", "a1", "b0", "a2", "b1"]


def context_of(candidate: str) -> str:
    return candidate[0]


def test_the_best_of_each_context_is_kept_in_the_given_order() -> None:
    assert keep_best(CANDIDATES, [0.1, 0.9, 0.3, 0.2, 0.2], 1, context_of=context_of) == ["a1", "b0"]
    assert keep_best(CANDIDATES, [0.1, 0.9, 0.3, 0.2, 0.2], 2, context_of=context_of) == ["a1", "b0", "a2", "b1"]


def test_ties_keep_the_earlier_candidate() -> None:
    assert keep_best(CANDIDATES, [0.5, 0.5, 0.5, 0.5, 0.5], 1, context_of=context_of) == ["a0", "b0"]


def test_a_minimum_leaves_a_context_without_any() -> None:
    assert keep_best(CANDIDATES, [0.1, 0.9, -0.3, 0.2, -0.2], 1, minimum=0.0, context_of=context_of) == ["a1"]
    assert keep_best(CANDIDATES, [0.1, 0.9, -0.3, 0.2, -0.2], 1, context_of=context_of) == ["a1", "b1"]


def test_rewards_must_match_candidates() -> None:
    with pytest.raises(ValueError, match="5 candidates but 1 rewards"):
        keep_best(CANDIDATES, [0.5], 1, context_of=context_of)
    with pytest.raises(ValueError, match="per_context is 0"):
        keep_best(CANDIDATES, [0.5] * 5, 0, context_of=context_of)


def test_random_selection_depends_on_its_seed_alone() -> None:
    drawn = [tuple(keep_random(CANDIDATES, 1, seed, context_of=context_of)) for seed in range(20)]
    assert drawn == [tuple(keep_random(CANDIDATES, 1, seed, context_of=context_of)) for seed in range(20)]
    assert len(set(drawn)) > 1
    assert all({c[0] for c in pair} == {"a", "b"} for pair in drawn)


def test_a_control_keeps_no_more_than_it_may() -> None:
    kept = [keep_random(CANDIDATES, 5, seed, context_of=context_of, at_most=2) for seed in range(20)]
    assert all(len(own) == 2 and own == [c for c in CANDIDATES if c in own] for own in kept)
    assert {candidate for own in kept for candidate in own} == set(CANDIDATES)
    assert keep_random(CANDIDATES, 5, 0, context_of=context_of, at_most=9) == CANDIDATES
