import numpy as np
import pytest

from recipes.statistics import difference, rank_correlation, ratio, sum_by_group, summarize


def test_an_interval_covers_its_mean_and_shrinks_with_n() -> None:
    few, many = summarize([0.0, 1.0] * 5), summarize([0.0, 1.0] * 500)
    assert few["mean"] == many["mean"] == 0.5
    assert few["low"] < 0.5 < few["high"]
    assert many["high"] - many["low"] < (few["high"] - few["low"]) / 5
    assert (few["n"], many["n"]) == (10, 1000)


def test_the_interval_matches_the_normal_approximation() -> None:
    values = [0.0, 1.0] * 200
    assert summarize(values)["high"] - 0.5 == pytest.approx(1.96 * 0.5 / 20, rel=0.06)


def test_a_paired_difference_ignores_what_both_share() -> None:
    theirs = [0.0, 1.0] * 50
    assert difference([v + 0.1 for v in theirs], theirs)["low"] == pytest.approx(0.1)


def test_contexts_of_one_group_that_are_alike_count_as_one() -> None:
    alone = summarize([0.0, 1.0] * 5)
    assert alone == {"mean": 0.5, "low": 0.2, "high": 0.8, "n": 10}
    alike, names = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0] * 5, [str(context // 4) for context in range(40)]
    assert summarize(alike, names) == {"mean": 0.5, "low": 0.2, "high": 0.8, "n": 40, "groups": 10}
    assert summarize(alike) == {"mean": 0.5, "low": 0.35, "high": 0.65, "n": 40}


@pytest.mark.parametrize("names", [[], ["", "", "", ""], ["a", "b", "c", "d"], ["", "b", "", "d"]])
def test_groups_of_one_context_change_nothing(names: list[str]) -> None:
    ours, theirs = [0.1, 0.7, 0.2, 0.5], [0.3, 0.4, 0.3, 0.9]
    assert summarize(ours, names) == summarize(ours) == {"mean": 0.375, "low": 0.15, "high": 0.6, "n": 4}
    assert difference(ours, theirs, names) == difference(ours, theirs)
    assert ratio(ours, theirs, names) == ratio(ours, theirs)


def test_a_larger_group_counts_for_more() -> None:
    # Of five groups drawn, three being the large one is the rarest that 2.5% reach: 2 ones among 3 * 6 + 2 contexts.
    summary = summarize([0.0] * 6 + [1.0] * 4, ["large"] * 6 + [""] * 4)
    assert summary == {"mean": 0.4, "low": 0.1, "high": 1.0, "n": 10, "groups": 5}


def test_sums_are_by_group_in_the_order_in_which_they_begin() -> None:
    assert sum_by_group(np.array([[1.0, 2.0, 4.0, 8.0]]), ["b", "", "b", ""]).tolist() == [[5.0, 2.0, 8.0]]


def test_nothing_cannot_be_summarised() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        summarize([])


def test_a_ratio_has_an_interval_over_the_same_contexts() -> None:
    theirs = [0.4, 0.6] * 50
    kept = ratio([value / 2 for value in theirs], theirs)
    assert kept is not None
    assert (kept["mean"], kept["low"], kept["high"], kept["n"]) == (pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5), 100)


def test_a_ratio_resamples_groups() -> None:
    ours, theirs = [0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5], [0.5] * 8
    assert ratio(ours, theirs) == {"mean": 0.5, "low": 0.125, "high": 0.875, "n": 8}
    assert ratio(ours, theirs, ["a"] * 4 + ["b"] * 4) == {"mean": 0.5, "low": 0.0, "high": 1.0, "n": 8, "groups": 2}


def test_there_is_no_share_of_what_may_be_nothing() -> None:
    assert ratio([0.5] * 4, [0.1, -0.1] * 2) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "rho"),
    [
        ([1.0, 2.0, 3.0], [10.0, 20.0, 25.0], 1.0),
        ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], -1.0),
        ([1.0, 1.0, 2.0], [1.0, 2.0, 3.0], 0.866025),
        ([1.0, 1.0], [1.0, 2.0], None),
    ],
)
def test_rank_correlation_is_spearmans(ours: list[float], theirs: list[float], rho: float | None) -> None:
    assert rank_correlation(ours, theirs) == (None if rho is None else pytest.approx(rho))
