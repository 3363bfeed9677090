"""The few-shot recipes made small: on tiny grids, whose models can do what is asked of them, and on ARC's files with random ones."""

import json
from pathlib import Path

import pytest

from protocol.journal import CheckpointRecord, RewardRecord, SelectionRecord, read_records
from recipes.cli import main

ROOT = Path(__file__).resolve().parents[1]
CONDITIONS = ["no_edit", "untrained_teacher", "random_selection", "best_constant", "trained_teacher", "reference_edits"]


@pytest.fixture(autouse=True)
def offline_at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_a_teacher_of_directives_is_trained_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"runs={tmp_path}", "threads=1", "rounds=1", "train.limit=2", "contexts_per_round=2", "candidates=3", "held_out.limit=3"]
    words += ["minimum=0.0", "pictures=1", "finetune.epochs=1", "grids.max_sequences=6"]
    assert main(["run", "recipes/tiny/few_shot.yaml", *words]) == 0
    report = json.loads((tmp_path / "few_shot" / "report.json").read_text())
    scores = report["target_student"]["scores"]
    assert list(scores) == CONDITIONS
    assert all(row["n"] == 3 for row in scores.values())
    assert scores["reference_edits"]["mean"] > scores["no_edit"]["mean"]
    constants = report["trained_teachers"]["seed-0"]["constants"]
    assert len(constants) == 4
    assert constants[0]["reward"] == max(constant["reward"] for constant in constants)
    records = list(read_records(tmp_path / "few_shot" / "journal.jsonl"))
    kept = {record.stage: len(record.kept) for record in records if isinstance(record, SelectionRecord)}
    assert kept["seed-0/random_selection/round-1"] == kept["seed-0/trained_teacher/round-1"] > 0
    assert [record.stage for record in records if isinstance(record, CheckpointRecord)] == list(kept)
    rewards = [r.result.value for r in records if isinstance(r, RewardRecord) and hasattr(r.result, "value") and "round-1" in r.stage]
    assert set(rewards) <= {0.0, 1.0}
    (picture,) = (tmp_path / "few_shot" / "pictures-target_student").iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG")
    told = capsys.readouterr().out
    assert "demonstration" in told
    assert "next: tutelage run recipes/tiny/adapt_few_shot.yaml teacher.model=recipes/tiny/models/directives" in told


def test_tasks_without_solutions_are_answered(tmp_path: Path) -> None:
    task = {
        "train": [{"input": [[1, 0], [0, n]], "output": [[1, 0, 1, 0], [0, n, 0, n]]} for n in (1, 2, 3)],
        "test": [{"input": [[4, 4], [0, 1]]}],
    }
    (tmp_path / "tasks").mkdir()
    for name in ("first", "second"):
        (tmp_path / "tasks" / f"{name}.json").write_text(json.dumps(task))
    (tmp_path / "directives.json").write_text(json.dumps(directives(epochs=2)))
    words = [f"runs={tmp_path}", f"contexts.source={tmp_path / 'tasks'}", "contexts.limit=2", "teacher.model=''", "teacher.adapter=null"]
    assert main(["run", "recipes/tiny/adapt_few_shot.yaml", *words, f"teacher.edits={tmp_path / 'directives.json'}"]) == 0
    report = json.loads((tmp_path / "few-shot-student" / "report.json").read_text())
    assert [(row["title"], row["after"], row["correct_after"]) for row in report["answers"]] == [
        ("first", "4444\n0101", None),
        ("second", "4444\n0101", None),
    ]
    assert all(Path(version["path"], "adapter_config.json").exists() for version in report["versions"])
    assert "scores" not in report


