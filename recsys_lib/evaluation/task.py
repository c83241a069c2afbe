"""Evaluate models: the protocol, per-user metrics, means, intervals, paired tests.

The protocol: the whole catalogue is ranked, items of the user's history are left out, ties go to the lower item code,
relevant is what was rated from a threshold on, and users with nothing relevant in the test part are left out and
counted. Relevant items outside the catalogue (no user of the history has them) stay relevant.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd

from recsys_lib.data.catalogue import genre_matrix
from recsys_lib.data.interactions import Histories, Interactions, as_ids, codes_of, relevance_threshold
from recsys_lib.data.splits import Split, same_sitting
from recsys_lib.evaluation import inference
from recsys_lib.evaluation.metrics import beyond_accuracy, ranking, rating
from recsys_lib.models.base import Recommender
from recsys_lib.models.lists import merge_twins as one_of_twins
from recsys_lib.models.lists import top_k

KS = (5, 10, 20)
BLOCK = 1024  # people scored at once, so that memory does not grow with their number
MAIN = "ndcg@10"
CUSTOMARY = 4.0  # the threshold on MovieLens, about which nobody needs a warning
BEYOND_AT = 10  # length of the lists that the metrics beyond accuracy look at
DIMENSIONS = 32  # of the embedding that says how alike two items are


class NothingRelevantError(ValueError):
    """The test part holds nothing that counts as relevant."""


@dataclass(frozen=True)
class Task:
    """What models are evaluated on: users, the histories they are served with, relevant items.

    Making one takes a moment on large data, so those who evaluate many models on one split make it once.

    Attributes
    ----------
    known : Interactions
        The history that every model must have been fitted on.
    test : DataFrame
        The test part; of implicit feedback without a rating column.
    users : ndarray, (n_users,)
        People with something relevant in the test part, ascending.
    items : ndarray, (n_items,)
        Item ids behind the columns of ``relevant``: the catalogue, then relevant items outside it.
    relevant : csr_matrix, (n_users, n_items) float64
        Stored entries are relevant; the value is the worth for graded NDCG, 1 at the threshold.
    relevant_from : float or None
        The threshold; None for implicit feedback, where everything is relevant.
    protocol : dict
        What has to stand beside every result.
    content : DataFrame or None
        The table of items, for what needs genres.
    served : Interactions
        The histories that models are given when they list: ``known``, or more than that (:meth:`later_sittings`).
        Users and items are those of ``known``.
    """

    known: Interactions
    test: pd.DataFrame
    users: np.ndarray
    items: np.ndarray
    relevant: csr_matrix
    relevant_from: float | None
    protocol: dict[str, Any] = field(default_factory=dict)
    content: pd.DataFrame | None = None
    served: Interactions = None

    def __post_init__(self) -> None:
        if self.served is None:
            object.__setattr__(self, "served", self.known)

    @classmethod
    def from_split(cls, split: Split, relevant_from: float | None = None, *, items: pd.DataFrame | None = None) -> Task:
        """Make the task of a split; ``items`` is the table with genres, for metrics that need them.

        ``relevant_from=None`` takes :func:`recsys_lib.data.interactions.relevance_threshold` of the history's ratings,
        and warns where that is not 4.

        Raises
        ------
        ValueError
            If the test part is empty, or nobody has anything relevant in it.
        """
        history, test = split.history, split.test
        if len(test) == 0:
            raise ValueError("the test part of the split is empty: read it with read_prepared(paths, test=True)")
        implicit = "rating" not in history or (history["rating"].nunique() == 1 and test["rating"].nunique() == 1)
        known = Interactions.from_frame(history)
        test = test.drop(columns="rating", errors="ignore") if implicit else test
        if relevant_from is None and not implicit:
            relevant_from = relevance_threshold(known.matrix.data)
            if relevant_from != CUSTOMARY:
                low, high = known.matrix.data.min(), known.matrix.data.max()
                warnings.warn(
                    f"relevant is a rating of {relevant_from:g} or higher, because ratings go from {low:g} to "
                    f"{high:g}; relevant_from= sets another threshold",
                    stacklevel=3,
                )
        about = {"split": {"name": split.name, "params": split.params}}
        return cls._of(known, known, test, None if implicit else relevant_from, about, items)

    @classmethod
    def _of(
        cls,
        known: Interactions,
        served: Interactions,
        test: pd.DataFrame,
        relevant_from: float | None,
        about: dict[str, Any],
        items: pd.DataFrame | None,
    ) -> Task:
        """Make a task of a test part; ``about`` begins its protocol."""
        rated = "rating" in test and relevant_from is not None
        chosen = test[test["rating"] >= relevant_from] if rated else test
        if len(chosen) == 0:
            threshold = "" if relevant_from is None else f" rated {relevant_from} or higher; lower relevant_from"
            raise NothingRelevantError(f"nothing in the test part is{threshold or ' left'}")
        worth = chosen["rating"] - relevant_from + 1.0 if rated and relevant_from else np.ones(len(chosen))
        outside = np.setdiff1d(as_ids(chosen["item_id"]), known.item_ids)
        columns = np.concatenate([known.item_ids, outside])
        users, relevant = _relevant(chosen, np.asarray(worth, np.float64), known.item_ids, outside)
        protocol = about | _protocol(test, known, served, users, relevant, relevant_from)
        return cls(known, test, users, columns, relevant, relevant_from, protocol, items, served)

    def later_sittings(self, gap: str = "1h") -> Task:
        """The return visit: relevant are items of later sittings, and the history served reaches up to them.

        Rows of the test part that belong to the sitting in which the user's history ends become history that models
        are served with. Models stay fitted on ``known``, so that those of the leaderboard are evaluated as they are.
        Users without a history, or without anything relevant in a later sitting, are left out.

        Parameters
        ----------
        gap
            Two interactions of a user with a longer pause between them belong to different sittings.

        Raises
        ------
        ValueError
            If there are no timestamps.
        NothingRelevantError
            If nobody has anything relevant in a later sitting.
        """
        same, later = self._sittings(gap)
        rows = same if "rating" in same or not len(same) else same.assign(rating=self.known.matrix.data[0])
        frame = self.known.to_frame()
        served = pd.concat([frame, rows[frame.columns]], ignore_index=True) if len(rows) else frame
        served = Interactions.from_frame(served, user_ids=self.known.user_ids, item_ids=self.known.item_ids)
        about = {"split": self.protocol["split"], "sittings": {"which": "later", "gap": gap}}
        return self._of(self.known, served, later, self.relevant_from, about, self.content)

    def same_sitting(self, gap: str = "1h") -> Task:
        """The rest of the sitting in which the user's history ends; the complement of :meth:`later_sittings`."""
        about = {"split": self.protocol["split"], "sittings": {"which": "same", "gap": gap}}
        return self._of(self.known, self.known, self._sittings(gap)[0], self.relevant_from, about, self.content)

    def _sittings(self, gap: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Rows of the test part in the sitting where the history ends, and in later ones."""
        test = self.test[self.known.user_codes(self.test["user_id"]) >= 0]
        same = same_sitting(self.known.to_frame(), test, gap)
        return test[same], test[~same]

    @property
    def n_relevant(self) -> np.ndarray:
        """Relevant items of each person, (n_users,) int64."""
        return np.diff(self.relevant.indptr).astype(np.int64)

    @cached_property
    def codes(self) -> np.ndarray:
        """Row of each user in ``known``, -1 for those without a history."""
        return self.known.user_codes(self.users)

    @cached_property
    def histories(self) -> csr_matrix:
        """The history that each user is served with, (n_users, n_catalogue)."""
        return self.served.rows(self.codes).matrix

    @cached_property
    def popularity(self) -> np.ndarray:
        """How many people of the history have met each item, (n_catalogue,) int64."""
        return self.known.matrix.getnnz(axis=0)

    @cached_property
    def genres(self) -> tuple[np.ndarray, list[str]] | None:
        """Genres of the catalogue as zeros and ones, (n_catalogue, n_genres), with their names; None without such."""
        matrix, names = genre_matrix(self.content, self.known.item_ids)
        return (matrix.astype(np.float64), names) if names else None

    @cached_property
    def embedding(self) -> np.ndarray:
        """Vectors whose cosine says how alike two items' audiences are, (n_catalogue, d); the same for all models.

        Right singular vectors of the history (who met what, people of unit length), scaled by their values.
        """
        seen = normalize(csr_matrix((np.ones(self.known.matrix.nnz), *_structure(self.known.matrix))))
        d = min(DIMENSIONS, min(seen.shape) - 1)
        if d < 1:
            return np.ones((self.known.n_items, 1))
        _, values, vectors = randomized_svd(seen, d, random_state=0)
        return (vectors * values[:, None]).T

    @cached_property
    def expected(self) -> np.ndarray:
        """What plain popularity would show each person, (n_users, BEYOND_AT) codes."""
        place = np.empty(self.known.n_items, np.float32)  # without ties, which would have to be sorted out row by row
        place[np.argsort(-self.popularity, kind="stable")] = -np.arange(self.known.n_items)
        blocks = []
        for start in range(0, len(self.users), BLOCK):
            seen = self.histories[start : start + BLOCK]
            scores = np.broadcast_to(place, seen.shape)
            blocks.append(top_k(scores, BEYOND_AT, exclude=seen)[0])
        return np.concatenate(blocks)


def _structure(matrix: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    return matrix.indices, matrix.indptr


def _relevant(
    chosen: pd.DataFrame, worth: np.ndarray, catalogue: np.ndarray, outside: np.ndarray
) -> tuple[np.ndarray, csr_matrix]:
    """People and their relevant items as a matrix; columns are the catalogue's, then those outside it."""
    users, rows = np.unique(as_ids(chosen["user_id"]), return_inverse=True)
    columns = codes_of(chosen["item_id"], catalogue)
    columns = np.where(columns >= 0, columns, len(catalogue) + codes_of(chosen["item_id"], outside))
    shape = (len(users), len(catalogue) + len(outside))
    relevant = csr_matrix((worth, (rows, columns)), shape=shape)
    relevant.sort_indices()
    return users, relevant


def _protocol(
    test: pd.DataFrame,
    known: Interactions,
    served: Interactions,
    users: np.ndarray,
    relevant: csr_matrix,
    threshold: float | None,
) -> dict[str, Any]:
    """What has to stand beside every result."""
    n_relevant = np.diff(relevant.indptr)
    asked = test["user_id"].nunique()
    unseen = relevant.indices >= known.n_items
    stamp = hashlib.sha256()
    histories = [known] if served is known else [known, served]
    parts = [part for each in histories for part in (each.matrix.indptr, each.matrix.indices)]
    for part in (*parts, relevant.indptr, relevant.indices, relevant.data):
        stamp.update(np.ascontiguousarray(part).tobytes())
    stamp.update("\n".join(map(str, users)).encode())
    return {
        "relevant_from": threshold,
        "catalogue": known.n_items,
        "people_in_test": int(asked),
        "people_kept": len(users),
        "people_dropped": int(asked - len(users)),
        "people_without_history": int((known.user_codes(users) < 0).sum()),
        "relevant": int(relevant.nnz),
        "relevant_per_person": {"mean": float(n_relevant.mean()), "median": float(np.median(n_relevant))},
        "relevant_outside_catalogue": float(unseen.mean()),
        "seen_excluded": True,
        "sampled": False,
        "ties": "lower item code first",
        "twins": "one of several ids with the same title and year is listed",
        "precision_divisor": "k",
        "ndcg_ideal": "min(k, relevant)",
        "map_divisor": "min(k, relevant)",
        "fingerprint": stamp.hexdigest()[:16],
    }


def ceilings(n_relevant: np.ndarray, ks: Iterable[int]) -> dict[str, float]:
    """The best mean precision@k and recall@k that any list could reach.

    >>> ceilings(np.array([1, 10]), [5])
    {'precision@5': 0.6, 'recall@5': 0.75}
    """
    best = {f"precision@{k}": float(np.mean(np.minimum(n_relevant, k) / k)) for k in ks}
    return best | {f"recall@{k}": float(np.mean(np.minimum(n_relevant, k) / n_relevant)) for k in ks}


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What one model did on one task.

    Attributes
    ----------
    per_user : DataFrame
        user_id first, then one column a metric ("ndcg@10", ...); NaN where a person has no value.
    means : dict
        Mean of each metric over the people who have a value.
    intervals : DataFrame
        Index: metric; mean, low, high, n_users. Percentile bootstrap over people.
    lists : DataFrame
        user_id, item_id, score, rank, fallback.
    overall : dict
        What describes all lists together: "coverage@10" and "gini@10".
    rating : dict or None
        "rmse" and "mae", each with mean, low, high, n_users, over all rows of the test part whose rating the model
        predicts; None where it predicts none.
    protocol : dict
        Split, threshold, people kept and dropped, share of relevant rows outside the catalogue, ceilings, ...
    positions : DataFrame
        Where each relevant item stands in the ranking of the whole catalogue: user_id, item_id, rank (0: cannot be
        listed), midrank (mean over equal scores).
    predictions : DataFrame or None
        user_id, item_id, rating, predicted, error.
    """

    per_user: pd.DataFrame
    means: dict[str, float]
    intervals: pd.DataFrame
    lists: pd.DataFrame
    overall: dict[str, float]
    rating: dict[str, dict[str, float]] | None
    protocol: dict[str, Any]
    positions: pd.DataFrame | None = None
    predictions: pd.DataFrame | None = None

    def metrics(self) -> dict[str, dict[str, float]]:
        """Mean, low, high and n_users of every metric; those of all lists together have no interval."""
        n_users = self.protocol["people_kept"]
        table = {str(name): row.to_dict() for name, row in self.intervals.iterrows()}
        table = {name: {**row, "n_users": int(row["n_users"])} for name, row in table.items()}
        for name, value in self.overall.items():
            table[name] = {"mean": value, "low": None, "high": None, "n_users": n_users}
        return table | (self.rating or {})

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in self.means.items() if name.endswith("@10"))
        return f"Evaluation({self.protocol['people_kept']:,} users: {shown})"


def _task(split: Split | Task, relevant_from: float | None) -> Task:
    return split if isinstance(split, Task) else Task.from_split(split, relevant_from)


def check_fitted_on(model: Recommender, task: Task) -> None:
    """Make sure that a model knows the history, all of it, and nothing else.

    Raises
    ------
    ValueError
        If it was fitted on rows of the test part, or on more or less than the history.
    """
    train, known = model.train, task.known
    if train is known:
        return
    name = type(model).__name__
    test = _pairs(task.test["user_id"], task.test["item_id"], train)
    own = train.row_of_entry * train.n_items + train.matrix.indices
    leaked = int(np.isin(test, own).sum())
    if leaked:
        raise ValueError(
            f"{name} was fitted on {leaked:,} of the {len(test):,} rows it is to be tested on; "
            "fit it on Interactions.from_frame(split.history)"
        )
    history = _pairs(known.user_ids[known.row_of_entry], known.item_ids[known.matrix.indices], train)
    missing = len(history) - int(np.isin(history, own).sum())
    if missing or len(own) != len(history):
        raise ValueError(
            f"{name} was fitted on {len(own):,} interactions, but the history of this split has {len(history):,}, "
            f"and {missing:,} of those are unknown to it; fit it on Interactions.from_frame(split.history)"
        )
    if not np.array_equal(train.item_ids, known.item_ids):
        raise ValueError(
            f"{name} has {train.n_items:,} items in its catalogue, the history has {known.n_items:,}; "
            "a catalogue that differs from the other models' cannot be compared"
        )


def _pairs(user_ids: Iterable, item_ids: Iterable, train: Interactions) -> np.ndarray:
    """One number for each pair (user, item), -1 where the model knows one of the two not, int64."""
    rows, columns = train.user_codes(user_ids), train.item_codes(item_ids)
    return np.where((rows < 0) | (columns < 0), -1, rows * train.n_items + columns)


def _blocks(model: Recommender, task: Task, block: int) -> Iterator[tuple[slice, np.ndarray, csr_matrix]]:
    """Scores for the users of a task, (n, n_items), and their histories, a block at a time."""
    codes = task.codes
    popularity = model.train.matrix.getnnz(axis=0).astype(np.float32)
    for start in range(0, len(codes), block):
        part = slice(start, min(start + block, len(codes)))
        histories = task.served.rows(codes[part])
        scores, _ = model.scores_to_list(histories, task.users[part])
        scores[codes[part] < 0] = popularity  # as `recommend` serves users it has never met
        yield part, scores, histories.matrix


@dataclass(frozen=True)
class Ranked:
    """Lists as codes and scores, (n_users, depth) each, -1 and NaN where one ends; and where the relevant stands."""

    codes: np.ndarray
    scores: np.ndarray
    rank: np.ndarray | None = None
    midrank: np.ndarray | None = None

    def positions(self, task: Task) -> ranking.Positions | None:
        """Places of the relevant items, for metrics of the whole ranking."""
        if self.rank is None:
            return None
        candidates = task.known.n_items - np.diff(task.histories.indptr)
        return ranking.Positions(self.rank, self.midrank, task.relevant.indptr, candidates)


def rank_all(
    model: Recommender, task: Task, depth: int, *, block: int = BLOCK, whole: bool = True, merge_twins: bool = True
) -> Ranked:
    """Rank the catalogue for everybody in the task; ``whole``: also find each relevant item's place in it.

    ``merge_twins``: of items with the same title and year only one is listed, as :meth:`Recommender.recommend` does it.
    """
    depth = min(depth, model.train.n_items)
    codes = np.full((len(task.users), depth), -1, np.int64)
    scores = np.full((len(task.users), depth), np.nan, np.float32)
    places = []
    for part, block_scores, seen in _blocks(model, task, block):
        if merge_twins and model.twins is not None:
            block_scores = one_of_twins(block_scores, model.twins, seen)
        codes[part], scores[part] = top_k(block_scores, depth, exclude=seen)
        if whole:
            places.append(ranking.positions(block_scores, task.relevant[part], exclude=seen))
    if not whole:
        return Ranked(codes, scores)
    rank, midrank = (np.concatenate([getattr(found, name) for found in places]) for name in ("rank", "midrank"))
    return Ranked(codes, scores, rank, midrank)


def ndcg_given(
    model: Recommender,
    task: Task,
    users: np.ndarray,
    shown: Callable[[Histories], Histories] | None = None,
    k: int = 10,
) -> np.ndarray:
    """NDCG@k of some users of a task when the model is served what ``shown`` leaves of their histories, (n,) float64.

    Nobody is served by id, and whoever cannot be scored gets the most popular items, as in
    :meth:`Recommender.recommend_new`. What a user has seen stays out of the lists, shown or not.

    Parameters
    ----------
    users
        Places in ``task.users``.
    shown
        None: the whole histories.
    """
    lists = [np.empty((0, k), np.int64)]
    for start in range(0, len(users), BLOCK):
        histories = task.served.rows(task.codes[users[start : start + BLOCK]])
        scores, _ = model.scores_to_list(histories if shown is None else shown(histories))
        lists.append(top_k(scores, k, exclude=histories.matrix, twins=model.twins)[0])
    return ranking.ndcg(ranking.judge(np.concatenate(lists), task.relevant[users]), k)


def mean_ndcg(model: Recommender, split: Split | Task, k: int = 10, *, relevant_from: float | None = None) -> float:
    """Mean NDCG@k alone, without intervals: what a search over parameters maximises.

    Parameters
    ----------
    split
        ``split.for_validation()`` while tuning; a :class:`Task` made once is faster when many models are tried.
    """
    task = _task(split, relevant_from)
    check_fitted_on(model, task)
    ranked = rank_all(model, task, k, whole=False)
    return float(np.mean(ranking.ndcg(ranking.judge(ranked.codes, task.relevant), k)))


def evaluate(
    model: Recommender,
    split: Split | Task,
    ks: Iterable[int] = KS,
    relevant_from: float | None = None,
    *,
    items: pd.DataFrame | None = None,
    resamples: int = 1000,
    seed: int = 0,
    block: int = BLOCK,
    whole: bool = True,
    merge_twins: bool = True,
) -> Evaluation:
    """Evaluate a model on the test part of a split.

    Parameters
    ----------
    model
        Fitted on ``split.history``, and on nothing else.
    split
        A split with a test part, ``split.for_validation()``, or a :class:`Task`.
    ks
        Cut-offs; lists are as long as the largest, and hold at least ten.
    relevant_from
        Ratings from here on are relevant; by default those in the upper quarter of the scale (4 on 1 to 5), see
        :meth:`Task.from_split`. Of implicit feedback everything is relevant.
    items
        The table of items: with it, variety and calibration by genre are measured too.
    resamples, seed
        Of the bootstrap over people.
    block
        People scored at once.
    whole
        Also find the place of each relevant item in the whole ranking, for "mrr", "r_precision" and "auc". That
        compares each with the whole catalogue, so it is what takes long on millions of ratings.
    merge_twins
        Take items of the same title and year for one, as :meth:`Recommender.recommend` does; the protocol says so.

    Raises
    ------
    ValueError
        If the model was fitted on anything but the history, or there is nothing to test on.
    """
    task = split if isinstance(split, Task) else Task.from_split(split, relevant_from, items=items)
    check_fitted_on(model, task)
    ranked = rank_all(model, task, max(*ks, BEYOND_AT), block=block, whole=whole, merge_twins=merge_twins)
    task = task if merge_twins else replace(task, protocol=task.protocol | {"twins": "each id is listed on its own"})
    return from_ranked(ranked, task, ks, predictions=predict_test(model, task), resamples=resamples, seed=seed)


def from_ranked(
    ranked: Ranked,
    task: Task,
    ks: Iterable[int] = KS,
    *,
    predictions: pd.DataFrame | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Evaluate what a model has listed, without the model; ``predictions`` as :func:`predict_test` gives them."""
    ks = tuple(sorted(set(ks)))
    per_user = pd.DataFrame({"user_id": task.users, **person_metrics(ranked, task, ks)})
    if predictions is not None:
        per_user = per_user.merge(rating.per_person(predictions), on="user_id", how="left")
    table = inference.intervals(per_user.drop(columns="user_id"), resamples=resamples, seed=seed)
    predicted = None if predictions is None else rating_summary(predictions, resamples=resamples, seed=seed)
    overall = {
        f"coverage@{BEYOND_AT}": beyond_accuracy.coverage(ranked.codes, task.known.n_items, BEYOND_AT),
        f"gini@{BEYOND_AT}": beyond_accuracy.gini(ranked.codes, task.known.n_items, BEYOND_AT),
    }
    return Evaluation(
        per_user,
        {str(name): float(value) for name, value in table["mean"].items()},
        table,
        _lists_frame(ranked, task),
        overall,
        predicted,
        task.protocol | {"ks": list(ks), "ceilings": ceilings(task.n_relevant, ks)},
        _positions_frame(ranked, task),
        predictions,
    )


def person_metrics(ranked: Ranked, task: Task, ks: Iterable[int]) -> dict[str, np.ndarray]:
    """All metrics that have a value a person, by column name, (n_users,) float64 each."""
    judged = ranking.judge(ranked.codes, task.relevant, graded=True)
    columns = ranking.at_cutoffs(judged, ks)
    columns |= {f"ndcg_graded@{k}": ranking.graded_ndcg(judged, k) for k in ks}
    found = ranked.positions(task)
    if found is not None:
        columns["mrr"] = ranking.full_reciprocal_rank(found)
        columns["r_precision"] = ranking.full_r_precision(found)
        columns["auc"] = ranking.auc(found)
    return columns | beyond_metrics(ranked.codes, judged.hits, task)


def beyond_metrics(codes: np.ndarray, hits: np.ndarray, task: Task, k: int = BEYOND_AT) -> dict[str, np.ndarray]:
    """Variety, novelty, surprise, popularity and calibration of the first k places, a value a person."""
    n_items, people = task.known.n_items, task.known.n_users
    columns = {
        "novelty": beyond_accuracy.novelty(codes, task.popularity, people, k),
        "diversity_embedding": beyond_accuracy.intra_list_diversity(codes, task.embedding, k),
        "serendipity": beyond_accuracy.serendipity(codes, hits, task.expected, k),
        "popularity_lift": beyond_accuracy.popularity_lift(codes, task.popularity, task.histories, k),
        "personalisation": 1 - beyond_accuracy.overlap(codes, n_items, k),
    }
    if task.genres is not None:
        genres = task.genres[0]
        columns["diversity_genre"] = beyond_accuracy.intra_list_diversity(codes, genres, k)
        columns["miscalibration"] = beyond_accuracy.miscalibration(codes, genres, task.histories, k)
    return {f"{name}@{k}": values for name, values in columns.items()}


def predict_test(model: Recommender, task: Task) -> pd.DataFrame | None:
    """Predicted ratings of the whole test part: user_id, item_id, rating, predicted, error; None without such."""
    if not model.predicts_ratings or "rating" not in task.test:
        return None
    frame = task.test[["user_id", "item_id", "rating"]].reset_index(drop=True)
    when = task.test["timestamp"].to_numpy() if "timestamp" in task.test else None
    predicted = model.predict(frame["user_id"].to_numpy(), frame["item_id"].to_numpy(), when)
    frame = frame.assign(predicted=predicted, error=predicted - frame["rating"].astype(np.float64))
    return frame[np.isfinite(frame["error"])].reset_index(drop=True)


def rating_summary(
    frame: pd.DataFrame, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """RMSE and MAE over all rows, with intervals from resampling people (their rows together).

    Parameters
    ----------
    frame
        user_id, error; not empty.

    Returns
    -------
    dict
        ``{"rmse": {"mean", "low", "high", "n_users", "n_rows"}, "mae": {...}}``
    """
    added = rating.sums(frame)
    means = inference.resampled_means(added.to_numpy(), resamples=resamples, seed=seed)
    drawn = {"rmse": np.sqrt(means[:, 1] / means[:, 0]), "mae": means[:, 2] / means[:, 0]}
    whole = {"rmse": rating.rmse(frame["error"].to_numpy()), "mae": rating.mae(frame["error"].to_numpy())}
    result = {}
    for name, values in drawn.items():
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        counts = {"n_users": len(added), "n_rows": len(frame)}
        result[name] = {"mean": whole[name], "low": float(low), "high": float(high), **counts}
    return result


def _lists_frame(ranked: Ranked, task: Task) -> pd.DataFrame:
    """Lists with the ids of people and items."""
    rows, places = np.nonzero(ranked.codes >= 0)
    return pd.DataFrame(
        {
            "user_id": task.users[rows],
            "item_id": task.items[ranked.codes[rows, places]],
            "score": ranked.scores[rows, places],
            "rank": places + 1,
            "fallback": (task.codes < 0)[rows],
        }
    )


def _positions_frame(ranked: Ranked, task: Task) -> pd.DataFrame | None:
    """Places of the relevant items with the ids of people and items."""
    if ranked.rank is None:
        return None
    ids = {"user_id": np.repeat(task.users, task.n_relevant), "item_id": task.items[task.relevant.indices]}
    return pd.DataFrame({**ids, "rank": ranked.rank, "midrank": ranked.midrank})


def ranked_from_frames(lists: pd.DataFrame, task: Task, positions: pd.DataFrame | None = None) -> Ranked:
    """Turn saved tables of lists and positions, whose rows may stand in any order, back into arrays.

    Raises
    ------
    ValueError
        If they belong to other people or items than the task's.
    """
    rows, codes = codes_of(lists["user_id"], task.users), task.known.item_codes(lists["item_id"])
    for name, found in (("user_id", rows), ("item_id", codes)):
        if (found < 0).any():
            raise ValueError(
                f"the lists name {name} {lists[name].iloc[int(np.argmax(found < 0))]}, unknown to the task"
            )
    shape = (len(task.users), int(lists["rank"].max()))
    table, scores = np.full(shape, -1, np.int64), np.full(shape, np.nan, np.float32)
    table[rows, lists["rank"] - 1], scores[rows, lists["rank"] - 1] = codes, lists["score"]
    if positions is None:
        return Ranked(table, scores)
    wanted = pd.DataFrame(
        {"user_id": np.repeat(task.users, task.n_relevant), "item_id": task.items[task.relevant.indices]}
    )
    found = wanted.merge(positions, on=["user_id", "item_id"], how="left")
    if found["rank"].isna().any() or len(positions) != len(wanted):
        raise ValueError("the saved positions do not belong to the relevant items of this task")
    return Ranked(table, scores, found["rank"].to_numpy(np.int64), found["midrank"].to_numpy(np.float64))


def compare(
    results: Mapping[str, Evaluation],
    *,
    by: str = MAIN,
    level: float = 0.95,
    resamples: int = 1000,
    permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Leaderboard: one row a model, best first, with intervals and paired tests against the best.

    Parameters
    ----------
    results
        Evaluations by name, all of one task.
    by
        The metric that ranks.

    Returns
    -------
    DataFrame
        rank, model, ``by`` with ``_low`` and ``_high``, n_users; difference to the best with its interval, p_t and
        p_permutation as they are, p_holm (the permutation's, Holm-corrected), effect_size (mean difference over
        its standard deviation) with its interval, smallest_difference (seen with 80 % power after Holm), distinct
        (p_holm under the level and 100 people or more); then the other metrics with their intervals.
        ``.attrs["by"]`` names the metric.

    Raises
    ------
    ValueError
        If the results do not belong together, or lack the metric.
    """
    _check_comparable(results, by)
    names = sorted(results, key=lambda name: (-results[name].means[by], name))
    values = np.stack([results[name].per_user[by].to_numpy(np.float64) for name in names], axis=1)
    values = values[~np.isnan(values).any(axis=1)]
    board = pd.DataFrame({"rank": np.arange(1, len(names) + 1), "model": names})
    board = board.join(_metric_columns(results, names, [by]))
    board["n_users"] = len(values)
    board = board.join(_paired(values, level=level, resamples=resamples, permutations=permutations, seed=seed))
    others = [m for m in dict.fromkeys(m for name in names for m in results[name].metrics()) if m != by]
    board = board.join(_metric_columns(results, names, others))
    board.attrs["by"] = by
    return board


def against(
    results: Mapping[str, Evaluation],
    baselines: Iterable[str],
    *,
    by: str = MAIN,
    level: float = 0.95,
    resamples: int = 1000,
    permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """How many times a baseline's mean each model reaches.

    Parameters
    ----------
    results
        Evaluations by name, all of one task.
    baselines
        Names of models that the others are measured by; names that are not among the results are passed over.

    Returns
    -------
    DataFrame
        model, baseline, ratio with ratio_low and ratio_high (percentile bootstrap over people, both means drawn
        together), difference, p_permutation, p_holm (corrected over all rows of the table), distinct (as in
        :func:`compare`); a row a pair, models best first.
    """
    _check_comparable(results, by)
    names = sorted(results, key=lambda name: (-results[name].means[by], name))
    values = pd.DataFrame({name: results[name].per_user[by].to_numpy(np.float64) for name in names}).dropna()
    tables = []
    for baseline in [name for name in baselines if name in results]:
        others = [name for name in names if name != baseline]
        ratio = inference.ratios(values, baseline, level=level, resamples=resamples, seed=seed).loc[others]
        behind = values[others].sub(values[baseline], axis=0).to_numpy()
        p = inference.permutation_p(behind, permutations=permutations, seed=seed)
        columns = {"model": others, "baseline": baseline, "ratio": ratio["ratio"].to_numpy()}
        columns |= {"ratio_low": ratio["low"].to_numpy(), "ratio_high": ratio["high"].to_numpy()}
        tables.append(pd.DataFrame({**columns, "difference": behind.mean(axis=0), "p_permutation": p}))
    if not tables:
        return pd.DataFrame(columns=["model", "baseline", "ratio", "ratio_low", "ratio_high", "p_holm", "distinct"])
    table = pd.concat(tables, ignore_index=True)
    table["p_holm"] = inference.holm(table["p_permutation"].to_numpy())
    enough = len(values) >= inference.LEAST_PEOPLE
    return table.assign(distinct=(table["p_holm"] < 1 - level) & enough)


def _check_comparable(results: Mapping[str, Evaluation], by: str) -> None:
    if not results:
        raise ValueError("there is no result to compare")
    prints = {name: result.protocol["fingerprint"] for name, result in results.items()}
    if len({result.protocol["twins"] for result in results.values()}) > 1:
        raise ValueError("some results take items of the same title and year for one, others do not")
    if len(set(prints.values())) > 1:
        raise ValueError(f"the results belong to different tasks (data, split or threshold): {prints}")
    for name, result in results.items():
        if by not in result.means:
            raise ValueError(f"the result {name!r} has no metric {by!r}; it has {', '.join(result.means)}")


def _metric_columns(results: Mapping[str, Evaluation], names: list[str], metrics: list[str]) -> pd.DataFrame:
    """Mean, low and high of metrics, a row a model; NaN where a model lacks the metric."""
    columns: dict[str, list[float]] = {}
    tables = [results[name].metrics() for name in names]
    for metric in metrics:
        for suffix, part in (("", "mean"), ("_low", "low"), ("_high", "high")):
            columns[metric + suffix] = [table.get(metric, {}).get(part, np.nan) for table in tables]
    return pd.DataFrame(columns, index=range(len(names)))


def _paired(values: np.ndarray, *, level: float, resamples: int, permutations: int, seed: int) -> pd.DataFrame:
    """Differences to the first column, with interval, tests, effect size and power."""
    behind = values[:, 1:] - values[:, :1]
    if behind.shape[1] == 0:
        names = inference.paired_table(np.zeros((2, 1)), resamples=1, permutations=1).columns
        return pd.DataFrame({name: [np.nan] for name in names}).assign(difference=0.0, distinct=False)
    table = inference.paired_table(behind, level=level, resamples=resamples, permutations=permutations, seed=seed)
    enough = len(values) >= inference.LEAST_PEOPLE
    table["distinct"] = (table["p_holm"] < 1 - level) & enough
    table.index = range(1, values.shape[1])
    joined = table.reindex(range(values.shape[1]))
    joined.loc[0, "difference"] = 0.0
    joined["distinct"] = joined["distinct"].fillna(False).astype(bool)
    return joined


def conclusion(board: pd.DataFrame) -> str:
    """One sentence on who leads, as far as the data says; names no winner inside the noise or under 100 people."""
    by, first, n = board.attrs["by"], board.iloc[0], int(board["n_users"].iloc[0])
    led = f"{first['model']} has the highest {by} ({first[by]:.3f}, 95 % interval {first[by + '_low']:.3f} to "
    led += f"{first[by + '_high']:.3f}, {n:,} users)"
    if n < inference.LEAST_PEOPLE:
        return f"{led}, but with fewer than {inference.LEAST_PEOPLE} users no winner is named."
    if len(board) == 1:
        return f"{led}; there is nothing to compare it with."
    close = board["model"][1:][~board["distinct"][1:]].tolist()
    if close:
        return f"{led}, but it cannot be told apart from {', '.join(close)}: no winner is named."
    return f"{led}, and leads every other model (largest Holm-corrected p {board['p_holm'].max():.4f})."


def pareto(board: pd.DataFrame, x: str, y: str) -> pd.Series:
    """Which rows no other beats in both columns, (n,) bool; more of either is better.

    >>> table = pd.DataFrame({"a": [1.0, 2.0, 1.0], "b": [2.0, 1.0, 1.0]})
    >>> pareto(table, "a", "b").tolist()
    [True, True, False]
    """
    values = board[[x, y]].to_numpy(float)
    worse = (values[None] >= values[:, None]).all(axis=2) & (values[None] > values[:, None]).any(axis=2)
    return pd.Series(~worse.any(axis=1), index=board.index)
