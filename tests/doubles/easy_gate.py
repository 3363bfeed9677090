"""A gate that lets everything pass."""

from collections.abc import Sequence
from statistics import fmean

from protocol.domain import Domain, Grader
from protocol.messages import Lesson
from student.gate import Verdict
from student.grading import by_context
from student.keeping import Learned
from student.learner import Learner
from student.updating import Judge
from student.version_answers import AnswerRow
from student.version_records import Check


def ask_own(learner: Learner, domain: Domain, grader: Grader) -> Judge:
    """A gate that lets everything pass, and asks what was taught, before and after."""

    def gate(before: Learned, after: Learned, lessons: Sequence[Lesson]) -> Verdict:
        contexts = [lesson.context for lesson in lessons if lesson.context.questions]
        prompts = [prompt for context in contexts for prompt in domain.ask(context)]
        asked = [by_context(domain, contexts, answers) for answers in learner.ask([before, after], [prompts, prompts])]
        old, new = (domain.read_answers(contexts, [answers for _, answers in own], grader) for own in asked)
        rows = [
            AnswerRow(
                context=context.id,
                title=context.label,
                question=question.text,
                gold=question.answers,
                answer=now.answer,
                correct=now.correct,
                why="own",
                before=then.answer,
                correct_before=then.correct,
            )
            for context, olds, news in zip(contexts, old, new, strict=True)
            for question, then, now in zip(context.questions, olds, news, strict=True)
        ]
        graded = [row.correct for row in rows if row.correct is not None]
        return Verdict((Check(name="own", value=fmean(graded) if graded else None, passed=True),), tuple(rows))

    return gate
