"""Fits the coefficients of the lexical grader: `python -m recipes.graders.fit_lexical RANK.json [CHECK.json] [--out FILE]`.

Logistic regression with a quadratic penalty, by Newton's method. Penalty and threshold come from cross-validation over
articles of RANK.json alone, as did the choice of features (by log loss); CHECK.json is graded, never fitted. The only
randomness is the splits into folds, which are fixed.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.graders.lexical import COEFFICIENTS, FEATURES, MAX_GOLD_CHARACTERS, Reading, features
from recipes.graders.reading import graded_part

Array = NDArray[np.float64]
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
SPLITS, FOLDS = 10, 10
MAX_WEIGHT = 3
SIDES = ("adapter", "baseline")


@dataclass(frozen=True)
class Verdicts:
    """Graded answers, one row each; equal rows are one.

    Attributes:
        articles: The title that each row belongs to.
        values: The features, `(row, 1 + feature)`; the first column is 1.
        correct: The judge's verdict, 0 or 1; the majority where an answer was judged several times.
        times: How often the row occurs, `(row, side)` with the sides of `SIDES`.
    """

    articles: tuple[str, ...]
    values: Array
    correct: Array
    times: Array

    @property
    def occurrences(self) -> Array:
        """How often a row occurs. By these the threshold is set, since it is the mean over a file that is to come out right."""
        return np.asarray(self.times.sum(axis=1))

    @property
    def weights(self) -> Array:
        """A row's weight in the fit: as often as it occurs, but at most as often as one self-edit is repeated.

        The released files repeat a base answer for every self-edit; it is one answer all the same.
        """
        return np.asarray(np.minimum(self.occurrences, MAX_WEIGHT))


def read_verdicts(path: Path) -> Verdicts:
    yes: Counter[tuple[str, str, str, str]] = Counter()
    times: dict[tuple[str, str, str, str], list[int]] = {}
    for article in json.loads(path.read_text(encoding="utf-8"))["articles"]:
        for row in (row for completion in article["completions"] for row in completion["questions"]):
            for side, name in enumerate(SIDES):
                key = (article["title"], row["question"], row["answer"], row[f"{name}_answer"])
                yes[key] += row[f"{name}_correct"]
                times.setdefault(key, [0, 0])[side] += 1
    counts = np.array(list(times.values()), dtype=float)
    correct = np.array([yes[key] for key in times]) * 2 >= counts.sum(axis=1)
    values = [feature_row(question, gold, answer) for _, question, gold, answer in times]
    return Verdicts(tuple(key[0] for key in times), np.array(values), correct.astype(float), counts)


def feature_row(question: str, gold: str, answer: str) -> list[float]:
    found = features(Reading(question), Reading(gold[:MAX_GOLD_CHARACTERS]), Reading(graded_part(answer)))
    return [1.0, *(found[name] for name in FEATURES)]


def fit(values: Array, correct: Array, weights: Array, penalty: float) -> Array:
    """Coefficients `(1 + feature,)`; the penalty is on coefficients of features scaled to unit deviation, not on the intercept."""
    scale = values.std(axis=0)
    scale[scale == 0] = 1
    scaled, penalties = values / scale, np.full(values.shape[1], penalty)
    penalties[0] = 0
    found = np.zeros(values.shape[1])
    for _ in range(100):
        chance = predict(scaled, found)
        hessian = (scaled * (weights * chance * (1 - chance))[:, None]).T @ scaled + np.diag(penalties)
        step = np.linalg.lstsq(hessian, scaled.T @ (weights * (correct - chance)) - penalties * found, rcond=None)[0]
        found += step
        if np.abs(step).max() < 1e-10:
            break
    return np.asarray(found / scale)


def predict(values: Array, coefficients: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(values @ coefficients, -40, 40))))


def folds(articles: Sequence[str], seed: int) -> NDArray[np.int64]:
    """The fold of each row; an article is never in two."""
    titles = sorted(set(articles))
    of = dict(zip(titles, np.random.default_rng(seed).permutation(len(titles)) % FOLDS, strict=True))
    return np.array([of[article] for article in articles])


def cross_validate(verdicts: Verdicts, penalty: float, seed: int) -> tuple[Array, Array]:
    """Probabilities and grades of held-out articles. A fold's threshold is that of the other folds' held-out probabilities."""
    fold, weights = folds(verdicts.articles, seed), verdicts.weights
    chance, grades = np.zeros(len(fold)), np.zeros(len(fold))
    for held in range(FOLDS):
        rest = fold != held
        chance[~rest] = predict(verdicts.values[~rest], fit(verdicts.values[rest], verdicts.correct[rest], weights[rest], penalty))
    for held in range(FOLDS):
        rest = fold != held
        grades[~rest] = chance[~rest] >= rate_threshold(chance[rest], verdicts.correct[rest], verdicts.occurrences[rest])
    return chance, grades


def rate_threshold(chance: Array, correct: Array, weights: Array) -> float:
    """The threshold at which as much weight is graded right as is right."""
    order = np.argsort(-chance, kind="stable")
    enough = np.searchsorted(np.cumsum(weights[order]), (weights * correct).sum())
    return float(chance[order][min(enough, len(order) - 1)])


def log_loss(chance: Array, correct: Array, weights: Array) -> float:
    return -float(np.average(np.log(np.where(correct == 1, chance, 1 - chance)), weights=weights))


def kappa(correct: Array, grades: Array, weights: Array) -> float:
    """Cohen's kappa of two sets of verdicts."""
    a, b, same = (float(np.average(x, weights=weights)) for x in (correct, grades, correct == grades))
    chance = a * b + (1 - a) * (1 - b)
    return (same - chance) / (1 - chance)


