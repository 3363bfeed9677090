"""The README.md of a published version: what it is, what it learned, what was checked and how it is loaded, as the hub wants it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from recipes.terminal import printable
from student.version_history import History
from student.version_records import Check

ADAPTER: Final = "adapter_config.json"
_HUB_NAME: Final = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_MOST_TITLES: Final = 200


@dataclass(frozen=True)
class Base:
    """What an adapter belongs on: a hub name or a folder, empty where a whole model does not tell."""

    model: str = ""
    revision: str | None = None

    @property
    def is_on_hub(self) -> bool:
        return bool(_HUB_NAME.fullmatch(self.model)) and not Path(self.model).exists()


def write_card(history: History, number: int, base: Base, folder: Path, name: str) -> str:
    """The card of a version that was written to a folder, which is to be called so."""
    record, way = history.versions[number], history.ancestry(number)
    is_adapter = (folder / ADAPTER).exists()
    what = "This adapter is" if is_adapter else "In these weights is"
    checks = [_check_row(check) for check in record.checks]
    if checks:
        checks = ["| check | value | threshold | passed | reason |", "|---|---|---|---|---|", *checks]
    told = [
        f"# {_plain(name)}",
        "",
        f"Version {number} of a student that keeps learning, made by tutelage. {what} all that it learned since the untouched base.",
        "",
        f"- made: {record.time}",
        f"- base model: {_describe_base(base)}, fingerprint `{record.base}`",
        f"- fingerprint of this version: `{record.fingerprint}`",
        f"- parents: {' ← '.join(f'version {n}' if n else 'the untouched base' for n in way)}",
        f"- strategy of the last update: {_plain(record.strategy)}",
        "",
        "## What it learned",
        "",
        *_list_lessons(history, way[:-1]),
        "",
        "## Checks of the last update",
        "",
        *(checks or ["It had none."]),
        "",
        "## How to load it",
        "",
        "```python",
        *_loading_code(base, folder, name),
        "```",
    ]
    return f"---\n{_front_matter(base, is_adapter)}\n---\n\n" + "\n".join(told) + "\n"


def _front_matter(base: Base, is_adapter: bool) -> str:
    """The hub takes only hub names for a base model."""
    from huggingface_hub import ModelCardData

    known: dict[str, Any] = {}
    if base.is_on_hub:
        known = {"base_model": base.model, "base_model_relation": "adapter" if is_adapter else "finetune"}
    tags = ["tutelage", "continual-learning", *(["lora"] if is_adapter else [])]
    told = ModelCardData(library_name="peft" if is_adapter else "transformers", pipeline_tag="text-generation", tags=tags, **known)
    text: str = told.to_yaml()
    return text if known else f"{text}\n# base_model: put the base's name on the hub here before you upload this"


def _describe_base(base: Base) -> str:
    if base.is_on_hub:
        return _plain(base.model) + (f" at revision {_plain(base.revision)}" if base.revision else "")
    return f"the folder {_plain(base.model)}" if base.model else "not known by name"


def _list_lessons(history: History, numbers: list[int]) -> list[str]:
    """The titles of every version on the way, the newest first."""
    lessons = [(number, lesson) for number in numbers for lesson in history.versions[number].lessons]
    titles = list(dict.fromkeys(f"- version {number}: {_plain(lesson.title or lesson.context)}" for number, lesson in lessons))
    more = len(titles) - _MOST_TITLES
    return titles[:_MOST_TITLES] + ([f"- and {more} more"] if more > 0 else [])


def _check_row(check: Check) -> str:
    value, threshold = ("" if number is None else f"{number:.4g}" for number in (check.value, check.threshold))
    return f"| {_plain(check.name)} | {value} | {threshold} | {'yes' if check.passed else 'no'} | {_plain(check.reason)} |"


def _loading_code(base: Base, folder: Path, name: str) -> list[str]:
    place, model = json.dumps(name), json.dumps(base.model)
    revision = f", revision={json.dumps(base.revision)}" if base.revision else ""
    tokens = place if (folder / "tokenizer_config.json").exists() else model + revision
    tokenizer = f"tokenizer = AutoTokenizer.from_pretrained({tokens})"
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    if not (folder / ADAPTER).exists():
        return [imports, "", f"model = AutoModelForCausalLM.from_pretrained({place})", tokenizer]
    loads = [f"base = AutoModelForCausalLM.from_pretrained({model}{revision})", f"model = PeftModel.from_pretrained(base, {place})"]
    return ["from peft import PeftModel", imports, "", *loads, tokenizer]


def _plain(text: str) -> str:
    """Somebody else's text in Markdown, as it reads."""
    return re.sub(r"([\\`*_\[\]<>#|~&])", r"\\\1", printable(text, 200))
