"""What a gate asks: parent and child the same questions, and the base, with the passage in view, those that have no answer.

What stands in a self-edit tells apart what was taught from what a student makes up about anything it does not know.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from protocol.domain import Domain, Grader
from protocol.identity import derive_seed
from protocol.messages import Context, Lesson, Outcome, Outcomes, Question, SelfEdit
from student.grading import first_line
from student.keeping import Learned
from student.learner import Learner
from student.others import ask_of_others
from student.settings import GateSettings

Sort = Literal["own", "written", "stranger", "other", "earlier", "probe"]
Write = Callable[[Sequence[Context]], Sequence[Context]]
"""Gives contexts the questions that the base writes about them, with answers, in place of their own."""

_WORD: Final = re.compile(r"\w+")
_MOST_READ: Final = 256
"""Examples of a self-edit in which names and answers are looked for."""
_IN_A_LINE: Final = 3
"""Others looked for in each of them: those whom it names, and whose names are made up of theirs."""
_SOURCES: Final = 4
"""Of so many contexts learned earlier the questions are asked about strangers, too."""
_NOTHING: Final = Context()


@dataclass(frozen=True)
class Proposal:
    """An update that asks to become a version."""

    before: Learned
    after: Learned
    lessons: tuple[Lesson, ...]


@dataclass(frozen=True)
class Inquiry:
    """Questions about one subject, for parent and child alike.

    Attributes:
        sort: A new context's `own` questions, and those that the base has `written`; both, and some of earlier contexts, about a `stranger`
            whom the self-edit names but the passage does not; the first about an `other` from elsewhere. Questions of contexts learned
            `earlier`, and of a `probe`.
        source: The context that they come from.
        asked: That, with these questions. Of an `other`, what is so of the subject counts as their answers.
        subject: Of `own`, `written` and `stranger`, which of all that the update is about.
        taught: What the self-edit says, each of its examples as words.
        passage: With it in view the base answers them, too; without questions where it need not, or has no room.
    """

    sort: Sort
    source: Context
    asked: Context
    subject: int = 0
    taught: tuple[frozenset[str], ...] = ()
    passage: Context = _NOTHING


@dataclass(frozen=True)
class Reply:
    """One question, and what parent and child answered.

    Attributes:
        false: Whether the child answers, as its parent did not, what the self-edit says and the passage does not; None if nobody can tell.
    """

    inquiry: Inquiry
    question: Question
    before: Outcome
    after: Outcome
    false: bool | None


class Interview:
    """Asks everything of many proposals in one go.

    Attributes:
        learner, settings: As they were given.
    """

    def __init__(
        self,
        learner: Learner,
        domain: Domain,
        grader: Grader,
        settings: GateSettings,
        probes: Sequence[Context] = (),
        texts: Sequence[str] = (),
        seed: int = 0,
        write: Write | None = None,
    ):
        """Nothing is asked yet.

        Args:
            probes: Contexts whose questions the student knew from the start.
            texts: Where the names of others come from, of whom it knows nothing.
            seed: Decides which of all questions are asked, and about which others.
            write: Has the base write questions about contexts; without it contexts that have none cannot show a gain.
        """
        self.learner, self.settings = learner, settings
        self._domain, self._grader = domain, grader
        self._probes, self._texts, self._seed, self._write = probes, texts, seed, write

    def hold(self, proposals: Sequence[Proposal]) -> list[list[Reply]]:
        """The replies to what each proposal is asked, in a fixed order."""
        written = self._have_written({lesson.context.id: lesson.context for p in proposals for lesson in p.lessons})
        asked = [(number, inquiry) for number, proposal in enumerate(proposals) for inquiry in self._inquire(proposal, written)]
        inquiries, base = [inquiry for _, inquiry in asked], self.learner.nothing
        sheets = [
            *((proposals[number].before, inquiry.asked, False) for number, inquiry in asked),
            *((proposals[number].after, inquiry.asked, False) for number, inquiry in asked),
            *((base, inquiry.passage, True) for inquiry in inquiries),
        ]
        answers = ask_once(self.learner, self._domain, sheets)
        outcomes = self._grade([context for _, context, _ in sheets], answers)
        before, after, told = (outcomes[len(asked) * part : len(asked) * (part + 1)] for part in range(3))
        as_told = [_expect(inquiry.asked, read) for inquiry, read in zip(inquiries, told, strict=True)]
        agreed = self._grade(as_told, answers[len(asked) : 2 * len(asked)])
        replies: list[list[Reply]] = [[] for _ in proposals]
        for n, (number, inquiry) in enumerate(asked):
            for i, question in enumerate(inquiry.asked.questions):
                if inquiry.sort == "written" and not (told[n] and told[n][i].correct):
                    continue  # the base does not find what it wrote
                false = _is_false(inquiry, question, before[n][i], after[n][i], agreed[n][i].correct)
                replies[number].append(Reply(inquiry, question, before[n][i], after[n][i], false))
        return replies

    def _have_written(self, contexts: dict[str, Context]) -> dict[str, Context]:
        most = self.settings.written_questions
        asked = [context for context in contexts.values() if context.passage.strip()]
        if self._write is None or not most or not asked:
            return {}
        return {
            context.id: with_questions(context, written.questions[:most])
            for context, written in zip(asked, self._write(asked), strict=True)
        }

    def _inquire(self, proposal: Proposal, written: dict[str, Context]) -> list[Inquiry]:
        inquiries: list[Inquiry] = []
        subject = 0
        new = {lesson.context.id for lesson in proposal.lessons}
        earlier = {lesson.context.id: lesson.context for lesson in proposal.before.lessons if lesson.context.id not in new}
        for lesson in proposal.lessons:
            context, own = lesson.context, written.get(lesson.context.id, _NOTHING)
            taught = tuple(frozenset(_words(e.prompt + " " + e.completion)) for e in lesson.edit.examples[:_MOST_READ])
            is_graded = all(question.answers for question in context.questions)
            inquiries.append(Inquiry("own", context, context, subject, taught, _NOTHING if is_graded else self._view(context)))
            asked = with_questions(context, own.questions)
            inquiries.append(Inquiry("written", context, asked, subject, taught, self._view(asked)))
            graded = [question for question in context.questions if question.answers] or list(own.questions)
            seed = derive_seed(self._seed, "others", context.id, lesson.edit.id)
            others = self._ask_of_others(with_questions(context, graded), self._texts, self.settings.others, seed)
            inquiries += [Inquiry("other", context, other) for other in others]
            known = random.Random(seed).sample(list(earlier.values()), min(_SOURCES, len(earlier)))
            for source in (with_questions(context, [*context.questions, *own.questions]), *known):
                for stranger in self._find_strangers(lesson, source, seed):
                    subject += 1
                    inquiries.append(Inquiry("stranger", source, stranger, subject, taught))
            subject += 1
        seed = derive_seed(self._seed, *(lesson.edit.id for lesson in proposal.lessons))
        inquiries += _sample("earlier", earlier.values(), self.settings.earlier_questions, seed)
        return inquiries + _sample("probe", self._probes, self.settings.probe_questions, seed)

    def _view(self, context: Context) -> Context:
        """A context whose passage the base is to read, if it has one, and the base has room for it."""
        return context if context.passage.strip() and self.learner.fits(self._domain.ask(context, in_view=True)) else _NOTHING

    def _find_strangers(self, lesson: Lesson, source: Context, seed: int) -> list[Context]:
        """A context's questions about those whom the self-edit names most often and the passage does not."""
        passage, asked = set(_WORD.findall(lesson.context.passage)), _question_words(source)
        found: Counter[Context] = Counter()
        for example in lesson.edit.examples[:_MOST_READ]:
            told = self._ask_of_others(source, [example.prompt + example.completion], _IN_A_LINE, seed)
            found.update(stranger for stranger in told if _question_words(stranger) - asked - passage)
        return [stranger for stranger, _ in found.most_common(self.settings.others)]

    def _ask_of_others(self, context: Context, texts: Sequence[str], count: int, seed: int) -> list[Context]:
        """The domain is not shown the self-edit, which may talk of others more than of the subject."""
        return ask_of_others(self._domain, Lesson(context=context, edit=SelfEdit()), texts, count, seed)

    def _grade(self, contexts: Sequence[Context], answers: Sequence[Sequence[str]]) -> list[Outcomes]:
        return list(self._domain.read_answers(contexts, answers, self._grader))


