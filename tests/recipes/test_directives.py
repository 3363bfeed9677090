import json
import time
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import InvalidInput, MalformedEdit
from protocol.messages import Context, SelfEdit, Update
from recipes.candidates import record_candidate
from recipes.domains import DOMAINS
from recipes.domains.directives import find_directives, read_chosen, read_directives

PUBLISHED = """{
  "data_generation": {
    "use_basic_augmentations": true,
    "use_size_augmentations": false,
    "use_chain_augmentations": false,
    "use_repeat_augmentations": true
  },
  "training": {
    "strategy": "train_using_output_tokens",
    "learning_rate": 1e-4,
    "num_train_epochs": 2
  }
}"""
EDIT = SelfEdit(
    directives={
        "use_basic_augmentations": True,
        "use_size_augmentations": False,
        "use_chain_augmentations": False,
        "use_repeat_augmentations": True,
    },
    update=Update(learning_rate=1e-4, epochs=2, loss_on="completion"),
)
HARP, LUTE = Context(title="harp"), Context(title="lute")


def with_training(key: str, value: str) -> str:
    """The published object with another value, as it stands."""
    told = json.loads(PUBLISHED)
    told["training"][key] = "VALUE"
    return json.dumps(told).replace('"VALUE"', value)


def without(group: str, key: str) -> str:
    told = json.loads(PUBLISHED)
    del told[group][key]
    return json.dumps(told)


def and_then(group: str, key: str, value: Any) -> str:
    told = json.loads(PUBLISHED)
    told[group][key] = value
    return json.dumps(told)


def refuse(text: str) -> str:
    """Why a candidate is refused, which must be told at once and fit in a record."""
    started = time.perf_counter()
    record = record_candidate(DOMAINS["few_shot"], HARP, text, "stage", 0, 0, "directives")
    assert time.perf_counter() - started < 0.5
    assert record.malformed is not None
    return record.malformed


def test_the_published_object_is_a_self_edit() -> None:
    assert read_directives(PUBLISHED) == EDIT


def test_all_tokens_are_learned_where_the_strategy_says_so() -> None:
    assert read_directives(with_training("strategy", '"train_using_all_tokens"')).update.loss_on == "all"


