"""The stages that every recipe is made of: open a student, write candidates, read them, have them scored. Each resumes from the journal."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from protocol.domain import Grader
from protocol.errors import InnerLoopFailed, InvalidInput
from protocol.exchange import Exchange, InProcessExchange
from protocol.files import is_whole
from protocol.identity import derive_seed
from protocol.journal import AnswersRecord, CandidateRecord, CommitRecord, Journal, RewardRecord
from protocol.messages import (
    Answers,
    AskRequest,
    CommitRequest,
    Context,
    Lesson,
    Refusal,
    Reward,
    RewardRequest,
    Task,
    VersionCard,
    measurement_key,
)
from protocol.remote import RemoteExchange
from recipes import terminal
from recipes.base_settings import RecipeSettings, StudentChoice
from recipes.candidates import record_candidate
from recipes.domains import RecipeDomain, open_domain
from recipes.editor import Editor
from recipes.endpoint_teacher import Batch, Styled, sample_at_endpoint
from recipes.graders import open_grader
from recipes.graders.judge import in_folder
from recipes.inputs import choose_style
from recipes.reach import reach
from recipes.run_folder import RunFolder
from recipes.shared_student import SharedStudent
from recipes.team import Placed, Team
from teacher.policy import Policy
from teacher.settings import TeacherSettings

TEXTS: Final = TypeAdapter(list[str])


class TooLongForTeacher(InvalidInput):
    """A context does not fit into the teacher with its prompt."""

    def __init__(self, context: Context, tokens: int, positions: int):
        super().__init__(
            f"context {context.label!r} is too long for the teacher: its prompt has {tokens} tokens, the model has {positions} positions; "
            "split the passage, or take another teacher"
        )
        self.context = context


def place_grader(team: Team, recipe: RecipeSettings, folder: RunFolder) -> Placed[Grader]:
    """The recipe's grader, once in every process; a judge keeps its verdicts in the run folder."""
    grader = recipe.grader or open_domain(recipe.domain, recipe.grids).default_grader
    return team.place(open_grader, grader, in_folder(recipe.judge, folder.path))


@contextmanager
def open_student(
    team: Team, domain: RecipeDomain, name: str, choice: StudentChoice, grader: Placed[Grader], folder: RunFolder, deepspeed: str | None
) -> Iterator[Exchange]:
    """A student in the processes of this run, for as long as it is needed, or one elsewhere; says how it runs its inner loops.

    Args:
        name: By which the run knows it again.
    """
    with ExitStack() as stack:
        exchange: Exchange
        if choice.is_local:
            here = SharedStudent(team, choice.here, domain, grader, folder.path / "student", deepspeed)
            exchange = InProcessExchange(stack.enter_context(here))
        else:
            exchange = RemoteExchange(stack.enter_context(reach(choice)))
        card = exchange.describe()
        folder.remember_student(name, card)
        place = "" if choice.is_local else f"{choice.exchange} · "
        terminal.console.print(f"{place}{card.model} · inner loops by {card.inner_loop}")
        yield exchange


def write_candidates(
    team: Team,
    teacher: TeacherSettings,
    domain: RecipeDomain,
    contexts: Sequence[Context],
    count: int,
    seed: int,
    stage: str,
    journal: Journal,
    editor: Editor | None = None,
) -> list[CandidateRecord]:
    """Sample `count` candidates per context, `teacher.batch_size` at a time; batches are shared out.

    A candidate's seed depends on the run's seed, its context and its index, so different teachers draw alike. The batches are
    composed from the whole list, so they are the same after a crash. An endpoint is asked candidate by candidate.

    Returns:
        One record per candidate, by context, then by index, with the editor's decision if there is an editor.
    """
    wanted = [(context, index) for context in contexts for index in range(count)]
    size = 1 if teacher.is_at_endpoint else teacher.batch_size
    batches = [wanted[start : start + size] for start in range(0, len(wanted), size)]
    missing = [batch for batch in batches if any((stage, c.id, i) not in journal.candidates for c, i in batch)]
    with terminal.stage(f"{stage} · writing self-edits", len(wanted), len(wanted) - sum(map(len, missing))) as advance:
        for batch, seeds, texts in sample(team, teacher, domain, missing, seed, stage, journal):
            journal.append(
                *(
                    record_candidate(domain, context, text, stage, index, s, style)
                    for (context, index), (text, style), s in zip(batch, texts, seeds, strict=True)
                    if (stage, context.id, index) not in journal.candidates  # a crash may have left a part of a batch
                )
            )
            advance(len(batch), "")
    records = [journal.candidates[stage, context.id, index] for context, index in wanted]
    return editor.edit(contexts, records, stage, journal) if editor else records


