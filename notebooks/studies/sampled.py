"""What ranking against a few sampled items would have claimed. Nothing in the lab is chosen by it.

Many papers rank each relevant item against 99 items drawn at random instead of the whole catalogue. The place among
those follows from the place in the whole ranking by chance alone, so it can be drawn without scoring again.

Krichene, Rendle: On sampled metrics for item recommendation, KDD 2020.
"""

from __future__ import annotations

import numpy as np

from recsys_lib.evaluation.metrics.ranking import Positions


def sampled_ranks(found: Positions, sampled: int = 99, *, seed: int = 0) -> np.ndarray:
    """Draw the rank of each relevant item among ``sampled`` irrelevant ones and itself.

    Of the irrelevant items above it, hypergeometrically many are drawn.

    Parameters
    ----------
    found
        Places in the whole ranking, from :func:`recsys_lib.evaluation.metrics.ranking.positions`.
    sampled
        How many irrelevant items are drawn for each relevant one, without repetition; all where there are fewer.

    Returns
    -------
    ndarray of int64, parallel to ``found.rank``
        From 1; 0 where an item cannot be listed.

    Examples
    --------
    >>> found = Positions(np.array([1, 100]), np.array([1.0, 100.0]), np.array([0, 2]), np.array([101]))
    >>> sampled_ranks(found, 99).tolist()
    [1, 99]
    """
    rows = np.repeat(np.arange(len(found.n_candidates)), found.n_relevant)
    listed = found.rank > 0
    order = np.lexsort((np.where(listed, found.rank, np.iinfo(np.int64).max), rows))
    relevant_above = np.empty(len(rows), np.int64)
    relevant_above[order] = np.arange(len(rows)) - found.indptr[rows[order]]
    inside = np.bincount(rows, ~np.isnan(found.midrank), minlength=len(found.n_candidates)).astype(np.int64)
    irrelevant = (found.n_candidates - inside)[rows]
    above = np.clip(found.rank - 1 - relevant_above, 0, irrelevant)
    drawn = np.random.default_rng(seed).hypergeometric(above, irrelevant - above, np.minimum(sampled, irrelevant))
    return np.where(listed, 1 + drawn, 0)


def of_ranks(ranks: np.ndarray, found: Positions, k: int = 10) -> dict[str, np.ndarray]:
    """Hit rate and NDCG of each relevant item by itself, averaged for each person.

    Parameters
    ----------
    ranks
        From :func:`sampled_ranks`, or ``found.rank`` for the whole catalogue.

    Returns
    -------
    dict
        "hit_rate@k" and "ndcg@k", (n_users,) float64 each.

    Examples
    --------
    >>> found = Positions(np.array([1, 30]), np.array([1.0, 30.0]), np.array([0, 2]), np.array([101]))
    >>> {name: value.tolist() for name, value in of_ranks(found.rank, found).items()}
    {'hit_rate@10': [0.5], 'ndcg@10': [0.5]}
    """
    rows = np.repeat(np.arange(len(found.n_candidates)), found.n_relevant)
    hit = (ranks > 0) & (ranks <= k)
    gain = np.where(hit, 1 / np.log2(np.maximum(ranks, 1) + 1), 0.0)
    sizes = found.n_relevant
    means = [np.bincount(rows, part, minlength=len(sizes)) / np.maximum(sizes, 1) for part in (hit, gain)]
    return {f"hit_rate@{k}": means[0], f"ndcg@{k}": means[1]}
