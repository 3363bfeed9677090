"""The command `tutelage`. Heavy libraries are imported only when a recipe really runs."""

import argparse
import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from safetensors import SafetensorError

from protocol.errors import InvalidInput, TutelageError
from protocol.files import is_disk_full
from recipes.file_commands import FILE_COMMANDS, add_file_commands
from recipes.launching import Seat, keep_one_gpu, start_processes, take_seat
from recipes.line_commands import LINE_COMMANDS, add_line_commands

if TYPE_CHECKING:  # it takes a while to load, and help is quick
    from recipes.base_settings import RecipeSettings

DESCRIPTION = "Train a teacher to write self-edits, and adapt students with it."
EXAMPLES = """examples:
  tutelage run recipes/quickstart.yaml                  train a teacher, freeze it, adapt a new student
  tutelage run recipes/quickstart.yaml rounds=3 student.learning_rate=5e-3 name=longer
  tutelage run recipes/squad/qwen2.5-7b.yaml --dry-run  what it would do and cost; touches no hub
  tutelage run recipes/tiny/train_teacher.yaml --processes 4 finetune.batch_size=8
  tutelage import rank_iter0.json --run runs/released   a result file as SEAL released it becomes a run folder
  tutelage export runs/mine --best-of 1 --out best.jsonl        prompt/completion rows for TRL
  tutelage expand iter0_train.json --out sequences.jsonl        what a student would train on
  tutelage expand challenges.json --directives '{"use_size_augmentations": true}' --count   training tasks that ARC's tasks make
  tutelage grade answers.jsonl --grader lexical --out graded.jsonl
  tutelage serve recipes/serve.yaml                     a student for teachers elsewhere: student.exchange=http://127.0.0.1:8400
  tutelage watch inbox recipes/tiny/watch.yaml --every 6h --window 01:00-05:00   a student learns what comes into a folder
  tutelage versions runs/my-line                        a student that keeps learning: its versions; see also rollback, diff, publish
  tutelage schema reward_request                        the protocol as JSON Schema

A run lives in runs/NAME. Interrupted anywhere, the same command continues it.
"""

