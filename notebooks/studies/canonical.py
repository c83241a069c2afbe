"""Ratings like for like: ml-100k's published folds u1..u5, with the times of the test ratings and without any.

``python notebooks/studies/canonical.py`` (``make canonical``) fits on each published base file and predicts the test
file. What a model knows of the moment of a test rating is worth more than most differences between models, so each
model is measured in columns (``SEEN``), and a difference is tested inside a column only. Mixes take their weights from
a tenth of the base file; nothing here looks at a test rating but the lines that measure.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import myfm
import numpy as np
import pandas as pd
from bayesian_factors import BayesianFactors
from scipy.optimize import nnls
from scipy.sparse import csr_matrix, diags_array, hstack, identity

from recsys_lib import load_dataset, splits
from recsys_lib.data import leaks
from recsys_lib.data.interactions import Interactions, codes_of
from recsys_lib.evaluation import inference
from recsys_lib.evaluation.metrics.rating import bias_predictions, predictions
from recsys_lib.evaluation.task import rating_summary
from recsys_lib.files import write_json
from recsys_lib.models.features.pairs import Catalogue
from recsys_lib.models.neural.hybrid import NeuralHybrid
from recsys_lib.paths import Paths

HELD_OUT = 0.1  # of the base file, to choose the weights of the mixes
DAY = 86_400
SEEN = {
    "times given": "the second of every training rating, and of the test rating that is asked for",
    "no times": "training ratings without their times",
    "earlier only": "of the user, the training ratings from before that second; all else is fitted without times",
}
MIXES = {
    "hybrid + Bayesian factors": ["neural hybrid", "Bayesian factors"],
    "hybrid + Bayesian factors + myFM": ["neural hybrid", "Bayesian factors", "myFM"],
}
PUBLISHED = [  # as far as could be read; not measured here, so not tested
    {"name": "GHRS (2022)", "rmse": 0.887, "fold": "u1", "saw": "no times; demographics; rests on other folds, too"},
    {"name": "GLocal-K (2021)", "rmse": 0.889, "fold": "u1", "saw": "no times; the epoch with the best test RMSE"},
    {"name": "IGMC (2020)", "rmse": 0.905, "fold": "u1", "saw": "no times; no side information"},
]


class MyFM:
    """The package myfm's Bayesian factorisation machine: ids, who rated what, side features and, where given, the day.

    Rendle, Zhang and Koren, "On the difficulty of evaluating baselines" (2019), call it timeSVD++ flipped.
    """

    def __init__(self, rank: int = 10, sweeps: int = 200, burn_in: int = 20, seed: int = 0) -> None:
        self.model = myfm.MyFMRegressor(rank=rank, random_seed=seed)
        self.sweeps, self.burn_in = sweeps, burn_in

    def fit(self, train: Interactions, *, items: pd.DataFrame, users: pd.DataFrame) -> MyFM:
        """Sample; times are used where ``train`` has them."""
        self.catalogue, frame = Catalogue.of(train, items, users), train.to_frame()
        self.scale = train.matrix.data.min(), train.matrix.data.max()
        rows = codes_of(frame["user_id"], self.catalogue.user_ids)
        columns = codes_of(frame["item_id"], self.catalogue.item_ids)
        shape = len(self.catalogue.user_ids), len(self.catalogue.item_ids)
        rated = csr_matrix((np.ones(len(frame)), (rows, columns)), shape=shape)
        contents = self.catalogue.user_content, self.catalogue.item_content
        self.sides, groups = [], []
        for history, content in zip((rated, rated.T.tocsr()), contents, strict=True):
            scaled = diags_array(1 / np.sqrt(np.maximum(np.diff(history.indptr), 1))) @ history
            parts = [identity(history.shape[0]), scaled, csr_matrix(content)]
            self.sides.append(hstack(parts, format="csr"))
            groups += [part.shape[1] for part in parts]
        self.days = np.unique(train.timestamps // DAY) if train.timestamps is not None else np.zeros(0, np.int64)
        groups = [len(self.days), *groups] if len(self.days) else groups
        days, blocks = self._inputs(rows, columns, train.timestamps)
        rounds = {"n_iter": self.sweeps, "n_kept_samples": self.sweeps - self.burn_in}
        self.model.fit(days, frame["rating"].to_numpy(np.float64), X_rel=blocks, group_shapes=groups, **rounds)
        return self

    def _inputs(self, rows: np.ndarray, columns: np.ndarray, when: np.ndarray | None) -> tuple[csr_matrix, list]:
        """The day of each pair, (n, n_days), and the blocks of users and items."""
        place = codes_of(when // DAY, self.days) if len(self.days) else np.full(len(rows), -1)
        known = np.flatnonzero(place >= 0)
        days = csr_matrix((np.ones(len(known)), (known, place[known])), shape=(len(rows), len(self.days)))
        pairs = zip((rows, columns), self.sides, strict=True)
        return days, [myfm.RelationBlock(codes, side) for codes, side in pairs]

    def predict(self, user_ids: Any, item_ids: Any, timestamps: np.ndarray | None = None) -> np.ndarray:
        """Predict the rating of each pair, (n,) float64; ids must be in the tables of users and items."""
        rows, columns = codes_of(user_ids, self.catalogue.user_ids), codes_of(item_ids, self.catalogue.item_ids)
        return np.clip(self.model.predict(*self._inputs(rows, columns, timestamps)), *self.scale)


def predict_all(
    train: pd.DataFrame, asked: pd.DataFrame, data: Any, seeds: Sequence[int], params: dict[str, Any]
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, float]]:
    """Fit every model on ``train``: predictions for ``asked`` (a column a model), the models, CPU seconds."""
    models = {f"neural hybrid, seed {seed}": NeuralHybrid(**params, seed=seed) for seed in seeds}
    models |= {"Bayesian factors": BayesianFactors(seed=seeds[0]), "myFM": MyFM(seed=seeds[0])}
    known, seconds = Interactions.from_frame(train), {}
    table = pd.DataFrame({"shrunk biases": bias_predictions(train, asked)})
    for name, model in models.items():
        start = time.process_time()
        model.fit(known, items=data.items, users=data.users)
        seconds[name] = time.process_time() - start
        table[name] = predictions(model, asked)["predicted"].to_numpy()
    table["neural hybrid"] = table.filter(like="seed").mean(axis=1)
    return table, models, seconds


def predict_from_earlier(models: dict[str, Any], base: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Predict each test rating for a user without an id, whose history ends before that second; a column a model."""
    visits = test[["user_id", "timestamp"]].drop_duplicates().reset_index(drop=True)
    visit = visits.reset_index().merge(test, on=["user_id", "timestamp"], how="right")["index"].to_numpy()
    known = Interactions.from_frame(base)
    rows = visits.reset_index().merge(base, on="user_id", suffixes=("_asked", ""))
    rows = rows[rows["timestamp"] < rows["timestamp_asked"]]
    places = rows["index"].to_numpy(), known.item_codes(rows["item_id"])
    histories = csr_matrix((rows["rating"].to_numpy(np.float32), places), shape=(len(visits), known.n_items))
    columns = known.item_codes(test["item_id"])
    table = pd.DataFrame({"shrunk biases": biases_from_earlier(base, test)})
    for name, model in models.items():
        values = np.clip(model.predict(np.full(len(test), -1), test["item_id"]), 1, 5)  # user -1: unknown
        for start in range(0, len(visits), 500):
            own = np.flatnonzero((visit >= start) & (visit < start + 500) & (columns >= 0))
            values[own] = model.score(histories[start : start + 500])[visit[own] - start, columns[own]]
        table[name] = np.clip(values, 1, 5)
    return table


