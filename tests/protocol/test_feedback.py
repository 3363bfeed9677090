import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from protocol.errors import InvalidInput
from protocol.feedback import Feedback, RefusedRows, read_feedback
from protocol.schema import json_schema

ROW = {
    "version": "a" * 32,
    "context": "b" * 32,
    "question": "What does Ada play?",
    "kind": "rating",
    "value": 4,
    "time": 1_800_000_000,
}


def feedback(**changes: object) -> Feedback:
    return Feedback.model_validate({**ROW, **changes})


def write(path: Path, *lines: str | bytes, end: bytes = b"\n") -> Path:
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines) + end)
    return path


def test_feedback_survives_json_and_has_a_schema() -> None:
    one = feedback(id="visit-7", answered=1_799_999_990)
    assert Feedback.model_validate_json(one.model_dump_json()) == one
    jsonschema.validate(one.model_dump(mode="json"), json_schema("feedback"))
    jsonschema.validate({**ROW, "time": "2027-01-15T08:00:00Z"}, json_schema("feedback"))
    with pytest.raises(ValidationError):
        one.value = 1.0  # type: ignore[misc]


def test_its_id_is_given_or_derived() -> None:
    assert feedback(id="visit-7").id == "visit-7"
    assert feedback().id == feedback(value=4.0, time="2027-01-15T08:00:00Z").id
    assert feedback().id != feedback(time=1_800_000_001).id
    assert len(feedback().id) == 32


@pytest.mark.parametrize(
    "time", ["2027-01-15T08:00:00Z", "2027-01-15T09:00:00+01:00", "2027-01-15 08:00:00.000+00:00", 1_800_000_000, 1.8e9]
)
def test_times_are_read_in_any_zone(time: object) -> None:
    assert feedback(time=time).time == 1_800_000_000.0


@pytest.mark.parametrize(
    ("kind", "value"), [("rating", 1), ("rating", 4.5), ("rating", 5), ("thumb", True), ("click", False), ("seconds", 0), ("test", True)]
)
def test_each_kind_has_its_values(kind: str, value: object) -> None:
    assert feedback(kind=kind, value=value).value == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": 6}, "value: it is 6; a rating is a number from 1 to 5"),
        ({"value": 0.99}, "value: it is 0.99; a rating is a number from 1 to 5"),
        ({"value": True}, "value: it is True; a rating is a number"),
        ({"value": "5"}, "value: it is '5'; a rating is a number"),
        ({"value": None}, "value: it is None; a rating is a number"),
        ({"value": float("nan")}, "value: it is nan; a rating is a number"),
        ({"kind": "seconds", "value": float("inf")}, "value: it is inf; seconds are a number from 0"),
        ({"kind": "seconds", "value": -1}, "value: it is -1; seconds are a number from 0"),
        ({"kind": "seconds", "value": False}, "value: it is False; seconds are a number from 0"),
        ({"kind": "thumb", "value": 1}, "value: it is 1; of a thumb it is true or false"),
        ({"kind": "test", "value": "passed"}, "value: it is 'passed'; of a test it is true or false"),
        ({"kind": "stars"}, "kind: Input should be 'rating', 'thumb', 'click', 'seconds' or 'test'"),
        ({"kind": "stars", "value": 10**400}, "kind: Input should be"),
        ({"version": "newest"}, "version: String should match pattern"),
        ({"question": "x" * 10_001}, "question: String should have at most 10000 characters"),
        ({"time": "yesterday"}, "time: it is 'yesterday'; give UTC as in 2026-01-31T12:00:00Z"),
        ({"time": "2027-01-15T08:00:00"}, "time: it is '2027-01-15T08:00:00', of no time zone; end it with Z"),
        ({"time": 1_800_000_000_000}, "time: Input should be less than or equal to 253402300799"),
        ({"time": True}, "time: it is True; give seconds since 1970"),
        ({"time": float("nan")}, "time: Input should be"),
        ({"answered": 1_800_000_001}, "the row: answered is 1800000001.0, later than time, which is 1800000000.0"),
        ({"id": ""}, "id: String should have at least 1 character"),
        ({"protocol": 2}, "protocol: Input should be 1"),
        ({"user": "Bob"}, "user: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_row_is_refused_with_its_place(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = write(tmp_path / "use.jsonl", json.dumps(ROW), json.dumps({**ROW, **changes}), json.dumps({**ROW, "value": 2}))
    with pytest.raises(InvalidInput) as refused:
        list(read_feedback(path))
    assert str(refused.value).startswith(f"{path}, line 2: {message}")
    refusals = RefusedRows()
    assert [row.feedback.value for row in read_feedback(path, refusals)] == [4, 2]
    assert [str(row) for row in refusals.first] == [str(refused.value)]


def test_a_missing_value_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "use.jsonl", json.dumps({key: value for key, value in ROW.items() if key != "version"}))
    with pytest.raises(InvalidInput, match="line 1: version: Field required"):
        list(read_feedback(path))


