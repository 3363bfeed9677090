"""Whole recipes with random tiny models: the path is real, the scores mean nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from protocol.journal import CandidateRecord, CommitRecord, RewardRecord, read_records
from protocol.messages import Passage
from recipes.cli import main
from student.store import read_store

ROOT = Path(__file__).resolve().parents[1]


def overrides(runs: Path, teacher: str, student: str) -> list[str]:
    return [
        f"runs={runs}",
        f"teacher.model={teacher}",
        "teacher.max_new_tokens=24",
        f"student.model={student}",
        "student.rank=4",
        "student.epochs=2",
        "student.batch_size=8",
    ]


def train_words(runs: Path, source: str, teacher: str, student: str, *more: str) -> list[str]:
    words = [*overrides(runs, teacher, student), f"contexts.source={source}", "contexts.limit=3", "contexts_per_round=2", "candidates=2"]
    return ["run", "recipes/tiny/train_teacher.yaml", *words, "finetune.epochs=1", *more]


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def texts(tmp_path: Path) -> str:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "harp.txt").write_text("Ada Byron plays the harp in Leeds. Her brother bakes bread.")
    rows = [{"question": "What does Ada play?", "answer": "harp"}, {"question": "Where?", "answer": "Leeds"}]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


def report(runs: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((runs / name / "report.json").read_text())
    return content


def test_real_text_goes_through_training_adapting_and_comparing(released: Path, tmp_path: Path, llama: str, olmo: str) -> None:
    runs, source = tmp_path / "runs", str(released / "seal" / "squad_val.json")
    assert main(train_words(runs, source, llama, olmo, "name=train")) == 0
    trained = report(runs, "train")
    assert trained["inner_loops"] > 0
    assert len(trained["mean_reward_by_round"]) == 2
    assert (runs / "train" / "teacher" / "round-2" / "adapter_model.safetensors").exists()

    adapt = [
        *overrides(runs, llama, olmo),
        f"contexts.source={source}",
        "contexts.limit=2",
        f"teacher.adapter={trained['teacher']['path']}",
    ]
    assert main(["run", "recipes/tiny/adapt_student.yaml", *adapt, "name=adapt"]) == 0
    adapted = report(runs, "adapt")
    assert adapted["scores"]["after"]["n"] == 2
    assert {"exact_match", "f1"} == set(adapted["metrics"]["after"])
    assert Path(adapted["versions"][0]["path"], "adapter_config.json").exists()

    compare = [f"runs={runs}", f"contexts.source={source}", "contexts.limit=2", "name=compare"]
    for name in ("target_student", "new_student"):
        compare += [f"students.{name}.model={olmo}", f"students.{name}.epochs=1", f"students.{name}.rank=4"]
    compare += [f"teachers.untrained_teacher.model={llama}", "teachers.untrained_teacher.max_new_tokens=24"]
    compare += [
        "teachers.question_writer.edits=null",
        f"teachers.question_writer.model={llama}",
        "teachers.question_writer.max_new_tokens=9",
    ]
    compare += [
        f"teachers.trained_teacher.model={trained['teacher']['path']}",
        "teachers.trained_teacher.adapter=null",
        "teachers.trained_teacher.max_new_tokens=24",
    ]
    assert main(["run", "recipes/tiny/compare.yaml", *compare]) == 0
    scores = report(runs, "compare")["new_student"]["scores"]
    assert list(scores) == [
        "no_edit",
        "passage_only",
        "matched_passage",
        "matched_paraphrase",
        "untrained_teacher",
        "question_writer",
        "trained_teacher",
        "in_context",
        "retrieval",
        "weights_and_retrieval",
        "other_context",
    ]
    assert (runs / "compare" / "conditions.svg").exists()
    assert all(row["n"] == 2 and 0 <= row["low"] <= row["mean"] <= row["high"] <= 1 for row in scores.values())


def test_a_folder_of_a_text_and_questions_ends_in_a_report(tmp_path: Path, texts: str, llama: str, olmo: str) -> None:
    assert main(train_words(tmp_path / "runs", texts, llama, olmo, "name=train", "rounds=1")) == 0
    assert report(tmp_path / "runs", "train")["student"]["model"] == olmo


def test_a_context_without_questions_is_learned_without_a_score(tmp_path: Path, llama: str, olmo: str) -> None:
    (tmp_path / "harp.md").write_text("Ada Byron plays the harp in Leeds.")
    words = [*overrides(tmp_path / "runs", llama, olmo), f"contexts.source={tmp_path / 'harp.md'}", "name=adapt", "candidates=3"]
    assert main(["run", "recipes/tiny/adapt_student.yaml", *words]) == 0
    adapted = report(tmp_path / "runs", "adapt")
    assert "scores" not in adapted
    assert adapted["answers"] == []
    assert Path(adapted["versions"][0]["path"], "adapter_model.safetensors").exists()


def test_what_changes_fast_is_looked_up_and_what_lasts_is_learned(tmp_path: Path, llama: str, olmo: str) -> None:
    asked = [{"question": "Is it the harp or the lute that Ada plays?", "answer": "harp"}]
    rows = [
        {"title": "Ada", "context": "Ada plays the harp.", "questions": asked, "asked_per_day": 9},
        {"title": "Weather", "context": "It rains.", "questions": [{"question": "Does it rain?", "answer": "yes"}], "changes_per_day": 4},
        {"title": "Bob", "context": "Bob plays the lute."},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = [*overrides(tmp_path / "runs", llama, olmo), f"contexts.source={tmp_path / 'rows.jsonl'}"]
    words = ["run", "recipes/tiny/adapt_student.yaml", *words]
    assert main([*words, "name=adapt", "memory.choice=auto"]) == 0
    adapted, folder = report(tmp_path / "runs", "adapt"), tmp_path / "runs" / "adapt"
    assert [(row["title"], row["memory"]) for row in adapted["memory"]] == [
        ("Ada", "weights"),
        ("Weather", "retrieval"),
        ("Bob", "retrieval"),
    ]
    assert list(read_store(folder / "store.jsonl").values()) == [
        Passage(title="Weather", text="It rains."),
        Passage(title="Bob", text="Bob plays the lute."),
    ]
    (written,) = (record for record in read_records(folder / "journal.jsonl") if isinstance(record, CandidateRecord))
    assert [row["context"] for row in adapted["answers"]] == [written.context, adapted["memory"][1]["context"]]
    prompts = [row["prompt"].split("Let's answer")[0] for row in adapted["answers"]]
    assert prompts == ["Passage:\nBob\nBob plays the lute.\n\n", "Passage:\nWeather\nIt rains.\n\n"], "what shares a word is in view"
    assert (adapted["without_update"], adapted["misled"]) == ([], 1)

    assert main([*words, "name=stored", "memory.choice=retrieval", f"memory.store={folder}/store.jsonl"]) == 0
    assert report(tmp_path / "runs", "stored")["versions"] == []
    assert len(read_store(folder / "store.jsonl")) == 3


def test_the_best_self_edit_by_reward_is_the_one_that_is_kept(tmp_path: Path, texts: str, llama: str, olmo: str) -> None:
    words = [*overrides(tmp_path / "runs", llama, olmo), f"contexts.source={texts}", "name=adapt", "candidates=3", "use=best"]
    assert main(["run", "recipes/tiny/adapt_student.yaml", *words]) == 0
    records = list(read_records(tmp_path / "runs" / "adapt" / "journal.jsonl"))
    readable = [r for r in records if isinstance(r, CandidateRecord) and r.malformed is None]
    assert report(tmp_path / "runs", "adapt")["inner_loops"] == len(readable) > 0
    assert len([r for r in records if isinstance(r, CommitRecord)]) == 1


def test_candidates_that_are_no_self_edits_are_journaled_and_the_run_goes_on(
    tmp_path: Path, texts: str, llama: str, olmo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = ["", "x" * 1_000_000, "\x00\x01\x02" * 9, "---", "\ud800 lone surrogate", "Ada plays the harp."]

    def sample(self: object, prompts: list[str], seeds: list[int]) -> list[str]:
        return hostile[: len(prompts)]

    monkeypatch.setattr("teacher.policy.Policy.sample", sample)
    assert main(train_words(tmp_path / "runs", texts, llama, olmo, "name=train", "rounds=1", "candidates=6")) == 0
    records = list(read_records(tmp_path / "runs" / "train" / "journal.jsonl"))
    reasons = {r.index: r.malformed for r in records if isinstance(r, CandidateRecord)}
    assert [bool(reasons[i]) for i in range(6)] == [True, True, True, True, False, False]
    assert "1000000 characters" in str(reasons[1])
    rewards = [r for r in records if isinstance(r, RewardRecord)]
    assert len(rewards) == 2
    mean = report(tmp_path / "runs", "train")["mean_reward_by_round"][0]["mean"]
    values = [r.result.value for r in rewards if hasattr(r.result, "value")]
    assert mean == pytest.approx((-4.0 + sum(values)) / 6)


def test_a_finished_run_computes_nothing_again(tmp_path: Path, texts: str, llama: str, olmo: str) -> None:
    words = train_words(tmp_path / "runs", texts, llama, olmo, "name=train", "rounds=1")
    assert main(words) == 0
    journal = (tmp_path / "runs" / "train" / "journal.jsonl").read_bytes()
    first = report(tmp_path / "runs", "train")
    assert main(words) == 0
    assert (tmp_path / "runs" / "train" / "journal.jsonl").read_bytes() == journal
    assert {k: v for k, v in report(tmp_path / "runs", "train").items() if k != "wall_seconds"} == {
        k: v for k, v in first.items() if k != "wall_seconds"
    }


def test_a_changed_recipe_is_refused_on_an_old_folder(
    tmp_path: Path, texts: str, llama: str, olmo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(train_words(tmp_path / "runs", texts, llama, olmo, "name=train", "rounds=1")) == 0
    assert main(train_words(tmp_path / "runs", texts, llama, olmo, "name=train", "rounds=2")) == 2
    assert "rounds was 1, is now 2" in capsys.readouterr().err


EXPERIMENT = [
    "rounds=1",
    "contexts_per_round=2",
    "candidates=2",
    "seeds=[3,4]",
    "held_out.limit=2",
    "retention.limit=2",
    "lasting=2",
    "finetune.epochs=1",
]


@pytest.fixture(scope="module")
def whole_experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert main(["run", "recipes/quickstart.yaml", f"runs={runs}", *EXPERIMENT]) == 0
    return runs


def test_the_whole_experiment_reports_every_condition_and_resumes_without_work(whole_experiment: Path) -> None:
    words = ["run", "recipes/quickstart.yaml", f"runs={whole_experiment}", *EXPERIMENT]
    first = report(whole_experiment, "quickstart")
    conditions = ["no_edit", "passage_only", "untrained_teacher", "random_selection", "trained_teacher", "reference_edits", "other_context"]
    for student in ("target_student", "new_student"):
        part = first[student]
        assert list(part["scores"]) == conditions
        assert all(row["n"] == 2 for row in part["scores"].values())
        assert set(part["by_seed"]) == {"3", "4"}
        assert {"mean", "low", "high", "n"} == set(part["differences"]["trained_teacher_minus_untrained_teacher"])
        for name in ("untrained_teacher", "random_selection", "trained_teacher"):
            assert part["leakage"][name]["before"]["n"] == part["retention"][name]["after"]["n"] > 0
        assert part["retention"]["trained_teacher"]["before"]["mean"] > 0.5
        assert part["scores"]["reference_edits"]["mean"] > part["scores"]["other_context"]["mean"]
    assert first["target_student"]["student"]["fingerprint"] != first["new_student"]["student"]["fingerprint"]
    assert first["seeds"] == [3, 4]
    assert set(first["lasting_update"]) == {"seed-3", "seed-4"}
    journal = (whole_experiment / "quickstart" / "journal.jsonl").read_bytes()
    assert main(words) == 0
    assert (whole_experiment / "quickstart" / "journal.jsonl").read_bytes() == journal
    again = report(whole_experiment, "quickstart")
    assert {**again, "wall_seconds": 0} == {**first, "wall_seconds": 0}
