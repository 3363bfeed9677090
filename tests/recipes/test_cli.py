"""The command line as a user meets it, in its own process: wrong input answers soon, with exit code 2 and no run folder."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tutelage(*words: str) -> tuple[subprocess.CompletedProcess[str], float]:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "recipes.cli", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    return done, time.perf_counter() - started


def is_quick(seconds: float, *words: str) -> bool:
    """Under two seconds; a busy machine gets a second try."""
    return seconds < 2 or tutelage(*words)[1] < 2


def test_help_teaches_and_is_quick() -> None:
    done, seconds = tutelage("--help")
    assert done.returncode == 0
    assert "tutelage run recipes/quickstart.yaml" in done.stdout
    assert is_quick(seconds, "--help")


def test_schema_prints_json_schema() -> None:
    done, _ = tutelage("schema", "self_edit")
    assert json.loads(done.stdout)["title"] == "SelfEdit"
    assert "reward_request" in tutelage("schema")[0].stdout


def test_a_dry_run_says_what_would_run_and_makes_nothing(tmp_path: Path) -> None:
    words = ("run", "recipes/quickstart.yaml", f"runs={tmp_path}/runs", "--dry-run", "rounds=3")
    done, seconds = tutelage(*words)
    assert done.returncode == 0
    assert "rounds: 3" in done.stdout
    assert "up to 240 inner loops" in done.stdout
    assert not (tmp_path / "runs").exists()
    assert is_quick(seconds, *words)


@pytest.mark.parametrize(
    ("recipe", "words", "plan", "cost"),
    [
        # Two teachers, paraphrases, and the last teacher with a store have 5 self-edits per context; references and the three other
        # baselines that train have one.
        ("tiny/compare.yaml", ["candidates=5", "seeds=[0,1]"], "8 conditions on 8 contexts and 2 students: 768 inner loops", ": 368,"),
        (
            "tiny/compare.yaml",
            ["candidates=5", "passages=together"],
            "7 conditions on 8 contexts and 2 students: 14 lasting updates",
            ": 6,",
        ),
        ("quickstart.yaml", ["held_out_candidates=5"], "and 288 to compare", ": 136,"),
    ],
)
def test_a_plan_counts_every_self_edit(tmp_path: Path, recipe: str, words: list[str], plan: str, cost: str) -> None:
    source = "held_out" if recipe == "quickstart.yaml" else "contexts"
    left_out = [] if recipe == "quickstart.yaml" else ["teachers.question_writer=null"]
    done, _ = tutelage("run", f"recipes/{recipe}", f"{source}.limit=8", *left_out, *words, f"runs={tmp_path}/runs", "--dry-run")
    assert plan in done.stdout
    assert cost in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipes/nothing.yaml"], "recipe file 'recipes/nothing.yaml' does not exist"),
        (["recipes/quickstart.yaml", "ronds=3"], "unknown key 'ronds'; Did you mean 'rounds'?"),
        (["recipes/quickstart.yaml", "rounds=many"], "rounds: Value 'many' of type 'str' could not be converted to Integer"),
        (["recipes/quickstart.yaml", "runs=LICENSE/runs"], "cannot be written"),
        (["recipes/quickstart.yaml", "teacher.model=recipes"], "teacher.model is 'recipes', a folder without config.json"),
        (["recipes/quickstart.yaml", "student.model=./nothing"], "student.model is './nothing', which does not exist"),
        (["recipes/quickstart.yaml", "student.model=someone/something"], "no such folder, and the hub does not give it"),
        (["recipes/quickstart.yaml", "teacher.adapter=./nothing"], "teacher.adapter is './nothing', which does not exist"),
        (["recipes/quickstart.yaml", "student.model=LICENSE"], "student.model is 'LICENSE', a file"),
        (["recipes/quickstart.yaml", "train.source=nothing.json"], "data source 'nothing.json' does not exist"),
        (["recipes/quickstart.yaml", "train.split=trian"], "has no split 'trian'"),
        (["recipes/quickstart.yaml", "grader=oracle"], "grader is 'oracle'; it is one of exact_match, contained"),
        (["recipes/quickstart.yaml", "domain=chess"], "domain is 'chess'; it is one of knowledge"),
        (["recipes/quickstart.yaml", "teacher.style=poem"], "teacher.style is 'poem'; it is one of implications"),
        (["recipes/quickstart.yaml", "held_out.limit=1"], "held_out has 1 context; comparing needs at least 2"),
        (["recipes/tiny/compare.yaml", "teachers.passage_only.model=x"], "teachers.passage_only: the name"),
        (["recipes/tiny/compare.yaml", "students.seeds.model=x"], "students.seeds: the name"),
        (["recipes/quickstart.yaml", "student.cohort=0"], "student.cohort is 0; it must be at least 1"),
        (["recipes/quickstart.yaml", "student.deepspeed=nothing.json"], "student.deepspeed is 'nothing.json', which is no file"),
        (["recipes/quickstart.yaml", "student.deepspeed=README.md"], "is no DeepSpeed configuration in JSON"),
        (["recipes/quickstart.yaml", "student.dropout=0.1", "student.inner_loop=cohort"], "student.dropout is for one at a time"),
        (["recipes/bench.yaml", "subjects.tiny.timed_steps=2"], "subjects.tiny.timed_steps is 2; it must be at least 3"),
        (["recipes/bench.yaml", "subjects.tiny.contexts.split=population"], "subjects.tiny.contexts has no reference self-edits"),
        (["recipes/quickstart.yaml", "name=../x"], "must be a plain folder name"),
        (["recipes/tiny/compare.yaml", "retrieval.passages=65"], "retrieval.passages is 65; it must be in [1, 64]"),
        (["recipes/tiny/compare.yaml", "retrieval.floor=-1"], "retrieval.floor is -1.0; it must not be negative"),
        (["recipes/tiny/adapt_student.yaml", "memory.least_days=-1"], "memory.least_days is -1.0; it must be at least 0"),
        (["recipes/tiny/adapt_student.yaml", "memory.store=LICENSE"], "store LICENSE, line 1: the line: Invalid JSON"),
        (["recipes/tiny/adapt_few_shot.yaml", "memory.choice=auto"], "domain few_shot has its contexts in view; leave it out"),
    ],
)
def test_wrong_input_names_the_key_and_the_remedy(tmp_path: Path, words: list[str], message: str) -> None:
    if not any(word.startswith("runs=") for word in words):
        words = [*words, f"runs={tmp_path}/runs"]
    done, seconds = tutelage("run", *words)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
    assert is_quick(seconds, "run", *words)


def test_malformed_json_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('[{"title": "x",\n"context": ]')
    done, _ = tutelage("run", "recipes/tiny/train_teacher.yaml", f"contexts.source={tmp_path}/bad.json", f"runs={tmp_path}/runs")
    assert done.returncode == 2
    assert "bad.json, line 2, column 12 is not JSON" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_contexts_without_questions_cannot_be_rewarded(tmp_path: Path) -> None:
    (tmp_path / "harp.txt").write_text("Ada plays the harp.")
    done, _ = tutelage("run", "recipes/tiny/train_teacher.yaml", f"contexts.source={tmp_path}/harp.txt", f"runs={tmp_path}/runs")
    assert done.returncode == 2
    assert "context 'harp' has no question with an answer" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(ROOT / "recipes" / "tiny" / "models" / "llama", model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done, _ = tutelage("run", "recipes/quickstart.yaml", f"new_student.model={model}", f"runs={tmp_path}/runs")
    assert done.returncode == 2
    assert "model.safetensors is damaged" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_unknown_options_are_refused() -> None:
    done, _ = tutelage("run", "recipes/quickstart.yaml", "--fast")
    assert done.returncode == 2
    assert "unrecognized arguments: --fast" in done.stderr


@pytest.mark.parametrize(
    ("directives", "chosen"),
    [
        ('{"use_basic_augmentations": true, "use_repeat_augmentations": true}', "1001"),
        (
            '{"data_generation": {"use_basic_augmentations": false, "use_size_augmentations": true, "use_chain_augmentations": true, '
            '"use_repeat_augmentations": false}, "training": {"strategy": "train_using_all_tokens", "learning_rate": 1e-4, '
            '"num_train_epochs": 2}}',
            "0110",
        ),
    ],
)
def test_training_tasks_are_counted_as_published(released: Path, directives: str, chosen: str) -> None:
    arc = released / "arc"
    done, _ = tutelage("expand", f"{arc}/arc-agi_training_challenges_filtered_1B_training_set.json", "--directives", directives, "--count")
    assert done.returncode == 0, done.stderr
    counted, expected = json.loads(done.stdout), json.loads((arc / "expected_counts.json").read_text())["tasks"]
    assert len(counted) == 12
    assert {task: counted[task] for task in expected} == {task: counts[chosen] for task, counts in expected.items()}


CHALLENGES = '{"harp": {"train": [{"input": [[1]], "output": [[2]]}, {"input": [[3]], "output": [[4]]}], "test": [{"input": [[5]]}]}}'


def test_training_sequences_are_written_for_every_task(tmp_path: Path) -> None:
    (tmp_path / "challenges.json").write_text(CHALLENGES)
    done, _ = tutelage(
        "expand", f"{tmp_path}/challenges.json", "--directives", "{}", "--notation", "cells", "--out", f"{tmp_path}/new/rows.jsonl"
    )
    assert done.stdout == f"4 rows: {tmp_path}/new/rows.jsonl\n"
    rows = [json.loads(line) for line in (tmp_path / "new" / "rows.jsonl").read_text().splitlines()]
    assert {"task": "harp", "prompt": "in 1x1 i1r0c0 out 1x1 o2r0c0\nin 1x1 i3r0c0 out", "completion": " 1x1 o4r0c0"} in rows
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (None, ["--directives", "{}", "--count"], "challenges.json' does not exist; give ARC's file of challenges"),
        (CHALLENGES[:-1], ["--directives", "{}", "--count"], "challenges.json, line 1, column 119 is not JSON"),
        (CHALLENGES, ["--directives", '{"use_magic": true}', "--count"], "--directives: use_magic is no key of directives; leave it out"),
        (CHALLENGES, ["--directives", "{}"], "--out is missing; give a file, or --count"),
        (CHALLENGES, ["--directives", "{}", "--seed", "-1", "--count"], "--seed is -1; it must not be negative"),
        (CHALLENGES, ["--count"], "--count is for ARC's tasks; give --directives with it"),
        (CHALLENGES, ["--notation", "cells", "--out", "x"], "--notation is for ARC's tasks; give --directives with it"),
        (CHALLENGES, ["--out", "x"], "If these are ARC's tasks, give --directives"),
        (CHALLENGES, ["--directives", "{}", "--count", "--out", "x"], "--out and --count are both given; choose one"),
        (CHALLENGES, ["--directives", "{}", "--count", "--style", "self-qa"], "--style is 'self-qa', which is for texts"),
    ],
)
def test_wrong_input_to_expand_names_the_remedy(tmp_path: Path, content: str | None, words: list[str], message: str) -> None:
    if content is not None:
        (tmp_path / "challenges.json").write_text(content)
    done, _ = tutelage("expand", f"{tmp_path}/challenges.json", *words)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
