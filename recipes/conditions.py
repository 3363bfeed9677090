"""The conditions that students are compared under: every teacher's self-edits, baselines, and controls, on the same held-out contexts.

`alone`, every self-edit about a context has inner loops of its own, and the context's figures are their mean; `together`, one lasting
adapter learns all self-edits about all contexts (published as continued pretraining, SEAL, arXiv 2506.10943, section 4.2), and is asked
about all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from protocol.errors import InnerLoopFailed, TutelageError
from protocol.exchange import Exchange
from protocol.journal import Journal
from protocol.messages import (
    Answers,
    AskRequest,
    Change,
    Context,
    Lesson,
    Outcomes,
    Question,
    Refusal,
    Reward,
    RewardRequest,
    SelfEdit,
    Task,
    Update,
)
from recipes.candidates import HELD_OUT, make_request, read_edit
from recipes.domains import RecipeDomain
from recipes.editor import Editor
from recipes.retrieval import look_up, passage_of, share_found
from recipes.stages import ask, commit, score, write_candidates
from recipes.team import Team
from student.settings import RetrievalSettings
from teacher.settings import TeacherSettings

PARAPHRASE: Final = "rewrite"
"""The prompt style of paraphrases."""

Written = list[list[SelfEdit | str | None]]
Edits = Sequence[Sequence[SelfEdit | str | None]]
"""For each held-out context what was written about it, an entry per candidate. Text says why the editor refused it; None is no
self-edit.
"""


@dataclass(frozen=True)
class HeldOut:
    """What conditions are compared on.

    Attributes:
        references: Self-edits known to be good, by context id, where the source has them.
        retention: Contexts whose questions students know before any update.
        candidates: Self-edits per context by each teacher, and paraphrases.
        editor: Looks at them before any student does.
        retrieval: How questions are looked up in a store of all the contexts.
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
    editor: Editor | None = None
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)


@dataclass(frozen=True)
class Effect:
    """What a self-edit, or all of them together, did to the answers about one context, and what that cost."""

    change: Change
    probes: tuple[Change, ...] = ()
    seconds: float = 0.0
    trained_tokens: float = 0.0


Row = Sequence[Sequence[Effect | str | None]]
"""One condition: for each context an entry per candidate, or a single one where all are learned together or none is. Text says why a
candidate was refused, by the editor or the student; None is no self-edit. Either leaves the student as it was.
"""


@dataclass(frozen=True)
class Tried:
    """What came of all conditions on one student.

    Attributes:
        base: Its untouched answers, one entry per context.
        rows: By condition, in the order in which they are shown.
        read_tokens: Tokens read for an answer, by condition; nothing for one where they were not counted.
        found: For which share of its questions a context's own passage was found in the store; nothing if none was looked up.
    """

    base: Sequence[Outcomes]
    rows: Mapping[str, Row]
    read_tokens: Mapping[str, float] = field(default_factory=dict)
    found: Sequence[float] = ()


