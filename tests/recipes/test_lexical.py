"""The lexical grader: what it reads, what it sees, and how well it stands in for the judge."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from protocol.messages import Question
from recipes.graders import GRADERS
from recipes.graders.fit_lexical import Verdicts, agreement, by_side, fit_grader, grade, kappa, rate_threshold, read_verdicts
from recipes.graders.lexical import COEFFICIENTS, FEATURES, Lexical, Reading, features, likeness, longest_run
from recipes.graders.reading import capitalised, graded_part, words

FIXTURE = Path(__file__).with_name("lexical_verdicts.json")
"""Every sixth row of `eval_base.json`: features to three digits, verdict, and how often as an adapter's and as a base answer. No text."""

CONTAINED = {"adapter": 0.7404, "baseline": 0.6323, "both": 0.6937}
"""Kappa of the `contained` grader on `eval_base.json`."""


def seen(question: str, gold: str, answer: str) -> dict[str, float]:
    return features(Reading(question), Reading(gold), Reading(graded_part(answer)))


def is_right(question: str, gold: str | tuple[str, ...], answer: str) -> bool | None:
    golds = (gold,) if isinstance(gold, str) else gold
    return Lexical().grade([Question(text=question, answers=golds)], [answer])[0].correct


def sample(verdicts: Verdicts) -> list[list[float]]:
    rows = np.hstack([verdicts.values[:, 1:], verdicts.correct[:, None], verdicts.times])[::6]
    return [[round(float(value), 3) for value in row] for row in rows]


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        ("  Paris.\n", "Paris."),
        ("Paris\n\nQuestion: Topic: Rome\nWho founded it?\nAnswer:\nRomulus", "Paris"),
        ("Paris\nQ: And Italy?\nA: Rome", "Paris"),
        ("Paris\nLet's answer a question directly and concisely.\nRome", "Paris"),
        ("Paris<|im_end|>\n<|im_start|>user", "Paris"),
        ("Paris\nLyon\nParis\nLyon\nNice", "Paris\nLyon"),
        ("Reasons:\n\n1. Cost\n\n2. Speed", "Reasons:\n1. Cost\n2. Speed"),
        ("The question: is it Paris?", "The question: is it Paris?"),
        ("", ""),
    ],
)
def test_an_answer_is_graded_up_to_where_it_leaves_the_question(answer: str, part: str) -> None:
    assert graded_part(answer) == part


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The U.S. paid €1,200 in Nov. 1998.", ["the", "us", "paid", "1200", "in", "november", "1998"]),
        ("seventeen countries", ["17", "countr"]),
        ("the 16th (sixteenth) century, 205 BCE", ["the", "16", "16", "centur", "205", "bc"]),
        ("5.6% of Adam's farms", ["5.6", "percent", "of", "adam", "farm"]),
        ("Díaz; Õhuvägi", ["diaz", "ohuvagi"]),
        ("١٩٤٨", ["1948"]),
        ("东京是首都", ["东", "京", "是", "首", "都"]),
        ("שָׁלוֹם\u200f", ["שלום"]),
        ("+", ["+"]),
    ],
)
def test_other_spellings_give_the_same_words(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_capitalised_words_are_those_that_begin_with_a_capital() -> None:
    assert capitalised("the Baltic Germans of Õhuvägi, 3G") == ["baltic", "german", "ohuvagi", "g"]


def test_every_feature_is_described_and_has_a_coefficient() -> None:
    assert list(seen("Who?", "Ada", "Ada")) == list(FEATURES)
    assert list(json.loads(COEFFICIENTS.read_text())["coefficients"]) == ["intercept", *FEATURES]


@pytest.mark.parametrize(
    ("question", "gold", "answer", "feature", "value"),
    [
        ("Who won?", "Denver Broncos", "It was the Broncos.", "recall", 0.5),
        ("Who won the cup?", "Broncos", "The cup was won by Denver Broncos.", "precision", 0.5),
        ("What is a harp?", "abcd efgh", "xx efgh yy", "longest_run", 5 / 9),
        ("Which year?", "in May 1998", "1997 in Mayfair", "rarest_nearly_found", 0.0),
        ("What is needed?", "Baptism", "They must be baptized.", "rarest_nearly_found", 10 / 13),
        ("Who won?", "Broncos", "Broncos", "rarest_nearly_found", 0.0),
        ("Who won?", "Broncos", "Denver, Broncos, Carolina, Panthers", "last_place", 0.5),
        ("Which city is Ann Arbor?", "Ann Arbor", "Detroit", "gold_in_question", 1.0),
        ("How?", "in large boats", "no", "names_missing", 0.0),
        ("Who?", "the Countess Ada Lovelace", "Ada", "names_missing", 2 / 3),
        ("Who?", "Ada", "It was not Ada", "negation", 1.0),
        ("Who?", "Ada", "It wasn\u2019t Ada", "negation", 1.0),
        ("Who?", "Don", "Don", "negation", 0.0),
        ("Who was not there?", "Ada", "It was not Ada", "negation", 0.0),
        ("Who?", "Ada", "...", "variety", 0.0),
        ("Who?", "Ada", "Bob, Bob and Bob or Eve", "variety", 0.5),
        ("How did it end?", "badly", "well", "asks_why", 1.0),
        ("To whom?", "Ada", "Bob", "asks_who", 1.0),
        ("How many?", "seventeen", "There were 17.", "number_found", 1.0),
        ("When?", "the 16th century", "In 1566.", "number_found", 1.0),
        ("How many?", "9,430 tonnes", "about 9,400", "number_near", 1.0),
        ("When?", "1954", "In 1955", "number_near", 1.0),
        ("When?", "1954", "In 1959", "number_near", 0.0),
        ("When?", "1954", "In 1959", "number_contradicted", 1.0),
        ("When?", "1954", "Long ago", "number_contradicted", 0.0),
        ("Who won in 1998?", "1998 was drawn", "2001", "number_contradicted", 0.0),
    ],
)
def test_a_feature_sees_what_it_is_said_to_see(question: str, gold: str, answer: str, feature: str, value: float) -> None:
    assert seen(question, gold, answer)[feature] == pytest.approx(value)


def test_other_names_are_those_in_neither_question_nor_gold() -> None:
    names = seen("Who beat Carolina?", "Denver Broncos", "Experts say Carolina lost to Seattle, not the Broncos")["other_names"]
    assert names == pytest.approx(np.log(2))


def test_likeness_forgives_endings_and_misspellings_but_no_digit() -> None:
    assert likeness("test", "testicl") == pytest.approx(0.9)
    assert likeness("borgdorferi", "burgdorferi") == pytest.approx(10 / 11)
    assert likeness("1947", "1948") == 0.0
    assert longest_run("", "abc") == 0.0


@pytest.mark.parametrize(
    ("question", "gold", "answer", "right"),
    [
        ("What is the capital of France?", "Paris", "Paris", True),
        ("What is the capital of France?", "Paris", "The capital of France is Paris.", True),
        ("What is the capital of France?", "Paris", "The capital of France is Lyon.", False),
        ("What is the capital of France?", "Paris", "Lyon\nQuestion: Where is the Louvre?\nAnswer: Paris", False),
        ("What is the capital of France?", "Paris", "", False),
        ("Which city is Ann Arbor?", "Ann Arbor", "", False),
        ("How many countries produced uranium?", "seventeen", "17 countries produced uranium.", True),
        ("How many countries produced uranium?", "seventeen", "12 countries produced uranium.", False),
        ("ما هي عاصمة مصر؟", "القاهرة", "عاصمة مصر هي القاهرة.", True),
        ("ما هي عاصمة مصر؟", "القاهرة", "عاصمة مصر هي الإسكندرية.", False),
        ("מהי בירת ישראל?", "ירושלים", "\u200fיְרוּשָׁלַיִם", True),  # noqa: RUF001
        ("日本の首都は？", "東京", "日本の首都は東京です。", True),  # noqa: RUF001
        ("日本の首都は？", "東京", "大阪です。", False),  # noqa: RUF001
    ],
)
def test_verdicts(question: str, gold: str, answer: str, right: bool) -> None:
    assert is_right(question, gold, answer) is right


def test_any_of_several_golds_is_enough_and_the_best_gives_the_score() -> None:
    both = Question(text="Who won?", answers=("Carolina", "Broncos"))
    alone = Question(text="Who won?", answers=("Broncos",))
    assert Lexical().grade([both], ["The Broncos won."]) == Lexical().grade([alone], ["The Broncos won."])
    assert is_right("Who won?", ("Carolina", "Broncos"), "The Broncos won.") is True


def test_a_question_without_answers_is_asked_but_not_graded() -> None:
    outcome = Lexical().grade([Question(text="Who?")], ["Ada"])[0]
    assert (outcome.correct, outcome.score) == (None, None)


def test_a_gold_without_words_can_be_graded() -> None:
    assert is_right("Which sign adds?", "+", "+") is True
    assert is_right("Which sign adds?", "", "plus") is False


@pytest.mark.parametrize("piece", ["Paris ", "\n", "a", "1", "1.", "Question ", "\ufdfa", "東"])
def test_a_huge_answer_is_graded_at_once(piece: str) -> None:
    question = Question(text="Where? " * 1000, answers=("Paris " * 1000,) * 10)
    answer = (piece * 200_000)[:200_000]
    started = time.perf_counter()
    outcome = Lexical().grade([question], [answer])[0]
    assert time.perf_counter() - started < 1
    assert outcome.answer == answer


def test_the_same_answer_gets_the_same_grade_in_any_company() -> None:
    asked = [Question(text="Who won?", answers=("Broncos",)), Question(text="When?", answers=("1998",))]
    together = Lexical().grade(asked, ["The Broncos won.", "In 1999"])
    assert list(together) == [Lexical().grade([q], [a])[0] for q, a in zip(asked, ["The Broncos won.", "In 1999"], strict=True)]


def test_the_recipes_know_the_grader_by_name() -> None:
    assert (GRADERS["lexical"].name, GRADERS["lexical"].version) == ("lexical", 1)


def test_kappa_is_cohens() -> None:
    judged, graded = np.array([1.0, 1, 1, 0, 0]), np.array([1.0, 1, 0, 0, 1])
    assert kappa(judged, graded, np.ones(5)) == pytest.approx((0.6 - 0.52) / 0.48)


def test_the_threshold_grades_as_much_right_as_is_right() -> None:
    chance, correct = np.array([0.9, 0.8, 0.7, 0.2]), np.array([0.0, 1, 1, 0])
    threshold = rate_threshold(chance, correct, np.ones(4))
    assert (chance >= threshold).sum() == 2


def test_the_grader_agrees_with_recorded_verdicts() -> None:
    rows = np.array(json.loads(FIXTURE.read_text())["rows"])
    count = len(FEATURES)
    values = np.hstack([np.ones((len(rows), 1)), rows[:, :count]])
    verdicts = Verdicts(("",) * len(rows), values, rows[:, count], rows[:, count + 1 :])
    grades = grade(verdicts, json.loads(COEFFICIENTS.read_text()))
    found = agreement(verdicts.correct, grades, np.ones(len(rows)))
    assert found["kappa"] > 0.68
    assert abs(found["bias"]) < 0.04


def test_the_grader_agrees_with_the_released_verdicts_it_was_not_fitted_on(released: Path) -> None:
    verdicts = read_verdicts(released / "seal" / "eval_base.json")
    found = by_side(verdicts, grade(verdicts, json.loads(COEFFICIENTS.read_text())))
    assert all(found[side]["kappa"] > kappa_of_contained for side, kappa_of_contained in CONTAINED.items())
    assert found["both"]["kappa"] > 0.72
    assert max(abs(found[side]["bias"]) for side in found) < 0.02
    assert sample(verdicts) == json.loads(FIXTURE.read_text())["rows"]


def test_a_grade_is_that_of_the_fitted_rows(released: Path) -> None:
    verdicts = read_verdicts(released / "seal" / "rank_iter0.json")
    graded = grade(verdicts, json.loads(COEFFICIENTS.read_text()))
    first = json.loads((released / "seal" / "rank_iter0.json").read_text())["articles"][0]["completions"][0]["questions"][0]
    outcome = Lexical().grade([Question(text=first["question"], answers=(first["answer"],))], [first["adapter_answer"]])[0]
    assert outcome.correct == bool(graded[0])


def test_fitting_again_gives_the_shipped_coefficients(released: Path) -> None:
    fitted, shipped = fit_grader(read_verdicts(released / "seal" / "rank_iter0.json")), json.loads(COEFFICIENTS.read_text())
    assert fitted["coefficients"] == pytest.approx(shipped["coefficients"], abs=2e-4)
    assert fitted["threshold"] == pytest.approx(shipped["threshold"], abs=2e-4)
    assert (fitted["penalty"], fitted["answers"], fitted["articles"]) == (shipped["penalty"], shipped["answers"], shipped["articles"])
