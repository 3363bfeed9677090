import json
from pathlib import Path

import pytest

from protocol.errors import InvalidInput
from protocol.journal import CandidateRecord, read_records
from protocol.messages import Context
from recipes.cli import main
from recipes.domains.knowledge_text import teacher_prompt
from recipes.domains.written import find_written, read_written

ADA = Context(title="Ada", passage="Ada plays the harp.")
BOB = Context(title="Bob", passage="بوب يعزف على العود")


def write(path: Path, content: object) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text)
    return path


def rows(*contexts: Context) -> list[dict[str, object]]:
    return [{"title": c.title, "context": c.passage, "completions": [f"{c.title} one", f"{c.title} two"]} for c in contexts]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.json", rows(ADA, BOB)),
        ("data.jsonl", "\n".join(map(json.dumps, rows(ADA, BOB)))),
        (
            "result.json",
            {"articles": [{**row, "completions": [{"text": text} for text in row["completions"]]} for row in rows(ADA, BOB)]},  # type: ignore[attr-defined]
        ),
        (
            "sft.jsonl",
            "\n".join(
                json.dumps({"prompt": teacher_prompt("rewrite", c.title, c.passage), "completion": f"{c.title} {n}"})
                for c in (ADA, BOB)
                for n in ("one", "two")
            ),
        ),
    ],
)
def test_files_of_self_edits_are_read_in_every_shape(tmp_path: Path, name: str, content: object) -> None:
    path = write(tmp_path / name, content)
    asked, style = [BOB.model_copy(update={"title": "other"}), ADA], "rewrite" if name == "sft.jsonl" else ""
    found = find_written(path, asked, 2, "teacher.edits")
    assert found == {
        asked[0].id: [("Bob one", style), ("Bob two", style)],
        ADA.id: [("Ada one", style), ("Ada two", style)],
    }


def test_the_released_files_are_read(released: Path) -> None:
    for name, texts, style in (
        ("base_val.json", 1000, "implications"),
        ("eval_base.json", 200, "implications"),
        ("iter0_train.json", 1000, "implications"),
    ):
        written = read_written(released / "seal" / name)
        assert sum(len(one.completions) for one in written) == texts
        assert {one.style for one in written} == {style}
    assert len(read_written(released / "seal" / "sft_best1of5_iter0.jsonl")) == 50


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", rows(ADA), "has too few self-edits for 1 of 2 contexts: 'Bob' has 0, and 2 are needed"),
        ("x.json", [], "holds no self-edits"),
        ("x.json", "[1, 2", "is not JSON"),
        ("x.json", {"a": 1}, "is neither a list of contexts with completions nor a result file"),
        ("x.json", [{"title": "Ada", "context": "x", "completions": "text"}], "item 0: completions is 'text'"),
        ("x.json", [{"title": "Ada", "context": "x", "completions": [3]}], "item 0, completion 0 is 3; it must be a text"),
        ("x.jsonl", '{"prompt": "Tell me", "completion": "x"}', "line 1: prompt 'Tell me' is none of the published ones"),
        ("x.json", [{"title": "Ada", "context": "x" * 204_800, "completions": ["x"]}], "at most 200000 characters; split what is longer"),
    ],
)
def test_a_file_that_does_not_serve_is_refused(tmp_path: Path, name: str, content: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        find_written(write(tmp_path / name, content), [ADA, BOB], 2, "teacher.edits")


def test_half_characters_become_question_marks(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", '[{"title": "Ada", "context": "Ada plays the harp.", "completions": ["\\ud800 harp"]}]')
    assert find_written(path, [ADA], 1, "teacher.edits")[ADA.id] == [("? harp", "")]
    assert main(["expand", str(path), "--out", str(tmp_path / "out.jsonl")]) == 0
    assert "Ada\\n? harp" in (tmp_path / "out.jsonl").read_text()


def adapt(tmp_path: Path, *more: str) -> list[str]:
    path = write(tmp_path / "data.json", rows(ADA, BOB))
    words = [f"runs={tmp_path}", "name=adapt", f"contexts.source={path}", f"teacher.edits={path}", "student.epochs=1"]
    return ["run", "recipes/tiny/adapt_student.yaml", *words, *more]


def test_a_student_is_adapted_by_somebody_elses_self_edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    assert main(adapt(tmp_path, "teacher.model=", "seed=1")) == 0
    records = read_records(tmp_path / "adapt" / "journal.jsonl")
    written = [(record.text, record.style) for record in records if isinstance(record, CandidateRecord)]
    assert written == [("Ada two", ""), ("Bob two", "")]
    assert main(["export", str(tmp_path / "adapt"), "--out", str(tmp_path / "x")]) == 2  # nothing was scored


def test_a_teacher_is_a_model_or_a_file_and_a_file_is_not_finetuned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    assert main(adapt(tmp_path)) == 2
    assert "teacher.model is set as well; a teacher is one or the other" in capsys.readouterr().err
    assert main(["run", "recipes/tiny/train_teacher.yaml", f"runs={tmp_path}", f"teacher.edits={tmp_path / 'data.json'}"]) == 2
    assert "a file cannot be finetuned" in capsys.readouterr().err
