import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocol.journal import CandidateRecord, RewardRecord, read_records
from recipes.cli import main
from recipes.domains.knowledge_text import STYLES, teacher_prompt


def answered(rep: int, question: str, before: bool | None, after: bool | None) -> dict[str, Any]:
    verdicts = {"baseline_correct": before, "adapter_correct": after}
    return {"rep": rep, "question": question, "answer": "harp", "baseline_answer": "lute", "adapter_answer": "a harp", **verdicts}


def completion(text: str, *repeats: tuple[bool, bool], **stats: float) -> dict[str, Any]:
    questions = [
        answered(rep, q, False, right) for rep, both in enumerate(repeats) for q, right in zip(("What?", "Who?"), both, strict=True)
    ]
    return {"text": text, "questions": questions, "stats": stats}


def article(*completions: dict[str, Any], title: str = "Ada", style: str = "rewrite") -> dict[str, Any]:
    passage = "Ada plays the harp.\nIn Leeds — ليدز."
    return {"title": title, "context": passage, "prompt": teacher_prompt(style, title, passage), "completions": list(completions)}


def result_file(tmp_path: Path, *articles: dict[str, Any]) -> str:
    (tmp_path / "rank.json").write_text(json.dumps({"model": "base", "articles": articles}))
    return str(tmp_path / "rank.json")


TWO = article(
    completion("Ada plays.", (True, False), (False, False)),
    completion("Ada plays the harp.", (True, True), (True, False)),
    completion("The harp — ليدز — is Ada's.", (True, False), (True, True)),
    completion("", (True, True), (True, True)),
)


def test_a_result_file_becomes_a_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", result_file(tmp_path, TWO, article(TWO["completions"][0], title="Bob")), "--run", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert "2 contexts: accuracy 0.0% before, 41.7% after" in told
    assert "reward reliability" in told
    records = list(read_records(tmp_path / "run" / "journal.jsonl"))
    candidates = [r for r in records if isinstance(r, CandidateRecord)]
    assert [(c.index, c.style, c.malformed is None) for c in candidates[:4]] == [
        (0, "rewrite", True),
        (1, "rewrite", True),
        (2, "rewrite", True),
        (3, "rewrite", False),
    ]
    rewards = [r.result for r in records if isinstance(r, RewardRecord)]
    assert [r.value for r in rewards if hasattr(r, "value")] == [0.25, 0.75, 0.75, 0.25]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["answers_gained"], report["answers_lost"]) == (8, 0)


def test_the_best_of_each_context_leaves_as_rows_and_ties_keep_the_earlier(tmp_path: Path) -> None:
    run, out = str(tmp_path / "run"), tmp_path / "rows.jsonl"
    assert main(["import", result_file(tmp_path, TWO), "--run", run]) == 0
    assert main(["export", run, "--what", "sft", "--best-of", "1", "--out", str(out)]) == 0
    assert out.read_text() == json.dumps({"prompt": TWO["prompt"], "completion": "Ada plays the harp."}, ensure_ascii=False) + "\n"
    assert main(["export", run, "--what", "messages", "--best-of", "2", "--out", str(out)]) == 0
    assert [json.loads(line)["messages"][1]["content"] for line in out.read_text().splitlines()] == [
        "Ada plays the harp.",
        "The harp — ليدز — is Ada's.",
    ]
    assert main(["export", run, "--what", "dataset", "--out", str(tmp_path / "rows")]) == 0
    import datasets

    rows = datasets.load_from_disk(str(tmp_path / "rows"))
    assert rows["reward"] == [0.25, 0.75, 0.75]
    assert rows["title"] == ["Ada"] * 3


