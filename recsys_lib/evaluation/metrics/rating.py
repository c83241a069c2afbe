"""Errors of predicted ratings, in the data's own units (stars)."""

from __future__ import annotations

import numpy as np
import pandas as pd


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
    """Per person: rows, sum of squared and of absolute errors; index user_id."""
    parts = pd.DataFrame({"user_id": frame["user_id"], "rows": 1.0, "squared": frame["error"] ** 2})
    parts["absolute"] = frame["error"].abs()
    return parts.groupby("user_id", sort=True).sum()


def per_person(frame: pd.DataFrame) -> pd.DataFrame:
    """RMSE and MAE of each person.

    Parameters
    ----------
    frame
        user_id, error (predicted minus given), a row a rating.

    Returns
    -------
    DataFrame
        user_id, rmse_user, mae_user.

    Examples
    --------
    >>> per_person(pd.DataFrame({"user_id": [1, 1, 2], "error": [3.0, -4.0, 1.0]}))["mae_user"].tolist()
    [3.5, 1.0]
    """
    added = sums(frame)
    table = {"rmse_user": np.sqrt(added["squared"] / added["rows"]), "mae_user": added["absolute"] / added["rows"]}
    return pd.DataFrame(table).reset_index()
