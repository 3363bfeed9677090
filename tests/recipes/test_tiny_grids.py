import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from protocol.errors import InvalidInput
from recipes.domains import DOMAINS
from recipes.domains.directives import read_directives
from recipes.domains.few_shot import FewShot
from recipes.domains.grids import Grid, from_text, read_answer, write_grid, write_output, write_task
from recipes.domains.settings import GridSettings
from recipes.machine_settings import Pretrain
from recipes.tiny import learn_directives, learn_grids
from recipes.tiny.grid_source import load_tiny_tasks
from recipes.tiny.grids import HELD_OUT_FAMILIES, SEEN, TRAINING_FAMILIES, UNSEEN, Family, make_task
from recipes.tiny.learn_directives import draw_directives, draw_document

CELLS = FewShot(GridSettings(notation="cells", max_side=6))


def grid(text: str) -> Grid:
    read = from_text(text)
    assert read is not None
    return read


def sample_grids() -> list[Grid]:
    """Twenty squares, half empty, so that colours meet, rows begin empty, and no side is special."""
    draw = np.random.RandomState(0)
    return [draw.randint(1, 4, (side, side)).astype(np.int8) * (draw.rand(side, side) < 0.5) for side in (3, 4, 5, 6) * 5]


def outputs(family: Family, seed: int, inputs: Sequence[Grid]) -> tuple[tuple[tuple[int, ...], bytes], ...]:
    rule = family.draw(random.Random(seed))
    results = [np.ascontiguousarray(rule(of)) for of in inputs]
    return tuple((result.shape, result.astype(np.int8).tobytes()) for result in results)


def test_no_family_is_seen_and_unseen() -> None:
    assert (len(SEEN), len(UNSEEN)) == (27, 30)
    assert not set(SEEN) & set(UNSEEN)


def test_the_split_of_unseen_families_is_fixed() -> None:
    assert TRAINING_FAMILIES == (
        "flip_up_down",
        "turn_left",
        "mirror_down",
        "tile_both",
        "drop_last_column",
        "interior",
        "shift_left",
        "fall_up",
        "first_colour_of_columns",
        "outline",
        "most_frequent",
        "fall_down_and_recolour",
    )
    assert HELD_OUT_FAMILIES == (
        "turn_half",
        "antitranspose",
        "mirror_right",
        "mirror_both",
        "lower_half",
        "right_half",
        "double_columns",
        "margin",
        "shift_down",
        "fall_left",
        "first_row",
        "last_column",
        "antidiagonal",
        "corners",
        "negative",
        "flip_and_recolour",
        "two_tone_transposed",
        "flip_and_frame",
    )


def test_no_rule_of_an_unseen_family_does_what_one_of_another_family_does() -> None:
    inputs, known = sample_grids(), {}
    for name, family in (SEEN | UNSEEN).items():
        for seed in range(20):
            other = known.setdefault(outputs(family, seed, inputs), name)
            assert other == name, f"{name} does what {other} does"


@pytest.mark.parametrize(
    ("family", "pairs"),
    [
        ("drop_first_row", ["12\n34 34", "50\n66 66"]),
        ("flip_left_right", ["12 21", "300 003"]),
        ("replace_first_colour", ["112 772", "30 70"]),
        ("recolour", ["120 780", "33 99"]),
        ("recolour_and_transpose", ["12\n30 79\n80", "2 8"]),
        ("fall_down_and_recolour", ["10\n02 00\n89", "2\n0 0\n9"]),
        ("frame", ["111\n111\n111 555\n515\n555"]),
        ("beside_its_transpose", ["12\n34 1213\n3424"]),
    ],
)
def test_a_family_explains_what_one_of_its_rules_makes(family: str, pairs: list[str]) -> None:
    made = [(grid(before), grid(after)) for before, after in (pair.split(" ") for pair in pairs)]
    assert (SEEN | UNSEEN)[family].explains(made)


@pytest.mark.parametrize(
    ("family", "pairs"),
    [
        ("drop_first_row", ["12\n34 34", "50\n66 50"]),
        ("replace_first_colour", ["112 772", "30 80"]),
        ("recolour", ["120 780", "13 88"]),
        ("recolour", ["12 78", "12 87"]),
        ("recolour", ["120 781"]),
        ("recolour", ["120 78"]),
        ("beside_its_transpose", ["12 1212"]),
    ],
)
def test_a_family_does_not_explain_what_none_of_its_rules_makes(family: str, pairs: list[str]) -> None:
    made = [(grid(before), grid(after)) for before, after in (pair.split(" ") for pair in pairs)]
    assert not (SEEN | UNSEEN)[family].explains(made)


