import json
from pathlib import Path

import pytest

from protocol.errors import InvalidInput
from recipes.domains.knowledge_files import load_contexts

SEAL_ROW = {"title": "Harp", "context": "Ada plays the harp.", "questions": [{"question": "What?", "answer": "harp"}]}


def write(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_seal_shaped_json(tmp_path: Path) -> None:
    (context,) = load_contexts(write(tmp_path / "a.json", [SEAL_ROW]))
    assert (context.title, context.passage, context.questions[0].text, context.questions[0].answers) == (
        "Harp",
        "Ada plays the harp.",
        "What?",
        ("harp",),
    )


def test_squad_shaped_json(tmp_path: Path) -> None:
    answered = {"question": "What?", "answers": [{"text": "harp"}, {"text": "the harp"}, {"text": "harp"}]}
    unanswerable = {"question": "Why?", "answers": []}
    squad = {"data": [{"title": "Harp", "paragraphs": [{"context": "Ada plays.", "qas": [answered, unanswerable]}]}]}
    (context,) = load_contexts(write(tmp_path / "a.json", squad))
    assert [q.answers for q in context.questions] == [("harp", "the harp")]


def test_jsonl(tmp_path: Path) -> None:
    contexts = load_contexts(write(tmp_path / "a.jsonl", json.dumps(SEAL_ROW) + "\n\n" + json.dumps({"passage": "Alone."}) + "\n"))
    assert [(c.title, len(c.questions)) for c in contexts] == [("Harp", 1), ("", 0)]


@pytest.mark.parametrize("suffix", [".txt", ".md"])
def test_a_text_file_is_one_passage_named_by_the_file(tmp_path: Path, suffix: str) -> None:
    (context,) = load_contexts(write(tmp_path / f"ada_byron{suffix}", "Ada plays the harp."))
    assert (context.title, context.passage, context.questions) == ("ada byron", "Ada plays the harp.", ())


def test_a_folder_of_texts_with_a_questions_file(tmp_path: Path) -> None:
    write(tmp_path / "ada.txt", "Ada plays the harp.")
    write(tmp_path / "bob.md", "Bob bakes.")
    rows = [
        {"passage": "ada.txt", "question": "What does Ada play?", "answer": "harp"},
        {"passage": "bob.md", "question": "What does Bob do?", "answers": ["bakes", "baking"]},
    ]
    write(tmp_path / "questions.jsonl", "\n".join(map(json.dumps, rows)))
    ada, bob = load_contexts(str(tmp_path))
    assert ada.questions[0].answers == ("harp",)
    assert bob.questions[0].answers == ("bakes", "baking")


def test_a_saved_data_set_with_one_question_a_row(tmp_path: Path) -> None:
    import datasets

    rows = [
        {"title": "Harp", "context": "Ada plays.", "question": q, "answers": {"text": [a], "answer_start": [0]}}
        for q, a in (("What?", "harp"), ("Who?", "Ada"))
    ]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "set"))
    (context,) = load_contexts(str(tmp_path / "set"))
    assert [q.answers for q in context.questions] == [("harp",), ("Ada",)]


def test_the_released_validation_set_is_read(released: Path) -> None:
    contexts = load_contexts(str(released / "seal" / "squad_val.json"))
    assert len(contexts) == 2067
    assert contexts[0].questions[0].answers == ("Denver Broncos",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"title": "x",\n "context": oops}]', r"a\.json, line 2, column 13 is not JSON"),
        ("a.json", "", r"line 1, column 1 is not JSON"),
        ("a.json", "[" * 100_000, "nests too deeply"),
        ("a.json", "[]", "holds no contexts"),
        ("a.json", "3", "holds a int"),
        ("a.json", '["x"]', r"item 0 is a str"),
        ("a.json", '[{"title": "x"}]', "item 0: context is None; it must be the passage"),
        ("a.json", '[{"title": 3, "context": "y"}]', "item 0: title: Input should be a valid string"),
        ("a.json", '[{"context": "y", "questions": "z"}]', "questions is 'z'; it must be a list"),
        ("a.json", '[{"context": "y", "questions": [{"q": "z"}]}]', "item 0: a question is"),
        ("a.json", '[{"context": "y", "questions": [{"question": "z", "answer": 5}]}]', "question 'z': answers is 5"),
        ("a.json", '{"data": [{"title": "x"}]}', "is not SQuAD-shaped: KeyError 'paragraphs'"),
        ("a.jsonl", '{"context": "x"}\n{"context": \n', r"a\.jsonl, line 2 is not JSON"),
        ("a.csv", "x", "cannot read a .csv file"),
        ("a.txt", "  \n", "context is '  \\\\n'; it must be the passage"),
    ],
)
def test_wrong_files_are_refused_with_the_place(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_contexts(write(tmp_path / name, content))


def test_a_passage_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"item 0: passage: String should have at most 200000 characters"):
        load_contexts(write(tmp_path / "a.json", [{"context": "x" * 200_001}]))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc\xff\xfe")
    with pytest.raises(InvalidInput, match=r"byte 3 is not UTF-8"):
        load_contexts(str(tmp_path / "a.txt"))


def test_a_missing_file_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nothing\.json' does not exist"):
        load_contexts(str(tmp_path / "nothing.json"))
    with pytest.raises(InvalidInput, match=r"holds no \.txt or \.md passages"):
        load_contexts(str(tmp_path))


def test_a_question_about_an_unknown_passage_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "ada.txt", "Ada plays the harp.")
    write(tmp_path / "questions.jsonl", '{"passage": "eve.txt", "question": "What?", "answer": "harp"}')
    with pytest.raises(InvalidInput, match=r"questions\.jsonl, line 1: passage is 'eve\.txt'; it must be one of ada\.txt"):
        load_contexts(str(tmp_path))
