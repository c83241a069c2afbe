"""The steps on Spark against those of pandas and scipy, on a standalone cluster of one master and two workers."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed: `make scale-setup` does it")

from recsys_lib.benchmarks.scale import made_tables
from recsys_lib.data import splits
from recsys_lib.data.interactions import Interactions
from recsys_lib.evaluation.task import Task, evaluate, mean_ndcg
from recsys_lib.models import ALS, ItemKNN, Popularity, load_model
from recsys_lib.models.popularity import KINDS
from recsys_lib.run.run import Run
from recsys_lib.scale import spark

try:
    spark.ready()
except spark.SparkMissingError as error:
    pytest.skip(str(error), allow_module_level=True)

pytestmark = pytest.mark.xdist_group("spark")
SETTINGS = {"factors": 16, "regularization": 10, "iterations": 8, "alpha": 10, "half_life": None}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def answers(port, process):
    for _ in range(600):
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, "the master ended"
        time.sleep(0.1)
    raise TimeoutError(f"nothing answers on port {port}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A session on a master and two workers of one core each, all on loopback."""
    import pyspark

    folder, port = tmp_path_factory.mktemp("spark"), free_port()
    own = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_WORKER_DIR": str(folder), "SPARK_LOCAL_DIRS": str(folder)}
    own |= {"PYTHONPATH": os.pathsep.join(sys.path), "SPARK_DAEMON_MEMORY": "256m", "SPARK_NO_DAEMONIZE": "1"}
    home = Path(pyspark.__file__).parent
    start = [home / "bin" / "spark-class", "org.apache.spark.deploy.{}", "--host", "127.0.0.1", "--webui-port", "0"]
    log, processes = (folder / "log").open("w"), []

    def begin(what, *more):
        command = [*(str(word).format(what) for word in start), *more]
        processes.append(subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.delenv("SPARK_MASTER", raising=False)
        try:
            begin("master.Master", "--port", str(port))
            answers(port, processes[0])
            for _ in range(2):
                begin("worker.Worker", "--cores", "1", "--memory", "700m", f"spark://127.0.0.1:{port}")
            given = {"spark__driver__memory": "600m", "spark__executor__memory": "600m", "spark__cores__max": 2}
            given |= {"spark__executor__cores": 1, "spark__driver__host": "127.0.0.1", "spark__local__dir": folder}
            session = spark.session(f"spark://127.0.0.1:{port}", spark__sql__shuffle__partitions=2, **given)
            yield session
            session.stop()
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait(timeout=30)
            log.close()


@pytest.fixture(scope="module")
def table():
    """10,000 ratings; a moment has an hour, so that nearly all rows share theirs with others."""
    interactions, _ = made_tables(10_000)
    return interactions.assign(timestamp=interactions["timestamp"] // 3600 * 3600)


@pytest.fixture(scope="module")
def halves(table):
    return splits.temporal_user(table)


@pytest.fixture(scope="module")
def history(cluster, halves):
    return spark.check(spark.frame_of(halves.history)).cache()


def test_both_workers_take_part(cluster):
    numbers = cluster.sparkContext.parallelize(range(8), 8)
    slept = numbers.map(lambda _: (time.sleep(0.2), os.getppid())[1]).collect()
    assert len(set(slept)) == 2
    assert spark.core_seconds(cluster) > 1.5


@pytest.mark.parametrize("ids", ["numbers", "texts"])
def test_the_split_is_the_same_row_by_row(cluster, table, ids):
    if ids == "texts":
        table = table.head(5000).astype({"user_id": str, "item_id": str})
    ours, theirs = spark.by_name(table, "temporal_user", test=0.3), splits.by_name(table, "temporal_user", test=0.3)
    assert table.duplicated(["user_id", "timestamp"], keep=False).mean() > 0.5
    for part in ("train", "valid", "test"):
        pd.testing.assert_frame_equal(getattr(ours, part), getattr(theirs, part))
    assert (ours.name, ours.params) == (theirs.name, theirs.params)


def test_the_core_is_the_same(cluster, table):
    for ours, theirs in zip(
        spark.k_core(table, min_user=20, min_item=12), splits.k_core(table, min_user=20, min_item=12), strict=True
    ):
        pd.testing.assert_frame_equal(ours, theirs)


def test_tables_are_read_from_parquet_and_csv_and_divided_without_pandas(cluster, table, tmp_path):
    theirs = {"user_id": "userId", "item_id": "movieId"}
    table.rename(columns=theirs).to_csv(tmp_path / "ratings.csv", index=False)
    table.iloc[:300].to_parquet(tmp_path / "ratings.parquet", index=False)
    both = spark.read(tmp_path / "ratings.csv"), spark.read(str(tmp_path / "ratings.parquet"))
    assert [frame.count() for frame in both] == [len(table), 300]
    assert dict(both[0].dtypes) == dict(both[1].dtypes)
    spark.temporal_user(both[0]).write.partitionBy("part").parquet(str(tmp_path / "parts"))
    test = pd.read_parquet(tmp_path / "parts" / "part=test")
    assert len(test) == len(splits.temporal_user(table).test)
    with pytest.raises(ValueError, match=r"nowhere.parquet cannot be read: .*PATH_NOT_FOUND"):
        spark.read(tmp_path / "nowhere.parquet")


@pytest.mark.parametrize("kind", KINDS)
def test_popularity_is_the_same(history, halves, kind):
    known = Interactions.from_frame(halves.history)
    ours = spark.popularity(history, Popularity(kind=kind), train=known)
    np.testing.assert_allclose(ours.scores_, Popularity(kind=kind).fit(known).scores_, rtol=1e-6)


def test_neighbours_are_the_same(history, halves):
    known = Interactions.from_frame(halves.history)
    given = {"weighting": "bm25", "neighbours": 7, "shrinkage": 5.0}
    ours = spark.co_occurrence(history, ItemKNN(**given), train=known).similarity_
    theirs = ItemKNN(**given).fit(known).similarity_
    assert np.array_equal(ours.indptr, theirs.indptr)
    ours, theirs = (np.sort(table.toarray(), axis=1) for table in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)  # of equally similar ones rounding chooses


def test_als_is_as_good_where_its_penalty_is_the_same(cluster):
    """Where all users and items have as many interactions, Spark's penalty, which grows with them, is no other one."""
    n, band = 300, np.random.default_rng(0).permutation(90)
    known, later = (
        pd.DataFrame([(user, (user + int(step)) % n, 5.0) for user in range(n) for step in steps])
        for steps in (band[:45], band[45:60])
    )
    known, later = (frame.set_axis(["user_id", "item_id", "rating"], axis=1) for frame in (known, later))
    task = Task.from_split(splits.Split(known, known.iloc[:0], later, name="made"), 4.0)
    given = {"factors": 15, "regularization": 30, "iterations": 10, "alpha": 10}
    theirs, ours = ALS(**given).fit(task.known), spark.als(spark.frame_of(known), ALS(**given))
    assert mean_ndcg(theirs, task) > 0.5
    assert abs(mean_ndcg(ours, task) - mean_ndcg(theirs, task)) < 0.005


def test_a_model_from_spark_is_saved_and_serves_like_any_other(history, halves, tmp_path):
    task, ours = Task.from_split(halves), spark.als(history, ALS(**{**SETTINGS, "iterations": 2}))
    again = load_model(ours.save(tmp_path / "als"))
    users = task.users[:20]
    pd.testing.assert_frame_equal(again.recommend(users), ours.recommend(users))
    assert len(again.recommend_new(ours.train.item_ids[:3].tolist())) == 10


def test_lists_and_metrics_of_the_same_factors_are_the_same(history, halves):
    task = Task.from_split(halves)
    model = ALS(**{**SETTINGS, "half_life": 15.0}).fit(task.known)
    listed = spark.lists(model, history, 10)
    ours = listed.toPandas().sort_values(["user_id", "rank"], ignore_index=True)
    theirs = model.recommend(model.train.user_ids, 10)
    pd.testing.assert_frame_equal(ours, theirs.astype(ours.dtypes.to_dict()), rtol=1e-4)
    seen = halves.history[["user_id", "item_id"]]
    assert ours.merge(seen).empty
    measured = spark.metrics(listed, spark.frame_of(halves.test), (5, 10), relevant_from=4.0)
    of_lab = evaluate(model, task, (5, 10), resamples=10).per_user
    pd.testing.assert_frame_equal(measured, of_lab[measured.columns], check_dtype=False)
    asked = spark.frame_of(pd.DataFrame({"user_id": [int(task.users[0]), 10**6]}))
    new = spark.lists(model, history, 3, users=asked).toPandas().set_index("user_id")
    assert new.loc[10**6, "fallback"].all() and not new.loc[task.users[0], "fallback"].any()


def test_notebooks_fit_on_it_what_it_can_fit(cluster, halves, lab_home):
    run = Run("made")
    data = {"name": "made", "sha256": "0", "rating_scale": [1, 5], "source": "made"}
    items = pd.DataFrame({"item_id": np.unique(halves.train["item_id"])}).assign(title="A", genres="")
    items["genres"] = [[] for _ in items["genres"]]
    run.write_tables(halves, items, pd.DataFrame({"user_id": []}), data=data, relevant_from=4.0)
    from recsys_lib.scale.spark_training import SparkTraining

    training = SparkTraining(run, "04_als")
    training.keep("popularity", Popularity())
    training.keep("als_tuned", ALS(**{**SETTINGS, "iterations": 1}))
    assert list(run.models) == ["als_tuned", "popularity"]
    assert run.model_config("als_tuned")["data"]["fit_seconds"] > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"user_id": None}, "the column 'user_id' is lacking; there are item_id, rating, timestamp"),
        ({"rating": "good"}, "the column 'rating' holds string, not numbers"),
        ({"rating": np.nan}, "3 rows have no right rating"),
        ({"timestamp": -1}, "3 rows have no right timestamp"),
        ({"item_id": 1.5}, "the column 'item_id' holds double; ids are whole numbers or text"),
        ({"item_id": 1}, "user 1 and item 1 stand in it more than once"),
    ],
)
def test_a_wrong_table_is_answered_in_one_sentence(cluster, change, says):
    right = pd.DataFrame({"user_id": 1, "item_id": [1, 2, 3], "rating": 3.0, "timestamp": 5})
    ((column, value),) = change.items()
    wrong = right.drop(columns=column) if value is None else right.assign(**{column: value})
    with pytest.raises(ValueError, match=says):
        spark.check(spark.frame_of(wrong))


def test_other_splits_are_refused(cluster, table):
    with pytest.raises(ValueError, match="temporal_user alone, not by random"):
        spark.by_name(table, "random")
    with pytest.raises(ValueError, match="must be shares that leave something to train on"):
        spark.by_name(table, "temporal_user", test=0.9)
    with pytest.raises(ValueError, match="needs timestamps"):
        spark.by_name(table.drop(columns="timestamp"), "temporal_user")


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        (None, "Spark needs Java 17 or newer, and there is none"),
        ('openjdk version "11.0.2"', "java is Java 11: install it"),
        ('java version "1.8.0_402"', "java is Java 8: install it"),
    ],
)
def test_no_java_or_an_old_one_is_answered_before_anything_starts(tmp_path, says, sentence):
    if says:
        java = tmp_path / "java"
        java.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
        java.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"} | {"PATH": str(tmp_path)}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-m", "recsys_lib.scale.spark"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout.count("\n") == 1
    assert sentence in done.stdout
