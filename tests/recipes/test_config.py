from pathlib import Path

import pytest

from protocol.errors import InvalidInput
from recipes.compare_settings import Compare
from recipes.config import load_recipe, to_yaml
from recipes.learning_settings import Continual
from recipes.settings import RECIPES, Experiment, TrainTeacher

ROOT = Path(__file__).resolve().parents[2]


def recipe(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(p for p in (ROOT / "recipes").rglob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    assert load_recipe(path, []).recipe in RECIPES


def test_overrides_win_and_are_typed(tmp_path: Path) -> None:
    path = recipe(tmp_path, "recipe: train_teacher\nrounds: 2")
    settings = load_recipe(path, ["rounds=3", "student.learning_rate=5e-3", "teacher.model=some/model", "minimum=null"])
    assert isinstance(settings, TrainTeacher)
    assert (settings.rounds, settings.student.learning_rate, settings.teacher.model) == (3, 0.005, "some/model")
    assert settings.name == "mine"


def test_the_resolved_recipe_reads_back_the_same(tmp_path: Path) -> None:
    settings = load_recipe(ROOT / "recipes" / "quickstart.yaml", [])
    again = load_recipe(recipe(tmp_path, to_yaml(settings)), [])
    assert isinstance(settings, Experiment)
    assert again == settings


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("recipe: train_teecher", [], r"recipe is 'train_teecher'; Did you mean 'train_teacher'\?"),
        ("rounds: 2", [], r"has no key 'recipe'"),
        ("- a list", [], r"has no key 'recipe'"),
        ("recipe: [unclosed", [], r"mine\.yaml is not a YAML file"),
        ("recipe: train_teacher\nronds: 2", [], r"mine\.yaml: unknown key 'ronds'; Did you mean 'rounds'\?"),
        ("recipe: train_teacher\nstudent: {learning_rat: 1}", [], r"unknown key 'student\.learning_rat'; Did you mean 'learning_rate'\?"),
        ("recipe: train_teacher", ["student.rnk=3"], r"command line: unknown key 'student\.rnk'; Did you mean 'rank'\?"),
        ("recipe: train_teacher\nrounds: many", [], r"rounds: Value 'many' of type 'str' could not be converted to Integer"),
        ("recipe: train_teacher\nstudent: 3", [], r"mine\.yaml: .*not a subclass of StudentChoice"),
        ("recipe: train_teacher\nstudent: {dtype: int4}", [], r"student\.dtype: Invalid value 'int4'"),
        ("recipe: train_teacher\nrounds: 0", [], r"rounds is 0; it must be at least 1"),
        ("recipe: train_teacher\nstudent: {learning_rate: .inf}", [], r"student\.learning_rate is inf; it must be a number above 0"),
        ("recipe: train_teacher\nstudent: {learning_rate: 1.5}", [], r"student\.learning_rate is 1\.5; it must be in \(0, 1\]"),
        ("recipe: train_teacher\nstudent: {learning_rate: -1}", [], r"student\.learning_rate is -1\.0; it must be a number above 0"),
        ("recipe: train_teacher\nteacher: {top_p: 1.5}", [], r"teacher\.top_p is 1\.5"),
        ("recipe: experiment\nseeds: [1, 1]", [], r"seeds is \[1, 1\]; give different seeds"),
        ("recipe: experiment\nheld_out_candidates: 0", [], r"held_out_candidates is 0; it must be at least 1"),
        ("recipe: compare\nstudents: {a: {rank: 0}}", [], r"students\.a\.rank is 0"),
        ("recipe: train_teacher\nstudent: {dropout: 1.0}", [], r"student\.dropout is 1\.0; it must be in \[0, 1\)"),
        ("recipe: train_teacher\nstudent: {warmup_steps: -1}", [], r"student\.warmup_steps is -1; it must not be negative"),
        ("recipe: train_teacher\nstudent: {rank: 512}", [], r"student\.rank is 512, above student\.max_rank, which is 256"),
        ("recipe: train_teacher", ["rounds"], r"override 'rounds' is not key=value"),
        ("recipe: train_teacher", ["recipe=compare"], r"cannot be changed on the command line"),
    ],
)
def test_a_wrong_recipe_names_file_key_and_remedy(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_recipe(recipe(tmp_path, text), overrides)


def test_a_missing_recipe_lists_those_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(InvalidInput, match=r"recipes: .*recipes/quickstart\.yaml"):
        load_recipe(tmp_path / "nothing.yaml", [])


def test_a_recipe_that_is_a_folder_or_binary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a YAML file"):
        load_recipe(tmp_path, [])
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    with pytest.raises(InvalidInput, match="is not a YAML file"):
        load_recipe(tmp_path / "binary.yaml", [])


def test_a_recipe_extends_another_and_takes_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("recipe: train_teacher\nname: base\nrounds: 5\nteacher: {model: a, style: rewrite}")
    settings = load_recipe(recipe(tmp_path, "extends: base.yaml\nteacher: {model: b}"), ["seed=3"])
    assert isinstance(settings, TrainTeacher)
    assert (settings.name, settings.rounds, settings.seed, settings.teacher.model, settings.teacher.style) == ("mine", 5, 3, "b", "rewrite")


def test_a_recipe_may_leave_out_an_entry_of_what_it_extends() -> None:
    settings = load_recipe(ROOT / "recipes/tiny/continual_long.yaml", [])
    assert isinstance(settings, Continual)
    assert list(settings.strategies) == ["merge", "all"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: nowhere.yaml", r"recipe file .*nowhere\.yaml' does not exist"),
        ("extends: mine.yaml", "extends itself"),
        ("extends:", "extends is None; give the file"),
        ("extends: other.yaml\nteacher: [1]", "mine.yaml: "),
        ("extends: other.yaml\nrecipe: compare", "recipe is 'compare', but it extends .*other.yaml, whose recipe is 'train_teacher'"),
    ],
)
def test_a_recipe_that_cannot_extend_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "other.yaml").write_text("recipe: train_teacher")
    with pytest.raises(InvalidInput, match=message):
        load_recipe(recipe(tmp_path, text), [])