@pytest.mark.parametrize(("text", "learning_rate"), [("1", 1.0), ("1e-5", 1e-5), ("0.1", 0.1), ("5E-5", 5e-5)])
def test_learning_rates_are_numbers_up_to_1(text: str, learning_rate: float) -> None:
    assert read_directives(with_training("learning_rate", text)).update.learning_rate == learning_rate


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{PUBLISHED}\n```",
        f"Sure! Here it is:\n\n{PUBLISHED}\n\nI chose them since {{rows}} repeat.",
        f"For the rule {{x}} I choose {PUBLISHED}",
        f'The rule is {{"turn": 90}}, so I choose {PUBLISHED}',
        f'The rule is {{"turn": 90, "turn": NaN}}, so I choose {PUBLISHED}',
        f"{PUBLISHED}\n{PUBLISHED.replace('true', 'false')}",
        PUBLISHED.replace("\n", "").replace(" ", ""),
        f"\ufeff{PUBLISHED}",
    ],
)
def test_text_around_the_object_is_passed_over(text: str) -> None:
    assert read_directives(text) == EDIT


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the candidate holds no JSON object"),
        ("true", "the candidate holds no JSON object"),
        ("[1, 2]", "the candidate holds no JSON object"),
        ("{", "what begins with '{' is no JSON: expecting property name enclosed in double quotes"),
        (PUBLISHED.replace("true", "True"), "is no JSON: expecting value"),
        (PUBLISHED.replace("true", "..."), "is no JSON: expecting value"),
        (PUBLISHED.replace('"', "'"), "is no JSON: expecting property name"),
        (PUBLISHED[:-2], "is no JSON: expecting ',' delimiter"),
        ("{}", "the object with no keys is none; directives are one object with data_generation and training"),
        ('{"a": 1, "b": 2}', "the object with 'a', 'b' is none"),
        (f'{{"answer": {PUBLISHED}}}', "the object with 'answer' is none"),
        ('{"training": {}}', "data_generation: field required"),
        ('{"data_generation": [], "training": {}}', "data_generation: input should be a valid dictionary or .*, not []"),
        (without("data_generation", "use_size_augmentations"), "data_generation.use_size_augmentations: field required"),
        (without("training", "learning_rate"), "training.learning_rate: field required"),
        (and_then("data_generation", "use_magic", True), "data_generation.use_magic is no key of directives; leave it out"),
        (and_then("training", "rank", 8), "training.rank is no key of directives; leave it out"),
        (and_then("training", "k" * 15_000, 8), f"training.{'k' * 71} is no key of directives; leave it out"),
        (and_then("training", "\ud800", 8), "input should be a valid string"),
        (and_then("data_generation", "use_basic_augmentations", 1), "use_basic_augmentations: input should be a valid boolean, not 1"),
        (and_then("data_generation", "use_basic_augmentations", "true"), "input should be a valid boolean, not 'true'"),
        (and_then("data_generation", "use_basic_augmentations", None), "input should be a valid boolean, not None"),
        (PUBLISHED.replace("use_size", "use_basic"), "key 'use_basic_augmentations' stands there twice"),
        (f'{{"{"k" * 9_000}": 1, "{"k" * 9_000}": 2}}', "kkk stands there twice"),
        (with_training("strategy", '"train_on_all_tokens"'), "training.strategy: input should be 'train_using_all_tokens' or"),
        (with_training("strategy", "null"), "training.strategy: input should be"),
        (with_training("learning_rate", "0"), "training.learning_rate: input should be greater than 0, not 0"),
        (with_training("learning_rate", "-1"), "training.learning_rate: input should be greater than 0, not -1"),
        (with_training("learning_rate", "5"), "training.learning_rate: input should be less than or equal to 1, not 5"),
        (with_training("learning_rate", '"0.1"'), "training.learning_rate: input should be a valid number, not '0.1'"),
        (with_training("learning_rate", "true"), "training.learning_rate: input should be a valid number, not True"),
        (with_training("learning_rate", "null"), "training.learning_rate: input should be a valid number, not None"),
        (with_training("learning_rate", "1e-400"), "training.learning_rate: input should be greater than 0, not 0.0"),
        (with_training("learning_rate", "1e400"), "training.learning_rate: input should be a finite number, not inf"),
        (with_training("learning_rate", "NaN"), "NaN is no number"),
        (with_training("learning_rate", "Infinity"), "Infinity is no number"),
        (with_training("learning_rate", "-Infinity"), "-Infinity is no number"),
        (with_training("num_train_epochs", "0"), "training.num_train_epochs: input should be greater than or equal to 1, not 0"),
        (with_training("num_train_epochs", "1.5"), "training.num_train_epochs: input should be a valid integer, not 1.5"),
        (with_training("num_train_epochs", "2.0"), "training.num_train_epochs: input should be a valid integer, not 2.0"),
        (with_training("num_train_epochs", "true"), "training.num_train_epochs: input should be a valid integer, not True"),
        (with_training("num_train_epochs", '"2"'), "training.num_train_epochs: input should be a valid integer, not '2'"),
        (with_training("num_train_epochs", "1000000000"), "less than or equal to 10000, not 1000000000"),
        (with_training("num_train_epochs", "9" * 300), "less than or equal to 10000, not 99999"),
        (with_training("num_train_epochs", "9" * 5_000), "training.num_train_epochs: input should be a valid integer, not inf"),
        ("x" * 20_001, "the candidate has 20001 characters, more than 20000"),
        ('{"a":' * 100_000, "the candidate has 500000 characters"),
        ('{"a":' * 3_999, "the JSON nests too deeply"),
        ('{"a":' + "[" * 19_000, "the JSON nests too deeply"),
        ('{"a":[' * 300, 'what begins with \'{"a":[{"a":[{"a":[{"\''),
        ("{" * 10_000, "what begins with '{{{{{{{{{{{{{{{{{{{{' is no JSON"),
        ('{"' * 9_000, "is no JSON: expecting ':' delimiter"),
        ('{"a":1,}' * 2_000, "is no JSON"),
        ('{"a":1}' * 2_800, "the object with 'a' is none"),
        ('{"a":' * 900 + "[" + "1," * 7_000, 'what begins with \'{"a":{"a":{"a":{"a":\' is no JSON'),
        ("For {x} I choose " + with_training("learning_rate", "5"), "training.learning_rate: input should be less than"),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_self_edit_is_refused_at_once_with_the_reason(text: str, reason: str) -> None:
    told = refuse(text)
    before, _, after = reason.partition(".*")
    assert before in told and after in told.partition(before)[2]
    assert len(told) < 400


def test_a_candidate_of_20000_characters_is_read() -> None:
    assert read_directives(PUBLISHED.ljust(20_000)) == EDIT


def test_a_self_edit_crosses_as_json_and_stays_the_same() -> None:
    again = SelfEdit.model_validate_json(read_directives(PUBLISHED).model_dump_json())
    assert again == EDIT
    assert again.id == EDIT.id
    assert again.directives["use_basic_augmentations"] is True


def test_chosen_groups_alone_leave_training_to_the_student() -> None:
    chosen = read_chosen('{"use_size_augmentations": true}')
    assert chosen.update == Update()
    assert chosen.directives == {
        "use_basic_augmentations": False,
        "use_size_augmentations": True,
        "use_chain_augmentations": False,
        "use_repeat_augmentations": False,
    }
    assert not any(read_chosen("{}").directives.values())


def test_a_whole_self_edit_may_be_chosen() -> None:
    assert read_chosen(PUBLISHED) == EDIT


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON object"),
        ("{", "is no JSON"),
        (f"I choose {PUBLISHED[:-1]}", "is no JSON"),
        (
            '{"use_basic_augmentations": true}, "use_size_augmentations": true}',
            "one JSON object and nothing else: extra data at character 33",
        ),
        ('{"use_size_augmentations": true, "use_size_augmentations": false}', "key 'use_size_augmentations' stands there twice"),
        ('{"use_magic": true}', "use_magic is no key of directives; leave it out"),
        ('{"use_size_augmentations": 1}', "use_size_augmentations: input should be a valid boolean, not 1"),
        ('{"training": {}}', "data_generation: field required"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(MalformedEdit, match=reason):
        read_chosen(text)


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_one_object_is_every_tasks_self_edit(tmp_path: Path) -> None:
    found = find_directives(write(tmp_path / "by_hand.json", PUBLISHED), [HARP, LUTE], 2, "teacher.edits")
    assert list(found) == [HARP.id, LUTE.id]
    for texts in found.values():
        assert [(read_directives(text), style) for text, style in texts] == [(EDIT, ""), (EDIT, "")]


def test_rows_are_self_edits_by_task_and_rows_of_one_task_are_joined(tmp_path: Path) -> None:
    rows = [{"task": "harp", "completions": ["a", "b"]}, {"task": "lute", "completions": ["c"]}, {"task": "harp", "completions": ["d"]}]
    path = write(tmp_path / "written.jsonl", "\n".join(map(json.dumps, rows)))
    assert find_directives(path, [LUTE, HARP], 1, "teacher.edits") == {
        LUTE.id: [("c", "")],
        HARP.id: [("a", ""), ("b", ""), ("d", "")],
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing.json", None, r"teacher\.edits is '.*nothing\.json', which is no file; give a JSON object of directives"),
        ("a.json", "{", "line 1, column 2 is not JSON"),
        ("a.json", [], r"teacher\.edits is '.*a\.json', which is no self-edit for every task: the candidate holds no JSON object"),
        ("a.json", {"use_size_augmentations": True}, "no self-edit for every task: the object with 'use_size_augmentations' is none"),
        ("a.json", with_training("learning_rate", "5"), "no self-edit for every task: training.learning_rate: input should be less than"),
        ("a.json", with_training("learning_rate", "NaN"), "no self-edit for every task: NaN is no number"),
        ("a.jsonl", "", r"has 0 self-edits for task 'harp', and 2 are needed; give tasks that it is about"),
        ("a.jsonl", {"task": "harp", "completions": ["x"]}, "has 1 self-edits for task 'harp', and 2 are needed"),
        ("a.jsonl", {"task": "harp", "completions": "xy"}, r"a\.jsonl, line 1 is .*; every row is \{\"task\": name"),
        ("a.jsonl", {"task": 3, "completions": []}, "line 1 is .*; every row is"),
        ("a.jsonl", [], "line 1 is .*; every row is"),
        ("a.jsonl", "\n{", r"line 2 is not JSON: .*; every line is one object \{\"task\": name"),
    ],
)
def test_a_file_that_says_too_little_is_refused_with_the_remedy(tmp_path: Path, name: str, content: object, message: str) -> None:
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(InvalidInput, match=message):
        find_directives(tmp_path / name, [HARP], 2, "teacher.edits")
