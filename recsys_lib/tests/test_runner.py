"""The runner: parameters are checked, outputs are whole, failures are said."""

import json
import os
import re
import resource
import subprocess
import sys

import nbformat
import pandas as pd
import psutil
import pytest
from papermill.exceptions import PapermillExecutionError

from recsys_lib.files import read_json, write_json
from recsys_lib.paths import REPOSITORY, Paths
from recsys_lib.run import parameters, runner, sizing
from recsys_lib.run.run import Run

NOTEBOOKS = REPOSITORY / "notebooks"
SEQUENCE = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))


def notebook(folder, *cells: str):
    """Write a notebook whose first cell is tagged ``parameters``."""
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    content.cells[0].metadata["tags"] = ["parameters"]
    content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / "90_made.ipynb"
    nbformat.write(content, path)
    return path


def test_a_notebook_runs_and_leaves_its_log_and_times(lab_home):
    bar = "from tqdm.auto import tqdm\nfor _ in tqdm(range(3)): pass"
    source = notebook(lab_home, "dataset: str = 'x'\nk: int = 1", "import json\nprint('k is', k)", bar)
    params = lab_home / "p.yaml"
    params.write_text("common: {k: 7}\n")
    target = runner.execute(source, "made", params)
    assert target == Paths("made").outputs / "notebooks" / "90_made.ipynb"
    assert "k is 7" in target.read_text()
    assert "0%|" not in target.read_text(), "a bar would be kept as it stood at its start"
    assert "k is 7" in (Paths("made").logs / "90_made.log").read_text()
    times = json.loads((Paths("made").logs / "times" / "90_made.json").read_text())
    assert 0 < times["start_and_import_seconds"] < times["seconds"]
    assert times["cpu_seconds"] > 0.1 and times["peak_gib"] > 0.01, "a kernel that imports something takes as much"


@pytest.mark.parametrize(
    "text", ["`touch hacked`", "a'b\"c\\\n$(touch hacked)\r{{x}}", '"""; 1 / 0 #', "<b>%d{0}😀</b>"]
)
def test_texts_reach_a_notebook_as_they_are(lab_home, monkeypatch, text):
    """Of parameters, and of the name of a data set, whose log and executed notebook are text as well."""
    monkeypatch.chdir(lab_home)
    show = "import json, pathlib; pathlib.Path('seen.json').write_text(json.dumps([dataset, split, reading]))"
    source = notebook(lab_home, "dataset: str = 'x'\nsplit: str = ''\nreading: dict = {}", f"{show}\nprint(split)")
    given = {"common": {"split": text, "reading": {"columns": {text: text}}}}
    (lab_home / "p.yaml").write_text(json.dumps(given, ensure_ascii=False))
    target = runner.execute(source, f"{lab_home}/{text}.csv", lab_home / "p.yaml")
    dataset = str((lab_home / f"{text}.csv").resolve())
    assert json.loads((lab_home / "seen.json").read_text()) == [dataset, text, {"columns": {text: text}}]
    assert target.is_relative_to(lab_home / "outputs") and nbformat.read(target, as_version=4)
    assert not list(lab_home.rglob("hacked"))


def test_a_failing_cell_leaves_no_executed_notebook_but_says_what_happened(lab_home):
    source = notebook(lab_home, "dataset: str = 'x'", "1 / 0")
    with pytest.raises(PapermillExecutionError, match="ZeroDivisionError"):
        runner.execute(source, "made")
    assert list((Paths("made").outputs / "notebooks").iterdir()) == []
    assert "ZeroDivisionError" in (Paths("made").logs / "90_made.failed.ipynb").read_text()


def command(folder, source, **given):
    """The runner as Make calls it: its exit status, and what it writes to stderr without the progress bar."""
    environment = os.environ | {"RECSYS_HOME": str(folder), "PYTHONPATH": str(REPOSITORY)} | given
    call = [sys.executable, "-m", "recsys_lib.run.runner", str(source), "--dataset", "made"]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, [line for line in done.stderr.splitlines() if line and "%|" not in line]


