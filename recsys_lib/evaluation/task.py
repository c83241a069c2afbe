"""Evaluate models: the protocol, per-user metrics, means, intervals, paired tests.

The protocol: the whole catalogue is ranked, items of the user's history are left out, ties go to the lower item code,
relevant is what was rated from a threshold on, and users with nothing relevant in the test part are left out and
counted. Relevant items outside the catalogue (no user of the history has them) stay relevant.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd

from recsys_lib.data.catalogue import MOST_GENRES, genre_matrix, label
from recsys_lib.data.interactions import Histories, Interactions, as_ids, codes_of, relevance_threshold
from recsys_lib.data.splits import Split, same_sitting
from recsys_lib.evaluation import inference
from recsys_lib.evaluation.metrics import beyond_accuracy, ranking, rating
from recsys_lib.models.base import Recommender
from recsys_lib.models.lists import merge_twins, top_k

KS = (5, 10, 20)
MOST_USERS = 10_000  # whose lists make a curve
MAIN = "ndcg@10"
CUSTOMARY = 4.0  # the threshold on MovieLens, about which nobody needs a warning
BEYOND_AT = 10  # length of the lists that the metrics beyond accuracy look at
DIMENSIONS = 32  # of the embedding that says how alike two items are


class NothingRelevantError(ValueError):
    """The test part holds nothing that counts as relevant."""


@dataclass(frozen=True)
class Task:
    """A task for models: users, the histories they are served with, relevant items.

    Making one takes a moment on large data, so those who evaluate many models on one split make it once.
    """

    known: Interactions  # the history that every model must have been fitted on
    served: Interactions  # what models are given when they list: known, or more (later_sittings, strict in from_split)
    test: pd.DataFrame  # the test part; of implicit feedback without a rating column
    users: np.ndarray  # those with something relevant in the test part, ascending, (n_users,)
    items: np.ndarray  # ids behind the columns of relevant: the catalogue, then relevant items outside it, (n_items,)
    relevant: csr_matrix  # (n_users, n_items) float64; an entry is the worth for graded NDCG, 1 at the threshold
    relevant_from: float | None  # the threshold; None for implicit feedback, where everything is relevant
    protocol: dict[str, Any]  # what has to stand beside every result
    content: pd.DataFrame | None = None  # the table of items, for what needs genres

    @classmethod
    def from_split(
        cls,
        split: Split,
        relevant_from: float | None = None,
        *,
        items: pd.DataFrame | None = None,
        strict: bool = False,
    ) -> Task:
        """Make the task of a split; ``items`` is the table with genres, for metrics that need them.

        ``relevant_from=None`` takes :func:`recsys_lib.data.interactions.relevance_threshold` of the history's ratings,
        and warns where that is not 4; without ratings, or with counts in their place, all is relevant. ``strict`` is
        the protocol of papers on sequences: models are fitted on the train part alone, served with the whole history,
        and rank every item of the history or of ``items``.

        ValueError if the test part is empty, or nobody has anything relevant in it.
        """
        history, test = split.history, split.test
        if len(test) == 0:
            raise ValueError("the test part of the split is empty: `tables_with_test` of a run reads it")
        implicit = "rating" not in history or (history["rating"].nunique() == 1 and test["rating"].nunique() == 1)
        implicit |= split.params.get("repeats") == "count"  # its ratings say how often, not how good
        known = served = Interactions.from_frame(history)
        if strict:
            catalogue = [history["item_id"]] if items is None else [history["item_id"], items["item_id"]]
            ids = {"user_ids": known.user_ids, "item_ids": pd.concat(catalogue)}
            served, known = Interactions.from_frame(history, **ids), Interactions.from_frame(split.train, **ids)
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
        about = {"split": {"name": split.name, "params": split.params}} | ({"fitted_on": "train"} if strict else {})
        return cls._of(known, served, test, None if implicit else relevant_from, about, items)

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
            threshold = f" rated {relevant_from} or higher; lower relevant_from" if rated else " left"
            raise NothingRelevantError(f"nothing in the test part is{threshold}")
        worth = chosen["rating"] - relevant_from + 1.0 if rated else np.ones(len(chosen))
        outside = np.setdiff1d(as_ids(chosen["item_id"]), known.item_ids)
        users, rows = np.unique(as_ids(chosen["user_id"]), return_inverse=True)
        inside = known.item_codes(chosen["item_id"])
        columns = np.where(inside >= 0, inside, known.n_items + codes_of(chosen["item_id"], outside))
        shape = (len(users), known.n_items + len(outside))
        relevant = csr_matrix((np.asarray(worth, np.float64), (rows, columns)), shape=shape)
        relevant.sort_indices()
        item_ids = np.concatenate([known.item_ids, outside])
        task = cls(known, served, test, users, item_ids, relevant, relevant_from, about, items)
        task.protocol.update(task._facts())
        return task

    def _facts(self) -> dict[str, Any]:
        """The protocol, but for where the task comes from; "fingerprint" is the same for equal tasks alone."""
        known, relevant, n_relevant = self.known, self.relevant, self.n_relevant
        stamp = hashlib.sha256()
        for history in [known] if self.served is known else [known, self.served]:
            stamp.update(history.matrix.indptr.tobytes() + history.matrix.indices.tobytes())
        stamp.update(relevant.indptr.tobytes() + relevant.indices.tobytes() + relevant.data.tobytes())
        stamp.update("\n".join(map(str, self.users)).encode())
        repeats = self.histories.astype(bool).multiply(relevant[:, : known.n_items])
        n_tested, n_kept = int(self.test["user_id"].nunique()), len(self.users)
        return {
            "relevant_from": self.relevant_from,
            "catalogue": known.n_items,
            "users_in_test": n_tested,
            "users_kept": n_kept,
            "users_dropped": n_tested - n_kept,
            "users_without_history": int((self.codes < 0).sum()),
            "relevant": int(relevant.nnz),
            "relevant_per_user": {"mean": float(n_relevant.mean()), "median": float(np.median(n_relevant))},
            "relevant_outside_catalogue": float((relevant.indices >= known.n_items).mean()),
            "relevant_seen_before": repeats.nnz / relevant.nnz,
            "seen_excluded": True,
            "sampled": False,
            "ties": "lower item code first",
            "twins": "one of several ids with the same title and year is listed",
            "precision_divisor": "k",
            "ndcg_ideal": "min(k, relevant)",
            "map_divisor": "min(k, relevant)",
            "fingerprint": stamp.hexdigest()[:16],
        }

    def later_sittings(self, gap: str = "1h") -> Task:
        """The return visit: relevant are items of later sittings, and the history served reaches up to them.

        Rows of the test part in the sitting in which the user's history ends become history that models are served
        with; models stay fitted on ``known``. Users without a history, or without anything relevant in a later sitting,
        are left out. Two interactions with a pause longer than ``gap`` belong to different sittings.

        ValueError if there are no timestamps. NothingRelevantError if nobody has anything relevant in a later sitting.
        """
        same, later = self._sittings(gap)
        frame = self.known.to_frame()
        rows = same if "rating" in same or same.empty else same.assign(rating=self.known.matrix.data[0])
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
        """Relevant items of each user, (n_users,) int64."""
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
        """How many users of the history have met each item, (n_catalogue,) int64."""
        return self.known.matrix.getnnz(axis=0)

    @cached_property
    def genres(self) -> tuple[np.ndarray, list[str]] | None:
        """Genres of the catalogue as zeros and ones, (n_catalogue, n_genres), with their names; None without such.

        Hundreds of other attributes, such as brands, are no genres.
        """
        matrix, names = genre_matrix(self.content, self.known.item_ids)
        return (matrix.astype(np.float64), names) if 0 < len(names) <= MOST_GENRES else None

    @cached_property
    def embedding(self) -> np.ndarray:
        """Vectors whose cosine says how alike two items' audiences are, (n_catalogue, d); the same for all models.

        Right singular vectors of the history (who met what, users of unit length), scaled by their values.
        """
        seen = self.known.matrix.astype(np.float64)
        seen.data[:] = 1.0
        d = min(DIMENSIONS, min(seen.shape) - 1)
        if d < 1:
            return np.ones((self.known.n_items, 1))
        _, values, vectors = randomized_svd(normalize(seen), d, random_state=0)
        return (vectors * values[:, None]).T

    @cached_property
    def expected(self) -> np.ndarray:
        """List what is popular for each user, (n_users, up to BEYOND_AT) codes, -1 where nothing is left."""
        popular = np.broadcast_to(self.popularity.astype(np.float32), self.histories.shape)
        return top_k(popular, BEYOND_AT, exclude=self.histories)[0]


def ceilings(n_relevant: np.ndarray, ks: Iterable[int]) -> dict[str, float]:
    """The best mean precision@k and recall@k that any list could reach.

    >>> ceilings(np.array([1, 10]), [5])
    {'precision@5': 0.6, 'recall@5': 0.75}
    """
    best = {f"precision@{k}": float(np.mean(np.minimum(n_relevant, k) / k)) for k in ks}
    return best | {f"recall@{k}": float(np.mean(np.minimum(n_relevant, k) / n_relevant)) for k in ks}


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Results of one model on one task.

    - ``per_user``: user_id first, then one column a metric ("ndcg@10", ...); NaN where a user has no value.
    - ``intervals``, a row a metric: mean over the users who have a value, low, high, n_users; bootstrap over users.
    - ``lists``: user_id, item_id, score, rank, fallback.
    - ``overall``: what describes all lists together: "coverage@10" and "gini@10".
    - ``rating``: "rmse" and "mae" as :func:`rating_summary` gives them; None where the model predicts no ratings.
    - ``protocol``: split, threshold, users kept and dropped, share of relevant rows outside the catalogue, ceilings.
    - ``positions``: where each relevant item stands in the ranking of the whole catalogue, if it was asked for:
      user_id, item_id, rank (0: cannot be listed), midrank (mean over equal scores).
    - ``predictions``: user_id, item_id, rating, predicted, error; None where the model predicts no ratings.
    """

    per_user: pd.DataFrame
    intervals: pd.DataFrame
    lists: pd.DataFrame
    overall: dict[str, float]
    rating: dict[str, dict[str, float]] | None
    protocol: dict[str, Any]
    positions: pd.DataFrame | None = None
    predictions: pd.DataFrame | None = None

    @cached_property
    def means(self) -> dict[str, float]:
        """Mean of each metric that has a value a user."""
        return self.intervals["mean"].to_dict()

    def metrics(self) -> dict[str, dict[str, float]]:
        """Mean, low, high and n_users of every metric; those of all lists together have no interval."""
        rows = self.intervals.to_dict("index")
        table = {str(name): {**row, "n_users": int(row["n_users"])} for name, row in rows.items()}
        for name, value in self.overall.items():
            table[name] = {"mean": value, "low": None, "high": None, "n_users": self.protocol["users_kept"]}
        return table | (self.rating or {})

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in self.means.items() if name.endswith("@10"))
        return f"Evaluation({self.protocol['users_kept']:,} users: {shown})"


