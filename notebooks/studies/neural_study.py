"""What 06 asks of the neural models: curves, errors by rating and genre, new users, and what each part is worth.

``python notebooks/studies/neural_study.py`` trains every variant of the ablation on ml-100k, several seeds each, judges it on
the validation part and writes ``reports/ml-100k/neural_study.json``, which 06 shows: it takes minutes, 06 does not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib import load_dataset, splits
from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.data.splits import Split
from recsys_lib.evaluation.metrics.rating import mae, rmse
from recsys_lib.evaluation.task import Task, mean_ndcg, ndcg_given
from recsys_lib.files import read_json, write_json
from recsys_lib.models.base import Recommender
from recsys_lib.models.neural.hybrid import LEAVE_OUT, NeuralHybrid
from recsys_lib.models.neural.ranker import NeuralRanker
from recsys_lib.paths import REPOSITORY, Paths

STUDY = "neural_study.json"  # in the reports of a data set
# The architecture of the seed project: IDs of 128 numbers and a table of features into 256-128-64, nothing else.
SEED_ARCHITECTURE = {
    "embedding_dim": 128,
    "hidden": (256, 128, 64),
    "epochs": 15,
    "batch_size": 256,
    "lr": 1e-3,
    "schedule": "constant",
    "decay": 0.0,
    "vector_dropout": 0.0,
    "history_dropout": 0.0,
    "batch_norm": True,
    "without": ("history", "product"),
}
HYBRIDS: dict[str, dict[str, Any]] = {
    "whole": {},
    **{f"without {part}": {"without": (part,)} for part in LEAVE_OUT if part != "leave-one-out"},
    "own rating left in the features": {"without": ("leave-one-out",)},
    "four times the epochs": {"epochs": 24},
    "half the width": {"embedding_dim": 32, "hidden": (128, 64)},
}
RANKERS: dict[str, dict[str, Any]] = {
    "whole": {},
    "one pooling head": {"heads": 1},
    "all the future as target": {"window": 1e6},
    "low ratings count as much": {"low_weight": 1.0},
    "low ratings count nothing": {"low_weight": 0.0},
    "last weights, not their average": {"average": 0.0},
    "no events hidden": {"event_dropout": 0.0},
    "without side features": {"tables": False},
    "without time": {"times": False},
}
COLD = {
    "history dropout .05": {"history_dropout": 0.05},
    "history dropout .01": {},
    "without history dropout": {"history_dropout": 0.0},
}


def predictions(model: Recommender, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with ``predicted`` and ``error`` (predicted minus given), in stars, each rating at its own time."""
    when = frame["timestamp"].to_numpy() if "timestamp" in frame else None
    predicted = model.predict(frame["user_id"].to_numpy(), frame["item_id"].to_numpy(), when)
    return frame.assign(predicted=predicted, error=predicted - frame["rating"].to_numpy(np.float64))


def rating_error(frame: pd.DataFrame) -> Callable[[Recommender], float]:
    """``model -> RMSE`` on these ratings, for validation curves."""
    return lambda model: rmse(predictions(model, frame)["error"].to_numpy())


def ranking_error_of(task: Task) -> Callable[[Recommender], float]:
    """``model -> 1 - NDCG@10`` on a task made before."""
    return lambda model: 1 - mean_ndcg(model, task, 10)


def log_table(model: Recommender) -> pd.DataFrame:
    """The training log of a neural model: model, epoch, loss, lr, valid, seconds."""
    return pd.DataFrame(model.log)


def bias_predictions(history: pd.DataFrame, asked: pd.DataFrame, shrinkage: float = 5.0) -> np.ndarray:
    """Mean + the film's shrunk deviation + the person's from it, (n,) float64: what any model has to beat.

    Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems" (2009), equation 4; each
    deviation is pulled to zero as if by ``shrinkage`` ratings. Clipped to the ratings seen.

    Examples
    --------
    >>> seen = pd.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "rating": [5.0, 3.0]})
    >>> bias_predictions(seen, pd.DataFrame({"user_id": [9, 9], "item_id": [1, 7]})).round(3)
    array([4.167, 4.   ])
    """
    mean = history["rating"].astype(np.float64).mean()
    predicted = np.full(len(asked), mean)
    rest = history["rating"].to_numpy(np.float64) - mean
    for column in ("item_id", "user_id"):
        grouped = pd.Series(rest).groupby(history[column].to_numpy())
        deviation = grouped.sum() / (grouped.size() + shrinkage)
        rest = rest - deviation.reindex(history[column]).to_numpy()
        predicted += deviation.reindex(asked[column]).fillna(0).to_numpy()
    return np.clip(predicted, history["rating"].min(), history["rating"].max())


