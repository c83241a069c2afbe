"""From scores to lists: what is left out, how many, and in which order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_matrix

GROUPS = 8  # groups of columns for each place of a list
AT_ONCE = 2**20  # scores that are looked through at once: 4 MB, which stay in the cache


def merge_twins(scores: np.ndarray, twins: np.ndarray, exclude: csr_matrix | None = None) -> np.ndarray:
    """Leave one item of each group of twins to be listed in each row: the one with the highest score.

    Parameters
    ----------
    scores : ndarray, (n_rows, n_items) float
        Not changed.
    twins : ndarray, (n_items,) int
        Of each item, the first column of its group; an item without a twin is a group of its own.
    exclude : csr_matrix, (n_rows, n_items), optional
        A group of which one item is stored is left out as a whole.

    Returns
    -------
    ndarray, (n_rows, n_items)
        A copy with NaN for what is left out.

    Examples
    --------
    >>> merge_twins(np.array([[1.0, 3.0, 2.0]]), np.array([0, 1, 0]))
    array([[nan,  3.,  2.]])
    """
    grouped = np.flatnonzero(np.bincount(twins, minlength=len(twins))[twins] > 1)
    grouped = grouped[np.argsort(twins[grouped], kind="stable")]
    scores = np.array(scores)
    if len(grouped) == 0:
        return scores
    starts = np.flatnonzero(np.diff(twins[grouped], prepend=-1))
    group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(grouped)))
    part = np.fmax(scores[:, grouped], -np.inf)
    best = part == np.maximum.reduceat(part, starts, axis=1)[:, group]
    before = np.cumsum(best, axis=1) - best  # of equal twins the first is kept
    best &= before == before[:, starts][:, group]
    if exclude is not None:
        group_of_item = np.full(len(twins), -1)
        group_of_item[grouped] = group
        groups = group_of_item[exclude.indices]
        entries = np.flatnonzero(groups >= 0)
        rows = np.searchsorted(exclude.indptr, entries, side="right") - 1
        left = np.ones((len(scores), len(starts)), dtype=bool)
        left[rows, groups[entries]] = False
        best &= left[:, group]
    scores[:, grouped] = np.where(best, scores[:, grouped], np.nan)
    return scores


def top_k(
    scores: np.ndarray, k: int, *, exclude: csr_matrix | None = None, twins: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best columns of each row; ties go to the lower column, always.

    Parameters
    ----------
    scores : ndarray, (n_rows, n_items) float
        NaN and -inf mean "not to be listed". Not changed.
    k
        Length of the lists, at least 1.
    exclude : csr_matrix, (n_rows, n_items), optional
        Stored entries (whatever their value) are not listed.
    twins : ndarray, (n_items,) int, optional
        Items of the same group are one: see :func:`merge_twins`.

    Returns
    -------
    codes : ndarray, (n_rows, min(k, n_items)) int64
        Columns, best first; -1 where a row has no more to list.
    best : ndarray, same shape, float32
        Their scores; NaN beside -1.

    Examples
    --------
    >>> codes, best = top_k(np.array([[1.0, 3.0, 3.0, np.nan]]), 4)
    >>> codes, best
    (array([[ 1,  2,  0, -1]]), array([[ 3.,  3.,  1., nan]], dtype=float32))
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    scores = np.asarray(scores, dtype=np.float32)
    if twins is not None:
        scores = merge_twins(scores, twins, exclude)
    n_rows, n_items = scores.shape
    k = min(k, n_items)
    codes, best = np.full((n_rows, k), -1, np.int64), np.full((n_rows, k), np.nan, np.float32)
    step = max(1, AT_ONCE // max(n_items, 1))
    for start in range(0, n_rows if k else 0, step):
        rows = slice(start, start + step)
        part = np.fmax(scores[rows], np.float32(-np.inf))  # a copy, without NaN
        if exclude is not None:
            bounds = exclude.indptr[start : start + step + 1]
            columns = exclude.indices[bounds[0] : bounds[-1]]
            part[np.repeat(np.arange(len(part)), np.diff(bounds)), columns] = -np.inf
        codes[rows], best[rows] = _first(part, k)
    return codes, best


def _first(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """What :func:`top_k` says of rows without NaN; -inf is not to be listed."""
    rows, columns = _candidates(scores, k)
    counts = np.bincount(rows, minlength=len(scores))
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    codes = np.full((len(scores), max(k, counts.max())), -1, np.int64)
    best = np.full(codes.shape, -np.inf, np.float32)
    codes[rows, places], best[rows, places] = columns, scores[rows, columns]
    order = np.argsort(-best, axis=1, kind="stable")[:, :k]  # equal values stay in the order of their columns
    codes, best = (np.take_along_axis(table, order, axis=1) for table in (codes, best))
    best[codes < 0] = np.nan
    return codes, best


def _candidates(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, in that order, of all that may be among the k first of its row; few more than that.

    Columns are dealt into groups. At least k values of a row are no lower than the k-th of its groups' largest values,
    so what is lower than that is out. That takes a third of the time of a partition, and no longer where many are tied.
    """
    n_items = scores.shape[1]
    groups = min(n_items, GROUPS * k)
    dealt = n_items // groups * groups
    largest = scores[:, :dealt].reshape(len(scores), -1, groups).max(axis=1)
    rest = n_items - dealt
    np.maximum(largest[:, :rest], scores[:, dealt:], out=largest[:, :rest])
    border = np.sort(largest, axis=1)[:, -k, None]
    kept = scores >= np.maximum(border, np.finfo(np.float32).min)  # which -inf is not
    crowded = np.flatnonzero(np.count_nonzero(kept, axis=1) > 3 * k)  # of values equal to the border, k are enough
    tied = scores[crowded] == border[crowded]
    kept[crowded] &= ~tied | (np.cumsum(tied, axis=1, dtype=np.int32) <= k)
    return np.divmod(np.flatnonzero(kept), n_items)


