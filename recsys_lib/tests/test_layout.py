"""The shape of the package: arrows of import point one way, start-up is light, nothing unpickles."""

import ast
import re
import subprocess
import sys

import pytest

from recsys_lib.paths import REPOSITORY

PACKAGE = REPOSITORY / "recsys_lib"
# A module may import what stands before it, never what stands behind it.
ORDER = [
    "paths",
    "files",
    "steps",
    "parameters",
    "environment",
    "datasets",
    "interactions",
    "splits",
    "ranking",
    "models",
    "metrics",
    "leaks",
    "features",
    "inference",
    "evaluation",
    "segments",
    "cold_start",
    "neural_study",
    "canonical",
    "leakage_study",
    "artifacts",
    "results",
    "findings",
    "registry",
    "tracking",
    "plots",
    "tuning",
    "training",
    "reading",
    "runner",
    "report",
    "demo",
    "api",
]
SOURCES = [path for path in PACKAGE.rglob("*.py") if not {"tests", "benchmarks"} & set(path.relative_to(PACKAGE).parts)]


def subject(path) -> str:
    """First part of a module's name below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path) -> set[str]:
    """Subjects of the package that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("recsys_lib."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "recsys_lib":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("recsys_lib.")}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_only_point_up(path):
    if path.name == "__init__.py" and path.parent == PACKAGE:
        return
    own = subject(path)
    assert own in ORDER, f"{own} has no place in the order of modules"
    behind = {name for name in imported(path) if name != own and name in ORDER and ORDER.index(name) > ORDER.index(own)}
    assert not behind, f"{path.name} imports {behind}, which stand behind {own}"


@pytest.mark.parametrize("module", ["recsys_lib", "recsys_lib.models", "recsys_lib.artifacts", "recsys_lib.evaluation"])
def test_torch_is_not_imported_where_arrays_do(module):
    code = f"import sys, {module}; print([name for name in ('torch', 'matplotlib', 'optuna') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_steps_need_the_standard_library_alone():
    """Make calls it before anything is installed."""
    command = [sys.executable, "-I", "-S", "-c"]
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import recsys_lib.steps as s; print(s.STEPS[0].name)"
    result = subprocess.run([*command, code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "00_environment"


def test_nothing_unpickles():
    forbidden = re.compile(r"\b(pickle|joblib|torch)\.load\(|allow_pickle=True|weights_only=False|read_pickle")
    assert not [path.name for path in SOURCES if forbidden.search(path.read_text(encoding="utf-8"))]