def test_what_goes_wrong_around_a_notebook_is_one_sentence(lab_home):
    assert command(lab_home, notebook(lab_home, "dataset: str = 'x'", "import os; os.kill(os.getpid(), 9)")) == (
        2,
        ["90_made: Kernel died (was memory short?); the same command continues from here"],
    )
    silent = "get_ipython().showtraceback = lambda *_, **__: print('OSError: too many open files')\n1 / 0"
    code, lines = command(lab_home, notebook(lab_home, "dataset: str = 'x'", silent))
    assert (code, lines[0]) == (1, "90_made failed: OSError: too many open files")
    source, limit = notebook(lab_home, "dataset: str = 'x'"), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limit[1]))
    few = command(lab_home, source)
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert few == (2, ["90_made: 100 open files at once are too few, 128 are needed: `ulimit -n 128` allows them"])
    (lab_home / "outputs").rename(lab_home / "before")
    (lab_home / "outputs").write_text("")
    code, lines = command(lab_home, source)
    assert (code, len(lines)) == (2, 1)
    assert str(lab_home / "outputs" / "made") in lines[0]


def test_one_make_at_a_time_runs_a_data_set(lab_home, monkeypatch):
    source, file = notebook(lab_home, "dataset: str = 'x'"), Paths("made").outputs / ".run.json"
    with psutil.Popen(["sleep", "600"]) as other:
        began = runner.began(psutil.Process(other.pid))
        write_json(file, (other.pid, began))
        refusal = f"process {other.pid} is running made already; wait for it, or end it"
        assert command(lab_home, source) == (2, [f"90_made: {refusal}"])
        with monkeypatch.context() as patch, pytest.raises(BlockingIOError, match=refusal):
            patch.setattr(psutil._psplatform, "boot_time", lambda: 0.0)  # somebody has set the clock
            runner.claim(Paths("made"))
        write_json(file, (other.pid, began - 100))  # of a process that had this number before
        assert command(lab_home, source) == (0, [])
        assert read_json(file)[0] != other.pid
        other.kill()


@pytest.mark.parametrize(
    ("text", "said", "right"),
    [
        ("04_alz: {factors: 3}", "p.yaml has a section '04_alz', but no notebook is called 04_alz.ipynb", ""),
        ("common: {factorz: 3}", "p.yaml gives 'factorz' under 'common', but no notebook has parameter 'factorz'", ""),
        ("04_als: {factorz: 3}", "04_als.ipynb has no parameter 'factorz'; it has: dataset, ", "04_als: {dataset: a}"),
        ("04_als: {trials: thirty}", "p.yaml: 04_als, trials is 'thirty', not of type int", "04_als: {trials: 30}"),
        ("04_als: {recent: 1}", "recent is 1, not of type dict", "04_als: {recent: {}}"),
        ("04_als: [1, 2]", "must map 'common' or a notebook's name, such as '04_als', to its", "04_als: {}"),
        ("04_als: {a: [}", "p.yaml, line 1: this is not YAML", ""),
    ],
)
def test_parameter_files_are_checked_whole_before_anything_runs(tmp_path, text, said, right):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(parameters.ParameterError, match=re.escape(said)):
        runner.execute(SEQUENCE[0], "made", tmp_path / "p.yaml")
    (tmp_path / "p.yaml").write_text(right)
    assert parameters.read_file(tmp_path / "p.yaml") is not None, "what the message proposes is taken"
    with pytest.raises(FileNotFoundError, match="there is no parameter file"):
        parameters.read_file(tmp_path / "other.yaml")


def test_a_notebook_run_by_hand_takes_the_tuned_parameters(lab_home, monkeypatch, tmp_path):
    by_hand = {name: default for name, (_, default) in parameters.defaults(NOTEBOOKS / "04_als.ipynb").items()}
    file = NOTEBOOKS / "params" / "ml-100k.yaml"
    by_make = by_hand | parameters.parameters_for(NOTEBOOKS / "04_als.ipynb", file)
    assert by_make != by_hand, "the premise"
    assert vars(Run("ml-100k").parameters("04_als", by_hand)) == by_make
    assert vars(Run("made").parameters("04_als", by_hand)) == by_hand, "nothing was tuned for it"
    chosen = Run("ml-100k").parameters("04_als", by_hand | {"factors": 7, "liked": 4.0})
    assert chosen.factors == 7, "what a person has changed stands"
    assert not hasattr(chosen, "liked")


