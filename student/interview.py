"""What a gate asks: parent and child the same questions, and the base what the passage says to them, and what the self-edit says.

What the base reads in a passage stands for what is so wherever a question has no answer of its own. What stands in a self-edit, or the base
reads there, tells apart what was taught from what a student makes up about anything it does not know.
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
from student.keeping import Learned
from student.learner import Learner
from student.settings import GateSettings

Sort = Literal["own", "written", "stranger", "other", "earlier", "probe"]
Write = Callable[[Sequence[Context]], Sequence[Context]]
"""Gives contexts the questions that the base writes about them, with answers, in place of their own."""

_WORD: Final = re.compile(r"\w+")
_MOST_READ: Final = 100_000
"""Characters of a self-edit in which the base reads."""
_LINES: Final = 256
"""In which names are looked for."""
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
        sort: A new context's `own` questions, and those that the base has `written`; both, about a `stranger` whom the self-edit names but
            the passage does not; the same about an `other` from elsewhere. Questions of contexts learned `earlier`, and of a `probe`.
        source: The context that they come from.
        asked: That, with these questions. Of an `other`, what is so of the subject counts as their answers.
        subject: Of `own`, `written` and `stranger`, which of all that the update is about.
        taught: The text of the self-edit that they are about.
        passage, edit: What the base reads for them; without questions where it reads nothing.
    """

    sort: Sort
    source: Context
    asked: Context
    subject: int = 0
    taught: str = ""
    passage: Context = _NOTHING
    edit: Context = _NOTHING


@dataclass(frozen=True)
class Reply:
    """One question, and what parent and child answered.

    Attributes:
        false: Whether the child answers, as its parent did not, what the self-edit says and the passage does not; None if nothing was read.
    """

    inquiry: Inquiry
    question: Question
    before: Outcome
    after: Outcome
    false: bool | None


class Interview:
    """Asks everything of many proposals in one go."""

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
        """See `student.gate.Gate`."""
        self._learner, self._domain, self._grader, self._settings = learner, domain, grader, settings
        self._probes, self._texts, self._seed, self._write = probes, texts, seed, write

    def hold(self, proposals: Sequence[Proposal]) -> list[list[Reply]]:
        """The replies to what each proposal is asked, in a fixed order."""
        written = self._have_written({lesson.context.id: lesson.context for p in proposals for lesson in p.lessons})
        asked = [(number, inquiry) for number, proposal in enumerate(proposals) for inquiry in self._inquire(proposal, written)]
        inquiries, base = [inquiry for _, inquiry in asked], self._learner.nothing
        sheets = [
            *((proposals[number].before, inquiry.asked, False) for number, inquiry in asked),
            *((proposals[number].after, inquiry.asked, False) for number, inquiry in asked),
            *((base, inquiry.passage, True) for inquiry in inquiries),
            *((base, inquiry.edit, True) for inquiry in inquiries),
        ]
        answers = ask_once(self._learner, self._domain, sheets)
        outcomes = self._grade([context for _, context, _ in sheets], answers)
        before, after, told, taught = (outcomes[len(asked) * part : len(asked) * (part + 1)] for part in range(4))
        as_taught = [_expect(inquiry.asked, read) for inquiry, read in zip(inquiries, taught, strict=True)]
        as_told = [_expect(inquiry.asked, read) for inquiry, read in zip(inquiries, told, strict=True)]
        agreed = self._grade([*as_taught, *as_taught, *as_told], [*answers[: 2 * len(asked)], *answers[len(asked) : 2 * len(asked)]])
        replies: list[list[Reply]] = [[] for _ in proposals]
        for n, (number, inquiry) in enumerate(asked):
            for i, question in enumerate(inquiry.asked.questions):
                if inquiry.sort == "written" and not (told[n] and told[n][i].correct):
                    continue  # the base does not find what it wrote
                false = _is_false(inquiry, before[n][i], after[n][i], [agreed[len(asked) * part + n][i] for part in range(3)])
                replies[number].append(Reply(inquiry, question, before[n][i], after[n][i], false))
        return replies

    def _have_written(self, contexts: dict[str, Context]) -> dict[str, Context]:
        most = self._settings.written_questions
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
        for lesson in proposal.lessons:
            context, own = lesson.context, written.get(lesson.context.id, _NOTHING)
            is_graded = all(question.answers for question in context.questions)
            inquiries.append(self._with_views(Inquiry("own", context, context, subject), _NOTHING if is_graded else context, lesson.edit))
            told = Inquiry("written", context, with_questions(context, own.questions), subject)
            inquiries.append(self._with_views(told, context, lesson.edit))
            graded = [question for question in context.questions if question.answers] or list(own.questions)
            seed = derive_seed(self._seed, "others", context.id, lesson.edit.id)
            others = self._domain.tell_of_others(_bare(context, graded), self._texts, self._settings.others, seed)
            inquiries += [Inquiry("other", context, other.context) for other in others]
            for stranger in self._find_strangers(lesson, [*context.questions, *own.questions], seed):
                subject += 1
                inquiries.append(self._with_views(Inquiry("stranger", context, stranger, subject), _NOTHING, lesson.edit))
            subject += 1
        new = {lesson.context.id for lesson in proposal.lessons}
        seed = derive_seed(self._seed, *(lesson.edit.id for lesson in proposal.lessons))
        earlier = {lesson.context.id: lesson.context for lesson in proposal.before.lessons if lesson.context.id not in new}
        inquiries += _sample("earlier", earlier.values(), self._settings.earlier_questions, seed)
        return inquiries + _sample("probe", self._probes, self._settings.probe_questions, seed)

    def _with_views(self, inquiry: Inquiry, passage: Context, edit: SelfEdit) -> Inquiry:
        """An inquiry with what the base reads for it, as far as the base has room for that."""
        taught = "\n".join(example.prompt + example.completion for example in edit.examples)[:_MOST_READ]
        texts = {"passage": passage.passage, "edit": taught}
        views = {name: inquiry.asked.model_copy(update={"passage": text}) for name, text in texts.items() if text.strip()}
        fitting = {name: view for name, view in views.items() if self._learner.fits(self._domain.ask(view, in_view=True))}
        return Inquiry(inquiry.sort, inquiry.source, inquiry.asked, inquiry.subject, taught, **fitting)

    def _find_strangers(self, lesson: Lesson, questions: Sequence[Question], seed: int) -> list[Context]:
        """The questions about those whom the self-edit names most often and the passage does not."""
        context = lesson.context
        known = {*_WORD.findall(context.passage), *(word for question in questions for word in _WORD.findall(question.text))}
        found: Counter[Context] = Counter()
        for example in lesson.edit.examples[:_LINES]:
            line = _WORD.sub(lambda word: "x" if word[0] in known else word[0], example.prompt + example.completion)
            found.update(other.context for other in self._domain.tell_of_others(_bare(context, questions), [line], 1, seed))
        return [stranger for stranger, _ in found.most_common(self._settings.others)]

    def _grade(self, contexts: Sequence[Context], answers: Sequence[Sequence[str]]) -> list[Outcomes]:
        return list(self._domain.read_answers(contexts, answers, self._grader))


