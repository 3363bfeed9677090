import pytest

from protocol.errors import TutelageError
from protocol.messages import Change, Context, Outcome, Question
from recipes.comparison import (
    BeforeAfter,
    Measured,
    Scores,
    describe,
    describe_difference,
    find_graded,
    measure,
    measure_conditions,
    rank,
    report_scores,
    report_student,
    table,
)
from recipes.conditions import Effect, Row, Tried

ADA = Context(title="Ada", passage="Ada plays the harp.", questions=(Question(text="What does Ada play?", answers=("harp",)),))
BOB = Context(title="Bob", passage="Bob plays the lute.", questions=(Question(text="What does Bob play?", answers=("lute",)),))


def effect(base: bool, adapted: bool | None, tokens: float = 10.0) -> Effect:
    change = Change(base=(Outcome(answer="", correct=base),), adapted=((Outcome(answer="", correct=adapted),),))
    return Effect(change, seconds=2.0, trained_tokens=tokens)


WRONG, RIGHT = (Outcome(answer="", correct=False),), (Outcome(answer="", correct=True),)


def test_without_an_effect_the_student_stays_as_it_was() -> None:
    row = [[effect(False, True)], ["training diverged"], [None], [effect(True, None)]]
    measured = measure(row, base=[WRONG, RIGHT, WRONG, RIGHT], contexts=[ADA, BOB, ADA, BOB])
    nothing: list[BeforeAfter] = [None] * 4
    means = {"gained": 1, "lost": 0, "seconds": 4.0, "trained_tokens": 5.0, "malformed": 1, "refused": 1, "ungraded": 1}
    assert measured == Measured([1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], **means, leakage=nothing, retention=nothing)  # type: ignore[arg-type]


def test_answers_gained_and_lost_are_means_over_repeats() -> None:
    twice = Effect(Change(base=WRONG, adapted=(RIGHT, WRONG)))
    assert measure([[twice]], base=[WRONG], contexts=[ADA]).gained == 0.5


def test_a_contexts_figures_are_means_over_its_candidates() -> None:
    four = [effect(False, True, tokens=12.0), effect(False, False, tokens=4.0), "too long", None]
    two = [effect(True, False, tokens=6.0), effect(True, True, tokens=2.0)]
    measured = measure([four, two], base=[WRONG, RIGHT], contexts=[ADA, BOB])
    nothing: list[BeforeAfter] = [None, None]
    means = {"gained": 0.25, "lost": 0.5, "seconds": 8.0, "trained_tokens": 4.0, "malformed": 1, "refused": 1, "ungraded": 0}
    assert measured == Measured([0.25, 0.5], [0.25, 0.5], **means, leakage=nothing, retention=nothing)  # type: ignore[arg-type]


def test_a_candidate_without_an_effect_counts_with_the_base_answers() -> None:
    measured = measure([[effect(True, False), None], ["no", None]], base=[RIGHT, RIGHT], contexts=[ADA, BOB])
    assert (measured.accuracies, measured.malformed, measured.refused) == ([0.5, 1.0], 2, 1)


def test_answers_of_every_candidate_and_repeat_may_lack_a_verdict() -> None:
    unsure = Effect(Change(base=WRONG, adapted=((Outcome(answer="", correct=None),), RIGHT)))
    assert measure([[unsure, unsure]], base=[WRONG], contexts=[ADA]).ungraded == 2


def test_side_effects_are_those_of_the_first_self_edit_that_was_probed() -> None:
    change = Change(base=WRONG, adapted=(WRONG, RIGHT))
    probed = Effect(change, probes=(change,))
    scores = measure_conditions([ADA, BOB], Tried([WRONG, WRONG], {"last": [[None, probed, Effect(change)], ["no", None, None]]}))
    assert scores.conditions["last"].leakage == [(0.0, 0.5), None]
    assert scores.conditions["last"].retention == [None, None]
    assert scores.refusals == {"last": "no"}


def test_a_context_with_a_candidate_without_a_verdict_is_left_out() -> None:
    row = [[effect(False, True), effect(False, None)], [effect(False, True), None]]
    assert find_graded([Tried([WRONG, WRONG], {"teacher": row})]) == [1]


