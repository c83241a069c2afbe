"""EASE^R: a linear autoencoder with a closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import psutil
from scipy.sparse import csr_matrix, diags_array, eye

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.weights import Weighted

GIB = 2**30
DENSE = 4096  # items up to which weights between all items are kept, whichever matrix was inverted


class EASE(Weighted):
    """Each item is predicted from all others by ridge regression, in one matrix inversion.

    With ``P = (X'X + regularization I)^-1``, the item-to-item weights are ``B_ij = -P_ij / P_jj``, and 0 on the
    diagonal; ``score = x B``. Where there are fewer users than items, the smaller matrix
    ``K = XX' + regularization I`` is inverted (Woodbury): ``x P = (x - x X' K^-1 X) / regularization``. ``fit`` raises
    MemoryError, before anything is allocated, if neither fits into the memory available.

    - ``regularization``: the more, the closer to popularity.
    - ``item_power``: columns of X are multiplied by ``(n / mean n) ** item_power``, n being how many users weigh in;
      below 0 popular items count for less. 0 leaves them.
    - ``half_life``: as in :func:`.weights.confidence`; it counts in the history that is served, and not in the fit.
    - ``max_items``: model only so many of the most popular items; others score NaN. For catalogues that do not fit.

    H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.
    """

    needs_history = True
    regularization: float = 200.0
    item_power: float = 0.0
    low_weight: float = 0.0
    max_items: int | None = None

    def __post_init__(self) -> None:
        if self.regularization <= 0:
            raise ValueError(f"regularization is {self.regularization}; it must be above 0")

    def _rows(self, weights: csr_matrix) -> csr_matrix:
        """Weights of histories in the columns modelled, scaled, (n, n_modelled)."""
        if len(self.modelled_) < self.train.n_items:
            weights = weights[:, self.modelled_]
        return (weights @ diags_array(self.scale_)).tocsr()

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        from scipy.linalg import cho_factor, cho_solve  # 7 MB that a served model does without

        kept = min(self.max_items or train.n_items, train.n_items)
        self.modelled_ = np.sort(np.argsort(-train.item_counts, kind="stable")[:kept])
        self.scale_, self.weights_ = np.ones(kept, dtype=np.float32), None
        counts = self._rows(self._weights_fitted()).getnnz(axis=0).astype(np.float64)
        self.scale_ = (np.maximum(counts, 1) / counts.mean()).astype(np.float32) ** np.float32(self.item_power)
        rows = self._rows_fitted().astype(np.float64)
        by_users = rows.shape[0] < kept
        check_memory(rows.shape[0], kept, psutil.virtual_memory().available)
        gram = (rows @ rows.T if by_users else rows.T @ rows).toarray()
        gram[np.diag_indices_from(gram)] += self.regularization
        factor = cho_factor(gram, overwrite_a=True)
        if not by_users:
            inverse = cho_solve(factor, np.eye(kept), overwrite_b=True)
            weights = inverse / -np.diag(inverse)
        else:
            solved = cho_solve(factor, rows.toarray())  # K^-1 X, (users, items)
            if kept > DENSE:  # these and the diagonal of P stand for B; scoring takes three times as long
                self.solved_ = np.ascontiguousarray(solved, dtype=np.float32)
                self.diagonal_ = (1 - np.asarray(rows.multiply(solved).sum(axis=0)).ravel()) / self.regularization
                return
            covered = rows.T @ solved
            weights = covered / (1 - np.diag(covered))
        np.fill_diagonal(weights, 0)
        self.weights_ = np.ascontiguousarray(weights, dtype=np.float32)

    @property
    def updatable(self) -> bool:
        """Whether the weights are kept: else the users fitted on stand for them."""
        return self.weights_ is not None

    _renew = Weighted._set_train  # items keep their weights; longer histories are served with them

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        rows = self._rows(self._weights(histories))
        scores = self._product(rows)
        if len(self.modelled_) < self.train.n_items:
            modelled, scores = scores, np.full((rows.shape[0], self.train.n_items), np.nan, dtype=np.float32)
            scores[:, self.modelled_] = modelled
        return scores

    def _product(self, rows: csr_matrix) -> np.ndarray:
        """``x B`` for each row, (n, n_modelled)."""
        if self.weights_ is not None:
            return rows @ self.weights_
        overlap = (rows @ self._rows_fitted().T).toarray()
        own = rows.toarray()
        return own - (own - overlap @ self.solved_) / (self.regularization * self.diagonal_).astype(np.float32)

    def _rows_fitted(self) -> csr_matrix:
        rows = self._rows(self._weights_fitted())
        return rows[np.diff(rows.indptr) > 0]

    def _of_alone(self, places: np.ndarray) -> np.ndarray:
        """Rows of B: the scores of all items for a history of one item alone, (n, n_modelled)."""
        return self._product(eye(len(self.modelled_), dtype=np.float32, format="csr")[places])

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        parts = np.zeros(self.train.n_items)
        place = np.searchsorted(self.modelled_, item)
        if item in self.modelled_:
            rows = self._rows(self._weights(history))
            parts[self.modelled_[rows.indices]] = rows.data * self._of_alone(rows.indices)[:, place]
        return parts[history.matrix.indices]

    def _similarity(self, codes: np.ndarray) -> np.ndarray:
        table = np.full((len(codes), self.train.n_items), np.nan, dtype=np.float32)
        asked = np.flatnonzero(np.isin(codes, self.modelled_))
        table[np.ix_(asked, self.modelled_)] = self._of_alone(np.searchsorted(self.modelled_, codes[asked]))
        return table


def check_memory(n_users: int, n_items: int, available: int) -> None:
    """Refuse a dense solve that does not fit, with the figures and the way out.

    A fit holds at its peak three matrices in 64 bits of the size of what is inverted, or of its right side.

    >>> check_memory(200_000, 60_000, available=4 * GIB)
    Traceback (most recent call last):
    MemoryError: EASE needs about 80.5 GiB for 60,000 items, and 4.0 GiB are free; max_items=11000 would fit
    """
    need = 24 * n_items**2 if n_items <= n_users else 24 * n_users * (n_users + n_items)
    if need > 0.9 * available:
        most = np.sqrt(0.8 * available / 24)
        if most > n_users:  # with more items than users it is the users that are inverted
            most = max(n_users, 0.8 * available / (24 * n_users) - n_users)
        fitting = max(1, int(most // 1000 * 1000 or most))  # in thousands where there are some
        raise MemoryError(
            f"EASE needs about {need / GIB:.1f} GiB for {n_items:,} items, and {available / GIB:.1f} GiB are free; "
            f"max_items={fitting} would fit"
        )
