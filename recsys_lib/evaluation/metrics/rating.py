"""Errors of predicted ratings, in the data's own units (stars)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recsys_lib.models.base import Recommender


def rmse(errors: np.ndarray) -> float:
    """Root of the mean squared error, over rows.

    >>> rmse(np.array([3.0, -4.0]))
    3.5355339059327378
    """
    return float(np.sqrt(np.mean(np.square(errors, dtype=np.float64))))


def mae(errors: np.ndarray) -> float:
    """Mean absolute error, over rows.

    >>> mae(np.array([3.0, -4.0]))
    3.5
    """
    return float(np.mean(np.abs(errors, dtype=np.float64)))


def sums(frame: pd.DataFrame) -> pd.DataFrame:
    """Per user: rows, sum of squared and of absolute errors; index user_id."""
    parts = pd.DataFrame({"user_id": frame["user_id"], "rows": 1.0, "squared": frame["error"] ** 2})
    parts["absolute"] = frame["error"].abs()
    return parts.groupby("user_id", sort=True).sum()


def per_user(frame: pd.DataFrame) -> pd.DataFrame:
    """RMSE and MAE of each user (user_id, rmse_user, mae_user) from the error of each rating, predicted minus given.

    >>> per_user(pd.DataFrame({"user_id": [1, 1, 2], "error": [3.0, -4.0, 1.0]}))["mae_user"].tolist()
    [3.5, 1.0]
    """
    added = sums(frame)
    table = {"rmse_user": np.sqrt(added["squared"] / added["rows"]), "mae_user": added["absolute"] / added["rows"]}
    return pd.DataFrame(table).reset_index()


def predictions(model: Recommender, frame: pd.DataFrame) -> pd.DataFrame:
    """Predict the rating of each row at its own time: the frame with ``predicted`` and ``error``, in stars."""
    when = frame["timestamp"].to_numpy() if "timestamp" in frame else None
    predicted = model.predict(frame["user_id"].to_numpy(), frame["item_id"].to_numpy(), when)
    return frame.assign(predicted=predicted, error=predicted - frame["rating"].to_numpy(np.float64))


def bias_predictions(history: pd.DataFrame, asked: pd.DataFrame) -> np.ndarray:
    """Mean + the film's shrunk deviation + the user's from it, (n,) float64: what any model has to beat.

    Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems" (2009), equation 4; each
    deviation is pulled to zero as if by five ratings. Clipped to the ratings seen.

    >>> seen = pd.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "rating": [5.0, 3.0]})
    >>> bias_predictions(seen, pd.DataFrame({"user_id": [9, 9], "item_id": [1, 7]})).round(3)
    array([4.167, 4.   ])
    """
    mean = history["rating"].astype(np.float64).mean()
    predicted = np.full(len(asked), mean)
    rest = history["rating"].to_numpy(np.float64) - mean
    for column in ("item_id", "user_id"):
        grouped = pd.Series(rest).groupby(history[column].to_numpy())
        deviation = grouped.sum() / (grouped.size() + 5.0)
        rest = rest - deviation.reindex(history[column]).to_numpy()
        predicted += deviation.reindex(asked[column]).fillna(0).to_numpy()
    return np.clip(predicted, history["rating"].min(), history["rating"].max())
