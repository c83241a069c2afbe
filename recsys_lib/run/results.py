"""Results on disk: the leaderboard, per-user metrics, and the lists from which both can be computed again.

``python -m recsys_lib.run.results ml-100k`` does that: it reads no model, only the lists, and says how far the numbers
are from those that stand in ``leaderboard.json``.

A saved list is what a model said of the users in the test part, one table: the first places of each user; below
them the relevant films that stand further down, each with its place in the whole catalogue, which "mrr" and "auc" need;
and the rating predicted for each row of the test part, of models that predict any.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.evaluation.task import (
    BEYOND_AT,
    MAIN,
    Evaluation,
    Task,
    compare,
    conclusion,
    from_ranked,
    ranked_from_frames,
)
from recsys_lib.files import read_json, write_json, write_parquet
from recsys_lib.run.run import PARTS, Run, Tables

TABLES = ("per_user", "lists")  # folders below outputs/<dataset>/metrics, a file a model
_PAIR = ["user_id", "item_id"]
_AGAINST = ("difference", "difference_low", "difference_high", "p_t", "p_permutation", "p_holm")
_AGAINST += ("effect_size", "effect_low", "effect_high", "smallest_difference")


def leaderboard(
    results: Mapping[str, Evaluation],
    board: pd.DataFrame,
    data: Mapping[str, Any],
    facts: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Contents of ``leaderboard.json``, best model first.

    ``board`` is from :func:`recsys_lib.evaluation.task.compare`, ``data`` from :func:`describe_data`; ``facts`` what
    else to say of each model: class, params, fit_seconds, ...
    """
    models = []
    for row in board.to_dict("records"):
        name = row["model"]
        against = {key: row[key] for key in _AGAINST if key in row}
        entry = {"name": name, **(facts or {}).get(name, {}), "metrics": results[name].metrics()}
        models.append(entry | {"against_best": against, "distinct_from_best": bool(row.get("distinct", False))})
    protocol = results[models[0]["name"]].protocol
    return {
        "protocol": protocol | {"ranked_by": board.attrs["by"], "conclusion": conclusion(board)},
        "data": dict(data),
        "models": models,
    }


def describe_data(tables: Tables, task: Task) -> dict[str, Any]:
    """The part "data" of a leaderboard: name, checksum, sizes."""
    parts = {f"{part}_rows": len(getattr(tables.split, part)) for part in PARTS}
    sizes = {"n_users": task.known.n_users, "n_items": task.known.n_items, "n_interactions": task.known.matrix.nnz}
    return {"name": tables.identity["name"], "sha256": tables.identity["sha256"], **sizes, **parts}


def facts_of(run: Run, names: list[str]) -> dict[str, dict[str, Any]]:
    """Class, params and the facts kept at saving (``fit_seconds``, ...) of saved models."""
    configs, identity = {name: run.model_config(name) for name in names}, run.tables.identity
    return {
        name: {"model": config["model"], "params": config["params"]}
        | {key: value for key, value in config["data"].items() if key not in identity}
        for name, config in configs.items()
    }


def write_results(run: Run, results: Mapping[str, Evaluation], content: Mapping[str, Any]) -> Path:
    """Write the tables of every model, then ``leaderboard.json``; tables of models no longer there are removed."""
    for table in TABLES:
        written = set()
        for name, result in results.items():
            frame = result.per_user if table == "per_user" else whole_lists(result)
            written.add(write_parquet(run.paths.metrics / table / f"{name}.parquet", frame))
        for old in set((run.paths.metrics / table).glob("*.parquet")) - written:
            old.unlink()
    return write_json(run.paths.metrics / "leaderboard.json", content)


def whole_lists(result: Evaluation) -> pd.DataFrame:
    """Everything that a model said of the users in the test part, as one table.

    Returns a table: user_id, item_id; score (float32), fallback: of the first places alone; rank (Int64): from 1, 0 for
    a relevant item that cannot be listed, empty for other rows of the test part; relevant; midrank: mean rank over
    equal scores, of relevant items; rating, predicted: of rows of the test part, where the model predicts ratings.
    Ordered by user and rank.
    """
    table = result.lists.astype({"rank": "Int64", "fallback": "boolean"})
    if result.positions is not None:
        further = result.positions.rename(columns={"rank": "place"}).assign(relevant=True)
        table = table.merge(further, on=_PAIR, how="outer")
        table["rank"] = table["rank"].fillna(table.pop("place").astype("Int64"))
    if result.predictions is not None:
        table = table.merge(result.predictions.drop(columns="error"), on=_PAIR, how="outer")
    if "relevant" in table:
        table["relevant"] = table["relevant"].notna()
    return table.sort_values(["user_id", "rank"], kind="stable", ignore_index=True)


