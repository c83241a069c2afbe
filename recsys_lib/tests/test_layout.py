"""The shape of the package: arrows of import between rooms point one way, start-up is light, nothing unpickles."""

import re
import subprocess
import sys

import pytest

from recsys_lib.files import read_json
from recsys_lib.paths import REPOSITORY

PACKAGE = REPOSITORY / "recsys_lib"
ROOMS = ["paths", "files", "data", "models", "evaluation", "plots", "run", "scale", "app", "api"]  # imports point left
SOURCES = [path for path in PACKAGE.rglob("*.py") if not {"tests", "benchmarks"} & set(path.relative_to(PACKAGE).parts)]


def test_imports_between_rooms_point_one_way():
    for path in SOURCES:
        if path.parent == PACKAGE and path.name == "__init__.py":
            continue
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        used = re.findall(r"^\s*(?:from|import) recsys_lib\.(\w+)", path.read_text(encoding="utf-8"), re.M)
        behind = [room for room in used if ROOMS.index(room) > ROOMS.index(own)]
        assert not behind, f"{path.relative_to(PACKAGE)} imports {behind}"
        assert own != "api" or "app" not in used, f"{path.name}: the service must not import the application"


def test_the_top_holds_at_most_thirteen_entries():
    there = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert len(there) <= 13, sorted(there)


@pytest.mark.parametrize("module", ["recsys_lib.models", "recsys_lib.run.training, recsys_lib.run.champion"])
def test_what_takes_seconds_to_import_is_imported_where_it_is_used(module):
    heavy = ("torch", "matplotlib", "optuna", "mlflow")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_steps_need_the_standard_library_alone():
    """Make calls it before anything is installed."""
    command = [sys.executable, "-I", "-S", "-c"]
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import recsys_lib.run.steps as s; print(s.STEPS[0].name)"
    )
    result = subprocess.run([*command, code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "00_environment"


def test_the_lock_has_what_the_environment_asks_for_and_a_hash_for_every_entry():
    environment = (REPOSITORY / "environment.yml").read_text(encoding="utf-8")
    pinned = re.findall(r"^      - (\S+==\S+)(?: ; .*)?$", environment, re.M)
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    entry = r"^([\w.-]+==[\w.+]+)(?: ; .*)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+"
    entries = re.findall(entry, lock, re.M)
    assert len(pinned) == len(re.findall("^      - ", environment, re.M)) > 50 and set(pinned) <= set(entries)
    assert len(entries) == len(re.findall(r"^[^# ]", lock, re.M)), "nothing without a hash"
    assert not [name for name in entries if name.startswith(("nvidia", "triton"))]


def test_headings_of_notebooks_ask_what_their_section_answers():
    for file in (REPOSITORY / "notebooks").rglob("*.ipynb"):
        texts = ["".join(cell["source"]) for cell in read_json(file)["cells"] if cell["cell_type"] == "markdown"]
        headings = re.findall(r"^##+ (.+)$", "\n".join(texts), re.M)
        assert [heading for heading in headings if "?" not in heading] == [], file.name


def test_nothing_unpickles():
    forbidden = re.compile(r"\b(pickle|joblib|torch)\.load\(|allow_pickle=True|weights_only=False|read_pickle")
    assert not [path.name for path in SOURCES if forbidden.search(path.read_text(encoding="utf-8"))]
