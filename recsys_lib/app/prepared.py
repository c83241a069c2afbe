"""What the application shows, prepared once for all sessions: ``outputs/<data set>/demo``.

A session's kernel has no Arrow to read Parquet with, which saves each of them 45 MB. Another process writes numbers as
arrays that all kernels map, everything else as JSON, and beside them what takes long to compute.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pandas as pd

from recsys_lib.data.splits import Split
from recsys_lib.files import read_arrays, read_json, write_arrays, write_json
from recsys_lib.models.base import Recommender
from recsys_lib.run.run import Run, Tables

PARTS = ("train", "valid", "test", "items", "users")
LOWER_IS_BETTER = ("rmse", "mae", "gini", "miscalibration")


def read_prepared(run: Run) -> tuple[Tables, dict[str, Any]]:
    """The tables with the test part, and what was computed from the results; made first where they are not current.

    Returns
    -------
    Tables
    dict
        "p": for each metric the p of the paired test between its best two models; "segments": for each group of users
        the means of each model; "similar": share of similar films that users liked later, by model.

    Raises
    ------
    MissingArtifactError
        If a step has not run.
    """
    files = [run.need(run.paths.processed / "manifest.json"), run.paths.metrics / "leaderboard.json"]
    sources = [[file.stat().st_mtime_ns, file.stat().st_size] if file.is_file() else None for file in files]
    folder = run.paths.outputs / "demo"
    about = folder / "about.json"
    if not about.is_file() or read_json(about).get("sources") != sources:
        for part in PARTS:
            run.need(run.paths.processed / f"{part}.parquet")
        if "pyarrow" in sys.modules and sys.modules["pyarrow"] is None:  # left out of this kernel
            command = [sys.executable, "-m", "recsys_lib.app.prepared", run.dataset]
            subprocess.run(command, check=True, capture_output=True)
        else:
            _prepare(run, sources)
    content, arrays = read_json(about), read_arrays(folder / "tables.safetensors")
    tables = {}
    for part, columns in content["columns"].items():
        series = {
            name: pd.Series(arrays[f"{part}.{name}"] if values is None else values, dtype=dtype)
            for name, (dtype, values) in columns.items()
        }
        tables[part] = pd.DataFrame(series, copy=False)
    split = Split(*(tables[part] for part in PARTS[:3]), **content["manifest"]["split"])
    return Tables(split, tables["items"], tables["users"], content["manifest"]), content["computed"]


def _prepare(run: Run, sources: list[Any]) -> None:
    tables = run.tables_with_test("09_demo")
    frames = [tables.split.train, tables.split.valid, tables.split.test, tables.items, tables.users]
    arrays, columns = {}, {part: {} for part in PARTS}
    for part, frame in zip(PARTS, frames, strict=True):
        for name, values in frame.items():
            dtype = str(values.dtype) if pd.api.types.is_numeric_dtype(values) else "object"
            if dtype == dtype.lower() != "object":  # Int16 and its like may have gaps
                arrays[f"{part}.{name}"] = values.to_numpy()
                columns[part][name] = dtype, None
            else:
                columns[part][name] = dtype, values.astype(object).where(values.notna(), None).tolist()
    folder = run.paths.outputs / "demo"
    write_arrays(folder / "tables.safetensors", arrays)
    content = {"sources": sources, "manifest": tables.manifest, "columns": columns, "computed": _computed(run, tables)}
    write_json(folder / "about.json", content)


def _computed(run: Run, tables: Tables) -> dict[str, Any]:
    from recsys_lib.evaluation.inference import permutation_p  # scipy.stats has no place in a session's kernel

    computed = {"p": {}, "segments": {}, "similar": _liked_later(run, tables)}
    try:
        users = {name: run.results.per_user(name).set_index("user_id") for name in run.results.names}
    except FileNotFoundError:
        return computed
    values = pd.concat(users, axis=1)
    for metric in values.columns.unique(1):
        known = values.xs(metric, axis=1, level=1).dropna(axis=1, how="all")
        best = known.mean().sort_values(ascending=metric.split("@")[0] in LOWER_IS_BETTER).index[:2]
        if len(best) == 2:
            pairs = known[best].dropna().to_numpy()
            computed["p"][metric] = float(permutation_p(pairs[:, :1] - pairs[:, 1:])[0])
    lengths = tables.history["user_id"].value_counts().reindex(values.index).rank(method="first")
    names = ["short histories", "middling histories", "long histories"]
    thirds = pd.cut(lengths / len(lengths), [0, 1 / 3, 2 / 3, 1], labels=names)
    for third, part in values.groupby(thirds, observed=True):
        means = part.mean()
        computed["segments"][third] = {name: means[name].dropna().to_dict() for name in users}
    return computed


def _liked_later(run: Run, tables: Tables) -> dict[str, float]:
    """Of the 10 films most similar to a user's last relevant one, by models that learn it, the share relevant later."""
    before, after = (part[part["rating"] >= tables.relevant_from] for part in (tables.history, tables.split.test))
    order = ["user_id", *({"timestamp", "position"} & {*before})]
    last = before.sort_values(order, kind="stable").groupby("user_id")["item_id"].last().rename("last")
    pairs = after.merge(last, left_on="user_id", right_index=True)
    shares = pd.Series(dtype=float)
    for name in run.models:
        try:
            model = run.models[name]
        except (OSError, ValueError, KeyError):  # whoever asks for the model is told
            continue
        by = type(model)
        if (by.item_vectors, by._similarity) == (Recommender.item_vectors, Recommender._similarity):
            continue  # it learns none: that of the audiences answers
        similar = model.similar_items(last.unique(), 10)
        hits = pairs.merge(similar, left_on=["last", "item_id"], right_on=["item_id", "similar_item_id"])
        shares[name] = len(hits) / (10 * max(pairs["user_id"].nunique(), 1))
    return shares.sort_values(ascending=False, kind="stable").to_dict()


if __name__ == "__main__":
    read_prepared(Run(sys.argv[1]))
