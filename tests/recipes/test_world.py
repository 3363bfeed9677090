import json
import random
from itertools import combinations, pairwise
from pathlib import Path

from transformers import AutoTokenizer

from recipes.domains.knowledge_text import question_prompt, teacher_prompt
from recipes.tiny import world
from recipes.tiny.learn_people import closed_book_document, passage_document
from recipes.tiny.source import load_tiny
from recipes.tiny.tokenizers import Split, build_tokenizer

MODELS = Path(__file__).resolve().parents[2] / "recipes" / "tiny" / "models"


def test_no_person_is_in_two_splits() -> None:
    assert {name: len(people) for name, people in world.SPLITS.items()} == {
        "population": 256,
        "pretrain": 9000,
        "train": 2000,
        "validation": 1000,
        "held_out": 2144,
    }
    for one, other in combinations(world.SPLITS.values(), 2):
        assert set(one).isdisjoint(other)


def test_pretraining_names_nobody_from_the_other_splits() -> None:
    rng, facts = random.Random(3), world.population_facts()
    unseen = {person for split in ("train", "validation", "held_out") for person in world.SPLITS[split]}
    for _ in range(400):
        text = "".join(text for text, _ in passage_document(rng) + closed_book_document(rng, facts))
        words = text.replace(".", " ").replace(",", " ").replace("?", " ").split()
        assert unseen.isdisjoint({f"{first} {last}" for first, last in pairwise(words)})


def test_no_self_edit_uses_the_wording_of_a_test_question() -> None:
    for relation in world.RELATIONS.values():
        assert relation.tested not in relation.asked
        assert relation.tested not in relation.stated
    rng = random.Random(0)
    for story in world.stories("train", 30, seed=0):
        tested = {fact.tested for fact in story.facts}
        for write in world.EDIT_MIX:
            assert not any(question in line for question in tested for line in write(rng, story))


def test_a_story_tells_every_value_and_asks_about_each() -> None:
    contexts, references = load_tiny("held_out", 20)
    assert len(contexts) == len(references) == 20
    for context in contexts:
        assert len(context.questions) == 6
        for question in context.questions:
            assert question.answers[0] in context.passage
            assert question.answers[0] in references[context.id]


def test_a_person_has_the_same_life_however_many_are_loaded() -> None:
    assert load_tiny("train", 5)[0] == load_tiny("train", 50)[0][:5]


def test_the_two_tokenizers_differ_and_both_give_the_text_back() -> None:
    stem, vowel = build_tokenizer("stem"), build_tokenizer("vowel")
    assert stem.tokenize("Tola Pitard") == ["Tol", "##a", "Pit", "##ard"]
    assert vowel.tokenize("Tola Pitard") == ["To", "##la", "Pi", "##tard"]
    differ = [stem.tokenize(person) != vowel.tokenize(person) for person in world.SPLITS["held_out"]]
    assert sum(differ) / len(differ) > 0.95
    for story in world.stories("held_out", 20, seed=0):
        texts = [teacher_prompt("implications", world.TITLE, story.passage), question_prompt(world.TITLE, story.facts[0].tested)]
        texts += ["\n".join(write(random.Random(0), story)) for write in world.EDIT_MIX]
        for text in texts:
            for tokenizer in (stem, vowel):
                ids = tokenizer(text).input_ids
                assert tokenizer.unk_token_id not in ids
                assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_shipped_models_carry_these_tokenizers_and_are_small() -> None:
    splits: dict[str, Split] = {"seed_oss": "stem", "llama": "vowel", "olmo2": "vowel"}
    for folder, split in splits.items():
        shipped = AutoTokenizer.from_pretrained(MODELS / folder)
        assert shipped.get_vocab() == build_tokenizer(split).get_vocab()
        assert shipped.tokenize(world.SPLITS["held_out"][0]) == build_tokenizer(split).tokenize(world.SPLITS["held_out"][0])
    assert sum(path.stat().st_size for folder in splits for path in (MODELS / folder).iterdir()) <= 10_500_000


def test_texts_of_another_model_speak_of_none_whom_tiny_students_know() -> None:
    texts = [json.loads(line) for line in (MODELS.parent / "others_texts.jsonl").read_text().splitlines()]
    known = [name for name in world.SPLITS["population"] if any(name in text for text in texts)]
    assert len(texts) == 512 and not known
