import json
import random
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import InvalidInput
from protocol.feedback import Feedback, RefusedRows, Row, read_feedback
from recipes.answer_tests import AnswerCase, Untested, run_answer_test
from recipes.feedback import Taught, Use, UsedVersion, UseReward, combine, reward_use
from recipes.feedback_rules import FeedbackRules, KindWeights, appraise
from recipes.sandbox import Limits

MADE = 1_000_000.0
ADA, BOB, EDIT, OTHER = "a" * 32, "b" * 32, "e" * 32, "f" * 32
FIRST = UsedVersion("1" * 32, MADE, (Taught(ADA, EDIT, ("harp?", "age?")), Taught(BOB, OTHER, ("town?",))))
SECOND = UsedVersion("2" * 32, MADE + 100, (Taught(ADA, EDIT, ("harp?",)),))
PLAIN = FeedbackRules(shrink=0)


def row(question: str = "harp?", value: bool | float = True, kind: str = "thumb", **changes: object) -> Row:
    told = {"version": FIRST.fingerprint, "context": ADA, "question": question, "kind": kind, "value": value, "time": MADE + 10}
    feedback = Feedback.model_validate(told | changes)
    return Row(f"use.jsonl, line {feedback.id}", feedback)


def pieces(*values: bool) -> list[Row]:
    return [row(value=value, id=f"piece {number}") for number, value in enumerate(values)]


def reward(rows: Iterable[Row], rules: FeedbackRules = PLAIN, now: float = MADE + 1000) -> Use:
    return reward_use(rows, (FIRST, SECOND), rules, now)


def worth(value: bool | float, kind: str, rules: FeedbackRules = PLAIN) -> float:
    return appraise(row(value=value, kind=kind).feedback, rules)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("rating", 1, -1.0),
        ("rating", 2, -0.5),
        ("rating", 3, 0.0),
        ("rating", 4.5, 0.75),
        ("rating", 5, 1.0),
        ("thumb", True, 1.0),
        ("thumb", False, -1.0),
        ("click", True, 1.0),
        ("click", False, -1.0),
        ("seconds", 0, -1.0),
        ("seconds", 5, -1.0),
        ("seconds", 60, 1.0),
        ("seconds", 10**6, 1.0),
        ("test", True, 1.0),
        ("test", False, -1.0),
    ],
)
def test_each_kind_is_worth_so_much(kind: str, value: bool | float, expected: float) -> None:
    assert worth(value, kind) == expected


def test_what_feedback_is_worth_can_be_set() -> None:
    rules = FeedbackRules(neutral_rating=4, no_click=0, thumb_up=0.5, few_seconds=0, many_seconds=3)
    assert [worth(value, "rating", rules) for value in (1, 2.5, 4, 4.5, 5)] == [-1, -0.5, 0, 0.5, 1]
    assert (worth(False, "click", rules), worth(True, "thumb", rules)) == (0, 0.5)
    assert worth(1, "seconds", rules) == 0.0  # log 2 is half of log 4


def test_a_self_edit_is_paid_for_those_of_its_questions_that_have_feedback() -> None:
    rows = [row(), row(value=False, time=MADE + 11), row(value=5, kind="rating"), row("age?", value=2, kind="rating")]
    found = reward(rows).rewards
    assert found[ADA, EDIT] == UseReward(value=pytest.approx((1 / 3 - 0.5) / 2), questions=2, pieces=4)
    assert found[BOB, OTHER] == UseReward(value=None, questions=0, pieces=0)


def test_the_same_question_to_two_versions_is_two_questions() -> None:
    rows = [row(), row(value=False, version=SECOND.fingerprint, time=MADE + 200)]
    assert reward(rows).rewards[ADA, EDIT] == UseReward(value=0.0, questions=2, pieces=2)


def test_lessons_with_the_same_question_share_its_feedback() -> None:
    version = replace(FIRST, lessons=(Taught(ADA, EDIT, ("harp?",)), Taught(ADA, OTHER, ("harp?",))))
    found = reward_use([row()], [version], PLAIN, MADE).rewards
    assert [found[ADA, edit].value for edit in (EDIT, OTHER)] == [1.0, 1.0]


def test_kinds_have_weights() -> None:
    rules = replace(PLAIN, weights=KindWeights(click=0.5, thumb=1.5, seconds=0))
    use = reward([row(), row(value=False, kind="click"), row(value=60, kind="seconds")], rules)
    assert use.rewards[ADA, EDIT] == UseReward(value=0.5, questions=1, pieces=2)
    assert (use.counted, use.weightless) == (2, 1)


def test_few_pieces_are_drawn_towards_nothing() -> None:
    rules = FeedbackRules(shrink=2)
    assert reward(pieces(True), rules).rewards[ADA, EDIT].value == pytest.approx(1 / 3)
    assert reward(pieces(*[True] * 8), rules).rewards[ADA, EDIT].value == pytest.approx(0.8)


