import random

import pytest

from recipes.reliability import describe_reliability, estimate_reliability, find_contenders, guess_variances


def draw(between: float, within: float, contexts: int = 400, candidates: int = 5, repeats: int = 3) -> list[list[list[float]]]:
    rng = random.Random(0)
    drawn = []
    for _ in range(contexts):
        true = [rng.gauss(0.5, between) for _ in range(candidates)]
        drawn.append([[rng.gauss(mean, within) for _ in range(repeats)] for mean in true])
    return drawn


def test_the_parts_of_the_variance_are_found_again() -> None:
    estimate = estimate_reliability(draw(between=0.1, within=0.2), common_seeds=False)
    assert estimate is not None
    assert estimate["between"] == pytest.approx(0.1, abs=0.01)
    assert estimate["within"] == pytest.approx(0.2, abs=0.01)
    assert estimate["single"] == pytest.approx(0.2, abs=0.04)
    assert estimate["reward"] == pytest.approx(3 / 7, abs=0.05)
    assert estimate["low"] < estimate["reward"] < estimate["high"]
    assert estimate["n"] == 400
    assert "at 3 repeats" in describe_reliability(estimate)


def test_luck_that_all_self_edits_of_a_context_share_is_no_noise() -> None:
    rng = random.Random(1)
    drawn = [
        [[own + shared for own, shared in zip(repeats, shift, strict=True)] for repeats in candidates]
        for candidates in draw(between=0.1, within=0.1)
        for shift in [[rng.gauss(0, 0.3) for _ in range(3)]]
    ]
    shared, apart = (estimate_reliability(drawn, common_seeds=common) for common in (True, False))
    assert shared is not None and apart is not None
    assert shared["single"] == pytest.approx(0.5, abs=0.05)
    assert shared["between"] == pytest.approx(0.1, abs=0.01)
    assert apart["single"] < 0.2


def test_the_two_ways_agree_on_a_worked_example() -> None:
    # Squares between the two candidates: 0.16; left after means of candidates and repeats are taken out: 0.01.
    estimate = estimate_reliability([[[0.9, 0.8], [0.4, 0.5]]], common_seeds=True)
    assert estimate is not None
    assert estimate["within"] ** 2 == pytest.approx(0.01)
    assert estimate["between"] ** 2 == pytest.approx((0.16 - 0.01) / 2)


def test_contexts_of_one_group_that_are_alike_say_it_once() -> None:
    drawn = draw(between=0.1, within=0.2, contexts=20)
    once = estimate_reliability(drawn, common_seeds=True)
    twice = estimate_reliability([*drawn, [], *drawn], common_seeds=True, groups=[*map(str, range(20)), "", *map(str, range(20))])
    assert once is not None and twice is not None
    assert (twice["low"], twice["high"]) == (pytest.approx(once["low"]), pytest.approx(once["high"]))
    assert (twice["n"], twice["groups"]) == (40, 20)
    assert "groups" not in once


def test_rewards_that_are_all_luck_are_not_reliable() -> None:
    estimate = estimate_reliability(draw(between=0.0, within=0.2), common_seeds=True)
    assert estimate is not None
    assert estimate["reward"] < 0.1


@pytest.mark.parametrize("common_seeds", [True, False])
def test_candidates_may_have_different_numbers_of_repeats(common_seeds: bool) -> None:
    drawn = draw(between=0.1, within=0.1)
    uneven = [[repeats[: 1 + n % 3] for n, repeats in enumerate(candidates)] for candidates in drawn]
    estimate = estimate_reliability(uneven, common_seeds=common_seeds)
    assert estimate is not None
    assert estimate["single"] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("contexts", [[], [[[0.5], [0.5]]], [[[0.5, 0.4]]], [[[0.5, 0.5], [0.5, 0.5]]]])
def test_nothing_is_said_where_nothing_can_be_known(contexts: list[list[list[float]]]) -> None:
    assert estimate_reliability(contexts, common_seeds=False) is None


def test_who_can_hardly_be_kept_any_more_is_given_up() -> None:
    results = [[0.9], [0.2], [0.85], []]
    assert find_contenders(results, keep=1, repeats=3, give_up_below=0.05, noise=0.01, between=0.05) == [0, 2]
    assert find_contenders(results, keep=1, repeats=3, give_up_below=0.05, noise=1.0, between=0.05) == [0, 1, 2]
    assert find_contenders(results, keep=2, repeats=3, give_up_below=0.4, noise=0.0, between=0.05) == [0, 2]
    assert find_contenders(results, keep=3, repeats=3, give_up_below=0.4, noise=0.0, between=0.05) == [0, 1, 2]


def test_a_tie_is_never_given_up() -> None:
    assert find_contenders([[0.5], [0.5]], keep=1, repeats=2, give_up_below=0.49, noise=0.0, between=0.0) == [0, 1]


def test_before_anything_was_repeated_noise_is_that_of_coins() -> None:
    assert guess_variances([[[0.0], [1.0]], []], questions=[5, 5]) == (0.05, 0.45)
    assert guess_variances([[[], []]], questions=[5]) == (0.0, 0.0)
    noise, between = guess_variances([[[0.0, 0.2], [1.0, 1.0]]], questions=[5])
    assert noise == pytest.approx(0.01)
    assert between == pytest.approx(0.49)


def test_on_the_released_repeats_the_choice_stays_the_same_at_a_lower_cost(released: object) -> None:
    import itertools
    import json
    from pathlib import Path
    from statistics import fmean

    assert isinstance(released, Path)
    articles = json.loads((released / "seal" / "rank_iter0.json").read_text())["articles"]
    questions = [len(article["completions"][0]["questions"]) // 3 for article in articles]
    accuracies = [
        [[fmean(q["adapter_correct"] for q in c["questions"] if q["rep"] == rep) for rep in range(3)] for c in article["completions"]]
        for article in articles
    ]
    used = same = 0
    for order in itertools.permutations(range(3)):
        results = [[[candidate[order[0]]] for candidate in article] for article in accuracies]
        running = [list(range(5)) for _ in accuracies]
        for repeat in order[1:]:
            noise, between = guess_variances(results, questions)
            for n, article in enumerate(accuracies):
                left = find_contenders([results[n][i] for i in running[n]], 1, 3, 0.05, noise, between)
                running[n] = [running[n][i] for i in left]
                for i in running[n]:
                    results[n][i].append(article[i][repeat])
        used += sum(len(repeats) for article in results for repeats in article)
        for n, article in enumerate(accuracies):
            best = max(range(5), key=lambda i: (round(fmean(article[i]), 9), -i))
            same += best == max(running[n], key=lambda i: (round(fmean(results[n][i]), 9), -i))
    assert used / (6 * 750) < 0.92
    assert same / (6 * 50) > 0.98
