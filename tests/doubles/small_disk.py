"""A file system with little room."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(disk: Path, kilobytes: int) -> Iterator[Path]:
    """A new one in memory, at a folder to be made; skips the test where it cannot be had."""
    disk.mkdir()
    size = f"size={kilobytes}k"
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", disk], check=False).returncode:
        pytest.skip("only root may mount a small tmpfs")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)