def test_parameters_follow_the_size_of_the_data(lab_home, monkeypatch):
    small, beauty = sizing.Size(1_000, 100, 60, sequences=True), sizing.Size(200_000, 22_000, 12_000, sequences=True)
    for size in (sizing.Size(500_000, 3_000, 3_000), sizing.Size(25_000_000, 160_000, 59_000), small, beauty):
        for name, section in sizing.sized(size).items():
            known = parameters.defaults(NOTEBOOKS / f"{name}.ipynb")
            for key, value in section.items():
                parameters.check_type(key, known[key][0], value)
                assert isinstance(value, list) or known[key][1] != value
    ease = parameters.defaults(NOTEBOOKS / "05_item_models.ipynb")["ease"][1]
    monkeypatch.setattr(sizing, "LARGE", 6)
    monkeypatch.setattr(sizing, "EASE_ITEMS", 1)
    assert parameters.chosen_for("made", NOTEBOOKS / "05_item_models.ipynb") == {}, "nothing is prepared"
    folder = Paths("made").processed
    folder.mkdir(parents=True)
    for part in ("train", "valid", "test"):
        pd.DataFrame({"user_id": [1, 1], "item_id": ["a", "b"]}).to_parquet(folder / f"{part}.parquet")
    assert sizing.size_of("made") == (6, 1, 2, False)
    assert parameters.chosen_for("made", NOTEBOOKS / "05_item_models.ipynb")["ease"] == ease | {"max_items": 1}
    text = sizing.announcement("made")
    assert text.startswith("6 rows, 1 users, 2 items: ") and "EASE models the 1 most popular" in text
    (lab_home / "more.yaml").write_text(text[text.index("03_popularity") :])
    assert parameters.read_file(lab_home / "more.yaml") == sizing.sized(sizing.Size(6, 1, 2)), "a parameter file"
    short = "A run takes about 1.0 GB of memory, 0.9 are free: end other programs, or it may be killed."
    for free in (900_000_000, 1_050_000_000):
        memory = type("Memory", (), {"available": free})
        monkeypatch.setattr(sizing.psutil, "virtual_memory", memory)
        assert (short in sizing.announcement("made")) == (free < 1e9), "said where it is too little, alone"
    (folder / "train.parquet").write_bytes((folder / "test.parquet").read_bytes()[:-9])
    assert sizing.size_of("made") is None, "the notebook that reads it says what is wrong"
    pd.DataFrame({"user_id": [1, 1], "item_id": ["a", "b"], "position": [0, 1]}).to_parquet(folder / "train.parquet")
    assert sizing.size_of("made").sequences
    assert "histories with an order and no times" in sizing.announcement("made")
    directed = parameters.chosen_for("made", NOTEBOOKS / "05_item_models.ipynb")["sequence_knn"]
    assert directed["backward"] < 1 and directed["decay"] > 0, "what follows what has a direction and a distance"
    monkeypatch.setattr(parameters, "file_of", lambda dataset: lab_home / "own.yaml")
    (lab_home / "own.yaml").write_text("05_item_models: {lambdas: [7]}\n")
    chosen = parameters.chosen_for("made", NOTEBOOKS / "05_item_models.ipynb")
    assert chosen["lambdas"] == [7] and chosen["sequence_knn"] == directed, "what a search wrote stands over the rest"


@pytest.mark.parametrize("source", SEQUENCE, ids=lambda path: path.stem)
def test_notebooks_are_parameterised_and_stripped(source):
    content = nbformat.read(source, as_version=4)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert "dataset" in parameters.defaults(source)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert not any(cell.outputs or cell.execution_count for cell in code)
    defined = [line for cell in code for line in cell.source.splitlines() if line.startswith(("def ", "class "))]
    assert len(defined) <= (source.stem == "09_demo"), "a view of the application is a function"
    assert not any("globals()" in cell.source.replace(", globals())", "") for cell in code)
    assert not [cell.source for cell in code if re.search(r"[\w)\]]\._[a-z]", cell.source)], "private members"
    assert max(len(cell.source.splitlines()) for cell in code) <= 15


@pytest.mark.parametrize("file", sorted((REPOSITORY / "notebooks" / "params").glob("*.yaml")), ids=lambda p: p.stem)
def test_parameter_files_of_the_project_fit_the_notebooks(file):
    sections = parameters.read_file(file)
    for name in set(sections) - {parameters.COMMON}:
        if file.stem != "test":  # by hand as by make
            source = next(NOTEBOOKS.rglob(f"{name}.ipynb")).read_text(encoding="utf-8")
            assert "run.parameters(" in source
