"""Metrics beyond accuracy: diversity, novelty, popularity and calibration of lists, right or not.

Lists are arrays of item codes, (n_users, length) int64, best first, -1 where a list is shorter. Metrics give one value
a user, NaN where there is none; :func:`coverage` and :func:`gini` describe all lists together.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import with_values


def incidence(lists: np.ndarray, n_items: int, k: int) -> csr_matrix:
    """Who is shown what among the first k places, (n_users, n_items) float64 of zeros and ones."""
    shown = lists[:, :k]
    rows, places = np.nonzero(shown >= 0)
    matrix = csr_matrix((np.ones(len(rows)), (rows, shown[rows, places])), shape=(len(lists), n_items))
    matrix.data[:] = 1.0  # an item that stands twice is shown once
    return matrix


def _mean_of_shown(shown: csr_matrix, values: np.ndarray) -> np.ndarray:
    """Mean of an item's value over each list, NaN where a list is empty."""
    sizes = np.diff(shown.indptr)
    return np.where(sizes > 0, shown @ values / np.maximum(sizes, 1), np.nan)


def coverage(lists: np.ndarray, n_items: int, k: int) -> float:
    """Share of the catalogue that stands in the first k places of any user's list.

    Ge, Delgado-Battenfeld, Jannach: Beyond accuracy: evaluating recommender systems by coverage and serendipity,
    RecSys 2010.

    >>> coverage(np.array([[0, 1], [0, 2]]), 4, 2)
    0.75
    """
    return float((incidence(lists, n_items, k).sum(axis=0) > 0).mean())


def gini(lists: np.ndarray, n_items: int, k: int) -> float:
    """How unevenly places are shared out among the items: 0 all alike, towards 1 when a few items hold them all.

    ``sum_i (2 i - n - 1) x_i / (n sum x)`` over the counts x in ascending order, of the whole catalogue.

    Shani, Gunawardana: Evaluating recommendation systems, in Recommender Systems Handbook, 2011.

    >>> gini(np.array([[0], [1], [2]]), 3, 1), round(gini(np.array([[0], [0], [0]]), 3, 1), 4)
    (0.0, 0.6667)
    """
    counts = np.sort(np.asarray(incidence(lists, n_items, k).sum(axis=0)).ravel())
    if counts.sum() == 0:
        return float("nan")
    weights = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float(weights @ counts / (n_items * counts.sum()))


def novelty(lists: np.ndarray, popularity: np.ndarray, n_users: int, k: int) -> np.ndarray:
    """Mean self-information of what is shown, in bits: ``-log2(share of users who have met the item)``.

    ``popularity`` is how many users have met each item; an item that nobody met counts as met by one.

    Zhou, Kuscsik, Liu, Medo, Wakeling, Zhang: Solving the apparent diversity-accuracy dilemma of recommender systems,
    PNAS 107(10), 2010.

    >>> novelty(np.array([[0, 1]]), np.array([4, 2]), 4, 2).tolist()
    [0.5]
    """
    information = -np.log2(np.maximum(popularity, 1) / n_users)
    return _mean_of_shown(incidence(lists, len(popularity), k), information)