def _is_false(inquiry: Inquiry, question: Question, before: Outcome, after: Outcome, is_told: bool | None) -> bool | None:
    """What `Reply.false` says.

    Args:
        is_told: Whether the child answers what the base reads in the passage.
    """
    is_so = False if inquiry.sort == "stranger" else is_told if after.correct is None else after.correct
    if not inquiry.taught or is_so is None:
        return None
    return not is_so and is_taught(after, question, inquiry.taught) and not is_taught(before, question, inquiry.taught)


def is_taught(outcome: Outcome, question: Question, taught: Iterable[frozenset[str]]) -> bool:
    """Whether most words of an answer, but for those of its question, stand in one example of a self-edit."""
    asked = set(_words(question.text))
    said = [word for word in _words(first_line(outcome.answer)) if word not in asked]
    return bool(said) and any(2 * sum(word in example for word in said) > len(said) for example in taught)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def ask_once(learner: Learner, domain: Domain, sheets: Sequence[tuple[Learned, Context, bool]]) -> list[Sequence[str]]:
    """The answers to each context's prompts, with its passage in view or not. What a student is asked several times it answers once."""
    students = {id(student): student for student, _, _ in sheets}
    prompts: dict[int, dict[str, None]] = {key: {} for key in students}
    for student, context, in_view in sheets:
        prompts[id(student)].update(dict.fromkeys(domain.ask(context, in_view)))
    given = learner.ask(list(students.values()), [list(own) for own in prompts.values()])
    answers = {key: dict(zip(own, texts, strict=True)) for (key, own), texts in zip(prompts.items(), given, strict=True)}
    return [[answers[id(student)][prompt] for prompt in domain.ask(context, in_view)] for student, context, in_view in sheets]


def with_questions(context: Context, questions: Iterable[Question]) -> Context:
    """A context with these questions in place of its own."""
    return context.model_copy(update={"questions": tuple(questions)})


def _question_words(context: Context) -> set[str]:
    return {word for question in context.questions for word in _WORD.findall(question.text)}


def _expect(context: Context, read: Outcomes) -> Context:
    """A context whose answers are the first lines of what the base read, if it read anything."""
    if not read:
        return with_questions(context, (Question(text=question.text) for question in context.questions))
    lines = [first_line(outcome.answer)[:10_000] for outcome in read]
    pairs = zip(context.questions, lines, strict=True)
    return with_questions(context, (Question(text=question.text, answers=(line,) if line else ()) for question, line in pairs))


def _sample(sort: Sort, contexts: Iterable[Context], most: int, seed: int) -> list[Inquiry]:
    """At most so many questions with answers, each with its context."""
    pool = [(context, question) for context in contexts for question in context.questions if question.answers]
    drawn = random.Random(derive_seed(seed, sort)).sample(pool, min(most, len(pool)))
    return [Inquiry(sort, context, with_questions(context, (question,))) for context, question in drawn]
