"""Gradient-boosted trees for a yes or no, kept as one plain array: no pickle, and numpy alone to serve them."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

BLOCK = 2048  # rows that go down all trees at once


def grow(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    trees: int = 80,
    rate: float = 0.08,
    leaves: int = 15,
    depth: int = 6,
    penalty: float = 5.0,
    share: float = 0.5,
    seed: int = 0,
) -> np.ndarray:
    """Fit trees one after another, each to what the ones before leave of the log loss.

    Parameters
    ----------
    features : ndarray, (n, n_features) float32
    labels : ndarray, (n,) bool
    trees, rate
        How many, and how much of each counts.
    leaves, depth
        The largest that a tree may be.
    penalty
        On the squares of the leaves' values.
    share
        Of the features, drawn anew for each division.

    Returns
    -------
    ndarray, (5, trees, most nodes) float64
        Of each node: which feature, up to which value to the left, the node to the left, the node to the right (a
        leaf leads to itself), and the value of a leaf. The first tree starts from the log odds of the labels.

    References
    ----------
    J. Friedman, "Greedy Function Approximation: A Gradient Boosting Machine", Annals of Statistics 29, 2001. G. Ke and
    others, "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NIPS 2017 (histograms of the features).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # what serves a model does without

    if trees == 0 or labels.all() or not labels.any():
        return np.zeros((5, 1, 1))
    model = HistGradientBoostingClassifier(
        max_iter=trees,
        learning_rate=rate,
        max_leaf_nodes=leaves,
        max_depth=depth,
        l2_regularization=penalty,
        max_features=share,
        early_stopping=False,
        random_state=seed,
    )
    with threadpool_limits(1, user_api="openmp"):  # sums over threads would depend on how many there are
        model.fit(features, labels)
    grown = [predictor.nodes for (predictor,) in model._predictors]
    table = np.zeros((5, len(grown), max(map(len, grown))))
    for number, nodes in enumerate(grown):
        own, leaf = np.arange(len(nodes)), nodes["is_leaf"].astype(bool)
        places = [np.where(leaf, own, nodes[side]) for side in ("left", "right")]
        rows = [np.where(leaf, 0, nodes["feature_idx"]), np.where(leaf, 0, nodes["num_threshold"]), *places]
        table[:, number, : len(nodes)] = [*rows, np.where(leaf, nodes["value"], 0)]
    leaves_of_first = table[2, 0] == np.arange(table.shape[2])
    table[4, 0] += np.where(leaves_of_first, float(np.ravel(model._baseline_prediction)[0]), 0)
    return table


def tree_scores(table: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Sum of what the trees of :func:`grow` say of each row: log odds, (n,) float64.

    Examples
    --------
    >>> stump = np.array([[[0, 0, 0]], [[0.5, 0, 0]], [[1, 1, 2]], [[2, 1, 2]], [[0, -1, 1]]], dtype=float)
    >>> tree_scores(stump, np.array([[0.2], [0.7]], dtype=np.float32))
    array([-1.,  1.])
    """
    feature, left, right = (table[row].astype(np.int32).ravel() for row in (0, 2, 3))
    threshold, value = table[1].ravel(), table[4].ravel()
    trees, nodes = table.shape[1:]
    roots = (np.arange(trees) * nodes).astype(np.int32)
    left, right = (side + np.repeat(roots, nodes) for side in (left, right))
    total = np.empty(len(features))
    for start in range(0, len(features), BLOCK):
        block = np.ascontiguousarray(features[start : start + BLOCK])
        flat, offset = block.ravel(), (np.arange(len(block)) * block.shape[1])[:, None]
        node = np.broadcast_to(roots, (len(block), trees))
        while True:
            goes_left = flat[offset + feature[node]] <= threshold[node]
            following = np.where(goes_left, left[node], right[node])
            if np.array_equal(following, node):
                break
            node = following
        total[start : start + BLOCK] = value[node].sum(axis=1)
    return total
