"""Questions with what is found for them in a store: the student is asked the same, with those passages in view."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from protocol.messages import Context, Passage
from recipes.memory import Choice
from student.retrieval import Index
from student.settings import RetrievalSettings
from student.store import change_store


def passage_of(context: Context) -> Passage:
    """What a store keeps of a context."""
    return Passage(title=context.title, text=context.passage)


def store_passages(path: Path, contexts: Sequence[Context], choices: Mapping[str, Choice]) -> dict[str, Passage]:
    """Keep in a store what was chosen for it, in the place of what had the keys before, and nothing of what is learned alone.

    Args:
        choices: By context id. Of contexts with the same key the last is kept.

    Returns:
        All that the store has, by key.
    """
    put = {choices[context.id].key: passage_of(context) for context in contexts if choices[context.id].is_stored}
    learned = {choices[context.id].key for context in contexts if not choices[context.id].is_stored}
    return change_store(path, put, learned) if put or path.exists() else {}


def look_up(contexts: Sequence[Context], stored: Collection[Passage], settings: RetrievalSettings) -> list[Context]:
    """The contexts, with what is found for each of their questions.

    What is searched for is what the student is told anyway, a question and its topic; which context it is about is not known.
    """
    index = Index(stored)
    looked_up = []
    for context in contexts:
        asked = [f"{context.title}\n{question.text}" for question in context.questions]
        found = [tuple(index.search(words, settings.passages, settings.floor)) for words in asked]
        questions = (q.model_copy(update={"found": own}) for q, own in zip(context.questions, found, strict=True))
        looked_up.append(context.model_copy(update={"questions": tuple(questions)}))
    return looked_up


def share_found(context: Context) -> float:
    """For which share of a context's questions its own passage was found."""
    own = passage_of(context)
    return sum(own in question.found for question in context.questions) / len(context.questions)
