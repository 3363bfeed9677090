"""A command that is started as a process, and killed at a random moment."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("TUTELAGE_KILLS", "2"))
"""How often each test kills."""


def start(*words: str) -> subprocess.Popen[str]:
    """Start `tutelage` with these words."""
    command = [sys.executable, "-m", "recipes.cli", *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_later(process: subprocess.Popen[str], begun: str, seconds: float, awaited: Callable[[], bool] = lambda: True) -> bool:
    """Kill it once it has told that it has `begun`, then what is `awaited` has come, and then it has computed for so long.

    Args:
        seconds: Of its processor time, so that it comes as far on a busy machine.

    Returns:
        Whether it was still there.
    """
    assert process.stdout is not None
    while (told := process.stdout.readline()) and begun not in told:
        pass
    assert told, "it ended before it had begun"
    while process.poll() is None and not awaited():
        time.sleep(0.0005)
    end = _computed(process) + seconds
    while process.poll() is None and _computed(process) < end:
        time.sleep(0.0005)
    process.kill()
    process.communicate()
    return process.returncode < 0


def _computed(process: subprocess.Popen[str]) -> float:
    """Seconds; 0 if it is gone."""
    if process.poll() is not None:
        return 0.0
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system
