"""The policy: a causal language model that writes self-edits and is finetuned on the best of them."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PrinterCallback,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer

from protocol.errors import InvalidInput
from protocol.files import publish_folder
from teacher.sampling import SeededGumbel
from teacher.settings import FinetuneSettings, TeacherSettings


class _Progress(TrainerCallback):
    def __init__(self, on_step: Callable[[], None]):
        self._on_step = on_step

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._on_step()


class Policy:
    """A teacher. Frozen unless `finetune` is called."""

    def __init__(self, settings: TeacherSettings):
        """Load a full model, or a PEFT folder on its base.

        Raises:
            InvalidInput: A PEFT folder does not fit on the model.
        """
        self.settings = settings
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        name, adapter = settings.model, settings.adapter
        if adapter is None and (Path(name) / "adapter_config.json").exists():
            name, adapter = json.loads((Path(name) / "adapter_config.json").read_text())["base_model_name_or_path"], name
        options = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
        self.tokenizer = AutoTokenizer.from_pretrained(name, **options)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model: PreTrainedModel | PeftModel = AutoModelForCausalLM.from_pretrained(
            name, dtype=getattr(torch, settings.dtype), use_safetensors=True, **options
        )
        # What a model folder suggests for generation, a repetition penalty say, must not creep in.
        self.model.generation_config = GenerationConfig(eos_token_id=self.tokenizer.eos_token_id, pad_token_id=self.tokenizer.pad_token_id)
        if adapter is not None:
            try:
                self.model = PeftModel.from_pretrained(self.model, adapter)
            except (RuntimeError, ValueError) as error:
                raise InvalidInput(f"teacher.adapter {adapter!r} does not fit on {name!r}: {error}") from error
        self.model.to(self.device).eval().requires_grad_(False)

    @property
    def fingerprint(self) -> str:
        """128 bits over all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()[:32]

    @torch.inference_mode()
    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Write one candidate per prompt, in one batch with a KV cache, until end of text or `max_new_tokens`.

        Args:
            seeds: One per prompt; the same prompt and seed give the same candidate in any batch.
        """
        batch = self.tokenizer(list(prompts), padding=True, padding_side="left", return_tensors="pt").to(self.device)
        processors = LogitsProcessorList([TemperatureLogitsWarper(self.settings.temperature)])
        if self.settings.top_p < 1:
            processors.append(TopPLogitsWarper(self.settings.top_p))
        processors.append(SeededGumbel(seeds))
        output: Any = self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            logits_processor=processors,
            max_new_tokens=self.settings.max_new_tokens,
        )
        texts: list[str] = self.tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return texts

    def finetune(
        self,
        pairs: Sequence[tuple[str, str]],
        settings: FinetuneSettings,
        seed: int,
        output: Path,
        on_step: Callable[[], None] = lambda: None,
    ) -> float:
        """Train on (prompt, completion) pairs, loss on the completions, and save to `output` whole or not at all.

        Source: SEAL, arXiv 2506.10943, section 3.1: ReST-EM's M step is SFT on the kept self-edits.

        Args:
            on_step: Called after every optimizer step, for progress.

        Returns:
            Mean training loss, nats per token.
        """
        self._make_trainable(settings, seed)
        unfinished = output.with_name(output.name + ".tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        rows = [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]
        trainer = SFTTrainer(
            model=self.model,
            args=self._arguments(settings, seed, unfinished),
            train_dataset=Dataset.from_list(rows),
            processing_class=self.tokenizer,
            callbacks=[_Progress(on_step)],
        )
        trainer.remove_callback(PrinterCallback)
        loss: float = trainer.train().training_loss
        inner = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        inner.__dict__.pop("forward", None)  # SFTTrainer wraps it anew each round
        self.model.eval().requires_grad_(False)
        self.model.save_pretrained(unfinished)
        self.tokenizer.save_pretrained(unfinished)
        publish_folder(unfinished, output)
        return loss

    def _make_trainable(self, settings: FinetuneSettings, seed: int) -> None:
        """Give the model an adapter to train, or go on with the one it has; or open all of its weights."""
        if not settings.lora and isinstance(self.model, PeftModel):
            self.model = self.model.merge_and_unload()
        if settings.lora and not isinstance(self.model, PeftModel):
            targets, named = settings.targets, {"all-linear": "all-linear", "default": None}
            lora = LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                target_modules=named[targets] if targets in named else [name.strip() for name in targets.split(",")],
                task_type="CAUSAL_LM",
            )
            torch.manual_seed(seed)
            self.model = get_peft_model(self.model, lora)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not settings.lora or "lora_" in name)

    def _arguments(self, settings: FinetuneSettings, seed: int, output: Path) -> SFTConfig:
        return SFTConfig(
            output_dir=str(output),
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.accumulation,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.schedule,
            max_grad_norm=settings.max_grad_norm,
            activation_checkpointing=settings.activation_checkpointing,
            seed=seed,
            use_cpu=self.device.type == "cpu",
            bf16=self.model.dtype == torch.bfloat16,
            max_length=None,
            completion_only_loss=True,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
