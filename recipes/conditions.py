"""The conditions that students are compared under: every teacher's self-edits, baselines, and controls, on the same held-out contexts.

`alone`, every context has an inner loop of its own; `together`, one lasting adapter learns all of them (published as continued pretraining,
SEAL, arXiv 2506.10943, section 4.2), and is asked about all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from protocol.errors import InnerLoopFailed, TutelageError
from protocol.exchange import Exchange
from protocol.journal import Journal
from protocol.messages import AskRequest, Change, Context, Lesson, Outcomes, Question, Refusal, Reward, SelfEdit, Task, Update
from recipes.candidates import HELD_OUT, make_request, read_edit
from recipes.domains import RecipeDomain
from recipes.stages import ask, commit, score, write_candidates
from recipes.team import Team
from teacher.settings import TeacherSettings

PARAPHRASE: Final = "rewrite"
"""The prompt style of paraphrases."""

Edits = Sequence[Sequence[SelfEdit]]
"""For each held-out context what was written about it, without what is no self-edit."""


@dataclass(frozen=True)
class HeldOut:
    """What conditions are compared on.

    Attributes:
        references: Self-edits known to be good, by context id, where the source has them.
        retention: Contexts whose questions students know before any update.
        candidates: Self-edits per context and teacher. Together, all are learned; alone, the first.
    """

    domain: RecipeDomain
    task: Task
    contexts: Sequence[Context]
    references: Mapping[str, str]
    retention: Sequence[Context]
    baselines: Sequence[str]
    repeats: int
    seed: int
    candidates: int = 1
    together: bool = False


@dataclass(frozen=True)
class Effect:
    """What a condition did to the answers about one context, and what that cost."""

    change: Change
    probes: tuple[Change, ...] = ()
    seconds: float = 0.0
    trained_tokens: float = 0.0


Row = Sequence[Effect | str | None]
"""One condition: an entry per context. Text says why it was refused; None is no self-edit. Either leaves the student as it was."""


@dataclass(frozen=True)
class Tried:
    """What came of all conditions on one student.

    Attributes:
        base: Its untouched answers, one entry per context.
        rows: By condition, in the order in which they are shown.
    """

    base: Sequence[Outcomes]
    rows: Mapping[str, Row]


def write_edits(team: Team, teacher: TeacherSettings, held_out: HeldOut, stage: str, journal: Journal) -> list[list[SelfEdit]]:
    """A frozen teacher's self-edits on the held-out contexts."""
    domain, count = held_out.domain, held_out.candidates
    records = write_candidates(team, teacher, domain, held_out.contexts, count, held_out.seed, stage + HELD_OUT, journal)
    edits = [read_edit(record, domain, held_out.contexts[n // count]) for n, record in enumerate(records)]
    return [[edit for edit in edits[start : start + count] if edit] for start in range(0, len(edits), count)]


def write_paraphrases(
    team: Team, teachers: Mapping[str, TeacherSettings], held_out: HeldOut, stage: str, journal: Journal
) -> list[list[SelfEdit]]:
    """Paraphrases by the first teacher that is a model."""
    writer = next(teacher for teacher in teachers.values() if not teacher.edits)
    return write_edits(team, replace(writer, style=PARAPHRASE), held_out, f"{stage}/matched_paraphrase", journal)


def try_conditions(
    exchange: Exchange, held_out: HeldOut, teachers: Mapping[str, Edits], paraphrases: Edits | None, stage: str, journal: Journal
) -> Tried:
    """Try every condition on one student."""
    contexts, last, wanted = held_out.contexts, list(teachers)[-1], held_out.baselines
    base = ask_base(exchange, held_out, f"{stage} · no_edit", journal)
    passage = [[SelfEdit()] for _ in contexts]
    plain: dict[str, Edits] = {"passage_only": passage} if "passage_only" in wanted else {}
    plain |= teachers
    if all(context.id in held_out.references for context in contexts):
        plain["reference_edits"] = [[held_out.domain.parse(held_out.references[c.id], c)] for c in contexts]
    if "other_context" in wanted:
        plain["other_context"] = [*teachers[last][1:], teachers[last][0]]
    learn = learn_together if held_out.together else learn_alone
    rows = {name: learn(exchange, held_out, edits, f"{stage} · {name}", journal, probed=name == last) for name, edits in plain.items()}
    matched: dict[str, Edits] = {"matched_passage": passage} if "matched_passage" in wanted else {}
    if paraphrases is not None:
        matched["matched_paraphrase"] = paraphrases
    for name, edits in matched.items():
        rows[name] = learn(exchange, held_out, match(edits, rows[last], held_out.together), f"{stage} · {name}", journal)
    if "in_context" in wanted:
        rows["in_context"] = read_in_context(exchange, held_out, base, f"{stage} · in_context", journal)
    order = ("passage_only", *matched, *teachers, "reference_edits", "in_context", "other_context")
    return Tried(base, {name: rows[name] for name in order if name in rows})


def ask_base(exchange: Exchange, held_out: HeldOut, stage: str, journal: Journal) -> list[Outcomes]:
    """The untouched student's answers."""
    outcomes = []
    requests = [AskRequest(task=held_out.task, context=context) for context in held_out.contexts]
    for context, result in zip(held_out.contexts, ask(exchange, requests, stage, journal), strict=True):
        if isinstance(result, Refusal):
            raise TutelageError(f"context {context.label!r} cannot be asked about: {result.reason}; leave it out")
        outcomes.append(result.outcomes)
    return outcomes


def learn_alone(exchange: Exchange, held_out: HeldOut, edits: Edits, stage: str, journal: Journal, probed: bool = False) -> Row:
    """An inner loop for each context. If `probed`, what else the update changed is asked as well."""
    requests = [
        make_request(
            held_out.task,
            context,
            own[0],
            held_out.seed,
            range(held_out.repeats),
            probes=side_effects(held_out, index) if probed and held_out.domain.closed_book else (),
        )
        if own
        else None
        for index, (context, own) in enumerate(zip(held_out.contexts, edits, strict=True))
    ]
    return [
        Effect(result.change, result.probes, result.seconds, result.trained_tokens / held_out.repeats)
        if isinstance(result, Reward)
        else result.reason
        if result
        else None
        for result in score(exchange, requests, stage, journal)
    ]


def learn_together(exchange: Exchange, held_out: HeldOut, edits: Edits, stage: str, journal: Journal, probed: bool = False) -> Row:
    """One adapter for all contexts, once per repeat. A context without a self-edit is learned from its passage alone."""
    contexts = held_out.contexts
    update = next((edit.update for own in edits for edit in own), Update())
    lessons = [Lesson(context=c, edit=edit) for c, own in zip(contexts, edits, strict=True) for edit in own or [SelfEdit(update=update)]]
    try:
        cards = [commit(exchange, held_out.task, lessons, (held_out.seed, repeat), journal, stage) for repeat in range(held_out.repeats)]
    except InnerLoopFailed as error:
        return [str(error)] * len(contexts)
    changes = [{lesson.context.id: change for lesson, change in zip(lessons, card.changes, strict=True)} for card in cards]
    share = len(contexts) * len(cards)
    return [
        Effect(
            Change(base=changes[0][c.id].base, adapted=tuple(own[c.id].adapted[0] for own in changes)),
            seconds=sum(card.seconds for card in cards) / share,
            trained_tokens=sum(card.trained_tokens for card in cards) / share,
        )
        for c in contexts
    ]


def match(edits: Edits, learned: Row, together: bool) -> list[list[SelfEdit]]:
    """Give self-edits the compute of what was learned: as many trained tokens, each context its own or all of them in sum.

    Where nothing was learned, there is no self-edit either.
    """
    tokens = [round(effect.trained_tokens) if isinstance(effect, Effect) else 0 for effect in learned]
    tokens = [sum(tokens)] * len(tokens) if together else tokens
    return [
        [edit.model_copy(update={"update": Update(tokens=count)}) for edit in own] if count else []
        for own, count in zip(edits, tokens, strict=True)
    ]


def read_in_context(exchange: Exchange, held_out: HeldOut, base: Sequence[Outcomes], stage: str, journal: Journal) -> Row:
    """The untouched student with the passage in view: what could be known from it."""
    requests = [AskRequest(task=held_out.task, context=context, in_view=True) for context in held_out.contexts]
    return [
        result.reason if isinstance(result, Refusal) else Effect(Change(base=before, adapted=(result.outcomes,)))
        for before, result in zip(base, ask(exchange, requests, stage, journal), strict=True)
    ]


def side_effects(held_out: HeldOut, index: int) -> list[Context]:
    """What to ask beside the context's own questions, to see whether the update leaks or makes forget.

    Leakage: the next context's questions, "right" where the answer is one of *this* context's. Retention: questions of
    one context that the student knows from before.
    """
    context, other = held_out.contexts[index], held_out.contexts[(index + 1) % len(held_out.contexts)]
    taught = tuple(dict.fromkeys(answer for question in context.questions for answer in question.answers))
    probes = [Context(title=other.title, questions=tuple(Question(text=q.text, answers=taught) for q in other.questions))]
    if held_out.retention:
        probes.append(held_out.retention[index % len(held_out.retention)])
    return probes
