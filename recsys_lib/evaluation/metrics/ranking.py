"""Ranking metrics: one value a user first, means after.

Metrics with a cut-off read a :class:`Judged`, what stands where in a list of top items; those without read
:class:`Positions`, where each relevant item stands in the whole ranking. Libraries differ in details:

==================  ===================================  ====================================================
metric              here                                 elsewhere
==================  ===================================  ====================================================
NDCG                ideal of min(k, relevant) items      RecTools: of k items always
NDCG                discount 1 / log2(rank + 1)          LensKit: 1 / max(log2 rank, 1)
precision           over k                               implicit: hits of all users over the sum of their
                                                         min(k, relevant)
recall              over all that is relevant            LensKit: over min(k, relevant)
average precision   over min(k, relevant)                trec_eval, ranx: over all that is relevant
nothing relevant    no value (NaN)                       trec_eval: left out, or 0
ties                lower item code first                trec_eval: later name first
item listed twice   counts at its first place            trec_eval, ranx: cannot be given
==================  ===================================  ====================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import rows_of

COUNTED = 16  # relevant items of a user up to which counting what stands above each takes less than a sort


@dataclass(frozen=True)
class Judged:
    """Lists held against what turned out to be relevant.

    >>> relevant = csr_matrix(np.array([[1, 0, 1, 0, 1], [0, 0, 0, 0, 0]]))
    >>> judged = judge(np.array([[0, 1, 2], [4, -1, -1]]), relevant)
    >>> judged.hits.tolist(), judged.n_relevant.tolist()
    ([[True, False, True], [False, False, False]], [3, 0])
    """

    entries: (
        np.ndarray
    )  # place in relevant.data of each item listed, (n_users, length) int32; -1: not relevant, or again
    relevant: csr_matrix  # (n_users, n_items); a stored entry is a relevant item

    @cached_property
    def hits(self) -> np.ndarray:
        """Whether the item at each place is relevant, (n_users, length) bool."""
        return self.entries >= 0

    @cached_property
    def cumulative(self) -> np.ndarray:
        """Hits up to and with each place, (n_users, length) float64."""
        return np.cumsum(self.hits, axis=1, dtype=np.float64)

    @cached_property
    def n_relevant(self) -> np.ndarray:
        """How many items are relevant to each user, in the list or not, (n_users,) int64."""
        return np.diff(self.relevant.indptr).astype(np.int64)

    def hits_at(self, k: int) -> np.ndarray:
        """Hits among the first k places, (n_users,) float64."""
        length = self.hits.shape[1]
        return self.cumulative[:, min(_check(k), length) - 1] if length else np.zeros(len(self.hits))

    def defined(self, values: np.ndarray) -> np.ndarray:
        """The values, NaN where nothing is relevant to a user."""
        return np.where(self.n_relevant > 0, values, np.nan)


def judge(lists: np.ndarray, relevant: csr_matrix) -> Judged:
    """Look up which listed items are relevant.

    - ``lists``, (n_users, length) int: item codes, best first; -1 where a list is shorter.
    - ``relevant``, (n_users, n_items): a stored entry is a relevant item; its value counts for :func:`graded_ndcg`
      alone. There may be items that no list can hold.

    ValueError if the shapes do not fit, or a code lies outside the columns.
    """
    n, width = relevant.shape
    lists = np.asarray(lists)
    if lists.ndim != 2 or len(lists) != n:
        raise ValueError(f"lists have the shape {lists.shape}, but there are {n} rows of relevant items")
    if lists.size and lists.max() >= width:
        raise ValueError(f"item code {lists.max()} is listed, but there are {width} items")
    cells = rows_of(relevant) * width + relevant.indices
    order = np.argsort(cells, kind="stable")
    asked = np.where(lists >= 0, np.arange(n)[:, None] * width + lists, -1).ravel()
    place = np.minimum(np.searchsorted(cells, asked, sorter=order), max(len(cells) - 1, 0))
    entries = np.full(asked.shape, -1, np.int32)
    if len(cells):
        hit = cells[order[place]] == asked
        entries[hit] = order[place[hit]]
    places = np.flatnonzero(entries >= 0)
    entries[np.delete(places, np.unique(entries[places], return_index=True)[1])] = -1  # listed again
    return Judged(entries.reshape(lists.shape), relevant)


def _check(k: int) -> int:
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    return k


def precision(judged: Judged, k: int) -> np.ndarray:
    """Share of the first k places that hold something relevant: ``hits@k / k``, however short the list is.

    Manning, Raghavan, Schuetze: Introduction to Information Retrieval, chapter 8, 2008.

    >>> judged = judge(np.array([[0, 1, 2, 3]]), csr_matrix(np.array([[1, 0, 1, 0, 1]])))
    >>> float(precision(judged, 4)[0])
    0.5
    """
    return judged.defined(judged.hits_at(k) / k)


def recall(judged: Judged, k: int) -> np.ndarray:
    """Share of what is relevant that stands in the first k places: ``hits@k / relevant``.

    >>> judged = judge(np.array([[0, 1, 2, 3]]), csr_matrix(np.array([[1, 0, 1, 0, 1]])))
    >>> float(recall(judged, 1)[0])
    0.3333333333333333
    """
    return judged.defined(judged.hits_at(k) / np.maximum(judged.n_relevant, 1))


def hit_rate(judged: Judged, k: int) -> np.ndarray:
    """1 where anything relevant stands in the first k places, else 0.

    >>> judged = judge(np.array([[3, 0]]), csr_matrix(np.array([[1, 0, 1, 0, 1]])))
    >>> float(hit_rate(judged, 1)[0]), float(hit_rate(judged, 2)[0])
    (0.0, 1.0)
    """
    return judged.defined(judged.hits_at(k) > 0)


def _discounts(k: int) -> np.ndarray:
    """Weight of each place, ``1 / log2(rank + 1)``, (k,) float64."""
    return 1 / np.log2(np.arange(1, _check(k) + 1) + 1)


def ndcg(judged: Judged, k: int) -> np.ndarray:
    """Discounted gain of the first k places, as a share of the best that was possible.

    ``sum over hits of 1 / log2(rank + 1)``, divided by the same sum over the first min(k, relevant) places, so that a
    perfect list scores 1.

    Jarvelin, Kekalainen: Cumulated gain-based evaluation of IR techniques, ACM TOIS 20(4), 2002.

    >>> judged = judge(np.array([[0, 1]]), csr_matrix(np.array([[1, 0, 1]])))
    >>> round(float(ndcg(judged, 2)[0]), 4)
    0.6131
    """
    weights = _discounts(k)
    gained = judged.hits[:, :k] @ weights[: judged.hits.shape[1]]
    most = np.concatenate([[0.0], np.cumsum(weights)])[np.minimum(judged.n_relevant, k)]
    return judged.defined(gained / np.where(judged.n_relevant > 0, most, 1))


def graded_ndcg(judged: Judged, k: int) -> np.ndarray:
    """NDCG whose gains are the stored values of the relevant items, not just 0 and 1.

    The ideal list has the largest values first. For the gains of Burges et al. (Learning to rank using gradient
    descent, ICML 2005), store ``2^value - 1``.

    >>> judged = judge(np.array([[0, 1]]), csr_matrix(np.array([[1, 2]])))
    >>> round(float(graded_ndcg(judged, 2)[0]), 4)
    0.8597
    """
    weights, values = _discounts(k), np.asarray(judged.relevant.data, np.float64)
    gains = np.append(values, 0.0)[judged.entries[:, :k]]  # -1 takes the last
    sizes, rows = judged.n_relevant, rows_of(judged.relevant)
    order, place = np.lexsort((-values, rows)), np.arange(len(values)) - judged.relevant.indptr[rows]
    ideal = csr_matrix((values[order], place, judged.relevant.indptr), shape=(len(sizes), max(sizes, default=0)))
    counted = np.zeros(ideal.shape[1])
    counted[:k] = weights[: len(counted)]
    most, reached = ideal @ counted, gains @ weights[: judged.hits.shape[1]]
    return judged.defined(np.divide(reached, most, out=np.zeros(len(gains)), where=most > 0))


def average_precision(judged: Judged, k: int) -> np.ndarray:
    """Mean of the precisions at the places of the hits; its mean over users is MAP@k.

    ``sum over hits at rank r <= k of (hits@r / r)``, divided by min(k, relevant), so that a perfect list scores 1.

    >>> judged = judge(np.array([[1, 0]]), csr_matrix(np.array([[1, 0, 1]])))
    >>> float(average_precision(judged, 2)[0])
    0.25
    """
    shown = min(_check(k), judged.hits.shape[1])
    at_hits = np.where(judged.hits[:, :shown], judged.cumulative[:, :shown], 0) @ (1 / np.arange(1, shown + 1))
    return judged.defined(at_hits / np.clip(judged.n_relevant, 1, k))


def reciprocal_rank(judged: Judged, k: int) -> np.ndarray:
    """``1 / rank`` of the first relevant item in the first k places, else 0.

    Voorhees: The TREC-8 question answering track report, 1999.

    >>> judged = judge(np.array([[3, 0]]), csr_matrix(np.array([[1, 0, 1, 0, 1]])))
    >>> float(reciprocal_rank(judged, 1)[0]), float(reciprocal_rank(judged, 2)[0])
    (0.0, 0.5)
    """
    hits = judged.hits[:, : _check(k)]
    if hits.shape[1] == 0:
        return judged.defined(np.zeros(len(hits)))
    first = hits.argmax(axis=1)
    return judged.defined(hits[np.arange(len(hits)), first] / (first + 1))


@dataclass(frozen=True)
class Positions:
    """Where each relevant item stands in the ranking of the whole catalogue."""

    rank: (
        np.ndarray
    )  # (relevant.nnz,) int64, ties in the order of the item codes; 0: cannot be listed (no score, no column)
    midrank: np.ndarray  # (relevant.nnz,) float64, the mean rank of all items with the same score; NaN: no column
    indptr: np.ndarray  # where each user's entries begin, (n_users + 1,)
    n_candidates: np.ndarray  # how many items were ranked, (n_users,) int64

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of values over each user's entries, (n_users,)."""
        return np.diff(np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])[self.indptr])

    @property
    def n_relevant(self) -> np.ndarray:
        """Relevant items of each user, (n_users,)."""
        return np.diff(self.indptr)


