from pathlib import Path

import pytest

from protocol.errors import InvalidInput
from protocol.files import is_whole, publish_folder, write_json, write_manifest
from protocol.journal import CandidateRecord, Journal, RewardRecord, RoundRecord, read_records
from protocol.messages import Refusal

CONTEXT_ID = "0" * 32


def candidate(index: int, text: str = "a line") -> CandidateRecord:
    return CandidateRecord(stage="round-1", context=CONTEXT_ID, index=index, seed=1, text=text)


def test_what_is_appended_is_there_after_reopening(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(RoundRecord(stage="round-1", contexts=(CONTEXT_ID,)), candidate(0), candidate(1, "zwei\nZeilen ✓"))
    journal.close()
    again = Journal(tmp_path / "journal.jsonl")
    assert again.rounds["round-1"].contexts == (CONTEXT_ID,)
    assert again.candidates["round-1", CONTEXT_ID, 1].text == "zwei\nZeilen ✓"


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_torn_last_line_is_dropped_with_a_warning(tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append(candidate(0), candidate(1))
    journal.close()
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path)
    assert set(again.candidates) == {("round-1", CONTEXT_ID, 0)}
    assert "torn line" in caplog.text
    again.append(candidate(1, "again"))
    assert [r.text for r in read_records(path) if isinstance(r, CandidateRecord)] == ["a line", "again"]


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append(candidate(0), candidate(1))
    journal.close()
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0][:20], lines[1], ""]))
    with pytest.raises(InvalidInput, match=r"journal\.jsonl, line 1 is not a journal record"):
        Journal(path)


def test_the_first_record_under_a_key_is_the_one_that_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(candidate(0, "first"))
    journal.append(candidate(0, "second"))
    assert journal.candidates["round-1", CONTEXT_ID, 0].text == "first"


def test_bytes_that_are_no_text_are_an_error_that_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_bytes(b'{"kind": "\xff"}\n')
    with pytest.raises(InvalidInput, match="line 1 is not a journal record"):
        Journal(tmp_path / "journal.jsonl")


def test_a_published_folder_replaces_the_old_one(tmp_path: Path) -> None:
    for name, content in (("round-1", "old"), ("round-1.tmp", "new")):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "weights").write_text(content)
    publish_folder(tmp_path / "round-1.tmp", tmp_path / "round-1")
    assert [p.name for p in tmp_path.iterdir()] == ["round-1"]
    assert (tmp_path / "round-1" / "deep" / "weights").read_text() == "new"


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == '{\n  "a": 1\n}\n'


def test_a_journal_of_a_later_version_is_refused_saying_so(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"kind":"journal","version":2,"written_by":"a later tutelage"}\n{"kind":"poem"}\n')
    with pytest.raises(InvalidInput, match="is written in version 2 of the journal, and this tutelage reads version 1; update tutelage"):
        Journal(path)


def test_candidates_and_results_are_read_from_the_file_when_asked_for(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(*(candidate(index, f"text {index}") for index in range(50)))
    refusals = [Refusal(key=f"{n:032x}", request=CONTEXT_ID, reason=f"reason {n} ✓") for n in range(50)]
    journal.append(*(RewardRecord(stage="round-1", result=refusal) for refusal in refusals))
    for again in (journal, Journal(journal.path)):
        assert list(again.results.values()) == refusals
        assert again.candidates["round-1", CONTEXT_ID, 30].text == "text 30"
        assert set(again.scored_in.values()) == {"round-1"}


def test_a_folder_is_whole_only_if_all_that_was_confirmed_is_there(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "weights").write_text("0123456789")
    assert not is_whole(tmp_path)
    write_manifest(tmp_path)
    assert is_whole(tmp_path) and is_whole(tmp_path, processes=1) and not is_whole(tmp_path, processes=2)
    (tmp_path / "deep" / "weights").write_text("012345678")
    assert not is_whole(tmp_path)
    for nonsense in ("", "[]", '{"files": 1, "processes": 1}', "{"):
        (tmp_path / "manifest.json").write_text(nonsense)
        assert not is_whole(tmp_path)
