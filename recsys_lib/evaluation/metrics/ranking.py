"""Ranking metrics: one value a person first, means after.

All of them read a :class:`Judged`: for each person, which places of the list hold something relevant. Libraries
differ in details (what precision divides by, how long NDCG's ideal list is); each function names our convention first
and takes the others as an argument. What was seen to differ, with the argument that gives it:

==================  ==================================  ====================================================
metric              ours                                others
==================  ==================================  ====================================================
NDCG                ideal of min(k, relevant) items     RecTools: of k items always (``ideal="k"``)
NDCG                discount 1 / log2(rank + 1)         LensKit: 1 / max(log2 rank, 1) (``"lenskit"``)
precision           over k                              implicit: hits of all people over the sum of their
                                                        min(k, relevant) (``divisor="min"``, weighted by it)
recall              over all that is relevant           LensKit: over min(k, relevant) (``divisor="min"``)
average precision   over min(k, relevant)               trec_eval, ranx: over all (``divisor="relevant"``)
nothing relevant    no value (NaN)                      trec_eval: left out, or 0
ties                lower item code first               trec_eval: later name first
item listed twice   counts at its first place           trec_eval, ranx: cannot be given
==================  ==================================  ====================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

SCRATCH = 4_000_000  # cells of the table that lists are looked up in, at most


@dataclass(frozen=True)
class Judged:
    """Lists held against what turned out to be relevant.

    Attributes
    ----------
    hits : ndarray of bool, (n_users, length)
        Whether the item at each place is relevant. An item that stands in a list twice counts at its first place.
    n_relevant : ndarray of int64, (n_users,)
        How many items are relevant to each person, in the list or not.
    lengths : ndarray of int64, (n_users,)
        How many places of each list are filled.
    gains : ndarray of float64, (n_users, length), or None
        What each hit is worth, 0 elsewhere; None where relevance is yes or no.
    ideal : csr_matrix of float64, (n_users, largest n_relevant), or None
        The worths of the best list possible, whatever the length of the lists.

    Examples
    --------
    >>> relevant = csr_matrix(np.array([[1, 0, 1, 0, 1], [0, 0, 0, 0, 0]]))
    >>> judged = judge(np.array([[0, 1, 2], [4, -1, -1]]), relevant)
    >>> judged.hits.tolist(), judged.n_relevant.tolist(), judged.lengths.tolist()
    ([[True, False, True], [False, False, False]], [3, 0], [3, 1])
    """

    hits: np.ndarray
    n_relevant: np.ndarray
    lengths: np.ndarray
    gains: np.ndarray | None = None
    ideal: csr_matrix | None = None

    @cached_property
    def cumulative(self) -> np.ndarray:
        """Hits up to and with each place, (n_users, length) float64."""
        return np.cumsum(self.hits, axis=1, dtype=np.float64)

    @property
    def length(self) -> int:
        """Places in a list."""
        return self.hits.shape[1]

    def hits_at(self, k: int) -> np.ndarray:
        """Hits among the first k places, (n_users,) float64."""
        if self.length == 0:
            return np.zeros(len(self.hits))
        return self.cumulative[:, min(k, self.length) - 1]

    def defined(self, values: np.ndarray) -> np.ndarray:
        """The values, NaN where a person has nothing relevant."""
        return np.where(self.n_relevant > 0, values, np.nan)


def judge(lists: np.ndarray, relevant: csr_matrix, *, graded: bool = False) -> Judged:
    """Look up which listed items are relevant.

    Parameters
    ----------
    lists : ndarray of int, (n_users, length)
        Item codes, best first; -1 where a list is shorter.
    relevant : csr_matrix, (n_users, n_items)
        A stored entry is a relevant item, whatever its value. There may be items that no list can hold.
    graded
        Take the stored values as worths, for :func:`graded_ndcg`.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a code lies outside the columns.
    """
    lists = np.asarray(lists)
    if lists.ndim != 2 or len(lists) != relevant.shape[0]:
        raise ValueError(
            f"lists have the shape {lists.shape}, but there are {relevant.shape[0]} rows of relevant items"
        )
    if lists.size and lists.max() >= relevant.shape[1]:
        raise ValueError(f"item code {lists.max()} is listed, but there are {relevant.shape[1]} items")
    values = np.asarray(relevant.data, np.float64) if graded else None
    gains = _look_up(lists, relevant, values)
    hits = gains > 0 if not graded else _look_up(lists, relevant, None) > 0
    repeated = _repeated(lists, hits)
    hits[repeated] = False
    n_relevant = np.diff(relevant.indptr).astype(np.int64)
    lengths = (lists >= 0).sum(axis=1)
    if not graded:
        return Judged(hits, n_relevant, lengths)
    return Judged(hits, n_relevant, lengths, np.where(hits, gains, 0.0), _ideal(relevant, values))


def _look_up(lists: np.ndarray, relevant: csr_matrix, values: np.ndarray | None) -> np.ndarray:
    """Value of each listed item, 0 where it is not relevant; a block of people at a time through a dense table."""
    n, width = relevant.shape
    dtype = np.bool_ if values is None else np.float64
    found = np.zeros(lists.shape, dtype)
    if lists.size == 0:
        return found
    step = max(1, min(n, SCRATCH // (width + 1)))
    table = np.zeros(step * (width + 1), dtype)
    for start in range(0, n, step):
        stop = min(start + step, n)
        entries = slice(relevant.indptr[start], relevant.indptr[stop])
        base = np.arange(stop - start) * (width + 1)
        cells = np.repeat(base, np.diff(relevant.indptr[start : stop + 1])) + relevant.indices[entries]
        table[cells] = True if values is None else values[entries]
        # -1 falls on the cell before a row's first: the spare last cell of the row before, or of the last row
        found[start:stop] = table[lists[start:stop] + base[:, None]]
        table[cells] = 0
    return found


def _repeated(lists: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Places where a relevant item stands again, (n_users, length) bool."""
    again = np.zeros(hits.shape, bool)
    places = np.flatnonzero(hits)
    if len(places) == 0:
        return again
    keys = places // hits.shape[1] * (int(lists.max()) + 1) + lists.ravel()[places]
    first = np.unique(keys, return_index=True)[1]
    if len(first) < len(keys):
        again.ravel()[np.delete(places, first)] = True
    return again


