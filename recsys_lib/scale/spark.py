"""The lab's steps on Apache Spark: for tables that one machine's memory does not hold.

It leaves what pandas and scipy leave: a split that is equal row by row, models of the lab's own classes, which ``save``
and ``load_model`` know, lists, and the values of users. ``make scale-setup`` installs pyspark; Java 17 or newer must be
there. The environment variable ``SPARK_MASTER`` names a cluster ("spark://host:7077"), on whose machines this package
and what it needs are installed; without it Spark works on this machine alone, on all cores.

Frames of Spark have the columns of the lab's tables: user_id, item_id, rating, timestamp or position.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.data import splits
from recsys_lib.data.interactions import MOST_LEVELS, Histories, Interactions, codes_of, order_column
from recsys_lib.data.interactions import relevance_threshold as threshold_of
from recsys_lib.data.readers import our_names
from recsys_lib.evaluation.metrics.ranking import at_cutoffs, judge
from recsys_lib.models.als import ALS
from recsys_lib.models.base import Recommender
from recsys_lib.models.neighbours import ItemKNN
from recsys_lib.models.popularity import DAY, Popularity
from recsys_lib.models.weights import Weighted

try:
    from pyspark.errors import PySparkException
    from pyspark.sql import DataFrame, SparkSession, Window
    from pyspark.sql import functions as F
except ImportError:  # `ready` says so, in one sentence
    DataFrame = SparkSession = Window = F = None

JAVA = 17  # the oldest that Spark 4 runs on
MIN_CONFIDENCE = 0.5  # confidence from which on an interaction counts in Spark's ALS
ROWS_PER_BLOCK = 5_000_000  # that ALS takes at once; there are at least as many blocks as cores
USERS_PER_BLOCK = 1000  # whose lists or neighbours are made by one call
LIST = "user_id {id}, item_id {item}, score float, rank long, fallback boolean"


class SparkMissingError(RuntimeError):
    """Spark cannot start here: no Java, one that is too old, or no pyspark."""


# ---- start -------------------------------------------------------------------------------------------------------


def ready() -> None:
    """Make sure that Spark can start; SparkMissingError with one sentence if it cannot."""
    own = Path(os.environ.get("JAVA_HOME") or "/nowhere") / "bin" / "java"
    java = str(own) if own.is_file() else shutil.which("java")
    get = f"install it (Debian: openjdk-{JAVA}-jre-headless) or let JAVA_HOME name its folder"
    if java is None:
        raise SparkMissingError(f"Spark needs Java {JAVA} or newer, and there is none: {get}")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    if version is None or int(version[1]) < JAVA:
        version = f"Java {version[1]}" if version else "no Java that says its version"
        raise SparkMissingError(f"Spark needs Java {JAVA} or newer, and {java} is {version}: {get}")
    if DataFrame is None:
        raise SparkMissingError("Spark needs the package pyspark, which is not installed: `make scale-setup` does it")


def session(master: str | None = None, **config: Any) -> SparkSession:
    """Take the session that there is, or start Spark; ``config`` are its settings, dots as double underscores.

    ``master``: by default what ``SPARK_MASTER`` says, else all cores of this machine.
    """
    ready()
    if SparkSession.getActiveSession() is not None:
        return SparkSession.getActiveSession()
    # Workers take "python3" from PATH otherwise, which may be another Python, without this package.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    master = master or os.environ.get("SPARK_MASTER") or "local[*]"
    if master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # a name that does not resolve stops it else
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.maxResultSize": "0",  # a model keeps the matrix of its users
        "spark.executorEnv.PYTHONWARNINGS": "ignore:PySpark does not yet:FutureWarning",
        # The history of ALS's factors grows with its iterations; 20 overflow the usual stack when it is read.
        "spark.driver.extraJavaOptions": "-Xss16m",
        "spark.executor.extraJavaOptions": "-Xss16m",
    }
    if master.startswith("local"):
        settings["spark.sql.shuffle.partitions"] = "16"  # for 200 small ones a second each is lost
    settings |= {name.replace("__", "."): str(value) for name, value in config.items()}
    builder = SparkSession.builder.master(master).appName("recsys-lab")
    for name, value in settings.items():
        builder = builder.config(name, value)
    started = builder.getOrCreate()
    started.sparkContext.setLogLevel("ERROR")
    return started


def core_seconds(spark: SparkSession) -> float:
    """Seconds that the tasks of all executors have taken since the session began, those of Python in them."""
    executors = spark._jsc.sc().statusStore().executorList(False)
    return sum(executors.apply(i).totalDuration() for i in range(executors.size())) / 1000


# ---- tables ------------------------------------------------------------------------------------------------------


def read(path: str, columns: Mapping[str, str] | None = None, spark: SparkSession | None = None) -> DataFrame:
    """Read interactions from CSV with a header or from parquet, a file or a folder of parts; checked.

    ``path`` is whatever Spark reads; of ``s3://`` and ``s3a://`` if ``hadoop-aws`` is on its class path
    (``spark.jars.packages``). ``columns``: ``{"their": "ours"}``; usual spellings, such as userId, need none.
    """
    spark, path = spark or session(), re.sub("^s3://", "s3a://", str(path))
    text = re.search(r"\.(csv|tsv)(\.gz|\.bz2)?$", path)
    options = {"header": True, "inferSchema": True, "sep": "\t" if text and text[1] == "tsv" else ","}
    try:
        frame = spark.read.csv(path, **options) if text else spark.read.parquet(path)
    except PySparkException as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    names = our_names(frame.columns, columns or {})
    kept = [name for name in names if names[name] in ("user_id", "item_id", "rating", "timestamp", "position")]
    return check(frame.select([F.col(f"`{name}`").alias(names[name]) for name in kept]), path)


def check(frame: DataFrame, name: str = "interactions") -> DataFrame:
    """The interactions with the lab's types; ValueError, one sentence, where they are not right.

    They need a user and an item in each row, ratings and times that are finite numbers, and each pair once.
    """
    types = dict(frame.dtypes)
    for column in ("user_id", "item_id"):
        if column not in types:
            raise ValueError(f"{name}: the column {column!r} is lacking; there are {', '.join(types) or 'none'}")
    wanted = {"rating": "float", "timestamp": "bigint", "position": "bigint"}
    for column, kind in types.items():
        number = kind.startswith(("tinyint", "smallint", "int", "bigint", "float", "double", "decimal"))
        if column in wanted and not number:
            raise ValueError(f"{name}: the column {column!r} holds {kind}, not numbers")
        if column.endswith("_id") and kind not in ("string", "tinyint", "smallint", "int", "bigint"):
            raise ValueError(f"{name}: the column {column!r} holds {kind}; ids are whole numbers or text")
        # The hash that orders ties is one of 64 bits.
        ours = wanted.get(column, kind if kind == "string" else "bigint")
        frame = frame.withColumn(column, F.col(column).cast(ours)) if ours != kind else frame
    wrong = {column: F.col(column).isNull() for column in frame.columns}
    if "rating" in types:
        wrong["rating"] |= F.isnan("rating") | (F.abs("rating") == float("inf"))
    if "timestamp" in types:
        wrong["timestamp"] |= F.col("timestamp") < 0
    counts = frame.agg(*[F.count_if(bad).alias(column) for column, bad in wrong.items()]).first()
    for column, rows in counts.asDict().items():
        if rows:
            says = "1 row has" if rows == 1 else f"{rows:,} rows have"
            raise ValueError(f"{name}: {says} no right {column}")
    twice = frame.groupBy("user_id", "item_id").count().where("count > 1").limit(1).collect()
    if twice:
        raise ValueError(f"{name}: user {twice[0][0]!r} and item {twice[0][1]!r} stand in it more than once")
    return frame


def frame_of(table: pd.DataFrame) -> DataFrame:
    """A pandas table of interactions as a frame, its ids as they are."""
    return session().createDataFrame(table)


def interactions(frame: DataFrame) -> Interactions:
    """Collect interactions as the sparse matrix that a model keeps to serve users by id."""
    kept = [name for name in ("user_id", "item_id", "rating", "timestamp", "position") if name in frame.columns]
    return Interactions.from_frame(frame.select(kept).toPandas())


def temporal_user(frame: DataFrame, *, test: float = 0.2, valid: float = 0.1) -> DataFrame:
    """:func:`recsys_lib.data.splits.temporal_user`, row by row: a column ``part``: "train", "valid" or "test".

    Ties are broken by the same hash, which pandas computes in the workers.
    """
    when = order_column(frame.columns)
    if when is None:
        raise ValueError("temporal_user needs timestamps, and the interactions have none")
    splits.check_shares(test, valid)

    def hashed(users: pd.Series, items: pd.Series) -> pd.Series:
        pairs = splits.pair_hash(pd.DataFrame({"user_id": users, "item_id": items}))
        return pd.Series((pairs ^ np.uint64(2**63)).view(np.int64))  # signed, in the same order: Spark has no other

    own, tie = Window.partitionBy("user_id"), F.pandas_udf(hashed, "long")("user_id", "item_id")
    # Made a column first: a window cannot order by a function of Python.
    frame = frame.withColumn("_tie", tie).withColumn("_size", F.count("*").over(own))
    left = F.col("_size") - F.row_number().over(own.orderBy(when, "_tie")) + 1
    n_test, n_valid = (F.floor(share * F.col("_size") + splits.ROUNDING) for share in (test, valid))
    part = F.when(left <= n_test, "test").when(left <= n_test + n_valid, "valid").otherwise("train")
    return frame.withColumn("part", part).drop("_tie", "_size")


def k_core(
    table: DataFrame | pd.DataFrame, *, min_user: int = 1, min_item: int = 1
) -> tuple[DataFrame | pd.DataFrame, pd.DataFrame]:
    """:func:`recsys_lib.data.splits.k_core`; a pandas table gives a pandas table."""
    if isinstance(table, pd.DataFrame):
        kept, rounds = k_core(_numbered(table), min_user=min_user, min_item=min_item)
        return table.iloc[np.sort(kept.select("_row").toPandas()["_row"])].reset_index(drop=True), rounds
    frame, steps = table, []
    while True:
        facts = frame.agg(F.count("*"), F.count_distinct("user_id"), F.count_distinct("item_id")).first()
        steps.append(list(facts))
        if len(steps) > 1 and steps[-1] == steps[-2]:
            break
        counted = [("user_id", min_user), ("item_id", min_item)]
        for column, least in counted:
            frame = frame.withColumn(f"_{column}", F.count("*").over(Window.partitionBy(column)) >= least)
        # Cut off from where it came from: the plan would double with each round.
        frame = frame.where("_user_id AND _item_id").drop("_user_id", "_item_id").localCheckpoint()
    rounds = pd.DataFrame(steps[:-1], columns=["rows", "users", "items"]).rename_axis("round").reset_index()
    dropped = -rounds[["rows", "users", "items"]].diff().fillna(0).astype(np.int64)
    return frame, rounds.join(dropped.add_prefix("dropped_"))


def _numbered(table: pd.DataFrame) -> DataFrame:
    """Users, items and times of a pandas table, with the number of each row as ``_row``."""
    kept = [name for name in ("user_id", "item_id", "timestamp", "position") if name in table]
    return frame_of(table[kept].assign(_row=np.arange(len(table))))


def by_name(table: pd.DataFrame, name: str, *, test: float = 0.2, valid: float = 0.1, **_: Any) -> splits.Split:
    """:func:`recsys_lib.data.splits.by_name` on Spark, for the split that it has: ``temporal_user``."""
    if name != "temporal_user":
        raise ValueError(f"the Spark engine divides by temporal_user alone, not by {name}: leave ENGINE=spark out")
    if "position" in table:
        table = table.drop_duplicates(["user_id", "item_id"], keep="last", ignore_index=True)
    parts = temporal_user(_numbered(table), test=test, valid=valid).select("_row", "part").toPandas()
    codes = parts.set_index("_row")["part"].sort_index().map({"train": splits.TRAIN, "valid": splits.VALID})
    return splits.from_codes(table, codes.fillna(splits.TEST).to_numpy(), name, {"test": test, "valid": valid})


# ---- models ------------------------------------------------------------------------------------------------------


def popularity(frame: DataFrame, model: Popularity, **tables: Any) -> Popularity:
    """Fit :class:`.popularity.Popularity` by counting on Spark; ``tables`` as in :func:`als`."""
    rating = F.col("rating") if "rating" in frame.columns else F.lit(1.0)
    shown = [F.count("*").cast("double").alias("count"), F.sum(rating.cast("double")).alias("sum")]
    if model.kind in ("decayed", "recent"):
        if "timestamp" not in frame.columns:
            raise ValueError(f"Popularity(kind={model.kind!r}) needs timestamps, and the interactions have none")
        age = (F.lit(frame.agg(F.max("timestamp")).first()[0]) - F.col("timestamp")) / DAY
        decayed = F.sum(F.pow(F.lit(2.0), -age / model.half_life_days))
        shown += [F.count_if(age <= model.recent_days).alias("recent"), decayed.alias("decayed")]
    table = frame.groupBy("item_id").agg(*shown).toPandas().sort_values("item_id")
    count = table["count"]
    scores = table.get(model.kind)
    if model.kind == "mean":
        scores = (table["sum"] + model.shrinkage * table["sum"].sum() / count.sum()) / (count + model.shrinkage)
    elif model.kind == "recent":
        scores = scores + count / (count.max() + 1)
    return _learnt(model, frame, tables, scores_=scores.to_numpy(np.float32))


def als(frame: DataFrame, model: ALS, **tables: Any) -> ALS:
    """Fit :class:`.als.ALS` by Spark's ALS: the item factors are Spark's, users are folded in as always.

    ``tables``: ``items`` for titles and genres, and ``train``, the :class:`Interactions` of the frame, where they have
    been collected already.

    Spark multiplies the penalty of each user and item by how many interactions they have; so ``regularization``,
    which here is the same for all, is divided by the root mean square of a user's number. It has no confidence below
    1, the one of what was not seen: an interaction of less counts as 1 if that is nearer than none.
    """
    from pyspark.ml.recommendation import ALS as SparkALS

    train = tables.setdefault("train", tables.get("train") or interactions(frame))
    confidence = model.alpha * F.col("weight")
    rows = _coded(_weighted(frame, model, recency=True), train).where(confidence >= MIN_CONFIDENCE)
    rows = rows.select("user", "item", F.greatest(confidence - 1, F.lit(1e-3)).cast("float").alias("rating")).cache()
    of_user = rows.groupBy("user").agg(F.count("*").alias("n"))
    n_rows, square = of_user.agg(F.sum("n"), F.avg(F.col("n") * F.col("n"))).first()
    blocks = max(frame.sparkSession.sparkContext.defaultParallelism, -(-n_rows // ROWS_PER_BLOCK))
    how = {"rank": model.factors, "maxIter": model.iterations, "regParam": model.regularization / square**0.5}
    how |= {"numUserBlocks": blocks, "numItemBlocks": blocks, "implicitPrefs": True, "alpha": 1.0, "seed": model.seed}
    fitted = SparkALS(userCol="user", itemCol="item", **how).fit(rows).itemFactors.toPandas()
    rows.unpersist()
    factors = np.zeros((train.n_items, model.factors), np.float32)
    factors[fitted["id"]] = np.stack(fitted["features"].to_numpy())
    return _learnt(model, frame, tables, item_factors_=factors)


def co_occurrence(frame: DataFrame, model: ItemKNN, **tables: Any) -> ItemKNN:
    """Fit :class:`.neighbours.ItemKNN`: blocks of users count their pairs of items, the counts are added up.

    ``tables`` as in :func:`als`.
    """
    train = tables.setdefault("train", tables.get("train") or interactions(frame))
    rows = _coded(_weighted(frame, model, recency=False).where("weight > 0"), train)
    n_items, weight = train.n_items, F.col("weight")
    of_user, of_item = (F.count("*").over(Window.partitionBy(column)) for column in ("user", "item"))
    if model.weighting == "bm25":
        weight = weight * 2.2 / (weight + 1.2 * (0.25 + 0.75 * of_item / (rows.count() / n_items)))
    if model.weighting != "cosine":
        weight = weight * F.log(n_items / of_user)
    rows = rows.select("user", "item", weight.alias("weight"))

    def pairs(block: pd.DataFrame) -> pd.DataFrame:
        users = np.unique(block["user"], return_inverse=True)[1]
        columns = csr_matrix((block["weight"], (users, block["item"])), (users.max() + 1, n_items))
        counted = (columns.T @ columns).tocoo()
        return pd.DataFrame({"item": counted.row, "other": counted.col, "product": counted.data})

    counted = _by_users(rows, train.n_users, "user").applyInPandas(pairs, "item int, other int, product double")
    counted = counted.groupBy("item", "other").agg(F.sum("product").alias("product")).cache()
    norms = counted.where("item = other").select("item", F.sqrt("product").alias("norm"))
    others = norms.toDF("other", "other_norm")
    scale = F.col("norm") * F.col("other_norm") + model.shrinkage
    near = counted.where("item != other").join(F.broadcast(norms), "item").join(F.broadcast(others), "other")
    near = near.withColumn("similarity", (F.col("product") / scale).cast("float")).where("similarity > 0")
    best = Window.partitionBy("item").orderBy(F.desc("similarity"), "other")
    near = near.withColumn("_place", F.row_number().over(best)).where(F.col("_place") <= model.neighbours)
    pairs = near.select("item", "other", "similarity").toPandas()
    counted.unpersist()
    similarity = csr_matrix((pairs["similarity"], (pairs["item"], pairs["other"])), (n_items, n_items), np.float32)
    similarity.sort_indices()
    return _learnt(model, frame, tables, similarity_=similarity)


def _learnt(model: Recommender, frame: DataFrame, tables: dict[str, Any], **learnt: Any) -> Any:
    """The model as its own ``fit`` leaves it, with what Spark learnt in the place of what it learns there."""
    train = tables.pop("train", None) or interactions(frame)
    model._fit = lambda *_: vars(model).update(learnt)
    try:
        return model.fit(train, **tables)
    finally:
        del model._fit


def _weighted(frame: DataFrame, model: Weighted, *, recency: bool) -> DataFrame:
    """Weights of :func:`recsys_lib.models.weights.confidence` as a column ``weight``."""
    when = order_column(frame.columns)
    frame = frame if "rating" in frame.columns else frame.withColumn("rating", F.lit(1.0))
    weight, own = F.col("rating"), Window.partitionBy("user_id")
    if model.positive_from is not None:
        levels = frame.select("rating").distinct().limit(MOST_LEVELS + 1).toPandas()["rating"].to_numpy()
        if model.positive_from != "scale":
            least = float(model.positive_from)
        else:
            least = threshold_of(levels) if len(levels) <= MOST_LEVELS else -np.inf
        none = frame.agg(F.max("rating")).first()[0] < least
        liked = F.col("rating") >= least
        weighs = F.lit(none) | liked | ~F.bool_or(liked).over(own)
        weight = F.when(weighs, 1.0).otherwise(float(model.low_weight))
    if recency and model.half_life is not None and when is not None:
        # Rows of one moment share the mean of their places, as in Histories.steps_back.
        same = F.count("*").over(Window.partitionBy("user_id", when)) - 1
        steps = F.rank().over(own.orderBy(F.desc(when))) - 1 + F.floor(same / 2)
        weight = weight * F.pow(F.lit(2.0), -steps / model.half_life)
    return frame.select("user_id", "item_id", weight.alias("weight"))


def _coded(frame: DataFrame, train: Interactions) -> DataFrame:
    """user, item and weight: rows and columns of the matrix in the place of ids."""
    spark = frame.sparkSession
    for name, ids in (("user", train.user_ids), ("item", train.item_ids)):
        codes = pd.DataFrame({f"{name}_id": ids, name: np.arange(len(ids), dtype=np.int32)})
        frame = frame.join(F.broadcast(spark.createDataFrame(codes)), f"{name}_id")
    return frame.select("user", "item", "weight")


def _by_users(frame: DataFrame, n_users: int, column: str = "user_id") -> Any:
    """Rows in groups, each of all that some thousand users have."""
    return frame.groupBy(F.pmod(F.hash(column), F.lit(-(-n_users // USERS_PER_BLOCK))).alias("_block"))


# ---- lists and metrics -------------------------------------------------------------------------------------------


def lists(model: Recommender, history: DataFrame, k: int = 10, *, users: DataFrame | None = None) -> DataFrame:
    """List as ``model.recommend`` does, without what was seen: user_id, item_id, score, rank, fallback.

    Workers are sent what the model learnt of items, not the matrix of its users; a user is served from the rows of
    ``history``. ``users``, a frame with user_id: who gets a list; by default all of the history.
    """
    light, item_ids = _without_users(model), model.train.item_ids
    history = history.withColumn("rating", F.lit(1.0)) if "rating" not in history.columns else history
    when = order_column(history.columns)
    history = history.select("user_id", "item_id", "rating", *[when] * (when is not None))
    # A name of its own: with the same column on both sides Spark may lose one of them.
    asked = (history if users is None else users).select(F.col("user_id").alias("asked")).distinct()
    shared = history.sparkSession.sparkContext.broadcast(light)

    def listed(asked: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
        model, ids = shared.value, np.sort(asked["asked"].to_numpy())
        if len(ids) == 0:
            return pd.DataFrame(columns=["user_id", "item_id", "score", "rank", "fallback"])
        some = Interactions.from_frame(rows, user_ids=ids, item_ids=item_ids)
        tables = []
        for start in range(0, len(ids), model.block_size):
            block = np.arange(start, min(start + model.block_size, len(ids)))
            known = some.rows(block)
            scores, fallback = model.scores_to_list(Histories(known.matrix, known.timestamps))
            new = np.diff(known.matrix.indptr) == 0
            scores[new] = model.train.item_counts
            tables.append(model._table(ids[block], *model._lists(scores, known, k), fallback | new))
        return pd.concat(tables)

    kinds = dict(history.dtypes)
    n_users = model.train.n_users
    both = _by_users(asked, n_users, "asked").cogroup(_by_users(history, n_users))
    return both.applyInPandas(listed, LIST.format(id=kinds["user_id"], item=kinds["item_id"]))


def _without_users(model: Recommender) -> Recommender:
    """The model with the facts of its training matrix that lists need, and an empty matrix."""
    if model.members:
        raise TypeError(f"{type(model).__name__} is made of other models: list with each of those")
    light, train = copy(model), model.train
    light.train = Interactions(train.matrix[:0], train.user_ids[:0], train.item_ids, dated=train.dated)
    vars(light.train).update(item_counts=train.item_counts, relevant_from=train.relevant_from)
    vars(light.train).update(best_rating=train.best_rating)
    vars(light).update(few=model.few, _liked_by=model._liked_by, _traits=model._traits)
    return light


def metrics(listed: DataFrame, test: DataFrame, ks: Iterable[int] = (10,), relevant_from: float = 0.0) -> pd.DataFrame:
    """Metrics of :func:`recsys_lib.evaluation.metrics.ranking.at_cutoffs`: user_id and one column each, a row a user.

    ``listed`` is what :func:`lists` gives, ``test`` the test part; users with nothing relevant in it are left out.
    """
    ks = tuple(ks)
    relevant = test.where(F.col("rating") >= relevant_from) if relevant_from and "rating" in test.columns else test
    names = list(at_cutoffs(judge(np.empty((0, 1), int), csr_matrix((0, 1))), ks))

    def judged(own: pd.DataFrame, liked: pd.DataFrame) -> pd.DataFrame:
        users, rows = np.unique(liked["user_id"], return_inverse=True)
        items = np.unique(np.concatenate([own["item_id"], liked["item_id"]]))
        ones = np.ones(len(liked)), (rows, codes_of(liked["item_id"], items))
        own = own[own["user_id"].isin(users)]
        codes = np.full((len(users), max(ks)), -1)
        kept = own["rank"] <= max(ks)
        places = codes_of(own.loc[kept, "user_id"], users), own.loc[kept, "rank"] - 1
        codes[places] = codes_of(own.loc[kept, "item_id"], items)
        values = at_cutoffs(judge(codes, csr_matrix(ones, (len(users), len(items)))), ks)
        return pd.DataFrame({"user_id": users, **values})

    n_users = relevant.select("user_id").distinct().count()
    listed, relevant = listed.select("user_id", "item_id", "rank"), relevant.select("user_id", "item_id")
    both = _by_users(listed, n_users).cogroup(_by_users(relevant, n_users))
    schema = ", ".join([f"user_id {dict(test.dtypes)['user_id']}", *(f"`{name}` double" for name in names)])
    return both.applyInPandas(judged, schema).toPandas().sort_values("user_id", ignore_index=True)


if __name__ == "__main__":
    try:
        ready()
    except SparkMissingError as error:
        print(error)
        sys.exit(1)
