"""What the application shows, prepared once for all sessions: ``outputs/<data set>/demo``.

A session's kernel has no Arrow to read Parquet with, which saves each of them 45 MB. Another process writes who rated
what as arrays, which models share, and the rest as JSON; what takes long to compute is there, too.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pandas as pd

from recsys_lib.data.interactions import Interactions, order_column
from recsys_lib.data.splits import Split
from recsys_lib.files import read_json, write_arrays, write_json
from recsys_lib.models.base import Recommender
from recsys_lib.models.stored import array_hash, arrays_of, interactions_of, load_arrays, pack, unpack
from recsys_lib.run.run import MissingArtifactError, OtherDataError, Run, Tables

LOWER_IS_BETTER = ("rmse", "mae", "gini", "miscalibration")
PARTS = ("history", "test")


def read_prepared(run: Run) -> dict[str, Any]:
    """What is prepared, made first where it is not there, damaged, or older than the run; ``run.tables`` is set, too.

    "history" and "test" are Interactions; "p" for each metric that of the paired test between its best two models;
    "segments" for each group of users the means of each model; "similar" by model the share of similar films that users
    liked later. MissingArtifactError if a step has not run, OtherDataError if a table is damaged.
    """
    files = [run.need(run.paths.processed / "manifest.json"), run.paths.metrics / "leaderboard.json"]
    sources = [[file.stat().st_mtime_ns, file.stat().st_size] if file.is_file() else None for file in files]
    folder = run.paths.outputs / "demo"
    try:
        content = read_json(folder / "about.json")
        arrays = load_arrays(folder / "ratings.safetensors", content["hashes"]) if content["of"] == sources else None
    except (OSError, ValueError, KeyError):
        arrays = None
    if arrays is None:
        if "pyarrow" in sys.modules and sys.modules["pyarrow"] is None:  # left out of this kernel
            command = [sys.executable, "-m", __name__, run.dataset]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                kind = ChildProcessError if "Traceback" in done.stderr else OtherDataError
                raise kind(done.stderr.strip().rpartition("\n")[2])
        else:
            _prepare(run, sources)
        return read_prepared(run)
    items, users = (pd.DataFrame(content[name]).convert_dtypes() for name in ("items", "users"))
    no_rows = [pd.DataFrame()] * 3  # these are in "history" and "test"
    run.tables = Tables(Split(*no_rows, **content["manifest"]["split"]), items, users, content["manifest"])
    return content["computed"] | {name: interactions_of(unpack(content[name], arrays)) for name in PARTS}


def _prepare(run: Run, sources: list[Any]) -> None:
    tables, arrays = run.tables_with_test("09_demo"), {}
    content = {"of": sources, "manifest": tables.manifest, "computed": _computed(run, tables)}
    for name, frame in zip(PARTS, (tables.history, tables.split.test), strict=True):
        content[name] = pack(arrays_of(Interactions.from_frame(frame)), name, arrays)
    for name, frame in (("items", tables.items), ("users", tables.users)):
        content[name] = frame.astype(object).where(frame.notna(), None).to_dict("list")
    folder = run.paths.outputs / "demo"
    write_arrays(folder / "ratings.safetensors", arrays)
    write_json(folder / "about.json", content | {"hashes": {name: array_hash(arrays[name]) for name in arrays}})


def _computed(run: Run, tables: Tables) -> dict[str, Any]:
    from recsys_lib.evaluation.inference import permutation_p  # scipy.stats has no place in a session's kernel
    from recsys_lib.evaluation.segments import thirds

    computed = {"p": {}, "segments": {}, "similar": _liked_later(run, tables)}
    try:
        users = {name: run.results.per_user(name).set_index("user_id") for name in run.results.names}
    except (FileNotFoundError, OtherDataError):  # whoever asks for the results is told
        return computed
    values = pd.concat(users, axis=1)
    for metric in values.columns.unique(1):
        known = values.xs(metric, axis=1, level=1).dropna(axis=1, how="all")
        best = known.mean().sort_values(ascending=metric.split("@")[0] in LOWER_IS_BETTER).index[:2]
        if len(best) == 2:
            pairs = known[best].dropna().to_numpy()
            computed["p"][metric] = float(permutation_p(pairs[:, :1] - pairs[:, 1:])[0])
    lengths = tables.history["user_id"].value_counts().reindex(values.index)
    groups = thirds(lengths, ("short histories", "middling histories", "long histories"))
    for group, part in values.groupby(groups, observed=True):
        means = part.mean().unstack()
        computed["segments"][group] = {name: of_model.dropna().to_dict() for name, of_model in means.iterrows()}
    return computed


def _liked_later(run: Run, tables: Tables) -> dict[str, float]:
    """Of the 10 films most similar to a user's last relevant one, by models that learn it, the share relevant later."""
    before, after = (part[part["rating"] >= tables.relevant_from] for part in (tables.history, tables.split.test))
    order = ["user_id", *filter(None, [order_column(before)])]
    last = before.sort_values(order, kind="stable").groupby("user_id")["item_id"].last().rename("last")
    pairs = after.merge(last, left_on="user_id", right_index=True)
    shares = pd.Series(dtype=float)
    for name in run.models:
        try:
            model = run.models[name]
        except (OSError, ValueError, KeyError):  # whoever asks for the model is told
            continue
        if all(getattr(type(model), own) == getattr(Recommender, own) for own in ("item_vectors", "_similarity")):
            continue  # it learns none: that of the audiences answers
        similar = model.similar_items(last.unique(), 10)
        hits = pairs.merge(similar, left_on=["last", "item_id"], right_on=["item_id", "similar_item_id"])
        shares[name] = len(hits) / (10 * max(pairs["user_id"].nunique(), 1))
    return shares.sort_values(ascending=False, kind="stable").to_dict()


if __name__ == "__main__":
    try:
        read_prepared(Run(sys.argv[1]))
    except (MissingArtifactError, OtherDataError) as error:
        sys.exit(str(error))
