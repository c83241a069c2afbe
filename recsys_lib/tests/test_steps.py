"""The sequence as Make sees it."""

import json
import os
import shutil
import subprocess

import pytest

from recsys_lib.paths import REPOSITORY, Paths
from recsys_lib.run.artifacts import MissingArtifactError, require
from recsys_lib.run.parameters import read_parameters, write_stamps
from recsys_lib.run.steps import STEPS, makefile_rules, step_that_writes

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


def test_a_missing_artefact_names_the_step_that_makes_it(lab_home):
    paths = Paths("ml-100k")
    for file, command in (
        (paths.processed / "manifest.json", "`make 02` makes it"),
        (paths.models / "als_tuned", "`make 04` makes it"),
        (paths.metrics / "leaderboard.json", "`make 07` makes it"),
        (Paths("other").metrics / "leaderboard.json", "`make 07 DATASET=other` makes it"),
    ):
        with pytest.raises(MissingArtifactError, match=command):
            require(file)


def test_a_section_of_the_parameters_touches_only_its_own_step(lab_home):
    file = lab_home / "params.yaml"
    file.write_text("common: {k: 5}\n04_als: {factors: 8}\n")
    write_stamps("ml-100k", file)
    folder = Paths("ml-100k").outputs / "params"
    before = {stamp.name: stamp.stat().st_mtime_ns for stamp in folder.iterdir()}
    assert json.loads((folder / "04_als.json").read_text()) == {"dataset": "ml-100k", "factors": 8, "k": 5}
    file.write_text("# a comment\ncommon: {k: 5}\n04_als: {factors: 16}\n")
    write_stamps("ml-100k", file)
    changed = [stamp.name for stamp in folder.iterdir() if stamp.stat().st_mtime_ns != before[stamp.name]]
    assert changed == ["04_als.json"]


def test_parameter_files_that_are_no_mapping_are_refused(tmp_path):
    (tmp_path / "p.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="must map 'common'"):
        read_parameters(tmp_path / "p.yaml", "04_als")
    with pytest.raises(FileNotFoundError, match="no parameter file"):
        read_parameters(tmp_path / "q.yaml", "04_als")


@needs_make
def test_make_reruns_a_step_and_what_comes_after_it_and_nothing_else(tmp_path):
    """The real rules, with a recipe that only writes down its name."""
    makefile = tmp_path / "Makefile"
    log = tmp_path / "log"
    sources = {step.name: tmp_path / "notebooks" / f"{step.name}.ipynb" for step in STEPS}
    for source in sources.values():
        source.parent.mkdir(exist_ok=True)
        source.write_text("{}")
    makefile.write_text(
        makefile_rules("ml-100k") + "$(STEPS:%=$(DONE)/%.ipynb): $(DONE)/%.ipynb: notebooks/%.ipynb\n"
        f"\t@mkdir -p $(DONE); echo $* >> {log}; touch $@\n"
        "all: $(STEPS:%=$(DONE)/%.ipynb)\n"
    )

    def made(*goals: str) -> list[str]:
        log.write_text("")
        subprocess.run(["make", "-s", *goals], cwd=tmp_path, check=True, timeout=60)
        return sorted(log.read_text().split())

    assert made("04") == ["00_environment", "02_preprocessing", "04_als"]
    assert len(made("all")) == len(STEPS) - 3
    assert made("all") == []
    target = tmp_path / "outputs/ml-100k/notebooks/09_demo.ipynb"
    newer = target.stat().st_mtime + 10
    os.utime(sources["04_als"], (newer, newer))
    assert made("all") == ["04_als", "07_evaluation", "08_recommendations", "09_demo"]
