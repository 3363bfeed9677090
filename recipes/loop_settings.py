"""What the recipes may set that train a teacher. Torch-free."""

from dataclasses import dataclass, field

from protocol.errors import InvalidInput
from recipes.base_settings import DataSettings
from recipes.feedback_rules import FeedbackRules
from recipes.sandbox import Limits


@dataclass
class NetReward:
    """What a self-edit pays for what it does elsewhere. With weights of 0 nothing is asked there.

    Attributes:
        leakage: Weight of the rise of the share of the context's questions that are answered as it taught although asked about others.
        retention: Weight of the accuracy lost on what the student knew before.
        others: How many others each context's questions are asked about.
        known: Contexts whose questions the student knows before; none of those that are measured in the end.
        known_each: How many of them are asked with each self-edit.
    """

    leakage: float = 0.0
    retention: float = 0.0
    others: int = 2
    known: DataSettings = field(default_factory=DataSettings)
    known_each: int = 2

    @property
    def is_weighted(self) -> bool:
        return bool(self.leakage or self.retention)

    def check(self, place: str, prefix: str) -> None:
        """Ranges.

        Raises:
            InvalidInput: Names the key and the value.
        """
        for name in ("leakage", "retention"):
            if not 0 <= getattr(self, name) <= 100:
                raise InvalidInput(f"{place}: {prefix}{name} is {getattr(self, name)}; it must be in [0, 100]")
        for name in ("others", "known_each"):
            if not 1 <= getattr(self, name) <= 32:
                raise InvalidInput(f"{place}: {prefix}{name} is {getattr(self, name)}; it must be in 1 to 32")
        if self.retention and not self.known.source:
            raise InvalidInput(
                f"{place}: {prefix}retention is {self.retention}, but {prefix}known.source is empty; say what the student knows"
            )


@dataclass
class UseSettings:
    """Self-edits whose students have been in use. They make a round of their own, before the others.

    Attributes:
        line: A student's versions, whose self-edits they are; empty leaves use out.
        feedback: JSONL files of what was said of its answers (`protocol.feedback`).
        test: A command that looks at each answer that a version gave about what it had learned (`recipes.answer_tests`).
        limits: Of the command.
        rules: What a piece of feedback is worth, a test's verdict too.
        weight: Of the reward from use; the rest is of that from questions, which takes inner loops. With 1 use alone counts.
        minimum: What is worth less is not kept. A self-edit that nobody spoke of is worth nothing that could be compared.
    """

    line: str = ""
    feedback: list[str] = field(default_factory=list)
    test: list[str] | None = None
    limits: Limits = field(default_factory=Limits)
    rules: FeedbackRules = field(default_factory=FeedbackRules)
    weight: float = 1.0
    minimum: float = 0.1

    def check(self, place: str, prefix: str) -> None:
        """Ranges, and that there is something to go by.

        Raises:
            InvalidInput: Names the key and the value.
        """
        if not 0 < self.weight <= 1:
            raise InvalidInput(f"{place}: {prefix}weight is {self.weight}; it must be in (0, 1]")
        if not -1 <= self.minimum <= 1:
            raise InvalidInput(f"{place}: {prefix}minimum is {self.minimum}; rewards are in [-1, 1]")
        told = bool(self.feedback or self.test)
        if bool(self.line) != told:
            raise InvalidInput(
                f"{place}: {prefix}line is {self.line!r}, {prefix}feedback is {self.feedback} and {prefix}test is {self.test}; "
                "give a line, and files of feedback about it or a test"
            )


@dataclass
class LoopSettings:
    """The outer loop (ReST-EM). The defaults are the published setting, but for `repeats`, published as 3.

    Attributes:
        contexts_per_round: Each round takes its own contexts, in an order drawn from the seed; at the end it starts over.
        candidates: Self-edits sampled per context.
        keep_per_context, minimum: The M step trains on the best so many per context, if worth at least `minimum`.
        net: What a self-edit pays for what it does elsewhere.
        give_up_below: With several repeats, a candidate whose chance to be kept falls below this gets no more of them; 0 repeats all.
    """

    rounds: int = 2
    contexts_per_round: int = 50
    candidates: int = 5
    keep_per_context: int = 1
    minimum: float | None = None
    give_up_below: float = 0.0
    net: NetReward = field(default_factory=NetReward)

    def check(self, place: str, prefix: str) -> None:
        """Ranges.

        Raises:
            InvalidInput: Names the key and the value.
        """
        if self.rounds < self.fewest_rounds:
            raise InvalidInput(f"{place}: {prefix}rounds is {self.rounds}; it must be at least {self.fewest_rounds}")

    @property
    def fewest_rounds(self) -> int:
        return 1
