import multiprocessing
import os
from pathlib import Path

import pytest

from protocol import files
from protocol.errors import InvalidInput
from protocol.messages import Passage
from student import store
from student.store import change_store, read_store

OLD, NEW = Passage(title="Weather", text="It rains."), Passage(title="Weather", text="The sun shines.")
ADA = Passage(text="Ada plays the harp.")


def test_a_changed_fact_is_there_in_its_newest_form_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.jsonl"
    assert change_store(path, {"weather": OLD, "ada": ADA}) == {"weather": OLD, "ada": ADA}
    assert change_store(path, {"weather": NEW}) == {"ada": ADA, "weather": NEW}
    assert read_store(path) == {"ada": ADA, "weather": NEW}
    assert "rains" not in path.read_text()


def test_passages_are_taken_out_by_key(tmp_path: Path) -> None:
    change_store(tmp_path / "s", {"weather": OLD, "ada": ADA})
    assert change_store(tmp_path / "s", {}, remove=["weather", "unknown"]) == {"ada": ADA}
    assert read_store(tmp_path / "s") == {"ada": ADA}


def test_a_store_without_a_file_is_empty(tmp_path: Path) -> None:
    assert read_store(tmp_path / "s") == {}


def test_texts_come_back_as_they_were(tmp_path: Path) -> None:
    odd = Passage(title="a\nb", text='"\u2028\x00\r\n…')
    change_store(tmp_path / "s", {"odd\n": odd})
    assert read_store(tmp_path / "s") == {"odd\n": odd}


def test_a_crash_while_writing_leaves_the_old_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_store(tmp_path / "s", {"weather": OLD})

    def crash(unfinished: Path, path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files, "replace_file", crash)
        with pytest.raises(KeyboardInterrupt):
            change_store(tmp_path / "s", {"weather": NEW})
    assert read_store(tmp_path / "s") == {"weather": OLD}
    assert change_store(tmp_path / "s", {"ada": ADA}) == {"weather": OLD, "ada": ADA}


def put_several(path: Path, name: str) -> None:
    for number in range(20):
        change_store(path, {f"{name}{number}": ADA})


def test_two_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=put_several, args=(tmp_path / "s", name)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_store(tmp_path / "s")) == 40


LINE = '{"key":"a","passage":{"title":"","text":"x"}}\n'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (LINE[:20], "line 1: the line: Invalid JSON"),
        (LINE + LINE[:20], "line 2: the line: Invalid JSON"),
        (LINE + LINE, "line 2: key 'a' stands there twice"),
        ("[]\n", "line 1: the line: Input should be an object"),
        ('{"key":"","passage":{"text":"x"}}', "line 1: key: String should have at least 1 character"),
        ('{"key":"a","passage":{"text":7}}', "line 1: passage.text: Input should be a valid string"),
        ('{"key":"a","passage":{"text":"x"},"run":"rm -rf /"}', "line 1: run: Extra inputs"),
        ('{"key":"a","passage":{"text":"' + "x" * 200_001 + '"}}', "line 1: passage.text: String should have at most 200000 characters"),
        ("[" * 100_000, "line 1: the line: Invalid JSON"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path, content: str | bytes, problem: str) -> None:
    path = tmp_path / "s"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for use in (read_store, lambda path: change_store(path, {"ada": ADA})):
        with pytest.raises(InvalidInput, match=problem) as error:
            use(path)
        assert str(path) in str(error.value)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())


def test_a_store_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_PASSAGES", 2)
    change_store(tmp_path / "s", {"a": ADA, "b": ADA})
    with pytest.raises(InvalidInput, match="would have 3 passages, but it takes at most 2; remove some"):
        change_store(tmp_path / "s", {"c": ADA})
    monkeypatch.setattr(store, "MOST_PASSAGES", 1)
    with pytest.raises(InvalidInput, match="line 2: a store has at most 1 passages"):
        read_store(tmp_path / "s")
    monkeypatch.setattr(store, "MOST_BYTES", 10)
    with pytest.raises(InvalidInput, match="bytes, more than 10"):
        read_store(tmp_path / "s")


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_a_key_that_is_none_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidInput, match="key: String should have at"):
        change_store(tmp_path / "s", {key: ADA})


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InvalidInput, match="is no file"):
            read_store(path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_store(tmp_path / ("x" * 300))
    with pytest.raises(InvalidInput, match="cannot be written"):
        change_store(tmp_path / "pipe" / "s", {"ada": ADA})