@pytest.mark.parametrize(("split", "known"), [("train", list(SEEN)), ("held_out", [*SEEN, *TRAINING_FAMILIES])])
def test_no_task_can_be_solved_by_a_rule_that_was_learned_before(split: str, known: Sequence[str]) -> None:
    """Rules that differ in general can do the same to small grids."""
    for task in load_tiny_tasks(split, 72):
        pairs = [(grid(pair.input), grid(pair.output)) for pair in task.demonstrations]
        pairs += [(grid(question.text), grid(question.answers[0])) for question in task.questions]
        assert [name for name in known if (SEEN | UNSEEN)[name].explains(pairs)] == [], task.title
        assert UNSEEN[task.group].explains(pairs), task.title


@pytest.mark.parametrize(
    ("family", "before", "after"),
    [
        ("turn_right", "12\n34", "31\n42"),
        ("beside_its_transpose", "12\n34", "1213\n3424"),
        ("fall_down", "120\n003\n450", "000\n120\n453"),
        ("first_colour_of_rows", "012\n000", "111\n000"),
        ("move_up", "12\n34", "34\n00"),
        ("antitranspose", "12\n34", "42\n31"),
        ("mirror_both", "12", "1221\n1221"),
        ("right_half", "123\n456", "3\n6"),
        ("interior", "1234\n5678\n9012\n3456", "67\n01"),
        ("fall_left", "0102\n3004", "1200\n3400"),
        ("fall_up", "001\n020\n300", "321\n000\n000"),
        ("first_colour_of_columns", "10\n20\n32", "12\n12\n12"),
        ("corners", "123\n456\n789", "103\n000\n709"),
        ("most_frequent", "112\n330\n113", "111\n111\n111"),
    ],
)
def test_rules_do_what_their_names_say(family: str, before: str, after: str) -> None:
    rule = (SEEN | UNSEEN)[family].draw(random.Random(0))
    assert rule(grid(before)).tolist() == grid(after).tolist()


@pytest.mark.parametrize("name", sorted(SEEN | UNSEEN))
def test_tasks_of_every_family_are_small_and_their_inputs_differ(name: str) -> None:
    made = [make_task(random.Random(seed), (SEEN | UNSEEN)[name], 4) for seed in range(10)]
    drawn = [task for task in made if task]
    assert drawn
    for task in drawn:
        assert len({(before.shape, before.tobytes()) for before, _ in task}) == 4
        assert all(1 <= side <= 6 for pair in task for of in pair for side in of.shape)


@pytest.mark.parametrize(("split", "families", "tests"), [("train", TRAINING_FAMILIES, 1), ("held_out", HELD_OUT_FAMILIES, 3)])
def test_splits_have_families_of_their_own_as_groups(split: str, families: Sequence[str], tests: int) -> None:
    tasks = load_tiny_tasks(split, None)
    assert [task.group for task in tasks] == [*families] * 3
    assert [task.title for task in tasks][:: len(families)] == [f"{families[0]} 0", f"{families[0]} 1", f"{families[0]} 2"]
    assert len({task.id for task in tasks}) == len(tasks)
    for task in tasks:
        assert (len(task.demonstrations), len(task.questions)) == (5, tests)
        texts = [side for pair in task.demonstrations for side in (pair.input, pair.output)]
        texts += [side for question in task.questions for side in (question.text, *question.answers)]
        assert len(texts) == 2 * (5 + tests)
        assert all(max(grid(text).shape) <= 6 for text in texts)


def test_tasks_are_the_same_every_time_and_for_every_limit() -> None:
    assert load_tiny_tasks("held_out", None) == load_tiny_tasks("held_out", 54)
    assert load_tiny_tasks("held_out", 60)[:20] == load_tiny_tasks("held_out", 20)


def test_an_unknown_split_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidInput, match="has no split 'validation'; use train or held_out"):
        load_tiny_tasks("validation", None)


