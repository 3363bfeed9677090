"""Net reward: what a self-edit taught, less what it did elsewhere, so that a teacher learns to write what teaches without harm."""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.domain import Domain
from protocol.identity import derive_seed
from protocol.messages import Change, Context, Lesson, Reward, SelfEdit
from recipes.domains import RecipeDomain
from recipes.inputs import load_data
from recipes.loop_settings import NetReward
from student.others import ask_of_others


@dataclass(frozen=True)
class Elsewhere:
    """What is asked beside a context's own questions, and what a self-edit pays for it.

    Attributes:
        known: What the student knew before; a few of them are asked with each context.
        texts: Where names of others come from.
    """

    settings: NetReward
    domain: Domain
    known: Sequence[Context]
    texts: Sequence[str]
    seed: int

    def probes(self, context: Context) -> list[Context]:
        """The same for every candidate of a context: first its questions about others, then what was known."""
        return [*self._others(context), *self._known(context)]

    def price(self, context: Context, reward: Reward) -> list[float]:
        """What each repeat pays: the weighted rise of leakage and loss of what was known, which may be negative."""
        leaked = len(self._others(context)) if self.settings.leakage else 0
        others, known = reward.probes[:leaked], reward.probes[leaked:]
        return [
            self.settings.leakage * _mean_rise(others, repeat) - self.settings.retention * _mean_rise(known, repeat)
            for repeat in range(len(reward.seeds))
        ]

    def _others(self, context: Context) -> list[Context]:
        if not self.settings.leakage:
            return []
        seed = derive_seed(self.seed, "asked about others", context.id)
        return ask_of_others(self.domain, Lesson(context=context, edit=SelfEdit()), self.texts, self.settings.others, seed)

    def _known(self, context: Context) -> list[Context]:
        if not self.settings.retention:
            return []
        draw = random.Random(derive_seed(self.seed, "known", context.id))
        return draw.sample(self.known, min(self.settings.known_each, len(self.known)))


def open_elsewhere(net: NetReward, domain: RecipeDomain, contexts: Sequence[Context], seed: int) -> Elsewhere | None:
    """What rewards are net of, if the recipe gives it any weight; names of others come from the contexts' passages."""
    if not net.is_weighted:
        return None
    known, _ = load_data(domain, net.known, "net.known", questions=True) if net.retention else ([], {})
    return Elsewhere(net, domain, known, [context.passage for context in contexts], seed)


def known_elsewhere(elsewhere: Elsewhere | None) -> dict[str, Sequence[Context]]:
    """What a run folder is to know of it."""
    return {"net.known": elsewhere.known} if elsewhere else {}


def _mean_rise(changes: Sequence[Change], repeat: int) -> float:
    return statistics.fmean(change.accuracies[repeat] - change.base_accuracy for change in changes) if changes else 0.0
