import pytest

from protocol.messages import Question
from recipes.graders.words import Contained, ExactMatch, contained, exact_match, f1, first_line, normalize, squad_metric


def test_normalisation_is_squads() -> None:
    assert normalize("  The Denver   Broncos! ") == "denver broncos"
    assert normalize("An apple, a day") == "apple day"


@pytest.mark.parametrize(
    ("answer", "gold", "exact", "overlap", "inside"),
    [
        ("The Broncos", "broncos", 1.0, 1.0, 1.0),
        ("Denver Broncos", "Broncos", 0.0, 2 / 3, 1.0),
        ("Broncosaurus", "Broncos", 0.0, 0.0, 0.0),
        ("", "Broncos", 0.0, 0.0, 0.0),
        ("the", "a", 1.0, 1.0, 0.0),
    ],
)
def test_scores(answer: str, gold: str, exact: float, overlap: float, inside: float) -> None:
    assert exact_match(answer, gold) == exact
    assert f1(answer, gold) == pytest.approx(overlap)
    assert contained(answer, gold) == inside


def test_exact_match_reads_the_first_line_and_contained_the_whole_answer() -> None:
    question = Question(text="Who won?", answers=("Carolina", "Broncos"))
    rambling = "\nThe Panthers\nNo, Broncos"
    assert first_line(rambling) == "The Panthers"
    assert ExactMatch().grade([question], [rambling])[0].correct is False
    assert Contained().grade([question], [rambling])[0].correct is True


def test_a_question_without_answers_is_asked_but_not_graded() -> None:
    assert ExactMatch().grade([Question(text="Who?")], ["Ada"])[0].correct is None
    assert Contained().grade([Question(text="Who?")], ["Ada"])[0].correct is None


def test_the_metric_works_offline() -> None:
    scores = squad_metric().compute(predictions=["The harp", "a lyre"], references=[["harp", "lute"], ["golden lyre"]])
    assert scores == {"exact_match": 50.0, "f1": pytest.approx(100 * (1 + 2 / 3) / 2)}
