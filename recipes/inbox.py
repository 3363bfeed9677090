"""An inbox: a folder in which documents collect. It is only read; what was learned of it stands elsewhere.

A text file (.txt, .md) is one document without questions; a heading that opens it is its title, else its file's name is. A .json or .jsonl
file has as many documents as contexts (`recipes.domains.knowledge_files`). Links and folders within are left alone: a link may lead to what
nobody meant to put here. So is what has no such ending; hidden files are not even told of. Torch-free.
"""

import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from protocol.errors import InvalidInput
from protocol.identity import content_id
from protocol.messages import Context
from recipes.domains.files import clean, read_text
from recipes.domains.knowledge_files import TEXT_SUFFIXES, context_of, load_contexts

SUFFIXES: Final = (*TEXT_SUFFIXES, ".json", ".jsonl")
_HEADING: Final = re.compile(r"\s*#{1,6}[ \t]+(\S.*)")
Signature = tuple[int, ...]
"""Of a file: what changes when its content does."""


@dataclass(frozen=True)
class Document:
    """Something to learn.

    Attributes:
        file: Its file's name.
        key: What it is known by again: its content. A title that only the file's name gave it is no part of that.
    """

    file: str
    context: Context
    key: str


def keys_of(context: Context) -> tuple[str, str]:
    """The keys of documents that have nothing new once a context was learned: with this title, or without one of their own."""
    return context.id, content_id("untitled", context.passage, [question.model_dump() for question in context.questions])


def read_documents(path: Path) -> list[Document]:
    """All documents of a file.

    Raises:
        InvalidInput: It cannot be read; names the file and the reason.
    """
    if path.suffix.lower() not in TEXT_SUFFIXES:
        return [Document(path.name, context, context.id) for context in load_contexts(str(path))]
    text = read_text(path)
    if "\0" in text:
        raise InvalidInput(f"{path} is no text: it has zero bytes")
    heading = _HEADING.match(text)
    title, passage = (heading[1].rstrip("# \t"), text[heading.end() :]) if heading else (clean(path.stem).replace("_", " "), text)
    context = context_of({"title": title, "context": passage.strip()}, str(path))
    return [Document(path.name, context, keys_of(context)[0 if heading else 1])]


@dataclass(frozen=True)
class _Seen:
    """A file as it was when it was last looked at; `since` is when it was first seen so. Read, it is documents, or why there are none."""

    signature: Signature
    since: float
    read: tuple[Document, ...] | str | None = None


class Inbox:
    """What was seen in the folder.

    Attributes:
        waiting: New documents, each once, in the order of their files' names.
        unsettled: Files that have changed lately, and may be half written.
        left: By file, why nothing of it is learned.
    """

    def __init__(self, folder: Path, settle_seconds: float, max_bytes: int):
        """A file is read once it has stayed as it is for `settle_seconds`, if it is not larger than `max_bytes`."""
        self.folder = folder
        self.waiting: list[Document] = []
        self.unsettled: list[str] = []
        self.left: dict[str, str] = {}
        self._settle_seconds, self._max_bytes = settle_seconds, max_bytes
        self._seen: dict[str, _Seen] = {}

    def look(self, moment: float, done: Collection[str]) -> None:
        """See what is there now.

        Args:
            moment: In seconds, by a clock that nobody sets.
            done: Keys of documents that are not new.
        """
        self.left = {}
        self._seen = {name: self._look_at(name, signature, moment) for name, signature in self._list()}
        self.unsettled = [name for name, seen in self._seen.items() if seen.read is None]
        self.waiting, known = [], set(done)
        for name, seen in self._seen.items():
            if isinstance(seen.read, str):
                self.left[name] = seen.read
            elif seen.read:
                new = tuple(document for document in seen.read if document.key not in done)
                self._seen[name] = replace(seen, read=new)  # the others need not be remembered
                for document in new:
                    if document.key not in known:
                        self.waiting.append(document)
                        known.update(keys_of(document.context))

    def _list(self) -> Iterator[tuple[str, Signature]]:
        """Files that may be read; of others it is noted why they may not."""
        try:
            names = sorted(os.listdir(self.folder))
        except OSError as error:
            self.left[str(self.folder)] = f"the inbox cannot be looked into ({error.strerror})"
            return
        for name in names:
            signature = _sign(self.folder / name)
            if name.startswith(".") or signature is None:
                continue
            if problem := self._refuse(name, *signature):
                self.left[name] = problem
            else:
                yield name, signature

    def _refuse(self, name: str, mode: int, size: int, *rest: int) -> str:
        """Why a file is not even opened."""
        if not stat.S_ISREG(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "no file"
            return f"it is {kind}; put documents themselves into the inbox"
        if Path(name).suffix.lower() not in SUFFIXES:
            return f"it is none of {', '.join(SUFFIXES)}"
        return f"it has {size} bytes, more than {self._max_bytes}; split it, or raise max_mb" if size > self._max_bytes else ""

    def _look_at(self, name: str, signature: Signature, moment: float) -> _Seen:
        seen = self._seen.get(name)
        if seen is None or seen.signature != signature:
            seen = _Seen(signature, moment)
        if seen.read is not None or moment - seen.since < self._settle_seconds:
            return seen
        path = self.folder.absolute() / name
        try:
            read: tuple[Document, ...] | str = tuple(read_documents(path))
        except InvalidInput as error:
            read = str(error)
        return replace(seen, read=read) if _sign(path) == signature else _Seen(signature, moment)


def _sign(path: Path) -> Signature | None:
    """None if it is gone, or out of reach."""
    try:
        told = os.lstat(path)
    except OSError:
        return None
    return told.st_mode, told.st_size, told.st_ino, told.st_mtime_ns, told.st_ctime_ns