def check_fitted_on(model: Recommender, task: Task) -> None:
    """Make sure that a model knows the history, all of it, and nothing else.

    ValueError if it was fitted on rows of the test part, or on more or less than the history.
    """
    train, known, name = model.train, task.known, type(model).__name__
    if train is known or _alike(train, known):
        return
    history = _pairs(known.user_ids[known.row_of_entry], known.item_ids[known.matrix.indices], train)
    test = _pairs(task.test["user_id"], task.test["item_id"], train)
    own = train.row_of_entry * train.n_items + train.matrix.indices
    missing = int((~np.isin(history, own)).sum())
    leaked = int((np.isin(test, own) & ~np.isin(test, history)).sum())  # a target may repeat an item of the history
    advice = f"fit it on Interactions.from_frame(split.{task.protocol.get('fitted_on', 'history')})"
    if leaked:
        raise ValueError(f"{name} was fitted on {leaked:,} of the {len(test):,} rows it is to be tested on; {advice}")
    if missing or len(own) != len(history):
        raise ValueError(
            f"{name} was fitted on {len(own):,} interactions, but the history of this split has {len(history):,}, "
            f"and {missing:,} of those are unknown to it; {advice}"
        )
    if not np.array_equal(train.item_ids, known.item_ids):
        raise ValueError(f"{name} ranks {train.n_items:,} items, the history has others ({known.n_items:,}); {advice}")


