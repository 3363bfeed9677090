import pytest

from protocol.errors import TutelageError
from protocol.messages import Change, Context, Outcome, Question, Refusal, Reward, Task
from recipes.compare import HeldOut, Measured, Scores, base_accuracy, describe_difference, measure, report_scores, side_effects
from recipes.domains import DOMAINS

ADA = Context(title="Ada", passage="Ada plays the harp.", questions=(Question(text="What does Ada play?", answers=("harp",)),))
BOB = Context(title="Bob", passage="Bob plays the lute.", questions=(Question(text="What does Bob play?", answers=("lute",)),))
KNOWN = Context(title="Eve", questions=(Question(text="What does Eve play?", answers=("gong",)),))
TASK = Task(domain="knowledge", domain_version=1, grader="exact_match", grader_version=1)
REFUSED = Refusal(key="0" * 32, request="0" * 32, reason="training diverged")


def reward(base: bool, adapted: bool) -> Reward:
    change = Change(base=(Outcome(answer="", correct=base),), adapted=((Outcome(answer="", correct=adapted),),))
    return Reward(
        key="0" * 32,
        request="0" * 32,
        context="0" * 32,
        edit="0" * 32,
        student="0" * 32,
        value=adapted - base,
        change=change,
        gained=change.gained,
        lost=change.lost,
        seeds=(1,),
        seconds=2.0,
        trained_tokens=10,
    )


def test_the_base_is_known_from_any_reward_of_the_context() -> None:
    assert base_accuracy(ADA, [REFUSED, None, reward(True, False)]) == 1.0
    with pytest.raises(TutelageError, match="context 'Ada' got no reward under any condition: training diverged"):
        base_accuracy(ADA, [REFUSED, None])


def test_without_a_reward_the_student_stays_as_it_was() -> None:
    measured = measure([reward(False, True), REFUSED, None], base=[0.0, 1.0, 0.0])
    assert measured == Measured([1.0, 1.0, 0.0], gained=1, lost=0, seconds=2.0, malformed=1, refused=1)


def test_leakage_asks_about_another_context_and_counts_this_ones_answers() -> None:
    held_out = HeldOut(DOMAINS["knowledge"], TASK, [ADA, BOB], {}, [KNOWN], repeats=1, seed=0)
    leak, retained = side_effects(held_out, 0)
    assert leak.questions == (Question(text="What does Bob play?", answers=("harp",)),)
    assert leak.passage == ""
    assert retained == KNOWN
    assert side_effects(held_out, 1)[0].questions == (Question(text="What does Ada play?", answers=("lute",)),)


def test_a_report_pools_seeds_by_context_and_pairs_differences() -> None:
    def scores(trained: list[float]) -> Scores:
        conditions = {"no_edit": [0.0, 0.0], "untrained_teacher": [0.0, 0.5], "random_selection": [0.0, 0.5], "trained_teacher": trained}
        leakage = [(0.0, trained[0]), None]
        return Scores({name: Measured(values) for name, values in conditions.items()}, leakage, [None, None])

    report = report_scores([scores([0.5, 1.0]), scores([1.0, 1.0])])
    assert report["scores"]["trained_teacher"]["mean"] == 0.875
    assert report["trained_minus_untrained"] == {"mean": 0.625, "low": 0.5, "high": 0.75, "n": 2}
    assert report["trained_minus_random"]["mean"] == 0.625
    assert report["leakage"]["after"] == {"mean": 0.75, "low": 0.75, "high": 0.75, "n": 1}
    assert "retention" not in report


def test_a_ranking_that_its_interval_does_not_support_is_said_to_be_so() -> None:
    assert describe_difference({"mean": 0.1, "low": -0.1, "high": 0.3, "n": 9}) == "+10.0% [-10.0%, +30.0%], which supports no ranking"
    assert describe_difference({"mean": 0.2, "low": 0.1, "high": 0.3, "n": 9}) == "+20.0% [+10.0%, +30.0%]"
