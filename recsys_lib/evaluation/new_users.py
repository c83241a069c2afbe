"""Evaluate models on new users: NDCG given none, one or a few of their ratings.

A new user is made of a user of the test part: only some items of the history are shown to the model, under no id, and
what it lists is judged on the user's test part, as in the evaluation. Which items are shown is drawn by chance: the
first ones that a user rated in MovieLens are what the site listed first, and say more of the site than of the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.data.catalogue import genre_matrix, readable_title
from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.data.splits import Split
from recsys_lib.evaluation import inference
from recsys_lib.evaluation.metrics import ranking
from recsys_lib.evaluation.task import Task, lists_given, some_of
from recsys_lib.models.base import Recommender

SIZES = (0, 1, 3, 5, 10)
TASTES = ("Animation", "Horror", "Western", "Musical")
DECADES = (1940,)
WAYS = {
    "any": "films of theirs drawn by chance",
    "first": "the first films they rated",
    "last": "the last films they rated",
    "known": "the best known of the films they rated",
    "liked": "the films they rated highest, the best known first",
}


def shown_films(histories: Histories, size: int, way: str, counts: np.ndarray, *, seed: int = 0) -> Histories:
    """Keep ``size`` items of each row, chosen as ``WAYS`` says.

    Ties go to the lower column; without timestamps first and last are the lowest columns. ``counts``, (n_items,), says
    how many users have met each item.

    >>> from scipy.sparse import csr_matrix
    >>> histories = Histories(csr_matrix(np.array([[5.0, 3.0, 4.0]])), np.array([20, 10, 30]))
    >>> [shown_films(histories, 1, way, np.array([1, 9, 5])).matrix.indices.tolist() for way in WAYS]
    [[2], [1], [2], [1], [0]]
    """
    if way not in WAYS:
        raise ValueError(f"there is no way {way!r} to choose films; there are {', '.join(WAYS)}")
    matrix, rows = histories.matrix, histories.row_of_entry
    when = np.zeros(matrix.nnz) if histories.timestamps is None else histories.timestamps
    met = -np.asarray(counts)[matrix.indices]
    chance = np.random.default_rng(seed).random(matrix.nnz)
    keys = {"any": (chance,), "first": (when,), "last": (-when,), "known": (met,), "liked": (met, -matrix.data)}[way]
    return histories.first(size, np.lexsort((matrix.indices, *keys, rows)))


def new_user_table(
    models: Mapping[str, Recommender],
    task: Task,
    sizes: tuple[int, ...] = SIZES,
    *,
    ways: tuple[str, ...] = ("any",),
    whole: bool = True,
    draws: int = 1,
    k: int = 10,
) -> pd.DataFrame:
    """NDCG@k of every new user, model and number of items shown, and how much of what is shown the list reflects.

    Whoever cannot be scored gets the most rated items, as :meth:`Recommender.recommend_new` gives them. Everything in
    the history stays out of the lists, shown or not, and only users with as many items as the largest size take part:
    the questions are the same at every size.

    ``whole``: also with the whole history that the task knows, still under no name: size -1. ``draws``: how often items
    are drawn by chance; values are means over the draws.

    Columns: model, way, size, user_id, value, reflected; a row a new user. ``reflected`` is the share of the list that
    has a genre of what was shown; NaN where nothing was or the model knows no genres.
    """
    users = some_of(np.flatnonzero(np.diff(task.histories.indptr) >= max(*sizes, 1)))
    asked = [(way, size) for way in ways for size in sizes] + ([(ways[0], -1)] if whole else [])
    parts = []
    for name, model in models.items() if len(users) else ():
        for way, size, seed in ((*each, seed) for seed in range(draws) for each in asked):
            shown = None if size < 0 else partial(shown_films, size=size, way=way, counts=task.popularity, seed=seed)
            codes = lists_given(model, task, users, shown, k)
            values = {"value": ranking.ndcg(ranking.judge(codes, task.relevant[users]), k), "reflected": np.nan}
            if model.genres is not None and size != 0:
                given = task.served.rows(task.codes[users])
                values["reflected"] = _reflected(codes, (given if size < 0 else shown(given)).matrix, model.genres)
            values["user_id"] = task.users[users]
            parts.append(pd.DataFrame({"model": name, "way": way, "size": size, **values}))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_COLUMNS)
    return table if draws == 1 else table.groupby(_COLUMNS[:4], as_index=False, sort=False).mean()


_COLUMNS = ["model", "way", "size", "user_id", "value", "reflected"]


def _reflected(codes: np.ndarray, given: csr_matrix, genres: np.ndarray) -> np.ndarray:
    """Share of each list that has a genre of what was given, (n,) float64."""
    alike = (given.astype(bool).astype(np.float32) @ genres) @ genres.T > 0
    return (np.take_along_axis(alike, np.maximum(codes, 0), axis=1) & (codes >= 0)).sum(axis=1) / codes.shape[1]


def tastes(models: Mapping[str, Recommender], items: pd.DataFrame, *, k: int = 10) -> pd.DataFrame:
    """Share of a new user's list that is of the kind of the films given: the five best known ones of one kind.

    Kinds are the genres of ``TASTES`` and the ``DECADES`` that the data has at least 15 films of.

    Columns: taste, given (titles), and a column a model: the share of its k films, 0 to 1.
    """
    train, rows = next(iter(models.values())).train, []
    table, (flags, genres) = items.set_index("item_id").reindex(train.item_ids), genre_matrix(items, train.item_ids)
    kinds = {name: flags[:, place] > 0 for place, name in enumerate(genres) if name in TASTES}
    kinds |= {f"{decade}s": (table["year"] // 10 * 10).eq(decade).fillna(False).to_numpy(bool) for decade in DECADES}
    for taste, kind in kinds.items():
        if kind.sum() < 15:
            continue
        best = train.item_ids[np.argsort(-train.item_counts * kind, kind="stable")[:5]]
        lists = {name: train.item_codes(model.recommend_new(best, k)["item_id"]) for name, model in models.items()}
        shares = {name: kind[codes].mean() for name, codes in lists.items()}
        rows.append({"taste": taste, "given": "; ".join(map(readable_title, table.loc[best, "title"])), **shares})
    return pd.DataFrame(rows, columns=["taste", "given", *models])


def steps(values: pd.DataFrame, model: str, others: tuple[str, ...], *, resamples: int = 1000) -> pd.DataFrame:
    """A model's means by size, and its paired differences to the size before and to other models, with intervals.

    ``values`` is from :func:`new_user_table`, with one way to choose the items. A row a size; columns "ndcg", "the size
    before" and the others' names, each with mean, low, high.
    """
    wide = values[values["size"] >= 0].pivot(index="user_id", columns=["model", "size"], values="value")
    own = wide[model].sort_index(axis=1)
    parts = {"ndcg": own, "the size before": own.diff(axis=1).iloc[:, 1:]} | {name: own - wide[name] for name in others}
    return pd.concat(
        {name: inference.intervals(part, resamples=resamples)[["mean", "low", "high"]] for name, part in parts.items()},
        axis=1,
    )


def curve(values: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Means of a table of :func:`new_user_table` with their intervals: model, way, size, mean, low, high, n_users."""
    keys = ["model", "way", "size"]
    wide = values.pivot(index="user_id", columns=keys, values="value")
    return inference.intervals(wide, resamples=resamples, seed=seed).rename_axis(keys).reset_index()


