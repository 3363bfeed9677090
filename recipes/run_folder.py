"""A run's folder: recipe, identity of its inputs, journal, metrics, adapters, report. It is what a run resumes from."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from protocol.errors import InvalidInput
from protocol.files import write_json, write_text
from protocol.journal import Journal
from protocol.messages import Context, StudentCard, measurement_key
from protocol.spending import describe_spending
from recipes.base_settings import RecipeSettings
from recipes.config import to_yaml
from recipes.domains import RecipeDomain, open_domain
from recipes.domains.settings import GridSettings
from recipes.editor import report_decisions
from recipes.inputs import identify, judge_models
from recipes.machine_settings import Serve
from recipes.terminal import console

if TYPE_CHECKING:  # it loads torch, and input is checked without
    from recipes.team import Team

CONTEXTS = "contexts.jsonl"
"""Every context of a run, one message a line, so that its journal can be read without its sources."""
_BEFORE_RECIPE = ("lock", "inputs.json", "inputs.json.tmp", CONTEXTS, CONTEXTS + ".tmp", "recipe.yaml.tmp")
"""What a run that was killed at once may leave behind."""


class RunFolder:
    """Opened once all input is known to be good; a folder is never half made."""

    def __init__(
        self,
        settings: RecipeSettings,
        contexts: Mapping[str, Sequence[Context]],
        models: Mapping[str, tuple[str | None, str | None]],
        team: "Team",
    ):
        """Create `runs/name`, or reopen it if it was made by the same recipe from the same inputs.

        Args:
            contexts, models: What the run is made from, by key, as for `recipes.inputs.identify`. Contexts are kept in the folder.
            team: The processes that are to keep their logs here.

        Raises:
            InvalidInput: The folder cannot be written, belongs to another recipe or to other inputs, or is in use.
        """
        check_run_folder(settings)
        inputs = identify(contexts, {**models, **(judge_models(settings.judge) if settings.asks_judge else {})})
        self._settings, self._opened = settings, time.perf_counter()
        self.path = Path(settings.runs) / settings.name
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / "lock").open("a")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._lock.truncate(0)
            self._lock.write(secrets.token_hex(16))  # by which other processes know the folder
            self._lock.flush()
            os.fsync(self._lock.fileno())
            check_run_folder(settings)
            _refuse_other_inputs(self.path / "inputs.json", inputs)
            if not (self.path / "recipe.yaml").exists():
                write_json(self.path / "inputs.json", inputs)
                write_contexts(self.path, [context for used in contexts.values() for context in used])
                write_text(self.path / "recipe.yaml", to_yaml(settings))
        except BlockingIOError as error:
            raise InvalidInput(f"{self.path} is in use by another process; wait for it, or choose another name=...") from error
        except OSError as error:
            raise InvalidInput(f"run folder {self.path} cannot be written: {error.strerror}; choose another with runs=DIR") from error
        self.journal = Journal(self.path / "journal.jsonl")
        team.work_in(self.path)
        if self.journal.rounds or self.journal.candidates:
            console.print(f"{self.path} is there: going on from its journal")

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.journal.close()
        self._lock.close()

    def remember_student(self, name: str, card: StudentCard) -> None:
        """Note which student has a name in this run; wherever it is, the run goes on with no other.

        Raises:
            InvalidInput: It was another one.
        """
        path, mine = self.path / "students.json", measurement_key(card, "")
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if known.setdefault(name, mine) != mine:
            raise InvalidInput(
                f"{name} is another student now ({card.model}), or has other settings, than when {self.path} was begun; "
                "take the former one, or give the run another name=..."
            )
        write_json(path, known)

    def add_contexts(self, contexts: Sequence[Context]) -> None:
        """Keep contexts that were not known when the run began, before its journal speaks of them."""
        write_contexts(self.path, [*read_contexts(self.path).values(), *contexts])

    def log_metrics(self, **metrics: Any) -> None:
        """Append a row to `metrics.jsonl`."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **metrics}) + "\n")

    def write_report(self, report: Mapping[str, Any]) -> Path:
        """Write a recipe's figures, between what every report has."""
        told = self._settings
        seeds = list(getattr(told, "seeds", ())) or [getattr(told, "seed", 0)]
        spent: dict[str, Any] = {"inner_loops": self.journal.inner_loops, "wall_seconds": round(time.perf_counter() - self._opened, 1)}
        if self.journal.spending.requests:
            spent = {"spending": self.journal.spending.model_dump(), **spent}
            console.print(describe_spending(self.journal.spending))
        edited = {"editor": report_decisions(self.journal.decisions.values())} if told.editor.rules else {}
        path = self.path / "report.json"
        write_json(path, {"recipe": told.recipe, "name": told.name, "seeds": seeds, **report, **edited, **spent})
        return path


