import pytest

from protocol.messages import Change, Context, Outcome, Question
from recipes.compare_settings import Transfer, TransferTeacher
from recipes.conditions import Effect, Tried
from recipes.transfer import measure_matrix, report_matrix
from student.settings import StudentSettings

SETTINGS = Transfer(teachers={"mine": TransferTeacher(trained_for=["one"])}, students={"one": StudentSettings(), "two": StudentSettings()})
MATRIX = {
    "no_edit": {"one": [0.0, 0.0, 0.0, 0.0], "two": [0.0, 0.0, 0.0, 0.0]},
    "mine": {"one": [0.5, 0.5, 1.0, 1.0], "two": [0.0, 0.0, 1.0, 1.0]},
}


def test_a_matrix_resamples_groups() -> None:
    told = report_matrix(SETTINGS, MATRIX, ["a", "a", "b", "b"])
    by_group = {"mean": 0.5, "low": 0.0, "high": 1.0, "n": 4, "groups": 2}
    assert told["accuracy"]["mine"]["two"] == told["gain"]["mine"]["two"] == by_group
    assert told["kept"]["mine"]["two"] == {"mean": pytest.approx(2 / 3), "low": 0.0, "high": 1.0, "n": 4, "groups": 2}


def test_a_matrix_has_what_is_graded() -> None:
    wrong, right = (Outcome(answer="", correct=False),), (Outcome(answer="", correct=True),)
    effects = [[Effect(Change(base=wrong, adapted=(adapted,)))] for adapted in (wrong, right, right)]
    tried = {"one": [Tried([wrong] * 3, {"mine": effects})]}
    contexts = [Context(title=name, questions=(Question(text="?", answers=("x",)),)) for name in "abc"]
    matrix = measure_matrix(contexts, [0, 2], tried, ["mine"])
    assert matrix == {"no_edit": {"one": [0.0, 0.0]}, "mine": {"one": [0.0, 1.0]}}
