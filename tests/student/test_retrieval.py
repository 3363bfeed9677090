import pytest

from protocol.messages import Passage
from student.retrieval import Index

ADA = Passage(title="Biography", text="Ada Blem plays the harp in Rosville.")
BOB = Passage(title="Biography", text="Bob Blem plays the lute in Rosville.")
EVA = Passage(title="Biography", text="Éva Tóth plays the gong in Zürich.")
INDEX = Index([ADA, BOB, EVA])


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("What does Bob Blem play?", BOB),
        ("Where does EVA\u0301 TO\u0301TH live?", EVA),  # accents written apart
        ("Who plays an instrument in Rosville: Ada?", ADA),
    ],
)
def test_the_passage_that_a_question_names_is_found_first(question: str, found: Passage) -> None:
    assert INDEX.search(question, 1) == [found]


def test_the_best_are_found_and_ties_keep_their_order() -> None:
    assert INDEX.search("Who is Blem?", 3) == [ADA, BOB]
    assert INDEX.search("Who is Bob Blem?", 3) == [BOB, ADA]
    assert INDEX.search("Blem", 1) == [ADA]


def test_a_floor_leaves_out_what_scores_no_higher() -> None:
    assert INDEX.search("Bob Blem", 3, floor=0.5) == [BOB]
    assert INDEX.search("Bob Blem", 3, floor=100.0) == []


@pytest.mark.parametrize("question", ["", "?!", "Xanadu", "\x00\x1b[2J", "🙂"])
def test_a_question_that_shares_no_word_finds_nothing(question: str) -> None:
    assert INDEX.search(question, 3) == []


@pytest.mark.parametrize("passages", [[], [Passage(text="")], [Passage(text="?!")] * 3])
def test_nothing_is_found_where_there_are_no_words(passages: list[Passage]) -> None:
    assert Index(passages).search("What does Ada play?", 3) == []


def test_passages_without_words_do_not_shift_the_others() -> None:
    assert Index([Passage(text="…"), ADA, Passage(text=""), BOB]).search("Bob", 1) == [BOB]


def test_a_hostile_question_is_only_long() -> None:
    assert INDEX.search("Bob " * 2500 + "(" * 1000, 1) == [BOB]