def new_users_task(split: Split, share: float, shown: int, relevant_from: float, *, seed: int = 0) -> Task:
    """Ask what users whom no model has met liked, beside the few items that they are known by.

    ``share`` of the users are drawn by chance from those with more than ``shown`` items (ValueError if nobody has). So
    many items of each are their history; all others that they rated, early or late, are asked for. The history of the
    task holds those few items, and everything of all other users, for :func:`.refits.fitted_without`.
    """
    history = Interactions.from_frame(split.history)
    codes = np.flatnonzero(np.diff(history.matrix.indptr) > shown)
    if len(codes) == 0:
        raise ValueError(f"nobody has more than {shown} films in the history; show fewer")
    chosen = np.sort(np.random.default_rng(seed).permutation(codes)[: max(1, round(share * len(codes)))])
    ids = history.user_ids[chosen]
    given = shown_films(history.rows(chosen), shown, "any", history.item_counts)
    given = Interactions(given.matrix, ids, history.item_ids, given.timestamps, history.dated).to_frame()
    own = split.history["user_id"].isin(ids)
    asked = split.history[own].merge(given[["user_id", "item_id"]], how="left", indicator=True)
    asked = asked[asked["_merge"] == "left_only"].drop(columns="_merge")
    asked = pd.concat([asked, split.test[split.test["user_id"].isin(ids)]], ignore_index=True)
    known = pd.concat([split.history[~own], given[split.history.columns]], ignore_index=True)
    params = {**split.params, "new_users": share, "shown": shown, "seed": seed}
    return Task.from_split(Split(known, known.iloc[:0], asked, split.name, params), relevant_from)
