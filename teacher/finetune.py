"""The M step: supervised finetuning of a teacher on its best self-edits, by one process or by all that were launched together.

Source: SEAL, arXiv 2506.10943, section 3.1: ReST-EM's M step is SFT on the kept self-edits.
"""

import gc
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl import SFTConfig, SFTTrainer
from trl.data_utils import common_prefix_length

from protocol.errors import TutelageError
from protocol.files import confirm_checkpoint, last_whole_checkpoint, publish_folder
from protocol.processes import check_company, is_first_process, launched_processes
from protocol.prompts import tokenize
from teacher.loading import load
from teacher.settings import FinetuneSettings, TeacherSettings

logger = logging.getLogger(__name__)

IGNORED = -100

Row = dict[str, list[int]]


@dataclass(frozen=True)
class Finetuned:
    """What came of a finetuning, as one process saw it.

    Attributes:
        loss: Mean training loss, nats per token; its mean over processes is that of all pairs. None where a checkpoint was gone on from,
            which does not tell it.
        zero_stage: Of DeepSpeed; None without it.
        optimizer_elements: Numbers in the optimizer's state that this process held.
        trained_elements: Numbers in the weights that were trained, by all processes together.
    """

    loss: float | None
    zero_stage: int | None
    optimizer_elements: int
    trained_elements: int


class _Progress(TrainerCallback):
    """Tells of steps, and confirms checkpoints once all processes have written their part."""

    def __init__(self, on_step: Callable[[], None]):
        self._on_step = on_step

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._on_step()

    def on_save(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        confirm_checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}", args.distributed_state.wait_for_everyone)


def finetune(
    teacher: TeacherSettings,
    pairs: Sequence[tuple[str, str]],
    settings: FinetuneSettings,
    seed: int,
    output: Path,
    deepspeed: str | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> Finetuned:
    """Train on (prompt, completion) pairs, loss on the completions, and save to `output` whole or not at all.

    Checkpoints go into a folder beside `output`; a training that was killed goes on from the last whole one.

    Args:
        deepspeed: A DeepSpeed configuration file.
        on_step: Called after every optimizer step, for progress.

    Raises:
        InvalidInput: An adapter does not fit, there is no chat template, or the batch does not divide by the processes.
        TutelageError: The processes trained without each other, or without the optimizer state partitioned as was asked.
    """
    checkpoints = output.with_name(output.name + ".training")
    with _leaving_no_trace():
        arguments = _arguments(teacher, settings, seed, checkpoints, deepspeed)  # first: ZeRO stage 3 changes how models are loaded
        model, tokenizer = load(teacher)
        model = _make_trainable(model, settings, seed)
        trainer = SFTTrainer(
            model=model.to(arguments.device) if deepspeed is None else model,
            args=arguments,
            train_dataset=Dataset.from_list(arrange_rows(encode(pairs, tokenizer, teacher.chat), settings, seed)),
            processing_class=tokenizer,
            callbacks=[_Progress(on_step)],
        )
        trainer.remove_callback(PrinterCallback)
        check_company(trainer.accelerator.num_processes)
        # The first process chooses where to go on, so that all go on from there.
        (resumed,) = broadcast_object_list([last_whole_checkpoint(checkpoints) if is_first_process() else None])
        loss = trainer.train(resume_from_checkpoint=resumed and str(resumed)).training_loss
        result = _inspect(trainer, None if resumed else loss)
        _save(trainer, output)
        if is_first_process():
            shutil.rmtree(checkpoints, ignore_errors=True)
        if trainer.deepspeed is not None:
            trainer.deepspeed.destroy()
    return result


def encode(pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase, chat: bool = False) -> list[Row]:
    """Token ids and labels of each pair, as TRL has them: end of text is learned, and a completion starts where its tokens depart
    from those of the prompt alone.
    """
    rows = []
    for prompt, completion in pairs:
        closed = completion if completion.endswith(tokenizer.eos_token) else completion + tokenizer.eos_token
        (start,), (whole,) = (tokenize(tokenizer, [prompt], chat, then).input_ids for then in ("", closed))
        length = common_prefix_length(start, whole)
        rows.append({"input_ids": whole, "labels": [IGNORED] * length + whole[length:]})
    return rows


def arrange_rows(rows: Sequence[Row], settings: FinetuneSettings, seed: int) -> list[Row]:
    """The rows of all epochs in the order in which they are trained, whatever the number of processes.

    Epoch `e` goes in the order that accelerate's seedable sampler draws from `seed + e`. A last step that is not full gets rows
    that teach nothing: the loss is a mean over the step's labelled tokens, so they change nothing either.
    """
    empty = {"input_ids": rows[0]["input_ids"][:1], "labels": [IGNORED]}
    arranged: list[Row] = []
    for epoch in range(settings.epochs):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed + epoch)).tolist()
        arranged += [rows[i] for i in order] + [empty] * (-len(rows) % settings.step_size)
    return arranged


