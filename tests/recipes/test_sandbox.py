import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from protocol.errors import InvalidInput
from recipes.sandbox import Limits, Outcome, resolve_command, run_limited

ROOT = Path(__file__).resolve().parents[2]
IS_WHOLE_ROOT = os.geteuid() == 0 and int(Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0], 16) >> 2 & 1
"""Root with CAP_DAC_READ_SEARCH."""
BOTH = pytest.mark.parametrize("isolated", [True, False])


def run_code(code: str, stdin: bytes = b"", **limits: object) -> Outcome:
    return run_limited(["python", "-c", code], stdin, Limits(**limits))  # type: ignore[arg-type]


def mark(name: str) -> str:
    """A word by which a process is known among all others."""
    return f"{name}-{os.getpid()}-{time.monotonic_ns()}"


def find_marked(word: str) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if word in " ".join(_cmdline(process))]


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@BOTH
def test_a_command_reads_and_says_and_ends(isolated: bool) -> None:
    outcome = run_code("import sys; print(sys.stdin.read().upper()); print('no', file=sys.stderr); sys.exit(7)", b"harp", isolated=isolated)
    assert (outcome.code, outcome.stdout, outcome.stderr, outcome.ended) == (7, "HARP\n", "no\n", "exit code 7")
    assert (outcome.signal, outcome.timed_out, outcome.cut) == (None, False, False)


@BOTH
def test_a_command_that_hangs_is_ended_even_if_it_ignores_sigterm(isolated: bool) -> None:
    began = time.monotonic()
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    outcome = run_code(code, wall_seconds=0.5, isolated=isolated)
    assert (outcome.code, outcome.timed_out, outcome.ended, outcome.stdout) == (None, True, "wall time", "up\n")
    assert 0.5 <= outcome.seconds < 5
    assert time.monotonic() - began < 10


DAEMON = """
import os, sys
read, write = os.pipe()
if not os.fork():
    os.setsid()
    if not os.fork():
        os.setsid()
        os.write(write, b"x")
        os.execvp("sleep", [sys.argv[1], "60"])
    os._exit(0)
os.wait()
os.read(read, 1)
print("up")
"""


@BOTH
def test_daemons_do_not_outlive_the_command(isolated: bool) -> None:
    word = mark("daemon")
    began = time.monotonic()
    outcome = run_limited(["python", "-c", DAEMON, word], b"", Limits(isolated=isolated))
    assert (outcome.code, outcome.stdout) == (0, "up\n")
    assert time.monotonic() - began < 30
    assert find_marked(word) == []


RUNNER = """
import os, socket, sys, time
held = socket.socket(socket.AF_UNIX)
held.bind(sys.argv[1])
held.listen()
print("up", flush=True)
end = time.monotonic() + 20
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
"""