def write_contexts(folder: Path, contexts: Sequence[Context]) -> None:
    known = {context.id: context for context in contexts}
    write_text(folder / CONTEXTS, "".join(context.model_dump_json() + "\n" for context in known.values()))


def read_contexts(folder: Path) -> dict[str, Context]:
    """A run's contexts by id.

    Raises:
        InvalidInput: The folder has none, or not what a run wrote.
    """
    path = folder / CONTEXTS
    try:
        contexts = [Context.model_validate_json(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except OSError as error:
        raise InvalidInput(f"{folder} is no run folder: {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InvalidInput(f"{path} is not as a run wrote it ({str(error).splitlines()[0]}); restore the file") from error
    return {context.id: context for context in contexts}


def domain_of_run(folder: Path) -> RecipeDomain:
    """The domain of a run folder, with its settings; an imported one has no recipe, and passages.

    Raises:
        InvalidInput: Its recipe is not as a run wrote it.
    """
    path = folder / "recipe.yaml"
    if not path.exists():
        return open_domain("knowledge", GridSettings())
    try:
        recipe = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(recipe, dict)
        return open_domain(str(recipe.get("domain", "knowledge")), GridSettings(**recipe.get("grids", {})))
    except (YAMLError, OmegaConfBaseException, TypeError, AssertionError) as error:
        raise InvalidInput(f"{path} is not as a run wrote it ({error}); restore the file") from error


def check_run_folder(settings: RecipeSettings) -> None:
    """See that the run folder can be made or continued, without making it.

    Raises:
        InvalidInput: Its name is no folder name, it cannot be written, or it belongs to a different recipe.
    """
    if Path(settings.name).name != settings.name or settings.name in ("", ".", ".."):
        raise InvalidInput(f"name is {settings.name!r}; it must be a plain folder name")
    path = Path(settings.runs) / settings.name
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InvalidInput(f"run folder {path} cannot be written ({existing} is no folder you may write); choose another with runs=DIR")
    recipe = path / "recipe.yaml"
    if recipe.exists():
        _refuse_changes(recipe, settings)
    elif path.exists() and any(item.name not in _BEFORE_RECIPE for item in path.iterdir()):
        raise InvalidInput(f"{path} exists and is no run folder (it has no recipe.yaml); choose another name=...")


def _refuse_other_inputs(path: Path, inputs: Mapping[str, str]) -> None:
    if not path.exists() or not (path.parent / "recipe.yaml").exists():
        return
    known = json.loads(path.read_text())
    changed = sorted(key for key in known.keys() | inputs.keys() if known.get(key) != inputs.get(key))
    if changed:
        raise InvalidInput(
            f"{', '.join(changed)} changed since {path.parent} was begun; restore what it was, delete {path.parent}, "
            "or give the run another name=..."
        )


_DECIDE_NOTHING = {
    *(f"judge.{name}" for name in ("batch_size", "timeout", "retries", "cache", "max_missing")),
    "distributed.join_seconds",
    *("inbox", "every", "window", "once", "settle_seconds", "max_mb"),
}
"""Settings that may change while a run goes on: no figure depends on them."""
_OF_SERVICES = {item.name for item in fields(Serve)} - {item.name for item in fields(RecipeSettings)} - {"student"}
"""The same, of a service: `watch` has a `line` that may not change."""


def decides_nothing(key: str) -> bool:
    """A student may be moved; it is known by its card. So may a teacher's endpoint; it is known by its model's name."""
    group, _, name = key.rpartition(".")
    moved = group.endswith(".endpoint") and name != "model"
    return key in _DECIDE_NOTHING or name in ("exchange", "token_env") or moved


def _refuse_changes(recipe: Path, settings: RecipeSettings) -> None:
    old = _flat(OmegaConf.to_container(OmegaConf.load(recipe)))
    new = _flat(OmegaConf.to_container(OmegaConf.structured(settings)))
    free = _OF_SERVICES if isinstance(settings, Serve) else set[str]()
    changed = sorted(key for key in (old.keys() | new.keys()) - free if not decides_nothing(key) and old.get(key) != new.get(key))
    if "recipe" in changed:
        changed = ["recipe"]
    if changed:
        shown = "; ".join(f"{key} was {old.get(key)!r}, is now {new.get(key)!r}" for key in changed)
        raise InvalidInput(
            f"{recipe.parent} was made by a different recipe ({shown}); give the run another name=..., delete {recipe.parent}, "
            "or undo the change to continue it"
        )


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {prefix.rstrip("."): content}
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat.update(_flat(value, f"{prefix}{key}."))
    return flat
