"""Tables of 06_neural_hybrid: errors by rating and genre, calibration, importance of inputs, the ablation's results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import Histories
from recsys_lib.evaluation.metrics.ranking import judge, ndcg
from recsys_lib.evaluation.metrics.rating import predictions, rmse
from recsys_lib.evaluation.task import Task, lists_given, mean_ndcg
from recsys_lib.files import read_json
from recsys_lib.models import NeuralHybrid, Recommender
from recsys_lib.models.neural.serving import rating_pairs
from recsys_lib.paths import REPOSITORY, Paths

STUDY = "neural_study.json"  # what `make neural-study` writes to the reports of a data set


def rating_error(frame: pd.DataFrame) -> Callable[[Recommender], float]:
    """``model -> RMSE`` on these ratings, for validation curves."""
    return lambda model: rmse(predictions(model, frame)["error"].to_numpy())


def ranking_error_of(task: Task) -> Callable[[Recommender], float]:
    """``model -> 1 - NDCG@10`` on a task made before."""
    return lambda model: 1 - mean_ndcg(model, task, 10)


def _rmse_of(errors: pd.Series) -> float:
    return rmse(errors.to_numpy())


def errors_by_rating(judged: pd.DataFrame) -> pd.DataFrame:
    """Mean prediction and error by the rating that was given: rating, n, predicted, bias, rmse (stars)."""
    columns = {"n": ("error", "size"), "predicted": ("predicted", "mean"), "bias": ("error", "mean")}
    return judged.groupby("rating").agg(**columns, rmse=("error", _rmse_of)).reset_index()


def errors_by_genre(judged: pd.DataFrame, items: pd.DataFrame, least: int = 50) -> pd.DataFrame:
    """Bias and RMSE by genre, worst first; a film counts in each of its genres; under ``least`` ratings left out."""
    genres = items[["item_id", "genres"]].explode("genres").dropna().rename(columns={"genres": "genre"})
    errors = judged.merge(genres, on="item_id").groupby("genre")["error"]
    table = errors.agg(n="size", bias="mean", rmse=_rmse_of)
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


def by_known_films(model: Recommender, task: Task, counts: Iterable[int]) -> pd.DataFrame:
    """NDCG@10 of lists for histories cut to so many ratings: films, ndcg@10.

    The last ones are kept; the lists leave out everything the user had rated, given or not.
    """
    everybody = np.arange(len(task.users))
    lists = [lists_given(model, task, everybody, partial(Histories.first, size=count)) for count in counts]
    values = [ndcg(judge(codes, task.relevant), 10).mean() for codes in lists]
    return pd.DataFrame({"films": list(counts), "ndcg@10": values})


def feature_importance(model: NeuralHybrid, frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """How much worse the RMSE gets when one input's values change places between rows: input, rise (stars).

    Permutation importance (Breiman, "Random forests", 2001) of the dense features and of both vectors.
    """
    users, items = model.catalogue.codes(frame["user_id"], frame["item_id"])
    when = frame["timestamp"].to_numpy() if "timestamp" in frame else None
    dense, state = model.features.pairs(users, items, when), model.states[0]
    u, v, user_bias, item_bias = model.pair_vectors(state, users, items)
    target = frame["rating"].to_numpy(np.float64) - model.features.mean - user_bias - item_bias
    order = np.random.default_rng(seed).permutation(len(frame))
    shuffled = {"the user's vector": (u[order], v, dense), "the item's vector": (u, v[order], dense)}
    for column, name in enumerate(model.features.names()):
        changed = dense.copy()
        changed[:, column] = dense[order, column]
        shuffled[name] = u, v, changed
    whole = rmse(rating_pairs(state, u, v, dense) - target)
    rows = [(name, rmse(rating_pairs(state, *inputs) - target) - whole) for name, inputs in shuffled.items()]
    return pd.DataFrame(rows, columns=["input", "rise"]).sort_values("rise", ascending=False, ignore_index=True)


def read_study(paths: Paths, sha256: str) -> dict[str, Any] | None:
    """The ablation of this very data, or None; from the run's reports, or else the committed ones."""
    for folder in (paths.reports, REPOSITORY / "reports" / paths.name):
        if (folder / STUDY).is_file():
            report = read_json(folder / STUDY)
            if report["data"]["sha256"] == sha256:
                return report
    return None