def biases_from_earlier(base: pd.DataFrame, test: pd.DataFrame, shrinkage: float = 5.0) -> np.ndarray:
    """Shrunk biases where the user's bias rests on what they rated before, (n,) float64."""
    of_items = bias_predictions(base, base.assign(user_id=-1)), bias_predictions(base, test.assign(user_id=-1))
    gaps = base[["user_id", "timestamp"]].assign(gap=base["rating"].to_numpy() - of_items[0])
    gaps = gaps.groupby(["user_id", "timestamp"])["gap"].agg(["sum", "size"]).groupby("user_id").cumsum().reset_index()
    asked = test[["user_id", "timestamp"]].reset_index(drop=True).reset_index().sort_values("timestamp")
    last = (
        pd.merge_asof(asked, gaps.sort_values("timestamp"), on="timestamp", by="user_id", allow_exact_matches=False)
        .set_index("index")
        .sort_index()
        .fillna(0)
    )
    return np.clip(of_items[1] + (last["sum"] / (last["size"] + shrinkage)).to_numpy(), 1, 5)


def mixed(table: pd.DataFrame, shares: dict[str, dict[str, float]]) -> pd.DataFrame:
    """The table with a column for each mix."""
    return table.assign(**{name: table[list(share)] @ pd.Series(share) for name, share in shares.items()})


def choose_shares(table: pd.DataFrame, given: np.ndarray) -> dict[str, dict[str, float]]:
    """Shares of the members of each mix, by non-negative least squares on ratings that no member was fitted on."""
    shares = {}
    for name, members in MIXES.items():
        if set(members) <= set(table):
            share = nnls(table[members].to_numpy() - given.mean(), given - given.mean())[0]
            shares[name] = dict(zip(members, (share / share.sum()).tolist(), strict=True))
    return shares


