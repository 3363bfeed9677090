"""The published wording of the knowledge domain: prompts and training sequences.

Source: SEAL, arXiv 2506.10943, appendix B.3 and B.11, and the released code and data.
"""

import re

from protocol.messages import Question

STYLES: dict[str, str] = {
    "implications": (
        "Let's read the following passage and produce a list of implications derived directly or indirectly from the "
        "content.\n\nPassage:\n{title}\n{passage}\n\nImplications:\n"
    ),
    "implications-long": (
        "Let's read the following passage and produce a long list of implications derived directly or indirectly from "
        "the content.\n\nPassage:\n{title}\n{passage}\n\nImplications:\n"
    ),
    "implications-very-long": (
        "Let's read the following passage and produce a very long list of implications derived directly or indirectly "
        "from the content.\n\nPassage:\n{title}\n{passage}\n\nImplications:\n"
    ),
    "rewrite": (
        "Let's read the following passage and rewrite it in a few different ways, each one separated by a newline.\n\n"
        "Passage:\n{title}\n{passage}\n\nRewritten passages:\n"
    ),
    "self-qa": (
        "Let's read the following passage and rewrite it in a question-answer format.\n\nPassage:\n{title}\n{passage}\n\nQuestion 1: "
    ),
}
"""What the teacher is asked, by style. The student never sees these."""

QUESTION_STYLE = "self-qa"
"""The style in which a model writes questions with their answers."""

FIRST_QUESTION = "Question 1: "
"""What the prompt of that style has written already."""

_NUMBERED_QUESTION = re.compile(r"Question\s+\d+:")
_ANSWER = re.compile(r"Answer\s*:")
_QUESTION_AND_ANSWER = re.compile(
    r"Question(?:\s+\d+)?\s*:\s*((?:(?!Question\s+\d+:).){3,1000}?)\s+Answer\s*:[ \t]*(\S[^\n]{0,999})", re.DOTALL
)


def teacher_prompt(style: str, title: str, passage: str) -> str:
    """The text the teacher continues to write a self-edit; `style` is a key of `STYLES`."""
    return STYLES[style].replace("{title}", title, 1).replace("{passage}", passage, 1)


def read_prompt(prompt: str) -> tuple[str, str, str] | None:
    """The style, title and passage that a teacher's prompt was made of; None if it is in other words."""
    for style, wording in STYLES.items():
        start, _, end = wording.partition("{title}\n{passage}")
        if len(prompt) >= len(start) + len(end) and prompt.startswith(start) and prompt.endswith(end):
            title, _, passage = prompt[len(start) : len(prompt) - len(end)].partition("\n")
            return style, title, passage
    return None


def style_of(prompt: str) -> str:
    """The style of a teacher's prompt; empty if it is in other words."""
    read = read_prompt(prompt)
    return read[0] if read else ""


def passage_prompt(title: str, passage: str) -> str:
    """What stands before the question where the passage is in view."""
    return f"Passage:\n{title}\n{passage}\n\n"


def question_prompt(title: str, question: str) -> str:
    """The text the student continues to answer, without the passage in view."""
    return f"Let's answer a question directly and concisely.\nQuestion: Topic: {title}\n{question}\nAnswer:\n"


def training_sequence(title: str, text: str) -> str:
    """One sequence the student trains on. A context without a title gets no prefix."""
    return f"{title}\n{text}" if title else text


def read_questions(text: str) -> list[Question]:
    """The questions with answers in a completion of the `self-qa` prompt, whose first number the prompt has written."""
    pairs = _QUESTION_AND_ANSWER.findall(FIRST_QUESTION + text)
    return [Question(text=question.strip(), answers=(answer.strip(),)) for question, answer in pairs if question.strip()]


def split_completion(completion: str) -> list[str]:
    """Split a completion into the texts of its training sequences (`split_newlines` of the released code).

    `---` separates segments and every line is a sequence of its own. An opening line such as "Sure, here is a list:"
    is dropped when the line after it starts with `1.`. A question-answer text is split before each `Question N:`
    instead; its first question is numbered here because the prompt has already written "Question 1: ".
    """
    if _NUMBERED_QUESTION.search(completion) and _ANSWER.search(completion):
        blocks = re.split(r"\n(?=Question\s+\d+:)", completion.strip())
        if not blocks[0].lstrip().startswith("Question"):
            blocks[0] = FIRST_QUESTION + blocks[0].strip()
        return [block for block in blocks if block.strip()]
    lines = [line.strip() for segment in completion.split("---") for line in segment.splitlines() if line.strip()]
    return lines[1:] if len(lines) > 1 and lines[1].startswith("1.") else lines
