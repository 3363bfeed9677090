"""What leaves a run folder or a released file for other tools: rows for TRL and `datasets`, training sequences, verdicts."""

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from protocol.domain import Domain, Grader
from protocol.errors import InvalidInput, MalformedEdit
from protocol.files import write_text
from protocol.journal import CandidateRecord, RewardRecord, read_records
from protocol.messages import Context, Question, Reward
from recipes.candidates import read_edit
from recipes.domains.knowledge_files import read_jsonl
from recipes.domains.written import Written, read_written
from recipes.run_folder import read_contexts
from teacher.selection import keep_best

What = Literal["sft", "messages", "dataset"]
WHAT = get_args(What)


def export_run(folder: Path, what: What, best_of: int | None, output: Path, domain: Domain) -> int:
    """Write a run's scored candidates as rows.

    Args:
        what: `sft` writes TRL's `prompt`/`completion` rows as JSONL, `messages` conversations, `dataset` a `datasets` folder that has
            the reward and its parts as well.
        best_of: Keep so many of each context and stage, by mean reward; ties keep the earlier. None keeps all.

    Returns:
        How many rows were written.
    """
    contexts = read_contexts(folder)
    scored = list(_scored(folder, contexts, domain))
    if not scored:
        raise InvalidInput(f"{folder} has no self-edit with a reward, so there is nothing to export")
    if best_of is not None:
        rewards = [reward.value for _, reward in scored]
        scored = keep_best(scored, rewards, best_of, context_of=lambda pair: f"{pair[0].stage}/{pair[0].context}")
    rows = [_row(candidate, reward, contexts[candidate.context], domain, what) for candidate, reward in scored]
    if what == "dataset":
        import datasets

        datasets.Dataset.from_list(rows).save_to_disk(str(output))
    else:
        write_jsonl(output, rows)
    return len(rows)


def _scored(folder: Path, contexts: dict[str, Context], domain: Domain) -> Iterator[tuple[CandidateRecord, Reward]]:
    """Candidates that are self-edits, each with the mean of its rewards from all students and repeats."""
    candidates: list[CandidateRecord] = []
    rewards: dict[tuple[str, str], list[Reward]] = {}
    for record in read_records(folder / "journal.jsonl"):
        if isinstance(record, CandidateRecord):
            candidates.append(record)
        elif isinstance(record, RewardRecord) and isinstance(record.result, Reward):
            rewards.setdefault((record.result.context, record.result.edit), []).append(record.result)
    for candidate in candidates:
        if candidate.context not in contexts:
            raise InvalidInput(f"{folder}: the journal speaks of context {candidate.context}, which contexts.jsonl has not; restore it")
        edit = read_edit(candidate, domain, contexts[candidate.context])
        own = rewards.get((candidate.context, edit.id), []) if edit else []
        if own:
            repeats = [reward.value for reward in own for _ in reward.seeds]
            yield candidate, own[0].model_copy(update={"value": statistics.mean(repeats)})  # exact, so that ties stay ties


def _row(candidate: CandidateRecord, reward: Reward, context: Context, domain: Domain, what: What) -> dict[str, Any]:
    prompt = domain.prompt(context, candidate.style or domain.styles[0])
    if what == "messages":
        return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": candidate.text}]}
    row = {"prompt": prompt, "completion": candidate.text}
    if what == "sft":
        return row
    measured = {"reward": reward.value, "gained": reward.gained, "lost": reward.lost, "trained_tokens": reward.trained_tokens}
    return {**row, "title": context.title, "context": candidate.context, "stage": candidate.stage, "index": candidate.index, **measured}


def expand_file(path: Path, output: Path, domain: Domain) -> int:
    """Write what a student would train on for every completion of a file: a row per completion. Its text says how it is split.

    Returns:
        How many completions were no self-edits; their rows say why and have no sequences.
    """
    malformed = 0
    rows: list[dict[str, Any]] = []
    for number, written in enumerate(read_written(path)):
        for index, text in enumerate(written.completions):
            row = {"context": number, "completion": index, "sequences": _sequences(domain, written, text)}
            rows.append(row)
            malformed += not row["sequences"]
    write_jsonl(output, rows)
    return malformed


def _sequences(domain: Domain, written: Written, text: str) -> list[str]:
    try:
        edit = domain.parse(text, written.context)
    except MalformedEdit:
        return []
    return [example.prompt + example.completion for example in domain.expand(written.context, edit, 0)]


def grade_file(path: Path, grader: Grader, output: Path) -> dict[str, float]:
    """Grade rows of `question`, `gold` (a text or several) and `answer`; each row is written with `correct` and `score` added.

    Returns:
        How many rows were graded, the share that is correct, and how many verdicts are missing.
    """
    rows = [(row, *_read_row(row, f"{path}, line {number}")) for number, row in read_jsonl(path)]
    if not rows:
        raise InvalidInput(f'{path} holds no rows; every line is {{"question": str, "gold": str or [str], "answer": str}}')
    outcomes = grader.grade([question for _, question, _ in rows], [answer for _, _, answer in rows])
    write_jsonl(output, [{**row, "correct": o.correct, "score": o.score} for (row, _, _), o in zip(rows, outcomes, strict=True)])
    verdicts = [outcome.correct for outcome in outcomes if outcome.correct is not None]
    missing = sum(bool(q.answers) and o.correct is None for (_, q, _), o in zip(rows, outcomes, strict=True))
    return {"rows": len(rows), "correct": sum(verdicts) / len(verdicts) if verdicts else 0.0, "graded": len(verdicts), "missing": missing}


def _read_row(row: Any, place: str) -> tuple[Question, str]:
    if not isinstance(row, dict):
        raise InvalidInput(f"{place} is a {type(row).__name__}; it must be an object with question, gold and answer")
    golds = row.get("gold")
    golds = [golds] if isinstance(golds, str) else golds
    for name, value, good in (
        ("question", row.get("question"), isinstance(row.get("question"), str)),
        ("answer", row.get("answer"), isinstance(row.get("answer"), str)),
        ("gold", golds, isinstance(golds, list) and all(isinstance(gold, str) for gold in golds)),
    ):
        if not good:
            raise InvalidInput(
                f"{place}: {name} is {value!r:.80}; it must be {'a text or a list of texts' if name == 'gold' else 'a text'}"
            )
    try:
        return Question(text=row["question"], answers=tuple(gold for gold in golds or [] if gold.strip())), row["answer"]
    except ValueError as error:
        raise InvalidInput(f"{place}: {str(error).splitlines()[2].strip()}") from error


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as the released files are written: one object a line, letters as they are."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}; choose another --out") from error