def measure_fold(data: Any, k: int, seeds: Sequence[int], params: dict[str, Any]) -> dict[str, Any]:
    """Predictions of all models on one fold, by what they saw, with the shares of mixes, CPU seconds, leak checks."""
    split = splits.canonical_fold(data.interactions, k)
    held = np.random.default_rng(k).random(len(split.history)) < HELD_OUT
    given = split.history["rating"].to_numpy(np.float64)[held]
    tables, shares, findings = {}, {}, []
    for seen in ("times given", "no times"):
        gone = [] if seen == "times given" else ["timestamp"]
        base, test = split.history.drop(columns=gone), split.test.drop(columns=gone)
        shares[seen] = choose_shares(predict_all(base[~held], base[held], data, seeds, params)[0], given)
        table, models, seconds = predict_all(base, test, data, seeds, params)
        tables[seen] = mixed(table, shares[seen])
        first, truth = models[f"neural hybrid, seed {seeds[0]}"], test["rating"].to_numpy(np.float64)
        checks = leaks.check_fitted(lambda frame, m=first: predictions(m, frame)["predicted"].to_numpy(), test)
        checks += leaks.check_predictions(table["neural hybrid"].to_numpy(), truth, rmse_floor=leaks.rmse_floor(split))
        findings += [{"seen": seen, "check": f.check, "passed": f.passed, "detail": f.detail} for f in checks]
    able = {"neural hybrid": models[f"neural hybrid, seed {seeds[0]}"], "Bayesian factors": models["Bayesian factors"]}
    earlier = predict_from_earlier(able, split.history, split.test)
    tables["earlier only"] = mixed(earlier, {name: shares["no times"][name] for name in list(MIXES)[:1]})
    asked = split.test[["user_id", "rating"]].reset_index(drop=True).assign(fold=f"u{k}")
    tables = {seen: pd.concat([asked, table], axis=1) for seen, table in tables.items()}
    return {"tables": tables, "shares": shares, "cpu_seconds": seconds, "leak_checks": findings}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a model of one column: errors with intervals over users, and paired tests of users' squared errors.

    Parameters
    ----------
    table
        user_id, rating, fold, then a column of predictions a model.

    Returns
    -------
    DataFrame
        model; rmse_u1, rmse and mae (over the rows of all folds, in stars), each with _low and _high; spread (standard
        deviation of the RMSE over seeds, for the hybrid); difference_<base> (mean over users of the mean squared
        error minus that of the base), p_<base> (permutation, Holm over the column).
    """
    models = [name for name in table.columns.drop(["user_id", "rating", "fold"]) if ", seed " not in name]
    errors = table.drop(columns=["user_id", "rating", "fold"]).sub(table["rating"], axis=0)
    rows = []
    for name in models:
        frame = pd.DataFrame({"user_id": table["user_id"], "error": errors[name]})
        whole, row = rating_summary(frame), {"model": name}
        parts = {"rmse": whole["rmse"], "mae": whole["mae"]}
        if (first := table["fold"] == "u1").any():
            parts = {"rmse_u1": rating_summary(frame[first])["rmse"], **parts}
        for part, value in parts.items():
            row |= {part: value["mean"], f"{part}_low": value["low"], f"{part}_high": value["high"]}
        rows.append(row)
    board = pd.DataFrame(rows).set_index("model")
    by_seed = np.sqrt((errors.filter(like=", seed ") ** 2).mean())
    board["spread"] = pd.Series({"neural hybrid": by_seed.std()}) if len(by_seed) > 1 else np.nan
    squared = (errors[models] ** 2).groupby(table["user_id"]).mean()
    for base in [name for name in ("shrunk biases", "myFM") if name in models]:
        differences = squared.drop(columns=base).sub(squared[base], axis=0)
        tests = inference.paired_table(differences.to_numpy()).set_index(differences.columns)
        board[f"difference_{base}"], board[f"p_{base}"] = tests["difference"], tests["p_holm"]
    return board.reset_index()


def main(arguments: list[str] | None = None) -> int:
    """Run the protocol and write ``reports/ml-100k/studies/canonical.json``; 1 if a leak check fails."""
    parser = argparse.ArgumentParser(prog="canonical.py", description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4, 5], choices=[1, 2, 3, 4, 5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=None, help="of the hybrid; its default otherwise")
    given = parser.parse_args(arguments)
    data = load_dataset("ml-100k")
    params = {} if given.epochs is None else {"epochs": given.epochs}
    folds = {f"u{k}": measure_fold(data, k, given.seeds, params) for k in given.folds}
    boards = {seen: summary(pd.concat([fold["tables"][seen] for fold in folds.values()])) for seen in SEEN}
    passed = all(finding["passed"] for fold in folds.values() for finding in fold["leak_checks"])
    report = {
        "protocol": "fit on u<k>.base, predict u<k>.test, errors in stars, clipped to the scale",
        "data": {"name": data.name, "sha256": data.sha256},
        "params": NeuralHybrid(**params).params(),
        "seeds": given.seeds,
        "seen": SEEN,
        "published": PUBLISHED,
        "boards": {seen: board.to_dict("records") for seen, board in boards.items()},
        "folds": {k: {name: fold[name] for name in fold if name != "tables"} for k, fold in folds.items()},
    }
    written = write_json(Paths("ml-100k").reports / "studies" / "canonical.json", report)
    for seen, board in boards.items():
        shown = board[[name for name in board if not name.endswith(("_low", "_high"))]].round(4)
        sys.stdout.write(f"\n{seen}: {SEEN[seen]}\n{shown.to_string(index=False)}\n")
    for each in PUBLISHED:
        sys.stdout.write(f"Published: {each['name']} {each['rmse']} on {each['fold']} ({each['saw']})\n")
    sys.stdout.write(f"Leak checks: {'all passed' if passed else 'FAILED, see the report'}. Written: {written}\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
