"""The arrows between packages, and that checking input stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "protocol": {"protocol"},
    "student": {"student", "protocol"},
    "teacher": {"teacher", "protocol"},
    "recipes": {"recipes", "student", "teacher", "protocol"},
}


def imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names.add((node.module or "").split(".")[0])
    return names & set(ALLOWED)


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_down_only(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert imported_packages(path) <= ALLOWED[package], path


@pytest.mark.parametrize(
    "module",
    [
        "protocol.journal, protocol.schema, protocol.exchange, protocol.domain, protocol.endpoint",
        "teacher.endpoint, teacher.serving, recipes.endpoint_teacher",
        "recipes.cli, recipes.checks, recipes.feedback, recipes.answer_tests",
    ],
)
def test_protocol_and_checks_load_no_torch(module: str) -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'evaluate', 'peft', 'trl'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_test_folders_are_no_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_every_recipe_has_its_file() -> None:
    from recipes.settings import RECIPES

    for name in RECIPES:
        assert (ROOT / "recipes" / f"{name}.py").exists()
