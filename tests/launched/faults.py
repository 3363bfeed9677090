"""Runs `tutelage` and stops dead at a named point of it, for a test to kill: `faults.py FOLDER POINT COUNT RANK run RECIPE ...`.

At the `COUNT`th time that the process of rank `RANK` comes to `POINT`, it writes its process id into `FOLDER/stopped` and sleeps.
Whatever a process computes, it notes in `FOLDER/computed-RANK`: the key of each reward, and context and index of each candidate.
"""

import functools
import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

POINTS = {
    "sampling": ("teacher.policy", "Policy.sample"),
    "training": ("student.cohort_trainer", "CohortSFTTrainer.training_step"),
    "answering": ("student.cohort", "answer_routed"),
    "scoring": ("student.student", "Student._reward"),
    "journaling": ("protocol.journal", "Journal.append"),
    "selection": ("recipes.train_teacher", "keep_best"),
    "asking": ("student.student", "Student.ask_one"),
    "finetuning": ("teacher.finetune", "_Progress.on_step_end"),
    "checkpointing": ("teacher.finetune", "confirm_checkpoint"),
    "saving": ("teacher.finetune", "publish_folder"),
    "updating": ("student.single", "ConfirmCheckpoints.on_save"),
    "keeping": ("student.lasting", "publish_folder"),
    "reporting": ("recipes.run_folder", "RunFolder.write_report"),
}
"""Every phase of a run, and the function that is stopped at."""

FIRST_ALONE = ("journaling", "selection", "saving", "keeping", "reporting")
"""What only the process of rank 0 does."""


def main() -> int:
    folder, point, count, rank = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    this_rank = os.environ.get("RANK", "0")
    note_what_is_computed(folder / f"computed-{this_rank}")
    if point != "none" and this_rank == rank:
        stop_at(point, count, folder)
    from recipes.cli import main as tutelage

    return tutelage(sys.argv[5:])


def stop_at(point: str, count: int, folder: Path) -> None:
    owner, name = find(*POINTS[point])
    function, times = getattr(owner, name), [0]

    @functools.wraps(function)
    def stopping(*arguments: Any, **options: Any) -> Any:
        times[0] += 1
        if times[0] < count:
            return function(*arguments, **options)
        if point == "journaling":  # in the middle of a line
            journal, *records = arguments
            *lines, last = [(record.model_dump_json() + "\n").encode() for record in records]
            os.write(journal._file, b"".join(lines) + last[: len(last) // 2])
        (folder / "stopped.tmp").write_text(str(os.getpid()))
        (folder / "stopped.tmp").rename(folder / "stopped")
        time.sleep(1000)

    setattr(owner, name, stopping)


def find(module: str, path: str) -> tuple[Any, str]:
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, name


def note_what_is_computed(path: Path) -> None:
    from student.student import Student
    from teacher.policy import Policy

    def note(lines: list[str]) -> None:
        with path.open("a") as file:
            file.write("".join(line + "\n" for line in lines))

    score, ask, sample = Student.score_cohort, Student.ask_one, Policy.sample

    @functools.wraps(score)  # its name, too: functions cross between processes by name
    def noted_score(self: Student, number: int) -> Any:
        results = score(self, number)
        note([result.key for result in results])
        return results

    @functools.wraps(ask)
    def noted_ask(self: Student, request: Any) -> Any:
        answers = ask(self, request)
        note([answers.key])
        return answers

    @functools.wraps(sample)
    def noted_sample(self: Policy, prompts: Any, seeds: Any) -> list[str]:
        texts = sample(self, prompts, seeds)
        note([f"{seed} {self.settings.adapter or self.settings.model}" for seed in seeds])
        return texts

    Student.score_cohort, Student.ask_one, Policy.sample = noted_score, noted_ask, noted_sample  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())
