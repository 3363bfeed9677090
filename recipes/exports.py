"""What leaves a run folder or a released file for other tools: rows for TRL and `datasets`, training sequences, verdicts."""

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from protocol.domain import Domain, Grader
from protocol.errors import InvalidInput, MalformedEdit
from protocol.files import write_text
from protocol.journal import CandidateRecord, DecisionRecord, RewardRecord, read_records
from protocol.messages import Context, Outcome, Question, Reward
from recipes.candidates import HELD_OUT, read_edit
from recipes.domains.files import clean, read_jsonl
from recipes.domains.written import read_written
from recipes.run_folder import read_contexts
from teacher.selection import keep_best

What = Literal["sft", "messages", "dataset"]
GRADED = '{"question": str, "gold": str or [str], "answer": str}'


def export_run(folder: Path, what: What, best_of: int | None, stage: str, output: Path, domain: Domain) -> tuple[int, int]:
    """Write a run's scored candidates as rows.

    Args:
        what: `sft` writes TRL's `prompt`/`completion` rows as JSONL, `messages` conversations, `dataset` a `datasets` folder that has
            the reward and its parts as well.
        best_of: Keep so many of each context and stage, by mean reward over students and repeats; ties keep the earlier. None keeps
            all. One that was given up after fewer repeats than others is not among the best.
        stage: Only of stages that begin so. An empty one means all but those on held-out contexts, which are no training data.

    Returns:
        How many rows were written, and how many were left out because their prompt is not known.
    """
    contexts = read_contexts(folder)
    every = list(_scored(folder, contexts, domain))
    scored = [(c, reward) for c, reward in every if (c.stage.startswith(stage) if stage else not c.stage.endswith(HELD_OUT))]
    if not scored:
        stages = ", ".join(dict.fromkeys(candidate.stage for candidate, _ in every)) or "none"
        raise InvalidInput(f"{folder} has no self-edit with a reward in that stage; give --stage one of those that have: {stages}")
    if best_of is not None:
        scored = _best(scored, best_of)
    rows = [_row(c, reward, contexts[c.context], domain, what) for c, reward in scored if c.style in domain.styles]
    if what == "dataset":
        _save_dataset(rows, output)
    else:
        write_jsonl(output, rows)
    return len(rows), len(scored) - len(rows)


def _best(scored: Sequence[tuple[CandidateRecord, Reward]], best_of: int) -> list[tuple[CandidateRecord, Reward]]:
    repeats: dict[str, int] = {}
    for candidate, reward in scored:
        repeats[_group(candidate)] = max(repeats.get(_group(candidate), 0), len(reward.seeds))
    whole = [(candidate, reward) for candidate, reward in scored if len(reward.seeds) == repeats[_group(candidate)]]
    return keep_best(whole, [reward.value for _, reward in whole], best_of, context_of=lambda pair: _group(pair[0]))


def _group(candidate: CandidateRecord) -> str:
    return f"{candidate.stage}/{candidate.context}"


