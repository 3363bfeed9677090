import json
import os
from pathlib import Path

import pytest

from protocol.messages import Question
from recipes.inbox import Document, Inbox, keys_of, read_documents

PASSAGE = "Tola Pitard plays the harp."


def look(folder: Path, *done: str, settle: float = 0.0, max_bytes: int = 1000) -> Inbox:
    inbox = Inbox(folder, settle, max_bytes)
    inbox.look(0.0, done)
    return inbox


def read(folder: Path, text: str, name: str = "tola_pitard.md") -> Document:
    (folder / name).write_text(text)
    (document,) = read_documents(folder / name)
    return document


def test_a_text_is_a_document_without_questions_titled_by_its_file(tmp_path: Path) -> None:
    document = read(tmp_path, f"\n{PASSAGE}\n\n")
    assert (document.file, document.context.title, document.context.passage) == ("tola_pitard.md", "tola pitard", PASSAGE)
    assert document.context.questions == ()


@pytest.mark.parametrize(
    ("text", "title", "passage"),
    [
        (f"# Tola Pitard\n\n{PASSAGE}\n", "Tola Pitard", PASSAGE),
        (f"\n\n### Tola Pitard ###\r\n{PASSAGE}", "Tola Pitard", PASSAGE),
        (f"\ufeff# Tola Pitard\n{PASSAGE}", "Tola Pitard", PASSAGE),
        (f"{PASSAGE}\n# Later\nMore.", "tola pitard", f"{PASSAGE}\n# Later\nMore."),
        (f"#music {PASSAGE}", "tola pitard", f"#music {PASSAGE}"),
    ],
)
def test_a_heading_that_opens_a_text_is_its_title(tmp_path: Path, text: str, title: str, passage: str) -> None:
    context = read(tmp_path, text).context
    assert (context.title, context.passage) == (title, passage)


def test_a_text_is_known_again_under_another_name_but_not_with_another_heading(tmp_path: Path) -> None:
    first, second = read(tmp_path, PASSAGE, "a.txt"), read(tmp_path, PASSAGE + "\n", "b.md")
    assert first.key == second.key and first.context.id != second.context.id
    one, other = read(tmp_path, f"# One\n{PASSAGE}", "c.md"), read(tmp_path, f"# Other\n{PASSAGE}", "c.md")
    assert one.key != other.key
    assert first.key in keys_of(one.context)  # once it was learned with a heading, it is nothing new without one


def test_json_files_have_documents_with_questions(tmp_path: Path) -> None:
    row = {"title": "Tola", "context": PASSAGE, "questions": [{"question": "What does Tola play?", "answer": "the harp"}]}
    (tmp_path / "one.json").write_text(json.dumps([row, {**row, "title": "T. Pitard"}]))
    (tmp_path / "two.jsonl").write_text(json.dumps({**row, "context": "Other."}) + "\n")
    waiting = look(tmp_path).waiting
    assert [(d.file, d.context.title, d.context.passage) for d in waiting] == [
        ("one.json", "Tola", PASSAGE),
        ("one.json", "T. Pitard", PASSAGE),
        ("two.jsonl", "Tola", "Other."),
    ]
    assert waiting[0].context.questions == (Question(text="What does Tola play?", answers=("the harp",)),)


