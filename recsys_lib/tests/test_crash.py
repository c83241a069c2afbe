"""A run that ends at any step, or whose files are damaged: old, new or refused in a sentence, and made right again."""

import os
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from recsys_lib.evaluation.task import compare, evaluate
from recsys_lib.files import sha256, write_json
from recsys_lib.models import ItemKNN, Popularity, load_model
from recsys_lib.run import champion, results, tracking
from recsys_lib.run.parameters import write_stamps
from recsys_lib.run.run import MissingArtifactError, OtherDataError, Run
from recsys_lib.run.steps import STEPS, gone

AGAIN = {"resamples": 50, "seed": 3}
CHANGES = ("os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir")


@pytest.fixture(scope="module")
def made(tables, split, task):
    """Fitted models and their evaluations, for two states of a run: before, and with other neighbours after."""
    data, states = {"name": "made", "sha256": "a" * 64, "rating_scale": [1, 5], "source": "the tests"}, []
    for neighbours in (5, 40):
        models = {"popularity": Popularity().fit(task.known), "knn": ItemKNN(neighbours=neighbours).fit(task.known)}
        evaluations = {name: evaluate(model, task, (5,), **AGAIN) for name, model in models.items()}
        content = results.leaderboard(evaluations, compare(evaluations, by="ndcg@5", **AGAIN), data)
        content["protocol"] |= {"bootstrap": AGAIN}
        states.append((models, evaluations, content))
    return split, tables, data, states


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """The same time, commit and place for all, and nothing sent."""
    monkeypatch.setattr(champion, "_now", lambda: "2026-01-01T00:00:00+00:00")
    monkeypatch.setattr(tracking, "commit", lambda: "0" * 10)
    monkeypatch.setattr(tracking, "address", lambda: "sqlite:///nowhere")
    monkeypatch.setenv(tracking.WHEN, "later")


def program(made, state):
    """What 02, a training notebook and 07 write."""
    split, (_, items, users), data, states = made
    (models, evaluations, content), run = states[state], Run("made")
    write_stamps("made", None)
    run.write_tables(split, items.assign(title=items["title"] + str(state)), users, data=data, relevant_from=4.0)
    for name, model in models.items():
        run.save_model(name, model, fit_seconds=0.5)
    facts = {name: {"class": type(model).__name__, "params": model.params()} for name, model in models.items()}
    report = {"notebook": "03_popularity", "data": run.tables.identity, "models": facts}
    tracking.log(run, "03_popularity", write_json(run.paths.metrics / "training" / "03_popularity.json", report))
    results.write_results(run, evaluations, content)
    champion.challenge(run, evaluations, content)


def changes(home, stop, event, given):
    """An audit hook that counts what changes files below a folder, and ends the process at one of them."""
    writes = event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR)
    nothing = event == "os.remove" and not Path(given[0]).exists()
    if (writes or event in CHANGES) and not nothing and str(given[0]).startswith(str(home)):
        changes.seen += 1
        if changes.seen == stop:
            os._exit(9)


changes.seen = 0


def ends(home, stop, made, state) -> bool:
    """Run the program in a process of its own that ends at a change of a file; whether it came that far."""
    child = os.fork()
    if not child:
        sys.addaudithook(partial(changes, home, stop))
        try:
            program(made, state)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def tree(home):
    """Files by name, with their contents; what waits to be sent has the time in its name."""
    files = [file for file in home.rglob("*") if file.is_file() and file.parent.name != "tracking"]
    return {file.relative_to(home).as_posix(): sha256(file) for file in files}


def read(run):
    """What a reader is given: the second state's things, or the first's; None for what is refused in a sentence."""
    things = {
        "title": lambda: run.tables.items["title"].iloc[0],
        "models": lambda: {name: run.models[name].params() for name in run.models},
        "results": lambda: run.results.leaderboard["models"][0]["metrics"]["ndcg@5"]["mean"],
        "values": lambda: run.results.per_user("knn").to_csv(),
        "lists": lambda: run.results.lists("knn").to_csv(),
        "report": lambda: run.read(run.paths.metrics / "training" / "03_popularity.json"),
        "champion": lambda: run.champion.model.params(),
    }
    found = {}
    for name, thing in things.items():
        try:
            found[name] = thing()
        except (MissingArtifactError, OtherDataError) as refusal:
            assert "`" in str(refusal) and "make " in str(refusal)
            found[name] = None
    return found


