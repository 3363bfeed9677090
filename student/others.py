"""Questions about others: a context's questions with somebody else's name, to see whether what was learned of one is said of all."""

from collections.abc import Sequence

from protocol.domain import Domain
from protocol.messages import Context, Lesson


def ask_of_others(domain: Domain, lesson: Lesson, texts: Sequence[str], count: int, seed: int) -> list[Context]:
    """The lesson's questions asked about others, where what it teaches of its own subject counts as the answers: right is leaked.

    Args:
        texts: Where the others' names come from.

    Returns:
        `count` contexts or fewer; none where no question names the subject.
    """
    asked = []
    for other in domain.tell_of_others(lesson, texts, count, seed):
        pairs = zip(other.context.questions, lesson.context.questions, strict=True)
        questions = tuple(renamed for renamed, question in pairs if renamed.text != question.text)
        if questions:
            asked.append(Context(title=other.context.title, questions=questions))
    return asked
