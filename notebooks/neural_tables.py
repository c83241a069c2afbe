"""Tables of 06_neural_hybrid: errors by rating and genre, importance of inputs, the ablation's results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import Histories
from recsys_lib.evaluation.inference import intervals
from recsys_lib.evaluation.metrics.ranking import judge, ndcg
from recsys_lib.evaluation.metrics.rating import predictions, rmse
from recsys_lib.evaluation.task import Task, lists_given, mean_ndcg, rating_summary
from recsys_lib.files import read_json
from recsys_lib.models import NeuralHybrid, Recommender
from recsys_lib.models.neural.serving import rating_pairs
from recsys_lib.paths import REPOSITORY, Paths

STUDY = "neural_study.json"  # what `make neural-study` writes to the reports of a data set
SHUFFLED = 100_000  # rows of which the importance of inputs is measured, at most


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
    """RMSE by genre with its 95% interval, worst first; a film counts in each of its genres.

    Returns
    -------
    DataFrame
        genre, n (ratings; those with under ``least`` are left out), rmse, rmse_low, rmse_high (stars; over users).
    """
    genres = items[["item_id", "genres"]].explode("genres").dropna().rename(columns={"genres": "genre"})
    rows = []
    for genre, part in judged.merge(genres, on="item_id").groupby("genre"):
        if len(part) >= least:
            error = rating_summary(part)["rmse"]
            ends = {f"rmse_{end}": error[end] for end in ("low", "high")}
            rows.append({"genre": genre, "n": len(part), "rmse": error["mean"], **ends})
    table = pd.DataFrame(rows, columns=["genre", "n", "rmse", "rmse_low", "rmse_high"])
    return table.sort_values("rmse", ascending=False, ignore_index=True)


def by_known_films(model: Recommender, task: Task, counts: Iterable[int]) -> pd.DataFrame:
    """NDCG@10 of lists for histories cut to so many ratings: model, size, mean, low, high, n_users.

    The last ones are kept; the lists leave out everything the user had rated, given or not.
    """
    everybody = np.arange(len(task.users))
    lists = {count: lists_given(model, task, everybody, partial(Histories.first, size=count)) for count in counts}
    values = pd.DataFrame({count: ndcg(judge(codes, task.relevant), 10) for count, codes in lists.items()})
    return intervals(values).rename_axis("size").reset_index().assign(model="neural_ranker")


def feature_importance(model: NeuralHybrid, frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """How much worse the RMSE gets when one input's values change places between rows.

    Permutation importance (Breiman, "Random forests", 2001) of the dense features and of both vectors, on at most
    :data:`SHUFFLED` rows drawn by chance.

    Returns
    -------
    DataFrame
        input, rise (stars), rise_low, rise_high (95%, over users, of this shuffle); the largest first.
    """
    frame = frame.sample(SHUFFLED, random_state=seed) if len(frame) > SHUFFLED else frame
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
    squared = (rating_pairs(state, u, v, dense) - target) ** 2
    errors = pd.DataFrame({name: (rating_pairs(state, *inputs) - target) ** 2 for name, inputs in shuffled.items()})
    # a rise of the mean square over the sum of both roots is the rise of the root
    both = np.sqrt(errors.mean()) + np.sqrt(squared.mean())
    by_user = errors.sub(squared, axis=0).groupby(frame["user_id"].to_numpy()).sum()
    rise = intervals(by_user * len(by_user) / len(frame))[["mean", "low", "high"]].div(both, axis=0)
    rise = rise.set_axis(["rise", "rise_low", "rise_high"], axis=1).rename_axis("input").reset_index()
    return rise.sort_values("rise", ascending=False, ignore_index=True)


def read_study(paths: Paths, sha256: str) -> dict[str, Any] | None:
    """The ablation of this very data, or None; from the run's reports, or else the committed ones."""
    for folder in (paths.reports, REPOSITORY / "reports" / paths.name):
        if (folder / STUDY).is_file():
            report = read_json(folder / STUDY)
            if report["data"]["sha256"] == sha256:
                return report
    return None