def write_edits(team: Team, teacher: TeacherSettings, held_out: HeldOut, stage: str, journal: Journal) -> Written:
    """A frozen teacher's self-edits on the held-out contexts."""
    domain, count = held_out.domain, held_out.candidates
    records = write_candidates(team, teacher, domain, held_out.contexts, count, held_out.seed, stage + HELD_OUT, journal, held_out.editor)
    edits = [read_edit(record, domain, held_out.contexts[n // count]) or record.refused for n, record in enumerate(records)]
    return [edits[start : start + count] for start in range(0, len(edits), count)]


def write_paraphrases(team: Team, teachers: Mapping[str, TeacherSettings], held_out: HeldOut, stage: str, journal: Journal) -> Written:
    """Paraphrases by the first teacher that is a model."""
    writer = next(teacher for teacher in teachers.values() if not teacher.edits)
    return write_edits(team, replace(writer, style=PARAPHRASE), held_out, f"{stage}/matched_paraphrase", journal)


def try_conditions(
    exchange: Exchange, held_out: HeldOut, teachers: Mapping[str, Edits], paraphrases: Edits | None, stage: str, journal: Journal
) -> Tried:
    """Try every condition on one student."""
    contexts, last, wanted = held_out.contexts, list(teachers)[-1], held_out.baselines
    untouched = ask_base(exchange, held_out, f"{stage} · no_edit", journal)
    base = [answers.outcomes for answers in untouched]
    passage = [[SelfEdit()] for _ in contexts]
    plain: dict[str, Edits] = {"passage_only": passage} if "passage_only" in wanted else {}
    plain |= teachers
    if all(context.id in held_out.references for context in contexts):
        plain["reference_edits"] = [[held_out.domain.parse(held_out.references[c.id], c)] for c in contexts]
    if "other_context" in wanted:
        plain["other_context"] = [own[:1] for own in (*teachers[last][1:], teachers[last][0])]
    learn = learn_together if held_out.together else learn_alone
    rows = {name: learn(exchange, held_out, edits, f"{stage} · {name}", journal, probed=name in teachers) for name, edits in plain.items()}
    matched: dict[str, Edits] = {"matched_passage": passage} if "matched_passage" in wanted else {}
    if paraphrases is not None:
        matched["matched_paraphrase"] = paraphrases
    for name, edits in matched.items():
        rows[name] = learn(exchange, held_out, match(edits, rows[last], held_out.together), f"{stage} · {name}", journal)
    read: dict[str, float | None] = dict.fromkeys(("no_edit", *rows), count_read(untouched))
    if "in_context" in wanted:
        requests = [AskRequest(task=held_out.task, context=context, in_view=True) for context in contexts]
        seen = ask(exchange, requests, f"{stage} · in_context", journal)
        rows["in_context"], read["in_context"] = tell_effects(seen, base), count_read(seen)
    found: list[float] = []
    if "retrieval" in wanted or "weights_and_retrieval" in wanted:
        looked_up = look_up(contexts, [passage_of(context) for context in contexts], held_out.retrieval)
        found = [share_found(context) for context in looked_up]
        seen = ask(exchange, [AskRequest(task=held_out.task, context=c) for c in looked_up], f"{stage} · retrieval", journal)
        rows["retrieval"] = tell_effects(seen, base)
        if "weights_and_retrieval" in wanted:
            learned = learn(exchange, replace(held_out, contexts=looked_up), teachers[last], f"{stage} · weights_and_retrieval", journal)
            rows["weights_and_retrieval"] = fall_back(learned, rows["retrieval"], base)
        read |= dict.fromkeys(("retrieval", "weights_and_retrieval"), count_read(seen))
    order = ("passage_only", *matched, *teachers, "reference_edits", "in_context", "retrieval", "weights_and_retrieval", "other_context")
    shown = {name: rows[name] for name in order if name in rows and (name != "retrieval" or name in wanted)}
    return Tried(base, shown, {name: tokens for name, tokens in read.items() if tokens is not None}, found)


def tell_answers(tried: Tried, count: int) -> list[dict[str, list[str]]]:
    """What was answered about the first contexts, by condition: after the first self-edit that had an effect, in the first repeat."""
    told = []
    for number, base in enumerate(tried.base[:count]):
        answers = {"no_edit": base}
        for name, row in tried.rows.items():
            effect = next((effect for effect in row[number] if isinstance(effect, Effect)), None)
            if effect:
                answers[name] = effect.change.adapted[0]
        told.append({name: [outcome.answer for outcome in outcomes] for name, outcomes in answers.items()})
    return told


def ask_base(exchange: Exchange, held_out: HeldOut, stage: str, journal: Journal) -> list[Answers]:
    """The untouched student's answers."""
    answers = []
    requests = [AskRequest(task=held_out.task, context=context) for context in held_out.contexts]
    for context, result in zip(held_out.contexts, ask(exchange, requests, stage, journal), strict=True):
        if isinstance(result, Refusal):
            raise TutelageError(f"context {context.label!r} cannot be asked about: {result.reason}; leave it out")
        answers.append(result)
    return answers


def count_read(results: Sequence[Answers | Refusal]) -> float | None:
    """Tokens read for an answer, mean over those that were given; None where they were not counted."""
    given = [result for result in results if isinstance(result, Answers)]
    tokens = [result.read_tokens for result in given if result.read_tokens is not None]
    answers = sum(len(result.outcomes) for result in given)
    return sum(tokens) / answers if answers and len(tokens) == len(given) else None


def learn_alone(exchange: Exchange, held_out: HeldOut, edits: Edits, stage: str, journal: Journal, probed: bool = False) -> Row:
    """Inner loops for each self-edit. If `probed`, each context's first is also asked what else the update changed."""
    requests: list[RewardRequest | None] = []
    for index, (context, own) in enumerate(zip(held_out.contexts, edits, strict=True)):
        probes = side_effects(held_out, index) if probed and held_out.domain.closed_book else []
        for edit in own:
            if not isinstance(edit, SelfEdit):
                requests.append(None)
                continue
            requests.append(make_request(held_out.task, context, edit, held_out.seed, range(held_out.repeats), probes))
            probes = []
    results = iter(score(exchange, requests, stage, journal))
    effects = [[_effect(next(results), held_out.repeats) for _ in own] for own in edits]
    return [
        [edit if isinstance(edit, str) else effect for edit, effect in zip(*pair, strict=True)] for pair in zip(edits, effects, strict=True)
    ]


def _effect(result: Reward | Refusal | None, repeats: int) -> Effect | str | None:
    if isinstance(result, Reward):
        return Effect(result.change, result.probes, result.seconds, result.trained_tokens / repeats)
    return result.reason if result else None


def learn_together(exchange: Exchange, held_out: HeldOut, edits: Edits, stage: str, journal: Journal, probed: bool = False) -> Row:
    """One adapter for all contexts, once per repeat. A context without a self-edit is learned from its passage alone."""
    contexts = held_out.contexts
    learned = [[edit for edit in own if isinstance(edit, SelfEdit)] for own in edits]
    update = next((edit.update for own in learned for edit in own), Update())
    lessons = [Lesson(context=c, edit=edit) for c, own in zip(contexts, learned, strict=True) for edit in own or [SelfEdit(update=update)]]
    try:
        cards = [commit(exchange, held_out.task, lessons, (held_out.seed, repeat), journal, stage) for repeat in range(held_out.repeats)]
    except InnerLoopFailed as error:
        return [[str(error)]] * len(contexts)
    changes = [{lesson.context.id: change for lesson, change in zip(lessons, card.changes, strict=True)} for card in cards]
    share = len(contexts) * len(cards)
    return [
        [
            Effect(
                Change(base=changes[0][c.id].base, adapted=tuple(own[c.id].adapted[0] for own in changes)),
                seconds=sum(card.seconds for card in cards) / share,
                trained_tokens=sum(card.trained_tokens for card in cards) / share,
            )
        ]
        for c in contexts
    ]


def match(edits: Edits, learned: Row, together: bool) -> Written:
    """Give self-edits the compute of what was learned: as many trained tokens, of each context the mean over its candidates, or all in sum.

    A candidate that was not learned counts with no tokens. Where nothing was learned, there is no self-edit either.
    """
    means = [sum(effect.trained_tokens for effect in own if isinstance(effect, Effect)) / len(own) for own in learned]
    tokens = [round(mean) for mean in means]
    tokens = [sum(tokens)] * len(tokens) if together else tokens
    return [[_give(edit, count) for edit in own] for own, count in zip(edits, tokens, strict=True)]


def _give(edit: SelfEdit | str | None, tokens: int) -> SelfEdit | str | None:
    if not isinstance(edit, SelfEdit):
        return edit
    return edit.model_copy(update={"update": Update(tokens=tokens)}) if tokens else None


def tell_effects(seen: Sequence[Answers | Refusal], base: Sequence[Outcomes]) -> Row:
    """What the untouched student answers with something in view, against what it answers without."""
    return [
        [result.reason if isinstance(result, Refusal) else Effect(Change(base=before, adapted=(result.outcomes,)))]
        for before, result in zip(base, seen, strict=True)
    ]


def fall_back(learned: Row, retrieved: Row, base: Sequence[Outcomes]) -> Row:
    """What was learned with the store at hand, against the untouched student without it. What was not learned leaves the store alone."""
    return [
        [
            Effect(Change(base=before, adapted=e.change.adapted), (), e.seconds, e.trained_tokens) if isinstance(e, Effect) else alone
            for e in own
        ]
        for own, (alone,), before in zip(learned, retrieved, base, strict=True)
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
