"""Gradient-boosted trees for a yes or no, kept as one plain array: no pickle, and numpy alone to serve them."""

from __future__ import annotations

from typing import Any

import numpy as np

ROWS_PER_BLOCK = 512  # rows that go down all trees at once
PARAMS = {
    "objective": "binary",
    "learning_rate": 0.08,
    "num_leaves": 15,
    "max_depth": 6,
    "lambda_l2": 5.0,
    "feature_fraction_bynode": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


def grow(features: np.ndarray, labels: np.ndarray, trees: int = 80) -> np.ndarray:
    """Fit trees by LightGBM, one after another, each to what the ones before leave of the log loss.

    ``features`` are (n, n_features) float32, ``labels`` (n,) bool. Returns (5, trees, most nodes) float64: of each
    node: which feature, up to which value to the left, the node to the left, the node to the right (a leaf leads to
    itself), and the value of a leaf. The first tree starts from the log odds of the labels.

    J. Friedman, "Greedy Function Approximation: A Gradient Boosting Machine", Annals of Statistics 29, 2001. G. Ke and
    others, "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NIPS 2017.
    """
    import lightgbm  # what serves a model does without

    if trees == 0 or labels.all() or not labels.any():
        return np.zeros((5, 1, 1))
    data = lightgbm.Dataset(features, labels.astype(np.float32), params={"verbosity": -1})
    grown = [_nodes(tree["tree_structure"]) for tree in lightgbm.train(PARAMS, data, trees).dump_model()["tree_info"]]
    table = np.zeros((5, len(grown), max(map(len, grown))))
    for number, nodes in enumerate(grown):
        table[:, number, : len(nodes)] = np.array(nodes).T
    return table


def _nodes(tree: dict[str, Any]) -> list[tuple[float, ...]]:
    """Nodes of a tree as LightGBM describes it: feature, threshold, place to the left and to the right, value."""
    nodes: list[tuple[float, ...]] = []

    def add(node: dict[str, Any]) -> int:
        place = len(nodes)
        nodes.append((0, 0, place, place, node.get("leaf_value", 0)))
        if "split_feature" in node:
            sides = add(node["left_child"]), add(node["right_child"])
            nodes[place] = (node["split_feature"], node["threshold"], *sides, 0)
        return place

    add(tree)
    return nodes


def tree_scores(table: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Sum of what the trees of :func:`grow` give each row: log odds, (n,) float64.

    >>> stump = np.array([[[0, 0, 0]], [[0.5, 0, 0]], [[1, 1, 2]], [[2, 1, 2]], [[0, -1, 1]]], dtype=float)
    >>> tree_scores(stump, np.array([[0.2], [0.7]], dtype=np.float32))
    array([-1.,  1.])
    """
    roots = np.arange(table.shape[1], dtype=np.int32) * table.shape[2]  # nodes are numbered through all trees
    feature = table[0].astype(np.int32).ravel()
    children = np.stack([table[3], table[2]], axis=-1).astype(np.int32) + roots[:, None, None]  # (right, left)
    children, threshold, value = children.ravel(), table[1].ravel(), table[4].ravel()
    total = np.empty(len(features))
    for start in range(0, len(features), ROWS_PER_BLOCK):
        block = np.ascontiguousarray(features[start : start + ROWS_PER_BLOCK])
        flat, offset = block.ravel(), (np.arange(len(block), dtype=np.int32) * block.shape[1])[:, None]
        node = np.broadcast_to(roots, (len(block), len(roots)))
        while True:
            left = flat.take(offset + feature.take(node)) <= threshold.take(node)
            following = children.take(2 * node + left)
            if np.array_equal(following, node):
                break
            node = following
        total[start : start + ROWS_PER_BLOCK] = value[node].sum(axis=1)
    return total
