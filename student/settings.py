"""A student's settings. No torch here: recipes and `--help` read them too."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class StudentSettings:
    """Which model learns, and how it trains on one self-edit. An edit's own `update` goes before these.

    The defaults are the published setting (SEAL, knowledge incorporation): LoRA r=32, alpha=64, AdamW at 1e-3, ten
    epochs at batch size 1, linear decay.

    Attributes:
        model: Folder or hub name of the base model, frozen throughout.
        revision: Hub revision, so that a result names the weights it was measured on.
        dtype: `float32`, `bfloat16` or `float16`.
        trust_remote_code: Run code that a hub model brings along. Off unless you have read it.
        chat: Put prompts into the model's own chat template, each as a user's message: questions, and examples that have a prompt.
        warmup_steps: The learning rate rises from 0 over so many optimizer steps before it follows `schedule`.
        targets: Linear layers that get an adapter: `all-linear`, `default` (PEFT's choice for the model), or names
            joined by commas.
        loss_on: `all` or `completion`; where the loss falls when an example has a prompt.
        inner_loop: `cohort` trains many self-edits at once, `single` one after the other by TRL's `SFTTrainer`; `auto`
            takes the cohort where it can, and says why if it cannot.
        cohort: Self-edits trained at once; null chooses from `cohort_tokens` and free memory.
        cohort_tokens: Tokens that a cohort's step should have, on average.
        deepspeed: For a student too large for one device: `zero3` or another DeepSpeed configuration, under which all processes
            together train one inner loop after the other. With null each process trains cohorts of its own.
        save_every: Optimizer steps between checkpoints of a lasting update, from which it goes on after a crash.
        seal_compat: Pad every sequence to `max_example_tokens` and train on the padding, as the published code does. For
            comparisons: it is slow, most of its loss is end-of-text, and `loss_on` is `all`.
        answer_batch: Questions answered at once.
        max_steps, max_examples, max_example_tokens, max_step_tokens, max_rank: What an edit may ask for; more is refused.
        long_examples: `refuse` an edit with a longer example, or `truncate` the example or `drop` it, and count it in the reward.
        merge: Save lasting updates as whole models instead of PEFT folders.
    """

    model: str = ""
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    trust_remote_code: bool = False
    chat: bool = False
    rank: int = 32
    alpha: int = 64
    dropout: float = 0.0
    targets: str = "all-linear"
    learning_rate: float = 1e-3
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = 0
    epochs: int = 10
    batch_size: int = 1
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    loss_on: Literal["all", "completion"] = "all"
    inner_loop: Literal["auto", "cohort", "single"] = "auto"
    cohort: int | None = None
    cohort_tokens: int = 4096
    deepspeed: str | None = None
    save_every: int = 50
    seal_compat: bool = False
    answer_batch: int = 256
    max_steps: int = 2000
    max_examples: int = 256
    max_example_tokens: int = 2048
    max_step_tokens: int = 32768
    max_rank: int = 256
    long_examples: Literal["refuse", "truncate", "drop"] = "refuse"
    merge: bool = False
