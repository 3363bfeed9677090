"""Runs a command where it can do little harm: the inner half of `recipes.sandbox`, a script that imports nothing of ours.

A *keeper* watches the command and ends with it. Where the system allows, the keeper is the first process of namespaces of its own: the
command has no network, a folder in memory and a list of its own processes, and whatever it started ends with the keeper. Started by
root, the command runs as a user that nobody else is: such a user's processes can be counted and ended for certain, while the kernel
holds root itself to no number of processes.

Sources: namespaces(7), user_namespaces(7), capabilities(7), prctl(2), setrlimit(2), kill(2).
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

_SPACES: Final = 0x00020000 | 0x08000000 | 0x20000000 | 0x40000000
"""CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET."""
_NEW_USERS: Final = 0x10000000
_NOT_ALLOWED: Final = 99
_NOT_STARTED: Final = 127
_PARENT_DEATH_SIGNAL, _DUMPABLE, _KEEP_CAPABILITIES, _SUBREAPER, _NO_NEW_PRIVILEGES, _AMBIENT = 1, 4, 8, 36, 38, 47
"""Of prctl."""
_READING: Final = (2, 1)
"""Capabilities that let one read everything: CAP_DAC_READ_SEARCH, or else CAP_DAC_OVERRIDE, which containers are more likely to have."""
_PRIVATE, _NO_DEVICES = 1 << 14 | 1 << 18, 2 | 4
"""MS_REC | MS_PRIVATE; MS_NOSUID | MS_NODEV."""
_FIRST_OWN_USER: Final = 0x70000000
_PAUSE: Final = 0.2
_TRIES: Final = 500


class Order(NamedTuple):
    """What to run, and how: seconds, bytes, numbers of processes; None is no limit. `status` and `control` are open files."""

    program: str
    command: list[str]
    environment: dict[str, str]
    wall: float
    cpu: int | None
    memory: int | None
    file: int | None
    processes: int | None
    isolated: bool
    status: int
    control: int


def main() -> None:
    """Run it, and clean up if nobody is left who would."""
    order, folder = Order(**json.loads(sys.argv[1])), os.getcwd()
    for descriptor in (order.status, order.control):
        os.set_inheritable(descriptor, False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    own = _own_user()
    if not order.isolated or os.waitpid(_fork(lambda: _keep_apart(order, own)), 0)[1] == _NOT_ALLOWED << 8:
        _control(_SUBREAPER, 1)
        if own is not None:
            os.chown(folder, own, own)
        _keep(order, own, apart=False)
    if _is_alone(order):
        os.execvp("rm", ["rm", "-rf", "--", folder])


def _fork(work: Callable[[], None]) -> int:
    """Do something in a child; here its number is returned."""
    child = os.fork()
    if child:
        return child
    code = _NOT_STARTED
    try:
        work()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _keep_apart(order: Order, own: int | None) -> None:
    """The same in namespaces, if there can be any."""
    _control(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    user, group = os.getuid(), os.getgid()
    try:
        if own is not None:
            _call("unshare", _SPACES)
        else:
            _call("unshare", _SPACES | _NEW_USERS)
            for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
                _write(f"/proc/self/{name}", line)
    except OSError:
        os._exit(_NOT_ALLOWED)

    def be_first() -> None:
        _control(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        _furnish(order, own)
        _keep(order, own, apart=True)

    os.waitpid(_fork(be_first), 0)


def _furnish(order: Order, own: int | None) -> None:
    """Mount the namespaces' own processes and a folder in memory; where that is not allowed, there is the folder on disk."""
    folder, user = os.getcwd(), os.getuid() if own is None else own
    size = "" if order.file is None else f",size={order.file}"
    try:
        _call("mount", None, b"/", None, _PRIVATE, None)
        _call("mount", b"tmpfs", folder.encode(), b"tmpfs", _NO_DEVICES, f"mode=700,uid={user},nr_inodes=10000{size}".encode())
        _call("mount", b"proc", b"/proc", b"proc", _NO_DEVICES, None)
    except OSError:
        if own is not None:
            os.chown(folder, own, own)
    os.chdir(folder)


def _keep(order: Order, own: int | None, apart: bool) -> None:
    """Start the command, see it end or end it, and report. After that nothing of it is left."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    _tell(order, apart=apart, confined=apart or own is not None)
    _control(_DUMPABLE, 0)  # the command must not look into its keeper, nor change it
    began = time.monotonic()
    child = _fork(lambda: _become(order, own, apart))
    status = _wait(child, order, began + order.wall)
    seconds = time.monotonic() - began
    if not apart:
        _end_all(child, own, over=status is not None)
    _tell(order, status=status, seconds=seconds)


def _wait(child: int, order: Order, deadline: float) -> int | None:
    """The command's wait status; None if its time is up, or nobody waits for it any more. Orphans are buried meanwhile."""
    while True:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                return ended[1]
        left = deadline - time.monotonic()
        if left <= 0 or _is_alone(order):
            return None
        signal.sigtimedwait({signal.SIGCHLD}, min(left, _PAUSE))