def positions(scores: np.ndarray, relevant: csr_matrix, *, exclude: csr_matrix | None = None) -> Positions:
    """Rank all relevant items among everything that could be listed.

    - ``scores``, (n_users, n_items) float: NaN and -inf: cannot be listed.
    - ``relevant``, (n_users, n_items or more): columns beyond the scores are items that no list can hold.
    - ``exclude``, (n_users, n_items): stored entries are not ranked at all.

    >>> ranked = positions(np.array([[3.0, 1.0, 1.0, 2.0]]), csr_matrix(np.array([[0, 0, 1, 1, 1]])))
    >>> ranked.rank.tolist(), ranked.midrank.tolist()
    ([4, 2, 0], [3.5, 2.0, nan])
    """
    scores = np.array(scores, dtype=np.float32)
    scores[np.isnan(scores)] = -np.inf
    if exclude is not None:
        scores[rows_of(exclude), exclude.indices] = np.nan
    rank, midrank = np.zeros(relevant.nnz, np.int64), np.full(relevant.nnz, np.nan)
    n_candidates = np.count_nonzero(~np.isnan(scores), axis=1)
    for row, (start, stop) in enumerate(pairwise(relevant.indptr)):
        entries = start + np.flatnonzero(relevant.indices[start:stop] < scores.shape[1])
        columns = relevant.indices[entries]
        own = scores[row, columns]
        if len(own) <= COUNTED:
            above, same = (np.count_nonzero(of(scores[row], own[:, None]), axis=1) for of in (np.greater, np.equal))
        else:  # a sort serves all relevant items of a user
            ordered = np.sort(scores[row])[: n_candidates[row]]
            lower, upper = (np.searchsorted(ordered, own, side) for side in ("left", "right"))
            above, same = len(ordered) - upper, upper - lower
        before = np.zeros(len(own), np.int64)  # equal scores of lower columns
        for place in np.flatnonzero(same > 1):
            before[place] = np.count_nonzero(scores[row, : columns[place]] == own[place])
        rank[entries] = np.where(np.isneginf(own) | np.isnan(own), 0, above + before + 1)
        midrank[entries] = above + (same + 1) / 2
    return Positions(rank, midrank, relevant.indptr, n_candidates)


