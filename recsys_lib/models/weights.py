"""Weights of histories: from ratings and times to what models of implicit feedback work on."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions, with_values
from recsys_lib.models.base import Recommender


def threshold(train: Interactions, given: float | str) -> float:
    """The rating from which items count as liked: the one given, or that of the data's own scale for ``"scale"``."""
    return train.relevant_from if given == "scale" else float(given)


def confidence(
    histories: Histories,
    train: Interactions,
    *,
    positive_from: float | str | None = "scale",
    low_weight: float = 0.3,
    half_life: float | None = None,
) -> csr_matrix:
    """Turn ratings into weights: one rule for all models.

    - A rating of ``positive_from`` or more weighs 1, a lower one ``low_weight`` (0 leaves it out). ``"scale"`` is the
      threshold that follows from the ratings of ``train``: 4 on 1 to 5, 8 on 1 to 10.
    - Where no rating that the model was fitted on reaches ``positive_from`` (implicit feedback), all weigh 1.
    - A user without one rating that reaches it is weighted 1 throughout: what was watched is all that is known.
    - ``positive_from=None`` takes the ratings as they are.
    - With a ``half_life``, each weight is halved every so many items of the user's that came after it.

    ``histories`` are ratings in the data's own units, ``train`` what the model was fitted on. Returned are weights,
    (n, n_items) float32, without stored zeros.

    >>> train = Interactions(csr_matrix(np.array([[5.0, 2.0], [0.0, 3.0]])), np.arange(2), np.arange(2))
    >>> confidence(train.rows([0, 1]), train).toarray()
    array([[1. , 0.3],
           [0. , 1. ]], dtype=float32)
    """
    ratings = histories.matrix
    if positive_from is None:
        data = ratings.data.astype(np.float32)
    else:
        liked_from = threshold(train, positive_from)
        positive = ratings.data >= liked_from
        rows = histories.row_of_entry
        if train.best_rating < liked_from:
            positive[:] = True
        else:
            positive |= ~(np.bincount(rows, positive, minlength=ratings.shape[0]) > 0)[rows]
        data = np.where(positive, np.float32(1), np.float32(low_weight))
    if half_life is not None and histories.timestamps is not None:
        data = data * np.exp2(-histories.steps_back() / half_life).astype(np.float32)
    weights = with_values(ratings, data).copy()
    weights.eliminate_zeros()
    return weights


def whole(train: Interactions) -> Histories:
    """Everything that a model is fitted on, as histories."""
    return Histories(train.matrix, train.timestamps)


class Weighted(Recommender):
    """A model that works on weights made from ratings and recency: its parameters are those of :func:`confidence`."""

    positive_from: float | str | None = "scale"
    low_weight: float = 0.3
    half_life: float | None = None

    def _weights(self, histories: Histories) -> csr_matrix:
        """Weights of histories, (n, n_items)."""
        given = {"positive_from": self.positive_from, "low_weight": self.low_weight, "half_life": self.half_life}
        return confidence(histories, self.train, **given)

    def _weights_fitted(self) -> csr_matrix:
        """Weights of all that the model is fitted on, without recency, (n_users, n_items)."""
        return self._weights(Histories(self.train.matrix))


def last_times(histories: Histories, train: Interactions) -> np.ndarray:
    """Last moment of each history, (n,) int64; the end of what the model was fitted on where there is none."""
    filled = (np.diff(histories.matrix.indptr) > 0) & (histories.timestamps is not None)
    last = np.full(len(filled), 0 if filled.all() else train.timestamps.max())
    if filled.any():
        last[filled] = np.maximum.reduceat(histories.timestamps, histories.matrix.indptr[:-1][filled])
    return last
