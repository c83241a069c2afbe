"""Nearest neighbours among items."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, diags_array, vstack

from recsys_lib.data.interactions import Histories, Interactions, oldest_first, rows_of, with_values
from recsys_lib.models.lists import top_k
from recsys_lib.models.weights import Weighted

WEIGHTINGS = ("cosine", "tfidf", "bm25")
ITEMS_PER_BLOCK = 1024  # items whose neighbours are sought at once


class Neighbours(Weighted):
    """Score items by their similarity to those of the history: ``score(u, i) = sum over j of weight_uj s_ji``.

    - ``neighbours``: how many items each item adds to; of equally similar ones those of the lower columns.
    - ``shrinkage``: draws the similarity of items that few users share towards 0.
    - ``half_life``: as in :func:`.weights.confidence`; it counts in the history that is served, not in similarities.
    """

    updatable = True
    needs_history = True
    neighbours: int = 500
    shrinkage: float = 10.0

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        return (self._weights(histories) @ self.similarity_).toarray()

    def scores_to_list(
        self, histories: csr_matrix | Histories, users: Iterable | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As of all models; items that nothing in the history leads to follow by popularity, with scores below 0."""
        scores, fallback = super().scores_to_list(histories, users)
        counts = self.train.item_counts / (self.train.item_counts.max() + 1) - 1
        return np.where((scores == 0) & ~fallback[:, None], counts, scores), fallback

    def _similarity(self, codes: np.ndarray) -> np.ndarray:
        table = self.similarity_[codes].toarray()
        return np.where(table != 0, table, np.nan)

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        weights = self._weights(history).toarray()[0]
        return (weights * self.similarity_[:, [item]].toarray().ravel())[history.matrix.indices]


class ItemKNN(Neighbours):
    """Items are similar that the same users watched.

    :class:`Neighbours` with the cosine of columns, shrunk: ``s_ij = a_i . a_j / (|a_i| |a_j| + shrinkage)``.

    ``weighting`` ("cosine" | "tfidf" | "bm25"): what the entries of the columns are: the weights; weights times
    ``log(n_items / n_u)``, so that users who watch everything count for less; or BM25 with ``k1=1.2`` and ``b=0.75`` in
    the place of the raw weights.

    B. Sarwar, G. Karypis, J. Konstan, J. Riedl, "Item-based Collaborative Filtering Recommendation Algorithms", WWW
    2001. M. Deshpande, G. Karypis, "Item-based Top-N Recommendation Algorithms", ACM TOIS 2004.
    """

    weighting: str = "tfidf"

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting is {self.weighting!r}; it must be one of {', '.join(WEIGHTINGS)}")

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        columns = user_weighting(self._entries(train), self.weighting)
        norms = np.sqrt(np.asarray(columns.multiply(columns).sum(axis=0)).ravel()).astype(np.float32)
        rows, others = columns.T.tocsr(), self._apart(norms)

        def similarity(block: slice) -> csr_matrix:
            table = (rows[block] @ columns).tocsr()
            scale = norms[block][rows_of(table)] * others[table.indices] + np.float32(self.shrinkage)
            table.data = np.divide(table.data, scale, out=np.zeros_like(table.data), where=scale > 0)
            return table

        self.similarity_ = nearest(similarity, train.n_items, self.neighbours)

    def _entries(self, train: Interactions) -> csr_matrix:
        return self._weights_fitted()

    def _apart(self, norms: np.ndarray) -> np.ndarray:
        return norms


class AttributeKNN(ItemKNN):
    """Items are similar that have attributes in common: :class:`ItemKNN` with attributes in the place of users.

    Attributes are what stands in the column ``genres``: genres, or brands and categories. With ``weighting="tfidf"``
    rare ones count more. Items that nobody had yet are scored like others. Of items with the same attributes chance
    goes first, by less than a thousandth: their numbers can tell in which order users had them.
    """

    shrinkage: float = 0.0

    def _entries(self, train: Interactions) -> csr_matrix:
        if self.genres is None:
            raise ValueError("AttributeKNN needs genres, and no item has one: fit(..., items=items), with 'genres'")
        return csr_matrix(self.genres.T, dtype=np.float32)

    def _apart(self, norms: np.ndarray) -> np.ndarray:
        return norms * np.random.default_rng(0).permutation(np.linspace(1, 1.001, len(norms), dtype=np.float32))