def test_a_half_written_last_line_is_told_and_the_others_count(tmp_path: Path) -> None:
    path = write(tmp_path / "use.jsonl", json.dumps(ROW), json.dumps(ROW)[:40], end=b"")
    refusals = RefusedRows()
    assert len(list(read_feedback(path, refusals))) == 1
    assert "line 2: the last line is not whole, since it is being written or was torn" in str(refusals.first[0])


def test_a_whole_last_line_needs_no_end(tmp_path: Path) -> None:
    assert len(list(read_feedback(write(tmp_path / "use.jsonl", json.dumps(ROW), end=b"")))) == 1


def test_blank_lines_foreign_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "use.jsonl", b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r", b"", b"  ", json.dumps(ROW))
    assert [row.place for row in read_feedback(path)] == [f"{path}, line 1", f"{path}, line 4"]


@pytest.mark.parametrize("line", [b"\x00\xff\xfe\x80", b"[" * 100_000, b"null", b"[]", b'"x"', b"{}", b'{"value": 1e999}', b"\xc3\x28"])
def test_junk_is_refused(tmp_path: Path, line: bytes) -> None:
    refusals = RefusedRows()
    path = write(tmp_path / "use.jsonl", line, json.dumps(ROW))
    assert len(list(read_feedback(path, refusals))) == 1
    assert (refusals.count, refusals.first[0].place) == (1, f"{path}, line 1")


def test_a_line_without_end_is_not_held_in_memory(tmp_path: Path) -> None:
    refusals = RefusedRows()
    path = write(tmp_path / "use.jsonl", b"x" * 3_000_000, json.dumps(ROW))
    assert [row.place for row in read_feedback(path, refusals)] == [f"{path}, line 2"]
    assert str(refusals.first[0]) == f"{path}, line 1: it has more than 200000 bytes, as no feedback has; leave it out"


def test_of_many_refused_rows_the_first_reasons_are_kept(tmp_path: Path) -> None:
    refusals = RefusedRows(most=2)
    assert list(read_feedback(write(tmp_path / "use.jsonl", *["{}"] * 50), refusals)) == []
    assert (refusals.count, len(refusals.first)) == (50, 2)


@pytest.mark.parametrize(("name", "reason"), [("none.jsonl", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=f"cannot be read .{reason}.*give a JSONL file of feedback"):
        list(read_feedback(tmp_path / name))


def test_an_empty_file_holds_no_feedback(tmp_path: Path) -> None:
    assert list(read_feedback(write(tmp_path / "use.jsonl", end=b""))) == []


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_stop_a_reading_that_refuses(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    path = write(tmp_path_factory.getbasetemp() / "junk.jsonl", junk, json.dumps(ROW))
    refusals = RefusedRows()
    rows = list(read_feedback(path, refusals))
    assert rows[-1].feedback == feedback()
    assert len(rows) == 1
