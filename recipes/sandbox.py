"""Runs a command with limits, on input that nobody vouches for: a student's answer to an automated test, say. Linux only.

The command's words come from a recipe and are trusted; what it reads is not, and it may even run that. No shell reads the words. Each
process is limited by the kernel (setrlimit), and nothing of the command outlives the call. `recipes.confine` does it, from within.

What is not limited: what it may read; what it may write outside its folder, unless root starts it with CAP_DAC_READ_SEARCH, as most
roots outside containers have it; and, while each process has so much memory, all of them have `processes` times as much.
"""

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from protocol.errors import InvalidInput, TutelageError

_CONFINE: Final = Path(__file__).with_name("confine.py")
_START_SECONDS, _GRACE_SECONDS = 60.0, 15.0
_CHUNK: Final = 1 << 16
_MEGABYTE: Final = 1 << 20


@dataclass
class Limits:
    """What a command may use. Null lifts a limit.

    Attributes:
        wall_seconds: From its start to its end.
        cpu_seconds: Of each process; rounded up to whole seconds.
        memory_megabytes: Address space of each process. One that uses a GPU needs far more of it than it has memory.
        file_megabytes: Size of each file; where its folder is in memory, also of all files there together.
        processes: At one time, the command's own included, and threads counted like processes. For one whom root did not start this
            holds exactly only in namespaces; without them, what else the user runs is added.
        output_megabytes: How much is kept of each of stdout and stderr. The rest is read and thrown away.
        isolated: Whether it gets namespaces of its own where the system allows: no network, no sight of other processes, a folder in
            memory. False is for a command that needs the network.
    """

    wall_seconds: float = 10.0
    cpu_seconds: float | None = 10.0
    memory_megabytes: int | None = 2048
    file_megabytes: int | None = 64
    processes: int | None = 128
    output_megabytes: float = 1.0
    isolated: bool = True

    def check(self, place: str, prefix: str) -> None:
        """See that every limit is in its range.

        Raises:
            InvalidInput: Names the place, the key, which begins with `prefix`, the value and the remedy.
        """
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name != "isolated" and value is not None and not 0 < value <= 10**9:
                raise InvalidInput(f"{place}: {prefix}{item.name} is {value}; it must be above 0, and at most a billion")


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said.

    Attributes:
        code: Its exit code, if it ended by itself.
        signal: The name of the signal that ended it, such as SIGXCPU for too much CPU time.
        timed_out: Whether it was ended because its wall time was over.
        cut: Whether it said more than was kept.
        stdout, stderr: As UTF-8; bytes that are not become question marks in black diamonds.
        seconds: Wall time.
        network_cut: Whether it had no network.
        confined: Whether the kernel vouches that nothing of it is left. If not, all that could be found was ended; code that keeps
            forking to get away may have got away.
    """

    code: int | None
    signal: str | None
    timed_out: bool
    cut: bool
    stdout: str
    stderr: str
    seconds: float
    network_cut: bool
    confined: bool

    @property
    def ended(self) -> str:
        """How it ended, in words."""
        if self.timed_out:
            return "wall time"
        if self.signal is not None:
            return f"signal {self.signal}"
        return "its keeper was killed" if self.code is None else f"exit code {self.code}"


def resolve_command(command: Sequence[str], key: str = "command") -> tuple[str, ...]:
    """A command's words as they can be used from any folder: the program, and words that name a file here, become absolute.

    `python` is the Python that we run in.

    Args:
        key: The recipe's key, for messages.

    Raises:
        InvalidInput: There is no such program, or it is none; names the key, the value and the remedy.
    """
    if not command or not all(isinstance(word, str) and "\0" not in word for word in command):
        raise InvalidInput(f"{key} is {list(command)!r:.200}; give a program and its arguments, as a list of texts")
    program, *words = command
    found = sys.executable if program == "python" else shutil.which(program, path=_search_path())
    if found is None:
        looked = "here" if "/" in program else "on the PATH"
        state = "is no program (a folder, or not executable)" if "/" in program and os.path.exists(program) else f"is not {looked}"
        raise InvalidInput(f"{key} begins with {program!r}, which {state}; give a program that can be executed")
    is_here = [os.path.exists(word) if "/" in word else os.path.isfile(word) for word in words]
    return (os.path.abspath(found), *(os.path.abspath(word) if here else word for word, here in zip(words, is_here, strict=True)))


def run_limited(command: Sequence[str], stdin: bytes, limits: Limits) -> Outcome:
    """Run a command in a folder of its own, which is removed, and wait until it and all that it started have ended.

    Its environment is PATH, LANG and HOME, which is that folder; no file is open but stdin, stdout and stderr. Threads may call this at
    the same time.

    Raises:
        InvalidInput: There is no such program, or the system does not take it for one.
        TutelageError: This is not Linux, or the keeper does not start.
    """
    if sys.platform != "linux":
        raise TutelageError(f"commands are run with limits on Linux only, and this is {sys.platform}; leave them out")
    words = resolve_command(command)
    folder = tempfile.mkdtemp(prefix="tutelage-")
    try:
        with tempfile.TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            return _run(words, given.fileno(), folder, limits)
    finally:
        _remove(folder)


def _run(words: tuple[str, ...], stdin: int, folder: str, limits: Limits) -> Outcome:
    status, told = os.pipe()
    control, alive = os.pipe()
    order = {
        "program": words[0],
        "command": words,
        "environment": {"PATH": _search_path(), "LANG": "C.UTF-8", "HOME": folder},
        "wall": limits.wall_seconds,
        "cpu": None if limits.cpu_seconds is None else -int(-limits.cpu_seconds // 1),
        "memory": None if limits.memory_megabytes is None else limits.memory_megabytes * _MEGABYTE,
        "file": None if limits.file_megabytes is None else limits.file_megabytes * _MEGABYTE,
        "processes": limits.processes,
        "isolated": limits.isolated,
        "status": told,
        "control": control,
    }
    began = time.monotonic()
    try:
        with subprocess.Popen(
            [sys.executable, "-I", "-S", str(_CONFINE), json.dumps(order)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(told, control),
            cwd=folder,
            start_new_session=True,
        ) as process:
            os.close(told)
            os.close(control)
            told = control = -1
            try:
                pump = _Pump(process, status, int(limits.output_megabytes * _MEGABYTE), limits.wall_seconds)
                pump.read_all()
            finally:
                os.close(alive)  # which tells the keeper that nobody waits any more
                alive = -1
                _see_off(process)
    finally:
        for descriptor in (status, told, control, alive):
            if descriptor >= 0:
                os.close(descriptor)
    return _read_outcome(pump, words, time.monotonic() - began)


class _Pump:
    """Reads what a command and its keeper say, as long as they do.

    Attributes:
        stdout, stderr: The first bytes of each.
        said: The keeper's reports, merged.
        overdue: Whether the keeper has not ended the command in time.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", status: int, most: int, wall: float):
        assert process.stdout is not None and process.stderr is not None
        self.stdout, self.stderr, self.report = bytearray(), bytearray(), bytearray()
        self.cut = self.overdue = False
        self._process, self._wall = process, wall
        self._kept = {
            process.stdout.fileno(): (self.stdout, most),
            process.stderr.fileno(): (self.stderr, most),
            status: (self.report, _CHUNK),
        }

    @property
    def said(self) -> dict[str, Any]:
        lines = self.report.split(b"\n")[:-1]
        return {key: value for line in lines for key, value in json.loads(line).items()}

    def read_all(self) -> None:
        """Until all ends are closed, or the keeper is dead, or long overdue."""
        deadline = time.monotonic() + _START_SECONDS
        with selectors.DefaultSelector() as selector:
            for descriptor in self._kept:
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map():
                is_dead = self._process.poll() is not None
                ready = selector.select(0 if is_dead else 0.5)
                self.overdue = time.monotonic() > deadline
                if self.overdue or (is_dead and not ready):
                    return
                for key, _ in ready:
                    first_report = not self.report
                    if not self._read(key.fd):
                        selector.unregister(key.fd)
                    elif first_report and self.report:
                        deadline = time.monotonic() + self._wall + _GRACE_SECONDS

    def _read(self, descriptor: int) -> int:
        chunk = os.read(descriptor, _CHUNK)
        kept, most = self._kept[descriptor]
        room = most - len(kept)
        kept += chunk[:room]
        self.cut |= len(chunk) > room
        return len(chunk)