def mmr(scores: np.ndarray, vectors: np.ndarray, k: int, diversity: float) -> np.ndarray:
    """Choose k of each row's candidates, each the best trade of score and unlikeness to those chosen before.

    Maximal marginal relevance: the next one maximises ``(1 - diversity) * score - diversity * max cosine`` with what
    is in the list; scores are moved to 0..1 in each row first.

    Parameters
    ----------
    scores : ndarray, (n, depth) float
        Of the candidates, best first; NaN behind the end of a row.
    vectors : ndarray, (n, depth, d) float
        Of the candidates, of unit length.
    diversity
        0 keeps the order, 1 looks at unlikeness alone.

    Returns
    -------
    ndarray, (n, min(k, depth)) int64
        Places among the candidates; -1 where a row has no more.

    References
    ----------
    J. Carbonell, J. Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998.

    Examples
    --------
    >>> vectors = np.array([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    >>> mmr(np.array([[1.0, 0.9, 0.5]]), vectors, 2, 0.0), mmr(np.array([[1.0, 0.9, 0.5]]), vectors, 2, 0.5)
    (array([[0, 1]]), array([[0, 2]]))
    """
    relevance = (1 - diversity) * _unit_range(scores)
    rows, nearest = np.arange(len(scores)), np.zeros(scores.shape)

    def value(place: int) -> np.ndarray:
        return relevance - diversity * nearest

    def add(place: int, chosen: np.ndarray) -> None:
        likeness = np.einsum("ijk,ik->ij", vectors, vectors[rows, chosen])
        np.copyto(nearest, likeness if place == 0 else np.maximum(nearest, likeness))

    return _greedy(scores, k, value, add)


def calibrate(
    scores: np.ndarray, kinds: np.ndarray, target: np.ndarray, k: int, diversity: float, smoothing: float = 0.01
) -> np.ndarray:
    """Choose k of each row's candidates so that their kinds come in the shares that they have in the user's history.

    Greedy for ``(1 - diversity) * mean score - diversity * KL(p | (1 - smoothing) q + smoothing p)``: p are the shares
    in the history, q those in the list; scores are moved to 0..1 in each row first.

    Parameters
    ----------
    scores : ndarray, (n, depth) float
        Of the candidates, best first; NaN behind the end of a row.
    kinds : ndarray, (n, depth, n_kinds) float
        Shares of each candidate in each kind, adding up to 1.
    target : ndarray, (n, n_kinds) float
        Shares in the user's history.

    Returns
    -------
    ndarray, (n, min(k, depth)) int64
        Places among the candidates; -1 where a row has no more.

    References
    ----------
    H. Steck, "Calibrated Recommendations", RecSys 2018.
    """
    relevance, rows, total = np.nan_to_num(_unit_range(scores)), np.arange(len(scores)), np.zeros(len(scores))
    sums, goal = np.zeros_like(target, dtype=np.float64), target[:, None, :]

    def value(place: int) -> np.ndarray:
        shares = (sums[:, None, :] + kinds) / (place + 1)
        ratio = goal / np.maximum((1 - smoothing) * shares + smoothing * goal, 1e-12)
        divergence = np.where(goal > 0, goal * np.log(np.maximum(ratio, 1e-12)), 0).sum(axis=2)
        return (1 - diversity) * (total[:, None] + relevance) / (place + 1) - diversity * divergence

    def add(place: int, chosen: np.ndarray) -> None:
        np.add(total, relevance[rows, chosen], out=total)
        np.add(sums, kinds[rows, chosen], out=sums)

    return _greedy(scores, k, value, add)


def _greedy(
    scores: np.ndarray, k: int, value: Callable[[int], np.ndarray], add: Callable[[int, np.ndarray], None]
) -> np.ndarray:
    """Choose k of each row's candidates one after another, each the one of the highest value, the first of equals.

    ``value(place)`` says what each candidate is worth at that place, (n, depth); ``add(place, chosen)`` is given the
    candidate chosen for each row, (n,). Candidates whose score is NaN are not chosen.
    """
    rows, left = np.arange(len(scores)), ~np.isnan(scores)
    chosen = np.full((len(scores), min(k, scores.shape[1])), -1, dtype=np.int64)
    for place in range(chosen.shape[1]):
        best = np.argmax(np.where(left, value(place).round(12), -np.inf), axis=1)
        chosen[:, place] = np.where(left[rows, best], best, -1)
        left[rows, best] = False
        add(place, best)
    return chosen


def _unit_range(scores: np.ndarray) -> np.ndarray:
    """Scores of each row moved to 0..1; NaN stays."""
    low, high = (np.fmin.reduce(scores, axis=1), np.fmax.reduce(scores, axis=1))
    span = np.where(high > low, high - low, 1)
    return (scores - low[:, None]) / span[:, None]
