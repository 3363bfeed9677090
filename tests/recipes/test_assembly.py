import json
from pathlib import Path

import pytest
from torch._C._distributed_c10d import HashStore

from protocol.errors import InvalidInput, TutelageError
from recipes.assembly import _find_problem
from recipes.base_settings import DataSettings
from recipes.launching import Seat
from recipes.run_folder import RunFolder
from recipes.settings import AdaptStudent
from recipes.team import Team
from recipes.zero_configs import SHIPPED, check_config, find_config, zero_stage

MINE = {"recipe": "1", "device": "cuda", "torch": "2.13.0", "host": "node-0"}


@pytest.mark.parametrize(
    ("theirs", "problem"),
    [
        ({}, ""),
        ({"device": "cpu"}, "process 1 on node-1 has device cpu, process 0 on node-0 has cuda; start as many processes on a machine as it"),
        ({"torch": "2.12.0"}, "has torch 2.12.0, process 0 on node-0 has 2.13.0; install the same version everywhere"),
        ({"recipe": "2"}, "give every process the same recipe file and overrides"),
    ],
)
def test_what_processes_do_not_have_in_common_is_named(theirs: dict[str, str], problem: str) -> None:
    store = HashStore()
    store.set("hello-1", json.dumps({**MINE, "host": "node-1", **theirs}))
    found = _find_problem(Seat(0, 2, 0, 1), store, MINE, seconds=1)
    assert problem in found and bool(problem) == bool(found)


def test_a_process_that_does_not_report_is_named() -> None:
    assert "process 1 of 2 did not come within 0 s" in _find_problem(Seat(0, 2, 0, 1), HashStore(), MINE, seconds=0.1)


def test_a_run_folder_that_is_another_one_elsewhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.team._SHOWING_SECONDS", 0.1)
    settings = AdaptStudent(recipe="adapt_student", name="mine", runs=str(tmp_path), contexts=DataSettings(source="a.txt"))
    with RunFolder(settings, {}, {}, Team()) as folder, pytest.raises(TutelageError, match="put runs=DIR on a file system that all share"):
        Team()._open_log(folder.path, "another token")


def test_shipped_configurations_are_sound() -> None:
    assert {name: zero_stage(name) for name in SHIPPED} == {"zero2": 2, "zero3": 3, "zero3_offload": 3}
    for name in SHIPPED:
        check_config(name, "distributed.deepspeed", "bfloat16")
    assert zero_stage(None) == 0 and find_config(None) is None and find_config("mine.json") == "mine.json"


@pytest.mark.parametrize(
    ("changes", "dtype", "message"),
    [
        ({"train_batch_size": 8}, "float32", r"train_batch_size is 8, but the recipe's batch sizes decide it; make it \"auto\""),
        ({"zero_optimization": {"stage": 7}}, "float32", "zero_optimization.stage is 7; it must be 0, 1, 2 or 3"),
        ({"zero_optimization": {"stage": 3}}, "float32", "stage3_gather_16bit_weights_on_model_save must be true"),
        ({"bf16": {"enabled": True}}, "float32", 'bf16.enabled must be "auto"'),
        ({}, "float16", "is not supported with dtype float16"),
        ({"optimizer": {"type": "AdamW"}}, "float32", "has an optimizer or a scheduler, but the recipe decides them; take them out"),
    ],
)
def test_a_configuration_that_contradicts_the_recipe_is_refused(
    tmp_path: Path, changes: dict[str, object], dtype: str, message: str
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**json.loads(SHIPPED["zero3"].read_text()), **changes}))
    with pytest.raises(InvalidInput, match=message):
        check_config(str(path), "distributed.deepspeed", dtype)


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"zero_optimization": 3}', "{" * 100_000, "[" * 100_000])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(InvalidInput, match="is no DeepSpeed configuration in JSON"):
        check_config(str(path), "distributed.deepspeed")
