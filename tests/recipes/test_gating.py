"""A recipe's gate looks for banned outputs, and has the base write questions where a context has none."""

from collections.abc import Sequence

from protocol.identity import content_id
from protocol.messages import Context, Question
from recipes.domains.knowledge import Knowledge
from recipes.gating import find_banned, write_own_questions
from recipes.patterns import Pattern
from student.version_answers import AnswerRow
from student.version_records import Check


def row(answer: str, before: str | None) -> AnswerRow:
    return AnswerRow(context=content_id("c"), title="", question="Who?", answer=answer, correct=None, why="probe", before=before)


def test_a_banned_output_refuses_unless_it_was_there_before() -> None:
    patterns = [Pattern("idiot"), Pattern(r"[\x00-\x08]")]
    assert find_banned(patterns, [row("a fool", None), row("idiot", "what an idiot")]) == Check(name="banned", passed=True)
    check = find_banned(patterns, [row("a fool", "a fool"), row("you idiot", "a fool")])
    assert check == Check(name="banned", passed=False, reason="'idiot' is found in the answer to 'Who?': 'you idiot'")
    assert not find_banned(patterns, [row("\x07", "")]).passed
    assert not find_banned(patterns, [row("idiot", None)]).passed


def test_a_huge_answer_is_searched_in_time_and_shown_in_part() -> None:
    check = find_banned([Pattern("(a+)+$")], [row("a" * 199_999, "b")])
    assert not check.passed
    assert len(check.reason) < 500


class Writing:
    """A learner whose base writes two questions about whatever it has room for."""

    nothing = None

    def fits(self, prompts: Sequence[str], longest: int | None = None) -> bool:
        return all(len(prompt) < 500 for prompt in prompts)

    def ask(self, students: Sequence[object], prompts: Sequence[Sequence[str]], longest: int | None = None) -> list[list[str]]:
        return [["Who came?\nAnswer: Tola\n\nQuestion 2: Who came?\nAnswer: Tola\n\nQuestion 3: Who left?\nAnswer: Nore"] * len(prompts[0])]


def test_the_base_writes_questions_where_it_has_room() -> None:
    short, long = Context(passage="Tola came and Nore left."), Context(passage="x" * 1000)
    first, second = write_own_questions(Writing(), Knowledge(), [short, long])  # type: ignore[arg-type]
    assert first.questions == (Question(text="Who came?", answers=("Tola",)), Question(text="Who left?", answers=("Nore",)))
    assert second.questions == ()
