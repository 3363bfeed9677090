"""Candidates of a teacher at an endpoint: each is paid for once, and journaled with its cost as soon as it is there. Torch-free.

The first process asks for all of them: they are made elsewhere, so no other process loads anything, and one account holds the budget.
"""

from collections.abc import Iterator, Sequence

from protocol.domain import Domain
from protocol.identity import derive_seed
from protocol.journal import Journal, SpendingRecord
from protocol.messages import Context
from recipes.inputs import choose_style
from teacher.endpoint import EndpointPolicy
from teacher.serving import serve_adapter
from teacher.settings import TeacherSettings

Batch = Sequence[tuple[Context, int]]
"""Candidates sampled at once: each is the so many'th of its context."""
Styled = tuple[str, str]
"""A candidate's text and the style of the prompt that it answers."""


def sample_at_endpoint(
    teacher: TeacherSettings, domain: Domain, batches: Sequence[Batch], seed: int, stage: str, journal: Journal
) -> Iterator[tuple[Batch, list[int], list[Styled]]]:
    """Yields candidates one by one, with seed and text, as they arrive; what each cost stands in the journal by then.

    Raises:
        InvalidInput: The endpoint refuses the key, a request or the teacher's adapter, does not know the model, or is elsewhere.
        TutelageError: It gives nothing, or the next request could pass the budget.
    """
    style, wanted = choose_style(teacher.style, domain), [one for batch in batches for one in batch]
    served = serve_adapter(teacher) if teacher.adapter else None
    policy = EndpointPolicy(teacher, journal.spending.cost, served)
    prompts = [domain.prompt(context, style) for context, _ in wanted]
    seeds = [derive_seed(seed, "sample", context.id, index) for context, index in wanted]
    for written in policy.sample(prompts, seeds):
        journal.append(SpendingRecord(stage=stage, spending=written.spending))
        if written.text is not None:
            yield [wanted[written.index]], [seeds[written.index]], [(written.text, style)]