def _ideal(relevant: csr_matrix, values: np.ndarray) -> csr_matrix:
    """The values of each row, descending, in its first columns."""
    sizes = np.diff(relevant.indptr)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((-values, rows))
    place = np.arange(len(values)) - relevant.indptr[rows]
    return csr_matrix((values[order], place, relevant.indptr), shape=(len(sizes), max(sizes, default=0)))


def _check(k: int) -> int:
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    return k


def _choice(name: str, given: str, choices: tuple[str, ...]) -> None:
    if given not in choices:
        raise ValueError(f"{name} is {given!r}; it must be one of {', '.join(map(repr, choices))}")


def precision(judged: Judged, k: int, *, divisor: str = "k") -> np.ndarray:
    """Share of the first k places that hold something relevant: ``hits@k / k``.

    Parameters
    ----------
    divisor : {"k", "list", "min"}
        Ours divides by k, so a short list loses. "list": by the places filled; "min": by min(k, relevant), as
        implicit does before it averages.

    Returns
    -------
    ndarray of float64, (n_users,)
        NaN where nothing is relevant.

    References
    ----------
    Manning, Raghavan, Schuetze: Introduction to Information Retrieval, chapter 8, 2008.

    Examples
    --------
    >>> judged = judge(np.array([[0, 1, 2, 3]]), csr_matrix(np.array([[1, 0, 1, 0, 1]])))
    >>> float(precision(judged, 4)[0])
    0.5
    """
    _choice("divisor", divisor, ("k", "list", "min"))
    hits = judged.hits_at(_check(k))
    below = {"k": k, "list": np.clip(judged.lengths, 1, k), "min": np.clip(judged.n_relevant, 1, k)}[divisor]
    return judged.defined(hits / below)


def recall(judged: Judged, k: int, *, divisor: str = "relevant") -> np.ndarray:
    """Share of what is relevant that stands in the first k places: ``hits@k / relevant``.

    Parameters
    ----------
    divisor : {"relevant", "min"}
        Ours divides by all that is relevant; "min": by min(k, relevant), as LensKit does.

    Examples
    --------
    >>> judged = judge(np.array([[0, 1, 2, 3]]), csr_matrix(np.array([[1, 0, 1, 0, 1]])))
    >>> float(recall(judged, 1)[0]), float(recall(judged, 1, divisor="min")[0])
    (0.3333333333333333, 1.0)
    """
    _choice("divisor", divisor, ("relevant", "min"))
    most = np.maximum(judged.n_relevant, 1) if divisor == "relevant" else np.clip(judged.n_relevant, 1, k)
    return judged.defined(judged.hits_at(_check(k)) / most)


