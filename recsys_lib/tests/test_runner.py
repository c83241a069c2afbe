"""The runner: parameters are checked, outputs are whole, failures are said."""

import json

import nbformat
import pytest
from papermill.exceptions import PapermillExecutionError

from recsys_lib.paths import REPOSITORY, Paths
from recsys_lib.run import runner

SEQUENCE = sorted((REPOSITORY / "notebooks").glob("[0-9]*.ipynb"))


def notebook(folder, *cells: str):
    """Write a notebook whose first cell is tagged ``parameters``."""
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    content.cells[0].metadata["tags"] = ["parameters"]
    content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / "90_made.ipynb"
    nbformat.write(content, path)
    return path


def test_a_notebook_runs_and_leaves_its_log_and_times(lab_home):
    source = notebook(lab_home, "dataset: str = 'x'\nk: int = 1", "import json\nprint('k is', k)")
    params = lab_home / "p.yaml"
    params.write_text("common: {k: 7}\n")
    target = runner.execute(source, "made", params)
    assert target == Paths("made").outputs / "notebooks" / "90_made.ipynb"
    assert "k is 7" in target.read_text()
    assert "k is 7" in (Paths("made").logs / "90_made.log").read_text()
    times = json.loads((Paths("made").logs / "times" / "90_made.json").read_text())
    assert 0 < times["start_and_import_seconds"] < times["seconds"]


def test_a_failing_cell_leaves_no_executed_notebook_but_says_what_happened(lab_home):
    source = notebook(lab_home, "dataset: str = 'x'", "1 / 0")
    with pytest.raises(PapermillExecutionError, match="ZeroDivisionError"):
        runner.execute(source, "made")
    assert list((Paths("made").outputs / "notebooks").iterdir()) == []
    assert "ZeroDivisionError" in (Paths("made").logs / "90_made.failed.ipynb").read_text()


def test_a_parameter_that_the_notebook_lacks_is_refused_with_those_it_has(tmp_path):
    source = notebook(tmp_path, "dataset: str = 'x'\nk: int = 1")
    with pytest.raises(runner.UnknownParameterError, match="90_made.ipynb has no parameter 'kk'; it has: dataset, k"):
        runner.check_parameters(source, {"kk": 3})


def test_parameter_files_are_checked_whole(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("04_alz: {factors: 3}\n")
    with pytest.raises(runner.UnknownParameterError, match="no notebook is called 04_alz.ipynb"):
        runner.parameters_for(SEQUENCE[4], file)
    file.write_text("common: {factorz: 3}\n")
    with pytest.raises(runner.UnknownParameterError, match="no notebook has that parameter"):
        runner.parameters_for(SEQUENCE[4], file)
    file.write_text("04_als: {factorz: 3}\n")
    with pytest.raises(runner.UnknownParameterError, match="has no parameter 'factorz'"):
        runner.check_parameters(SEQUENCE[4], runner.parameters_for(SEQUENCE[4], file))


@pytest.mark.parametrize("source", SEQUENCE, ids=lambda path: path.stem)
def test_notebooks_are_parameterised_and_stripped(source):
    content = nbformat.read(source, as_version=4)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert "dataset" in runner.known_parameters(source)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert not any(line.startswith(("def ", "class ")) for cell in code for line in cell.source.splitlines())
    assert max(len(cell.source.splitlines()) for cell in code) <= 15


@pytest.mark.parametrize("file", sorted((REPOSITORY / "notebooks" / "params").glob("*.yaml")), ids=lambda p: p.stem)
def test_parameter_files_of_the_project_fit_the_notebooks(file):
    for source in SEQUENCE:
        runner.check_parameters(source, runner.parameters_for(source, file))
