"""A user's own checks: what says clearly that an update passes lets it pass, and whatever else they do refuses it."""

import time
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import InvalidInput
from protocol.identity import content_id
from recipes.gate_settings import GateChoice, check_gate
from recipes.sandbox import Limits
from recipes.user_checks import UserCheck, check_user_check, open_user_check
from student.version_answers import AnswerRow
from student.version_records import Check

ROWS = [
    AnswerRow(
        context=content_id("c"), title="Tola", question="What does Tola play?", answer="the harp", correct=True, why="own", before="a"
    ),
    AnswerRow(
        context=content_id("d"),
        title="Nore",
        question="Where does Nore live?",
        answer="\x1b[2J\U0001f3b5\u202e",
        correct=None,
        why="probe",
    ),
]


def by_command(code: str, **limits: Any) -> Check:
    return open_user_check("mine", UserCheck(command=["python", "-c", code], limits=Limits(**limits)))(ROWS)


def test_a_command_reads_a_row_a_line_and_passes_with_0() -> None:
    code = "import json, sys; rows = list(map(json.loads, sys.stdin)); print('first'); print(len(rows), rows[0]['before'], rows[1]['why'])"
    assert by_command(code) == Check(name="mine", passed=True, reason="2 a probe")


def test_a_command_that_ends_otherwise_refuses_and_what_it_said_last_is_the_reason() -> None:
    check = by_command("import sys; print('too rude'); print(); sys.exit(3)")
    assert check == Check(name="mine", passed=False, reason="ended by exit code 3: too rude")
    assert by_command("raise ValueError('oh')").reason == "ended by exit code 1: ValueError: oh"


def test_a_command_that_hangs_is_ended_and_refuses() -> None:
    began = time.monotonic()
    check = by_command("import time; time.sleep(60)", wall_seconds=0.5)
    assert (check.passed, check.reason) == (False, "ended by wall time")
    assert time.monotonic() - began < 15


FORKS = """
import os, sys, time
if not os.fork():
    os.setsid()
    time.sleep(60)
sys.exit(0)
"""


def test_what_a_command_has_forked_does_not_outlive_it() -> None:
    began = time.monotonic()
    assert by_command(FORKS).passed
    assert time.monotonic() - began < 30


def test_a_command_that_keeps_forking_refuses() -> None:
    check = by_command("import os\nwhile True: os.fork()", processes=8, wall_seconds=2.0)
    assert not check.passed


def test_a_command_that_prints_a_lot_keeps_a_short_reason() -> None:
    check = open_user_check("mine", UserCheck(command=["head", "-c", "1000000000", "/dev/zero"], limits=Limits(output_megabytes=0.5)))(ROWS)
    assert check.passed  # it ended with 0
    assert len(check.reason) == 500
    assert len(by_command("import sys; print('x' * 10**6); sys.exit(1)").reason) < 600


def test_a_command_that_is_gone_refuses() -> None:
    check = open_user_check("mine", UserCheck(command=["no-such-program"]))(ROWS)
    assert not check.passed
    assert "'no-such-program', which is not on the PATH" in check.reason


def by_function(folder: Path, body: str) -> Check:
    (folder / "mine.py").write_text(f"def judge(rows):\n    {body}\n")
    return open_user_check("mine", UserCheck(function=f"{folder / 'mine.py'}:judge"))(ROWS)


def test_a_function_gets_dicts_and_returns_whether_it_passes(tmp_path: Path) -> None:
    assert by_function(tmp_path, "return rows[0]['answer'] == 'the harp'") == Check(name="mine", passed=True)
    assert by_function(tmp_path, "return False, 'too rude'") == Check(name="mine", passed=False, reason="too rude")


@pytest.mark.parametrize("body", ["return None", "return 1", "return 'fine'", "return True, None", "return (True, 'a', 'b')", "pass"])
def test_a_function_that_returns_something_else_refuses(tmp_path: Path, body: str) -> None:
    check = by_function(tmp_path, body)
    assert not check.passed
    assert "it must return True or False, or a pair of that and a text" in check.reason


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('x')", "raised KeyError: 'x'"),
        ("return 1 / 0", "raised ZeroDivisionError"),
        ("raise SystemExit(0)", "raised SystemExit: 0"),
    ],
)
def test_a_function_that_raises_refuses(tmp_path: Path, body: str, said: str) -> None:
    check = by_function(tmp_path, body)
    assert not check.passed
    assert said in check.reason


def test_a_function_whose_file_breaks_or_is_gone_refuses(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    check = open_user_check("mine", UserCheck(function=f"{tmp_path / 'broken.py'}:judge"))(ROWS)
    assert not check.passed and "raised ModuleNotFoundError" in check.reason
    check = open_user_check("mine", UserCheck(function=f"{tmp_path / 'gone.py'}:judge"))(ROWS)
    assert not check.passed and "raised FileNotFoundError" in check.reason


def test_checking_a_recipe_executes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\ndef judge(rows): return True\n")
    check_gate(GateChoice(checks={"mine": UserCheck(function=f"{path}:judge")}), "gate")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"command": ["no-such-program"]}, r"mine.command begins with 'no-such-program', which is not on the PATH"),
        ({"function": "gone.py:judge"}, r"mine.function is 'gone.py:judge', but gone.py cannot be read as Python \(.*No such file"),
        ({"function": "judge"}, "mine.function is 'judge'; give FILE.py:NAME"),
        ({"function": "mine.txt:judge"}, "give FILE.py:NAME"),
        ({"function": "mine.py:a b"}, "give FILE.py:NAME"),
        ({"function": "mine.py:other"}, "mine.py has no function 'other' at its top level"),
        ({"function": "torn.py:judge"}, "torn.py cannot be read as Python"),
        ({"function": "binary.py:judge"}, "binary.py cannot be read as Python"),
    ],
)
def test_a_check_that_does_not_exist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Any, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def judge(rows): return True\n")
    (tmp_path / "torn.py").write_text("def judge(rows: ret")
    (tmp_path / "binary.py").write_bytes(b"\x00\xff\x00")
    with pytest.raises(InvalidInput, match=message):
        check_user_check(UserCheck(**told), "mine")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"checks": {"mine": UserCheck()}}, "x: gate.checks.mine.command is None and gate.checks.mine.function is ''; give one of them"),
        ({"checks": {"mine": UserCheck(command=["true"], function="a.py:b")}}, "give one of them, and not the other"),
        ({"checks": {"mine": UserCheck(command=["true"], limits=Limits(wall_seconds=0))}}, "gate.checks.mine.limits.wall_seconds is 0"),
        ({"checks": {"gain": UserCheck(command=["true"])}}, "gate.checks.gain: the gate has a check of that name"),
        ({"banned": ["a", "(b"]}, r"gate.banned\[1\] is '\(b': unclosed group"),
        ({"banned": [""]}, r"gate.banned\[0\] is '': it is empty"),
        ({"least_gain": 1.5}, r"gate.least_gain is 1.5; it must be in \[-1, 1\], or null"),
    ],
)
def test_settings_out_of_range_are_refused(told: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        GateChoice(**told).check("x", "gate.")
