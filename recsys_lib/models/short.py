"""Lists from short histories: what a few items say, beside what most users like."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from recsys_lib.models.lists import z_scores

FEW = 12  # items from which on, at the latest, a model's scores are listed as they are
TASTE = 6.0  # weight of genres and decades, where a history is neither empty nor whole
PRIOR = 20.0  # how many liked items with the traits of all that is liked each history is taken to hold as well


def with_popularity(
    scores: np.ndarray, histories: csr_matrix, few: int, liked_from: float, popular: np.ndarray, traits: np.ndarray
) -> np.ndarray:
    """Move scores of histories of fewer than ``few`` items towards what is popular, and popular with such a taste.

    With ``t = sqrt(n / few)`` for a history of n items, ``t z(score) + (1 - t) z(popular) + TASTE t (1 - t) taste``,
    on the scale of the model's own scores; z takes mean and standard deviation over what the user has not seen. Taste
    is naive Bayes on traits: ``sum over the item's traits of max(0, log(p(trait | history) / p(trait)))``, where p is
    among items liked, and p(trait | history) is drawn to p(trait) by ``PRIOR`` items.

    In ``scores``, (n, n_items) float32, NaN stays NaN. Ratings from ``liked_from`` on count as liked; ``popular``,
    (n_items,), is how many users like each item; ``traits``, (n_items, n_traits), are 1 where an item has one.

    D. Lewis, "Naive (Bayes) at Forty: The Independence Assumption in Information Retrieval", ECML 1998.
    """
    z, mean, spread = z_scores(scores, histories)
    common, _, _ = z_scores(np.tile(popular, (len(scores), 1)), histories)
    liked = histories.copy()
    liked.data = (histories.data >= liked_from).astype(np.float32)
    base = np.maximum(popular @ traits / popular.sum(), 1e-9)
    given = (liked @ traits + PRIOR * base) / (np.asarray(liked.sum(axis=1)) + PRIOR)
    taste = np.maximum(np.log(given / base), 0) @ traits.T
    t = np.sqrt(np.diff(histories.indptr)[:, None] / few)
    mixed = mean + spread * (t * z + (1 - t) * (common + TASTE * t * taste))
    return np.where(np.isnan(scores), np.nan, mixed).astype(np.float32)
