"""Nearest neighbours among items."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, diags_array, vstack

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.base import Recommender
from recsys_lib.models.stack.weights import confidence, whole

WEIGHTINGS = ("cosine", "tfidf", "bm25")
DENSE = 4096  # items up to which similarities are multiplied as a dense table,
MANY = 32  # where at least so many people are scored at once
_BLOCK = 1024  # items whose neighbours are sought at once


class ItemKNN(Recommender):
    """What was watched speaks for what the same people watched.

    ``score(u, i) = sum over the history of weight_uj * s_ij``, where s is the similarity of the columns,
    ``s_ij = a_i . a_j / (|a_i| |a_j| + shrinkage)``, kept for the ``neighbours`` most similar items of each j.

    Parameters
    ----------
    neighbours
        How many items each film of the history speaks for.
    weighting : {"cosine", "tfidf", "bm25"}
        What the entries of the columns are: the weights; weights times ``log(n_items / n_u)``, so that people who
        watch everything say less; or BM25 with ``k1=1.2`` and ``b=0.75`` in the place of the raw weights.
    shrinkage
        Draws the similarity of items that few people share towards 0.
    positive_from, low_weight
        How ratings become weights: :func:`recsys_lib.models.stack.weights.confidence`.
    half_life
        Films; recency of the history that is served. The similarities know no time.

    References
    ----------
    B. Sarwar, G. Karypis, J. Konstan, J. Riedl, "Item-based Collaborative Filtering Recommendation Algorithms",
    WWW 2001. M. Deshpande, G. Karypis, "Item-based Top-N Recommendation Algorithms", ACM TOIS 2004.
    """

    def __init__(
        self,
        *,
        neighbours: int = 500,
        weighting: str = "tfidf",
        shrinkage: float = 10.0,
        positive_from: float | None = 4.0,
        low_weight: float = 0.3,
        half_life: float | None = None,
    ) -> None:
        if weighting not in WEIGHTINGS:
            raise ValueError(f"weighting is {weighting!r}; it must be one of {', '.join(WEIGHTINGS)}")
        self.neighbours = neighbours
        self.weighting = weighting
        self.shrinkage = shrinkage
        self.positive_from = positive_from
        self.low_weight = low_weight
        self.half_life = half_life

    def _weights(self, histories: Histories, half_life: float | None) -> csr_matrix:
        return confidence(
            histories, self.train, positive_from=self.positive_from, low_weight=self.low_weight, half_life=half_life
        )

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        columns = person_weighting(self._weights(whole(train), None), self.weighting)
        self.similarity_ = similarities(columns, self.neighbours, self.shrinkage)

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        weights = self._weights(histories, self.half_life)
        # A third of the time for the memory of a small table; the sums have the same order and come out the same.
        if self.train.n_items <= DENSE and weights.shape[0] >= MANY:
            scores = weights @ self._dense_similarity()
        else:
            scores = (weights @ self.similarity_).toarray()
        scores[np.diff(histories.matrix.indptr) == 0] = np.nan
        return scores

    def _dense_similarity(self) -> np.ndarray:
        found = vars(self).get("_dense")
        if found is None or found[0] is not self.similarity_:
            self._dense = found = (self.similarity_, self.similarity_.toarray())
        return found[1]

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        weights = self._weights(history, self.half_life).toarray()[0]
        return (weights * self.similarity_[:, [item]].toarray().ravel())[history.matrix.indices]

    def _item_vectors(self) -> csr_matrix:
        return self._weights(whole(self.train), None).T.tocsr()


class SequenceKNN(ItemKNN):
    """What was watched speaks for what people watched soon before or after it.

    As :class:`ItemKNN`, with ``s_ij = c_ij / ((n_i n_j) ** power + shrinkage)``: c counts the people who had both
    within ``window`` films of each other, in their order of watching; n counts people. A film of a history speaks for
    its neighbours in time, and not for everything that the same people saw in other years.

    Parameters
    ----------
    window
        How many films apart, at most.
    power
        .5 is the cosine, 0 the bare count, which favours popular films.

    References
    ----------
    M. Ludewig, D. Jannach, "Evaluation of Session-based Recommendation Algorithms", UMUAI 2018 (session kNN, of
    which this is the item-to-item form).
    """

    def __init__(
        self,
        *,
        window: int = 40,
        power: float = 0.5,
        neighbours: int = 500,
        shrinkage: float = 10.0,
        positive_from: float | None = 4.0,
        low_weight: float = 0.3,
        half_life: float | None = 10.0,
    ) -> None:
        super().__init__(
            neighbours=neighbours,
            shrinkage=shrinkage,
            positive_from=positive_from,
            low_weight=low_weight,
            half_life=half_life,
        )
        self.window = window
        self.power = power

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        if train.timestamps is None:
            raise ValueError("SequenceKNN needs timestamps, and the interactions have none")
        weights = self._weights(whole(train), None)
        counts = within_window(train, weights, self.window)
        people = np.asarray(weights.sum(axis=0)).ravel() ** self.power
        blocks = []
        for start in range(0, train.n_items, _BLOCK):
            dense = counts[start : start + _BLOCK].toarray()
            dense /= np.maximum(people[start : start + _BLOCK, None] * people + np.float32(self.shrinkage), 1e-9)
            blocks.append(_largest(dense, self.neighbours))
        self.similarity_ = vstack(blocks, format="csr", dtype=np.float32)


def within_window(train: Interactions, weights: csr_matrix, window: int) -> csr_matrix:
    """Sum the products of weights of two items over the people who had them at most ``window`` films apart.

    Returns
    -------
    csr_matrix, (n_items, n_items) float32
        Symmetric, with nothing on the diagonal.
    """
    rows = train.row_of_entry
    value = np.asarray(weights[rows, train.matrix.indices]).ravel().astype(np.float32)
    order = np.lexsort((train.matrix.indices, train.timestamps, rows))
    order = order[value[order] > 0]
    rows, columns, value = rows[order], train.matrix.indices[order], value[order]
    total = csr_matrix((train.n_items, train.n_items), dtype=np.float32)
    for apart in range(1, window + 1):
        same = np.flatnonzero(rows[apart:] == rows[:-apart])
        if len(same) == 0:
            break
        product = value[same] * value[same + apart]
        total = total + csr_matrix((product, (columns[same], columns[same + apart])), shape=total.shape)
    return (total + total.T).tocsr()


def person_weighting(weights: csr_matrix, weighting: str) -> csr_matrix:
    """Weigh the rows by how much the person tells: ``cosine`` (all alike), ``tfidf`` or ``bm25``.

    Examples
    --------
    >>> person_weighting(csr_matrix(np.array([[1.0, 1.0], [1.0, 0.0]])), "tfidf").toarray().round(2)
    array([[0.  , 0.  ],
           [0.69, 0.  ]])
    """
    if weighting == "cosine":
        return weights
    lengths = np.diff(weights.indptr)
    idf = np.log(weights.shape[1] / np.maximum(lengths, 1))
    if weighting == "tfidf":
        return (diags_array(idf.astype(weights.dtype)) @ weights).tocsr()
    counts = np.bincount(weights.indices, minlength=weights.shape[1])
    norm = 0.25 + 0.75 * counts[weights.indices] / counts.mean()
    data = weights.data * 2.2 / (weights.data + 1.2 * norm)
    bm25 = csr_matrix((data.astype(weights.dtype), weights.indices, weights.indptr), shape=weights.shape)
    return (diags_array(idf.astype(weights.dtype)) @ bm25).tocsr()


def similarities(columns: csr_matrix, neighbours: int, shrinkage: float) -> csr_matrix:
    """Shrunk cosine between columns, the ``neighbours`` largest of each row, none with itself.

    Returns
    -------
    csr_matrix, (n_items, n_items) float32
        Row j: the items that j speaks for. Works block by block: memory is block x n_items.
    """
    norms = np.sqrt(np.asarray(columns.multiply(columns).sum(axis=0)).ravel()).astype(np.float32)
    rows, n_items = columns.T.tocsr(), columns.shape[1]
    blocks = []
    for start in range(0, n_items, _BLOCK):
        stop = min(start + _BLOCK, n_items)
        dense = (rows[start:stop] @ columns).toarray()
        scale = norms[start:stop, None] * norms + np.float32(shrinkage)
        dense = np.divide(dense, scale, out=np.zeros_like(dense), where=scale > 0)
        dense[np.arange(stop - start), np.arange(start, stop)] = 0
        blocks.append(_largest(dense, neighbours))
    return vstack(blocks, format="csr", dtype=np.float32)


def _largest(dense: np.ndarray, neighbours: int) -> csr_matrix:
    """Keep the largest values of each row, those that are not zero."""
    if neighbours < dense.shape[1]:
        border = -np.partition(-dense, neighbours - 1, axis=1)[:, [neighbours - 1]]
        dense = np.where(dense >= border, dense, 0)
    return csr_matrix(dense)
