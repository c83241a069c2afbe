"""The sequence as Make sees it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recsys_lib.paths import REPOSITORY, Paths, in_full, run_name
from recsys_lib.run.parameters import NOTEBOOKS, check_dataset, chosen_for, write_stamps
from recsys_lib.run.run import MissingArtifactError, Run
from recsys_lib.run.steps import STEPS, gone, step_that_writes

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def test_every_step_has_its_notebook_and_comes_after_what_it_needs():
    seen = set()
    for step in STEPS:
        assert (REPOSITORY / "notebooks" / f"{step.name}.ipynb").is_file()
        assert set(step.needs) <= seen
        seen.add(step.name)
    assert [step.number for step in STEPS] == [f"{number:02d}" for number in range(10)]


def test_every_file_that_is_read_is_written_by_a_step_before():
    for place, step in enumerate(STEPS):
        for pattern in step.reads:
            writer = step_that_writes("/home/" + pattern.format(name="x").replace("*", "any/config.json"))
            if pattern.startswith("outputs/{name}/models"):
                continue  # a folder that several steps write to
            assert writer is not None, pattern
            assert STEPS.index(writer) < place, pattern


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_that_has_made_all_it_makes_is_not_run_again(step, lab_home):
    for pattern in step.writes:
        file = lab_home / pattern.format(name="made").replace("*", "x")
        if "/models/" in pattern or not file.suffix:  # folders
            file = file / "config.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"models": {}, "folder": "champions/x"}))
    assert not gone(step, "made")


def test_a_missing_artefact_names_the_step_that_makes_it(lab_home):
    run, other = Run("ml-100k"), Run("other")
    for which, file, command in (
        (run, run.paths.processed / "manifest.json", "`make 02` makes it"),
        (run, run.paths.models / "als_tuned", "`make 04` makes it"),
        (run, run.paths.metrics / "leaderboard.json", "`make 07` makes it"),
        (other, other.paths.metrics / "leaderboard.json", "`make 07 DATASET=other` makes it"),
    ):
        with pytest.raises(MissingArtifactError, match=command):
            which.need(file)


@pytest.mark.parametrize("name", ["ml-100k", "/a b.csv"])
@needs_make
def test_the_command_that_a_message_names_runs_that_step(project, name):
    words = shlex.split(Run(name).command("05"))
    assert make(project, *words[1:], dataset=name)[-1] == "05_item_models"
    assert {line.split(" ", 1)[1] for line in (project / "log").read_text().splitlines()} == {name}


def test_the_command_that_a_message_names_has_the_parameters_of_the_run(lab_home):
    file = lab_home / "my files" / "p.yaml"
    file.parent.mkdir()
    file.write_text("common: {reading: {columns: {who: user_id}}}")
    write_stamps("/a b.csv", file)
    stamps = {path: path.read_text() for path in Paths("/a b.csv").given_params.parent.iterdir()}
    words = shlex.split(Run("/a b.csv").command("05"))
    assert words == ["make", "05", "DATASET=/a b.csv", f"PARAMS={file}"]
    write_stamps("/a b.csv", Path(words[-1].removeprefix("PARAMS=")))
    assert stamps == {path: path.read_text() for path in stamps}  # so that nothing is made again for it
    write_stamps("/a b.csv", None)
    assert shlex.split(Run("/a b.csv").command("05")) == words[:-1]


@needs_make
@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("my files/p.yaml", "04_als: {trials: 3}", ""),
        ("my files/no.yaml", "", "there is no parameter file my files/no.yaml"),
        ("tab.yaml", "common:\n\treading: {}", "tab.yaml, line 2: this is not YAML"),
        ("typed.yaml", "04_als: {trials: thirty}", "trials is 'thirty', not of type int"),
        (
            "as.yaml",
            "common: {reading: {colums: {a: b}}}",
            "common, reading: load_dataset takes no 'colums'; did you mean",
        ),
        ("rows.yaml", "common: {reading: {bad_rows: skip}}", "bad_rows='skip' must be one of 'raise', 'drop'"),
    ],
)
def test_a_parameter_file_is_answered_before_anything_runs(project, file, text, said):
    (project / file).parent.mkdir(exist_ok=True)
    if text:
        (project / file).write_text(text)
    command = ["make", "-n", f"PY={sys.executable}", f"PYTHON={sys.executable}", f"PARAMS={file}"]
    env = {**outside_make(), "RECSYS_HOME": str(project)}
    done = subprocess.run([*command, "run"], cwd=project, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode != 0, bool(done.stdout)) == (bool(said), not said)
    assert said in done.stderr
    assert subprocess.run([*command, "help"], cwd=project, env=env, capture_output=True, check=False).returncode == 0


def test_a_section_of_the_parameters_touches_only_its_own_step(lab_home):
    file = lab_home / "params.yaml"
    file.write_text("common: {seed: 5}\n04_als: {factors: 8}\n")
    write_stamps("ml-100k", file)
    folder = Paths("ml-100k").outputs / "params"
    before = {stamp.name: stamp.stat().st_mtime_ns for stamp in folder.iterdir()}
    assert json.loads((folder / "04_als.json").read_text()) == {
        "dataset": "ml-100k",
        "file": None,
        "factors": 8,
        "seed": 5,
    }
    file.write_text("# a comment\ncommon: {seed: 5}\n04_als: {factors: 16}\n")
    write_stamps("ml-100k", file)
    changed = [stamp.name for stamp in folder.iterdir() if stamp.stat().st_mtime_ns != before[stamp.name]]
    assert changed == ["04_als.json"]


FAKE = """#!/bin/sh
case "$2" in
recsys_lib.run.parameters)
  mkdir -p outputs/$NAME/params
  for step in {steps}; do stamp=outputs/$NAME/params/$step.json; [ -f $stamp ] || echo > $stamp; done;;