@BOTH
def test_code_that_forks_to_get_away_is_ended(isolated: bool, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    outcome = run_limited(["python", "-c", RUNNER, str(tmp_path / "held")], b"", Limits(isolated=isolated))
    if not outcome.confined:
        pytest.skip("neither namespaces nor users of their own here")
    assert (outcome.code, outcome.stdout) == (0, "up\n")
    with socket.socket(socket.AF_UNIX) as connection, pytest.raises(ConnectionRefusedError):  # nobody holds the other end
        connection.connect(str(tmp_path / "held"))


BOMB = """
import os, time
end = time.monotonic() + 5
while time.monotonic() < end:
    try:
        if not os.fork():
            os.write(1, b"x")
    except OSError:
        time.sleep(0.01)
"""


@BOTH
def test_a_fork_bomb_has_no_more_processes_than_it_may(isolated: bool) -> None:
    word = mark("bomb")
    outcome = run_limited(["python", "-c", BOMB, word], b"", Limits(processes=12, wall_seconds=0.7, isolated=isolated))
    assert outcome.timed_out
    assert find_marked(word) == []
    if not outcome.confined:
        pytest.skip("what else this user runs is counted here")
    assert outcome.stdout in ("x" * 11, "x" * 12)  # without namespaces the first may be ended before the last is born


def test_a_gigabyte_is_read_and_thrown_away() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = run_limited(["head", "-c", "1000000000", "/dev/zero"], b"", Limits(output_megabytes=0.5))
    assert (outcome.code, outcome.cut, len(outcome.stdout)) == (0, True, 2**19)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_what_is_not_utf_8_is_read_all_the_same() -> None:
    assert run_code(r"import os; os.write(1, b'a\xff\x00b')").stdout == "a\ufffd\x00b"


@pytest.mark.parametrize("code", ["x = bytearray(10**9)", "x = []\nwhile True: x.append(bytes(10**6))"])
def test_too_much_memory_is_refused_by_the_kernel(code: str) -> None:
    outcome = run_code(code, memory_megabytes=100)
    assert outcome.code == 1
    assert outcome.stderr.endswith("MemoryError\n")


def test_too_much_cpu_time_ends_a_command() -> None:
    assert run_code("while True: pass", cpu_seconds=0.5).ended == "signal SIGXCPU"


@BOTH
def test_no_file_grows_beyond_its_limit(isolated: bool) -> None:
    outcome = run_limited(["dd", "if=/dev/zero", "of=big", "bs=65536"], b"", Limits(file_megabytes=1, isolated=isolated))
    assert outcome.signal == "SIGXFSZ"
    outcome = run_code("open('big', 'wb').write(bytes(2**21))", file_megabytes=1, isolated=isolated)
    assert outcome.code == 1
    assert "File too large" in outcome.stderr or "No space left" in outcome.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["no-such-program"], "begins with 'no-such-program', which is not on the PATH; give a program"),
        (["./no-such-program"], "begins with './no-such-program', which is not here"),
        ([__file__], r"test_sandbox.py', which is no program \(a folder, or not executable\)"),
        (["/"], "begins with '/', which is no program"),
        ([], r"command is \[\]; give a program and its arguments"),
        (["echo", "a\0b"], "give a program and its arguments, as a list of texts"),
        (["echo", 3], "give a program and its arguments, as a list of texts"),
    ],
)
def test_a_command_that_is_none_is_refused(command: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        run_limited(command, b"", Limits())


def test_a_file_that_the_system_cannot_execute_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_bytes(b"\x00\x01\x02")
    path.chmod(0o755)
    with pytest.raises(InvalidInput, match=r"cannot be executed \(Exec format error\); give a program, or a script that begins with #!"):
        run_limited([str(path)], b"", Limits())


def test_words_that_name_files_from_here_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "check.py").touch()
    (tmp_path / "check.py").touch()
    words = resolve_command(["python", "check.py", "tests/check.py", "tests", "a/b", "-x"])
    assert words == (sys.executable, str(tmp_path / "check.py"), str(tmp_path / "tests" / "check.py"), "tests", "a/b", "-x")


def test_no_shell_reads_the_words() -> None:
    assert run_limited(["echo", "$HOME; exit 3", "*"], b"", Limits()).stdout == "$HOME; exit 3 *\n"


def test_a_command_need_not_read_its_input() -> None:
    assert run_limited(["true"], b"x" * 20_000_000, Limits()).code == 0


def test_a_lot_of_input_is_read_while_a_lot_is_said() -> None:
    outcome = run_limited(["cat"], b"x" * 5_000_000, Limits(output_megabytes=8))
    assert (outcome.stdout.count("x"), outcome.cut) == (5_000_000, False)