def evaluation_of(table: pd.DataFrame, task: Task, ks: list[int], **resampling: Any) -> Evaluation:
    """Evaluate what :func:`whole_lists` kept of a model; ValueError if it is of other users or items than the task."""
    first = table[table["rank"].between(1, max(*ks, BEYOND_AT)).fillna(False)]
    positions = table.loc[table["relevant"], [*_PAIR, "rank", "midrank"]] if "relevant" in table else None
    predictions = None
    if "predicted" in table:
        rows = table.loc[table["predicted"].notna(), [*_PAIR, "rating", "predicted"]]
        predictions = task.test[_PAIR].merge(rows, on=_PAIR)  # in the order of the test part
        predictions["error"] = predictions["predicted"] - predictions["rating"].astype(np.float64)
    ranked = ranked_from_frames(first, task, positions)
    return from_ranked(ranked, task, ks, predictions=predictions, **resampling)


def recompute(run: Run) -> tuple[dict[str, Any], dict[str, Evaluation]]:
    """Compute the leaderboard again from the saved lists, without any model: its contents, and evaluations by name.

    ValueError if the lists were made for other data, another split or another threshold.
    """
    stored = run.results.leaderboard
    tables = run.tables_with_test("recsys_lib.run.results")
    protocol = stored["protocol"]
    task = Task.from_split(tables.split, protocol["relevant_from"], items=tables.items)
    if task.protocol["fingerprint"] != protocol["fingerprint"]:
        raise ValueError(
            f"the lists in {run.paths.metrics} were made for another split of {run.name} than the one in "
            f"{run.paths.processed}; `{run.command('07')}` makes them anew"
        )
    again = {name: protocol["bootstrap"][name] for name in ("resamples", "seed")}
    facts, results = {}, {}
    for model in stored["models"]:
        name = model["name"]
        results[name] = evaluation_of(run.results.lists(name), task, protocol["ks"], **again)
        computed = ("name", "metrics", "against_best", "distinct_from_best")
        facts[name] = {key: value for key, value in model.items() if key not in computed}
    board = compare(results, by=protocol["ranked_by"], **again)
    content = leaderboard(results, board, stored["data"], facts)
    content["protocol"] |= {key: value for key, value in protocol.items() if key not in task.protocol}
    return content, results


def largest_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> float:
    """Largest absolute change of any number of any model's metrics; infinite where one is missing on one side."""
    before, after = ({m["name"]: m["metrics"] for m in content["models"]} for content in (old, new))
    if {name: set(m) for name, m in before.items()} != {name: set(m) for name, m in after.items()}:
        return float("inf")
    pairs = [
        (before[name][metric][part], after[name][metric][part])
        for name in before
        for metric in before[name]
        for part in ("mean", "low", "high")
    ]
    numbers = np.array([[np.nan if x is None else x for x in pair] for pair in pairs], dtype=float)
    return float(np.nanmax(np.abs(numbers[:, 0] - numbers[:, 1])))


def validation_means(run: Run, metric: str = MAIN) -> dict[str, float]:
    """Means on the held-out part, by model, as the training notebooks measured them, where they kept such a value."""
    reports = [read_json(file)["models"] for file in sorted((run.paths.metrics / "training").glob("*.json"))]
    values = {name: facts.get(f"valid_{metric}") for models in reports for name, facts in models.items()}
    return {name: value for name, value in values.items() if value is not None}


def write_reports(run: Run, content: Mapping[str, Any], board: pd.DataFrame, more: Mapping[str, Any]) -> list[Path]:
    """Write the training report (what each training notebook left) and the evaluation report.

    ``content`` is the leaderboard, ``more`` further parts of the evaluation report; tables become lists of records.
    """
    training = {file.stem: read_json(file) for file in sorted((run.paths.metrics / "training").glob("*.json"))}
    identity = {"dataset": run.name, "data": content["data"]}
    report = {**identity, "protocol": content["protocol"], "conclusion": conclusion(board)}
    report |= {name: _records(part) for name, part in {"leaderboard": board, **more}.items()}
    return [
        write_json(run.paths.reports / "training_report.json", {**identity, "notebooks": training}),
        write_json(run.paths.reports / "evaluation_report.json", report),
    ]


def _records(part: Any) -> Any:
    """Tables as lists of records, also inside a mapping."""
    if isinstance(part, pd.DataFrame):
        return part.astype(object).where(part.notna(), None).to_dict("records")
    return {name: _records(inner) for name, inner in part.items()} if isinstance(part, Mapping) else part


def main(arguments: list[str] | None = None) -> int:
    """Recompute and rewrite a leaderboard from its lists."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.run.results", description=main.__doc__)
    parser.add_argument("dataset", nargs="?", default="ml-100k", help="data set whose lists are read (ml-100k)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a number changes by over 1e-9")
    given = parser.parse_args(arguments)
    try:
        run = Run(given.dataset)
        stored = run.results.leaderboard
        content, results = recompute(run)
    except (OSError, ValueError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    change = largest_change(stored, content)
    for model in content["models"]:
        main_metric = model["metrics"][content["protocol"]["ranked_by"]]
        low, high = main_metric["low"], main_metric["high"]
        sys.stdout.write(f"{model['name']:<28} {main_metric['mean']:.4f}  ({low:.4f} to {high:.4f})\n")
    sys.stdout.write(f"{content['protocol']['conclusion']}\nlargest change of any number: {change:.1e}\n")
    if given.check:
        return 0 if change <= 1e-9 else 1
    write_results(run, results, content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