def test_directives_come_from_the_documented_prior() -> None:
    rng = random.Random(0)
    counted: Counter[tuple[str, object]] = Counter()
    for _ in range(2000):
        text = draw_directives(rng)
        read_directives(text)
        told = json.loads(text)
        counted.update([*told["data_generation"].items(), *told["training"].items()])
    shares = {of: count / 2000 for of, count in counted.items()}
    rates = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    groups = ("use_basic_augmentations", "use_size_augmentations", "use_chain_augmentations", "use_repeat_augmentations")
    expected = {
        **{(name, chosen): 1 / 2 for name in groups for chosen in (True, False)},
        **{("strategy", name): 1 / 2 for name in ("train_using_all_tokens", "train_using_output_tokens")},
        **{("learning_rate", rate): 1 / 9 for rate in rates},
        **{("num_train_epochs", epochs): 1 / 6 for epochs in (1, 2, 3, 4, 6, 8)},
    }
    assert shares.keys() == expected.keys()
    assert shares == pytest.approx(expected, abs=0.03)


@pytest.fixture(scope="module")
def reader() -> PreTrainedTokenizerFast:
    return learn_grids.build_tokenizer()


@pytest.fixture(scope="module")
def writer() -> PreTrainedTokenizerFast:
    return learn_directives.build_tokenizer()


def test_a_cell_is_a_token(reader: PreTrainedTokenizerFast) -> None:
    assert len(reader) == 762
    prompt = write_task([(grid("10\n01"), grid("2"))], grid("345\n678"), "cells")
    assert reader.convert_ids_to_tokens(reader(prompt).input_ids) == ["<bos>", *prompt.split()]
    largest = write_grid(np.full((6, 6), 9, dtype=np.int8), "cells", "i")
    assert len(reader(largest, add_special_tokens=False).input_ids) == 37


def test_what_the_grid_tokenizer_reads_it_writes(reader: PreTrainedTokenizerFast) -> None:
    for task in load_tiny_tasks("held_out", 18):
        (prompt, *_), solution = CELLS.ask(task), grid(task.questions[0].answers[0])
        ids = reader(prompt + write_output(solution, "cells")).input_ids
        assert reader.unk_token_id not in ids
        again = reader.decode(ids, skip_special_tokens=True)
        assert again.split() == (prompt + write_output(solution, "cells")).split()
        answer = read_answer(again.rpartition(" out ")[2], "cells")
        assert answer is not None and np.array_equal(answer, solution)


def test_what_the_directives_tokenizer_reads_it_writes(writer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(1)
    for text in (*(text for text, _ in draw_document(rng)), "Größe ✓ \\ \x00\n\t  two  spaces "):
        assert writer.decode(writer(text).input_ids, skip_special_tokens=True) == text


def test_requests_and_directives_fit_the_tiny_teacher(writer: PreTrainedTokenizerFast) -> None:
    """It has 1024 positions, and recipes let it write 128 tokens."""
    domain, rng = DOMAINS["few_shot"], random.Random(2)
    prompts = [domain.prompt(task, "directives") for split in ("train", "held_out") for task in load_tiny_tasks(split, None)]
    assert max(len(ids) for ids in writer(prompts).input_ids) + 128 <= 1024
    assert max(len(ids) for ids in writer([draw_directives(rng) for _ in range(50)]).input_ids) < 128


def test_a_finished_model_is_a_plain_one_with_the_same_logits() -> None:
    curriculum = learn_grids.Grids(Pretrain())
    torch.manual_seed(0)
    architecture = LlamaConfig(
        vocab_size=762,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=24,
        tie_word_embeddings=True,
    )
    model = curriculum.build(architecture)
    ids = torch.randint(0, 762, (3, 11))
    with torch.no_grad():
        model.embeddings.mul_(20)
        finished = curriculum.finish(model)
        expected, logits = model(ids).logits, finished(input_ids=ids).logits
    assert type(finished) is LlamaForCausalLM
    assert logits.shape == (3, 11, 762)
    assert logits.std() > 0.1
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


def test_the_shipped_models_carry_these_tokenizers_and_are_small() -> None:
    tiny = Path(learn_grids.__file__).parent
    for folder, build in (("grids", learn_grids.build_tokenizer), ("directives", learn_directives.build_tokenizer)):
        assert AutoTokenizer.from_pretrained(tiny / "models" / folder).get_vocab() == build().get_vocab()
    shipped = [path for folder in ("models/grids", "models/directives", "trained_directives") for path in (tiny / folder).iterdir()]
    assert sum(path.stat().st_size for path in shipped) <= 8_000_000