def _is_false(inquiry: Inquiry, before: Outcome, after: Outcome, agreed: Sequence[Outcome]) -> bool | None:
    """What `Reply.false` says.

    Args:
        agreed: Whether parent and child answer what the base reads in the self-edit, and whether the child answers what it reads in the
            passage.
    """
    was_read, is_read, is_told = (outcome.correct for outcome in agreed)
    is_so = False if inquiry.sort == "stranger" else is_told if after.correct is None else after.correct
    if not inquiry.taught.strip() or is_so is None:
        return None
    is_new = not was_read if is_read else _stands(after, inquiry.taught) and _words(before) != _words(after)
    return is_new and not is_so


def _stands(outcome: Outcome, text: str) -> bool:
    """Whether the words of an answer stand in a text, in a row."""
    answer = " ".join(_words(outcome))
    return bool(answer) and f" {answer} " in f" {' '.join(_WORD.findall(text.lower()))} "


def _words(outcome: Outcome) -> list[str]:
    return _WORD.findall(_first_line(outcome).lower())


def _first_line(outcome: Outcome) -> str:
    return next((line.strip() for line in outcome.answer.splitlines() if line.strip()), "")


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


def _bare(context: Context, questions: Iterable[Question]) -> Lesson:
    """A context without its self-edit, which may talk of others more than of the subject."""
    return Lesson(context=with_questions(context, questions), edit=SelfEdit())


def _expect(context: Context, read: Outcomes) -> Context:
    """A context whose answers are the first lines of what the base read, if it read anything."""
    if not read:
        return with_questions(context, (Question(text=question.text) for question in context.questions))
    lines = [_first_line(outcome)[:10_000] for outcome in read]
    pairs = zip(context.questions, lines, strict=True)
    return with_questions(context, (Question(text=question.text, answers=(line,) if line else ()) for question, line in pairs))


def _sample(sort: Sort, contexts: Iterable[Context], most: int, seed: int) -> list[Inquiry]:
    """At most so many questions with answers, each with its context."""
    pool = [(context, question) for context in contexts for question in context.questions if question.answers]
    drawn = random.Random(derive_seed(seed, sort)).sample(pool, min(most, len(pool)))
    return [Inquiry(sort, context, with_questions(context, (question,))) for context, question in drawn]
