"""Writing files so that a crash, or a power cut, leaves either the old state or the new one."""

import json
import os
import shutil
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: temporary name, sync, rename."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def publish_folder(unfinished: Path, path: Path) -> None:
    """Give a finished folder its name, in place of whatever had it, once all of it is on disk."""
    for item in unfinished.rglob("*"):
        sync(item)
    sync(unfinished)
    shutil.rmtree(path, ignore_errors=True)
    unfinished.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