def _alike(one: Interactions, other: Interactions) -> bool:
    """Whether two histories have the same pairs in the same places, whatever their ratings and times."""
    parts = ((of.user_ids, of.item_ids, of.matrix.indptr, of.matrix.indices) for of in (one, other))
    return all(map(np.array_equal, *parts))


def _pairs(user_ids: Iterable, item_ids: Iterable, train: Interactions) -> np.ndarray:
    """One number for each pair (user, item), -1 where the model does not know one of the two, int64."""
    rows, columns = train.user_codes(user_ids), train.item_codes(item_ids)
    return np.where((rows < 0) | (columns < 0), -1, rows * train.n_items + columns)


@dataclass(frozen=True)
class Ranked:
    """Lists as codes and scores, (n_users, depth) each, -1 and NaN where one ends; and where the relevant stands."""

    codes: np.ndarray
    scores: np.ndarray
    rank: np.ndarray | None = None
    midrank: np.ndarray | None = None


def rank_all(model: Recommender, task: Task, depth: int, *, whole: bool = True) -> Ranked:
    """Rank the catalogue for every user of the task; ``whole``: also find each relevant item's place in it."""
    depth = min(depth, model.train.n_items)
    codes = np.full((len(task.users), depth), -1, np.int64)
    scores = np.full((len(task.users), depth), np.nan, np.float32)
    places = []
    for start in range(0, len(task.users), model.block_size):
        part = slice(start, start + model.block_size)
        histories = task.served.rows(task.codes[part])
        of_items, _ = model.scores_to_list(histories, task.users[part])
        of_items[task.codes[part] < 0] = model.train.item_counts  # as `recommend` serves users it has never met
        if model.twins is not None:
            of_items = merge_twins(of_items, model.twins, histories.matrix)
        codes[part], scores[part] = top_k(of_items, depth, exclude=histories.matrix)
        if whole:
            places.append(ranking.positions(of_items, task.relevant[part], exclude=histories.matrix))
    if not whole:
        return Ranked(codes, scores)
    rank, midrank = (np.concatenate([getattr(place, name) for place in places]) for name in ("rank", "midrank"))
    return Ranked(codes, scores, rank, midrank)


