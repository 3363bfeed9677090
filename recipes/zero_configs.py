"""DeepSpeed configurations: those that are shipped, by name, and the user's own, checked before any work. Torch-free."""

import json
from pathlib import Path
from typing import Any

from protocol.errors import InvalidInput

SHIPPED = {path.stem: path for path in sorted((Path(__file__).parent / "zero").glob("*.json"))}

_OURS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
"""Follow from the recipe and the number of processes."""


def find_config(name: str | None) -> str | None:
    """The file of a shipped configuration, or the file that was named."""
    return None if name is None else str(SHIPPED.get(name, name))


def zero_stage(name: str | None) -> int:
    """The ZeRO stage that a configuration asks for; 0 without one."""
    path = find_config(name)
    return 0 if path is None else int(json.loads(Path(path).read_text(encoding="utf-8")).get("zero_optimization", {}).get("stage", 0))


def check_config(name: str | None, key: str, dtype: str = "float32") -> None:
    """See that a configuration can be trained with.

    Args:
        dtype: Of the model that is trained.

    Raises:
        InvalidInput: It is no file or no DeepSpeed configuration, or sets what the recipe decides.
    """
    path = find_config(name)
    if path is None:
        return
    if not Path(path).is_file():
        raise InvalidInput(f"{key} is {name!r}, which is no file; give one of {', '.join(SHIPPED)}, or a DeepSpeed configuration in JSON")
    try:
        config: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        stage = config.get("zero_optimization", {}).get("stage", 0)
    except (ValueError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"{key} {path} is no DeepSpeed configuration in JSON ({error})") from error
    if stage not in (0, 1, 2, 3):
        raise InvalidInput(f"{key} {path}: zero_optimization.stage is {stage!r}; it must be 0, 1, 2 or 3")
    for setting in _OURS:
        if config.get(setting, "auto") != "auto":
            raise InvalidInput(f'{key} {path}: {setting} is {config[setting]!r}, but the recipe\'s batch sizes decide it; make it "auto"')
    if stage == 3 and not config["zero_optimization"].get("stage3_gather_16bit_weights_on_model_save"):
        raise InvalidInput(
            f"{key} {path}: zero_optimization.stage3_gather_16bit_weights_on_model_save must be true, or no adapter could be saved"
        )
    if stage == 3 and dtype == "float16":
        raise InvalidInput(f"{key} {path} is ZeRO stage 3, which is not supported with dtype float16; use bfloat16 or float32")
    if stage == 3 and config.get("bf16", {}).get("enabled") != "auto":
        raise InvalidInput(f'{key} {path}: bf16.enabled must be "auto", so that the recipe\'s dtype decides it')
    if "optimizer" in config or "scheduler" in config:
        raise InvalidInput(f"{key} {path} has an optimizer or a scheduler, but the recipe decides them; take them out")
