"""What a student was answering when its process died, so that a request over which it dies again and again is not tried for ever.

It is a small file, written before each cohort and after it. A crash of the machine may lose it: no request is to blame for that.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from protocol.errors import InvalidInput

ALONE_AFTER: Final = 2
"""Deaths after which a request is answered by itself: the first time, what was in the making is made again as it was."""
REFUSED_AFTER: Final = 4


class Deaths:
    """How often a process has died over each request that has no result yet."""

    def __init__(self, path: Path):
        """Count those who were being answered when the last process ended as it should not.

        Raises:
            InvalidInput: The file is damaged.
        """
        self._path, self._answering = path, set[str]()
        try:
            self._counts: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            if not all(isinstance(count, int) for count in self._counts.values()):
                raise ValueError("it has more than counts")
        except (OSError, ValueError, AttributeError) as error:
            raise InvalidInput(f"{path} is not as a student's service wrote it ({error}); remove it") from error

    def count(self, request_id: str) -> int:
        return self._counts.get(request_id, 0)

    def begin(self, ids: Iterable[str]) -> None:
        """These are being answered from now on: if the process dies, it dies over them."""
        self._answering.update(ids)
        self._write()

    def end(self, ids: Iterable[str]) -> None:
        """These have a result."""
        ids = set(ids)
        if self._answering.isdisjoint(ids) and self._counts.keys().isdisjoint(ids):
            return
        self._answering -= ids
        self._counts = {id_: count for id_, count in self._counts.items() if id_ not in ids}
        self._write()

    def stop(self) -> None:
        """The process ends as it should."""
        self._answering.clear()
        self._write()

    def _write(self) -> None:
        told = {**self._counts, **{id_: self.count(id_) + 1 for id_ in sorted(self._answering)}}
        unfinished = self._path.with_name(self._path.name + ".tmp")
        with suppress(OSError):  # on a full disk it is the journal that tells
            if told:
                unfinished.write_text(json.dumps(told), encoding="utf-8")
                unfinished.replace(self._path)
            else:
                self._path.unlink(missing_ok=True)