def auc(positions: Positions) -> np.ndarray:
    """Chance that a relevant item stands above one that is not; equal scores count one half.

    ``(sum over relevant of (n + 1 - midrank) - p (p + 1) / 2) / (p (n - p))`` for n candidates, p of them relevant.
    An item outside the catalogue stands below everything.

    Hanley, McNeil: The meaning and use of the area under a ROC curve, Radiology 143, 1982.

    >>> ranked = positions(np.array([[4.0, 3.0, 2.0, 1.0]]), csr_matrix(np.array([[1, 0, 1, 0]])))
    >>> float(auc(ranked)[0])
    0.75
    """
    inside = ~np.isnan(positions.midrank)
    n, p = positions.n_candidates, positions._sums(inside)
    rows = np.repeat(np.arange(len(n)), positions.n_relevant)
    raised = positions._sums(np.where(inside, n[rows] + 1 - np.where(inside, positions.midrank, 0), 0))
    pairs = p * (n - p)
    share = p / np.maximum(positions.n_relevant, 1)
    values = np.where(pairs > 0, (raised - p * (p + 1) / 2) / np.maximum(pairs, 1) * share, np.nan)
    return np.where((p == 0) & (positions.n_relevant > 0), 0.0, values)


def full_reciprocal_rank(positions: Positions) -> np.ndarray:
    """``1 / rank`` of the first relevant item in the ranking of the whole catalogue: MRR without a cut-off.

    >>> ranked = positions(np.array([[4.0, 3.0, 2.0, 1.0]]), csr_matrix(np.array([[0, 0, 1, 1]])))
    >>> round(float(full_reciprocal_rank(ranked)[0]), 4)
    0.3333
    """
    best = np.zeros(len(positions.n_relevant))
    rows = np.repeat(np.arange(len(best)), positions.n_relevant)
    listed = positions.rank > 0
    np.maximum.at(best, rows[listed], 1 / positions.rank[listed])
    return np.where(positions.n_relevant > 0, best, np.nan)


