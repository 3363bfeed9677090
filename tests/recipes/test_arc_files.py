import json
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import InvalidInput
from protocol.messages import Demonstration, Question
from recipes.domains.arc_files import load_tasks

PAIR = {"input": [[1, 0]], "output": [[0, 1]]}
TASK = {"train": [PAIR, {"input": [[2]], "output": [[3], [4]]}], "test": [{"input": [[5, 6], [7, 8]]}]}
LARGE = [[0] * 31 for _ in range(31)]


def write(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def changed(**parts: Any) -> dict[str, Any]:
    return {"harp": {**TASK, **parts}}


def test_challenges_take_their_solutions_from_the_file_beside_them(tmp_path: Path) -> None:
    write(tmp_path / "my-solutions.json", {"harp": [[[9]]], "lute": [[[8]]]})
    harp, lute = load_tasks(write(tmp_path / "my-challenges.json", {"harp": TASK, "lute": TASK}))
    assert harp.title == "harp"
    assert harp.demonstrations == (Demonstration(input="10", output="01"), Demonstration(input="2", output="3\n4"))
    assert harp.questions == (Question(text="56\n78", answers=("9",)),)
    assert (lute.title, lute.questions[0].answers) == ("lute", ("8",))


def test_without_solutions_a_test_is_asked_but_not_graded(tmp_path: Path) -> None:
    (task,) = load_tasks(write(tmp_path / "challenges.json", {"harp": TASK}))
    assert task.questions == (Question(text="56\n78"),)


def test_a_task_may_have_several_tests(tmp_path: Path) -> None:
    write(tmp_path / "solutions.json", {"harp": [[[9]], [[8, 8]]]})
    (task,) = load_tasks(write(tmp_path / "challenges.json", changed(test=[{"input": [[1]]}, {"input": [[2]]}])))
    assert task.questions == (Question(text="1", answers=("9",)), Question(text="2", answers=("88",)))


def test_a_file_of_one_task_is_named_by_the_file_and_has_its_own_outputs(tmp_path: Path) -> None:
    tests = [{"input": [[1]], "output": [[9]]}, {"input": [[2]], "output": [[8]]}]
    (task,) = load_tasks(write(tmp_path / "harp.json", {**TASK, "test": tests}))
    assert task.title == "harp"
    assert task.questions == (Question(text="1", answers=("9",)), Question(text="2", answers=("8",)))


def test_a_folder_is_read_file_by_file_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("lute", "harp"):
        write(tmp_path / f"{name}.json", TASK)
    write(tmp_path / "notes.txt", "no task")
    assert [task.title for task in load_tasks(str(tmp_path))] == ["harp", "lute"]


def test_a_folder_may_have_challenges_with_their_solutions(tmp_path: Path) -> None:
    write(tmp_path / "a-challenges.json", {"harp": TASK})
    write(tmp_path / "a-solutions.json", {"harp": [[[9]]]})
    write(tmp_path / "lute.json", TASK)
    assert [(task.title, task.questions[0].answers) for task in load_tasks(str(tmp_path))] == [("harp", ("9",)), ("lute", ())]


def test_sides_up_to_30_are_read(tmp_path: Path) -> None:
    of = [[0] * 30 for _ in range(30)]
    (task,) = load_tasks(write(tmp_path / "harp.json", {**TASK, "test": [{"input": of}]}))
    assert task.questions[0].text == "\n".join(["0" * 30] * 30)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"challenges\.json holds a list; it must be an object of tasks by name"),
        ("3", r"challenges\.json holds a int"),
        ({}, r"challenges\.json holds no tasks; each is \{\"train\""),
        ('{"harp": {"train": [', r"challenges\.json, line 1, column 21 is not JSON"),
        ("", r"line 1, column 1 is not JSON"),
        ("[" * 100_000, "nests too deeply"),
        ({"harp": 3}, r"task 'harp' is no task; it must be \{\"train\""),
        ({"harp": []}, "task 'harp' is no task"),
        (changed(train=None), "task 'harp' is no task"),
        (changed(test={"input": [[1]]}), "task 'harp' is no task"),
        (changed(train=[PAIR, [[1]]]), "task 'harp' is no task"),
        (changed(train=[]), "task 'harp' has too few demonstrations, 0; learning by leaving one out takes 2"),
        (changed(train=[PAIR]), "task 'harp' has too few demonstrations, 1; .* so leave the task out"),
        (changed(test=[]), "task 'harp' has no test; give at least one input"),
        (changed(test=[{}]), "task 'harp', test 0, input is None; it must be a list of rows"),
        (changed(test=[{"input": []}]), r"test 0, input is \[\]; it must be a list of rows, none of them empty"),
        (changed(test=[{"input": [[]]}]), r"test 0, input is \[\[\]\]; it must be a list of rows, none of them empty"),
        (changed(test=[{"input": "12"}]), "test 0, input is '12'; it must be a list of rows"),
        (changed(test=[{"input": [[1, 2], [3]]}]), "test 0, input: row 1 has 1 cells, row 0 has 2; make them equal"),
        (changed(test=[{"input": [[10]]}]), "test 0, input: row 0 holds 10; a colour is a whole number from 0 to 9"),
        (changed(test=[{"input": [[-1]]}]), "row 0 holds -1; a colour"),
        (changed(test=[{"input": [[True]]}]), "row 0 holds True; a colour"),
        (changed(test=[{"input": [[1.0]]}]), r"row 0 holds 1\.0; a colour"),
        (changed(test=[{"input": [["1"]]}]), "row 0 holds '1'; a colour"),
        (changed(test=[{"input": [[None]]}]), "row 0 holds None; a colour"),
        (changed(test=[{"input": [[float("nan")]]}]), "row 0 holds nan; a colour"),
        (changed(test=[{"input": [[[1]]]}]), r"row 0 holds \[1\]; a colour"),
        (changed(test=[{"input": LARGE}]), "test 0, input is 31 by 31; a grid is at most 30 by 30"),
        (changed(train=[PAIR, {"input": [[1]]}]), "task 'harp', train 1, output is None"),
        (changed(test=[{"input": [[1]], "output": [[10]]}]), "task 'harp', solution 0: row 0 holds 10"),
        (changed(train=[PAIR] * 21), "task 'harp' has 21 demonstrations, more than 20; leave some out"),
        (changed(test=[{"input": [[1]], "output": [[2]]}, {"input": [[1]]}]), "for some of its tests only; .* give all of them or none"),
        ('{"harp": 1, "harp": 2}', "is not JSON that can be read: key 'harp' stands there twice; leave one out"),
        ('{"harp": {"test": [], "train": [], "train": []}}', "key 'train' stands there twice"),
        ({"h" * 1_000_000: 3}, r"task 'h{79} is no task"),
        ({"h" * 10_001: TASK}, "title: String should have at most 10000 characters.*; make them fewer, or the name shorter"),
    ],
)
def test_wrong_challenges_name_the_place_the_value_and_the_remedy(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_tasks(write(tmp_path / "challenges.json", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"solutions\.json holds a list; it must be an object of solutions by task"),
        ({}, r"solutions\.json has no solutions of task 'harp', which .*challenges\.json has; add them, or move the file away"),
        ({"harp": []}, "task 'harp': its solutions are not a list of as many grids as it has tests, 1; make it so"),
        ({"harp": [[[1]], [[2]]]}, "as many grids as it has tests, 1"),
        ({"harp": {"0": [[1]]}}, "as many grids as it has tests, 1"),
        ({"harp": [[[1, 2], [3]]]}, "task 'harp', solution 0: row 1 has 1 cells, row 0 has 2"),
        ({"harp": [LARGE]}, "task 'harp', solution 0 is 31 by 31"),
        ('{"harp": [[[1', r"solutions\.json, line 1, column 14 is not JSON"),
    ],
)
def test_wrong_solutions_name_the_place_the_value_and_the_remedy(tmp_path: Path, content: object, message: str) -> None:
    write(tmp_path / "solutions.json", content)
    with pytest.raises(InvalidInput, match=message):
        load_tasks(write(tmp_path / "challenges.json", {"harp": TASK}))