def _is_alone(order: Order) -> bool:
    """Whether nobody waits any more."""
    return bool(select.select([order.control], [], [], 0)[0])


def _become(order: Order, own: int | None, apart: bool) -> None:
    """Turn into the command."""
    try:
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        _control(_DUMPABLE, 1)
        with contextlib.suppress(OSError):
            _write("/proc/self/oom_score_adj", "1000")
        company = 0 if own is not None else _count_company(apart)
        if own is not None:
            _change_user(own)
        _control(_NO_NEW_PRIVILEGES, 1)
        _limit(order, company)
        os.execve(order.program, order.command, order.environment)
    except (OSError, ValueError, MemoryError) as error:
        _tell(order, failed=getattr(error, "strerror", None) or str(error) or "too little memory")


def _limit(order: Order, company: int) -> None:
    processes = None if order.processes is None else order.processes + company
    for which, most, spare in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, order.cpu, 1),  # a second between the signal and the end
        (resource.RLIMIT_FSIZE, order.file, 0),
        (resource.RLIMIT_NPROC, processes, 0),
        (resource.RLIMIT_AS, order.memory, 0),
    ):
        if most is not None:
            hard = resource.getrlimit(which)[1]
            highest = most + spare if hard == resource.RLIM_INFINITY else min(hard, most + spare)
            resource.setrlimit(which, (min(most, highest), highest))


def _count_company(apart: bool) -> int:
    """How many others the kernel counts with the command's processes: its keepers, or all of this user's threads."""
    major, minor = os.uname().release.split(".")[:2]
    if apart and (int(major), int("".join(filter(str.isdigit, minor)))) >= (5, 14):  # each user namespace counts for itself
        return 2
    count = 0
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{number}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{number}/task"))
        except OSError:
            continue  # it has ended
    return count


def _own_user() -> int | None:
    """A user that nobody is, if this is root and may become anyone."""
    if os.geteuid() != 0 or not _is_allowed(6) or not _is_allowed(7):  # CAP_SETGID, CAP_SETUID
        return None
    user = _FIRST_OWN_USER + os.getpid()
    with open("/proc/self/uid_map") as lines:
        ranges = [(int(first), int(count)) for first, _, count in map(str.split, lines)]
    return user if any(first <= user < first + count for first, count in ranges) else None


def _is_allowed(capability: int) -> bool:
    with open("/proc/self/status") as lines:
        return any(line.startswith("CapEff") and int(line.split()[1], 16) >> capability & 1 for line in lines)


def _change_user(user: int) -> None:
    """Become nobody else, who may read everything if we may."""
    for descriptor in (0, 1, 2):  # which some open again, as /dev/stdout
        os.fchown(descriptor, user, user)
    kept = next((capability for capability in _READING if _is_allowed(capability)), None)
    _control(_KEEP_CAPABILITIES, 1)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    bits = 0 if kept is None else 1 << kept
    _call("capset", (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(bits, bits, bits, 0, 0, 0))
    if kept is not None:
        _call("prctl", _AMBIENT, 2, kept, 0, 0)


def _end_all(child: int, own: int | None, over: bool) -> None:
    """Without namespaces: end the command, and whatever it has left. For sure if it had a user of its own; else as well as can be."""
    if not over:
        os.kill(child, signal.SIGKILL)
    if own is not None:

        def end_own() -> None:
            _change_user(own)
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)

        _fork(end_own)
    for _ in range(_TRIES):
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return  # whoever lost its parent became our child, so nobody is left
        if own is None:
            for number in _list_descendants():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
        time.sleep(0.01)


def _list_descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/stat") as file:
                parent = file.read().rpartition(")")[2].split()[1]
        except OSError:
            continue  # it has ended
        children.setdefault(int(parent), []).append(int(number))
    found = list(children.get(os.getpid(), ()))
    for child in found:
        found += children.get(child, ())
    return found


def _tell(order: Order, **what: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # whoever started us may be dead
        os.write(order.status, (json.dumps(what) + "\n").encode())


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _control(option: int, value: int) -> None:
    _call("prctl", option, value, 0, 0, 0)


def _call(name: str, *arguments: Any) -> None:
    """A function of the C library that returns -1 when it fails."""
    words = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*words) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


if __name__ == "__main__":
    main()
