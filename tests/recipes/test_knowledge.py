import json
from pathlib import Path

import pytest

from protocol.domain import Domain
from protocol.errors import MalformedEdit
from protocol.messages import Context, Passage, Question, SelfEdit
from recipes.domains import DOMAINS
from recipes.domains.knowledge import Knowledge
from recipes.domains.knowledge_text import read_prompt, read_questions
from recipes.graders.words import ExactMatch

CONTEXT = Context(title="Harp", passage=" Ada plays the {harp}. ", questions=(Question(text="What does Ada play?", answers=("harp",)),))
DOMAIN: Domain = Knowledge()


def texts(completion: str) -> list[str]:
    return [example.completion for example in DOMAIN.expand(CONTEXT, DOMAIN.parse(completion, CONTEXT), seed=0)]


@pytest.mark.parametrize(
    ("style", "prompt"),
    [
        (
            "implications",
            "Let's read the following passage and produce a list of implications derived directly or indirectly from the content.\n\n"
            "Passage:\nHarp\n Ada plays the {harp}. \n\nImplications:\n",
        ),
        (
            "implications-long",
            "Let's read the following passage and produce a long list of implications derived directly or indirectly from the content.\n\n"
            "Passage:\nHarp\n Ada plays the {harp}. \n\nImplications:\n",
        ),
        (
            "implications-very-long",
            "Let's read the following passage and produce a very long list of implications derived directly or indirectly from the "
            "content.\n\nPassage:\nHarp\n Ada plays the {harp}. \n\nImplications:\n",
        ),
        (
            "rewrite",
            "Let's read the following passage and rewrite it in a few different ways, each one separated by a newline.\n\n"
            "Passage:\nHarp\n Ada plays the {harp}. \n\nRewritten passages:\n",
        ),
        (
            "self-qa",
            "Let's read the following passage and rewrite it in a question-answer format.\n\n"
            "Passage:\nHarp\n Ada plays the {harp}. \n\nQuestion 1: ",
        ),
    ],
)
def test_the_teacher_is_asked_in_the_published_words(style: str, prompt: str) -> None:
    assert DOMAIN.prompt(CONTEXT, style) == prompt


def test_the_student_is_asked_in_the_published_words_without_the_passage() -> None:
    assert DOMAIN.ask(CONTEXT) == ["Let's answer a question directly and concisely.\nQuestion: Topic: Harp\nWhat does Ada play?\nAnswer:\n"]


def test_every_line_and_the_passage_become_a_sequence_under_the_title() -> None:
    assert texts("1. Ada is musical.\n\n2. There is a harp.") == [
        "Harp\n1. Ada is musical.",
        "Harp\n2. There is a harp.",
        "Harp\nAda plays the {harp}.",
    ]


def test_dashes_separate_segments() -> None:
    assert texts("one\ntwo---three")[:-1] == ["Harp\none", "Harp\ntwo", "Harp\nthree"]


def test_an_opening_line_before_a_numbered_list_is_dropped() -> None:
    assert texts("Sure, here is the list:\n1. Ada is musical.")[:-1] == ["Harp\n1. Ada is musical."]
    assert texts("Ada is musical.\n2. No list.")[:-1] == ["Harp\nAda is musical.", "Harp\n2. No list."]


def test_question_answer_text_is_split_before_each_question() -> None:
    assert texts("Who plays?\nAnswer: Ada\nQuestion 2: What?\nAnswer: The harp")[:-1] == [
        "Harp\nQuestion 1: Who plays?\nAnswer: Ada",
        "Harp\nQuestion 2: What?\nAnswer: The harp",
    ]


def test_an_empty_edit_means_the_passage_alone() -> None:
    assert [e.completion for e in DOMAIN.expand(CONTEXT, SelfEdit(), seed=0)] == ["Harp\nAda plays the {harp}."]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("---\n---", "no text between"),
        ("x" * 1_000_000, "1000000 characters"),
        ("\x00\x01\x02\x03" * 10, "not text"),
        ("\ufffd" * 10, "not text"),
        ("a\n" * 2000, "2000 training sequences"),
    ],
)
def test_a_candidate_that_is_no_self_edit_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(MalformedEdit, match=reason):
        DOMAIN.parse(text, CONTEXT)


def test_value_is_the_accuracy_gain() -> None:
    grader = ExactMatch()
    wrong, right = DOMAIN.read_answers([CONTEXT, CONTEXT], [["lyre"], ["The harp.\nand so on"]], grader)
    assert DOMAIN.value(wrong, right) == 1.0
    assert DOMAIN.value(right, wrong) == -1.0
    assert DOMAIN.value(right, right) == 0.0


def test_prompts_equal_the_released_ones(released: Path) -> None:
    rows = json.loads((released / "seal" / "iter0_train.json").read_text())
    assert len(rows) == 100
    for row in rows:
        assert DOMAINS["knowledge"].prompt(Context(title=row["title"], passage=row["context"]), "implications") == row["prompt"]


def test_every_released_completion_parses(released: Path) -> None:
    rows = json.loads((released / "seal" / "iter0_train.json").read_text())
    for row in rows:
        context = Context(title=row["title"], passage=row["context"])
        for completion in row["completions"]:
            assert (
                DOMAIN.expand(context, DOMAIN.parse(completion, context), 0)[-1].completion == f"{row['title']}\n{row['context'].strip()}"
            )


def test_the_passage_may_be_in_view() -> None:
    (asked,) = DOMAIN.ask(CONTEXT, in_view=True)
    assert asked == "Passage:\nHarp\n Ada plays the {harp}. \n\n" + DOMAIN.ask(CONTEXT)[0]


def test_what_was_looked_up_is_in_view_under_its_own_title() -> None:
    found = (Passage(title="Lute", text="Bob plays the lute."), Passage(text="Eve plays the gong."))
    aided = CONTEXT.model_copy(update={"questions": (CONTEXT.questions[0].model_copy(update={"found": found}),)})
    (asked,) = DOMAIN.ask(aided)
    assert asked == "Passage:\nLute\nBob plays the lute.\n\nPassage:\n\nEve plays the gong.\n\n" + DOMAIN.ask(CONTEXT)[0]
    assert DOMAIN.expand(aided, SelfEdit(), 0) == DOMAIN.expand(CONTEXT, SelfEdit(), 0)


@pytest.mark.parametrize("style", DOMAIN.styles)
def test_a_prompt_can_be_read_again(style: str) -> None:
    assert read_prompt(DOMAIN.prompt(CONTEXT, style)) == (style, "Harp", " Ada plays the {harp}. ")


def test_other_words_are_no_prompt() -> None:
    assert read_prompt("Tell me about the harp.") is None


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("What is it?\nAnswer: A harp.\n\nQuestion 2: Whose?\nAnswer: Ada's", [("What is it?", "A harp."), ("Whose?", "Ada's")]),
        ("Question: What? Answer: harp\nQuestion: Who? Answer: Ada", [("Question: What?", "harp"), ("Who?", "Ada")]),
        ("من يعزف؟\nAnswer: آدا", [("من يعزف؟", "آدا")]),
        ("What is it?\nAnswer:\nQuestion 2: Who?\nAnswer: Ada", [("Who?", "Ada")]),
        ("no questions at all", []),
        ("", []),
    ],
)
def test_questions_with_answers_are_read_from_a_completion(text: str, pairs: list[tuple[str, str]]) -> None:
    assert [(question.text, question.answers[0]) for question in read_questions(text)] == pairs


def test_a_huge_completion_is_read_in_time() -> None:
    assert read_questions("Question " * 25_000) == []
