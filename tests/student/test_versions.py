import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from small_disk import mounted
from versioned import BASE, add, attempt, row

from protocol.errors import InvalidInput, TutelageError
from protocol.identity import content_id
from student.version_answers import read_answers, write_answers
from student.version_history import read_line
from student.version_records import (
    NOTHING_BEFORE,
    Attempt,
    Check,
    LearnedLesson,
    LineRecord,
    Record,
    RefusedRecord,
    RollbackRecord,
    VersionRecord,
    seal,
)
from student.versions import Line

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A line whose log has six lines: its own, three versions, a refusal, a rollback to version 2."""
    path = tmp_path_factory.mktemp("made") / "line"
    with Line(path) as line:
        for number in (1, 2, 3):
            add(line, attempt(number))
        line.refuse(attempt(4), "it forgot the harp")
        line.rollback(2, "version 3 stutters")
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    """That line, to do with as a test likes."""
    return Path(shutil.copytree(made, tmp_path / "line"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(item.relative_to(folder)): item.read_bytes() for item in folder.rglob("*") if item.is_file()}


def write_log(path: Path, *records: Record) -> None:
    """A log whose chain is right, whatever its records say."""
    lines, previous = [], NOTHING_BEFORE
    for record in records:
        sealed, line = seal(record, previous)  # type: ignore[type-var]
        lines.append(line)
        previous = sealed.hash
    path.mkdir(exist_ok=True)
    (path / "versions.jsonl").write_bytes(b"".join(lines))


def version(number: int, parent: int | None = None, request: object = None, base: str = BASE, folder: str | None = None) -> VersionRecord:
    return VersionRecord(
        **dict(attempt(number if request is None else request)),
        number=number,
        parent=number - 1 if parent is None else parent,
        folder=folder or f"v{number:04d}",
        files={"adapter_config.json": content_id(number)},
        fingerprint=content_id("fingerprint", number),
        base=base,
        time="2026-03-01T12:00:00+00:00",
    )


def test_what_was_learned_refused_and_rolled_back_is_there_for_a_reader(path: Path) -> None:
    history = read_line(path)
    assert list(history.versions) == [1, 2, 3]
    assert history.current == 2
    second = history.versions[2]
    assert (second.parent, second.folder, second.base) == (1, "v0002", BASE)
    assert second.lessons[0].title == "Tola Pitard"
    assert second.lessons[0].edit.examples[0].completion == "Tola Pitard plays the harp."
    assert sorted(second.files) == ["adapter_config.json", "adapter_model.safetensors", "answers.jsonl", "manifest.json"]
    assert (history.open_version(2) / "adapter_model.safetensors").read_text() == f"weights of {content_id(2)}"
    assert [refusal.why for refusal in history.refusals] == ["it forgot the harp"]
    assert [(rollback.to, rollback.why) for rollback in history.rollbacks] == [(2, "version 3 stutters")]


def test_the_next_version_has_a_new_number_and_starts_from_the_current_one(path: Path) -> None:
    with Line(path) as line:
        fourth = add(line, attempt("more"))
        assert (fourth.number, fourth.parent, line.current) == (4, 2, 4)
        line.rollback(3)
        line.rollback(4, "forward again")
        line.rollback(0)
        assert add(line, attempt("anew")).parent == 0
        assert add(line, attempt("of the first"), parent=1).parent == 1
    assert read_line(path).ancestry(4) == [4, 2, 1, 0]
    assert [rollback.to for rollback in read_line(path).rollbacks] == [2, 3, 4, 0]


def test_a_rollback_to_the_current_version_is_no_news(path: Path) -> None:
    before = (path / "versions.jsonl").read_bytes()
    with Line(path) as line:
        line.rollback(2, "again")
    assert (path / "versions.jsonl").read_bytes() == before


def test_a_rollback_to_nowhere_names_the_versions_that_exist(path: Path, tmp_path: Path) -> None:
    with Line(path) as line:
        for number in (4, -1):
            with pytest.raises(InvalidInput, match=rf"version {number} does not exist; .* has versions 0 \(the untouched base\) to 3"):
                line.rollback(number)
    with Line(tmp_path / "new") as line, pytest.raises(InvalidInput, match="has only version 0, the untouched base"):
        line.rollback(1)


def test_a_rollback_to_a_damaged_version_is_refused(path: Path) -> None:
    (path / "v0001" / "adapter_model.safetensors").write_text("other weights")
    with Line(path) as line:
        with pytest.raises(InvalidInput, match="version 1 is damaged"):
            line.rollback(1)
        assert line.current == 2


def test_what_became_of_a_request_is_found(path: Path) -> None:
    history = read_line(path)
    found, refused = history.find(content_id(3)), history.find(content_id(4))
    assert isinstance(found, VersionRecord) and found.number == 3
    assert isinstance(refused, RefusedRecord) and refused.why == "it forgot the harp"
    assert history.find(content_id("never asked")) is None


def test_a_request_makes_one_version_and_a_refused_one_may_be_tried_again(path: Path) -> None:
    with Line(path) as line:
        with pytest.raises(InvalidInput, match=f"request {content_id(1)} is version 1 already"):
            add(line, attempt(1))
        with pytest.raises(InvalidInput, match=f"request {content_id(1)} is version 1 already"):
            line.refuse(attempt(1), "too late")
        assert add(line, attempt(4)).number == 4
        assert line.find(content_id(4)) == line.versions[4]


def test_weights_on_another_base_do_not_join_the_line(path: Path) -> None:
    with Line(path) as line:
        folder = line.unfinished()
        (folder / "config.json").write_text("{}")
        write_answers(folder, [])
        with pytest.raises(InvalidInput, match=f"base is {'c' * 32}, but the line stands on {BASE}"):
            line.add(folder, attempt("else"), base="c" * 32, fingerprint="f" * 32)
        assert line.add(folder, attempt("else"), base=BASE, fingerprint="f" * 32).number == 4


def test_a_folder_without_weights_or_answers_is_no_version(path: Path) -> None:
    with Line(path) as line:
        folder = line.unfinished()
        with pytest.raises(InvalidInput, match=r"neither adapter_config\.json nor config\.json"):
            line.add(folder, attempt("else"), base=BASE, fingerprint="f" * 32)
        (folder / "config.json").write_text("{}")
        with pytest.raises(InvalidInput, match=r"answers\.jsonl cannot be read .*write_answers"):
            line.add(folder, attempt("else"), base=BASE, fingerprint="f" * 32)
        (folder / "answers.jsonl").write_text('{"question": "why?"}\n')
        with pytest.raises(InvalidInput, match=r"answers\.jsonl, line 1 is no row of answers \(context: Field required\)"):
            line.add(folder, attempt("else"), base=BASE, fingerprint="f" * 32)
    assert list(read_line(path).versions) == [1, 2, 3]


@pytest.mark.parametrize("damage", ["altered", "truncated", "missing", "added", "no folder", "manifest"])
def test_a_damaged_version_is_named_with_its_file_and_the_others_still_open(path: Path, damage: str) -> None:
    weights = path / "v0002" / "adapter_model.safetensors"
    match damage:
        case "altered":
            weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-1])
        case "missing":
            weights.unlink()
        case "added":
            (path / "v0002" / "model.safetensors").write_text("other weights")
        case "no folder":
            (path / "v0002").rename(path / "elsewhere")
        case "manifest":
            (path / "v0002" / "manifest.json").write_text("{}")
    said = {
        "altered": r"v0002/adapter_model\.safetensors was altered",
        "truncated": r"v0002/adapter_model\.safetensors was altered",
        "missing": r"v0002/adapter_model\.safetensors is missing",
        "added": r"v0002/model\.safetensors was not there",
        "no folder": r"v0002/adapter_config\.json is missing",
        "manifest": r"v0002/manifest\.json was altered",
    }[damage]
    history = read_line(path)
    with pytest.raises(InvalidInput, match=f"version 2 is damaged: .*{said}; restore .*, or take another version"):
        history.open_version(2)
    assert history.open_version(1) == path / "v0001"
    assert history.open_version(3) == path / "v0003"


def test_one_file_opens_though_another_is_damaged(path: Path) -> None:
    (path / "v0002" / "adapter_model.safetensors").unlink()
    history = read_line(path)
    assert read_answers(history.open_file(2, "answers.jsonl")) == []
    for name, said in (("adapter_model.safetensors", "cannot be read"), ("manifest", "was altered")):
        with pytest.raises(InvalidInput, match=rf"version 2 is damaged: .*{name} {said}"):
            history.open_file(2, name)


def test_version_0_has_no_folder(path: Path) -> None:
    with pytest.raises(InvalidInput, match="version 0 is the untouched base, which has no folder"):
        read_line(path).open_version(0)


@pytest.mark.parametrize("line", range(6))
@pytest.mark.parametrize("tampering", ["deleted", "swapped", "duplicated", "cut off from here"])
def test_a_line_that_is_gone_or_moved_is_named(path: Path, tampering: str, line: int) -> None:
    log = path / "versions.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    named = line + 1
    match tampering:
        case "deleted":
            del lines[line]
        case "swapped" if line < 5:
            lines[line], lines[line + 1] = lines[line + 1], lines[line]
        case "swapped":
            lines[0], lines[5] = lines[5], lines[0]
            named = 1
        case "duplicated":
            lines.insert(line, lines[line])
            named = line + 2
        case "cut off from here":
            lines = lines[:line]
    log.write_bytes(b"".join(lines))
    with pytest.raises(InvalidInput, match=rf"versions\.jsonl, line {named}: .*; restore versions\.jsonl from a copy"):
        read_line(path)
    before = snapshot(path)
    with pytest.raises(InvalidInput, match=rf"versions\.jsonl, line {named}: "):
        Line(path)
    after = snapshot(path)
    assert {**after, "lock": b""} == {**before, "lock": b""}


def test_every_flipped_bit_is_found_and_its_line_named(path: Path) -> None:
    log, dice = path / "versions.jsonl", random.Random(0)
    content = log.read_bytes()
    newlines = [at for at, byte in enumerate(content) if byte == 10]
    for at in sorted({*newlines, *dice.sample(range(len(content)), 300)}):
        flipped = bytearray(content)
        flipped[at] ^= 1 << dice.randrange(8)
        log.write_bytes(flipped)
        with pytest.raises(InvalidInput, match=rf"versions\.jsonl, line {content[:at].count(10) + 1}: "):
            read_line(path)
    log.write_bytes(content)
    assert read_line(path).current == 2


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ((version(1),), "line 1: a log begins with one record of kind line"),
        ((LineRecord(), LineRecord()), "line 2: a log begins with one record of kind line"),
        ((LineRecord(), version(2, parent=0)), "line 2: number is 2; the next version is 1"),
        ((LineRecord(), version(1, parent=1)), "line 2: parent is 1, which does not exist"),
        ((LineRecord(), version(1), version(2, request=1)), "line 3: request .* is version 1 already"),
        ((LineRecord(), version(1), version(2, base="c" * 32)), "line 3: base is c"),
        ((LineRecord(), RollbackRecord(to=1, time="2026-03-01T12:00:00+00:00")), "line 2: to is 1, a version that does not exist"),
        ((LineRecord(version=2),), "is written in version 2 of the log, and this tutelage reads version 1; update tutelage"),
    ],
)
def test_a_chain_that_is_right_but_tells_nonsense_is_refused(tmp_path: Path, records: tuple[Record, ...], said: str) -> None:
    write_log(tmp_path / "line", *records)
    with pytest.raises(InvalidInput, match=said):
        read_line(tmp_path / "line")


@pytest.mark.parametrize("content", [b"\x00" * 400 + b"\n", b"[]\n", b"\n", b'{"kind":"poem"}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n"])
def test_a_file_of_something_else_is_no_log(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "versions.jsonl").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"versions\.jsonl, line 1: it is no record that ends in its hash"):
        read_line(tmp_path)


def test_a_folder_outside_the_line_cannot_be_named() -> None:
    with pytest.raises(ValidationError, match="folder"):
        version(1, folder="../../home")


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_a_record_that_a_crash_has_torn_was_never_written(path: Path, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    log, head = path / "versions.jsonl", path / "head.json"
    known = head.read_bytes()
    with Line(path) as line:
        add(line, attempt("torn"))
    log.write_bytes(log.read_bytes()[:-cut])
    head.write_bytes(known)
    before = snapshot(path)
    assert list(read_line(path).versions) == [1, 2, 3]
    assert snapshot(path) == before
    with Line(path) as line:
        assert (list(line.versions), line.current) == ([1, 2, 3], 2)
        assert not (path / "v0004").exists()
        assert add(line, attempt("torn")).number == 4
    assert "torn line" in caplog.text and "v0004 has no record, so it is no version: it is removed" in caplog.text
    assert read_line(path).current == 4


def test_a_line_that_was_known_to_be_whole_is_not_taken_for_a_torn_one(path: Path) -> None:
    log = path / "versions.jsonl"
    log.write_bytes(log.read_bytes()[:-1])
    with pytest.raises(InvalidInput, match=r"line 6: it is gone or another one, as head\.json knows, which tells of 6 records"):
        Line(path)


def test_a_head_that_is_behind_is_brought_up_and_one_that_is_gone_is_written_anew(path: Path) -> None:
    head = path / "head.json"
    known = head.read_bytes()
    with Line(path) as line:
        line.rollback(1)
    for content in (known, None):
        head.write_bytes(content) if content else head.unlink()
        assert read_line(path).current == 1
        Line(path).close()
        assert head.read_text().startswith('{\n  "records": 7,')
    head.write_text('{"records": -1}')
    with pytest.raises(
        InvalidInput, match=r"head\.json is not as a line's writer wrote it \(records: .*; restore it from a copy, or remove it"
    ):
        read_line(path)


def test_leftovers_of_a_crash_are_removed_and_nothing_else(path: Path) -> None:
    for name in ("v0004", "v0004.tmp", "v0004.tmp.adapter", "v0009", "notes", "v12"):
        (path / name).mkdir()
        (path / name / "file").write_text("x")
    Line(path).close()
    assert sorted(item.name for item in path.iterdir() if item.is_dir()) == ["notes", "v0001", "v0002", "v0003", "v12"]


def test_versions_whose_log_is_gone_are_not_cleared_away(path: Path) -> None:
    (path / "versions.jsonl").unlink()
    with pytest.raises(InvalidInput, match=r"is no line of versions \(it has no versions\.jsonl\)"):
        read_line(path)
    with pytest.raises(InvalidInput, match=r"it has head\.json, but no versions\.jsonl"):
        Line(path)
    (path / "head.json").unlink()
    (path / "versions.jsonl").touch()
    with pytest.raises(InvalidInput, match=r"versions\.jsonl is empty, but there is .*v000"):
        Line(path)
    assert (path / "v0003" / "adapter_config.json").exists()


def test_a_folder_of_something_else_does_not_become_a_line(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InvalidInput, match=r"is no line of versions: it has thesis\.tex, but no versions\.jsonl"):
        Line(tmp_path)
    with pytest.raises(InvalidInput, match=r"thesis\.tex is no line of versions"):
        read_line(tmp_path / "thesis.tex")
    with pytest.raises(InvalidInput, match="cannot be written"):
        Line(tmp_path / "thesis.tex")
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_second_writer_is_refused_by_name_and_a_reader_is_not(path: Path) -> None:
    code = f"from pathlib import Path; from student.versions import Line; Line(Path({str(path)!r}))"
    with Line(path) as line:
        other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert f"is being written by process {os.getpid()}; wait until it is done, or end it" in other.stderr
        assert read_line(path).current == 2
        add(line, attempt("meanwhile"))
        assert read_line(path).current == 4
    Line(path).close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    with mounted(tmp_path / "disk", 300) as disk:
        yield disk


def test_a_line_on_a_read_only_disk_can_be_read_and_not_written(disk: Path) -> None:
    with Line(disk / "line") as line:
        add(line, attempt(1))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert read_line(disk / "line").open_version(1).name == "v0001"
    for path in (disk / "line", disk / "new"):
        with pytest.raises(InvalidInput, match=rf"{path} cannot be written \(Read-only file system.*; choose a folder that you may write"):
            Line(path)


def test_a_full_disk_leaves_the_line_as_it_was(disk: Path) -> None:
    long = attempt("long", titles=[f"{number}" * 5000 for number in range(10, 50)])
    with Line(disk / "line") as line:
        add(line, attempt(1))
        before = snapshot(disk / "line")
        with pytest.raises(TutelageError, match=r"cannot be written \(No space left on device.*make room and do it again"):
            line.refuse(long, "too long")
        assert snapshot(disk / "line") == before
        folder = line.unfinished()
        (folder / "config.json").write_text("{}")
        write_answers(folder, [])
        with pytest.raises(TutelageError, match="make room"):
            line.add(folder, long, base=BASE, fingerprint="f" * 32)
        assert (line.current, line.refusals) == (1, [])
        assert line.add(folder, attempt(2), base=BASE, fingerprint="f" * 32).number == 2
    assert list(read_line(disk / "line").versions) == [1, 2]


def go_on_forever(path: Path, seed: int, report: int) -> None:
    """Add the versions that were asked for, in their order, and roll back now and then; say before and after what is done."""
    dice = random.Random(seed)
    with Line(path) as line:
        for number in range(10_000):
            if line.find(content_id(number)) is None:
                os.write(report, f"adding {len(line.versions) + 1} {line.current}\n".encode())
                add(line, attempt(number))
                os.write(report, f"done {len(line.versions)} {line.current}\n".encode())
                if dice.random() < 0.5:
                    to = dice.randint(0, len(line.versions))
                    os.write(report, f"going {len(line.versions)} {to}\n".encode())
                    line.rollback(to)
                    os.write(report, f"done {len(line.versions)} {to}\n".encode())


def test_a_writer_killed_at_any_moment_leaves_a_whole_line(tmp_path: Path) -> None:
    path, dice = tmp_path / "line", random.Random(0)
    with Line(path) as line:
        for number in range(3):
            started = time.perf_counter()
            add(line, attempt(number))
        seconds = time.perf_counter() - started
    done = (3, 3)
    leftovers = 0
    for seed in range(24):
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                go_on_forever(path, seed, write_end)
            finally:
                os._exit(1)
        os.close(write_end)
        begun = os.read(read_end, 1)
        time.sleep(dice.uniform(0, 3 * seconds))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it ended by itself"
        with os.fdopen(read_end) as file:
            lines = (begun.decode() + file.read()).splitlines()
            told = [(kind, (int(count), int(current))) for kind, count, current in map(str.split, lines)]
        done = next((state for kind, state in reversed(told) if kind == "done"), done)
        under_way, state = told[-1]
        possible = {done, (state[0], state[0]) if under_way == "adding" else state}
        history = read_line(path)
        assert (len(history.versions), history.current) in possible
        assert [record.request for record in history.versions.values()] == [content_id(number) for number in range(len(history.versions))]
        for number in history.versions:
            history.open_version(number)
        leftovers += len(list(path.glob("v0*"))) - len(history.versions)
        with Line(path) as line:
            assert (len(line.versions), line.current) in possible
            done = (len(line.versions), line.current)
        versions = [record.folder for record in line.versions.values()]
        assert sorted(item.name for item in path.iterdir()) == ["head.json", "lock", *versions, "versions.jsonl"]
    assert leftovers > 0 and done[0] > 10, "too few moments were of interest"


def test_two_thousand_versions_open_in_well_under_a_second(tmp_path: Path) -> None:
    path = tmp_path / "line"
    write_log(path, LineRecord(), *(version(number) for number in range(1, 2001)))
    for number in range(1, 2001):
        (path / f"v{number:04d}").mkdir()
    seconds = [1.0]
    while seconds[-1] > 0.7 and len(seconds) < 4:  # a busy machine gets another try
        started = time.perf_counter()
        with Line(path) as line:
            seconds.append(time.perf_counter() - started)
            assert line.current == 2000
    assert seconds[-1] < 0.7
    assert len(read_line(path).ancestry(2000)) == 2001


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [row("What does she play?\n\u2028\x85", "the harp", True, "the drum", False), row("Why?", "", None)]
    write_answers(tmp_path, rows)
    assert read_answers(tmp_path / "answers.jsonl") == rows
    (tmp_path / "answers.jsonl").write_bytes((tmp_path / "answers.jsonl").read_bytes()[:-20])
    with pytest.raises(InvalidInput, match=r"answers\.jsonl, line 2 is no row of answers"):
        read_answers(tmp_path / "answers.jsonl")


def test_messages_are_bounded_and_whole() -> None:
    with pytest.raises(ValidationError, match="title"):
        LearnedLesson(context="0" * 32, title="x" * 1_000_000, edit=attempt(1).lessons[0].edit)
    with pytest.raises(ValidationError, match="finite"):
        Check(name="retention", value=float("nan"), passed=False)
    with pytest.raises(ValidationError, match="there are 2 rewards and 1 lessons"):
        Attempt.model_validate({**dict(attempt(1)), "rewards": (0.5, None)})
    assert len(Check(name="retention", passed=False, reason="x" * 1_000_000).reason) == 2000