@pytest.mark.parametrize("override", ["judge.api_key_env=sk-secret123", "judge.base_url=https://me:secret123@host/v1"])
def test_a_key_in_a_recipe_is_refused_whatever_the_grader_and_not_shown(override: str) -> None:
    with pytest.raises(InvalidInput, match=r"judge\.") as error:
        load_recipe(ROOT / "recipes" / "quickstart.yaml", [override])
    assert "secret123" not in str(error.value)


@pytest.mark.parametrize("override", ["student.model=", "student.model=''"])
def test_an_empty_text_may_be_given_with_or_without_quotes(override: str) -> None:
    settings = load_recipe(ROOT / "recipes" / "tiny" / "train_teacher.yaml", [override])
    assert isinstance(settings, TrainTeacher)
    assert settings.student.model == ""


def test_a_teacher_may_be_left_out_on_the_command_line() -> None:
    path = ROOT / "recipes" / "tiny" / "compare.yaml"
    settings = load_recipe(path, ["teachers.question_writer=null"])
    assert isinstance(settings, Compare)
    assert list(settings.teachers) == ["untrained_teacher", "trained_teacher"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("baselines=passage_only", r"give a list, such as \[one,two\]"),
        ("contexts={split: null}", "an empty text is written as ''"),
        ("grader={a: b}", "put a text in quotes that ends in a colon or has braces"),
        ("candidates=", "Value '' of type 'str' could not be converted to Integer"),
        ("baselines=[passge_only]", r"baselines has 'passge_only'; Did you mean 'passage_only'\?"),
        ("give_up_below=0.7", "unknown key 'give_up_below'"),
    ],
)
def test_what_a_comparison_cannot_have_is_refused_with_a_remedy(override: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_recipe(ROOT / "recipes" / "tiny" / "compare.yaml", [override])
