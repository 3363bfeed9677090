"""Every recipe in which a teacher writes for students, on the tiny world, with an editor between them."""

import json
from pathlib import Path
from typing import Any

import pytest

from protocol.journal import CandidateRecord, DecisionRecord, read_records
from recipes.cli import main

ROOT = Path(__file__).resolve().parents[1]
EDITOR = ["editor.drop_lines=[' (lives|works) ']", "editor.refuse_lines=['^She ']"]
LOOP = ["rounds=1", "contexts_per_round=2"]
SMALL = {
    "tiny/train_teacher": ["contexts.limit=3", "candidates=4", "student.epochs=1", *LOOP, "contexts_per_round=3"],
    "tiny/adapt_student": ["contexts.limit=2", "candidates=4", "student.epochs=2"],
    "tiny/compare": [
        *("contexts.limit=2", "candidates=4", "baselines=[]", "students.target_student.epochs=1", "students.new_student=null"),
        *("retention.source=''", "teachers.question_writer=null", "teachers.trained_teacher=null"),
    ],
    "tiny/transfer": [
        *("held_out.limit=2", "train.limit=2", "candidates=2", "teachers.for_two=null", "students.llama=null", "students.olmo2=null"),
        *("students.seed_oss.epochs=1", *LOOP),
    ],
    "tiny/questions": ["contexts.limit=3", "compared=4", "repeats=2", "student.epochs=1"],
    "quickstart": [
        *("train.limit=2", "held_out.limit=2", "candidates=2", "baselines=[]", "lasting=0", "new_student.model=''", "retention.source=''"),
        *("student.epochs=1", *LOOP),
    ],
}


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def run(recipe: str, runs: Path, *words: str) -> tuple[list[CandidateRecord], list[DecisionRecord], dict[str, Any]]:
    """The self-edits, the decisions and the report of a small run."""
    assert main(["run", f"recipes/{recipe}.yaml", *SMALL[recipe], f"runs={runs}", "name=run", *words]) == 0
    records = list(read_records(runs / "run" / "journal.jsonl"))
    written = [r for r in records if isinstance(r, CandidateRecord) and r.malformed is None and r.stage != "questions"]
    return written, [r for r in records if isinstance(r, DecisionRecord)], json.loads((runs / "run" / "report.json").read_text())


@pytest.mark.parametrize("recipe", SMALL)
def test_every_recipe_has_its_self_edits_edited(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written, decisions, report = run(recipe, tmp_path, *EDITOR)
    assert sorted(decision.candidate for decision in decisions) == sorted({candidate.candidate for candidate in written})
    told = report["editor"]
    assert told["accepted"] + told["mended"] + told["refused"] == len(decisions) >= 8
    assert told["mended"] == sum(decision.decision == "mended" for decision in decisions) > 0
    assert "self-edits, mends " in capsys.readouterr().out


def test_what_a_teacher_is_finetuned_on_elsewhere_is_what_its_student_learned(tmp_path: Path) -> None:
    _, decisions, _ = run("tiny/train_teacher", tmp_path, *EDITOR)
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "rows.jsonl")]) == 0
    rows = [json.loads(line)["completion"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == sum(decision.decision != "refused" for decision in decisions) > 0
    assert not [row for row in rows if " lives " in row or " works " in row or row.startswith("She ")]


def test_a_comparison_counts_what_its_editor_refused_apart_from_what_is_no_self_edit(tmp_path: Path) -> None:
    written, decisions, report = run("tiny/compare", tmp_path, *EDITOR)
    student = report["target_student"]
    assert student["malformed"]["untrained_teacher"] == 8 - len(written)
    assert student["refused"]["untrained_teacher"] == sum(decision.decision == "refused" for decision in decisions)


def test_without_an_editor_nothing_is_decided_and_nothing_reported(tmp_path: Path) -> None:
    _, decisions, report = run("tiny/compare", tmp_path)
    assert decisions == []
    assert "editor" not in report
