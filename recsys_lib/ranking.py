"""From scores to lists: what is left out, how many, and in which order."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix


def top_k(scores: np.ndarray, k: int, *, exclude: csr_matrix | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best columns of each row; ties go to the lower column, always.

    Parameters
    ----------
    scores : ndarray, (n_rows, n_items) float
        NaN and -inf mean "not to be listed". Not changed.
    k
        Length of the lists, at least 1.
    exclude : csr_matrix, (n_rows, n_items), optional
        Stored entries (whatever their value) are not listed.

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
    scores = np.array(scores, dtype=np.float32)
    scores[np.isnan(scores)] = -np.inf
    if exclude is not None:
        rows = np.repeat(np.arange(exclude.shape[0]), np.diff(exclude.indptr))
        scores[rows, exclude.indices] = -np.inf
    n_items = scores.shape[1]
    k = min(k, n_items)
    if k == 0:
        return np.empty((len(scores), 0), np.int64), np.empty((len(scores), 0), np.float32)
    codes = _partition(scores, k)
    best = np.take_along_axis(scores, codes, axis=1)
    empty = np.isneginf(best)
    return np.where(empty, -1, codes), np.where(empty, np.float32(np.nan), best)


def _partition(scores: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k largest values of each row, ordered by (-value, column)."""
    if k >= scores.shape[1]:
        return np.argsort(-scores, axis=1, kind="stable")
    candidates = np.sort(np.argpartition(scores, -k, axis=1)[:, -k:], axis=1)
    values = np.take_along_axis(scores, candidates, axis=1)
    codes = np.take_along_axis(candidates, np.argsort(-values, axis=1, kind="stable"), axis=1)
    # argpartition picks any of the columns tied at the border: rows where more columns than places hold the
    # border's value are sorted whole.
    border = values.min(axis=1, keepdims=True)
    unsure = np.flatnonzero(((scores >= border).sum(axis=1) > k) & ~np.isneginf(border[:, 0]))
    if len(unsure):
        codes[unsure] = np.argsort(-scores[unsure], axis=1, kind="stable")[:, :k]
    return codes


def _unit_range(scores: np.ndarray) -> np.ndarray:
    """Scores of each row moved to 0..1; NaN (a place behind the end of a row) stays."""
    low, high = (np.fmin.reduce(scores, axis=1), np.fmax.reduce(scores, axis=1))
    span = np.where(high > low, high - low, 1)
    return (scores - low[:, None]) / span[:, None]


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
    worth = (1 - diversity) * np.nan_to_num(_unit_range(scores), nan=-np.inf)
    rows = np.arange(len(scores))
    likeness = np.full(scores.shape, 0.0)
    chosen = np.empty((len(scores), min(k, scores.shape[1])), dtype=np.int64)
    for place in range(chosen.shape[1]):
        value = worth - diversity * likeness
        best = np.argmax(value.round(12), axis=1)
        chosen[:, place] = np.where(np.isneginf(value[rows, best]), -1, best)
        worth[rows, best] = -np.inf
        near = np.einsum("ijk,ik->ij", vectors, vectors[rows, best])
        likeness = near if place == 0 else np.maximum(likeness, near)
    return chosen


def calibrate(
    scores: np.ndarray, kinds: np.ndarray, target: np.ndarray, k: int, diversity: float, smoothing: float = 0.01
) -> np.ndarray:
    """Choose k of each row's candidates so that their kinds come in the shares in which the person likes them.

    Greedy for ``(1 - diversity) * mean score - diversity * KL(p | (1 - smoothing) q + smoothing p)``: p are the shares
    in the history, q those in the list; scores are moved to 0..1 in each row first.

    Parameters
    ----------
    scores : ndarray, (n, depth) float
        Of the candidates, best first; NaN behind the end of a row.
    kinds : ndarray, (n, depth, n_kinds) float
        Shares of each candidate in each kind, adding up to 1.
    target : ndarray, (n, n_kinds) float
        Shares in the person's history.

    Returns
    -------
    ndarray, (n, min(k, depth)) int64
        Places among the candidates; -1 where a row has no more.

    References
    ----------
    H. Steck, "Calibrated Recommendations", RecSys 2018.
    """
    worth = np.nan_to_num(_unit_range(scores), nan=-np.inf)
    rows, total = np.arange(len(scores)), np.zeros(len(scores))
    sums = np.zeros_like(target, dtype=np.float64)
    chosen = np.empty((len(scores), min(k, scores.shape[1])), dtype=np.int64)
    goal = target[:, None, :]
    for place in range(chosen.shape[1]):
        shares = (sums[:, None, :] + kinds) / (place + 1)
        ratio = goal / np.maximum((1 - smoothing) * shares + smoothing * goal, 1e-12)
        gap = np.where(goal > 0, goal * np.log(np.maximum(ratio, 1e-12)), 0).sum(axis=2)
        value = (1 - diversity) * (total[:, None] + worth) / (place + 1) - diversity * gap
        best = np.argmax(value.round(12), axis=1)
        there = ~np.isneginf(value[rows, best])
        chosen[:, place] = np.where(there, best, -1)
        total += np.where(there, worth[rows, best], 0)
        sums += np.where(there[:, None], kinds[rows, best], 0)
        worth[rows, best] = -np.inf
    return chosen