def intra_list_diversity(lists: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    """Mean distance (1 - cosine) between any two items of a list; items whose vector is zero are left out.

    ``vectors``, (n_items, d), are genres as zeros and ones, or an embedding.

    Ziegler, McNee, Konstan, Lausen: Improving recommendation lists through topic diversification, WWW 2005.

    >>> genres = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> intra_list_diversity(np.array([[0, 2], [0, 1]]), genres, 2).tolist()
    [0.0, 1.0]
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros(vectors.shape), where=norms > 0)
    shown = incidence(lists, len(vectors), k)
    counted = shown @ (norms[:, 0] > 0).astype(float)
    alike = np.square(shown @ unit).sum(axis=1) - counted  # over ordered pairs of different items
    pairs = counted * (counted - 1)
    return np.where(pairs > 0, 1 - alike / np.maximum(pairs, 1), np.nan)


def serendipity(lists: np.ndarray, hits: np.ndarray, expected: np.ndarray, k: int) -> np.ndarray:
    """Share of the first k places with something relevant that plain popularity would not have shown.

    ``hits``, (n_users, length) bool, are places that hold something relevant; ``expected`` are lists of popular items
    for the same users, of which the first k count.

    Ge, Delgado-Battenfeld, Jannach: Beyond accuracy: evaluating recommender systems by coverage and serendipity,
    RecSys 2010.

    >>> serendipity(np.array([[3, 0]]), np.array([[True, True]]), np.array([[0, 1]]), 2).tolist()
    [0.5]
    """
    shown = lists[:, :k]
    foreseen = (shown[:, :, None] == expected[:, None, :k]).any(axis=2)
    return (hits[:, :k] & ~foreseen & (shown >= 0)).sum(axis=1) / k


def popularity_lift(lists: np.ndarray, popularity: np.ndarray, histories: csr_matrix, k: int) -> np.ndarray:
    """How much more popular a list is than what the user had chosen: ``mean(list) / mean(history) - 1``.

    Abdollahpouri, Mansoury, Burke, Mobasher: The unfairness of popularity bias in recommendation, RMSE workshop at
    RecSys 2019.

    >>> popularity_lift(np.array([[0]]), np.array([30, 10]), csr_matrix(np.array([[0, 1]])), 1).tolist()
    [2.0]
    """
    before = _mean_of_shown(with_values(histories, np.ones(histories.nnz)), popularity)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _mean_of_shown(incidence(lists, len(popularity), k), popularity) / before - 1


def genre_shares(shown: csr_matrix, genres: np.ndarray) -> np.ndarray:
    """Share of each genre in what is shown, (n_users, n_genres); an item's unit is divided among its genres.

    NaN where nothing with a genre is shown.
    """
    size = genres.sum(axis=1, keepdims=True)
    shares = shown @ np.divide(genres, size, out=np.zeros(genres.shape), where=size > 0)
    whole = shares.sum(axis=1, keepdims=True)
    return np.divide(shares, whole, out=np.full(shares.shape, np.nan), where=whole > 0)


def miscalibration(lists: np.ndarray, genres: np.ndarray, histories: csr_matrix, k: int) -> np.ndarray:
    """How far a list's genres are from those of the user's history: ``KL(p || .99 q + .01 p)``, in nats.

    p is the share of each genre in the history, q in the first k places; 0 is calibrated. ``genres``, (n_items,
    n_genres), are zeros and ones. A hundredth of p smooths q, so that a missing genre does not cost infinitely much.

    Steck: Calibrated recommendations, RecSys 2018.

    >>> genres = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> history = csr_matrix(np.array([[5, 5]]))
    >>> [round(float(miscalibration(np.array([row]), genres, history, 2)[0]), 3) for row in ([0, 1], [0, -1])]
    [0.0, 1.959]
    """
    p = genre_shares(with_values(histories, np.ones(histories.nnz)), genres)  # each item weighs the same
    q = genre_shares(incidence(lists, len(genres), k), genres)
    smooth = (1 - 0.01) * q + 0.01 * p
    ratio = np.divide(p, smooth, out=np.ones(p.shape), where=p > 0)
    return np.where(np.isnan(p[:, 0]) | np.isnan(q[:, 0]), np.nan, (p * np.log(ratio)).sum(axis=1))


def overlap(lists: np.ndarray, n_items: int, k: int) -> np.ndarray:
    """Mean share of the k places that a user's list has in common with another's.

    One minus its mean is called personalisation: 1 when no two users are shown the same.

    >>> overlap(np.array([[0, 1], [0, 1], [2, 3]]), 4, 2).tolist()
    [0.5, 0.5, 0.0]
    """
    shown = incidence(lists, n_items, k)
    others = np.asarray(shown.sum(axis=0)).ravel() - 1.0
    if shown.shape[0] < 2:
        return np.full(shown.shape[0], np.nan)
    return shown @ others / (k * (shown.shape[0] - 1))
