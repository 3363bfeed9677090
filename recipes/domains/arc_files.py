"""Read few-shot tasks from ARC's files: challenges with their solutions beside them, or one file for each task.

Whatever is wrong is an `InvalidInput` that names the file, the place, the value and the remedy.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from protocol.errors import InvalidInput
from protocol.messages import Context, Demonstration, Question
from recipes.domains.expansion import MAX_DEMONSTRATIONS
from recipes.domains.files import clean, find_source, read_json
from recipes.domains.grids import read_grid, to_text

SHAPE: Final = '{"train": [{"input": grid, "output": grid}], "test": [{"input": grid}]}'


def load_tasks(source: str) -> list[Context]:
    """Read every task of a source, in its order, once. The title is the task's name; a test without a solution is asked but not graded.

    Args:
        source: A file of challenges, `{name: task}`, whose solutions, `{name: [grid]}`, are read too if they lie beside it under the same
            name with `solutions` for `challenges`; a file of one task; or a folder of such files.
    """
    path = find_source(source, "give ARC's file of challenges, or a folder with a file for each task")
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    solutions = {_solutions_of(file) for file in files}
    tasks: dict[str, Context] = {}
    for file in files:
        for task in _load_file(file) if file not in solutions else ():
            if tasks.setdefault(task.title, task) != task:
                raise InvalidInput(f"{file}: task {task.title!r} is in {path} twice and not the same; give them different names")
    if not tasks:
        raise InvalidInput(f"{path} holds no tasks; each is {SHAPE}")
    return list(tasks.values())


def _load_file(path: Path) -> list[Context]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise InvalidInput(f"{path} holds a {type(content).__name__}; it must be an object of tasks by name, or one task: {SHAPE}")
    if "train" in content or "test" in content:
        return [read_task(path.stem, content, None, str(path))]
    beside = _solutions_of(path)
    solutions = read_json(beside) if beside is not None and beside.exists() else None
    if solutions is not None and not isinstance(solutions, dict):
        raise InvalidInput(f"{beside} holds a {type(solutions).__name__}; it must be an object of solutions by task")
    tasks = []
    for name, task in content.items():
        if solutions is not None and name not in solutions:
            raise InvalidInput(f"{beside} has no solutions of task {name!r:.80}, which {path} has; add them, or move the file away")
        tasks.append(read_task(name, task, None if solutions is None else solutions[name], f"{path}, task {name!r:.80}"))
    return tasks


def _solutions_of(path: Path) -> Path | None:
    """Where the solutions of a file of challenges would be."""
    return path.with_name(path.name.replace("challenges", "solutions")) if "challenges" in path.name else None


def read_task(name: str, task: Any, solutions: Any, place: str) -> Context:
    """One task. `solutions` are grids, one for each test; None takes what outputs the tests have themselves."""
    pairs, tests = (task.get("train"), task.get("test")) if isinstance(task, dict) else (None, None)
    if not isinstance(pairs, list) or not isinstance(tests, list) or not all(isinstance(pair, dict) for pair in pairs + tests):
        raise InvalidInput(f"{place} is no task; it must be {SHAPE}")
    if len(pairs) < 2:
        raise InvalidInput(f"{place} has too few demonstrations, {len(pairs)}; learning by leaving one out takes 2, so leave the task out")
    if len(pairs) > MAX_DEMONSTRATIONS:
        raise InvalidInput(f"{place} has {len(pairs)} demonstrations, more than {MAX_DEMONSTRATIONS}; leave some out")
    if not tests:
        raise InvalidInput(f"{place} has no test; give at least one input")
    if solutions is not None and (not isinstance(solutions, list) or len(solutions) != len(tests)):
        raise InvalidInput(f"{place}: its solutions are not a list of as many grids as it has tests, {len(tests)}; make it so")
    demonstrations = tuple(
        Demonstration(input=_side(pair, "input", f"{place}, train {n}"), output=_side(pair, "output", f"{place}, train {n}"))
        for n, pair in enumerate(pairs)
    )
    questions = []
    for n, test in enumerate(tests):
        solution = test.get("output") if solutions is None else solutions[n]
        answers = () if solution is None else (to_text(read_grid(solution, f"{place}, solution {n}")),)
        questions.append(Question(text=_side(test, "input", f"{place}, test {n}"), answers=answers))
    if len({bool(question.answers) for question in questions}) > 1:
        raise InvalidInput(f"{place} has solutions for some of its tests only; a task is solved as a whole, so give all of them or none")
    try:
        return Context(title=clean(name), demonstrations=demonstrations, questions=tuple(questions))
    except ValidationError as error:
        problem = error.errors()[0]
        raise InvalidInput(f"{place}: {problem['loc'][0]}: {problem['msg']}; make them fewer, or the name shorter") from error


def _side(pair: Mapping[str, Any], side: str, place: str) -> str:
    return to_text(read_grid(pair.get(side), f"{place}, {side}"))
