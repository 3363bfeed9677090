"""Result files as SEAL released them (`rank_*.json`, `eval_*.json`) become a run folder: contexts, journal, report.

Such a file holds articles, each with the completions that were tried on it; a completion's questions stand there once per repeat, with the
answers before and after and a judge's verdicts. Its mean accuracies were rounded before they were averaged, which decided ties; so rewards
are taken from them, and the verdicts are kept beside.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from protocol.errors import InvalidInput
from protocol.files import write_json
from protocol.identity import content_id
from protocol.journal import CandidateRecord, Journal, RewardRecord, RoundRecord
from protocol.messages import Change, Context, Outcome, Question, Reward, ShortText, Text, accuracy
from recipes.candidates import read_edit, record_candidate
from recipes.domains import DOMAINS
from recipes.domains.files import read_json
from recipes.domains.knowledge_text import style_of
from recipes.reliability import estimate_reliability
from recipes.run_folder import write_contexts
from recipes.statistics import difference, summarize

STAGE = "imported"
_ROUNDING = 1e-3
"""How far a published mean may be from the verdicts: they are rounded to four digits."""


class _Answered(BaseModel):
    rep: int = Field(default=0, ge=0, lt=64)
    question: ShortText
    answer: ShortText
    baseline_answer: Text
    adapter_answer: Text
    baseline_correct: bool | None
    adapter_correct: bool | None


class _Stats(BaseModel):
    adapter_mean: float | None = None


class _Completion(BaseModel):
    text: str
    questions: list[_Answered] = Field(min_length=1)
    stats: _Stats = _Stats()


class _Article(BaseModel):
    title: ShortText = ""
    context: Text
    completions: list[_Completion]
    prompt: str = ""


class _ResultFile(BaseModel):
    model: str = ""
    exp_name: str = ""
    articles: list[_Article] = Field(min_length=1)


def import_results(path: Path, folder: Path) -> dict[str, Any]:
    """Write a run folder from a released result file.

    Returns:
        The report, also written to `report.json`: accuracy before and after, gain, answers gained and lost, and how reliable rewards are.

    Raises:
        InvalidInput: The file is not such a file, or the folder is there already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder} is not empty, or no folder; give --run a new one")
    results = _read(path)
    rows = [
        (context, *row) for article in results.articles for context in [_context(article)] for row in _rows(path, results, article, context)
    ]
    contexts = list({context.id: context for context, _, _ in rows}.values())
    scored = [(context.id, reward) for context, _, reward in rows if reward and reward.change.is_graded]
    if not scored:
        raise InvalidInput(f"{path} has no completion with a verdict before and after, so there is nothing to import")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be made: {error.strerror}; give --run another") from error
    write_contexts(folder, contexts)
    journal = Journal(folder / "journal.jsonl")
    journal.append(RoundRecord(stage=STAGE, contexts=tuple(context.id for context in contexts)))
    journal.append(*(candidate for _, candidate, _ in rows))
    journal.append(*(RewardRecord(stage=STAGE, result=reward) for _, reward in scored))
    journal.close()
    report = {"imported": str(path), **_report(contexts, scored)}
    write_json(folder / "report.json", report)
    return report


def _read(path: Path) -> _ResultFile:
    content = read_json(path) if path.suffix.lower() != ".jsonl" else None
    if not isinstance(content, dict) or "articles" not in content:
        raise InvalidInput(
            f"{path} has no articles; it must be a result file as SEAL released it, such as rank_iter0.json or eval_base.json "
            "(files of self-edits alone serve as teachers.NAME.edits=FILE)"
        )
    try:
        return _ResultFile.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        raise InvalidInput(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def _context(article: _Article) -> Context:
    asked = article.completions[0].questions if article.completions else []
    first = [question for question in asked if question.rep == asked[0].rep]
    golds = tuple(Question(text=q.question, answers=(q.answer,) if q.answer.strip() else ()) for q in first)
    return Context(title=article.title, passage=article.context, questions=golds)


def _rows(path: Path, results: _ResultFile, article: _Article, context: Context) -> list[tuple[CandidateRecord, Reward | None]]:
    """The candidates of an article with their rewards; one that is no self-edit has none."""
    domain, style, rows = DOMAINS["knowledge"], style_of(article.prompt), []
    verdicts = [asked.baseline_correct for completion in article.completions[:1] for asked in completion.questions]
    base = accuracy(tuple(Outcome(answer="", correct=verdict) for verdict in verdicts))
    for index, completion in enumerate(article.completions):
        candidate = record_candidate(domain, context, completion.text, STAGE, index, 0, style)
        edit = read_edit(candidate, domain, context)
        place = f"{path}, article {article.title!r}, completion {index}"
        rows.append((candidate, _reward(results, context, edit.id, completion, base, place) if edit else None))
    return rows


def _reward(results: _ResultFile, context: Context, edit: str, completion: _Completion, base: float, place: str) -> Reward:
    """What a completion did. `base` is the accuracy before, the same for all of an article, so that the best adapter pays best."""
    repeats: dict[int, list[_Answered]] = {}
    for answered in completion.questions:
        repeats.setdefault(answered.rep, []).append(answered)
    asked = [question.text for question in context.questions]
    for number, repeat in repeats.items():
        if [answered.question for answered in repeat] != asked:
            raise InvalidInput(
                f"{place}: repeat {number} answers {len(repeat)} questions, not the {len(asked)} of the article; the file is damaged"
            )
    ordered = [repeat for _, repeat in sorted(repeats.items())]
    change = Change(
        base=tuple(Outcome(answer=q.baseline_answer, correct=q.baseline_correct) for q in ordered[0]),
        adapted=tuple(tuple(Outcome(answer=q.adapter_answer, correct=q.adapter_correct) for q in repeat) for repeat in ordered),
    )
    mean = change.adapted_accuracy if completion.stats.adapter_mean is None else completion.stats.adapter_mean
    if not abs(mean - change.adapted_accuracy) <= _ROUNDING:
        raise InvalidInput(
            f"{place}: stats.adapter_mean is {mean:.4f}, but its verdicts give {change.adapted_accuracy:.4f}; the file is damaged"
        )
    student = content_id("released student", results.model, results.exp_name)
    return Reward(
        key=content_id("released", student, context.id, edit),
        request=content_id("released", context.id, edit),
        context=context.id,
        edit=edit,
        student=student,
        value=min(1.0, max(-1.0, mean - base)),
        change=change,
        gained=change.gained,
        lost=change.lost,
        seeds=tuple(sorted(repeats)),
        seconds=0.0,
        trained_tokens=0,
    )


def _report(contexts: Sequence[Context], rewards: Sequence[tuple[str, Reward]]) -> dict[str, Any]:
    """Means per context, since a context is what is resampled."""
    grouped = [own for context in contexts if (own := [reward for other, reward in rewards if other == context.id])]
    before = [own[0].change.base_accuracy for own in grouped]
    after = [sum(reward.change.adapted_accuracy for reward in own) / len(own) for own in grouped]
    return {
        "accuracy_before": summarize(before),
        "accuracy_after": summarize(after),
        "gain": difference(after, before),
        "answers_gained": sum(reward.gained for _, reward in rewards),
        "answers_lost": sum(reward.lost for _, reward in rewards),
        "reliability": estimate_reliability([[reward.change.accuracies for reward in own] for own in grouped], common_seeds=False),
    }
