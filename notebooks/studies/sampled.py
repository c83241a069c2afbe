"""Metrics of rankings against a few sampled items, as many papers have them. Nothing in the lab is chosen by them.

Where an item stands among 99 items drawn at random follows from its place in the whole ranking by chance alone, so it
can be drawn without scoring again. Krichene, Rendle: On sampled metrics for item recommendation, KDD 2020.
"""

from __future__ import annotations

import numpy as np

from recsys_lib.evaluation.metrics.ranking import Positions


def sampled_ranks(places: Positions, sampled: int = 99, *, seed: int = 0) -> np.ndarray:
    """Draw the rank of each relevant item among ``sampled`` irrelevant ones (or all, where there are fewer) and itself.

    Of the irrelevant items above it, hypergeometrically many are drawn.

    Returns
    -------
    ndarray of int64, parallel to ``places.rank``
        From 1; 0 where an item cannot be listed.

    Examples
    --------
    >>> places = Positions(np.array([1, 100]), np.array([1.0, 100.0]), np.array([0, 2]), np.array([101]))
    >>> sampled_ranks(places, 99).tolist()
    [1, 99]
    """
    rows = np.repeat(np.arange(len(places.n_candidates)), places.n_relevant)
    listed = places.rank > 0
    order = np.lexsort((np.where(listed, places.rank, np.iinfo(np.int64).max), rows))
    relevant_above = np.empty(len(rows), np.int64)
    relevant_above[order] = np.arange(len(rows)) - places.indptr[rows[order]]
    inside = np.bincount(rows, ~np.isnan(places.midrank), minlength=len(places.n_candidates)).astype(np.int64)
    irrelevant = (places.n_candidates - inside)[rows]
    above = np.clip(places.rank - 1 - relevant_above, 0, irrelevant)
    drawn = np.random.default_rng(seed).hypergeometric(above, irrelevant - above, np.minimum(sampled, irrelevant))
    return np.where(listed, 1 + drawn, 0)


def hit_rate(ranks: np.ndarray, places: Positions, k: int = 10) -> np.ndarray:
    """Share of each user's relevant items whose rank is at most k, (n_users,) float64.

    >>> places = Positions(np.array([1, 30]), np.array([1.0, 30.0]), np.array([0, 2]), np.array([101]))
    >>> hit_rate(places.rank, places).tolist()
    [0.5]
    """
    rows = np.repeat(np.arange(len(places.n_candidates)), places.n_relevant)
    hits = np.bincount(rows, (ranks > 0) & (ranks <= k), minlength=len(places.n_candidates))
    return hits / np.maximum(places.n_relevant, 1)
