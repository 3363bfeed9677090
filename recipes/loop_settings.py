"""What the recipes may set that train a teacher. Torch-free."""

from dataclasses import dataclass, field

from protocol.errors import InvalidInput
from recipes.base_settings import DataSettings


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