@BOTH
def test_the_environment_is_scrubbed(isolated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_TOKEN", "secret")
    lines = dict(line.split("=", 1) for line in run_limited(["env"], b"", Limits(isolated=isolated)).stdout.splitlines())
    assert sorted(lines) == ["HOME", "LANG", "PATH"]
    assert lines["LANG"] == "C.UTF-8"
    assert not Path(lines["HOME"]).exists()


def test_the_token_of_who_runs_it_cannot_be_read_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_TOKEN", "secret")
    outcome = run_limited(["sh", "-c", "cat /proc/[0-9]*/environ"], b"", Limits())
    if not outcome.network_cut:
        pytest.skip("no namespaces here")
    assert "HOME=" in outcome.stdout  # its own
    assert "secret" not in outcome.stdout


@BOTH
def test_its_folder_is_its_own_and_is_removed(isolated: bool) -> None:
    code = "import os; open('x', 'w').write('y'); os.makedirs('a/b'); os.chmod('a', 0); print(os.getcwd(), os.environ['HOME'])"
    first, second = run_code(code, isolated=isolated).stdout.split()
    assert first == second
    assert not Path(first).exists()


@BOTH
def test_a_folder_with_longer_paths_than_can_be_named_is_removed(isolated: bool) -> None:
    code = "import os\nprint(os.getcwd())\nfor _ in range(60): os.mkdir('a' * 99); os.chdir('a' * 99)"
    outcome = run_code(code, isolated=isolated)
    assert outcome.code == 0
    assert not Path(outcome.stdout.strip()).exists()


@BOTH
def test_no_open_file_is_inherited(isolated: bool, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        names = run_limited(["sh", "-c", "readlink /proc/self/fd/*"], b"", Limits(isolated=isolated)).stdout
    assert len(names.splitlines()) == 3
    assert "secret" not in names
    assert run_limited(["sh", "-c", "echo out > /dev/stdout"], b"", Limits(isolated=isolated)).stdout == "out\n"


def test_there_is_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)"
        assert run_code(code, isolated=False).code == 0
        outcome = run_code(code)
    if not outcome.network_cut:
        pytest.skip("network namespaces are not allowed here")
    assert outcome.code == 1
    assert "Network is unreachable" in outcome.stderr


@BOTH
@pytest.mark.skipif(not IS_WHOLE_ROOT, reason="only root starts commands as another user, and only one that may read everything")
def test_what_root_starts_reads_what_root_may_and_writes_nothing(isolated: bool, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("read")
    (tmp_path / "secret").chmod(0o600)
    tmp_path.chmod(0o700)
    code = f"print(open({str(tmp_path / 'secret')!r}).read(), flush=True); open({str(tmp_path / 'new')!r}, 'w')"
    outcome = run_code(code, isolated=isolated)
    assert outcome.stdout == "read\n"
    assert "PermissionError" in outcome.stderr
    assert not (tmp_path / "new").exists()


@BOTH
def test_a_command_cannot_end_its_keeper_unnoticed(isolated: bool) -> None:
    outcome = run_code("import os, signal; os.kill(os.getppid(), signal.SIGKILL); print('alive')", isolated=isolated)
    if outcome.confined:
        assert outcome.ended in ("exit code 0", "exit code 1")  # nothing happened, or it was forbidden
    else:
        assert outcome.ended == "its keeper was killed"


def test_a_signal_without_a_name_is_told() -> None:
    assert run_code("import os; os.kill(os.getpid(), 40)").ended == "signal SIG40"
    assert run_code("import os; os.abort()").ended == "signal SIGABRT"


def test_commands_run_side_by_side() -> None:
    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(lambda n: run_limited(["cat"], str(n).encode(), Limits()), range(8)))
    assert [outcome.stdout for outcome in outcomes] == ["0", "1", "2", "3", "4", "5", "6", "7"]


@BOTH
def test_a_command_dies_with_who_runs_it(isolated: bool, tmp_path: Path) -> None:
    word = mark("orphan")
    code = (
        "from recipes.sandbox import *\n"
        f"run_limited(['python', '-c', 'import time; time.sleep(60)', {word!r}], b'', Limits(wall_seconds=60, isolated={isolated}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}) as runner:
        try:
            wait_until(lambda: any(_cmdline(process)[-1:] == [word] for process in find_marked(word)))
        finally:
            runner.kill()
    wait_until(lambda: find_marked(word) == [] and list(tmp_path.iterdir()) == [])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("key", "value"), [("wall_seconds", 0), ("memory_megabytes", -1), ("cpu_seconds", float("nan")), ("processes", 0)])
def test_limits_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=rf"x.yaml: tests.limits.{key} is {value}; it must be above 0"):
        Limits(**{key: value}).check("x.yaml", "tests.limits.")  # type: ignore[arg-type]