def _see_off(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # and its keepers with it


def _read_outcome(pump: _Pump, words: tuple[str, ...], seconds: float) -> Outcome:
    said, stderr = pump.said, pump.stderr.decode(errors="replace")
    if "apart" not in said:
        raise TutelageError(f"{words[0]} could not be started with limits ({stderr.strip()[-500:] or 'no reason given'})")
    if "failed" in said:
        raise InvalidInput(f"{words[0]!r} cannot be executed ({said['failed']}); give a program, or a script that begins with #!")
    status = said.get("status")
    code = None if status is None else os.waitstatus_to_exitcode(status)
    return Outcome(
        code=code if code is not None and code >= 0 else None,
        signal=_name_signal(-code) if code is not None and code < 0 else None,
        timed_out=pump.overdue or ("status" in said and status is None),
        cut=pump.cut,
        stdout=pump.stdout.decode(errors="replace"),
        stderr=stderr,
        seconds=said.get("seconds", seconds),
        network_cut=said["apart"],
        confined=said["confined"],
    )


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of those that have no names
        return f"SIG{number}"


def _search_path() -> str:
    """Ours, with the Python that we run in first."""
    return os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])


def _remove(folder: str) -> None:
    """Empty if it was in memory. On disk it may hold others that nobody may enter, or with longer paths than can be named."""
    try:
        os.rmdir(folder)
    except OSError:
        for words in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
            subprocess.run([*words, "--", folder], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