def r_precision(positions: Positions) -> np.ndarray:
    """Precision at each user's own cut-off: at as many places as there are relevant items.

    >>> ranked = positions(np.array([[4.0, 3.0, 2.0, 1.0]]), csr_matrix(np.array([[1, 0, 1, 0]])))
    >>> float(r_precision(ranked)[0])
    0.5
    """
    within = (positions.rank > 0) & (positions.rank <= np.repeat(positions.n_relevant, positions.n_relevant))
    share = positions._sums(within) / np.maximum(positions.n_relevant, 1)
    return np.where(positions.n_relevant > 0, share, np.nan)


AT_K: dict[str, Callable[[Judged, int], np.ndarray]] = {
    "ndcg": ndcg,
    "precision": precision,
    "recall": recall,
    "hit_rate": hit_rate,
    "map": average_precision,
    "mrr": reciprocal_rank,
}


def at_cutoffs(judged: Judged, ks: Iterable[int]) -> dict[str, np.ndarray]:
    """All metrics with a cut-off, by column name: ``{"ndcg@10": (n_users,) float64, ...}``.

    >>> judged = judge(np.array([[0, 1]]), csr_matrix(np.array([[1, 0, 1]])))
    >>> list(at_cutoffs(judged, [1]))
    ['ndcg@1', 'precision@1', 'recall@1', 'hit_rate@1', 'map@1', 'mrr@1']
    """
    return {f"{name}@{k}": metric(judged, k) for name, metric in AT_K.items() for k in ks}
