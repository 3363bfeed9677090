import pytest

from recipes.statistics import difference, summarize


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
