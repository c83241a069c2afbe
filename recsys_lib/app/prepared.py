"""What the application shows, prepared once for all sessions: ``outputs/<data set>/demo``.

A session's kernel has no Arrow to read Parquet with, which saves each of them 45 MB. The process that starts the server
writes the tables as arrays that all kernels map, and what takes long to compute beside them.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.data.splits import Split
from recsys_lib.files import read_arrays, read_json, write_arrays, write_json
from recsys_lib.run.run import MissingArtifactError, Run, Tables

PARTS = ("train", "valid", "test", "items", "users")


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
    folder = run.paths.outputs / "demo"
    about = folder / "about.json"
    sources = _sources(run)
    if not about.is_file() or read_json(about)["of"] != sources:
        if importlib.util.find_spec("pyarrow"):
            prepare(run)
        else:
            command = [sys.executable, "-m", "recsys_lib.app.prepared", run.dataset]
            subprocess.run(command, check=True, capture_output=True)
    content, arrays = read_json(about), read_arrays(folder / "tables.safetensors")
    tables = {name: _decoded(name, content["texts"], arrays) for name in PARTS}
    split = Split(*(tables[name] for name in PARTS[:3]), **content["manifest"]["split"])
    return Tables(split, tables["items"], tables["users"], content["manifest"]), content["results"]


def prepare(run: Run) -> None:
    """Write what :func:`read_prepared` reads."""
    tables = run.tables_with_test("09_demo")
    split = tables.split
    frames = {"train": split.train, "valid": split.valid, "test": split.test}
    frames |= {"items": tables.items, "users": tables.users}
    arrays, texts = {}, {}
    for name, frame in frames.items():
        for column, values in frame.items():
            if isinstance(values.dtype, np.dtype) and values.dtype.kind in "iufb":
                arrays[f"{name}.{column}"] = values.to_numpy()
            else:
                texts[f"{name}.{column}"] = values.astype(object).where(values.notna(), None).tolist()
    folder = run.paths.outputs / "demo"
    write_arrays(folder / "tables.safetensors", arrays)
    content = {"of": _sources(run), "manifest": tables.manifest, "texts": texts, "results": _results(run, tables)}
    write_json(folder / "about.json", content)


def _sources(run: Run) -> list[Any]:
    """What tells whether the tables or the results have been written anew."""
    for name in ("manifest.json", *(f"{part}.parquet" for part in PARTS)):
        run.need(run.paths.processed / name)
    files = (run.paths.processed / "manifest.json", run.paths.metrics / "leaderboard.json")
    return [[file.stat().st_mtime_ns, file.stat().st_size] if file.is_file() else None for file in files]


def _decoded(name: str, texts: dict[str, list], arrays: dict[str, np.ndarray]) -> pd.DataFrame:
    columns = {key.split(".", 1)[1]: pd.Series(values) for key, values in arrays.items() if key.startswith(f"{name}.")}
    for key, values in texts.items():
        if key.startswith(f"{name}."):
            kinds = {type(value) for value in values} - {type(None)}
            dtype = "Int64" if kinds == {int} else "Float64" if kinds == {float} else object
            columns[key.split(".", 1)[1]] = pd.Series(values, dtype=dtype)
    return pd.DataFrame(columns, copy=False)


def _results(run: Run, tables: Tables) -> dict[str, Any]:
    """Paired tests between the best two of each metric, and the means of groups of users."""
    from recsys_lib.evaluation.inference import permutation_p  # scipy.stats has no place in a session's kernel

    similar = _co_liked(run, tables)
    try:
        results = run.results
        users = {name: results.per_user(name).set_index("user_id") for name in results.names}
    except MissingArtifactError:
        return {"p": {}, "segments": {}, "similar": similar}
    p, segments = {}, {}
    for metric in next(iter(users.values())):
        known = {name: table[metric].dropna() for name, table in users.items() if metric in table}
        first, second = sorted(known, key=lambda name: -known[name].mean())[:2] if len(known) > 1 else ("", "")
        if first:
            p[metric] = float(permutation_p((known[first] - known[second]).dropna().to_numpy()[:, None])[0])
    lengths = tables.history.groupby("user_id").size()
    thirds = (
        pd.qcut(lengths, 3, labels=["short histories", "middling histories", "long histories"], duplicates="drop")
        if lengths.nunique() > 3
        else lengths.map(lambda _: "all users")
    )
    for group in thirds.unique():
        inside = thirds.index[thirds == group]
        segments[str(group)] = {
            name: table[table.index.isin(inside)].mean().dropna().to_dict() for name, table in users.items()
        }
    return {"p": p, "segments": segments, "similar": similar}


def _co_liked(run: Run, tables: Tables) -> dict[str, float]:
    """How many of the 10 films that a model finds most similar to a user's last relevant one turn out relevant, too.

    Returns
    -------
    dict
        Share by name of the model, the highest first; over users with relevant films in the test part.
    """
    relevant = [part[part["rating"] >= tables.relevant_from] for part in (tables.history, tables.split.test)]
    order = [name for name in ("user_id", "timestamp") if name in relevant[0]]
    last = relevant[0].sort_values(order, kind="stable").groupby("user_id")["item_id"].last()
    later = relevant[1].merge(last.rename("last"), left_on="user_id", right_index=True)
    shares = {}
    for name in run.models:
        try:
            similar = run.models[name].similar_items(last.unique(), 10)
        except (OSError, ValueError, KeyError):  # whoever asks for the model is told
            continue
        hits = later.merge(similar, left_on=["last", "item_id"], right_on=["item_id", "similar_item_id"])
        shares[name] = len(hits) / (10 * max(later["user_id"].nunique(), 1))
    return dict(sorted(shares.items(), key=lambda pair: -pair[1]))


if __name__ == "__main__":
    prepare(Run(sys.argv[1]))
