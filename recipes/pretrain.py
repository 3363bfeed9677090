"""Pretrain a tiny language model from scratch: the checkpoints that the embedded defaults run on.

What it learns is its curriculum, in `recipes/tiny/`: people, grids, or directives for training on grids. No reward is measured here.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import IterableDataset
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast, Trainer, TrainingArguments, set_seed

from recipes.machine_settings import Pretrain
from recipes.run_folder import RunFolder
from recipes.team import Team
from recipes.terminal import console
from recipes.tiny.encoding import Encoder, Probe, share_correct


class Curriculum(Protocol):
    """What a model is pretrained on."""

    tokenizer: PreTrainedTokenizerFast
    encoder: Encoder

    def build(self, architecture: PretrainedConfig) -> torch.nn.Module:
        """The model to train, which returns logits as a transformers model does."""
        ...

    def finish(self, model: Any) -> PreTrainedModel:
        """The model to save."""
        ...

    def steps(self) -> Iterator[dict[str, Any]]:
        """An endless stream of training steps."""
        ...

    def loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Of one step."""
        ...

    def probes(self) -> dict[str, list[Probe]]:
        """What the model should learn to answer."""
        ...


def open_curriculum(settings: Pretrain) -> Curriculum:
    from recipes.tiny.learn_directives import DirectivesCurriculum
    from recipes.tiny.learn_grids import Grids
    from recipes.tiny.learn_people import People

    curricula: dict[str, Callable[[Pretrain], Curriculum]] = {"people": People, "grids": Grids, "directives": DirectivesCurriculum}
    return curricula[settings.curriculum](settings)


class TrainingStream(IterableDataset[dict[str, Any]]):
    """A curriculum's training steps."""

    def __init__(self, curriculum: Curriculum):
        self._curriculum = curriculum

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._curriculum.steps()


class PretrainTrainer(Trainer):
    """The stock `Trainer` with a curriculum's loss, evaluated by exact answers."""

    def __init__(self, *, curriculum: Curriculum, **arguments: Any):
        super().__init__(**arguments)
        self.curriculum = curriculum
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        loss = self.curriculum.loss(model, inputs)
        return (loss, {}) if return_outputs else loss

    @torch.no_grad()
    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        self.model.eval()
        metrics = {name: share_correct(self.model, self.curriculum.encoder, asked) for name, asked in self.eval_dataset.items()}
        self.model.train()
        self.log(metrics)
        return metrics


def run(settings: Pretrain, team: Team) -> None:
    """Train from scratch and save the model, its tokenizer and its losses (`training.json`) to `settings.output`."""
    with RunFolder(settings, {}, {}, team) as folder:
        set_seed(settings.seed)
        curriculum = open_curriculum(settings)
        tokenizer = curriculum.tokenizer
        architecture = AutoConfig.for_model(
            **settings.architecture,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
            max_position_embeddings=1024,
        )
        checkpoints = folder.path / "checkpoints"
        trainer = PretrainTrainer(
            model=curriculum.build(architecture),
            args=training_arguments(settings, checkpoints),
            train_dataset=TrainingStream(curriculum),
            eval_dataset=curriculum.probes(),
            data_collator=lambda steps: steps[0],
            curriculum=curriculum,
        )
        trainer.train(resume_from_checkpoint=any(checkpoints.glob("checkpoint-*")))
        output = Path(settings.output)
        curriculum.finish(trainer.model).save_pretrained(output)
        tokenizer.save_pretrained(output)
        history = [row for row in trainer.state.log_history if "loss" in row or set(row) & set(trainer.eval_dataset)]
        (output / "training.json").write_text(json.dumps(history, indent=1) + "\n")
    console.print(f"model: {output}")


def training_arguments(settings: Pretrain, checkpoints: Path) -> TrainingArguments:
    """AdamW on float32 weights, cosine decay to a twentieth."""
    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.05},
        warmup_steps=200,
        adam_beta2=0.98,
        weight_decay=0.05,
        bf16=settings.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=100,
        eval_strategy="steps",
        eval_steps=settings.evaluate_every,
        save_steps=settings.evaluate_every,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
        remove_unused_columns=False,
        seed=settings.seed,
    )