def test_the_graders_scores_are_kept_beside_the_verdicts() -> None:
    half = (Outcome(answer="", correct=False, score=0.5),)
    measured = measure([[Effect(Change(base=WRONG, adapted=(half, RIGHT)))], [None]], base=[WRONG, half], contexts=[ADA, BOB])
    assert (measured.accuracies, measured.scores) == ([0.5, 0.0], [0.75, 0.5])


def test_conditions_are_measured_beside_the_untouched_student() -> None:
    rows = {"passage_only": [["too long"], [effect(True, True)]], "teacher": [[effect(False, True)], [effect(True, False)]]}
    scores = measure_conditions([ADA, BOB], Tried([WRONG, RIGHT], rows))
    assert scores.conditions["no_edit"].accuracies == [0.0, 1.0]
    assert (scores.conditions["teacher"].gained, scores.conditions["teacher"].lost) == (1, 1)
    assert scores.refusals == {"passage_only": "too long"}


def test_a_context_without_a_verdict_under_some_condition_is_left_out_of_all() -> None:
    rows = {"passage_only": [[effect(False, False)], [effect(True, None)]], "teacher": [[effect(False, True)], [effect(True, True)]]}
    report = report_student([ADA, BOB], [Tried([WRONG, RIGHT], rows)], "teacher")
    assert report["left_out"] == 1
    assert {name: score["mean"] for name, score in report["scores"].items()} == {"no_edit": 0.0, "passage_only": 0.0, "teacher": 1.0}
    assert "left out: 1 contexts without a verdict under some condition" in describe(report)
    with pytest.raises(TutelageError, match="no context has verdicts under every condition"):
        report_student([BOB], [Tried([RIGHT], {"teacher": [[effect(True, None)]]})], "teacher")


def test_what_was_read_and_found_is_told_beside_the_accuracies() -> None:
    rows: dict[str, Row] = {
        "teacher": [[effect(False, True, tokens=30.0)]] * 3,
        "retrieval": [[effect(False, None)], *[[effect(False, True)]] * 2],
    }
    tried = Tried([WRONG] * 3, rows, {"no_edit": 10.4, "teacher": 10.4, "retrieval": 60.0}, found=[0.0, 1.0, 0.5])
    report = report_student([ADA, BOB, ADA], [tried, tried], "teacher")
    assert report["read_tokens"] == {"no_edit": 10.4, "teacher": 10.4, "retrieval": 60.0}
    assert report["found"] == {"mean": 0.75, "low": 0.5, "high": 1.0, "n": 2}, "of the contexts that are compared"
    told = describe(report)
    assert "looked up: the right passage for 75.0% [50.0%, 100.0%] of questions" in told
    assert "tokens read for an answer: no edit 10, retrieval 60" in told


def test_a_report_pools_seeds_by_context_and_pairs_differences() -> None:
    def scores(trained: list[float]) -> Scores:
        conditions = {"no_edit": [0.0, 0.0], "untrained_teacher": [0.0, 0.5], "random_selection": [0.0, 0.5], "trained_teacher": trained}
        measured = {name: Measured(values, values) for name, values in conditions.items()}
        measured["trained_teacher"].leakage = [(0.0, trained[0]), None]
        return Scores(measured)

    report = report_scores([scores([0.5, 1.0]), scores([1.0, 1.0])], "trained_teacher")
    assert report["scores"]["trained_teacher"]["mean"] == 0.875
    assert report["differences"]["trained_teacher_minus_untrained_teacher"] == {"mean": 0.625, "low": 0.5, "high": 0.75, "n": 2}
    assert report["leakage"]["trained_teacher"]["after"] == {"mean": 0.75, "low": 0.75, "high": 0.75, "n": 1}
    assert "retention" not in report
    told = "\n".join(describe({**report, "left_out": 0}))
    assert "trained teacher minus random selection: +62.5% [+50.0%, +75.0%]" in told
    assert "minus no edit" not in told
    assert "leakage: 0.0% before an update; after: trained teacher 75.0%" in told
    assert table("student", report).row_count == 4


