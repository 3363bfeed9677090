"""Recipe files: YAML, read by OmegaConf into typed settings. Torch-free, so that a mistake is answered at once."""

import difflib
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from protocol.address import refuse_secrets
from protocol.errors import InvalidInput
from recipes.base_settings import RecipeSettings
from recipes.compare_settings import BASELINES
from recipes.graders.settings import JudgeSettings
from recipes.settings import RECIPES
from student.settings import StudentSettings
from teacher.settings import EndpointSettings

_AT_LEAST_ONE = (
    "samples repeats held_out_repeats held_out_candidates "
    "threads contexts_per_round candidates keep_per_context limit lasting_epochs rank alpha epochs "
    "batch_size accumulation cohort cohort_tokens answer_batch max_new_tokens max_steps max_examples max_example_tokens "
    "max_step_tokens max_rank steps save_every "
    "documents_per_step closed_book_per_step evaluate_every turns padded_to alone rows max_waiting max_body_mb max_answers "
    "row_tokens questions answer_tokens timed_steps concurrency sequences max_mb earlier"
).split()
_NAMED = ("teachers", "students", "strategies")
"""Settings that are entries by name, any of which may be left out by null."""
_AT_MOST_ONE = ("learning_rate", "top_p")
_NOT_NEGATIVE = ("seed", "closed_book_weight", "lasting", "compared", "pictures", "warmup_steps", "gather_seconds", "settle_seconds")
_ABOVE_ZERO = ("lease_seconds", "learning_rate", "temperature", "max_grad_norm", "top_p", "join_seconds")


def load_recipe(path: Path, overrides: list[str]) -> RecipeSettings:
    """Read a recipe file and `key.key=value` overrides into its typed settings.

    Raises:
        InvalidInput: Names the file, the key, the value and the remedy.
    """
    content = _load_yaml(path)
    kind = str(content["recipe"])
    if kind not in RECIPES:
        raise InvalidInput(f"{path}: recipe is {kind!r}; {_did_you_mean(kind, list(RECIPES))}")
    merged = _override(_merge(OmegaConf.structured(RECIPES[kind]), content, str(path)), overrides)
    try:
        settings = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise InvalidInput(f"{path}: {_first_line(error)}") from error
    assert isinstance(settings, RecipeSettings)
    settings.name = settings.name or path.stem
    refuse_secrets("judge", settings.judge.base_url, settings.judge.api_key_env)
    _check_values(settings, str(path))
    return settings


