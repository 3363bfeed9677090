"""A student's settings. No torch here: recipes and `--help` read them too."""

from dataclasses import dataclass, field
from typing import Literal

from protocol.errors import InvalidInput
from protocol.messages import MOST_IN_VIEW

Strategy = Literal["constrain", "replay", "consolidate"]


@dataclass
class KeepingSettings:
    """How a student that learns update after update keeps what it knew before.

    Attributes:
        strategies: Any of these together; none merges update after update, as published. `constrain`: an update's adapter sees its inputs
            through a shield, past which little gets of what must go on as it does. `replay`: earlier self-edits are learned again, and
            where nothing should change the student is held to what its base does. `consolidate`: after every so many lessons a new
            adapter learns all of them, from the base.
        texts: How many texts the base writes of itself, to know by them what must go on as it does.
        text_tokens: Their length, at most.
        texts_from: A file of texts in their place, one JSON string on each line, or another model that writes them.
        others: How often each new lesson is told of others than its subject (distractors), where the domain can.
        left: The share of the energy of inputs that gets past a shield.
        shield_rank: How many directions of a layer's inputs a shield treats one by one; null treats all. It holds so many
            numbers per input.
        epochs: Of a constrained update, whose shield slows it down; null means the student's own.
        replayed: Rows of earlier self-edits learned again in each step.
        kept_texts, kept_others: Rows of the base's own texts and of distractors in each step, on which the student is held to its base.
        kept_weight: Of the divergence there, beside the loss.
        consolidate_every: Lessons from one consolidation to the next.
        consolidate_rank, consolidate_epochs, consolidate_batch_size, consolidate_learning_rate: How that adapter is trained.
        consolidate_texts, consolidate_others: As `kept_texts` and `kept_others`, while it is.
    """

    strategies: list[Strategy] = field(default_factory=lambda: ["constrain", "replay", "consolidate"])
    texts: int = 256
    text_tokens: int = 48
    texts_from: str | None = None
    others: int = 4
    left: float = 2e-3
    shield_rank: int | None = None
    epochs: int | None = None
    replayed: int = 0
    kept_texts: int = 0
    kept_others: int = 4
    kept_weight: float = 1.0
    consolidate_every: int = 4
    consolidate_rank: int = 24
    consolidate_epochs: int = 24
    consolidate_batch_size: int = 16
    consolidate_learning_rate: float = 1e-2
    consolidate_texts: int = 6
    consolidate_others: int = 6

    @property
    def name(self) -> str:
        """How a version's record names it."""
        return "+".join(self.strategies) or "merge"

    def check(self, place: str, prefix: str) -> None:
        """Ranges.

        Raises:
            InvalidInput: Names the key and the value.
        """
        if len(set(self.strategies)) < len(self.strategies):
            raise InvalidInput(f"{place}: {prefix}strategies is {self.strategies}; name each once")
        if not 0 < self.left < 1:
            raise InvalidInput(f"{place}: {prefix}left is {self.left}; it must be in (0, 1)")
        if not 0 < self.consolidate_learning_rate <= 1:
            raise InvalidInput(f"{place}: {prefix}consolidate_learning_rate is {self.consolidate_learning_rate}; it must be in (0, 1]")
        if not 0 <= self.kept_weight < float("inf"):
            raise InvalidInput(f"{place}: {prefix}kept_weight is {self.kept_weight}; it must not be negative")
        for name in ("texts", "text_tokens", "shield_rank", *(f"consolidate_{part}" for part in ("every", "rank", "epochs", "batch_size"))):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InvalidInput(f"{place}: {prefix}{name} is {value}; it must be at least 1")
        for name in ("others", "replayed", "kept_texts", "kept_others", "consolidate_texts", "consolidate_others"):
            if (value := getattr(self, name)) < 0:
                raise InvalidInput(f"{place}: {prefix}{name} is {value}; it must not be negative")


@dataclass
class RetrievalSettings:
    """How questions are looked up in a store.

    Attributes:
        passages: So many are in view of a question, at most.
        floor: A passage whose score is no higher is not shown. One that shares no word with the question scores 0; beyond that, what a
            score is worth depends on the store. It matters where not all that is asked about is stored: a student believes what is in
            view before what it has learned.
    """

    passages: int = 1
    floor: float = 0.0

    def check(self, place: str, prefix: str) -> None:
        """See that every value is in its range.

        Raises:
            InvalidInput: Names the place, the key, which begins with `prefix`, the value and the remedy.
        """
        if not 1 <= self.passages <= MOST_IN_VIEW:
            raise InvalidInput(f"{place}: {prefix}passages is {self.passages}; it must be in [1, {MOST_IN_VIEW}]")
        if not 0 <= self.floor < float("inf"):
            raise InvalidInput(f"{place}: {prefix}floor is {self.floor}; it must not be negative")


@dataclass
class GateSettings:
    """What an update must show before it becomes a version. Null leaves a check out.

    The defaults were set by hand on the tiny world, after trials on both splits of recipe try_gate with seed 0.

    Attributes:
        least_gain: Accuracy on its own contexts, after less before: on their questions or, if they have none, on those that the base
            writes.
        most_lost_earlier: Accuracy on contexts learned earlier, before less after.
        most_lost: The same on contexts that the student knew from the start.
        most_leaked: Of the new lessons' questions asked about others, the share answered with what is so of their subject, after less
            before.
        most_false: Of the questions about one subject, the share that is answered since as the self-edit says, where the passage says
            otherwise. Subjects are that of the passage, and all whom the self-edit names but the passage does not.
        most_drift: Divergence on texts that the base writes of itself (KL of the parent from the child, nats per token).
        unmeasured: What becomes of a check for which there is nothing to ask.
        earlier_questions, probe_questions: Of contexts learned earlier, and of those known from the start, at most so many questions are
            asked, drawn anew for every update.
        written_questions: So many questions about each new context the base writes itself, at most, with the passage in view.
        others: About how many others each new context's questions are asked, and about how many whom its self-edit names.
        drift_texts: On how many texts divergence is measured.
    """

    least_gain: float | None = 0.0
    most_lost_earlier: float | None = 0.15
    most_lost: float | None = 0.1
    most_leaked: float | None = 0.2
    most_false: float | None = 0.05
    most_drift: float | None = 0.2
    unmeasured: Literal["pass", "refuse"] = "pass"
    earlier_questions: int = 64
    probe_questions: int = 64
    written_questions: int = 12
    others: int = 4
    drift_texts: int = 64

    def check(self, place: str, prefix: str) -> None:
        """Ranges.

        Raises:
            InvalidInput: Names the key and the value.
        """
        for name in ("least_gain", "most_lost_earlier", "most_lost", "most_leaked", "most_false"):
            if (value := getattr(self, name)) is not None and not -1 <= value <= 1:
                raise InvalidInput(f"{place}: {prefix}{name} is {value}; it must be in [-1, 1], or null")
        if self.most_drift is not None and not 0 <= self.most_drift < float("inf"):
            raise InvalidInput(f"{place}: {prefix}most_drift is {self.most_drift}; it must not be negative, or null")
        if self.most_drift is not None and self.drift_texts < 1:
            raise InvalidInput(
                f"{place}: {prefix}drift_texts is {self.drift_texts}; it must be at least 1, or set {prefix}most_drift to null"
            )
        for name in ("earlier_questions", "probe_questions", "written_questions", "others", "drift_texts"):
            if (value := getattr(self, name)) < 0:
                raise InvalidInput(f"{place}: {prefix}{name} is {value}; it must not be negative")


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