def test_published_means_decide_ties(tmp_path: Path) -> None:
    run, out = str(tmp_path / "run"), tmp_path / "rows.jsonl"
    same = [completion("First.", (True, True), adapter_mean=0.9999), completion("Second.", (True, True), adapter_mean=1.0)]
    assert main(["import", result_file(tmp_path, article(*same)), "--run", run]) == 0
    assert main(["export", run, "--best-of", "1", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["completion"] == "Second."


def cut_short(file: dict[str, Any]) -> None:
    del file["articles"][0]["completions"][1]["questions"][-1]


def without_a_question(file: dict[str, Any]) -> None:
    file["articles"][0]["completions"][0]["questions"] = []


def with_another_mean(file: dict[str, Any]) -> None:
    file["articles"][0]["completions"][0]["stats"]["adapter_mean"] = 0.5


def with_a_number_for_an_answer(file: dict[str, Any]) -> None:
    file["articles"][0]["completions"][0]["questions"][0]["adapter_answer"] = 7


def without_articles(file: dict[str, Any]) -> None:
    file.clear()


def with_a_huge_passage(file: dict[str, Any]) -> None:
    file["articles"][0]["context"] = "x" * 300_000


def without_completions(file: dict[str, Any]) -> None:
    file["articles"][0]["completions"] = []


def without_verdicts(file: dict[str, Any]) -> None:
    for one in file["articles"][0]["completions"]:
        for question in one["questions"]:
            question["adapter_correct"] = None
            one["stats"] = {}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_short, "completion 1: repeat 1 answers 1 questions, not the 2"),
        (without_a_question, "articles.0.completions.0.questions: List should have at least 1 item"),
        (with_another_mean, "stats.adapter_mean is 0.5000, but its verdicts give 0.2500; the file is damaged"),
        (with_a_number_for_an_answer, "articles.0.completions.0.questions.0.adapter_answer: Input should be a valid string"),
        (without_articles, "has no articles; it must be a result file"),
        (with_a_huge_passage, "at most 200000 characters"),
        (without_completions, "has no completion with a verdict before and after"),
        (without_verdicts, "has no completion with a verdict before and after"),
    ],
)
def test_a_damaged_result_file_is_refused_and_leaves_nothing(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = json.loads(json.dumps({"articles": [TWO]}))
    damage(file)
    (tmp_path / "rank.json").write_text(json.dumps(file))
    assert main(["import", str(tmp_path / "rank.json"), "--run", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_file_cut_off_in_the_middle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(result_file(tmp_path, TWO))
    path.write_text(path.read_text()[:-40])
    assert main(["import", str(path), "--run", str(tmp_path / "run")]) == 2
    assert "is not JSON" in capsys.readouterr().err


def test_a_folder_that_is_there_is_not_written_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    assert main(["import", result_file(tmp_path, TWO), "--run", str(tmp_path)]) == 2
    assert "is not empty, or no folder; give --run a new one" in capsys.readouterr().err


def test_a_torn_journal_is_exported_without_its_last_line(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "rows.jsonl"
    assert main(["import", result_file(tmp_path, TWO), "--run", str(run)]) == 0
    journal = (run / "journal.jsonl").read_bytes()
    (run / "journal.jsonl").write_bytes(journal[:-9])
    assert main(["export", str(run), "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 2
    assert (run / "journal.jsonl").stat().st_size == len(journal) - 9
    (run / "journal.jsonl").unlink()
    assert main(["export", str(run), "--out", str(out)]) == 2


def test_only_rows_whose_prompt_is_known_are_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {**TWO, "prompt": "Tell me."}
    assert main(["import", result_file(tmp_path, other), "--run", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "x")]) == 0
    assert "0 rows: " in (told := capsys.readouterr().out) and "3 are left out" in told
    assert main(["export", str(tmp_path / "run"), "--stage", "seed-0", "--out", str(tmp_path / "x")]) == 2
    assert "give --stage one of those that have: imported" in capsys.readouterr().err


def test_a_folder_that_is_there_is_no_place_for_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", result_file(tmp_path, TWO), "--run", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), "--what", "dataset", "--out", str(tmp_path)]) == 2
    assert "is there already; give --out a new folder" in capsys.readouterr().err


def test_a_folder_without_a_run_cannot_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "is no run folder" in capsys.readouterr().err


@pytest.mark.parametrize("style", list(STYLES))
def test_every_completion_expands_to_its_training_sequences(tmp_path: Path, style: str) -> None:
    completions = ["Sure:\n1. One.\n2. Two.", "What is it?\nAnswer: A harp.\n\nQuestion 2: Whose?\nAnswer: Ada's.", ""]
    (tmp_path / "in.json").write_text(json.dumps([{"title": "Ada", "context": "Passage. ", "completions": completions}]))
    assert main(["expand", str(tmp_path / "in.json"), "--style", style, "--out", str(tmp_path / "out.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == [
        {"context": 0, "completion": 0, "sequences": ["Ada\n1. One.", "Ada\n2. Two.", "Ada\nPassage."]},
        {
            "context": 0,
            "completion": 1,
            "sequences": ["Ada\nQuestion 1: What is it?\nAnswer: A harp.", "Ada\nQuestion 2: Whose?\nAnswer: Ada's.", "Ada\nPassage."],
        },
        {
            "context": 0,
            "completion": 2,
            "sequences": [],
            "malformed": "the candidate is empty; a self-edit has at least one line of text",
        },
    ]


def test_rows_are_graded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"question": "What?", "gold": "harp", "answer": "A harp.", "id": 7},
        {"question": "Who?", "gold": ["Ada", "Ada Byron"], "answer": "Eve"},
        {"question": "Where?", "gold": "", "answer": "Leeds"},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["grade", str(tmp_path / "in.jsonl"), "--grader", "contained", "--out", str(tmp_path / "out.jsonl")]) == 0
    assert "2 of 3 rows graded, 50.0% correct" in capsys.readouterr().out
    graded = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["correct"], row["score"]) for row in graded] == [(True, 1.0), (False, 0.0), (None, None)]
    assert graded[0]["id"] == 7


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "line 1 is a list; it must be an object with question, gold and answer"),
        ('{"question": "What?", "gold": 3, "answer": "x"}', "gold is 3; it must be a text or a list of texts"),
        ('{"question": "What?", "gold": "x"}', "answer is None; it must be a text"),
        ('{"question": "' + "x" * 20_000 + '", "gold": "x", "answer": "x"}', "at most 10000 characters"),
        ("", "holds no rows"),
        ('{"question": "What?", "gold": "x", "answer": "' + "x" * 204_800 + '"}', "answer: String should have at most 200000 characters"),
    ],
)
def test_rows_that_cannot_be_graded_are_refused(tmp_path: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").write_text(line)
    assert main(["grade", str(tmp_path / "in.jsonl"), "--grader", "contained", "--out", str(tmp_path / "out.jsonl")]) == 2
    assert message in capsys.readouterr().err


def test_the_released_selection_is_reproduced_line_by_line(released: Path, tmp_path: Path) -> None:
    run, out = str(tmp_path / "run"), tmp_path / "best.jsonl"
    assert main(["import", str(released / "seal" / "rank_iter0.json"), "--run", run]) == 0
    assert main(["export", run, "--what", "sft", "--best-of", "1", "--out", str(out)]) == 0
    assert out.read_bytes() == (released / "seal" / "sft_best1of5_iter0.jsonl").read_bytes()


def test_the_released_means_are_reproduced(released: Path, tmp_path: Path) -> None:
    for name, before, after in (("rank_iter0", 0.3187, 0.4018), ("eval_base", 0.3267, 0.3968)):
        assert main(["import", str(released / "seal" / f"{name}.json"), "--run", str(tmp_path / name)]) == 0
        report = json.loads((tmp_path / name / "report.json").read_text())
        assert report["accuracy_before"]["mean"] == pytest.approx(before, abs=1e-4)
        assert report["accuracy_after"]["mean"] == pytest.approx(after, abs=1e-4)
