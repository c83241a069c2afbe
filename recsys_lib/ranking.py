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