def test_half_characters_in_a_name_become_question_marks(tmp_path: Path) -> None:
    (task,) = load_tasks(write(tmp_path / "challenges.json", {"\ud800": TASK}))
    assert task.title == "?"


def test_a_task_that_is_there_twice_is_read_once_and_two_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a-challenges.json", {"harp": TASK})
    write(tmp_path / "harp.json", TASK)
    assert [task.title for task in load_tasks(str(tmp_path))] == ["harp"]
    write(tmp_path / "harp.json", {**TASK, "test": [{"input": [[3]]}]})
    with pytest.raises(InvalidInput, match=r"harp\.json: task 'harp' is in .* twice and not the same; give them different names"):
        load_tasks(str(tmp_path))


@pytest.mark.parametrize("source", ["~no-such-user/tasks.json", "h" * 300])
def test_a_source_that_cannot_even_be_looked_up_is_refused_with_the_remedy(source: str) -> None:
    with pytest.raises(InvalidInput, match=r"cannot be looked up .*; give ARC's file of challenges"):
        load_tasks(source)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "challenges.json").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(InvalidInput, match="has 2147483648 bytes, more than 1073741824; split it"):
        load_tasks(str(tmp_path / "challenges.json"))


def test_a_missing_source_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"'nothing\.json' does not exist; give ARC's file of challenges, or a folder"):
        load_tasks("nothing.json")
    with pytest.raises(InvalidInput, match="holds no tasks"):
        load_tasks(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "tasks", "tests"),
    [
        ("arc-agi_training_challenges_filtered_1B_training_set", 12, 13),
        ("arc-agi_evaluation_challenges_filtered_1B_eval_set", 10, 11),
        ("arc-agi_training_challenges", 400, 416),
    ],
)
def test_released_tasks_are_read_with_their_solutions(released: Path, name: str, tasks: int, tests: int) -> None:
    loaded = load_tasks(str(released / "arc" / f"{name}.json"))
    questions = [question for task in loaded for question in task.questions]
    assert (len(loaded), len(questions)) == (tasks, tests)
    assert all(len(question.answers) == 1 for question in questions)