def test_a_question_with_too_few_pieces_has_no_reward() -> None:
    rules = replace(PLAIN, minimum=3)
    assert reward(pieces(True, True), rules).rewards[ADA, EDIT] == UseReward(value=None, questions=0, pieces=0)
    assert reward(pieces(True, True, False), rules).rewards[ADA, EDIT].value == pytest.approx(1 / 3)


def test_feedback_about_a_young_answer_counts_when_it_is_older() -> None:
    rules, rows = replace(PLAIN, wait=100), [row(), row(value=False, answered=MADE + 5)]
    early = reward(rows, rules, now=MADE + 99)
    assert (early.rewards[ADA, EDIT].value, early.early, early.counted) == (None, 2, 0)
    assert reward(rows, rules, now=MADE + 100).rewards[ADA, EDIT].value == 1.0
    assert reward(rows, rules, now=MADE + 105).rewards[ADA, EDIT].value == 0.0


def test_late_feedback_is_counted_and_ignored() -> None:
    use = reward([row(time=MADE + 60), row(value=False, time=MADE + 61)], replace(PLAIN, latest=60))
    assert (use.rewards[ADA, EDIT].value, use.counted, use.late) == (1.0, 1, 1)


def test_a_repeated_row_counts_once() -> None:
    use = reward([row(), row(), row(id="x"), row(id="x", time=MADE + 12), row(id="y", value=False)])
    assert use.rewards[ADA, EDIT] == UseReward(value=pytest.approx(1 / 3), questions=1, pieces=3)
    assert (use.counted, use.repeated) == (3, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (row(version="9" * 32), f"version is {'9' * 32}, which is none of those that feedback is asked for"),
        (row("hat?"), f"question is 'hat[?]' about context {ADA}, which no lesson of version {FIRST.fingerprint} is tested by"),
        (row("town?"), "question is 'town[?]'"),
        (row("age?", version=SECOND.fingerprint, time=MADE + 200), "question is 'age[?]'"),
        (row(time=MADE - 1), "it is of 999999.0, but its version was made at 1000000.0"),
        (row(answered=MADE - 1), "it is of 999999.0"),
        (row(id="1", value=False), "id is '1', as in an earlier row that says something else; give it its own"),
    ],
)
def test_a_row_that_cannot_be_joined_is_refused(wrong: Row, message: str) -> None:
    rows = [row(id="1"), wrong, row(id="2", value=False)]
    with pytest.raises(InvalidInput, match=f"^use.jsonl, line [0-9a-f]+: {message}"):
        reward(rows)
    refusals = RefusedRows()
    use = reward_use(rows, (FIRST, SECOND), PLAIN, MADE + 1000, refusals)
    assert (refusals.count, use.counted) == (1, 2)
    assert use.rewards[ADA, EDIT].value == 0.0


def test_a_version_is_given_once() -> None:
    with pytest.raises(ValueError, match="2 versions, but only 1 fingerprints"):
        reward_use([], (FIRST, FIRST), PLAIN, MADE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neutral_rating": 5}, "neutral_rating is 5; it must be between 1 and 5"),
        ({"thumb_up": 1.5}, r"thumb_up is 1.5; it must be in \[-1, 1\]"),
        ({"click": float("nan")}, "click is nan"),
        ({"test_failed": 0.5, "test_passed": 0}, "test_passed is 0, below use.test_failed, which is 0.5; swap them"),
        ({"few_seconds": 60}, "few_seconds is 60 and use.many_seconds is 60.0; the first must be the smaller"),
        ({"minimum": 0}, "minimum is 0; it must be at least 1"),
        ({"shrink": -1}, "shrink is -1; it must be a number, and not negative"),
        ({"wait": float("inf")}, "wait is inf"),
        ({"latest": -5}, "latest is -5"),
        ({"weights": KindWeights(click=-0.1)}, "weights.click is -0.1"),
    ],
)
def test_rules_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    FeedbackRules().check("x.yaml", "use.")
    with pytest.raises(InvalidInput, match=f"x.yaml: use.{message}"):
        FeedbackRules(**change).check("x.yaml", "use.")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("question", "use", "weight", "expected"),
    [
        (0.5, -0.5, 0, 0.5),
        (0.5, -0.5, 0.25, 0.25),
        (0.5, -0.5, 1, -0.5),
        (0.5, None, 0.25, 0.5),
        (0.5, None, 1, None),
        (None, -0.5, 0.25, -0.5),
        (None, -0.5, 0, None),
        (None, None, 0.25, None),
    ],
)
def test_two_rewards_become_one(question: float | None, use: float | None, weight: float, expected: float | None) -> None:
    assert combine(question, use, weight) == expected


def test_a_weight_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight is 2; it must be in \[0, 1\]"):
        combine(0.5, 0.5, 2)


