"""The commands that read a file or a run folder and write another: import, export, expand, grade."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from protocol.errors import InvalidInput, MalformedEdit
from recipes.config import load_judge
from recipes.domains import DOMAINS
from recipes.domains.directives import read_chosen
from recipes.domains.few_shot import FewShot
from recipes.domains.settings import GridSettings
from recipes.graders import check_grader, open_grader
from recipes.inputs import check_judge_model, choose_style
from recipes.reliability import describe_reliability


def add_file_commands(commands: Any) -> None:
    """Tell an argument parser about them."""
    results = commands.add_parser("import", help="make a run folder of a result file as SEAL released it")
    results.add_argument("file", type=Path, help="such as rank_iter0.json or eval_base.json")
    results.add_argument("--run", type=Path, required=True, metavar="DIR", help="the folder to make")
    export = commands.add_parser("export", help="write a run's self-edits as rows for TRL or datasets")
    export.add_argument("run", type=Path, metavar="DIR", help="a run folder")
    what = "prompt/completion rows, chat messages, or a datasets folder with rewards"
    export.add_argument("--what", choices=("sft", "messages", "dataset"), default="sft", help=what)
    export.add_argument("--best-of", type=int, metavar="N", help="keep the N best of each context and stage by mean reward; all without it")
    export.add_argument("--stage", default="", metavar="TEXT", help="only of stages that begin so; without it, all but held-out ones")
    export.add_argument("--out", type=Path, required=True, metavar="FILE")
    expand = commands.add_parser("expand", help="write the training sequences of every completion, or of ARC's tasks")
    expand.add_argument("file", type=Path, help="contexts with completions, such as iter0_train.json; or ARC's challenges")
    expand.add_argument("--style", default="", help="the prompt style they answer; a text itself shows how it is split")
    what = "for ARC's tasks: groups of augmentations as JSON, such as '{\"use_basic_augmentations\": true}', or a whole self-edit"
    expand.add_argument("--directives", metavar="JSON", help=what)
    expand.add_argument("--notation", choices=("arrays", "cells"), help="how grids are written, with --directives: arrays without it")
    expand.add_argument("--seed", type=int, help="of what is drawn by lot, with --directives: 0 without it")
    what = "with --directives: print how many training tasks there are, as JSON by task, before each gets a permuted copy"
    expand.add_argument("--count", action="store_true", help=what)
    expand.add_argument("--out", type=Path, metavar="FILE.jsonl", help="where the sequences go, at most 250 for each of ARC's tasks")
    grade = commands.add_parser("grade", help="grade rows of question, gold and answer")
    grade.add_argument("file", type=Path, help="JSONL; gold is a text or a list of texts")
    grade.add_argument("--grader", required=True, help="such as exact_match, contained, lexical or judge")
    grade.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl")
    grade.add_argument("overrides", nargs="*", metavar="judge.KEY=VALUE", help="settings of a judge, such as judge.model=FOLDER")


def import_file(options: argparse.Namespace) -> str:
    from recipes.released import import_results

    report = import_results(options.file, options.run)
    before, after, gain = (report[name] for name in ("accuracy_before", "accuracy_after", "gain"))
    told = [
        f"{after['n']} contexts: accuracy {before['mean']:.1%} before, {after['mean']:.1%} after, "
        f"gain {gain['mean']:+.1%} [{gain['low']:+.1%}, {gain['high']:+.1%}], "
        f"answers +{report['answers_gained']} -{report['answers_lost']}"
    ]
    if report["reliability"]:
        told.append(describe_reliability(report["reliability"]))
    return "\n".join([*told, f"run folder: {options.run}"])


def export_folder(options: argparse.Namespace) -> str:
    from recipes.exports import export_run
    from recipes.run_folder import domain_of_run

    if options.best_of is not None and options.best_of < 1:
        raise InvalidInput(f"--best-of is {options.best_of}; it must be at least 1")
    rows, unknown = export_run(options.run, options.what, options.best_of, options.stage, options.out, domain_of_run(options.run))
    left_out = f"; {unknown} are left out, since their prompts are not published ones" if unknown else ""
    return f"{rows} rows: {options.out}{left_out}"


def expand_completions(options: argparse.Namespace) -> str:
    from recipes.exports import expand_file

    if options.directives is not None:
        return expand_tasks(options)
    if useless := [name for name in ("count", "notation", "seed") if getattr(options, name) not in (None, False)]:
        raise InvalidInput(f"--{useless[0]} is for ARC's tasks; give --directives with it")
    if options.out is None:
        raise InvalidInput("--out is missing; give a file")
    domain = DOMAINS["knowledge"]
    choose_style(options.style, domain, "--style")
    try:
        rows, malformed = expand_file(options.file, options.out, domain)
    except InvalidInput as error:
        raise InvalidInput(f"{error}. If these are ARC's tasks, give --directives") from error
    return f"{rows} rows: {options.out}" + (f"; {malformed} completions are no self-edits and have no sequences" if malformed else "")


def expand_tasks(options: argparse.Namespace) -> str:
    from recipes.exports import write_jsonl

    if options.style:
        raise InvalidInput(f"--style is {options.style!r}, which is for texts; leave it out with --directives")
    if options.count == (options.out is not None):
        raise InvalidInput("--out and --count are both given; choose one" if options.count else "--out is missing; give a file, or --count")
    seed = options.seed or 0
    if seed < 0:
        raise InvalidInput(f"--seed is {seed}; it must not be negative")
    domain = FewShot(GridSettings(notation=options.notation or "arrays"))
    try:
        edit = read_chosen(options.directives)
    except MalformedEdit as error:
        raise InvalidInput(f"--directives: {error}") from error
    tasks, _ = domain.load(str(options.file), "", None)
    if options.count:
        return json.dumps({task.title: domain.count(task, edit, seed) for task in tasks}, indent=1)
    expanded = [(task, domain.expand(task, edit, seed)) for task in tasks]
    rows = [{"task": task.title, "prompt": e.prompt, "completion": e.completion} for task, examples in expanded for e in examples]
    write_jsonl(options.out, rows)
    return f"{len(rows)} rows: {options.out}"


def grade_rows(options: argparse.Namespace) -> str:
    from recipes.exports import grade_file

    judge = load_judge(options.overrides)
    check_grader(options.grader, judge)
    if options.grader == "judge":
        check_judge_model(judge)
    graded = grade_file(options.file, open_grader(options.grader, judge), options.out)
    missing = f", {graded['missing']} verdicts missing" if graded["missing"] else ""
    share = f", {graded['correct']:.1%} correct" if graded["graded"] else ""
    return f"{graded['graded']} of {graded['rows']} rows graded{share}{missing}: {options.out}"


FILE_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], str]]] = {
    "import": import_file,
    "export": export_folder,
    "expand": expand_completions,
    "grade": grade_rows,
}
"""By name; each returns what the user is told."""
