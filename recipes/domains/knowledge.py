"""The knowledge domain: learn a passage well enough to answer questions about it from memory.

Source: SEAL, arXiv 2506.10943, section 3.2 and appendix B, and its released code.
"""

import itertools
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from protocol.domain import Grader
from protocol.errors import MalformedEdit
from protocol.messages import Context, Example, Lesson, Outcomes, SelfEdit, accuracy
from recipes.domains.knowledge_files import load_contexts
from recipes.domains.knowledge_text import (
    FIRST_QUESTION,
    QUESTION_STYLE,
    STYLES,
    passage_prompt,
    question_prompt,
    split_completion,
    teacher_prompt,
    training_sequence,
)
from recipes.domains.subjects import tell_of_others
from recipes.domains.uses import load_uses
from recipes.domains.written import find_written
from recipes.graders.words import squad_metric
from recipes.memory import Use
from student.grading import first_line

MAX_CHARACTERS = 100_000
MAX_SEQUENCES = 1024


class Knowledge:
    """Implements `recipes.domains.RecipeDomain` for passages."""

    name = "knowledge"
    version = 1
    styles = tuple(STYLES)
    floor = -1.0
    default_grader = "contained"
    graders = None
    closed_book = True
    has_lines = True
    adapt_recipe = "recipes/tiny/adapt_student.yaml"
    answer_tokens = 64

    def load(self, source: str, split: str, limit: int | None) -> tuple[list[Context], dict[str, str]]:
        if source == "tiny":
            from recipes.tiny.source import load_tiny

            return load_tiny(split, 256 if limit is None else limit)
        return load_contexts(source, split), {}

    def load_uses(self, source: str) -> Mapping[str, Use]:
        return load_uses(source)

    def find_written(self, path: Path, contexts: Sequence[Context], count: int, key: str) -> Mapping[str, Sequence[tuple[str, str]]]:
        return find_written(path, contexts, count, key)

    def prompt(self, context: Context, style: str) -> str:
        return teacher_prompt(style, context.title, context.passage)

    def parse(self, text: str, context: Context) -> SelfEdit:
        """Every line is an example (`split_completion`).

        Raises:
            MalformedEdit: The text is empty, too long, binary, or makes too many sequences.
        """
        if not text.strip():
            raise MalformedEdit("the candidate is empty; a self-edit has at least one line of text")
        if len(text) > MAX_CHARACTERS:
            raise MalformedEdit(f"the candidate has {len(text)} characters, more than {MAX_CHARACTERS}; lower teacher.max_new_tokens")
        strange = sum(c == "\ufffd" or (unicodedata.category(c) in ("Cc", "Cn", "Co") and not c.isspace()) for c in text)
        if strange > len(text) / 10:
            raise MalformedEdit(f"the candidate is not text: {strange} of its {len(text)} characters are control or broken ones")
        lines = split_completion(text)
        if not lines:
            raise MalformedEdit("the candidate has separators but no text between them")
        if len(lines) > MAX_SEQUENCES:
            raise MalformedEdit(f"the candidate makes {len(lines)} training sequences, more than {MAX_SEQUENCES}")
        return SelfEdit(examples=tuple(Example(completion=line) for line in lines))

    def shorten(self, text: str, context: Context, kept: Sequence[int]) -> str | None:
        """Lines are written below each other. A question whose number the prompt has written goes without it, and cannot be left out."""
        lines = [example.completion for example in self.parse(text, context).examples]
        wanted = [lines[i] for i in kept]
        written = "\n".join(wanted)
        if lines[0].startswith(FIRST_QUESTION) and not text.lstrip().startswith("Question"):
            if kept[0] != 0:
                return None
            written = written.removeprefix(FIRST_QUESTION)
        return written if self._read_lines(written, context) == [line.strip() for line in wanted] else None

    def write(self, edit: SelfEdit, context: Context, style: str) -> str | None:
        """Lines below each other, the first without the number that the style's prompt has written. Lines are all that they say."""
        lines = [example.prompt + example.completion for example in edit.examples]
        written = "\n".join(lines)
        if style == QUESTION_STYLE:
            written = written.removeprefix(FIRST_QUESTION)
        says_all = SelfEdit(examples=tuple(Example(completion=line) for line in lines)).id == edit.id
        return written if says_all and self._read_lines(written, context) == [line.strip() for line in lines] else None

    def _read_lines(self, text: str, context: Context) -> list[str] | None:
        try:
            return [example.completion.strip() for example in self.parse(text, context).examples]
        except MalformedEdit:  # what is left of a self-edit may be too much of control characters, say
            return None

    def expand(self, context: Context, edit: SelfEdit, seed: int) -> Sequence[Example]:
        """The edit's lines, then the passage itself, each under the title."""
        texts = [example.prompt + example.completion for example in edit.examples]
        if context.passage.strip():
            texts.append(context.passage.strip())
        return [Example(completion=training_sequence(context.title, text)) for text in texts]

    def ask(self, context: Context, in_view: bool = False) -> Sequence[str]:
        own = passage_prompt(context.title, context.passage) if in_view else ""
        found = ["".join(passage_prompt(passage.title, passage.text) for passage in question.found) for question in context.questions]
        return [own + seen + question_prompt(context.title, question.text) for seen, question in zip(found, context.questions, strict=True)]

    def read_answers(self, contexts: Sequence[Context], answers: Sequence[Sequence[str]], grader: Grader) -> Sequence[Outcomes]:
        questions = [question for context in contexts for question in context.questions]
        graded = iter(grader.grade(questions, [answer for own in answers for answer in own]))
        return [tuple(itertools.islice(graded, len(context.questions))) for context in contexts]

    def picture(self, context: Context, answers: Mapping[str, Sequence[str]]) -> None:
        return None

    def tell_of_others(self, lesson: Lesson, texts: Sequence[str], count: int, seed: int) -> Sequence[Lesson]:
        return tell_of_others(lesson, texts, count, seed)

    def measure(self, answers: Sequence[str], golds: Sequence[Sequence[str]]) -> Mapping[str, float]:
        """Exact match and F1 in percent, as for SQuAD."""
        scores: Mapping[str, float] = squad_metric().compute(predictions=list(map(first_line, answers)), references=list(map(list, golds)))
        return scores

    def value(self, base: Outcomes, adapted: Outcomes) -> float:
        return accuracy(adapted) - accuracy(base)
