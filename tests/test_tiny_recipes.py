"""The tiny world's recipes made small: their models can do what is asked of them, so the figures mean something."""

import json
from pathlib import Path

import pytest

from protocol.journal import RewardRecord, SelectionRecord, read_records
from recipes.cli import main
from recipes.domains.knowledge_files import load_contexts
from recipes.tiny.source import load_tiny

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_teachers_meet_students_that_they_were_not_trained_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"runs={tmp_path}", "rounds=1", "contexts_per_round=2", "candidates=2", "held_out.limit=4", "train.limit=4", "baseline=''"]
    assert main(["run", "recipes/tiny/transfer.yaml", *words]) == 0
    report = json.loads((tmp_path / "transfer" / "report.json").read_text())
    students = {"seed_oss", "llama", "olmo2"}
    assert set(report["accuracy"]) == {"no_edit", "untrained", "for_one", "for_two"}
    assert all(set(row) == students and row["llama"]["n"] == 4 for row in report["accuracy"].values())
    assert set(report["gain"]) == {"untrained", "for_one", "for_two"}
    assert set(report["kept"]) == {"for_one", "for_two"}
    assert report["accuracy"]["untrained"]["olmo2"]["mean"] > report["accuracy"]["no_edit"]["olmo2"]["mean"]
    for figure in ("transfer-accuracy.png", "transfer-accuracy.svg", "transfer-kept.png", "transfer-kept.svg"):
        assert (tmp_path / "transfer" / figure).stat().st_size > 1000
    selections = {r.stage: r for r in read_records(tmp_path / "transfer" / "journal.jsonl") if isinstance(r, SelectionRecord)}
    rewards = [r for r in read_records(tmp_path / "transfer" / "journal.jsonl") if isinstance(r, RewardRecord)]
    of_llama = [r.result.value for r in rewards if r.stage == "seed-0/for_two/round-1 · llama" and hasattr(r.result, "value")]
    one, two = (sum(selections[f"seed-0/for_{name}/round-1"].rewards) / 2 for name in ("one", "two"))
    assert two == pytest.approx((one + sum(of_llama) / len(of_llama)) / 2)
    assert "share of the gain on its own students" in capsys.readouterr().out
    out = tmp_path / "rows.jsonl"
    assert main(["export", str(tmp_path / "transfer"), "--best-of", "1", "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 4  # two contexts for each of two teachers, none of them held out
    assert main(["export", str(tmp_path / "transfer"), "--stage", "seed-0/untrained/held-out", "--out", str(out)]) == 0
    assert main(["export", str(tmp_path / "transfer"), "--stage", "nowhere", "--out", str(out)]) == 2
    assert "give --stage one of those that have: seed-0/for_one/round-1, seed-0/for_two/round-1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["baseline=nobody"], "baseline is 'nobody'; it is one of untrained, for_one, for_two, or empty"),
        (["teachers.for_one.trained_for=[nobody]"], "teachers.for_one.trained_for has 'nobody'; it is one of seed_oss, llama, olmo2"),
        (["train.source=''"], "train.source is empty"),
        (["finetune.batch_size=0"], "finetune.batch_size is 0"),
    ],
)
def test_a_matrix_that_cannot_be_is_refused(tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "recipes/tiny/transfer.yaml", f"runs={tmp_path}", *words]) == 2
    assert message in capsys.readouterr().err


def test_written_questions_rank_self_edits_and_reward_a_teacher(tmp_path: Path) -> None:
    words = [f"runs={tmp_path}", "contexts.limit=6", "compared=3"]
    assert main(["run", "recipes/tiny/questions.yaml", *words]) == 0
    report = json.loads((tmp_path / "questions" / "report.json").read_text())
    assert report["questions_kept"] <= report["questions_written"]
    assert report["ranking"]["correlation"]["mean"] > 0.5
    assert report["ranking"]["chosen"]["mean"] > report["ranking"]["all"]["mean"]
    contexts = load_contexts(str(tmp_path / "questions" / "questions.jsonl"))
    assert sum(len(context.questions) for context in contexts) == report["questions_kept"]
    words = [f"runs={tmp_path}", f"contexts.source={tmp_path / 'questions' / 'questions.jsonl'}", "contexts.limit=2"]
    assert main(["run", "recipes/tiny/train_teacher.yaml", *words, "rounds=1", "candidates=2", "finetune.epochs=1"]) == 0


def test_questions_are_written_for_texts_that_have_none(tmp_path: Path) -> None:
    (context, *_), _ = load_tiny("validation", 1)
    (tmp_path / "biography.txt").write_text(context.passage)
    words = [f"runs={tmp_path}", f"contexts.source={tmp_path / 'biography.txt'}", "compared=0", "name=plain"]
    assert main(["run", "recipes/tiny/questions.yaml", *words]) == 0
    report = json.loads((tmp_path / "plain" / "report.json").read_text())
    assert 0 < report["questions_kept"] <= report["questions_written"]
    assert "ranking" not in report
    assert main(["run", "recipes/tiny/questions.yaml", *words[:2], "compared=2", "repeats=1"]) == 2


def test_only_those_that_may_still_be_kept_are_repeated(tmp_path: Path) -> None:
    words = [f"runs={tmp_path}", "rounds=1", "contexts_per_round=4", "candidates=4", "repeats=3", "finetune.epochs=1"]
    assert main(["run", "recipes/tiny/train_teacher.yaml", *words, "name=all"]) == 0
    assert main(["run", "recipes/tiny/train_teacher.yaml", *words, "name=some", "give_up_below=0.05"]) == 0
    reports = {name: json.loads((tmp_path / name / "report.json").read_text()) for name in ("all", "some")}
    assert reports["all"]["inner_loops"] == 48
    assert reports["some"]["inner_loops"] == 48 - reports["some"]["inner_loops_saved"] < 48
    kept = [
        record.kept for name in reports for record in read_records(tmp_path / name / "journal.jsonl") if isinstance(record, SelectionRecord)
    ]
    assert kept[0] == kept[1]
    assert reports["all"]["reliability_by_round"][0]["reward"] > 0.8
    journal = (tmp_path / "some" / "journal.jsonl").read_bytes()
    assert main(["run", "recipes/tiny/train_teacher.yaml", *words, "name=some", "give_up_below=0.05"]) == 0
    assert (tmp_path / "some" / "journal.jsonl").read_bytes() == journal
    again = json.loads((tmp_path / "some" / "report.json").read_text())
    assert {**again, "wall_seconds": 0} == {**reports["some"], "wall_seconds": 0}