def some_of(users: np.ndarray) -> np.ndarray:
    """At most ``MOST_USERS`` of these places, drawn by chance, ascending: enough for a curve."""
    few = len(users) <= MOST_USERS
    return users if few else np.sort(np.random.default_rng(0).choice(users, MOST_USERS, replace=False))


def lists_given(
    model: Recommender,
    task: Task,
    users: np.ndarray,
    shown: Callable[[Histories], Histories] | None = None,
    k: int = 10,
) -> np.ndarray:
    """List k items for users of a task, served what ``shown`` leaves of their histories: columns, (n, k), -1 for none.

    Nobody is served by id, and whoever cannot be scored gets the most popular items, as in
    :meth:`Recommender.recommend_new`. What a user has seen stays out of the lists, shown or not.

    ``users`` are places in ``task.users``; ``shown=None`` leaves the whole histories.
    """
    lists, size = np.full((len(users), k), -1), model.block_size
    for start in range(0, len(users), size):
        histories = task.served.rows(task.codes[users[start : start + size]])
        scores, _ = model.scores_to_list(histories if shown is None else shown(histories))
        best, _ = top_k(scores, k, exclude=histories.matrix, twins=model.twins)
        lists[start : start + size, : best.shape[1]] = best
    return lists


def mean_ndcg(model: Recommender, split: Split | Task, k: int = 10) -> float:
    """Mean NDCG@k alone, without intervals: what a search over parameters maximises.

    Pass ``split.for_validation()`` while tuning; a :class:`Task` made once is faster when many models are tried.
    """
    task = split if isinstance(split, Task) else Task.from_split(split)
    check_fitted_on(model, task)
    ranked = rank_all(model, task, k, whole=False)
    return float(np.mean(ranking.ndcg(ranking.judge(ranked.codes, task.relevant), k)))