def hit_rate(judged: Judged, k: int) -> np.ndarray:
    """1 where anything relevant stands in the first k places, else 0.

    Examples
    --------
    >>> judged = judge(np.array([[3, 0]]), csr_matrix(np.array([[1, 0, 1, 0, 1]])))
    >>> float(hit_rate(judged, 1)[0]), float(hit_rate(judged, 2)[0])
    (0.0, 1.0)
    """
    return judged.defined(judged.hits_at(_check(k)) > 0)


def discounts(k: int, discount: str = "log2") -> np.ndarray:
    """Weight of each place, (k,) float64.

    ``1 / log2(rank + 1)`` by default (Jarvelin and Kekalainen as all libraries but one read them); "lenskit":
    ``1 / max(log2 rank, 1)``, the first two places alike.
    """
    _choice("discount", discount, ("log2", "lenskit"))
    ranks = np.arange(1, k + 1)
    return 1 / np.log2(ranks + 1) if discount == "log2" else 1 / np.maximum(np.log2(ranks), 1)


def ndcg(judged: Judged, k: int, *, ideal: str = "min", discount: str = "log2") -> np.ndarray:
    """Discounted gain of the first k places, as a share of the best that was possible.

    ``sum over hits of 1 / log2(rank + 1)``, divided by the same sum over the first min(k, relevant) places.

    Parameters
    ----------
    ideal : {"min", "k"}
        Ours: the ideal list holds min(k, relevant) items, so a perfect list scores 1. "k" assumes k of them always
        (RecTools's default): a person with one relevant item cannot score more than 0.22 at k = 10.
    discount : {"log2", "lenskit"}
        See :func:`discounts`.

    References
    ----------
    Jarvelin, Kekalainen: Cumulated gain-based evaluation of IR techniques, ACM TOIS 20(4), 2002.

    Examples
    --------
    >>> judged = judge(np.array([[0, 1]]), csr_matrix(np.array([[1, 0, 1]])))
    >>> round(float(ndcg(judged, 2)[0]), 4)
    0.6131
    """
    _choice("ideal", ideal, ("min", "k"))
    weights = discounts(_check(k), discount)
    gained = judged.hits[:, :k] @ weights[: judged.length]
    best = np.concatenate([[0.0], np.cumsum(weights)])
    most = best[np.minimum(judged.n_relevant, k)] if ideal == "min" else best[k]
    return judged.defined(gained / np.where(judged.n_relevant > 0, most, 1))


def graded_ndcg(judged: Judged, k: int, *, gain: str = "linear") -> np.ndarray:
    """NDCG whose gains are worths, not just 0 and 1.

    Parameters
    ----------
    judged
        Made with ``judge(..., graded=True)``.
    gain : {"linear", "exponential"}
        The worth itself (Jarvelin and Kekalainen 2002, trec_eval), or ``2^worth - 1`` (Burges et al.: Learning to
        rank using gradient descent, ICML 2005).

    Examples
    --------
    >>> judged = judge(np.array([[0, 1]]), csr_matrix(np.array([[1, 2]])), graded=True)
    >>> round(float(graded_ndcg(judged, 2)[0]), 4)
    0.8597
    """
    _choice("gain", gain, ("linear", "exponential"))
    if judged.gains is None:
        raise ValueError("graded NDCG needs worths: judge(lists, relevant, graded=True)")
    weights = discounts(_check(k))
    worth, best = judged.gains[:, :k], judged.ideal
    if gain == "exponential":
        worth, best = np.exp2(worth) - 1, best.copy()
        best.data = np.exp2(best.data) - 1
    counted = np.zeros(best.shape[1])
    counted[:k] = weights[: len(counted)]
    most, reached = best @ counted, worth @ weights[: judged.length]
    return judged.defined(np.divide(reached, most, out=np.zeros(len(worth)), where=most > 0))