def _save_dataset(rows: list[dict[str, Any]], output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InvalidInput(f"{output} is there already; give --out a new folder")
    import datasets

    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_list(rows).save_to_disk(str(output))
    except OSError as error:
        raise InvalidInput(f"{output} cannot be written: {error.strerror}; choose another --out") from error


def _scored(folder: Path, contexts: dict[str, Context], domain: Domain) -> Iterator[tuple[CandidateRecord, Reward]]:
    """Candidates that are self-edits, each with its rewards made one: the mean value, and the sums of all else.

    Counted are the rewards of students that scored all of a stage's candidates; another may have met the same self-edit elsewhere.
    """
    decisions: dict[str, DecisionRecord] = {}
    stages: dict[str, list[CandidateRecord]] = {}
    rewards: dict[tuple[str, str], list[Reward]] = {}
    for record in read_records(folder / "journal.jsonl"):
        if isinstance(record, CandidateRecord):
            stages.setdefault(record.stage, []).append(record)
        elif isinstance(record, DecisionRecord):
            decisions.setdefault(record.candidate, record)
        elif isinstance(record, RewardRecord) and isinstance(record.result, Reward):
            rewards.setdefault((record.result.context, record.result.edit), []).append(record.result)
    for written in stages.values():
        candidates = [candidate.model_copy(update={"decision": decisions.get(candidate.candidate)}) for candidate in written]
        scored = [(candidate, own) for candidate in candidates if (own := _rewards_of(candidate, rewards, folder, contexts, domain))]
        students = set.intersection(*({reward.student for reward in own} for _, own in scored)) if scored else set()
        for candidate, own in scored:
            yield candidate, _merge([reward for reward in own if reward.student in students or not students])


def _rewards_of(
    candidate: CandidateRecord, rewards: dict[tuple[str, str], list[Reward]], folder: Path, contexts: dict[str, Context], domain: Domain
) -> list[Reward]:
    if candidate.context not in contexts:
        raise InvalidInput(f"{folder}: the journal speaks of context {candidate.context}, which contexts.jsonl has not; restore it")
    edit = read_edit(candidate, domain, contexts[candidate.context])
    return rewards.get((candidate.context, edit.id), []) if edit else []


def _merge(rewards: Sequence[Reward]) -> Reward:
    seeds = tuple(seed for reward in rewards for seed in reward.seeds)
    mean = statistics.mean(reward.value for reward in rewards for _ in reward.seeds)  # exact, so that ties stay ties
    sums = {name: sum(getattr(reward, name) for reward in rewards) for name in ("gained", "lost", "trained_tokens")}
    return rewards[0].model_copy(update={"value": mean, "seeds": seeds, **sums})


def _row(candidate: CandidateRecord, reward: Reward, context: Context, domain: Domain, what: What) -> dict[str, Any]:
    prompt = domain.prompt(context, candidate.style)
    if what == "messages":
        return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": candidate.taught}]}
    row = {"prompt": prompt, "completion": candidate.taught}
    if what == "sft":
        return row
    parts = {name: getattr(reward, name) / len(reward.seeds) for name in ("gained", "lost", "trained_tokens")}
    measured = {"reward": reward.value, "repeats": len(reward.seeds), **parts}
    return {**row, "title": context.title, "context": candidate.context, "stage": candidate.stage, "index": candidate.index, **measured}


def expand_file(path: Path, output: Path, domain: Domain) -> tuple[int, int]:
    """Write what a student would train on for every completion of a file: a row per completion. Its text says how it is split.

    Returns:
        How many rows there are, and how many completions were no self-edits; their rows say why and have no sequences.
    """
    malformed = 0
    rows: list[dict[str, Any]] = []
    for number, written in enumerate(read_written(path)):
        for index, text in enumerate(written.completions):
            place = {"context": number, "completion": index}
            try:
                examples = domain.expand(written.context, domain.parse(text, written.context), 0)
                rows.append({**place, "sequences": [example.prompt + example.completion for example in examples]})
            except MalformedEdit as error:
                rows.append({**place, "sequences": [], "malformed": str(error)})
                malformed += 1
    write_jsonl(output, rows)
    return len(rows), malformed


def grade_file(path: Path, grader: Grader, output: Path) -> dict[str, float]:
    """Grade rows of `question`, `gold` (a text or several) and `answer`; each row is written with `correct` and `score` added.

    Returns:
        How many rows were graded, the share that is correct, and how many verdicts are missing.
    """
    rows = [(row, *_read_row(row, f"{path}, line {number}")) for number, row in read_jsonl(path, GRADED)]
    if not rows:
        raise InvalidInput(f"{path} holds no rows; every line is {GRADED}")
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
        question = Question(text=clean(row["question"]), answers=tuple(clean(gold) for gold in golds or [] if gold.strip()))
        return question, Outcome(answer=clean(row["answer"]), correct=None).answer
    except ValidationError as error:
        raise InvalidInput(f"{place}: {error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}; shorten it") from error


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as the released files are written: one object a line, letters as they are."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}; choose another --out") from error