def evaluate(
    model: Recommender,
    split: Split | Task,
    ks: Iterable[int] = KS,
    relevant_from: float | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    whole: bool = True,
) -> Evaluation:
    """Evaluate a model on the test part of a split.

    - ``model``: fitted on ``split.history``, and on nothing else.
    - ``split``: a split with a test part, ``split.for_validation()``, or a :class:`Task`; of one with the table of
      items, diversity and calibration by genre are measured too.
    - ``ks``: cut-offs; lists are as long as the largest, and hold at least ten.
    - ``relevant_from``: ratings from here on are relevant; by default those in the upper quarter of the scale (4 on 1
      to 5), see :meth:`Task.from_split`. Of implicit feedback everything is relevant.
    - ``resamples``, ``seed``: of the bootstrap over users.
    - ``whole``: also find the place of each relevant item in the whole ranking, for "mrr", "r_precision" and "auc".
      That compares each with the whole catalogue, so it is what takes long on millions of ratings.

    ValueError if the model was fitted on anything but the history, or there is nothing to test on.
    """
    task = split if isinstance(split, Task) else Task.from_split(split, relevant_from)
    check_fitted_on(model, task)
    ranked = rank_all(model, task, max(*ks, BEYOND_AT), whole=whole)
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
    per_user = pd.DataFrame({"user_id": task.users, **user_metrics(ranked, task, ks)})
    summary = None
    if predictions is not None:
        per_user = per_user.merge(rating.per_user(predictions), on="user_id", how="left")
        summary = rating_summary(predictions, resamples=resamples, seed=seed)
    intervals = inference.intervals(per_user.drop(columns="user_id"), resamples=resamples, seed=seed)
    rows, places = np.nonzero(ranked.codes >= 0)
    lists = {"user_id": task.users[rows], "item_id": task.items[ranked.codes[rows, places]]}
    lists |= {"score": ranked.scores[rows, places], "rank": places + 1, "fallback": (task.codes < 0)[rows]}
    overall = {
        f"coverage@{BEYOND_AT}": beyond_accuracy.coverage(ranked.codes, task.known.n_items, BEYOND_AT),
        f"gini@{BEYOND_AT}": beyond_accuracy.gini(ranked.codes, task.known.n_items, BEYOND_AT),
    }
    positions = None
    if ranked.rank is not None:
        positions = _relevant_pairs(task).assign(rank=ranked.rank, midrank=ranked.midrank)
    return Evaluation(
        per_user,
        intervals,
        pd.DataFrame(lists),
        overall,
        summary,
        task.protocol | {"ks": list(ks), "ceilings": ceilings(task.n_relevant, ks)},
        positions,
        predictions,
    )


def _relevant_pairs(task: Task) -> pd.DataFrame:
    """User and item of each relevant item, in the order of the matrix."""
    users, items = np.repeat(task.users, task.n_relevant), task.items[task.relevant.indices]
    return pd.DataFrame({"user_id": users, "item_id": items})


def user_metrics(ranked: Ranked, task: Task, ks: Iterable[int]) -> dict[str, np.ndarray]:
    """All metrics that have a value a user, by column name, (n_users,) float64 each."""
    k, codes, judged = BEYOND_AT, ranked.codes, ranking.judge(ranked.codes, task.relevant)
    columns = ranking.at_cutoffs(judged, ks)
    columns |= {f"ndcg_graded@{cut}": ranking.graded_ndcg(judged, cut) for cut in ks}
    if ranked.rank is not None:
        candidates = task.known.n_items - np.diff(task.histories.indptr)
        positions = ranking.Positions(ranked.rank, ranked.midrank, task.relevant.indptr, candidates)
        columns["mrr"] = ranking.full_reciprocal_rank(positions)
        columns["r_precision"] = ranking.r_precision(positions)
        columns["auc"] = ranking.auc(positions)
    beyond = {
        "novelty": beyond_accuracy.novelty(codes, task.popularity, task.known.n_users, k),
        "diversity_embedding": beyond_accuracy.intra_list_diversity(codes, task.embedding, k),
        "serendipity": beyond_accuracy.serendipity(codes, judged.hits, task.expected, k),
        "popularity_lift": beyond_accuracy.popularity_lift(codes, task.popularity, task.histories, k),
        "personalisation": 1 - beyond_accuracy.overlap(codes, task.known.n_items, k),
    }
    if task.genres is not None:
        genres = task.genres[0]
        beyond["diversity_genre"] = beyond_accuracy.intra_list_diversity(codes, genres, k)
        beyond["miscalibration"] = beyond_accuracy.miscalibration(codes, genres, task.histories, k)
    return columns | {f"{name}@{k}": values for name, values in beyond.items()}


