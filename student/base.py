"""A frozen base model with one LoRA adapter that starts afresh for every inner loop."""

import gc
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from protocol.errors import InvalidInput
from student.settings import StudentSettings
from student.sft import start_deepspeed

ADAPTER = "default"


def fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """128 bits over the configuration, every weight and the tokenizer: the same wherever the same model is held."""
    settings = {k: v for k, v in model.config.to_dict().items() if k not in ("transformers_version", "_name_or_path", "dtype")}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(json.dumps([sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map], default=str).encode())
    digest.update(repr(tokenizer("A tokenizer's rules, in 12 words: \n\tcases, spaces... Ärger").input_ids).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


class FrozenBase:
    """The model, its tokenizer and the re-used adapter."""

    def __init__(self, settings: StudentSettings):
        self.settings = settings
        if settings.deepspeed is not None:
            start_deepspeed()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        options = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
        self.tokenizer = AutoTokenizer.from_pretrained(settings.model, **options)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        base: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            settings.model, dtype=getattr(torch, settings.dtype), use_safetensors=True, **options
        )
        base.requires_grad_(False)
        # What a model folder suggests for generation, a repetition penalty say, must not creep in.
        base.generation_config = GenerationConfig(eos_token_id=self.tokenizer.eos_token_id, pad_token_id=self.tokenizer.pad_token_id)
        self.fingerprint = fingerprint(base, self.tokenizer)
        try:
            self.model: PeftModel = get_peft_model(base.to(self.device), self._lora(settings.rank)).eval()
        except ValueError as error:
            raise InvalidInput(f"student.targets {settings.targets!r} or student.dropout {settings.dropout}: {error}") from error
        gc.collect()
        gc.freeze()  # garbage is collected around every training, which takes 0.2 s over all that is loaded by now

    def _lora(self, rank: int) -> LoraConfig:
        named = {"all-linear": "all-linear", "default": None}
        targets = self.settings.targets
        return LoraConfig(
            r=rank,
            lora_alpha=self.settings.alpha,
            lora_dropout=self.settings.dropout,
            target_modules=named[targets] if targets in named else [name.strip() for name in targets.split(",")],
            task_type="CAUSAL_LM",
        )

    def reset_adapter(self, rank: int, seed: int) -> None:
        """Start from LoRA's initial weights: the same for the same rank and seed, and no change to the base."""
        if rank != self.model.peft_config[ADAPTER].r:
            self.model.delete_adapter(ADAPTER)
            self.model.add_adapter(ADAPTER, self._lora(rank))
            self.model.set_adapter(ADAPTER)
        torch.manual_seed(seed)
        for layer in self.lora_layers():
            layer.reset_lora_parameters(ADAPTER, init_lora_weights=True)

    def lora_layers(self) -> list[LoraLayer]:
        """The layers that have an adapter, in the model's order."""
        return [module for module in self.model.modules() if isinstance(module, LoraLayer)]

    @property
    def parameters(self) -> int:
        """Of the base, without the adapter."""
        return sum(p.numel() for name, p in self.model.named_parameters() if "lora_" not in name)

    @property
    def positions(self) -> int:
        """The longest sequence that the model has positions for."""
        return getattr(self.model.config, "max_position_embeddings", None) or sys.maxsize

    @property
    def longest_example(self) -> int:
        """Tokens in the longest example it trains on."""
        return min(self.settings.max_example_tokens, self.positions)

    @contextmanager
    def without_adapter(self) -> Iterator[PeftModel]:
        """The base model's own behaviour."""
        with self.model.disable_adapter():
            yield self.model