# ---- tables of 06 ------------------------------------------------------------------------------------------------


def errors_by_rating(judged: pd.DataFrame) -> pd.DataFrame:
    """Mean prediction and error by the rating that was given: rating, n, predicted, bias, rmse (stars)."""
    grouped = judged.groupby("rating")
    return pd.DataFrame(
        {
            "n": grouped.size(),
            "predicted": grouped["predicted"].mean(),
            "bias": grouped["error"].mean(),
            "rmse": grouped["error"].agg(lambda errors: rmse(errors.to_numpy())),
        }
    ).reset_index()


def errors_by_genre(judged: pd.DataFrame, items: pd.DataFrame, least: int = 50) -> pd.DataFrame:
    """Bias and RMSE by genre of films that have several too, worst first; at least ``least`` ratings each."""
    genres = items[["item_id", "genres"]].explode("genres").dropna().rename(columns={"genres": "genre"})
    grouped = judged.merge(genres, on="item_id").groupby("genre")["error"]
    table = pd.DataFrame(
        {"n": grouped.size(), "bias": grouped.mean(), "rmse": grouped.agg(lambda e: rmse(e.to_numpy()))}
    )
    return table[table["n"] >= least].sort_values("rmse", ascending=False).reset_index()


def calibration(judged: pd.DataFrame, bins: int = 12) -> pd.DataFrame:
    """Mean prediction and mean rating of rows alike in prediction: predicted, given, low, high (95 %), n.

    A model is calibrated where the two are equal.
    """
    part = pd.qcut(judged["predicted"], bins, duplicates="drop", labels=False)
    grouped = judged.groupby(part)
    half = 1.96 * grouped["rating"].std() / np.sqrt(grouped.size())
    given = grouped["rating"].mean()
    columns = {"predicted": grouped["predicted"].mean(), "given": given, "low": given - half, "high": given + half}
    return pd.DataFrame({**columns, "n": grouped.size()}).reset_index(drop=True)


def warm_and_cold(history: pd.DataFrame, judged: pd.DataFrame, biases: np.ndarray) -> pd.DataFrame:
    """RMSE of the model and of the shrunk biases, by who is known: rows, n, model, biases (stars)."""
    person = judged["user_id"].isin(history["user_id"]).to_numpy()
    film = judged["item_id"].isin(history["item_id"]).to_numpy()
    parts = {
        "person and film known": person & film,
        "person new": ~person & film,
        "film new": person & ~film,
        "both new": ~person & ~film,
        "all": np.ones(len(judged), bool),
    }
    plain = biases - judged["rating"].to_numpy(np.float64)
    errors = judged["error"].to_numpy()
    rows = [(name, int(m.sum()), rmse(errors[m]), rmse(plain[m])) for name, m in parts.items() if m.any()]
    return pd.DataFrame(rows, columns=["rows", "n", "model", "biases"])


def by_known_films(model: Recommender, task: Task, counts: Iterable[int]) -> pd.DataFrame:
    """NDCG@10 when no more than so many films of a history are told to the model: films, ndcg@10.

    The last ones are kept; the lists leave out everything the person had seen, told or not.
    """
    everybody = np.arange(len(task.users))
    values = [ndcg_given(model, task, everybody, partial(Histories.first, size=count)).mean() for count in counts]
    return pd.DataFrame({"films": list(counts), "ndcg@10": values})


