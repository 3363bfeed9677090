"""What both engines tell TRL: train, quietly, and leave the base as it was."""

import gc
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer


def sft_config(device: torch.device, folder: str, **settings: Any) -> SFTConfig:
    """Settings of one training on encoded rows; nothing is logged, saved or prepared. `folder` stays empty."""
    return SFTConfig(
        output_dir=folder,
        use_cpu=device.type == "cpu",
        bf16=False,
        activation_checkpointing=False,
        router_aux_loss_coef=0.0,  # of experts: the loss is the text's alone, in both engines
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        logging_strategy="no",
        logging_nan_inf_filter=False,  # it waits for the device at every step
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **settings,
    )


def start_deepspeed() -> None:
    """Make this process one that DeepSpeed can train in, under a launcher or alone. Before any model is loaded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in alone.items():
        os.environ.setdefault(name, value)
    import deepspeed
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # optional, and would be compiled at first use
    deepspeed.init_distributed(auto_mpi_discovery=False)


@contextmanager
def training(trainer: SFTTrainer) -> Iterator[None]:
    """Around `trainer.train()`."""
    trainer.remove_callback(PrinterCallback)
    try:
        yield
    finally:
        # SFTTrainer wraps the base model's `forward` anew each time; unwrapped, a thousand inner loops nest.
        trainer.model.get_base_model().__dict__.pop("forward", None)
        trainer.model.eval()


def is_out_of_memory(error: BaseException) -> bool:
    """On a GPU torch has a type for it, elsewhere only words."""
    words = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
