"""What is left of a lasting update: a PEFT folder, or a merged model."""

import shutil
from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForCausalLM

from protocol.files import publish_folder
from protocol.processes import is_first_process
from student.base import FrozenBase, gathered
from student.settings import StudentSettings


def save_version(base: FrozenBase, settings: StudentSettings, path: Path) -> None:
    """Write the trained adapter, or the model that it makes, to `path` whole or not at all. All launched processes call it."""
    unfinished, adapter = path.with_name(path.name + ".tmp"), path.with_name(path.name + ".adapter")
    with gathered(weight for name, weight in base.model.named_parameters() if "lora_" in name):
        if is_first_process():
            for leftover in (unfinished, adapter):
                shutil.rmtree(leftover, ignore_errors=True)
            base.model.save_pretrained(unfinished)
    if is_first_process():
        if settings.merge:
            unfinished.rename(adapter)
            options = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
            whole = AutoModelForCausalLM.from_pretrained(settings.model, dtype=settings.dtype, **options)
            PeftModel.from_pretrained(whole, adapter).merge_and_unload().save_pretrained(unfinished)
            shutil.rmtree(adapter)
        base.tokenizer.save_pretrained(unfinished)
        publish_folder(unfinished, path)
        shutil.rmtree(path.with_name(path.name + ".training"), ignore_errors=True)