@pytest.mark.parametrize("before", [False, True], ids=["the first run", "a later run"])
def test_a_process_may_end_at_any_change_of_a_file(made, tmp_path, monkeypatch, before):
    def at(name):
        monkeypatch.setenv("RECSYS_HOME", str(tmp_path / name))
        return tmp_path / name

    start = at("start")
    start.mkdir()
    if before:
        program(made, 0)
    old = read(Run("made"))
    shutil.copytree(start, at("whole"))
    program(made, 1)
    expected, new = tree(tmp_path / "whole"), read(Run("made"))
    assert None not in new.values()
    stop = 0
    while True:
        stop += 1
        home = shutil.copytree(start, at(f"stopped-{stop}"))
        if not ends(home, stop, made, 1):
            break
        for name, value in read(Run("made")).items():
            assert value in (None, old[name], new[name]) or name == "models", (stop, name)
        saved = [config.parent for config in home.glob("outputs/made/models/[!.]*/config.json")]
        assert len(saved) == 2 or not before
        for folder in saved:  # each is the old model or the new one, and whole
            assert load_model(folder).params() in [state[0][folder.name].params() for state in made[3]], (stop, folder)
        program(made, 1)
        assert tree(home) == expected, stop
        shutil.rmtree(home)
    assert stop > 40, "so many changes were tried"


def test_tables_that_are_written_anew_while_they_are_read_are_the_new_ones(made, lab_home, monkeypatch):
    program(made, 0)
    old, read_one, again = Run("made").tables, Run._read_table, [1]

    def read_table(self, name, files):
        if again and name == "items":
            program(made, again.pop())
        return read_one(self, name, files)

    monkeypatch.setattr(Run, "_read_table", read_table)
    new = Run("made").tables
    assert old.items["title"].str.removesuffix("0").tolist() == new.items["title"].str.removesuffix("1").tolist()
    assert new.manifest["files"] != old.manifest["files"]


def damaged(run, kind):
    """The files of a kind."""
    return {
        "table": run.paths.processed / "train.parquet",
        "manifest": run.paths.processed / "manifest.json",
        "leaderboard": run.paths.metrics / "leaderboard.json",
        "champion": run.paths.outputs / "champion.json",
        "arrays": next((run.paths.models / "knn").glob("arrays-*")),
        "config": run.paths.models / "knn" / "config.json",
        "values": run.paths.metrics / "per_user" / "knn.parquet",
        "lists": run.paths.metrics / "lists" / "knn.parquet",
        "report": run.paths.metrics / "training" / "03_popularity.json",
    }[kind]


@pytest.mark.parametrize(
    "kind", ["table", "manifest", "leaderboard", "champion", "arrays", "config", "values", "lists", "report"]
)
def test_a_flipped_bit_is_refused_with_the_file_and_the_command(made, lab_home, kind):
    program(made, 0)
    file, rng = damaged(Run("made"), kind), np.random.default_rng(0)
    whole, expected = file.read_bytes(), read(Run("made"))
    file.unlink()  # what shares its content stays as it is
    refused = 0
    for bit in rng.integers(8 * len(whole), size=40):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        found = read(Run("made"))
        assert all(value in (None, expected[name]) for name, value in found.items()), int(bit)
        refused += None in found.values()
    assert refused > 20


def test_what_is_gone_is_made_again_by_the_command_that_the_sentence_names(made, lab_home):
    program(made, 0)
    run, by_number = Run("made"), {step.number: step for step in STEPS}
    training, evaluation = by_number["03"], by_number["07"]
    for name in ("training", "evaluation"):
        write_json(run.paths.reports / f"{name}_report.json", {})
    write_json(run.paths.metrics / "explored.json", {})
    for step, path in (
        (training, run.paths.models / "knn"),
        (evaluation, run.champion.folder),
        (evaluation, run.paths.metrics / "leaderboard.json"),
    ):
        executed = run.paths.outputs / "notebooks" / f"{step.name}.ipynb"
        executed.parent.mkdir(exist_ok=True)
        executed.write_text("{}")
        write_stamps("made", None)
        assert executed.is_file() and not gone(step, "made")
        path.rename(path.with_name("elsewhere"))
        write_stamps("made", None)
        assert not executed.exists(), "so that Make runs it"
        path.with_name("elsewhere").rename(path)
    for text in ("{", "[1]", "{}"):
        write_stamps("made", None)
        executed.write_text("{}")
        (run.paths.outputs / "champion.json").write_text(text)
        write_stamps("made", None)
        assert not executed.exists(), "what is damaged is as good as gone"