class SequenceKNN(Neighbours):
    """An item leads to those that users watched soon after it, and to those soon before it as far as ``backward`` says.

    :class:`Neighbours` with ``s_ij = (c_ij + backward * c_ji) / (n_i ** power * n_j ** next_power + shrinkage)``: c_ij
    sums ``apart ** -decay`` over the users who had j at most ``window`` items after i, n counts users. So
    :meth:`similar_items` lists what follows an item. Entries of the same second count in the order of their columns:
    with those, ``backward=1`` alone makes up no order.

    - ``window``: how many items apart, at most.
    - ``decay``: how fast a pair counts less with the distance; 0: all alike.
    - ``backward``: what a pair counts against its direction: 1 forgets the order, 0 follows it alone.
    - ``power``, ``next_power``: of the audience of the item in the history, and of the one that it leads to (None: as
      ``power``). .5 for both is the cosine, 0 the bare count, which favours popular items.

    M. Ludewig, D. Jannach, "Evaluation of Session-based Recommendation Algorithms", UMUAI 2018 (session kNN, of which
    this is the item-to-item form). S. Kamehkhosh, D. Jannach, M. Ludewig, "A Comparison of Frequent Pattern Techniques
    and a Deep Learning Method for Session-Based Recommendation", 2017 (sequential rules: direction, decay).
    """

    window: int = 40
    decay: float = 0.0
    backward: float = 1.0
    power: float = 0.5
    next_power: float | None = None
    half_life: float | None = 10.0

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        if train.timestamps is None:
            raise ValueError("SequenceKNN needs timestamps or positions, and the interactions have neither")
        weights = self._weights_fitted()
        values = np.asarray(weights[train.row_of_entry, train.matrix.indices]).ravel().astype(np.float32)
        counts = followed(train, values, self.window, self.decay)
        counts = (counts + np.float32(self.backward) * counts.T).tocsr()
        audience = np.asarray(weights.sum(axis=0)).ravel()
        first, then = audience**self.power, audience ** (self.power if self.next_power is None else self.next_power)

        def similarity(block: slice) -> csr_matrix:
            table = counts[block]
            table.data /= first[block][rows_of(table)] * then[table.indices] + np.float32(self.shrinkage)
            return table

        self.similarity_ = nearest(similarity, train.n_items, self.neighbours)

    def explain(self, user_or_history: Any, item_id: Any, k: int = 5) -> pd.DataFrame:
        """As for all models, and in a column ``users`` how many users had the item after that of the history."""
        table = super().explain(user_or_history, item_id, k)
        column = self._columns([item_id])
        audience = self.train.only(np.flatnonzero(np.diff(self.train.matrix[:, column].indptr)))
        counts = followed(audience, np.ones(audience.matrix.nnz, np.float32), self.window)[:, column].toarray().ravel()
        own = table["reason"] == "history"
        table.loc[own, "users"] = counts[self.train.item_codes(table.loc[own, "item_id"])]
        return table.astype({"users": "Int64"})


def nearest(similarity: Callable[[slice], csr_matrix], n_items: int, neighbours: int) -> csr_matrix:
    """Keep the ``neighbours`` largest similarities of each row, none with itself; equal ones by the lower column.

    ``similarity`` gives the rows of a block, (block, n_items); what is not above 0 is not kept.
    """
    blocks = []
    for start in range(0, n_items, ITEMS_PER_BLOCK):
        table = similarity(slice(start, min(start + ITEMS_PER_BLOCK, n_items)))
        table.data[(table.data <= 0) | (table.indices == rows_of(table) + start)] = 0
        table.eliminate_zeros()
        crowded = np.diff(table.indptr) > neighbours
        full = table[crowded].toarray()
        # What is not to be kept gets values of its own: many equal ones would make the search several times as long.
        codes, best = top_k(np.where(full > 0, full, np.arange(-1, -1 - n_items, -1, np.float32)), neighbours)
        starts = np.arange(0, codes.size + 1, neighbours)
        chosen = csr_matrix((best.ravel(), codes.ravel(), starts), full.shape)
        order = np.argsort(np.concatenate([np.flatnonzero(~crowded), np.flatnonzero(crowded)]))
        blocks.append(vstack([table[~crowded], chosen], format="csr")[order])
    similarity_ = csr_matrix(vstack(blocks, format="csr", dtype=np.float32))
    similarity_.sort_indices()
    return similarity_


def followed(train: Interactions, weights: np.ndarray, window: int, power: float = 0.0) -> csr_matrix:
    """Count how often an item (column) came at most ``window`` items after another (row), (n_items, n_items) float32.

    A pair counts as the product of its ``weights``, (nnz,) float32, times ``apart ** -power``; weight 0 is left out.
    """
    rows, columns = train.row_of_entry, train.matrix.indices
    order = oldest_first(train)
    order = order[weights[order] > 0]
    rows, columns, weights = rows[order], columns[order], weights[order]
    total = csr_matrix((train.n_items, train.n_items), dtype=np.float32)
    for apart in range(1, window + 1):  # one after the other: all pairs at once take twenty times the memory
        same = np.flatnonzero(rows[apart:] == rows[:-apart])
        product = weights[same] * weights[same + apart] * np.float32(apart**-power)
        total = total + csr_matrix((product, (columns[same], columns[same + apart])), shape=total.shape)
    return total


def user_weighting(weights: csr_matrix, weighting: str) -> csr_matrix:
    """Weigh the rows by how selective the user is: ``cosine`` (all alike), ``tfidf`` or ``bm25``.

    >>> user_weighting(csr_matrix(np.array([[1.0, 1.0], [1.0, 0.0]])), "tfidf").toarray().round(2)
    array([[0.  , 0.  ],
           [0.69, 0.  ]])
    """
    if weighting == "cosine":
        return weights
    idf = np.log(weights.shape[1] / np.maximum(np.diff(weights.indptr), 1)).astype(weights.dtype)
    if weighting == "bm25":
        counts = np.bincount(weights.indices, minlength=weights.shape[1])
        norm = 0.25 + 0.75 * counts[weights.indices] / counts.mean()
        data = (weights.data * 2.2 / (weights.data + 1.2 * norm)).astype(weights.dtype)
        weights = with_values(weights, data)
    return (diags_array(idf) @ weights).tocsr()
