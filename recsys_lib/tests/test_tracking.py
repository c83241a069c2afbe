"""Runs are written down, sent to a real MLflow, and never in the way."""

import importlib.util
import os
import subprocess
import sys
import time
from types import SimpleNamespace
from urllib.parse import urlparse

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from recsys_lib.evaluation.task import Task, compare, evaluate
from recsys_lib.files import read_json, write_json
from recsys_lib.models import ItemKNN, Popularity, load_model
from recsys_lib.paths import home
from recsys_lib.plots.style import save_figure
from recsys_lib.run import champion, results, tracking
from recsys_lib.run.run import Run
from recsys_lib.run.training import Training
from recsys_lib.tests.made import prepare

AGAIN = {"resamples": 100, "seed": 3}
SENDER = [sys.executable, "-m", "recsys_lib.run.tracking", "send"]
has_mlflow = pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed")


def train(run, notebook="03_popularity"):
    """What a training notebook does: a figure, two models, a report."""
    training = Training(run, notebook)
    save_figure(plt.figure(figsize=(1, 1)), run.paths.figures / "made.png")
    plt.close()
    model = Popularity()
    training.keep("popularity", model, trials=7)
    training.keep("knn", ItemKNN(neighbours=20))
    epochs = [{"model": 0, "epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2, 3)]
    config = read_json(run.paths.models / "knn" / "config.json")
    write_json(run.paths.models / "knn" / "config.json", config | {"learnt": config["learnt"] | {"log": epochs}})
    return training.report()


def judge(run):
    """What 07_evaluation does: results, champion, tracking."""
    tables = run.tables_with_test("the tests")
    task = Task.from_split(tables.split, tables.relevant_from, items=tables.items)
    evaluations = {name: evaluate(model, task, (5, 10), **AGAIN) for name, model in run.models.items()}
    data, facts = results.describe_data(tables, task), results.facts_of(run, list(evaluations))
    content = results.leaderboard(evaluations, compare(evaluations, **AGAIN), data, facts)
    file = results.write_results(run, evaluations, content)
    champion.challenge(run, evaluations, content)
    tracking.log(run, "07_evaluation", file)
    return content


def waiting(run):
    return sorted(file.name for file in (run.paths.outputs / "tracking").glob("*.json"))


@pytest.fixture(scope="module")
def sent(tables, module_home):
    """Two data sets, trained and judged, sent by two processes at the same time to a database that is not there yet."""
    patch = pytest.MonkeyPatch()
    patch.delenv(tracking.ADDRESS, raising=False)
    patch.setenv(tracking.WHEN, "later")
    both = [prepare(tables, name) for name in ("made", "other")]
    train(both[1])
    train(both[0])
    content = judge(both[0])
    assert [len(waiting(run)) for run in both] == [2, 1]
    senders = [subprocess.Popen([*SENDER, run.dataset], stderr=subprocess.PIPE, text=True) for run in both]
    said = [process.communicate(timeout=180)[1] for process in senders]
    assert [process.returncode for process in senders] == [0, 0], said
    yield both[0], content
    patch.undo()


@pytest.fixture(scope="module")
def client(sent):
    from mlflow import MlflowClient

    return MlflowClient(tracking.address(), tracking.address())


def runs_of(client, name="made"):
    """Runs of a data set by name; a training's and an evaluation's run of one model by the names of both."""
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    above = {run.info.run_id: f"{run.info.run_name}/" for run in found}
    return {above.get(run.data.tags.get("mlflow.parentRunId"), "") + run.info.run_name: run for run in found}


@has_mlflow
def test_two_processes_at_once_lose_nothing(sent, client):
    assert waiting(sent[0]) == waiting(Run("other")) == []
    assert sorted(runs_of(client)) == [
        "03_popularity",
        "03_popularity/knn",
        "03_popularity/popularity",
        "07_evaluation",
        "07_evaluation/knn",
        "07_evaluation/popularity",
    ]
    assert sorted(runs_of(client, "other")) == ["03_popularity", "03_popularity/knn", "03_popularity/popularity"]
    assert {run.info.status for run in runs_of(client).values()} == {"FINISHED"}


@has_mlflow
def test_what_a_run_holds(sent, client):
    _, content = sent
    runs = runs_of(client)
    parent, model = runs["03_popularity"], runs["03_popularity/popularity"]
    assert parent.data.tags["data_sha256"] == model.data.tags["data_sha256"] == "a" * 64
    assert parent.data.tags["commit"]
    assert parent.data.params["split"] == "temporal_user"
    there = {path.relative_to(files_of(parent)).as_posix() for path in files_of(parent).rglob("*.*")}
    assert there == {"figures/made.png", "metrics/03_popularity.json"}
    assert model.data.params == {"class": "Popularity", **{k: str(v) for k, v in Popularity().params().items()}}
    values = model.data.metrics
    low, mean, high = (values[f"valid_ndcg_at_10{end}"] for end in ("_low", "", "_high"))
    assert low < mean < high
    assert values["trials"] == 7
    judged, entry = runs["07_evaluation/knn"].data, next(m for m in content["models"] if m["name"] == "knn")
    for end, name in (("", "mean"), ("_low", "low"), ("_high", "high")):
        assert judged.metrics[f"ndcg_at_10{end}"] == entry["metrics"]["ndcg@10"][name]
    assert judged.params["neighbours"] == "20"
    curve = client.get_metric_history(runs["03_popularity/knn"].info.run_id, "epoch_loss")
    assert [(point.step, point.value) for point in curve] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert runs["07_evaluation"].data.params["task"] == content["protocol"]["fingerprint"]
    assert (files_of(runs["07_evaluation"]) / "figures" / "made.png").is_file(), "this process has made it"


def files_of(tracked):
    """Where the files of a run lie on this disk."""
    return home() / "outputs" / "mlartifacts" / urlparse(tracked.info.artifact_uri).path.lstrip("/")


@has_mlflow
def test_the_model_lies_with_its_run_and_takes_no_space(sent, client):
    runs = runs_of(client)
    folders = [files_of(runs[f"{name}/knn"]) / "model" for name in ("03_popularity", "07_evaluation")]
    assert type(load_model(folders[1])).__name__ == "ItemKNN"
    from mlflow.pyfunc import load_model as load_served

    asked = pd.DataFrame({"user_id": [1, 2], "k": [3, 3]})
    pd.testing.assert_frame_equal(
        load_served(str(folders[1])).predict(asked), sent[0].models["knn"].recommend([1, 2], 3)
    )
    arrays = [next(folder.glob("arrays-*")) for folder in (*folders, sent[0].paths.models / "knn")]
    assert arrays[0].samefile(arrays[1])
    assert arrays[0].samefile(arrays[2])


@has_mlflow
def test_the_registry_holds_what_was_evaluated_and_the_champion_has_its_alias(sent, client):
    run = sent[0]

    def crowned():
        return client.get_model_version_by_alias("made", "champion").tags["model"]

    first = run.champion
    assert crowned() == first.name
    assert len(client.search_model_versions("name = 'made'")) == 2
    other = next(name for name in run.results.names if name != first.name)
    champion.promote(run, other)
    assert tracking.send(run) == 0
    assert crowned() == other
    champion.rollback(run)
    tracking.send(run)
    assert crowned() == first.name
    assert len(client.search_model_versions("name = 'made'")) == 2
    source = client.get_model_version_by_alias("made", "champion").source
    folder = home() / "outputs" / "mlartifacts" / urlparse(source).path.lstrip("/")
    assert load_model(folder).params() == first.model.params()


@has_mlflow
def test_the_database_names_no_place_on_this_disk(sent):
    content = (home() / "outputs" / "mlflow.db").read_bytes()
    assert str(home()).encode() not in content


@has_mlflow
def test_a_new_database_is_whole_or_not_there(tmp_path, monkeypatch):
    from mlflow.store.db import utils

    def stopped(engine):
        engine.connect().exec_driver_sql("create table half (made int)")
        raise KeyboardInterrupt

    monkeypatch.setattr(utils, "_initialize_tables", stopped)
    with pytest.raises(KeyboardInterrupt):
        tracking._check(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert list(tmp_path.iterdir()) == []


@has_mlflow
def test_nothing_new_does_not_import_mlflow(sent):
    tracking.send(sent[0])
    code = "import sys; from recsys_lib.run import tracking; from recsys_lib.run.run import Run; "
    code += "print(tracking.send(Run('made')), 'mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["0", "False"]


@has_mlflow
def test_sending_that_breaks_off_is_done_again(sent, client, monkeypatch):
    run = Run("other")
    train(run, "05_item_models")
    broken = iter([True])

    def end(self, run, at, whole=tracking._Store._end):
        if next(broken, False):
            raise ConnectionError("the line went dead")
        whole(self, run, at)

    monkeypatch.setattr(tracking._Store, "_end", end)
    with pytest.raises(tracking.TrackingError, match="did not take the runs .*the line went dead.* kept in"):
        tracking.send(run)
    assert len(waiting(run)) == 1
    assert tracking.send(run) == 1
    found = [name for name in runs_of(client, "other") if name.startswith("05")]
    assert sorted(found) == ["05_item_models", "05_item_models/knn", "05_item_models/popularity"]
    experiment = client.get_experiment_by_name("other").experiment_id
    assert len(client.search_runs([experiment], "tags.notebook = '05_item_models'")) == 3


@has_mlflow
def test_a_model_that_was_replaced_is_not_passed_off(sent, client):
    run = Run("other")
    train(run, "04_als")
    ItemKNN(neighbours=3).fit(run.known).save(run.paths.models / "knn")
    tracking.send(run)
    assert not (files_of(runs_of(client, "other")["04_als/knn"]) / "model").exists()


@has_mlflow
def test_a_server_out_of_reach_is_one_sentence_and_no_lost_run(tables, lab_home, monkeypatch, capsys):
    monkeypatch.delenv(tracking.WHEN, raising=False)
    monkeypatch.setenv(tracking.ADDRESS, "http://someone:secret@127.0.0.1:9/")
    run = prepare(tables, "made")
    start = time.perf_counter()
    report = train(run)
    assert set(report["models"]) == {"popularity", "knn"}
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("tracking: http://someone:***@127.0.0.1:9/ did not take the runs (ConnectionRefusedError")
    assert said[0].endswith("sent with the next")
    assert len(waiting(run)) == 1
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize("why", ["none", "not installed"])
def test_off_changes_nothing_else(tables, lab_home, monkeypatch, capsys, why):
    monkeypatch.setenv(tracking.ADDRESS, "none" if why == "none" else "")
    if why == "not installed":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    assert tracking.address() is None
    run = prepare(tables, "made")
    report, content = train(run), judge(run)
    assert set(report["models"]) == {model["name"] for model in content["models"]}
    assert load_model("champion", "made").train.n_items > 0
    assert tracking.send(run) == 0
    assert tracking.main(["ui", "made"]) == 1
    assert "tracking is off" in capsys.readouterr().err
    assert not (run.paths.outputs / "tracking").exists()
    assert {path.name for path in (lab_home / "outputs").iterdir()} == {"made"}


def test_address(lab_home, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: object())
    for given, found in {
        "None": None,
        " none ": None,
        "http://host:1": "http://host:1",
        "": f"sqlite:///{lab_home}/outputs/mlflow.db",
    }.items():
        monkeypatch.setenv(tracking.ADDRESS, given)
        assert tracking.address() == found


def test_parameters_of_the_notebook_that_runs(lab_home, monkeypatch):
    run = Run("ml-100k")
    assert tracking.notebook_parameters(run, "03_popularity") == {}
    shell = SimpleNamespace(user_ns={"half_life_days": 5.5, "dataset": "ml-100k", "liked": 4.0})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    given = tracking.notebook_parameters(run, "03_popularity")
    assert given == vars(run.parameters("03_popularity", {"half_life_days": 5.5}))
    assert given["half_life_days"] == 5.5


def test_tests_track_nothing_elsewhere():
    code = "import recsys_lib.tests.conftest; from recsys_lib.run import tracking; print(tracking.address())"
    given = os.environ | {tracking.ADDRESS: "http://somebody.example"}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
