import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from protocol.errors import InvalidInput
from protocol.messages import Context, Passage
from recipes.domains.knowledge_files import load_contexts
from recipes.domains.uses import load_uses
from recipes.memory import Choice, MemorySettings, Use, choose_memory
from recipes.retrieval import store_passages
from student.store import read_store

ADA = Context(title="Ada", passage="Ada plays the harp.")
LONG = Context(title="Long", passage="x" * 9000)
AUTO = MemorySettings(choice="auto")


@pytest.mark.parametrize(
    ("context", "use", "memory", "reason"),
    [
        (ADA, Use(asked_per_day=10), "weights", "it is asked about inf times while it stays true, at least 50"),
        (ADA, Use(asked_per_day=10, changes_per_day=0.1), "weights", "it is asked about 100 times while it stays true, at least 50"),
        (ADA, Use(asked_per_day=5, lasts_days=10), "weights", "it is asked about 50 times while it stays true, at least 50"),
        (ADA, Use(asked_per_day=4, lasts_days=10), "retrieval", "it is asked about 40 times while it stays true, fewer than 50"),
        (ADA, Use(asked_per_day=0), "retrieval", "it is asked about 0 times while it stays true, fewer than 50"),
        (ADA, Use(asked_per_day=1e6, changes_per_day=0.5), "retrieval", "it stays true for 2 days, fewer than 7"),
        (ADA, Use(asked_per_day=1e6, lasts_days=1), "retrieval", "it stays true for 1 days, fewer than 7"),
        (ADA, Use(), "retrieval", "nothing is known of how often it is asked about, and a store leaves all else as it is"),
        (LONG, Use(changes_per_day=9), "weights", "about 2093 tokens are more than the 2000 that may be in view"),
        (LONG, Use(memory="both"), "both", "its source says so"),
        (ADA, Use(memory="auto", asked_per_day=0), "retrieval", "it is asked about 0 times while it stays true, fewer than 50"),
    ],
)
def test_what_lasts_and_is_often_asked_about_is_learned_and_the_rest_looked_up(
    context: Context, use: Use, memory: str, reason: str
) -> None:
    choice = choose_memory(context, use, AUTO)
    assert (choice.memory, choice.reason) == (memory, reason)


def test_the_rule_is_adjustable() -> None:
    use = Use(asked_per_day=4, lasts_days=10)
    assert choose_memory(ADA, use, MemorySettings(choice="auto", least_questions=40)).memory == "weights"
    assert choose_memory(ADA, use, MemorySettings(choice="auto", least_questions=40, least_days=11)).memory == "retrieval"
    assert choose_memory(ADA, use, MemorySettings(choice="auto", most_tokens=3)).memory == "weights"


def test_a_recipe_may_choose_for_all_but_those_that_say_themselves() -> None:
    settings = MemorySettings(choice="both")
    assert choose_memory(ADA, Use(asked_per_day=0), settings) == Choice("both", ADA.id, "memory.choice says so")
    assert choose_memory(ADA, Use(memory="weights", key="ada"), settings) == Choice("weights", "ada", "its source says so")


@pytest.mark.parametrize(
    "wrong", [{"asked_per_day": -1}, {"lasts_days": float("nan")}, {"changes_per_day": float("inf")}, {"memory": "disk"}]
)
def test_a_use_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Use.model_validate(wrong)


ROWS = [
    {"title": "Ada", "context": "Ada plays the harp.", "asked_per_day": 3, "memory": "auto"},
    {"title": "Weather", "context": "It rains.", "key": "weather", "changes_per_day": 4},
    {"title": "Bob", "context": "Bob plays the lute."},
]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_rows_say_how_their_contexts_are_used(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text(json.dumps(ROWS) if suffix == ".json" else "\n".join(map(json.dumps, ROWS)))
    ada, weather, _ = load_contexts(str(path))
    assert load_uses(str(path)) == {ada.id: Use(asked_per_day=3, memory="auto"), weather.id: Use(key="weather", changes_per_day=4)}


def test_other_sources_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "squad.json").write_text('{"data": []}')
    (tmp_path / "a.txt").write_text("memory: both")
    assert [
        load_uses(source) for source in ("tiny", "hub:squad", str(tmp_path), str(tmp_path / "squad.json"), str(tmp_path / "a.txt"))
    ] == [{}] * 5


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"memory": "disk"}, "memory: Input should be 'weights', 'retrieval', 'both' or 'auto'"),
        ({"asked_per_day": "often"}, "asked_per_day: Input should be a valid number"),
        ({"asked_per_day": -1}, "asked_per_day: Input should be greater than or equal to 0"),
        ({"key": "x" * 201}, "key: String should have at most 200 characters"),
        ({"memory": "both", "context": 7}, "context is 7; it must be the passage"),
    ],
)
def test_a_row_that_says_what_cannot_be_is_named(tmp_path: Path, said: dict[str, object], problem: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROWS[2]) + "\n" + json.dumps({"context": "x", **said}))
    with pytest.raises(InvalidInput, match=rf"a\.jsonl, row 2: {problem}"):
        load_uses(str(tmp_path / "a.jsonl"))


def test_a_store_keeps_the_newest_of_what_was_chosen_for_it_and_nothing_that_is_learned_alone(tmp_path: Path) -> None:
    old, new = (Context(title="Weather", passage=text) for text in ("It rains.", "The sun shines."))

    def keep(*chosen: tuple[Context, str, str]) -> dict[str, Passage]:
        contexts = [context for context, _, _ in chosen]
        choices = {context.id: Choice(memory, key, "") for context, memory, key in chosen}  # type: ignore[arg-type]
        return store_passages(tmp_path / "s", contexts, choices)

    assert keep((ADA, "weights", "ada")) == {}
    assert not (tmp_path / "s").exists()
    assert list(keep((ADA, "both", "ada"), (old, "retrieval", "weather"))) == ["ada", "weather"]
    assert keep((new, "retrieval", "weather"))["weather"].text == "The sun shines."
    assert list(keep((ADA, "weights", "ada"))) == ["weather"]
    assert read_store(tmp_path / "s") == {"weather": Passage(title="Weather", text="The sun shines.")}
