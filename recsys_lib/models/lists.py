"""From scores to lists: what is left out, how many, and in which order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import row_starts, rows_of, with_values

SCORES_PER_BLOCK = 2**20  # scores that are searched at once: 4 MB, which stay in the cache


def merge_twins(scores: np.ndarray, twins: np.ndarray, exclude: csr_matrix | None = None) -> np.ndarray:
    """Leave one item of each group of twins to be listed in each row: the one with the highest score.

    - ``scores``, (n_rows, n_items) float: a copy is returned, with NaN for what is left out.
    - ``twins``, (n_items,) int: of each item, the first column of its group; an item without a twin is a group of its
      own.
    - ``exclude``, (n_rows, n_items): a group of which one item is stored is left out as a whole.

    >>> merge_twins(np.array([[1.0, 3.0, 2.0]]), np.array([0, 1, 0]))
    array([[nan,  3.,  2.]])
    """
    scores = np.array(scores)
    grouped = np.flatnonzero(np.bincount(twins, minlength=len(twins))[twins] > 1)
    grouped = grouped[np.argsort(twins[grouped], kind="stable")]
    if len(grouped) == 0:
        return scores
    starts = np.flatnonzero(np.diff(twins[grouped], prepend=-1))
    group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(grouped)))
    part = np.fmax(scores[:, grouped], -np.inf)
    best = part == np.maximum.reduceat(part, starts, axis=1)[:, group]
    before = np.cumsum(best, axis=1) - best  # of equal twins the first is kept
    best &= before == before[:, starts][:, group]
    if exclude is not None:
        seen = with_values(exclude, np.ones(exclude.nnz, bool))[:, grouped].toarray()
        best &= ~np.logical_or.reduceat(seen, starts, axis=1)[:, group]
    scores[:, grouped] = np.where(best, scores[:, grouped], np.nan)
    return scores


def top_k(
    scores: np.ndarray, k: int, *, exclude: csr_matrix | None = None, twins: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best columns of each row; ties go to the lower column, always.

    - ``scores``, (n_rows, n_items) float: NaN and -inf mean "not to be listed".
    - ``exclude``, (n_rows, n_items): stored entries (whatever their value) are not listed.
    - ``twins``, (n_items,) int: items of the same group are one: see :func:`merge_twins`.

    Returns ``codes``, (n_rows, min(k, n_items)) int64: columns, best first; -1 where a row has no more to list.
    ``best``, same shape, float32: their scores; NaN beside -1.

    >>> top_k(np.array([[1.0, 3.0, 3.0, np.nan]]), 4)
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
    step = max(1, SCORES_PER_BLOCK // max(n_items, 1))
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
    """Do the work of :func:`top_k` for rows without NaN; -inf is not to be listed."""
    border = np.partition(scores, -k, axis=1)[:, -k, None]
    kept = scores >= np.maximum(border, np.finfo(np.float32).min)  # which -inf is not
    crowded = np.flatnonzero(np.count_nonzero(kept, axis=1) > k)
    tied = scores[crowded] == border[crowded]  # of values equal to the border the first ones are kept
    above = kept[crowded] & ~tied
    kept[crowded] = above | (
        tied & (np.cumsum(tied, axis=1, dtype=np.int32) <= k - np.count_nonzero(above, axis=1, keepdims=True))
    )
    rows, columns = np.divmod(np.flatnonzero(kept), kept.shape[1])  # half the time of np.nonzero
    places = np.arange(len(rows)) - row_starts(rows, len(scores))[rows]
    codes, best = np.full((len(scores), k), -1, np.int64), np.full((len(scores), k), np.nan, np.float32)
    codes[rows, places], best[rows, places] = columns, scores[rows, columns]
    order = np.argsort(-best, axis=1, kind="stable")  # equal values stay in the order of their columns, NaN comes last
    return np.take_along_axis(codes, order, axis=1), np.take_along_axis(best, order, axis=1)


def mmr(scores: np.ndarray, vectors: np.ndarray, k: int, diversity: float) -> np.ndarray:
    """Choose k of each row's candidates, each the best trade of score and unlikeness to those chosen before.

    Maximal marginal relevance: the next one maximises ``(1 - diversity) * score - diversity * max cosine`` with what
    is in the list; scores are moved to 0..1 in each row first.

    - ``scores``, (n, depth) float: of the candidates, best first; NaN behind the end of a row.
    - ``vectors``, (n, depth, d) float: of the candidates, of unit length.
    - ``diversity``: 0 keeps the order, 1 goes by unlikeness alone.

    Returns (n, min(k, depth)) int64: places among the candidates; -1 where a row has no more.

    J. Carbonell, J. Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998.

    >>> vectors = np.array([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    >>> mmr(np.array([[1.0, 0.9, 0.5]]), vectors, 2, 0.0), mmr(np.array([[1.0, 0.9, 0.5]]), vectors, 2, 0.5)
    (array([[0, 1]]), array([[0, 2]]))
    """
    relevance, rows, nearest = (1 - diversity) * _unit_range(scores), np.arange(len(scores)), None

    def value(last: np.ndarray | None) -> np.ndarray:
        nonlocal nearest
        if last is None:
            return relevance
        likeness = np.einsum("ijk,ik->ij", vectors, vectors[rows, last])
        nearest = likeness if nearest is None else np.maximum(nearest, likeness)
        return relevance - diversity * nearest

    return _greedy(scores, k, value)


def calibrate(scores: np.ndarray, kinds: np.ndarray, target: np.ndarray, k: int, diversity: float) -> np.ndarray:
    """Choose k of each row's candidates so that their kinds come in the shares that they have in the user's history.

    Greedy for ``(1 - diversity) * mean score - diversity * KL(p | .99 q + .01 p)``: p are the shares in the history, q
    those in the list. Scores, ``diversity`` and what is returned are as in :func:`mmr`.

    - ``kinds``, (n, depth, n_kinds) float: shares of each candidate in each kind, adding up to 1.
    - ``target``, (n, n_kinds) float: shares in the user's history.

    H. Steck, "Calibrated Recommendations", RecSys 2018.
    """
    relevance, rows, goal = np.nan_to_num(_unit_range(scores)), np.arange(len(scores)), target[:, None, :]
    total, sums, size = np.zeros(len(scores)), np.zeros(target.shape), 0

    def value(last: np.ndarray | None) -> np.ndarray:
        nonlocal total, sums, size
        if last is not None:
            total, sums = total + relevance[rows, last], sums + kinds[rows, last]
        size += 1
        shares = (sums[:, None, :] + kinds) / size
        ratio = goal / np.maximum((1 - 0.01) * shares + 0.01 * goal, 1e-12)
        divergence = np.where(goal > 0, goal * np.log(np.maximum(ratio, 1e-12)), 0).sum(axis=2)
        return (1 - diversity) * (total[:, None] + relevance) / size - diversity * divergence

    return _greedy(scores, k, value)


def _greedy(scores: np.ndarray, k: int, value: Callable[[np.ndarray | None], np.ndarray]) -> np.ndarray:
    """Choose k of each row's candidates one after another, each the one of the highest value, the first of equals.

    ``value(last)`` is what each candidate is worth, (n, depth), after the candidates chosen last, (n,), None at first.
    Candidates whose score is NaN are not chosen.
    """
    rows, left, best = np.arange(len(scores)), ~np.isnan(scores), None
    chosen = np.full((len(scores), min(k, scores.shape[1])), -1, dtype=np.int64)
    for place in range(chosen.shape[1]):
        best = np.argmax(np.where(left, value(best).round(12), -np.inf), axis=1)
        chosen[:, place] = np.where(left[rows, best], best, -1)
        left[rows, best] = False
    return chosen


def _unit_range(scores: np.ndarray) -> np.ndarray:
    """Scores of each row moved to 0..1; NaN stays."""
    low, high = (np.fmin.reduce(scores, axis=1), np.fmax.reduce(scores, axis=1))
    span = np.where(high > low, high - low, 1)
    return (scores - low[:, None]) / span[:, None]


def z_scores(scores: np.ndarray, seen: csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores by mean and standard deviation of each row's unseen items, (n, n_items); the latter two, (n, 1) each."""
    counted = np.isfinite(scores)
    counted[rows_of(seen), seen.indices] = False
    return standardised(scores, counted)


def standardised(values: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shift and scale each row so that what is counted has mean 0 and standard deviation 1; NaN becomes 0.

    Also returns the mean and the standard deviation, (n, 1) float64 each; 1 for a row of equal values.

    >>> standardised(np.array([[1.0, 2.0, 3.0, 9.0]]), np.array([[True, True, True, False]]))[0].round(2)
    array([[-1.22,  0.  ,  1.22,  8.57]])
    """
    n = np.maximum(counted.sum(axis=1, keepdims=True), 1)
    mean = np.where(counted, values, 0).sum(axis=1, keepdims=True, dtype=np.float64) / n
    centred = values - mean.astype(values.dtype)
    squares = np.where(counted, centred, 0)
    np.square(squares, out=squares)
    spread = np.sqrt(squares.sum(axis=1, keepdims=True, dtype=np.float64) / n)
    spread[spread < 1e-12] = 1
    centred /= spread.astype(values.dtype)
    return centred if np.isfinite(centred).all() else np.nan_to_num(centred, nan=0.0), mean, spread
