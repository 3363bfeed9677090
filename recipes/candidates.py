"""From a teacher's text to what a student is asked to do with it: recorded, read, requested. Torch-free."""

from collections.abc import Iterable, Sequence

from protocol.domain import Domain
from protocol.errors import MalformedEdit
from protocol.identity import derive_seed
from protocol.journal import CandidateRecord
from protocol.messages import Context, Provenance, RewardRequest, SelfEdit, Task
from recipes.domains.files import clean

MAX_JOURNALED_CHARACTERS = 200_000
HELD_OUT = "/held-out"
"""How stages end in which frozen teachers write about held-out contexts."""


def record_candidate(domain: Domain, context: Context, text: str, stage: str, index: int, seed: int, style: str) -> CandidateRecord:
    """A candidate as it is journaled: whatever it is, it is kept, with the reason if it is no self-edit."""
    text = clean(text)
    malformed = None
    try:
        domain.parse(text, context)
    except MalformedEdit as error:
        malformed = str(error)
    kept = text[:MAX_JOURNALED_CHARACTERS]
    return CandidateRecord(stage=stage, context=context.id, index=index, seed=seed, style=style, text=kept, malformed=malformed)


def read_edit(record: CandidateRecord, domain: Domain, context: Context) -> SelfEdit | None:
    """The self-edit of a candidate as its student learns it, or None if it is malformed or the editor refused it."""
    if record.unusable is not None:
        return None
    edit = domain.parse(record.text, context)
    if record.decision and record.decision.kept is not None:
        edit = edit.model_copy(update={"examples": tuple(edit.examples[i] for i in record.decision.kept)})
    return edit.model_copy(update={"provenance": Provenance(teacher=record.stage, style=record.style, seed=record.seed)})


def make_request(
    task: Task, context: Context, edit: SelfEdit, seed: int, repeats: Iterable[int], probes: Sequence[Context] = ()
) -> RewardRequest:
    """A request whose seeds depend on the context and the repeat alone: common random numbers for all its candidates.

    They do not depend on what was looked up for its questions: whatever is in view, it is the same adapter that is asked.

    Args:
        repeats: Which repeats are to be run, counted from 0.
    """
    seeds = tuple(derive_seed(seed, "inner loop", context.unaided.id, repeat) for repeat in repeats)
    return RewardRequest(task=task, context=context, edit=edit, seeds=seeds, probes=tuple(probes))
