"""A version of a line for others: a PEFT folder, or the whole model that it makes, each with a model card."""

import json
import os
import shutil
from pathlib import Path
from typing import Final

from safetensors import SafetensorError

from protocol.errors import InvalidInput
from protocol.files import MANIFEST, sync, write_text
from recipes.model_card import ADAPTER, Base, write_card
from student.version_answers import ANSWERS
from student.version_history import History

_NOT_PUBLISHED: Final = (ANSWERS, MANIFEST)
"""What belongs to the line. The questions may be somebody's test."""


def publish_version(history: History, number: int, output: Path, merge: bool) -> str:
    """Write a version to a new folder, whole or not at all.

    Args:
        merge: Write the whole model. A version that is one already stays what it is.

    Returns:
        What it was written as.

    Raises:
        InvalidInput: There is no such version, or it is damaged; its base cannot be loaded; `output` is there or cannot be written.
    """
    if output.exists() or output.is_symlink():
        raise InvalidInput(f"{output} is there already; give a new folder, or remove it first")
    if history.path.resolve() in output.resolve().parents:
        raise InvalidInput(f"{output} is in the line's own folder; give one elsewhere")
    version = history.open_version(number)
    base = _read_base(version)
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        unfinished.mkdir(parents=True)
        if merge and (version / ADAPTER).exists():
            _save_merged(version, base, unfinished)
        else:
            shutil.copytree(version, unfinished, ignore=shutil.ignore_patterns(*_NOT_PUBLISHED), dirs_exist_ok=True)
        write_text(unfinished / "README.md", write_card(history, number, base, unfinished, output.name))
        for item in (unfinished, *unfinished.rglob("*")):
            sync(item)
        unfinished.rename(output)
        sync(output.parent)
    except OSError as error:
        raise InvalidInput(f"{output} cannot be written ({error.strerror or error}); choose another folder") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return "a PEFT folder" if (output / ADAPTER).exists() else "a whole model"


def _read_base(version: Path) -> Base:
    path = version / (ADAPTER if (version / ADAPTER).exists() else "config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return Base(str(config.get("base_model_name_or_path") or config.get("_name_or_path") or ""), config.get("revision"))
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidInput(f"{path} is no configuration of an adapter or a model ({error})") from error


def _save_merged(version: Path, base: Base, unfinished: Path) -> None:
    """Write adapter and base as one model, in the base's own dtype, with the tokenizer."""
    import transformers
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    transformers.utils.logging.disable_progress_bar()
    try:
        whole = AutoModelForCausalLM.from_pretrained(base.model, revision=base.revision, dtype="auto", use_safetensors=True)
        merged = PeftModel.from_pretrained(whole, str(version)).merge_and_unload(safe_merge=True)
        if (version / "tokenizer_config.json").exists():
            tokenizer = AutoTokenizer.from_pretrained(version)
        else:
            tokenizer = AutoTokenizer.from_pretrained(base.model, revision=base.revision)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        problem = next(iter(str(error).splitlines()), type(error).__name__)
        raise InvalidInput(
            f"{version} cannot be merged into its base {base.model!r} ({problem:.300}); "
            f"run this where that model is found by the name in {ADAPTER}, or leave out --merge"
        ) from error
    merged.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
