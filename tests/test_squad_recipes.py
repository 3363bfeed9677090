"""The recipes with the published settings, on real SQuAD text with small random models and no network: the path, not the score."""

import json
from pathlib import Path

import pytest

from protocol.journal import CandidateRecord, RewardRecord, read_records
from recipes.cli import main

ROOT = Path(__file__).resolve().parents[1]
SQUAD = sorted((ROOT / "recipes" / "squad").glob("*.yaml"))


@pytest.fixture(autouse=True)
def offline_at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("path", SQUAD, ids=lambda path: path.stem)
def test_a_dry_run_reckons_costs_and_fetches_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(path), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "in all at least 0." in told
    assert "hours of one H100" in told
    assert "GB for the weights of all models" in told


@pytest.mark.parametrize("style", ["implications", "implications-long", "implications-very-long", "rewrite", "self-qa"])
def test_every_prompt_style_has_the_published_settings(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = "qwen2.5-7b" + ("" if style == "implications" else f"-{style}")
    assert main(["run", f"recipes/squad/{name}.yaml", "--dry-run"]) == 0
    told = capsys.readouterr().out
    for line in (f"style: {style}\n", "contexts_per_round: 50\n", "candidates: 5\n", "repeats: 3\n", "rounds: 2\n", "limit: 200\n"):
        assert line in told


def small(models: dict[str, str], runs: Path, released: Path, *keys: str) -> list[str]:
    """Overrides that make a recipe small."""
    words = [f"runs={runs}"]
    for key in keys:
        words += [f"{key}.source={released / 'seal' / 'squad_val.json'}", f"{key}.shuffle=1", f"{key}.limit=2"]
    for key, model in models.items():
        words += [f"{key}.model={model}", f"{key}.dtype=float32"]
        if "teacher" in key:
            words += [f"{key}.max_new_tokens=16"]
        else:
            words += [f"{key}.rank=4", f"{key}.epochs=1", f"{key}.batch_size=8"]
    return words


def test_the_published_experiment_runs_end_to_end(released: Path, tmp_path: Path, llama: str, olmo: str) -> None:
    words = small({"teacher": llama, "student": llama, "new_student": olmo}, tmp_path, released, "train", "held_out")
    words += [
        "contexts_per_round=2",
        "candidates=2",
        "repeats=2",
        "give_up_below=0.1",
        "rounds=1",
        "finetune.rank=4",
        "lasting=1",
        "held_out.shuffle=2",
    ]
    assert main(["run", "recipes/squad/llama-3.2-1b.yaml", *words]) == 0
    report = json.loads((tmp_path / "llama-3.2-1b" / "report.json").read_text())
    rows = ["no_edit", "passage_only", "matched_passage", "matched_paraphrase", "untrained_teacher", "random_selection", "trained_teacher"]
    for student in ("target_student", "new_student"):
        assert list(report[student]["scores"]) == [*rows, "in_context", "other_context"]
        assert all(row["n"] == 2 for row in report[student]["scores"].values())
    records = list(read_records(tmp_path / "llama-3.2-1b" / "journal.jsonl"))
    assert {record.style for record in records if isinstance(record, CandidateRecord)} == {"implications", "rewrite"}
    outcomes = [r.result.change.adapted[0][0] for r in records if isinstance(r, RewardRecord) and hasattr(r.result, "change")]
    assert all(outcome.score is not None for outcome in outcomes)


def test_many_passages_are_learned_together_from_anyones_self_edits(released: Path, tmp_path: Path, llama: str, olmo: str) -> None:
    words = small({"teachers.untrained_teacher": llama, "students.qwen2_5_7b": olmo}, tmp_path, released, "contexts")
    words = [word for word in words if "squad_val" not in word and "shuffle" not in word]
    released_edits = released / "seal" / "base_val.json"
    words += [f"contexts.source={released_edits}", "contexts.shuffle=null", f"teachers.released.edits={released_edits}"]
    assert main(["run", "recipes/squad/together.yaml", *words, "candidates=2", "baselines=[matched_passage,in_context]"]) == 0
    report = json.loads((tmp_path / "squad-together" / "report.json").read_text())["qwen2_5_7b"]
    assert list(report["scores"])[-2:] == ["released", "in_context"]
    tokens = report["trained_tokens"]
    assert tokens["matched_passage"] == pytest.approx(tokens["released"], rel=0.5)
    assert len(list((tmp_path / "squad-together" / "student").glob("version-*/adapter_config.json"))) == 3