def sample(
    team: Team, teacher: TeacherSettings, domain: RecipeDomain, batches: Sequence[Batch], seed: int, stage: str, journal: Journal
) -> Iterator[tuple[Batch, list[int], list[Styled]]]:
    """Share batches out; yields each with its seeds and texts, as they arrive. The teacher is loaded only if there are any.

    Args:
        stage, journal: Where what an endpoint costs is written down.
    """
    if not batches:
        return
    if teacher.is_at_endpoint:
        yield from sample_at_endpoint(teacher, domain, batches, seed, stage, journal)
        return
    if teacher.edits:
        yield from _look_up(domain, teacher.edits, batches, seed)
        return
    style, policy = choose_style(teacher.style, domain), team.place(Policy, teacher)
    seeds = [[derive_seed(seed, "sample", context.id, index) for context, index in batch] for batch in batches]
    prompts = [[domain.prompt(context, style) for context, _ in batch] for batch in batches]
    contexts = [context for batch in batches for context, _ in batch]
    too_long = team.together(Policy.find_too_long, policy, [prompt for batch in prompts for prompt in batch])[0]
    if too_long:
        index, tokens, positions = too_long
        raise TooLongForTeacher(contexts[index], tokens, positions)
    pieces = [(policy, *piece) for piece in zip(prompts, seeds, strict=True)]
    for number, texts in team.share(Policy.sample, pieces, TEXTS):
        yield batches[number], seeds[number], [(text, style) for text in texts]
    team.drop(policy)


def _look_up(domain: RecipeDomain, edits: str, batches: Sequence[Batch], seed: int) -> Iterator[tuple[Batch, list[int], list[Styled]]]:
    """The same from a file of self-edits: each seed begins with another."""
    contexts = {context.id: context for batch in batches for context, _ in batch}
    written = domain.find_written(Path(edits), list(contexts.values()), 1, "teacher.edits")
    for batch in batches:
        texts = [written[context.id][(seed + index) % len(written[context.id])] for context, index in batch]
        yield batch, [0] * len(batch), texts


def score(exchange: Exchange, requests: Sequence[RewardRequest | None], stage: str, journal: Journal) -> list[Reward | Refusal | None]:
    """Have requests scored; results are journaled as they arrive, and none that stands there is computed again.

    Returns:
        One result per request, in order; None for None.
    """
    card = exchange.describe()
    keys = [measurement_key(card, request) if request else None for request in requests]
    # What another stage measured stays out; what this one did before a crash keeps its place in its cohort.
    ours = {
        key: request for key, request in zip(keys, requests, strict=True) if request and key and journal.scored_in.get(key, stage) == stage
    }
    total = len({key for key in keys if key})
    known = [journal.results[key] for key in dict.fromkeys(keys) if key and key in journal.results]
    values = [result.value for result in known if isinstance(result, Reward)]
    with terminal.stage(f"{stage} · scoring by inner loops", total, len(known)) as advance:
        if len(known) < total:
            exchange.submit(list(ours.values()), known=[request.id for key, request in ours.items() if key in journal.results])
        for results in exchange.completed():
            journal.append(*(RewardRecord(stage=stage, result=result) for result in results))
            values += [result.value for result in results if isinstance(result, Reward)]
            advance(len(results), f"mean reward {sum(values) / len(values):+.3f}" if values else "")
    scored = [journal.results[key] if key else None for key in keys]
    missing, asked = count_missing(requests, scored)
    if missing:
        terminal.console.print(f"{stage}: {missing} of {asked} answers have no verdict, and do not count")
    return scored


def count_missing(requests: Sequence[RewardRequest | None], results: Sequence[Reward | Refusal | None]) -> tuple[int, int]:
    """How many answers have no verdict although there was something to grade them against, and how many there are."""
    outcomes = [
        outcome
        for request, result in zip(requests, results, strict=True)
        if request and isinstance(result, Reward)
        for repeat in result.change.adapted
        for question, outcome in zip(request.context.questions, repeat, strict=True)
        if question.answers
    ]
    return sum(outcome.correct is None for outcome in outcomes), len(outcomes)


def ask(exchange: Exchange, requests: Sequence[AskRequest], stage: str, journal: Journal) -> list[Answers | Refusal]:
    """Have the untouched base answer; what it answered before stands in the journal.

    Returns:
        One result per request, in order.
    """
    card = exchange.describe()
    keys = [measurement_key(card, request) for request in requests]
    missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in journal.answers}
    with terminal.stage(f"{stage} · asking", len(set(keys)), len(set(keys)) - len(missing)) as advance:
        for answers in exchange.ask(list(missing.values())) if missing else ():
            journal.append(*(AnswersRecord(stage=stage, result=result) for result in answers))
            advance(len(answers), "")
    return [journal.answers[key] for key in keys]


def commit(
    exchange: Exchange, task: Task, lessons: Sequence[Lesson], seed: Sequence[int], journal: Journal, stage: str = ""
) -> VersionCard:
    """Make a lasting update, unless the journal says that it was made and the folder is there. A `stage` is told the user."""
    if not lessons:
        raise InnerLoopFailed(
            "no candidate is a self-edit that may be learned, so there is nothing to learn; try another teacher or more candidates"
        )
    request = CommitRequest(task=task, lessons=tuple(lessons), seed=derive_seed(*seed, "commit"))
    key = measurement_key(exchange.describe(), request)
    known = journal.commits.get(key)
    if known is not None and is_whole(Path(known.path)):
        return known
    with terminal.console.status(f"{stage or 'a lasting update'} from {len(lessons)} self-edits"):
        card = exchange.commit(request)
    journal.append(CommitRecord(card=card))
    if stage:
        terminal.console.print(f"{stage} · learned: {len(lessons)} self-edits, {card.trained_tokens} tokens, {card.seconds:.0f} s")
    return card
