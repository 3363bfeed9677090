"""What both engines tell TRL: train, quietly, and leave the base as it was."""

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PrinterCallback
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl import SFTConfig, SFTTrainer

from student.settings import StudentSettings


def sft_config(device: torch.device, folder: str, **settings: Any) -> SFTConfig:
    """Settings of one training on encoded rows in their order; nothing is logged, prepared or, if not asked for, saved in `folder`."""
    quiet = {
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
        "ddp_find_unused_parameters": False,
        "bf16": False,
        "activation_checkpointing": False,
        "router_aux_loss_coef": 0.0,  # of experts: the loss is the text's alone, in both engines
        "max_length": None,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "remove_unused_columns": False,
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,  # it waits for the device at every step
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    return SFTConfig(output_dir=folder, use_cpu=device.type == "cpu", **{**quiet, **settings})


@contextmanager
def spread_when_loaded(settings: StudentSettings, device: torch.device) -> Iterator[bool]:
    """While this lasts, a model is loaded as a DeepSpeed configuration has it; yields whether that spreads it over processes."""
    if settings.deepspeed is None:
        yield False
        return
    with tempfile.TemporaryDirectory() as folder:
        config = sft_config(device, folder, deepspeed=settings.deepspeed, bf16=settings.dtype == "bfloat16")
        try:
            yield config.hf_deepspeed_config.is_zero3()
        finally:
            unset_hf_deepspeed_config()


@contextmanager
def training(trainer: SFTTrainer) -> Iterator[None]:
    """Around `trainer.train()`."""
    trainer.remove_callback(PrinterCallback)
    try:
        yield
    finally:
        if trainer.is_deepspeed_enabled:
            unset_hf_deepspeed_config()  # or the next model to be loaded would be spread, too
            if trainer.deepspeed is not None:
                end_engine(trainer.deepspeed)
        # SFTTrainer wraps the base model's `forward` anew each time; unwrapped, a thousand inner loops nest.
        trainer.model.get_base_model().__dict__.pop("forward", None)
        trainer.model.eval()


def end_engine(engine: Any) -> None:
    """Take a DeepSpeed engine off its model; its own notes of models would keep them in memory."""
    from deepspeed.runtime.zero import parameter_offload

    engine.destroy()
    parameter_offload.FWD_MODULE_STACK.clear()


def is_out_of_memory(error: BaseException) -> bool:
    """On a GPU torch has a type for it, elsewhere only words."""
    words = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def settle_memory() -> None:
    """Give back what is of no use any more, and leave the rest out of later collections: one takes 0.2 s over all that is loaded."""
    gc.unfreeze()
    release_memory()
    gc.freeze()


def release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
