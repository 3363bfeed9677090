import pytest

from recipes.statistics import difference, rank_correlation, ratio, summarize


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


def test_nothing_cannot_be_summarised() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        summarize([])


def test_a_ratio_has_an_interval_over_the_same_contexts() -> None:
    theirs = [0.4, 0.6] * 50
    kept = ratio([value / 2 for value in theirs], theirs)
    assert kept is not None
    assert (kept["mean"], kept["low"], kept["high"], kept["n"]) == (pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5), 100)


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
