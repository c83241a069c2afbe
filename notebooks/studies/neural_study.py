"""Measure what each part of the neural models is worth: ``python notebooks/studies/neural_study.py``.

Trains every variant of the ablation on ml-100k, several seeds each, evaluates it on the validation part and writes
``reports/ml-100k/neural_study.json``, which 06 shows. It takes minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib import load_dataset, splits
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.splits import Split
from recsys_lib.evaluation.metrics.rating import bias_predictions, mae, predictions, rmse
from recsys_lib.evaluation.task import Task, mean_ndcg
from recsys_lib.files import write_json
from recsys_lib.models.neural.base import NeuralModel
from recsys_lib.models.neural.hybrid import LEAVE_OUT, NeuralHybrid
from recsys_lib.models.neural.ranker import NeuralRanker
from recsys_lib.paths import Paths

STUDY = "neural_study.json"  # in the reports of a data set
# The architecture of a public project: IDs of 128 numbers and a table of features into 256-128-64, nothing else.
PUBLIC_ARCHITECTURE = {
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


def warm_and_cold(history: pd.DataFrame, judged: pd.DataFrame, biases: np.ndarray) -> pd.DataFrame:
    """RMSE of the model and of the shrunk biases, by who is known: rows, n, model, biases (stars)."""
    known_user = judged["user_id"].isin(history["user_id"]).to_numpy()
    known_item = judged["item_id"].isin(history["item_id"]).to_numpy()
    parts = {
        "user and item known": known_user & known_item,
        "user new": ~known_user & known_item,
        "item new": known_user & ~known_item,
        "both new": ~known_user & ~known_item,
        "all": np.ones(len(judged), bool),
    }
    plain = biases - judged["rating"].to_numpy(np.float64)
    errors = judged["error"].to_numpy()
    rows = [(name, int(m.sum()), rmse(errors[m]), rmse(plain[m])) for name, m in parts.items() if m.any()]
    return pd.DataFrame(rows, columns=["rows", "n", "model", "biases"])


def over_seeds(
    kind: type[NeuralModel],
    train: pd.DataFrame,
    tables: dict,
    params: dict[str, Any],
    seeds: list[int],
    judge: Callable,
) -> dict[str, float]:
    """Means over seeds of the metrics that ``judge(model)`` gives, the spread of the first, CPU seconds of a fit."""
    known, start = Interactions.from_frame(train), time.process_time()
    values = pd.DataFrame([judge(kind(**params, seed=seed).fit(known, **tables)) for seed in seeds])
    seconds = (time.process_time() - start) / len(seeds)
    return {**values.mean(), "spread": values.iloc[:, 0].std() if len(seeds) > 1 else None, "cpu_seconds": seconds}


def hybrid_variant(split: Split, tables: dict, params: dict[str, Any], seeds: list[int]) -> dict[str, float]:
    """RMSE and MAE of one variant on the test part of a split, see :func:`over_seeds`."""

    def judge(model: NeuralModel) -> dict[str, float]:
        errors = predictions(model, split.test)["error"].to_numpy()
        return {"rmse": rmse(errors), "mae": mae(errors)}

    return over_seeds(NeuralHybrid, split.train, tables, params, seeds, judge)


def ranker_variant(split: Split, tables: dict, params: dict[str, Any], seeds: list[int]) -> dict[str, float]:
    """NDCG@10 of one variant on the test part of a split, see :func:`over_seeds`."""
    params, task = dict(params), Task.from_split(split, 4.0)
    tables = tables if params.pop("tables", True) else {}
    train = split.train if params.pop("times", True) else split.train.drop(columns="timestamp")
    return over_seeds(NeuralRanker, train, tables, params, seeds, lambda model: {"ndcg@10": mean_ndcg(model, task, 10)})


def cold_study(data: Any, seed: int) -> dict[str, list[dict]]:
    """Warm and cold RMSE on the validation part of a global temporal split, with and without history dropout."""
    split = splits.temporal_global(data.interactions).for_validation()
    known, biases = Interactions.from_frame(split.train), bias_predictions(split.train, split.test)
    tables = {}
    for name, params in COLD.items():
        model = NeuralHybrid(**params, seed=seed).fit(known, items=data.items, users=data.users)
        tables[name] = warm_and_cold(split.train, predictions(model, split.test), biases).to_dict("records")
    return tables


def main(arguments: list[str] | None = None) -> int:
    """Run the ablation and write it to the reports of ml-100k."""
    parser = argparse.ArgumentParser(prog="python notebooks/studies/neural_study.py", description=main.__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args(arguments)
    data = load_dataset("ml-100k")
    split, tables = splits.temporal_user(data.interactions).for_validation(), {"items": data.items, "users": data.users}
    report = {
        "protocol": "temporal_user: fitted on train, evaluated on validation; cold start on temporal_global likewise",
        "data": {"name": data.name, "sha256": data.sha256},
        "seeds": given.seeds,
        "hybrid": [],
        "ranker": [],
    }
    variants = [("hybrid", name, params, hybrid_variant) for name, params in HYBRIDS.items()]
    variants += [("hybrid", "architecture of a public project", PUBLIC_ARCHITECTURE, hybrid_variant)]
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
