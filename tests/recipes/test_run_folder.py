import json
from pathlib import Path

import pytest

from protocol.errors import InvalidInput
from protocol.messages import Context
from recipes.base_settings import DataSettings
from recipes.graders.settings import JudgeSettings
from recipes.learning_settings import Watch
from recipes.machine_settings import Serve
from recipes.run_folder import RunFolder, check_run_folder, read_contexts
from recipes.settings import AdaptStudent
from recipes.team import Team

ADA = Context(title="Ada", passage="Ada plays\u2028the harp.")
INPUTS = {"contexts": [ADA, ADA]}


def settings(runs: Path, **changes: object) -> AdaptStudent:
    return AdaptStudent(recipe="adapt_student", name="mine", runs=str(runs), contexts=DataSettings(source="a.txt"), **changes)  # type: ignore[arg-type]


def test_the_same_recipe_reopens_its_folder(tmp_path: Path) -> None:
    with RunFolder(settings(tmp_path), INPUTS, {}, Team()) as folder:
        folder.log_metrics(loss=1.5)
        folder.write_report({"n": 1})
    with RunFolder(settings(tmp_path), INPUTS, {}, Team()) as folder:
        folder.log_metrics(loss=1.0)
    assert [json.loads(line)["loss"] for line in (tmp_path / "mine" / "metrics.jsonl").read_text().splitlines()] == [1.5, 1.0]


def test_a_run_keeps_its_contexts(tmp_path: Path) -> None:
    with RunFolder(settings(tmp_path), INPUTS, {}, Team()) as folder:
        assert read_contexts(folder.path) == {ADA.id: ADA}
    with pytest.raises(InvalidInput, match=r"is no run folder: .*contexts\.jsonl cannot be read"):
        read_contexts(tmp_path)
    (folder.path / "contexts.jsonl").write_text("{}{")
    with pytest.raises(InvalidInput, match="is not as a run wrote it"):
        read_contexts(folder.path)


def test_a_changed_recipe_is_refused_naming_the_keys(tmp_path: Path) -> None:
    with RunFolder(settings(tmp_path), INPUTS, {}, Team()):
        pass
    with pytest.raises(InvalidInput, match=r"candidates was 1, is now 3; seed was 0, is now 7.*name=\.\.\., delete"):
        check_run_folder(settings(tmp_path, candidates=3, seed=7))


def test_settings_that_decide_no_figure_may_change(tmp_path: Path) -> None:
    with RunFolder(settings(tmp_path), INPUTS, {}, Team()):
        pass
    check_run_folder(settings(tmp_path, judge=JudgeSettings(max_missing=0.5, retries=9, cache="elsewhere")))
    with pytest.raises(InvalidInput, match=r"judge\.model was '', is now 'gpt'"):
        check_run_folder(settings(tmp_path, judge=JudgeSettings(model="gpt")))


def test_a_service_may_take_up_a_line_and_a_student_that_keeps_learning_may_not_change_its_own(tmp_path: Path) -> None:
    told = {"name": "mine", "runs": str(tmp_path)}
    with RunFolder(Serve(recipe="serve", **told), {}, {}, Team()):
        pass
    check_run_folder(Serve(recipe="serve", **told, line="elsewhere", port=1))
    told["name"] = "watched"
    with RunFolder(Watch(recipe="watch", **told), {}, {}, Team()):
        pass
    with pytest.raises(InvalidInput, match="line was '', is now 'elsewhere'"):
        check_run_folder(Watch(recipe="watch", **told, line="elsewhere"))


def test_other_data_or_weights_under_the_same_recipe_are_refused(tmp_path: Path) -> None:
    with RunFolder(settings(tmp_path), INPUTS, {}, Team()):
        pass
    with pytest.raises(InvalidInput, match=r"contexts changed since .*mine was begun"):
        RunFolder(settings(tmp_path), {"contexts": [Context(title="Bob")]}, {}, Team())


@pytest.mark.parametrize("left", [["lock"], ["lock", "inputs.json"], ["lock", "inputs.json", "contexts.jsonl", "recipe.yaml.tmp"]])
def test_a_folder_whose_making_was_cut_short_is_made_again(tmp_path: Path, left: list[str]) -> None:
    (tmp_path / "mine").mkdir()
    for name in left:
        (tmp_path / "mine" / name).write_text("")
    with RunFolder(settings(tmp_path), INPUTS, {}, Team()) as folder:
        assert (folder.path / "recipe.yaml").stat().st_size > 0
    check_run_folder(settings(tmp_path))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(InvalidInput, match="is no run folder"):
        RunFolder(settings(tmp_path), INPUTS, {}, Team())
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", ["..", "a/b", "/etc", "."])
def test_a_name_cannot_leave_the_runs_folder(tmp_path: Path, name: str) -> None:
    changed = settings(tmp_path)
    changed.name = name
    with pytest.raises(InvalidInput, match="must be a plain folder name"):
        check_run_folder(changed)


def test_runs_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInput, match="cannot be written"):
        check_run_folder(settings(tmp_path / "file"))


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with RunFolder(settings(tmp_path), INPUTS, {}, Team()), pytest.raises(InvalidInput, match="in use by another process"):
        RunFolder(settings(tmp_path), INPUTS, {}, Team())