def agreement(correct: Array, grades: Array, weights: Array) -> dict[str, float]:
    """Kappa, share of equal verdicts, and the grades' mean less the judge's (accuracy, in [-1, 1])."""
    return {
        "kappa": round(kappa(correct, grades, weights), 4),
        "agreement": round(float(np.average(correct == grades, weights=weights)), 4),
        "bias": round(float(np.average(grades - correct, weights=weights)), 4),
    }


def by_side(verdicts: Verdicts, grades: Array) -> dict[str, dict[str, float]]:
    """Agreement on all occurrences of adapter answers, of base answers, and of both."""
    weights = {side: verdicts.times[:, i] for i, side in enumerate(SIDES)} | {"both": verdicts.times.sum(axis=1)}
    return {side: agreement(verdicts.correct, grades, weight) for side, weight in weights.items()}


def fit_grader(verdicts: Verdicts) -> dict[str, Any]:
    """What `lexical.json` holds. The threshold is that of held-out probabilities, mean over splits."""
    held_out = {penalty: [cross_validate(verdicts, penalty, seed) for seed in range(SPLITS)] for penalty in PENALTIES}
    correct, weights = verdicts.correct, verdicts.weights
    penalty = min(PENALTIES, key=lambda p: sum(log_loss(chance, correct, weights) for chance, _ in held_out[p]))
    found = [by_side(verdicts, grades) for _, grades in held_out[penalty]]
    coefficients = fit(verdicts.values, correct, weights, penalty)
    return {
        "coefficients": dict(zip(("intercept", *FEATURES), (round(float(c), 4) for c in coefficients), strict=True)),
        "threshold": round(float(np.mean([rate_threshold(chance, correct, verdicts.occurrences) for chance, _ in held_out[penalty]])), 4),
        "penalty": penalty,
        "answers": len(correct),
        "articles": len(set(verdicts.articles)),
        "cross_validated": {
            side: {name: round(float(np.mean([split[side][name] for split in found])), 4) for name in found[0][side]} for side in found[0]
        },
    }


def grade(verdicts: Verdicts, fitted: dict[str, Any]) -> Array:
    coefficients = np.array([fitted["coefficients"][name] for name in ("intercept", *FEATURES)])
    return np.asarray(predict(verdicts.values, coefficients) >= fitted["threshold"], dtype=float)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rank", type=Path, help="released file with verdicts to fit")
    parser.add_argument("check", type=Path, nargs="?", help="another such file, to check on")
    parser.add_argument("--out", type=Path, default=COEFFICIENTS)
    given = parser.parse_args(arguments)
    fitted = fit_grader(read_verdicts(given.rank))
    given.out.write_text(json.dumps(fitted, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(fitted, indent=2))
    if given.check:
        checked = read_verdicts(given.check)
        print("check:", json.dumps(by_side(checked, grade(checked, fitted))))


if __name__ == "__main__":
    main()