WATCH: Final = Path("recipes/tiny/watch.yaml")
OWN_COMMANDS: Final = ("serve", "watch")
"""Of kinds of recipes."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("tutelage", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="run a recipe file, or go on with it", formatter_class=argparse.RawTextHelpFormatter, epilog=EXAMPLES
    )
    run.add_argument("recipe", type=Path, help="a YAML file, such as recipes/quickstart.yaml")
    serve = commands.add_parser("serve", help="serve a student to teachers elsewhere", formatter_class=argparse.RawTextHelpFormatter)
    serve.add_argument("recipe", type=Path, help="a recipe of kind serve, such as recipes/serve.yaml")
    watch = commands.add_parser(
        "watch", help="keep a student learning from what comes into a folder", formatter_class=argparse.RawTextHelpFormatter
    )
    watch.add_argument(
        "inbox", type=Path, metavar="INBOX", help="a folder of documents: .txt, .md, .json, .jsonl; nothing in it is changed"
    )
    watch.add_argument("--every", metavar="TIME", help="from one update to the next, such as 30s, 10m, 6h or 1d")
    watch.add_argument("--window", metavar="FROM-TO", help="updates start only then, in local time, such as 01:00-05:00")
    watch.add_argument("--once", action="store_true", help="leave after one update")
    for command, metavar, what in (
        (run, "KEY=VALUE", "settings to change, such as rounds=3 or student.model=FOLDER"),
        (serve, "KEY=VALUE", "settings to change, such as port=8500 or student.model=FOLDER"),
        (
            watch,
            "[RECIPE] KEY=VALUE",
            f"a recipe of kind watch, or {WATCH}; and settings to change, such as keeping.strategies=[constrain]",
        ),
    ):
        command.add_argument("overrides", nargs="*", metavar=metavar, help=what)
        command.add_argument("--processes", type=int, metavar="N", help="start N processes on this machine by torchrun, one for each GPU")
        command.add_argument(
            "--dry-run", action="store_true", help="check everything but the hub, print the resolved recipe, what it would do and cost"
        )
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # the deepspeed launcher says it here and in the environment
    add_file_commands(commands)
    add_line_commands(commands)
    schema = commands.add_parser("schema", help="print the protocol's JSON Schema")
    schema.add_argument("message", nargs="?", help="one message, such as self_edit; without it, their names")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    if unknown := [word for word in rest if not may_follow(options.command, word)]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        options.overrides += rest
    seat = Seat()
    try:
        seat = take_seat()
        if options.command == "schema":
            return print_schema(options.message)
        if command := {**FILE_COMMANDS, **LINE_COMMANDS}.get(options.command):
            print(command(options))
            return 0
        return run_recipe(options, seat)
    except TutelageError as error:
        who = f"process {seat.rank}: " if seat.rank else ""
        print(f"tutelage: {who}{error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever reads what we print has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, RuntimeError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        print(f"tutelage: the disk is full ({error}); make room, and the same command goes on from what is journaled", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if seat.rank == 0:
            print("\ntutelage: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def print_schema(message: str | None) -> int:
    from protocol.schema import MESSAGES, json_schema

    if message is None:
        print("\n".join(MESSAGES))
    elif message not in MESSAGES:
        raise InvalidInput(f"message is {message!r}; it is one of {', '.join(MESSAGES)}")
    else:
        print(json.dumps(json_schema(message), indent=2))
    return 0


def may_follow(command: str, word: str) -> bool:
    """Whether a word after options is a setting; to watch it may be the recipe."""
    return command in ("run", "grade", *OWN_COMMANDS) and not word.startswith("-") and ("=" in word or command == "watch")


def read_settings(options: argparse.Namespace) -> tuple[Path, list[str], "RecipeSettings"]:
    """The recipe file, the words that change it, and what they come to."""
    from recipes.config import load_recipe

    words = list(options.overrides)
    if options.command != "watch":
        return options.recipe, words, load_recipe(options.recipe, words)
    path = Path(words.pop(0)) if words and "=" not in words[0] else WATCH
    settings = load_recipe(path, words)
    given = {"inbox": str(options.inbox), "every": options.every, "window": options.window, "once": options.once or None}
    for key, value in given.items():
        if value is not None and hasattr(settings, key):
            setattr(settings, key, value)
    return path, words, settings


def run_recipe(options: argparse.Namespace, seat: Seat) -> int:
    from recipes.checks import check, estimate
    from recipes.config import to_yaml

    processes, dry_run = options.processes, options.dry_run
    if processes is not None and (processes < 1 or seat.size > 1):
        started = f", but a launcher has started {seat.size} already; leave it out" if seat.size > 1 else "; it must be at least 1"
        raise InvalidInput(f"--processes is {processes}{started}")
    path, overrides, settings = read_settings(options)
    command = settings.recipe if settings.recipe in OWN_COMMANDS else "run"
    if command != options.command:
        raise InvalidInput(
            f"{path} is a recipe of kind {settings.recipe}; use tutelage {command}{' INBOX' if command == 'watch' else ''} {path}"
        )
    if seat.rank == 0:
        plan = check(settings, processes or seat.size, fetch=not dry_run)
        if dry_run:
            print(to_yaml(settings) + f"\nwould run: {plan}\n{estimate(settings)}\nrun folder: {Path(settings.runs) / settings.name}")
    if dry_run:
        return 0
    if processes is not None and processes > 1:
        return start_processes(processes, [command, str(path), *overrides])
    keep_one_gpu(seat)
    _prepare_libraries(settings.threads)
    from recipes.assembly import assemble
    from recipes.inputs import uses_deepspeed

    started_at = time.perf_counter()
    with assemble(seat, settings, deepspeed=uses_deepspeed(settings)) as team:
        if seat.rank > 0:
            team.serve()
            return 0
        if seat.size > 1:
            team.together(check, settings, seat.size)
            print(f"{seat.size} processes", flush=True)
        importlib.import_module(f"recipes.{settings.recipe}").run(settings, team)
    print(f"done in {time.perf_counter() - started_at:.0f} s")
    return 0


def _prepare_libraries(threads: int | None) -> None:
    """Set the number of threads, and keep the libraries' own bars and notices from tearing our progress apart."""
    if threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for library in ("transformers", "torch.distributed"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=library)
    import datasets
    import torch
    import transformers

    if threads is not None:
        torch.set_num_threads(threads)
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
