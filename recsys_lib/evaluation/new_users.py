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


# ---- new users ---------------------------------------------------------------------------------------------------


def shown_films(histories: Histories, size: int, way: str, counts: np.ndarray) -> Histories:
    """Keep ``size`` films of each row.

    Parameters
    ----------
    way : {"first", "last", "known", "liked"}
        Which ones: see ``WAYS``. Ties by the column; without timestamps first and last are the lowest columns.
    counts : ndarray, (n_items,)
        How many people have met each item.

    Raises
    ------
    ValueError
        If there is no such way.

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


def users_with_at_least(task: Task, least: int) -> np.ndarray:
    """People of the task with at least so many films in their history, (n,) int64 places in ``task.users``.

    All points of a curve are about the same people.
    """
    return np.flatnonzero(np.diff(task.histories.indptr) >= least)


def new_user_ndcg(
    model: Recommender, task: Task, people: np.ndarray, size: int | None, *, way: str = "first", k: int = 10
) -> np.ndarray:
    """NDCG@k of people of whom a model sees ``size`` films and no name, (n_people,) float64.

    Whoever cannot be scored gets the most rated items, as :meth:`Recommender.recommend_new` gives them. Everything in
    the history stays out of the lists, shown or not: the questions are the same at every size.

    Parameters
    ----------
    people
        Places in ``task.users``.
    size
        None: the whole history.
    """
    shown = None if size is None else partial(shown_films, size=size, way=way, counts=task.popularity)
    return ndcg_given(model, task, people, shown, k)


def new_user_table(
    models: Mapping[str, Recommender],
    task: Task,
    sizes: tuple[int, ...] = SIZES,
    *,
    ways: tuple[str, ...] = ("first",),
    whole: bool = True,
    k: int = 10,
) -> pd.DataFrame:
    """NDCG@k of every new user, model and number of films.

    Parameters
    ----------
    whole
        Also with the whole history that the task knows, still under no name: size -1.

    Returns
    -------
    DataFrame
        model, way, size, user_id, value: a row a new user; nobody where histories are too short.
    """
    people = users_with_at_least(task, max(*sizes, 1))
    asked = [(way, size) for way in ways for size in sizes] + ([(ways[0], None)] if whole else [])
    parts = [
        pd.DataFrame(
            {
                "model": name,
                "way": way,
                "size": -1 if size is None else size,
                "user_id": task.users[people],
                "value": new_user_ndcg(model, task, people, size, way=way, k=k),
            }
        )
        for name, model in models.items()
        for way, size in asked
        if len(people)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_COLUMNS)


_COLUMNS = ["model", "way", "size", "user_id", "value"]


def curve(values: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Means of a table of :func:`new_user_table` with their intervals: model, way, size, mean, low, high, n_users."""
    keys = ["model", "way", "size"]
    wide = values.pivot(index="user_id", columns=keys, values="value")
    return inference.intervals(wide, resamples=resamples, seed=seed).rename_axis(keys).reset_index()


# ---- people no model has met -------------------------------------------------------------------------------------


def new_users_task(
    split: Split, share: float, shown: int, relevant_from: float, *, seed: int = 0, way: str = "first"
) -> Task:
    """Ask what people whom no model has met liked, beside the first films that they tell of.

    Parameters
    ----------
    share
        Of the people, drawn by chance from those with more than ``shown`` films.
    shown
        Films of each that are their history; all others that they rated, early or late, are asked for.

    Returns
    -------
    Task
        Its history holds those few films, and everything of everybody else; see :func:`without_people`.

    Raises
    ------
    ValueError
        If nobody has more than ``shown`` films.
    """
    history = Interactions.from_frame(split.history)
    codes = np.flatnonzero(np.diff(history.matrix.indptr) > shown)
    if len(codes) == 0:
        raise ValueError(f"nobody has more than {shown} films in the history; show fewer")
    chosen = np.random.default_rng(seed).permutation(codes)[: max(1, round(share * len(codes)))]
    chosen = np.sort(chosen)
    given = shown_films(history.rows(chosen), shown, way, history.item_counts)
    given = Interactions(given.matrix, history.user_ids[chosen], history.item_ids, given.timestamps, history.dated)
    given = given.to_frame()
    own = split.history["user_id"].isin(history.user_ids[chosen])
    asked = split.history[own].merge(given[["user_id", "item_id"]], how="left", indicator=True)
    asked = asked[asked["_merge"] == "left_only"].drop(columns="_merge")
    asked = pd.concat([asked, split.test[split.test["user_id"].isin(history.user_ids[chosen])]], ignore_index=True)
    known = pd.concat([split.history[~own], given[split.history.columns]], ignore_index=True)
    params = {**split.params, "new_users": share, "shown": shown, "way": way, "seed": seed}
    return Task.from_split(Split(known, known.iloc[:0], asked, split.name, params), relevant_from)


def without_people(known: Interactions, people: np.ndarray) -> Interactions:
    """The interactions of everybody else; the catalogue stays the same.

    Parameters
    ----------
    people
        Rows to leave out.
    """
    others = np.setdiff1d(np.arange(known.n_users), people)
    rest = known.rows(others)
    return Interactions(rest.matrix, known.user_ids[others], known.item_ids, rest.timestamps, known.dated)


def fitted_without(
    models: Mapping[str, Recommender], task: Task, tables: Mapping[str, pd.DataFrame]
) -> dict[str, Recommender]:
    """Fresh models of the same parameters, fitted without the people of the task.

    Models that are a mean of several nets are fitted as one net, to save time.
    """
    rest = without_people(task.known, task.codes)
    fitted = {}
    for name, model in models.items():
        again = model.fresh()
        if "n_models" in again.params():
            again.n_models = 1
        if "progress" in again.params():
            again.progress = False
        fitted[name] = again.fit(rest, **tables)
    return fitted