def average_precision(judged: Judged, k: int, *, divisor: str = "min") -> np.ndarray:
    """Mean of the precisions at the places of the hits; its mean over people is MAP@k.

    ``sum over hits at rank r <= k of (hits@r / r)``, divided by min(k, relevant), so a perfect list scores 1.

    Parameters
    ----------
    divisor : {"min", "relevant", "k"}
        Ours is min(k, relevant); "relevant": by all that is relevant (ranx, ir-measures); "k": by k.

    Examples
    --------
    >>> judged = judge(np.array([[1, 0]]), csr_matrix(np.array([[1, 0, 1]])))
    >>> float(average_precision(judged, 2)[0])
    0.25
    """
    _choice("divisor", divisor, ("min", "relevant", "k"))
    shown = min(_check(k), judged.length)
    at_hits = np.where(judged.hits[:, :shown], judged.cumulative[:, :shown], 0) @ (1 / np.arange(1, shown + 1))
    most = {"min": np.clip(judged.n_relevant, 1, k), "relevant": np.maximum(judged.n_relevant, 1), "k": k}[divisor]
    return judged.defined(at_hits / most)


def reciprocal_rank(judged: Judged, k: int | None = None) -> np.ndarray:
    """``1 / rank`` of the first relevant item in the first k places (in the whole list without k), else 0.

    References
    ----------
    Voorhees: The TREC-8 question answering track report, 1999.

    Examples
    --------
    >>> judged = judge(np.array([[3, 0]]), csr_matrix(np.array([[1, 0, 1, 0, 1]])))
    >>> float(reciprocal_rank(judged, 1)[0]), float(reciprocal_rank(judged)[0])
    (0.0, 0.5)
    """
    hits = judged.hits[:, : None if k is None else _check(k)]
    if hits.shape[1] == 0:
        return judged.defined(np.zeros(len(hits)))
    first = hits.argmax(axis=1)
    return judged.defined(hits[np.arange(len(hits)), first] / (first + 1))


def r_precision(judged: Judged) -> np.ndarray:
    """Precision at the person's own cut-off: at as many places as there are relevant items.

    Lists must be as long as that for the value to be exact; missing places count as misses.

    Examples
    --------
    >>> judged = judge(np.array([[0, 1, 2]]), csr_matrix(np.array([[1, 0, 1]])))
    >>> float(r_precision(judged)[0])
    0.5
    """
    if judged.length == 0:
        return judged.defined(np.zeros(len(judged.hits)))
    last = np.clip(judged.n_relevant, 1, judged.length) - 1
    return judged.defined(judged.cumulative[np.arange(len(last)), last] / np.maximum(judged.n_relevant, 1))


@dataclass(frozen=True)
class Positions:
    """Where each relevant item stands in the ranking of the whole catalogue.

    Attributes
    ----------
    rank : ndarray of int64, (relevant.nnz,)
        From 1, ties in the order of the item codes; 0 where an item cannot be listed (no score, or no column).
    midrank : ndarray of float64, (relevant.nnz,)
        The mean rank of all items with the same score; NaN where an item has no column.
    indptr : ndarray of int, (n_users + 1,)
        Where each person's entries begin.
    n_candidates : ndarray of int64, (n_users,)
        How many items were ranked.
    """

    rank: np.ndarray
    midrank: np.ndarray
    indptr: np.ndarray
    n_candidates: np.ndarray

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of values over each person's entries, (n_users,)."""
        return np.diff(np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])[self.indptr])

    @property
    def n_relevant(self) -> np.ndarray:
        """Relevant items of each person, (n_users,)."""
        return np.diff(self.indptr)


