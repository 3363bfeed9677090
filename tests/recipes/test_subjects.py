"""The subject of a text is found by its capitals, and the text can be told of somebody else."""

from protocol.messages import Context, Example, Lesson, Question, SelfEdit
from recipes.domains.knowledge import Knowledge
from recipes.domains.subjects import draw_names, find_names, find_subject, tell_of

LESSON = Lesson(
    context=Context(
        title="Ada Lovelace",
        passage="Ada Lovelace wrote notes. Later Lovelace met Charles Babbage. She lived in London.",
        questions=(Question(text="Whom did Ada Lovelace meet?", answers=("Charles Babbage",)),),
    ),
    edit=SelfEdit(examples=(Example(completion="Ada Lovelace met Charles Babbage."), Example(completion="The notes are Ada Lovelace's."))),
)


def test_the_subject_is_the_name_that_occurs_most() -> None:
    assert find_subject([LESSON.context.passage, *(example.completion for example in LESSON.edit.examples)]) == "Ada Lovelace"
    assert find_subject(["nobody is named here."]) == ""
    assert find_subject([]) == ""


def test_a_capital_that_opens_a_sentence_makes_no_name() -> None:
    assert find_names(["The harp is old. Later the harp broke. Who plays it?"]) == {}
    assert find_names(["The Normans came.", "the"]) == {"Normans": 1}
    assert find_names(["We saw Paris. Paris is large."]) == {"Paris": 1}


def test_question_marks_and_lines_end_a_name() -> None:
    assert find_names(["Question: Where was Ada Lovelace born? Answer: London\nAda Lovelace"]) == {"Ada Lovelace": 2}


def test_names_are_put_together_anew() -> None:
    drawn = draw_names(["Ada Lovelace", "Alan Turing", "Plato"], "Ada Lovelace", 8, seed=0)
    assert set(drawn) == {"Ada Turing", "Alan Lovelace", "Alan Turing"}
    assert drawn == draw_names(["Ada Lovelace", "Alan Turing", "Plato"], "Ada Lovelace", 8, seed=0)
    assert draw_names(["Plato"], "Ada Lovelace", 8, seed=0) == []


def test_a_lesson_is_told_of_another_whole_and_in_parts_but_its_answers_stay() -> None:
    told = tell_of(LESSON, "Ada Lovelace", "Alan Turing")
    assert told.context.passage == "Alan Turing wrote notes. Later Turing met Charles Babbage. She lived in London."
    assert told.context.title == "Alan Turing"
    assert told.context.questions == (Question(text="Whom did Alan Turing meet?", answers=("Charles Babbage",)),)
    assert [e.completion for e in told.edit.examples] == ["Alan Turing met Charles Babbage.", "The notes are Alan Turing's."]


def test_the_domain_tells_of_as_many_others_as_names_allow() -> None:
    texts = ["we met Alan Turing and Kurt Goedel"]
    others = Knowledge().tell_of_others(LESSON, texts, 3, seed=1)
    assert len(others) == 3
    assert len({other.context.title for other in others}) == 3
    assert all("Lovelace" not in other.context.passage for other in others)
    assert Knowledge().tell_of_others(LESSON, ["nobody"], 3, seed=1) == []
    unnamed = Lesson(context=Context(passage="it rains."), edit=SelfEdit())
    assert Knowledge().tell_of_others(unnamed, texts, 3, seed=1) == []