recsys_lib.run.runner)
  step=$(basename $3 .ipynb); echo "$step $DATASET" >> log
  mkdir -p outputs/$NAME/notebooks; echo > outputs/$NAME/notebooks/$step.ipynb;;
recsys_lib.run.report)
  [ "$3" = show ] || {{ mkdir -p reports/$NAME; echo > reports/$NAME/index.html; }};;
esac
"""


@pytest.fixture
def project(tmp_path):
    """The real Makefile, with a Python that only writes down which notebooks it was asked to execute."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / "recsys_lib").symlink_to(REPOSITORY / "recsys_lib")
    (tmp_path / "notebooks").mkdir()
    for step in STEPS:
        (tmp_path / "notebooks" / f"{step.name}.ipynb").write_text("{}")
    fake = tmp_path / "python"
    fake.write_text(FAKE.format(steps=" ".join(step.name for step in STEPS)))
    fake.chmod(0o755)
    return tmp_path


def outside_make():
    """The environment without what a Make that runs these tests has put there."""
    own = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "DATASET", "PARAMS", "ENGINE")
    return {name: value for name, value in os.environ.items() if name not in own}


def make(folder, *arguments, dataset="ml-100k", check=True):
    """Call Make; the notebooks that were executed, in order of name."""
    log, env = folder / "log", {**outside_make(), "NAME": run_name(dataset)}
    (folder / dataset).touch()  # a table, or a folder that is called like a known data set
    log.write_text("")
    command = ["make", "-s", f"PY={folder}/python", f"PYTHON={sys.executable}", f"DATASET={dataset}", *arguments]
    done = subprocess.run(command, cwd=folder, check=check, timeout=60, env=env, capture_output=True, text=True)
    make.said = done.stdout + done.stderr
    return sorted(line.split(" ", 1)[0] for line in log.read_text().splitlines())


@needs_make
def test_make_reruns_a_step_and_what_comes_after_it_and_nothing_else(project):
    assert make(project, "04") == ["00_environment", "02_preprocessing", "04_als"]
    assert len(make(project, "run")) == len(STEPS) - 3
    assert make(project, "run") == []
    newer = (project / "outputs/ml-100k/notebooks/09_demo.ipynb").stat().st_mtime + 10
    os.utime(project / "notebooks" / "04_als.ipynb", (newer, newer))
    assert make(project, "run") == ["04_als", "07_evaluation", "08_recommendations", "09_demo"]


@needs_make
def test_a_make_that_is_refused_deletes_nothing(project):
    """While it asks, the one that runs already may have written what it asked for."""
    fake = project / "python"
    fake.write_text(fake.read_text() + "[ $2 != recsys_lib.run.runner ]\n")
    assert make(project, "04", check=False) == ["00_environment"] and "Error 1" in make.said
    assert (project / "outputs/ml-100k/notebooks/00_environment.ipynb").is_file()


@needs_make
def test_spark_leaves_out_what_it_has_nothing_for(project):
    ready = (project / "python").read_text().replace("case", '[ "$2" = recsys_lib.scale.spark ] && exit\ncase', 1)
    (project / "python").write_text(ready)
    left_out = {"05_item_models", "06_neural_hybrid"}
    assert make(project, "run", "ENGINE=spark") == [step.name for step in STEPS if step.name not in left_out]
    assert make(project, "run", "ENGINE=spark") == []


@needs_make
def test_spark_is_asked_for_before_anything_runs(project):
    lacking = (
        (project / "python").read_text().replace("case", '[ "$2" = recsys_lib.scale.spark ] && echo no Java\ncase', 1)
    )
    (project / "python").write_text(lacking)
    assert make(project, "run", "ENGINE=spark", check=False) == [] and "no Java" in make.said
    assert make(project, "run", "ENGINE=`touch hacked`", check=False) == []
    assert "ENGINE is '`touch hacked`'; it must be pandas or spark" in make.said
    assert not (project / "hacked").exists()