def _load_yaml(path: Path, extended_by: tuple[Path, ...] = ()) -> DictConfig:
    """A recipe file over the one that it `extends`, if it does."""
    try:
        content = OmegaConf.load(path)
    except FileNotFoundError as error:
        known = ", ".join(sorted(str(p) for p in Path("recipes").rglob("*.yaml"))) or "none here; run from the repository root"
        raise InvalidInput(f"recipe file {str(path)!r} does not exist; recipes: {known}") from error
    except (YAMLError, UnicodeDecodeError, OSError, OmegaConfBaseException) as error:
        raise InvalidInput(f"{path} is not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, DictConfig) or not {"recipe", "extends"} & set(content):
        raise InvalidInput(f"{path} has no key 'recipe'; it is one of {', '.join(RECIPES)}")
    if "extends" not in content:
        return content
    extended = content.pop("extends")
    if not isinstance(extended, str):
        raise InvalidInput(f"{path}: extends is {extended!r}; give the file that it extends, from its own folder")
    parent = path.parent / extended
    if path.resolve() in extended_by:
        raise InvalidInput(f"{path} extends itself, by way of {parent}; let one of them stand alone")
    base = _load_yaml(parent, (*extended_by, path.resolve()))
    base.pop("name", None)
    if "recipe" in content and content["recipe"] != base["recipe"]:
        raise InvalidInput(f"{path}: recipe is {content['recipe']!r}, but it extends {parent}, whose recipe is {base['recipe']!r}")
    merged = _merge(base, content, str(path))
    for group in _NAMED:
        for name, entry in list((merged.get(group) or {}).items()):
            if entry is None:  # left out of what is extended
                del merged[group][name]
    return merged


def _override(merged: DictConfig, overrides: list[str]) -> DictConfig:
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise InvalidInput(f"override {override!r} is not key=value, such as rounds=3 or student.learning_rate=5e-3")
        if key == "recipe":
            raise InvalidInput("override 'recipe' cannot be changed on the command line; use another recipe file")
        empty = "" if value.strip() else "''"  # the shell has taken the quotes
        try:
            parsed = OmegaConf.from_dotlist([override + empty])
        except (YAMLError, OmegaConfBaseException) as error:
            raise InvalidInput(f"override {override!r} has a value that is not YAML; quote it") from error
        if _drop_entry(merged, key, parsed):
            continue
        merged = _merge(merged, parsed, "command line")
    return merged


def _drop_entry(merged: DictConfig, key: str, parsed: DictConfig) -> bool:
    """Take `teachers.NAME=null` as leaving that one out, and so with students and strategies."""
    group, _, name = key.strip().partition(".")
    entries = merged.get(group) if group in _NAMED else None
    if entries is None or name not in entries or parsed[group][name] is not None:
        return False
    del entries[name]
    return True


def load_judge(overrides: list[str]) -> JudgeSettings:
    """A judge's settings from `judge.key=value` words alone.

    Raises:
        InvalidInput: Names the key, the value and the remedy.
    """
    strange = [override for override in overrides if not override.startswith("judge.")]
    if strange:
        raise InvalidInput(f"{strange[0]!r} is no setting of a judge, such as judge.model=FOLDER")
    recipe = OmegaConf.to_object(_override(OmegaConf.structured(RecipeSettings), overrides))
    assert isinstance(recipe, RecipeSettings)
    refuse_secrets("judge", recipe.judge.base_url, recipe.judge.api_key_env)
    return recipe.judge


def to_yaml(settings: RecipeSettings) -> str:
    """The resolved recipe as YAML."""
    return str(OmegaConf.to_yaml(OmegaConf.structured(settings)))


def _merge(base: DictConfig, content: Any, place: str) -> DictConfig:
    try:
        merged = OmegaConf.merge(base, content)
    except ConfigKeyError as error:
        key = str(error.full_key)
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(base, parent) if parent else base
        known = list(node) if isinstance(node, DictConfig) else list(StudentSettings.__dataclass_fields__)
        raise InvalidInput(f"{place}: unknown key {key!r}; {_did_you_mean(last, [str(k) for k in known])}") from error
    except (OmegaConfBaseException, TypeError) as error:
        where = f"{error.full_key}: " if isinstance(error, OmegaConfBaseException) and error.full_key else ""
        raise InvalidInput(f"{place}: {where}{_first_line(error)}{_remedy(error)}") from error
    assert isinstance(merged, DictConfig)
    return merged


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"it is one of {', '.join(known)}"


def _remedy(error: Exception) -> str:
    """What to write instead, for OmegaConf's commonest complaints."""
    said = str(error)
    if "is not a ListConfig" in said:
        return "; give a list, such as [one,two]"
    if "Cannot convert 'DictConfig' to string" in said:
        return "; put a text in quotes that ends in a colon or has braces"
    return "; an empty text is written as ''" if "Incompatible value 'None' for field of type 'str'" in said else ""


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _check_values(settings: Any, place: str, prefix: str = "") -> None:
    """Ranges, all the way down."""
    if hasattr(settings, "check"):
        settings.check(place, prefix)
    if isinstance(settings, EndpointSettings):
        refuse_secrets(prefix.rstrip("."), settings.base_url, settings.api_key_env)
        _check_endpoint_values(settings, place, prefix)
    for item in fields(settings):
        value, key = getattr(settings, item.name), prefix + item.name
        if hasattr(value, "__dataclass_fields__"):
            _check_values(value, place, key + ".")
        elif isinstance(value, dict):
            for name, entry in value.items():
                if hasattr(entry, "__dataclass_fields__"):
                    _check_values(entry, place, f"{key}.{name}.")
        if item.name in _AT_LEAST_ONE and value is not None and value < 1:
            raise InvalidInput(f"{place}: {key} is {value}; it must be at least 1")
        if item.name in _ABOVE_ZERO and not 0 < value < float("inf"):
            raise InvalidInput(f"{place}: {key} is {value}; it must be a number above 0")
        if item.name in _AT_MOST_ONE and value > 1:
            raise InvalidInput(f"{place}: {key} is {value}; it must be in (0, 1]")
        if item.name in _NOT_NEGATIVE and value < 0:
            raise InvalidInput(f"{place}: {key} is {value}; it must not be negative")
        if item.name == "baselines" and (strange := [name for name in value if name not in BASELINES]):
            raise InvalidInput(f"{place}: {key} has {strange[0]!r}; {_did_you_mean(strange[0], list(BASELINES))}")
        if item.name == "seeds" and (not value or min(value) < 0 or len(set(value)) < len(value)):
            raise InvalidInput(f"{place}: {key} is {value}; give different seeds, none negative")
        if item.name == "give_up_below" and not 0 <= value < 0.5:
            raise InvalidInput(f"{place}: {key} is {value}; it must be in [0, 0.5)")
        if item.name == "dropout" and not 0 <= value < 1:
            raise InvalidInput(f"{place}: {key} is {value}; it must be in [0, 1)")
        if item.name == "rank" and value > getattr(settings, "max_rank", value):
            raise InvalidInput(f"{place}: {key} is {value}, above {prefix}max_rank, which is {settings.max_rank}")


def _check_endpoint_values(settings: EndpointSettings, place: str, prefix: str) -> None:
    if not 0 < settings.timeout < float("inf"):
        raise InvalidInput(f"{place}: {prefix}timeout is {settings.timeout}; it must be above 0, in seconds")
    for name in ("retries", "price_in", "price_out", "budget"):
        value = getattr(settings, name)
        if value is not None and not 0 <= value < float("inf"):
            raise InvalidInput(f"{place}: {prefix}{name} is {value}; it must not be negative")