def feature_importance(model: NeuralHybrid, frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """How much worse the RMSE gets when one input's values change places between rows: input, rise (stars).

    Permutation importance (Breiman, "Random forests", 2001) of the dense features and of both vectors.
    """
    from recsys_lib.models.neural.serving import rating_pairs

    users, items = model._codes(frame["user_id"], frame["item_id"])
    when = frame["timestamp"].to_numpy() if "timestamp" in frame else None
    dense, state = model.features.pairs(users, items, when), model.states[0]
    people, bias = model._user_vectors(state)
    films = np.vstack([state["items"], np.zeros((1, model.embedding_dim), np.float32)])
    base = model.features.mean + bias[users] + np.append(state["item_bias"], 0)[items]
    inputs = {"u": people[users], "v": films[items], "dense": dense}
    shuffled = np.random.default_rng(seed).permutation(len(frame))

    def error(u: np.ndarray, v: np.ndarray, dense: np.ndarray) -> float:
        return rmse(base + rating_pairs(state, u, v, dense) - frame["rating"].to_numpy(np.float64))

    whole = error(**inputs)
    rows = [("person's vector", error(**{**inputs, "u": inputs["u"][shuffled]}) - whole)]
    rows.append(("film's vector", error(**{**inputs, "v": inputs["v"][shuffled]}) - whole))
    for column, name in enumerate(model.features.names()):
        changed = dense.copy()
        changed[:, column] = dense[shuffled, column]
        rows.append((name, error(**{**inputs, "dense": changed}) - whole))
    return pd.DataFrame(rows, columns=["input", "rise"]).sort_values("rise", ascending=False, ignore_index=True)


def read_study(paths: Paths, sha256: str) -> dict[str, Any] | None:
    """What :func:`main` wrote for this very data, or None; looked for in the run's reports and the committed ones."""
    for folder in (paths.reports, REPOSITORY / "reports" / paths.name):
        if (folder / STUDY).is_file():
            report = read_json(folder / STUDY)
            if report["data"]["sha256"] == sha256:
                return report
    return None


# ---- the ablation ------------------------------------------------------------------------------------------------


def _spread(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def hybrid_variant(split: Split, tables: dict, params: dict[str, Any], seeds: Iterable[int]) -> dict[str, Any]:
    """RMSE and MAE of one variant on the test part of a split, mean and spread over seeds, CPU seconds of a fit."""
    known, found = Interactions.from_frame(split.train), []
    start = time.process_time()
    for seed in seeds:
        model = NeuralHybrid(**params, seed=seed).fit(known, **tables)
        errors = predictions(model, split.test)["error"].to_numpy()
        found.append((rmse(errors), mae(errors)))
    seconds = (time.process_time() - start) / len(found)
    values = {"rmse": np.mean([f[0] for f in found]), "mae": np.mean([f[1] for f in found])}
    return {**values, "spread": _spread([f[0] for f in found]), "cpu_seconds": seconds}


def ranker_variant(split: Split, tables: dict, params: dict[str, Any], seeds: Iterable[int]) -> dict[str, Any]:
    """NDCG@10 of one variant on the test part of a split, mean and spread over seeds, CPU seconds of a fit."""
    params = dict(params)
    tables = tables if params.pop("tables", True) else {}
    frame = split.train if params.pop("times", True) else split.train.drop(columns="timestamp")
    task, known, found = Task.from_split(split, 4.0), Interactions.from_frame(frame), []
    start = time.process_time()
    for seed in seeds:
        found.append(mean_ndcg(NeuralRanker(**params, seed=seed).fit(known, **tables), task, 10))
    seconds = (time.process_time() - start) / len(found)
    return {"ndcg@10": np.mean(found), "spread": _spread(found), "cpu_seconds": seconds}


def cold_study(data: Any, seed: int) -> dict[str, list[dict]]:
    """Warm and cold RMSE on the validation part of one cut in time, with and without history dropout."""
    split = splits.temporal_global(data.interactions).for_validation()
    known, biases = Interactions.from_frame(split.train), bias_predictions(split.train, split.test)
    tables = {}
    for name, params in COLD.items():
        model = NeuralHybrid(**params, seed=seed).fit(known, items=data.items, users=data.users)
        tables[name] = warm_and_cold(split.train, predictions(model, split.test), biases).to_dict("records")
    return tables


def main(arguments: list[str] | None = None) -> int:
    """Run the ablation and write it to the reports of ml-100k."""
    parser = argparse.ArgumentParser(
        prog="python notebooks/studies/neural_study.py", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args(arguments)
    data = load_dataset("ml-100k")
    split, tables = splits.temporal_user(data.interactions).for_validation(), {"items": data.items, "users": data.users}
    report = {
        "protocol": "temporal_user: fitted on train, judged on validation; cold start on temporal_global likewise",
        "data": {"name": data.name, "sha256": data.sha256},
        "seeds": given.seeds,
        "hybrid": [],
        "ranker": [],
    }
    variants = [("hybrid", name, params, hybrid_variant) for name, params in HYBRIDS.items()]
    variants += [("hybrid", "architecture of the seed project", SEED_ARCHITECTURE, hybrid_variant)]
    variants += [("ranker", name, params, ranker_variant) for name, params in RANKERS.items()]
    for kind, name, params, measure in variants:
        report[kind].append({"variant": name, **measure(split, tables, params, given.seeds)})
        sys.stdout.write(f"{kind}: {report[kind][-1]}\n")
        sys.stdout.flush()
    report["cold"] = cold_study(data, given.seeds[0])
    sys.stdout.write(f"{report['cold']}\nWritten: {write_json(Paths('ml-100k').reports / STUDY, report)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