def positions(scores: np.ndarray, relevant: csr_matrix, *, exclude: csr_matrix | None = None) -> Positions:
    """Rank all relevant items among everything that could be listed.

    Parameters
    ----------
    scores : ndarray, (n_users, n_items) float
        NaN and -inf: cannot be listed.
    relevant : csr_matrix, (n_users, n_items or more)
        Columns beyond the scores are items that no list can hold.
    exclude : csr_matrix, (n_users, n_items), optional
        Stored entries are not ranked at all.

    Examples
    --------
    >>> found = positions(np.array([[3.0, 1.0, 1.0, 2.0]]), csr_matrix(np.array([[0, 0, 1, 1, 1]])))
    >>> found.rank.tolist(), found.midrank.tolist()
    ([4, 2, 0], [3.5, 2.0, nan])
    """
    scores = np.array(scores, dtype=np.float32)
    scores[np.isnan(scores)] = -np.inf
    if exclude is not None:
        scores[np.repeat(np.arange(len(scores)), np.diff(exclude.indptr)), exclude.indices] = np.nan
    rows = np.repeat(np.arange(relevant.shape[0]), np.diff(relevant.indptr))
    rank, midrank = np.zeros(relevant.nnz, np.int64), np.full(relevant.nnz, np.nan)
    inside = np.flatnonzero(relevant.indices < scores.shape[1])
    step = max(1, SCRATCH // max(scores.shape[1], 1))
    for start in range(0, len(inside), step):
        part = inside[start : start + step]
        column = relevant.indices[part]
        own = scores[rows[part], column]
        others = scores[rows[part]]
        above, same = (others > own[:, None]).sum(axis=1), others == own[:, None]
        before = (same & (np.arange(scores.shape[1]) < column[:, None])).sum(axis=1)
        rank[part] = np.where(np.isneginf(own) | np.isnan(own), 0, above + before + 1)
        midrank[part] = above + (same.sum(axis=1) + 1) / 2
    return Positions(rank, midrank, relevant.indptr, (~np.isnan(scores)).sum(axis=1))


def auc(found: Positions) -> np.ndarray:
    """Chance that a relevant item stands above one that is not; equal scores count one half.

    ``(sum over relevant of (n + 1 - midrank) - p (p + 1) / 2) / (p (n - p))`` for n candidates, p of them relevant.
    An item outside the catalogue stands below everything.

    References
    ----------
    Hanley, McNeil: The meaning and use of the area under a receiver operating characteristic curve, Radiology 143,
    1982.

    Examples
    --------
    >>> found = positions(np.array([[4.0, 3.0, 2.0, 1.0]]), csr_matrix(np.array([[1, 0, 1, 0]])))
    >>> float(auc(found)[0])
    0.75
    """
    inside = ~np.isnan(found.midrank)
    n, p = found.n_candidates, found._sums(inside)
    rows = np.repeat(np.arange(len(n)), found.n_relevant)
    raised = found._sums(np.where(inside, n[rows] + 1 - np.where(inside, found.midrank, 0), 0))
    pairs = p * (n - p)
    share = p / np.maximum(found.n_relevant, 1)
    values = np.where(pairs > 0, (raised - p * (p + 1) / 2) / np.maximum(pairs, 1) * share, np.nan)
    return np.where((p == 0) & (found.n_relevant > 0), 0.0, values)


def full_reciprocal_rank(found: Positions) -> np.ndarray:
    """``1 / rank`` of the first relevant item in the ranking of the whole catalogue: MRR without a cut-off.

    >>> found = positions(np.array([[4.0, 3.0, 2.0, 1.0]]), csr_matrix(np.array([[0, 0, 1, 1]])))
    >>> round(float(full_reciprocal_rank(found)[0]), 4)
    0.3333
    """
    best = np.zeros(len(found.n_relevant))
    rows = np.repeat(np.arange(len(best)), found.n_relevant)
    listed = found.rank > 0
    np.maximum.at(best, rows[listed], 1 / found.rank[listed])
    return np.where(found.n_relevant > 0, best, np.nan)


def full_r_precision(found: Positions) -> np.ndarray:
    """R-precision in the ranking of the whole catalogue, however many items are relevant.

    >>> found = positions(np.array([[4.0, 3.0, 2.0, 1.0]]), csr_matrix(np.array([[1, 0, 1, 0]])))
    >>> float(full_r_precision(found)[0])
    0.5
    """
    within = (found.rank > 0) & (found.rank <= np.repeat(found.n_relevant, found.n_relevant))
    return np.where(found.n_relevant > 0, found._sums(within) / np.maximum(found.n_relevant, 1), np.nan)


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

    Examples
    --------
    >>> judged = judge(np.array([[0, 1]]), csr_matrix(np.array([[1, 0, 1]])))
    >>> list(at_cutoffs(judged, [1]))
    ['ndcg@1', 'precision@1', 'recall@1', 'hit_rate@1', 'map@1', 'mrr@1']
    """
    return {f"{name}@{k}": metric(judged, k) for name, metric in AT_K.items() for k in ks}
