import random

import pytest

from recipes.tiny.perfect_judge import contradicts
from recipes.tiny.world import full, hallucinated, pronouns, questions, stories

(STORY,) = stories("held_out", 1, 0)
NAME = STORY.facts[0].person
PASSAGE = f"{NAME} settled down in Leeds. Later she practised the harp every night."


@pytest.mark.parametrize(
    ("statement", "contradicted"),
    [
        (f"{NAME} lives in Leeds.", False),
        (f"{NAME} lives in Paris.", True),
        ("She lives in Paris.", True),
        ("Bob lives in Paris.", False),
        (f"{NAME} was born in Paris.", False),
        (f"The instrument of {NAME} is the lute.", True),
        (f"Question: Where does {NAME} live? Answer: Paris", True),
        ("People often move from one city to another.", False),
    ],
)
def test_a_statement_contradicts_what_the_passage_says_of_the_same_person(statement: str, contradicted: bool) -> None:
    assert contradicts(PASSAGE, statement) is contradicted


def test_of_the_worlds_self_edits_only_made_up_values_contradict() -> None:
    rng = random.Random(0)
    for story in stories("held_out", 50, 0):
        for style in (full, questions, pronouns):
            assert not [line for line in style(rng, story) if contradicts(story.passage, line)]
    rng = random.Random(0)
    made_up = [line for story in stories("held_out", 50, 0) for line in hallucinated(rng, story) if contradicts(story.passage, line)]
    assert len(made_up) == 153