def test_teachers_are_told_apart_by_their_side_effects_where_intervals_do() -> None:
    values = [1.0] * 8
    plain: list[BeforeAfter] = [(0.0, 1.0)] * 7 + [(0.0, 0.0)]
    net: list[BeforeAfter] = [None, *[(0.0, 0.0)] * 7]
    kept: list[BeforeAfter] = [(1.0, 0.5)] * 8
    conditions = {
        "plain": Measured(values, values, leakage=plain, retention=kept),
        "net": Measured(values, values, leakage=net, retention=kept),
    }
    report = report_scores([Scores({"no_edit": Measured(values, values), **conditions})], "net")
    assert report["leakage"]["plain"]["after"]["mean"] == 0.875
    difference = report["leakage_differences"]["net_minus_plain"]
    assert (difference["mean"], difference["n"]) == (pytest.approx(-6 / 7), 7), "over the contexts on which both are known"
    told = describe({**report, "left_out": 0})
    assert "leakage: 0.0% before an update; after: plain 87.5%, net 0.0%" in told
    assert any(line.startswith("leakage, net minus plain: -85.7% [") for line in told)
    assert not any(line.startswith("retention, ") for line in told), "no difference is clear"


def test_intervals_are_over_groups_of_contexts() -> None:
    conditions = {"no_edit": [0.0, 0.0, 0.0, 0.0], "teacher": [0.0, 1.0, 1.0, 0.0]}
    measured = {name: Measured(values, values) for name, values in conditions.items()}
    measured["teacher"].leakage = [(0.0, 0.0), None, (0.0, 1.0), (0.0, 0.0)]
    report = report_scores([Scores(measured)], "teacher", ["a", "b", "b", "a"])
    grouped = {"mean": 0.5, "low": 0.0, "high": 1.0, "n": 4, "groups": 2}
    assert report["scores"]["teacher"] == report["gain"]["teacher"] == report["answer_scores"]["teacher"] == grouped
    assert report["differences"]["teacher_minus_no_edit"] == report["ranking"][0]["lead"] == grouped
    assert report["leakage"]["teacher"]["after"] == {"mean": pytest.approx(1 / 3), "low": 0.0, "high": 1.0, "n": 3, "groups": 2}
    assert "intervals are over groups of contexts, 2 in all" in describe({**report, "left_out": 0})


def test_a_report_knows_the_groups_of_its_contexts() -> None:
    contexts = [context.model_copy(update={"group": "music"}) for context in (ADA, BOB)]
    report = report_student(contexts, [Tried([WRONG, WRONG], {"teacher": [[effect(False, True)]] * 2})], "teacher")
    assert report["scores"]["teacher"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 2, "groups": 1}
    assert not report["ranking"][0]["supported"], "one group makes no interval"


def test_a_ranking_says_which_of_its_places_the_figures_support() -> None:
    accuracies = {"a": [0.0, 0.1, 0.0, 0.1] * 2, "b": [0.9, 1.0, 0.9, 1.0] * 2, "c": [0.1, 0.0, 0.1, 0.1] * 2}
    ranking = rank(accuracies)
    assert [place["condition"] for place in ranking] == ["b", "c", "a"]
    assert [place["supported"] for place in ranking] == [True, False, False]
    assert ranking[0]["lead"]["mean"] == pytest.approx(0.875)


@pytest.mark.parametrize(("count", "supported"), [(1, False), (5, False), (6, True)])
def test_a_few_contexts_support_no_ranking(count: int, supported: bool) -> None:
    assert rank({"a": [0.3] * count, "b": [0.1] * count})[0]["supported"] is supported


def test_a_ranking_that_its_interval_does_not_support_is_said_to_be_so() -> None:
    assert describe_difference({"mean": 0.1, "low": -0.1, "high": 0.3, "n": 9}) == "+10.0% [-10.0%, +30.0%], which supports no ranking"
    assert describe_difference({"mean": 0.2, "low": 0.1, "high": 0.3, "n": 9}) == "+20.0% [+10.0%, +30.0%]"
