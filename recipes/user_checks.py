"""A user's own checks of the answers before and after an update: a command, or a Python function, that the recipe names.

Both get the rows of a version's `answers.jsonl` (`student.version_answers.AnswerRow`). Whatever does not say clearly that the update passes
refuses it: a check that crashes, hangs or is gone has not passed.
"""

import ast
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from protocol.errors import InvalidInput, TutelageError
from recipes.sandbox import Limits, resolve_command, run_limited
from student.version_answers import AnswerRow
from student.version_records import Check

_SAID: Final = 500
"""Characters of what a check said last that are kept as its reason."""


@dataclass
class UserCheck:
    """A command, or a function.

    Attributes:
        command: A program and its arguments. It reads a row a line as JSON from stdin, and ends with 0 if the update passes; any other end
            refuses it. The last line that it prints is the reason.
        function: `FILE.py:NAME`, called with the rows as a list of dicts. It must return True if the update passes and False if not, or
            a pair of that and the reason, a text. The file is executed in this process, and nothing limits it.
        limits: Of the command.
    """

    command: list[str] | None = None
    function: str = ""
    limits: Limits = field(default_factory=Limits)

    def check(self, place: str, prefix: str) -> None:
        """See that it is one of the two, and the limits are in their ranges.

        Raises:
            InvalidInput: Names the key, the value and the remedy.
        """
        if bool(self.command) == bool(self.function):
            raise InvalidInput(
                f"{place}: {prefix}command is {self.command} and {prefix}function is {self.function!r}; give one of them, and not the other"
            )
        self.limits.check(place, f"{prefix}limits.")


def check_user_check(told: UserCheck, key: str) -> None:
    """See that a check's program or function exists. Nothing of it is executed.

    Raises:
        InvalidInput: Names the key, the value and the remedy.
    """
    if told.command:
        resolve_command(told.command, f"{key}.command")
        return
    path, name = _split(told.function, key)
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidInput(f"{key}.function is {told.function!r}, but {path} cannot be read as Python ({error}); mend it") from error
    if not any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body):
        raise InvalidInput(f"{key}.function is {told.function!r}, but {path} has no function {name!r} at its top level; name one")


def open_user_check(name: str, told: UserCheck) -> Callable[[Sequence[AnswerRow]], Check]:
    """A check by its name in the recipe. The file of a function is executed at every call."""
    return partial(_run_command if told.command else _call_function, name, told)


def _run_command(name: str, told: UserCheck, rows: Sequence[AnswerRow]) -> Check:
    shown = "".join(row.model_dump_json() + "\n" for row in rows)
    try:
        outcome = run_limited(told.command or [], shown.encode(), told.limits)
    except TutelageError as error:
        return Check(name=name, passed=False, reason=str(error))
    said = next((line for text in (outcome.stdout, outcome.stderr) for line in reversed(text.splitlines()) if line.strip()), "")
    if outcome.code == 0:
        return Check(name=name, passed=True, reason=said.strip()[:_SAID])
    return Check(name=name, passed=False, reason=f"ended by {outcome.ended}" + (f": {said.strip()[:_SAID]}" if said else ""))


def _call_function(name: str, told: UserCheck, rows: Sequence[AnswerRow]) -> Check:
    try:
        returned = _load(told.function)([row.model_dump(mode="json") for row in rows])
    except (Exception, SystemExit) as error:  # it is not our code: whatever it raises, the update has not passed
        return Check(name=name, passed=False, reason=f"{told.function} raised {type(error).__name__}: {error}"[:_SAID])
    passed, reason = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, "")
    if not isinstance(passed, bool) or not isinstance(reason, str):
        told_us = f"{told.function} returned {returned!r:.100}; it must return True or False, or a pair of that and a text"
        return Check(name=name, passed=False, reason=told_us)
    return Check(name=name, passed=passed, reason=reason[:_SAID])


def _load(function: str) -> Callable[[list[dict[str, Any]]], object]:
    path, name = _split(function, "function")
    spec = importlib.util.spec_from_file_location(f"tutelage_check_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"{path} is no Python file; give FILE.py:NAME")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[list[dict[str, Any]]], object] = getattr(module, name)
    return found


def _split(function: str, key: str) -> tuple[Path, str]:
    file, colon, name = function.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise InvalidInput(f"{key}.function is {function!r}; give FILE.py:NAME, a file and a function in it")
    return Path(file), name
