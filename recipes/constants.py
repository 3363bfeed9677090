"""Self-edits that are the same for every context: the best of some is what a teacher has to beat that does not read its context."""

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.exchange import Exchange
from protocol.journal import Journal
from protocol.messages import Context, Reward
from recipes.candidates import make_request
from recipes.scoring import Scoring
from recipes.stages import score


@dataclass(frozen=True)
class Constant:
    """A self-edit for every context, and its mean reward on those that it was tried on."""

    text: str
    reward: float


def choose_constant(
    scoring: Scoring, texts: Sequence[str], exchange: Exchange, contexts: Sequence[Context], stage: str, journal: Journal
) -> list[Constant]:
    """Try every text on every context; the best comes first, ties keep the earlier. What is refused is paid the floor."""
    tried = [(context, scoring.domain.parse(text, context)) for text in texts for context in contexts]
    requests = [make_request(scoring.task, context, edit, scoring.seed, range(scoring.repeats)) for context, edit in tried]
    results = score(exchange, requests, f"{stage} · constants", journal)
    values = [result.value if isinstance(result, Reward) else scoring.domain.floor for result in results]
    count = len(contexts)
    means = [sum(values[start : start + count]) / count for start in range(0, len(values), count)]
    return sorted((Constant(text, mean) for text, mean in zip(texts, means, strict=True)), key=lambda constant: -constant.reward)