def test_tasks_without_a_self_edit_are_named_and_count_as_the_untouched_student_answers_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [{"input": [[1, 0], [0, n]], "output": [[1, 0, 1, 0], [0, n, 0, n]]} for n in (1, 2, 3)]
    task = {"train": pairs, "test": [{"input": [[4, 4], [0, 1]], "output": [[9]]}]}
    rows = {"first": json.dumps(directives(epochs=1)), "[/second]": "I do not know", "[red]": "{"}
    (tmp_path / "challenges.json").write_text(json.dumps(dict.fromkeys(rows, task)))
    (tmp_path / "edits.jsonl").write_text("\n".join(json.dumps({"task": n, "completions": [text]}) for n, text in rows.items()))
    words = [f"runs={tmp_path}", f"contexts.source={tmp_path}/challenges.json", "contexts.limit=null", "teacher.model=''"]
    words += ["teacher.adapter=null", f"teacher.edits={tmp_path}/edits.jsonl"]
    assert main(["run", "recipes/tiny/adapt_few_shot.yaml", *words]) == 0
    report = json.loads((tmp_path / "few-shot-student" / "report.json").read_text())
    assert (len(report["versions"]), report["malformed"]) == (1, 2)
    assert [(row["title"], row["reason"][:30]) for row in report["without_update"]] == [
        ("[/second]", "the candidate holds no JSON ob"),
        ("[red]", "what begins with '{' is no JSO"),
    ]
    assert [row["title"] for row in report["answers"]] == ["first", "[/second]", "[red]"]
    assert all(row["before"] == row["after"] for row in report["answers"][1:])
    assert report["scores"]["after"]["n"] == 3
    told = capsys.readouterr().out
    assert "no update: 2 contexts have none and count as the untouched student answers them; the first, [/second]: the candidate" in told


def directives(epochs: int) -> dict[str, dict[str, object]]:
    groups = {f"use_{name}_augmentations": False for name in ("basic", "size", "chain", "repeat")}
    return {
        "data_generation": groups,
        "training": {"strategy": "train_using_all_tokens", "learning_rate": 1e-3, "num_train_epochs": epochs},
    }


def test_the_published_recipe_runs_on_arcs_files(released: Path, tmp_path: Path, chatting: str) -> None:
    """With small random models: the path, not the score."""
    sources = {"train": "arc-agi_training_{}_filtered_1B_training_set.json", "held_out": "arc-agi_evaluation_{}_filtered_1B_eval_set.json"}
    words = [f"runs={tmp_path}", "contexts_per_round=2", "candidates=2", "minimum=0.0", "held_out_candidates=2", "grids.max_side=7"]
    for key, name in sources.items():
        words += [f"{key}.source={released / 'arc' / name.format('challenges')}", f"{key}.limit=2"]
    for key in ("teacher", "student"):
        words += [f"{key}.model={chatting}", f"{key}.dtype=float32"]
    words += [
        "teacher.max_new_tokens=8",
        "student.rank=4",
        "student.max_steps=8",
        "finetune.rank=4",
        "constants=[]",
        "grids.max_sequences=4",
    ]
    assert main(["run", "recipes/arc/llama-3.2-1b.yaml", *words]) == 0
    report = json.loads((tmp_path / "llama-3.2-1b" / "report.json").read_text())["target_student"]
    assert list(report["scores"]) == [name for name in CONDITIONS if name != "best_constant"]
    assert report["trained_tokens"]["reference_edits"] > 0
    assert (report["refused"]["reference_edits"], report["malformed"]["untrained_teacher"]) == (0, 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["baselines=[passage_only]"], "baselines has 'passage_only', which is for texts; domain few_shot("),
        (["constants=['{}']"], "constants[0] is no self-edit: "),
        (["held_out.reference=x"], "held_out.reference is no self-edit: the candidate holds no JSON object"),
        (["held_out.split=train"], "held_out.source has 'flip_up_down 0', which train.source has too, so it is not held out"),
        (["lasting=4"], "lasting is 4, one adapter for several contexts"),
        (["grader=contained"], "grader is 'contained', which reads texts; domain few_shot has verbatim"),
        (["held_out.limit=1000000000"], "held_out.limit is 1000000000, but a tiny world has at most 10000 contexts; lower it"),
        (["train.split=nowhere"], "the tiny grid world has no split 'nowhere'; use train or held_out"),
        (["grids.max_side=1"], "12 of 12 tasks have grids above grids.max_side, which is 1; raise it"),
        (["retention.source=tiny", "retention.split=train"], "retention.source is 'tiny', but domain few_shot("),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "recipes/tiny/few_shot.yaml", f"runs={tmp_path}", *words]) == 2
    assert message in capsys.readouterr().err
