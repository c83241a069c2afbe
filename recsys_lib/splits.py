"""How interactions are divided into train, validation and test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Split:
    """Three tables that share no pair of user and item.

    Attributes
    ----------
    train, valid, test : DataFrame
        user_id, item_id, rating and, where known, timestamp.
    name
        Which way of splitting, such as ``"temporal_user"``.
    params
        Its arguments.
    """

    train: pd.DataFrame
    valid: pd.DataFrame
    test: pd.DataFrame
    name: str
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def history(self) -> pd.DataFrame:
        """Everything before the test: train and validation together."""
        return pd.concat([self.train, self.valid], ignore_index=True)

    def for_validation(self) -> Split:
        """The same people one step earlier: train as history, validation as test. The test part is not in it."""
        return Split(self.train, self.valid.iloc[:0], self.valid, name=self.name, params={**self.params, "on": "valid"})

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value}" for name, value in self.params.items())
        return f"Split({self.name}({given}): train {len(self.train):,}, valid {len(self.valid):,}, test {len(self.test):,})"


def _tie_breaker(frame: pd.DataFrame) -> np.ndarray:
    """Return a number for each row that depends on its pair (user, item) alone, (n,) uint64."""
    return pd.util.hash_pandas_object(frame[["user_id", "item_id"]], index=False).to_numpy()


def temporal_user(interactions: pd.DataFrame, *, test: float = 0.2, valid: float = 0.1) -> Split:
    """Cut each person's own history in time: the last part is test, the part before it validation.

    A person with n interactions gives floor(test * n) to the test and floor(valid * n) to the validation.
    Equal timestamps of a person are put in the order of a hash of (user_id, item_id): the same on every machine
    and for every order of the rows, and without relation to popularity (ml-100k's low item ids are popular ones).

    Other people's future is in everybody's training part by construction, which flatters models that learn from
    co-occurrence; :func:`temporal_global` has none of it.

    Raises
    ------
    ValueError
        If the interactions have no timestamps, or the shares leave nothing to train on.

    Examples
    --------
    >>> frame = pd.DataFrame({"user_id": 1, "item_id": range(10), "rating": 3.0, "timestamp": range(10)})
    >>> split = temporal_user(frame)
    >>> split.test["item_id"].tolist(), split.valid["item_id"].tolist()
    ([8, 9], [7])
    """
    if "timestamp" not in interactions:
        raise ValueError("temporal_user needs timestamps, and the interactions have none; use random or leave_one_out")
    if not (0 < test < 1 and 0 <= valid < 1 and test + valid < 1):
        raise ValueError(f"test={test} and valid={valid} must be shares that leave something to train on")
    ordered = interactions.assign(_tie=_tie_breaker(interactions)).sort_values(["user_id", "timestamp", "_tie"])
    place = ordered.groupby("user_id").cumcount().to_numpy()
    size = ordered.groupby("user_id")["item_id"].transform("size").to_numpy()
    n_test, n_valid = np.floor(test * size), np.floor(valid * size)
    part = np.where(place >= size - n_test, 2, np.where(place >= size - n_test - n_valid, 1, 0))
    ordered = ordered.drop(columns="_tie")
    parts = [ordered[part == code].sort_index().reset_index(drop=True) for code in range(3)]
    return Split(*parts, name="temporal_user", params={"test": test, "valid": valid})
