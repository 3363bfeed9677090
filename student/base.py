"""A frozen base model with one LoRA adapter that starts afresh for every inner loop."""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from protocol.errors import InvalidInput
from protocol.prompts import check_chat_template
from student.settings import StudentSettings
from student.sft import end_engine, settle_memory, spread_when_loaded

ADAPTER = "default"


def fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """128 bits over the configuration, every weight and the tokenizer: the same wherever the same model is held."""
    settings = {k: v for k, v in model.config.to_dict().items() if k not in ("transformers_version", "_name_or_path", "dtype")}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(json.dumps([sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map], default=str).encode())
    digest.update(repr(tokenizer("A tokenizer's rules, in 12 words: \n\tcases, spaces... Ärger").input_ids).encode())
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        with gathered([tensor]):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def gathered(parameters: Iterable[torch.Tensor]) -> AbstractContextManager[None]:
    """Parameters that ZeRO stage 3 has spread over processes are whole while this lasts. All processes must ask for them."""
    spread = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not spread:
        return nullcontext()
    import deepspeed

    whole: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(spread)
    return whole


class FrozenBase:
    """The model, its tokenizer and the re-used adapter.

    Attributes:
        spread: Whether ZeRO stage 3 has spread the model over all processes. Then all of them must do the same.
    """

    def __init__(self, settings: StudentSettings):
        self.settings = settings
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        options = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
        self.tokenizer = AutoTokenizer.from_pretrained(settings.model, **options)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if settings.chat:
            check_chat_template(self.tokenizer, settings.model, "student.chat")
        with spread_when_loaded(settings, self.device) as self.spread:
            base: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                settings.model, dtype=getattr(torch, settings.dtype), use_safetensors=True, **options
            )
        base.requires_grad_(False)
        # What a model folder suggests for generation, a repetition penalty say, must not creep in.
        base.generation_config = GenerationConfig(eos_token_id=self.tokenizer.eos_token_id, pad_token_id=self.tokenizer.pad_token_id)
        self.fingerprint = fingerprint(base, self.tokenizer)
        try:
            held = base if self.spread else base.to(self.device)
            self.model: PeftModel = get_peft_model(held, self._lora(settings.rank)).eval()
        except ValueError as error:
            raise InvalidInput(f"student.targets {settings.targets!r} or student.dropout {settings.dropout}: {error}") from error
        settle_memory()

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
        if rank != self.model.peft_config[ADAPTER].r or self.spread:  # an adapter that was spread cannot be written to
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
        return sum(getattr(p, "ds_numel", p.numel()) for name, p in self.model.named_parameters() if "lora_" not in name)

    @property
    def positions(self) -> int:
        """The longest sequence that the model has positions for."""
        return getattr(self.model.config, "max_position_embeddings", None) or sys.maxsize

    @property
    def longest_example(self) -> int:
        """Tokens in the longest example it trains on."""
        return min(self.settings.max_example_tokens, self.positions)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Around answering: where the model is spread over processes, each layer is gathered when it is needed."""
        if not self.spread:
            yield
            return
        import deepspeed

        config = {
            "train_batch_size": dist.get_world_size(),
            "zero_optimization": {"stage": 3},
            "bf16": {"enabled": self.settings.dtype == "bfloat16"},
        }
        engine, *_ = deepspeed.initialize(model=self.model, config=config)
        try:
            yield
        finally:
            end_engine(engine)

    @contextmanager
    def without_adapter(self) -> Iterator[PeftModel]:
        """The base model's own behaviour."""
        with self.model.disable_adapter():
            yield self.model
