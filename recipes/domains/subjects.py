"""Whom a text is about, as far as capital letters tell, and the same text about somebody else."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from protocol.messages import Context, Example, Lesson, Question

_NAMED: Final = re.compile(r"\w+(?:['\u2019-](?!s\b)\w+)*")
_WORD: Final = re.compile(rf"{_NAMED.pattern}|[^\w\s]|\n")
Told = TypeVar("Told", Context, Question, Example)


def find_names(texts: Iterable[str]) -> Counter[str]:
    """Names, words with a capital that follow each other, and how often each occurs.

    A word that opens a sentence has its capital from there: it belongs to a name only if the texts have it nowhere in small letters, and
    is none by itself.
    """
    texts = list(texts)
    small = {word for text in texts for word in _WORD.findall(text) if word[0].islower()}
    return Counter(" ".join(run) for text in texts for run in _runs(text, small))


def _runs(text: str, small: set[str]) -> Iterator[list[str]]:
    run: list[str] = []
    opens, opened = True, False
    for word in [*_WORD.findall(text), "\n"]:
        if word[0].isupper() and not (opens and word.lower() in small):
            opened = opened or (opens and not run)
            run.append(word)
        else:
            if len(run) > 1 or (run and not opened):
                yield run
            run, opened = [], False
        opens = not word[0].isalnum()


def find_subject(texts: Iterable[str]) -> str:
    """The name that occurs most often, the first of several; empty if there is none."""
    names = find_names(texts)
    return max(names, key=lambda name: names[name], default="")


def draw_names(names: Iterable[str], like: str, count: int, seed: int) -> list[str]:
    """Names of as many words as `like`, put together anew from words that stand at the same place in given ones."""
    words = [name.split() for name in names if len(name.split()) == len(like.split())]
    if not words:
        return []
    draw, places = random.Random(seed), [sorted(set(place)) for place in zip(*words, strict=True)]
    drawn = (" ".join(draw.choice(place) for place in places) for _ in range(4 * count))
    return [name for name in dict.fromkeys(drawn) if name != like][:count]


def tell_of(lesson: Lesson, subject: str, other: str) -> Lesson:
    """The same lesson with another name in the place of its subject, where that stands whole and where a part of it does. Answers stay."""
    renamed = dict(zip(subject.split(), other.split(), strict=True))

    def rename(message: Told, *names: str) -> Told:
        texts = {name: _NAMED.sub(lambda word: renamed.get(word[0], word[0]), getattr(message, name)) for name in names}
        return message.model_copy(update=texts)

    questions = tuple(rename(question, "text") for question in lesson.context.questions)
    examples = tuple(rename(example, "prompt", "completion") for example in lesson.edit.examples)
    return Lesson(
        context=rename(lesson.context, "title", "passage").model_copy(update={"questions": questions}),
        edit=lesson.edit.model_copy(update={"examples": examples}),
    )


def tell_of_others(lesson: Lesson, texts: Sequence[str], count: int, seed: int) -> list[Lesson]:
    """A lesson told of others; see `protocol.domain.Domain.tell_of_others`."""
    subject = find_subject([lesson.context.passage, *(example.prompt + " " + example.completion for example in lesson.edit.examples)])
    if not subject:
        return []
    return [tell_of(lesson, subject, other) for other in draw_names(find_names(texts), subject, count, seed)]
