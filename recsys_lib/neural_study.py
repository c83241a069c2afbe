"""What 06 asks of the neural models: curves by epoch, errors by rating and genre, what each part is worth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from recsys_lib.evaluation import Task, mean_ndcg
from recsys_lib.metrics.rating import rmse
from recsys_lib.models.base import Recommender
from recsys_lib.splits import Split


def predictions(model: Recommender, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with ``predicted`` and ``error`` (predicted minus given), in stars, each rating at its own time."""
    when = frame["timestamp"].to_numpy() if "timestamp" in frame else None
    predicted = model.predict(frame["user_id"].to_numpy(), frame["item_id"].to_numpy(), when)
    return frame.assign(predicted=predicted, error=predicted - frame["rating"].to_numpy(np.float64))


def rating_error(frame: pd.DataFrame) -> Callable[[Recommender], float]:
    """``model -> RMSE`` on these ratings, for validation curves."""
    return lambda model: rmse(predictions(model, frame)["error"].to_numpy())


def ranking_error(split: Split, relevant_from: float) -> Callable[[Recommender], float]:
    """``model -> 1 - NDCG@10`` on the test part of a split (pass ``split.for_validation()``), for validation curves."""
    task = Task.from_split(split, relevant_from)
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