def test_the_engine_touches_only_the_steps_that_have_a_choice(lab_home, monkeypatch):
    write_stamps("ml-100k", None)
    folder = Paths("ml-100k").outputs / "params"
    before = {stamp.name: stamp.read_text() for stamp in folder.iterdir()}
    monkeypatch.setenv("ENGINE", "spark")
    write_stamps("ml-100k", None)
    changed = sorted(name for name, text in before.items() if (folder / name).read_text() != text)
    assert changed == ["02_preprocessing.json", "03_popularity.json", "04_als.json"]
    assert chosen_for("ml-100k", NOTEBOOKS / "04_als.ipynb")["engine"] == "spark"
    monkeypatch.setenv("ENGINE", "dask")
    with pytest.raises(ValueError, match="ENGINE is 'dask'; it must be pandas or spark"):
        write_stamps("ml-100k", None)


@needs_make
@pytest.mark.parametrize(
    "name", ["`touch hacked`", "$(touch hacked)", "'; touch hacked; '", '"; touch hacked; "', "a$b.csv", "-rf"]
)
def test_a_name_is_data(project, name):
    taken = "./" * name.startswith("-") + name  # no option
    assert make(project, "00", dataset=name) == ["00_environment"]
    assert (project / "log").read_text().strip() == f"00_environment {taken}"
    assert make(project, "help", f"PARAMS={name}", dataset=name) == []
    assert f"DATASET={taken} PARAMS={taken}" in make.said
    assert not (project / "hacked").exists()


@needs_make
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ml-100kk", "'ml-100kk'; did you mean ml-100k?"),
        ("ml-latest-smal", "mean ml-latest-small?"),
        ("/no/a.csv", "file '/no/a.csv'"),
        ("", "file ''"),
    ],
)
def test_an_unknown_data_set_is_answered_before_anything_runs(project, name, said):
    env = {**outside_make(), "RECSYS_HOME": str(project)}
    command = ["make", "-n", f"PY={sys.executable}", f"PYTHON={sys.executable}", f"DATASET={name}"]
    for target in ("run", "03", "demo", "site", "api", "mlflow", "bench-api"):
        done = subprocess.run([*command, target], cwd=project, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
    for near in re.findall(r"did you mean (.*?)\?", done.stderr):
        check_dataset(near)
    assert list((project / "outputs").iterdir()) == []
    (project / "plays.csv").touch()
    command[-1] = "DATASET=plays.csv"
    done = subprocess.run([*command, "demo"], cwd=project, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "") and "nothing is there of" in done.stderr
    assert subprocess.run([*command, "help"], cwd=project, env=env, capture_output=True, check=False).returncode == 0


@needs_make
def test_two_makes_at_once_keep_to_their_own_data(project):
    command = ["make", "-s", f"PY={project}/python", f"PYTHON={sys.executable}", "04"]
    for name in ("one", "two", "three"):
        (project / name).touch()
    running = [
        subprocess.Popen([*command, f"DATASET={name}"], cwd=project, env={**outside_make(), "NAME": name})
        for name in ("one", "two", "three") * 2
    ]
    assert [process.wait(timeout=60) for process in running] == [0] * 6
    for name in ("one", "two", "three"):
        assert (project / "outputs" / name / "notebooks" / "04_als.ipynb").exists()
    assert {line.split()[1] for line in (project / "log").read_text().splitlines()} == {"one", "two", "three"}


def test_two_tables_of_one_name_are_two_runs(tmp_path):
    names = {run_name(str(tmp_path / folder / "plays.csv")) for folder in "ab"}
    assert len(names) == 2
    assert run_name(str(tmp_path / "电影.csv")).startswith("电影-")
    assert run_name("/elsewhere/ml-100k") != "ml-100k"


def test_a_run_has_one_name_wherever_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "my plays.csv").write_text("")
    whole = run_name(str(tmp_path / "my plays.csv"))
    assert {run_name(name) for name in ("my plays.csv", "./my plays.csv", "~/my plays.csv")} == {whole}
    handed_on = {name: in_full(name) for name in ("ml-100k", "~/my plays.csv", "pyproject.toml")}
    there = {name: run_name(name) for name in handed_on}
    monkeypatch.chdir(REPOSITORY / "notebooks")  # where kernels work
    assert {name: run_name(name) for name in handed_on} == there
    assert {name: run_name(given) for name, given in handed_on.items()} == there
    assert there["ml-100k"] == "ml-100k", "though a folder is called so"
    assert Run("/a b.csv").command("05") == "make 05 DATASET='/a b.csv'"
