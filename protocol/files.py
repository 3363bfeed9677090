"""Writing files so that a crash, or a power cut, leaves either the old state or the new one; and telling which folders are whole."""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from protocol.processes import is_first_process, launched_processes

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
"""The last file to be written into a folder: the size of every other one in bytes, and by how many processes it was written."""


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: temporary name, sync, rename."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    replace_file(temporary, path)


def replace_file(unfinished: Path, path: Path) -> None:
    """Give a finished file its name once it is on disk, in the place of what had the name before."""
    sync(unfinished)
    unfinished.replace(path)
    sync(path.parent)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def append(descriptor: int, content: bytes, end: int) -> None:
    """Write at the `end` of a file that is open for appending, and wait until it is on disk; or leave the file as it was."""
    try:
        unwritten = memoryview(content)
        while unwritten:
            unwritten = unwritten[os.write(descriptor, unwritten) :]
        os.fsync(descriptor)
    except BaseException:
        os.ftruncate(descriptor, end)
        raise


def drop_torn_line(path: Path) -> int:
    """Cut off a last line without its end, which a crash in mid-write leaves: it was never confirmed. Returns the file's size in bytes."""
    with path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            logger.warning("%s ends in a torn line of %d bytes; it is dropped", path, size - end)
            file.truncate(end)
            os.fsync(file.fileno())
    return end


def publish_folder(unfinished: Path, path: Path) -> None:
    """Give a finished folder its name once all of it is on disk. What had the name before is gone first."""
    write_manifest(unfinished)
    shutil.rmtree(path, ignore_errors=True)
    unfinished.rename(path)
    sync(path.parent)


def write_manifest(folder: Path) -> None:
    """Wait until all of a folder is on disk, and confirm it."""
    (folder / MANIFEST).unlink(missing_ok=True)
    files = _sizes(folder)
    for item in (folder, *folder.rglob("*")):
        sync(item)
    write_json(folder / MANIFEST, {"processes": launched_processes(), "files": files})


def is_whole(folder: Path, processes: int | None = None) -> bool:
    """Whether a folder was confirmed, and nothing of it is missing or cut short since.

    Args:
        processes: How many must have written it; None if it does not matter.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        expected, written_by, found = dict(manifest["files"]), manifest["processes"], _sizes(folder)
    except (OSError, ValueError, TypeError, KeyError):
        return False
    return all(found.get(name) == size for name, size in expected.items()) and processes in (None, written_by)


def confirm_checkpoint(folder: Path, wait_for_everyone: Callable[[], None]) -> None:
    """Write the manifest of a checkpoint once all processes have written their part of it."""
    wait_for_everyone()
    if is_first_process():
        write_manifest(folder)
    wait_for_everyone()


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest whole `checkpoint-N` of a training by as many processes as there are now.

    Newer ones are removed with a warning: they would be in the way. So one process asks for all.
    """
    numbers = sorted((int(p.name[11:]) for p in folder.glob("checkpoint-*") if p.name[11:].isdecimal()), reverse=True)
    for number in numbers:
        path = folder / f"checkpoint-{number}"
        if is_whole(path, launched_processes()):
            return path
        logger.warning("%s is damaged, or of another number of processes: the training goes on from before", path)
        shutil.rmtree(path, ignore_errors=True)
    return None


def is_disk_full(error: BaseException) -> bool:
    """Python and safetensors say so in words; torch only complains of the file that it could not write."""
    said = str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or "No space left on device" in said or "inline_container.cc" in said or "PytorchStreamWriter" in said


def hash_files(paths: Iterable[Path]) -> str:
    """128 bits over the names and contents of files."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _sizes(folder: Path) -> dict[str, int]:
    files = (item for item in folder.rglob("*") if item.is_file() and item.name != MANIFEST)
    return {str(item.relative_to(folder)): item.stat().st_size for item in sorted(files)}


def sync(path: Path) -> None:
    """Wait until a file or a folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
