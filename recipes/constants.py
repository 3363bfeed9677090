"""Self-edits that are the same for every context: the best of some is what a teacher has to beat that does not read its context."""

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.errors import TutelageError
from protocol.exchange import Exchange
from protocol.journal import Journal
from protocol.messages import Context, Refusal, Reward
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
    """Try every text on every context; the best comes first, ties keep the earlier. What is refused is paid the floor.

    Contexts on which a grader failed do not count, for any text.

    Raises:
        TutelageError: No context is left.
    """
    tried = [(context, scoring.domain.parse(text, context)) for text in texts for context in contexts]
    requests = [make_request(scoring.task, context, edit, scoring.seed, range(scoring.repeats)) for context, edit in tried]
    results = score(exchange, requests, f"{stage} · constants", journal)
    count = len(contexts)
    rows = [results[start : start + count] for start in range(0, len(results), count)]
    counted = [i for i in range(count) if not any(isinstance(own := row[i], Refusal) and own.ungraded for row in rows)]
    if not counted:
        raise TutelageError(f"{stage}: no training context has verdicts on all constants, so none can be chosen; see that the grader works")
    values = [[result.value if isinstance(result := row[i], Reward) else scoring.domain.floor for i in counted] for row in rows]
    tried_out = [Constant(text, sum(own) / len(own)) for text, own in zip(texts, values, strict=True)]
    return sorted(tried_out, key=lambda constant: -constant.reward)