def _make_trainable(model: Any, settings: FinetuneSettings, seed: int) -> Any:
    """Give the model an adapter to train, or go on with the one it has; or open all of its weights."""
    if not settings.lora and isinstance(model, PeftModel):
        model = model.merge_and_unload()
    if settings.lora and not isinstance(model, PeftModel):
        targets, named = settings.targets, {"all-linear": "all-linear", "default": None}
        lora = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=named[targets] if targets in named else [name.strip() for name in targets.split(",")],
            task_type="CAUSAL_LM",
        )
        torch.manual_seed(seed)
        model = get_peft_model(model, lora)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not settings.lora or "lora_" in name)
    return model


def _arguments(teacher: TeacherSettings, settings: FinetuneSettings, seed: int, output: Path, deepspeed: str | None) -> SFTConfig:
    micro_batch, accumulation = settings.divide(launched_processes())
    return SFTConfig(
        output_dir=str(output),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        max_grad_norm=settings.max_grad_norm,
        activation_checkpointing=settings.activation_checkpointing,
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
        bf16=teacher.dtype == "bfloat16",
        deepspeed=deepspeed,
        ddp_find_unused_parameters=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        logging_strategy="no",
        save_strategy="steps",
        save_steps=settings.save_every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )


def _inspect(trainer: SFTTrainer, loss: float | None) -> Finetuned:
    """See that ZeRO did what it is for."""
    trained = sum(getattr(p, "ds_numel", p.numel()) for p in trainer.model.parameters() if p.requires_grad)
    optimizer = trainer.optimizer
    while hasattr(optimizer, "optimizer"):  # the wrappers of accelerate and DeepSpeed
        optimizer = optimizer.optimizer
    held = sum(value.numel() for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor))
    stage = trainer.deepspeed.zero_optimization_stage() if trainer.deepspeed is not None else None
    result = Finetuned(loss, stage, held, trained)
    logger.info("finetuned by %d processes: %s", launched_processes(), result)
    if stage and launched_processes() > 1 and held > 1.5 * trained:  # AdamW has two numbers for each
        raise TutelageError(f"ZeRO stage {stage} left {held} numbers of optimizer state in one process, for {trained} that are trained")
    return result


def _save(trainer: SFTTrainer, output: Path) -> None:
    """Write the adapter or the model to `output` whole or not at all."""
    unfinished = output.with_name(output.name + ".tmp")
    if is_first_process():
        shutil.rmtree(unfinished, ignore_errors=True)
    trainer.save_model(str(unfinished))
    if is_first_process():
        (unfinished / "training_args.bin").unlink(missing_ok=True)
        publish_folder(unfinished, output)
    trainer.accelerator.wait_for_everyone()


@contextmanager
def _leaving_no_trace() -> Iterator[None]:
    """After a training DeepSpeed would go on deciding how models are loaded and how linear layers compute, and hold this one."""
    linear = torch.nn.functional.linear
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        torch.nn.functional.linear = linear
        if "deepspeed" in sys.modules:
            from deepspeed.runtime.zero import parameter_offload

            parameter_offload.FWD_MODULE_STACK.clear()
        gc.collect()