def test_what_is_done_does_not_wait_and_what_is_there_twice_waits_once(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(PASSAGE)
    (tmp_path / "c.txt").write_text("Something else.")
    inbox = look(tmp_path)
    assert [document.file for document in inbox.waiting] == ["a.txt", "c.txt"]
    inbox.look(1.0, {inbox.waiting[0].key})
    assert [document.file for document in inbox.waiting] == ["c.txt"]
    assert look(tmp_path, inbox.waiting[0].key).waiting[0].file == "a.txt"


def test_a_file_that_still_grows_waits_until_it_has_stayed_as_it_is(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, settle_seconds=2.0, max_bytes=1000)
    with (tmp_path / "a.txt").open("w") as file:
        for moment in (0.0, 1.0, 2.0, 3.0):
            file.write("Tola ")
            file.flush()
            inbox.look(moment, ())
            assert (inbox.waiting, inbox.unsettled) == ([], ["a.txt"])
    inbox.look(4.9, ())
    assert inbox.unsettled == ["a.txt"]
    inbox.look(5.0, ())
    assert (inbox.unsettled, inbox.waiting[0].context.passage) == ([], "Tola Tola Tola Tola")


def test_a_file_is_settled_by_what_is_seen_of_it_and_not_by_its_date(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(PASSAGE)
    os.utime(tmp_path / "a.txt", (2**33, 2**33))  # a day that is yet to come
    inbox = Inbox(tmp_path, settle_seconds=2.0, max_bytes=1000)
    inbox.look(0.0, ())
    inbox.look(2.0, ())
    assert [document.file for document in inbox.waiting] == ["a.txt"]


def test_a_file_that_changes_while_it_is_read_is_not_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text(PASSAGE)

    def grow(path: Path) -> list[Document]:
        documents = read_documents(path)
        path.write_text(PASSAGE + " And more.")
        return documents

    monkeypatch.setattr("recipes.inbox.read_documents", grow)
    inbox = look(tmp_path)
    assert (inbox.waiting, inbox.unsettled) == ([], ["a.txt"])


def test_a_file_that_is_gone_again_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text(PASSAGE)
    inbox = look(tmp_path)
    (tmp_path / "a.txt").unlink()
    inbox.look(1.0, ())
    assert (inbox.waiting, inbox.unsettled, inbox.left) == ([], [], {})
    (tmp_path / "b.txt").write_text(PASSAGE)
    monkeypatch.setattr("recipes.inbox.read_documents", lambda path: path.unlink() or read_documents(path))
    inbox.look(2.0, ())  # it is deleted just before it is opened
    inbox.look(3.0, ())
    assert (inbox.waiting, inbox.unsettled, inbox.left) == ([], [], {})


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.txt", b"\xff\xfe\x00T", "byte 0 is not UTF-8; save the file as UTF-8 text"),
        ("a.txt", b"Tola\0Pitard", "is no text: it has zero bytes"),
        ("a.txt", b"", "it must be the passage, a text"),
        ("a.md", b"# Only a heading\n", "it must be the passage, a text"),
        ("a.txt", b"x" * 1001, "it has 1001 bytes, more than 1000; split it, or raise max_mb"),
        ("a.json", b'[{"context": "Tola', "line 1, column 14 is not JSON: Unterminated string"),
        ("a.json", b"[" * 900, "is not JSON"),
        ("a.json", b'{"a": 1}', "holds a dict; it must be a list of"),
        ("a.json", b"[]", "holds no contexts"),
        ("a.json", b'[{"context": "Tola", "context": "Pitard"}]', "stands there twice"),
        ("a.json", b'[{"context": "\\ud800"}]', "unable to parse raw data as a unicode string"),
        ("a.jsonl", b'{"context": "Tola"}\n{"context": 5}\n', "line 2: context is 5"),
        ("a.jsonl", b'{"context": "Tola", "questions": [{"question": "Who?", "answer": 5}]}\n', "answers are texts"),
        ("a.pdf", b"%PDF-1.7", "it is none of .txt, .md, .json, .jsonl"),
        ("a", b"text", "it is none of .txt, .md, .json, .jsonl"),
        ("a.txt.part", b"text", "it is none of .txt, .md, .json, .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_left_with_the_reason_and_the_others_are_read(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "good.txt").write_text(PASSAGE)
    inbox = look(tmp_path)
    assert [document.file for document in inbox.waiting] == ["good.txt"]
    assert list(inbox.left) == [name] and why in inbox.left[name]
    assert (tmp_path / name).read_bytes() == content


def test_a_file_that_was_mended_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"context": "Tola')
    inbox = look(tmp_path)
    assert "is not JSON" in inbox.left["a.json"]
    (tmp_path / "a.json").write_text('[{"context": "Tola Pitard"}]')
    inbox.look(1.0, ())
    assert (inbox.left, inbox.waiting[0].context.passage) == ({}, "Tola Pitard")


def test_links_folders_and_pipes_are_not_opened_and_hidden_files_not_told_of(tmp_path: Path) -> None:
    secret, inbox = tmp_path / "secret.txt", tmp_path / "inbox"
    inbox.mkdir()
    secret.write_text(PASSAGE)
    (inbox / "link.txt").symlink_to(secret)
    (inbox / "gone.txt").symlink_to(tmp_path / "nowhere")
    (inbox / "folder.txt").mkdir()
    (inbox / "folder.txt" / "inner.txt").write_text(PASSAGE)
    os.mkfifo(inbox / "pipe.txt")  # whoever opens it waits for ever
    (inbox / ".a.txt.swp").write_text(PASSAGE)
    found = look(inbox)
    assert found.waiting == []
    assert found.left == {
        "folder.txt": "it is a folder; put documents themselves into the inbox",
        "gone.txt": "it is a link; put documents themselves into the inbox",
        "link.txt": "it is a link; put documents themselves into the inbox",
        "pipe.txt": "it is no file; put documents themselves into the inbox",
    }


def test_names_of_all_kinds_are_borne(tmp_path: Path) -> None:
    for name in (b"\xff\xfe.txt", "Ärger ☂.txt".encode(), b"a\nb.txt", b"[red]x.txt", b"hub:squad.json"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("[]" if name.endswith(b"json") else f"{PASSAGE} {len(name)}")
    inbox = look(tmp_path)
    assert len(inbox.waiting) == 4
    assert list(inbox.left) == ["hub:squad.json"] and "holds no contexts" in inbox.left["hub:squad.json"]


def test_an_inbox_that_is_gone_is_told_of_and_may_come_again(tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    inbox = look(folder)
    assert inbox.left == {str(folder): "the inbox cannot be looked into (No such file or directory)"}
    folder.mkdir()
    (folder / "a.txt").write_text(PASSAGE)
    inbox.look(1.0, ())
    assert (inbox.left, len(inbox.waiting)) == ({}, 1)