RULES = st.builds(
    FeedbackRules,
    neutral_rating=st.floats(1.01, 4.99),
    few_seconds=st.floats(0, 10),
    many_seconds=st.floats(11, 10**6),
    shrink=st.floats(0, 100),
    weights=st.builds(KindWeights, *[st.floats(0, 1000)] * 5),
)
KINDS = st.one_of(
    st.tuples(st.just("rating"), st.floats(1, 5)),
    st.tuples(st.just("seconds"), st.floats(0, 10**9)),
    st.tuples(st.sampled_from(["thumb", "click", "test"]), st.booleans()),
)
ROWS = st.lists(st.builds(lambda told, question: row(question, told[1], told[0]), KINDS, st.sampled_from(["harp?", "age?"])), max_size=30)


@settings(max_examples=100, deadline=None)
@given(ROWS, RULES, st.randoms())
def test_rewards_lie_between_minus_one_and_one_whatever_the_order_and_the_repetitions(
    rows: list[Row], rules: FeedbackRules, rng: random.Random
) -> None:
    rules.check("x.yaml", "")
    assert all(-1 <= appraise(one.feedback, rules) <= 1 for one in rows)
    use = reward(rows, rules)
    assert all(found.value is None or -1 <= found.value <= 1 for found in use.rewards.values())
    shuffled = rows * 2
    rng.shuffle(shuffled)
    assert reward(shuffled, rules).rewards == use.rewards


@settings(max_examples=100, deadline=None)
@given(RULES, *[st.floats(1, 5)] * 2, *[st.floats(0, 10**9)] * 2)
def test_more_is_never_worth_less(rules: FeedbackRules, rating: float, other: float, seconds: float, others: float) -> None:
    assert worth(min(rating, other), "rating", rules) <= worth(max(rating, other), "rating", rules)
    assert worth(min(seconds, others), "seconds", rules) <= worth(max(seconds, others), "seconds", rules)


def test_many_rows_need_little_memory(tmp_path: Path) -> None:
    told = json.loads(row().feedback.model_dump_json())
    with (tmp_path / "use.jsonl").open("w") as file:
        for number in range(4000):
            file.write(json.dumps({**told, "id": f"{number:040}" * 4}) + "\n")
    reward(read_feedback(tmp_path / "use.jsonl"))
    tracemalloc.start()
    use = reward(read_feedback(tmp_path / "use.jsonl"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (use.counted, use.rewards[ADA, EDIT].value) == (4000, 1.0)
    assert most < 300_000


CASE = AnswerCase(FIRST.fingerprint, ADA, "Ada", "harp?", "A harp \ud800 ✓", ("harp",))


def run_test(code: str, **limits: object) -> Feedback | Untested:
    return run_answer_test(["python", "-c", code], CASE, Limits(**limits), MADE + 10)  # type: ignore[arg-type]


def test_a_test_reads_what_was_asked_and_answered() -> None:
    expected = {"context": "Ada", "question": "harp?", "answer": "A harp \ud800 ✓", "gold": ["harp"]}
    passed = run_test(f"import json, sys; assert json.load(sys.stdin) == {expected!r}")
    assert isinstance(passed, Feedback)
    assert (passed.kind, passed.value, passed.version, passed.context, passed.question) == ("test", True, FIRST.fingerprint, ADA, "harp?")


def test_a_test_that_fails_is_feedback_and_the_same_test_is_the_same_piece() -> None:
    failed = run_test("raise SystemExit(1)")
    again = run_answer_test(["python", "-c", "raise SystemExit(1)"], CASE, Limits(), MADE + 99)
    other = run_answer_test(["python", "-c", "raise SystemExit(1)"], replace(CASE, answer="A lute"), Limits(), MADE + 10)
    assert isinstance(failed, Feedback) and isinstance(again, Feedback) and isinstance(other, Feedback)
    assert failed.value is False
    assert failed.id == again.id != other.id
    use = reward([Row("tests", one) for one in (failed, again, other)])
    assert (use.counted, use.repeated, use.rewards[ADA, EDIT].value) == (2, 1, -1.0)


@pytest.mark.parametrize(
    ("code", "limits", "reason"),
    [
        (
            "import sys; print('no gold', file=sys.stderr); sys.exit(2)",
            {},
            "the test ended by exit code 2, where 0 or 1 is a verdict; it said: no gold",
        ),
        ("import os; os.abort()", {}, "the test ended by signal SIGABRT, where 0 or 1 is a verdict"),
        ("import time; time.sleep(60)", {"wall_seconds": 0.3}, "the test ended by wall time, where 0 or 1 is a verdict"),
    ],
)
def test_a_test_that_breaks_is_no_feedback(code: str, limits: dict[str, object], reason: str) -> None:
    assert run_test(code, **limits) == Untested(reason)


def test_a_test_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'no-such-test', which is not on the PATH"):
        run_answer_test(["no-such-test"], CASE, Limits(), MADE)
