"""Loading a teacher: a base model, with or without a trained adapter."""

import json
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from protocol.errors import InvalidInput
from protocol.prompts import check_chat_template
from teacher.settings import TeacherSettings


def load(settings: TeacherSettings) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """A full model, or a PEFT folder on its base, frozen.

    Raises:
        InvalidInput: A PEFT folder does not fit on the model, or it has no chat template to put prompts in.
    """
    name, adapter = settings.model, settings.adapter
    if adapter is None and (Path(name) / "adapter_config.json").exists():
        name, adapter = json.loads((Path(name) / "adapter_config.json").read_text())["base_model_name_or_path"], name
    options = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(name, **options)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if settings.chat:
        check_chat_template(tokenizer, name, "teacher.chat")
    model = AutoModelForCausalLM.from_pretrained(name, dtype=getattr(torch, settings.dtype), use_safetensors=True, **options)
    # What a model folder suggests for generation, a repetition penalty say, must not creep in.
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    if adapter is not None:
        try:
            model = PeftModel.from_pretrained(model, adapter)
        except (RuntimeError, ValueError) as error:
            raise InvalidInput(f"teacher.adapter {adapter!r} does not fit on {name!r}: {error}") from error
    return model.eval().requires_grad_(False), tokenizer
