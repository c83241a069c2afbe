"""How models serve new users: NDCG given none, one or a few of their ratings.

A new user is made of a user of the test part: only some items of the history are shown to the model, under no id, and
what it lists is judged on the user's test part, as in the evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.data.splits import Split
from recsys_lib.evaluation import inference
from recsys_lib.evaluation.task import Task, ndcg_given
from recsys_lib.models.base import Recommender

SIZES = (0, 1, 3, 5, 10)
WAYS = {
    "first": "the first films they rated",
    "last": "the last films they rated",
    "known": "the best known of the films they rated",
    "liked": "the films they rated highest, the best known first",
}


def shown_films(histories: Histories, size: int, way: str, counts: np.ndarray) -> Histories:
    """Keep ``size`` items of each row, chosen as ``WAYS`` says.

    Ties go to the lower column; without timestamps first and last are the lowest columns. ``counts``, (n_items,), says
    how many users have met each item.

    Examples
    --------
    >>> from scipy.sparse import csr_matrix
    >>> histories = Histories(csr_matrix(np.array([[5.0, 3.0, 4.0]])), np.array([20, 10, 30]))
    >>> [shown_films(histories, 1, way, np.array([1, 9, 5])).matrix.indices.tolist() for way in WAYS]
    [[1], [2], [1], [0]]
    """
    if way not in WAYS:
        raise ValueError(f"there is no way {way!r} to choose films; there are {', '.join(WAYS)}")
    matrix, rows = histories.matrix, histories.row_of_entry
    when = np.zeros(matrix.nnz) if histories.timestamps is None else histories.timestamps
    met = -np.asarray(counts)[matrix.indices]
    keys = {"first": (when,), "last": (-when,), "known": (met,), "liked": (met, -matrix.data)}[way]
    return histories.first(size, np.lexsort((matrix.indices, *keys, rows)))


def new_user_table(
    models: Mapping[str, Recommender],
    task: Task,
    sizes: tuple[int, ...] = SIZES,
    *,
    ways: tuple[str, ...] = ("first",),
    whole: bool = True,
    k: int = 10,
) -> pd.DataFrame:
    """NDCG@k of every new user, model and number of items shown.

    Whoever cannot be scored gets the most rated items, as :meth:`Recommender.recommend_new` gives them. Everything in
    the history stays out of the lists, shown or not, and only users with as many items as the largest size take part:
    the questions are the same at every size.

    Parameters
    ----------
    whole
        Also with the whole history that the task knows, still under no name: size -1.

    Returns
    -------
    DataFrame
        model, way, size, user_id, value: a row a new user.
    """
    users = np.flatnonzero(np.diff(task.histories.indptr) >= max(*sizes, 1))
    asked = [(way, size) for way in ways for size in sizes] + ([(ways[0], -1)] if whole else [])
    parts = []
    for name, model in models.items() if len(users) else ():
        for way, size in asked:
            shown = None if size < 0 else partial(shown_films, size=size, way=way, counts=task.popularity)
            values = {"user_id": task.users[users], "value": ndcg_given(model, task, users, shown, k)}
            parts.append(pd.DataFrame({"model": name, "way": way, "size": size, **values}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_COLUMNS)


_COLUMNS = ["model", "way", "size", "user_id", "value"]


def curve(values: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Means of a table of :func:`new_user_table` with their intervals: model, way, size, mean, low, high, n_users."""
    keys = ["model", "way", "size"]
    wide = values.pivot(index="user_id", columns=keys, values="value")
    return inference.intervals(wide, resamples=resamples, seed=seed).rename_axis(keys).reset_index()


def new_users_task(
    split: Split, share: float, shown: int, relevant_from: float, *, seed: int = 0, way: str = "first"
) -> Task:
    """Ask what users whom no model has met liked, beside the few items that they are known by.

    Parameters
    ----------
    share
        Of the users, drawn by chance from those with more than ``shown`` items.
    shown
        Items of each that are their history; all others that they rated, early or late, are asked for.

    Returns
    -------
    Task
        Its history holds those few items, and everything of all other users; :func:`fitted_without` makes models.

    Raises
    ------
    ValueError
        If nobody has more than ``shown`` items.
    """
    history = Interactions.from_frame(split.history)
    codes = np.flatnonzero(np.diff(history.matrix.indptr) > shown)
    if len(codes) == 0:
        raise ValueError(f"nobody has more than {shown} films in the history; show fewer")
    chosen = np.sort(np.random.default_rng(seed).permutation(codes)[: max(1, round(share * len(codes)))])
    ids = history.user_ids[chosen]
    given = shown_films(history.rows(chosen), shown, way, history.item_counts)
    given = Interactions(given.matrix, ids, history.item_ids, given.timestamps, history.dated).to_frame()
    own = split.history["user_id"].isin(ids)
    asked = split.history[own].merge(given[["user_id", "item_id"]], how="left", indicator=True)
    asked = asked[asked["_merge"] == "left_only"].drop(columns="_merge")
    asked = pd.concat([asked, split.test[split.test["user_id"].isin(ids)]], ignore_index=True)
    known = pd.concat([split.history[~own], given[split.history.columns]], ignore_index=True)
    params = {**split.params, "new_users": share, "shown": shown, "way": way, "seed": seed}
    return Task.from_split(Split(known, known.iloc[:0], asked, split.name, params), relevant_from)


def fitted_without(
    models: Mapping[str, Recommender], task: Task, tables: Mapping[str, pd.DataFrame]
) -> dict[str, Recommender]:
    """Fresh models of the same parameters, fitted without the users of the task; the catalogue stays the same.

    Models that are a mean of several nets are fitted as one net, to save time.
    """
    rest = task.known.only(np.setdiff1d(np.arange(task.known.n_users), task.codes))
    fitted = {}
    for name, model in models.items():
        again = model.fresh()
        for parameter, value in (("n_models", 1), ("progress", False)):
            if parameter in again.params():
                setattr(again, parameter, value)
        fitted[name] = again.fit(rest, **tables)
    return fitted