def predict_test(model: Recommender, task: Task) -> pd.DataFrame | None:
    """Predicted ratings of the whole test part: user_id, item_id, rating, predicted, error; None without such."""
    if not model.predicts_ratings or "rating" not in task.test:
        return None
    table = rating.predictions(model, task.test)[["user_id", "item_id", "rating", "predicted", "error"]]
    return table[np.isfinite(table["error"])].reset_index(drop=True)


def rating_summary(frame: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> dict[str, dict[str, float]]:
    """RMSE and MAE over all rows, with 95% intervals from resampling users (their rows together).

    ``frame`` has user_id and error, and is not empty. Returns ``{"rmse": {"mean", "low", "high", "n_users", "n_rows"},
    "mae": {...}}``
    """
    sums = rating.sums(frame)
    means = inference.resampled_means(sums.to_numpy(), resamples=resamples, seed=seed)
    drawn = {"rmse": np.sqrt(means[:, 1] / means[:, 0]), "mae": means[:, 2] / means[:, 0]}
    whole = {"rmse": rating.rmse(frame["error"].to_numpy()), "mae": rating.mae(frame["error"].to_numpy())}
    result = {}
    for name, values in drawn.items():
        low, high = np.quantile(values, inference.TAILS)
        counts = {"n_users": len(sums), "n_rows": len(frame)}
        result[name] = {"mean": whole[name], "low": float(low), "high": float(high), **counts}
    return result


def ranked_from_frames(lists: pd.DataFrame, task: Task, positions: pd.DataFrame | None = None) -> Ranked:
    """Turn saved tables of lists and positions, whose rows may stand in any order, back into arrays.

    ValueError if they belong to other users or items than the task's.
    """
    rows, codes = codes_of(lists["user_id"], task.users), task.known.item_codes(lists["item_id"])
    unknown = (rows < 0) | (codes < 0)
    if unknown.any():
        user, item = lists.loc[unknown, ["user_id", "item_id"]].iloc[0]
        raise ValueError(f"the lists name user {user} and item {item}, of whom one is unknown to the task")
    shape = (len(task.users), int(max(lists["rank"], default=0)))
    table, scores = np.full(shape, -1, np.int64), np.full(shape, np.nan, np.float32)
    table[rows, lists["rank"] - 1], scores[rows, lists["rank"] - 1] = codes, lists["score"]
    if positions is None:
        return Ranked(table, scores)
    places = _relevant_pairs(task).merge(positions, on=["user_id", "item_id"], how="left")
    if places["rank"].isna().any() or len(positions) != task.relevant.nnz:
        raise ValueError("the saved positions do not belong to the relevant items of this task")
    return Ranked(table, scores, places["rank"].to_numpy(np.int64), places["midrank"].to_numpy(np.float64))


def compare(
    results: Mapping[str, Evaluation],
    *,
    by: str = MAIN,
    resamples: int = 1000,
    permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Leaderboard: one row a model, best first, with intervals and paired tests against the best.

    ``results`` are evaluations by name, all of one task; ``by`` is the metric that ranks.

    Columns: rank, model, ``by`` with ``_low`` and ``_high``, n_users; the columns of
    :func:`recsys_lib.evaluation.inference.paired_table` for the difference to the best; distinct (p_holm under 0.05 and
    100 users or more); then the other metrics with their intervals. ``.attrs["by"]`` names the metric.

    ValueError if the results do not belong together, or lack the metric.
    """
    per_user = _best_first(results, by)
    names, values = list(per_user), np.ascontiguousarray(per_user.to_numpy())
    drawing = {"resamples": resamples, "permutations": permutations, "seed": seed}
    paired = inference.paired_table(values[:, 1:] - values[:, :1], **drawing)
    paired = paired.set_axis(range(1, len(names))).reindex(range(len(names)))
    paired.loc[0, "difference"] = 0.0
    paired["distinct"] = inference.distinct(paired["p_holm"], len(values))
    others = [m for m in dict.fromkeys(m for name in names for m in results[name].metrics()) if m != by]
    board = pd.DataFrame({"rank": np.arange(1, len(names) + 1), "model": names})
    board = board.join(_metric_columns(results, names, [by])).assign(n_users=len(values))
    board = board.join(paired).join(_metric_columns(results, names, others))
    board.attrs["by"] = by
    return board


def against(
    results: Mapping[str, Evaluation],
    baselines: Iterable[str],
    *,
    by: str = MAIN,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Ratio of each model's mean to those of baselines; of ``baselines``, names without a result are passed over.

    Columns: model, baseline, ratio with ratio_low and ratio_high (percentile bootstrap over users, both means
    drawn together), difference, p_permutation, p_holm (corrected over all rows of the table), distinct (as in
    :func:`compare`); a row a pair, models best first.
    """
    values = _best_first(results, by)
    tables = [pd.DataFrame(columns=["model", "baseline", "ratio", "ratio_low", "ratio_high", "p_permutation"])]
    for baseline in [name for name in baselines if name in results]:
        others = [name for name in values if name != baseline]
        ratios = inference.ratios(values, baseline, resamples=resamples, seed=seed).loc[others]
        behind = values[others].sub(values[baseline], axis=0).to_numpy()
        table = ratios.rename(columns={"low": "ratio_low", "high": "ratio_high"}).rename_axis("model").reset_index()
        table.insert(1, "baseline", baseline)
        p = inference.permutation_p(behind, seed=seed)
        tables.append(table.assign(difference=behind.mean(axis=0), p_permutation=p))
    table = pd.concat(tables[1:] or tables, ignore_index=True)
    table["p_holm"] = inference.holm(table["p_permutation"].to_numpy())
    return table.assign(distinct=inference.distinct(table["p_holm"], len(values)))


def _best_first(results: Mapping[str, Evaluation], by: str) -> pd.DataFrame:
    """Values of a metric, a row a user, a column a model, best first; refuses results that do not belong together."""
    if not results:
        raise ValueError("there is no result to compare")
    prints = {name: result.protocol["fingerprint"] for name, result in results.items()}
    if len(set(prints.values())) > 1:
        raise ValueError(f"the results belong to different tasks (data, split or threshold): {prints}")
    for name, result in results.items():
        if by not in result.means:
            raise ValueError(f"the result {name!r} has no metric {by!r}; it has {', '.join(result.means)}")
    names = sorted(results, key=lambda name: (-results[name].means[by], name))
    return pd.DataFrame({name: results[name].per_user[by].to_numpy(np.float64) for name in names}).dropna()


def _metric_columns(results: Mapping[str, Evaluation], names: list[str], metrics: list[str]) -> pd.DataFrame:
    """Mean, low and high of metrics, a row a model; NaN where a model lacks the metric."""
    columns: dict[str, list[float]] = {}
    tables = [results[name].metrics() for name in names]
    for metric in metrics:
        for suffix, part in (("", "mean"), ("_low", "low"), ("_high", "high")):
            columns[metric + suffix] = [table.get(metric, {}).get(part, np.nan) for table in tables]
    return pd.DataFrame(columns, index=range(len(names)))


def conclusion(board: pd.DataFrame) -> str:
    """One sentence on who leads, as far as the data says; names no winner inside the noise or under 100 users."""
    by, first, n = board.attrs["by"], board.iloc[0], int(board["n_users"].iloc[0])
    led = f"{first['model']} has the highest {label(by)} ({first[by]:.3f}, 95% interval {first[by + '_low']:.3f} to "
    led += f"{first[by + '_high']:.3f}, {n:,} users)"
    if n < inference.LEAST_USERS:
        return f"{led}, but with fewer than {inference.LEAST_USERS} users no winner is named."
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
