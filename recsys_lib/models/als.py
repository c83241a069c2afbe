"""Matrix factorisation of implicit feedback by alternating least squares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from implicit.cpu.als import AlternatingLeastSquares

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.fold_in import FoldIn
from recsys_lib.models.weights import Weighted, whole


@dataclass(kw_only=True, eq=False, repr=False)
class ALS(Weighted):
    """Implicit-feedback ALS, by the ``implicit`` library.

    Finds factors x (users) and y (items) that minimise
    ``sum_ui c_ui (p_ui - x_u . y_i)^2 + regularization * (|x|^2 + |y|^2)``, where p is 1 for what the user
    interacted with and 0 for all else, and c is ``alpha * weight`` there and 1 elsewhere.

    A user's factors are always solved from the history given, ``x = (Y'CY + regularization I)^-1 Y'C p``, so
    that a new user is served like everybody else. An empty history cannot be scored.

    Parameters
    ----------
    factors, regularization, iterations, alpha
        As in ``implicit``.
    positive_from, low_weight, half_life
        How ratings become weights: :func:`recsys_lib.models.weights.confidence`. ``positive_from=None`` takes raw
        ratings. The half-life (items) counts both in the fit and in the history that is served.
    seed
        Of the first factors. The same seed gives the same factors, whatever the number of threads.
    threads
        0: all cores.
    progress
        Whether ``fit`` shows a bar.

    References
    ----------
    Y. Hu, Y. Koren, C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008.
    G. Takacs, I. Pilaszy, D. Tikk, "Applications of the Conjugate Gradient Method for Implicit Feedback
    Collaborative Filtering", RecSys 2011.
    """

    factors: int = 64
    regularization: float = 20.0
    iterations: int = 15
    alpha: float = 5.0
    seed: int = 42
    threads: int = 0
    progress: bool = False

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        solver = AlternatingLeastSquares(
            factors=self.factors,
            regularization=self.regularization,
            alpha=self.alpha,
            iterations=self.iterations,
            num_threads=self.threads,
            random_state=self.seed,
        )
        solver.fit(self._weights(whole(train)), show_progress=self.progress)
        if len(solver.item_factors) != train.n_items or len(solver.user_factors) != train.n_users:
            raise RuntimeError("implicit took the matrix for a transposed one: it wants users in rows")
        self.item_factors_ = solver.item_factors

    def fold_in(self, histories: Histories) -> np.ndarray:
        """Factors of users from their histories, (n, factors) float32; zeros for an empty history."""
        weights = self._weights(histories)
        right = weights.data * np.float32(self.alpha)
        weights.data = right - 1
        return self._solver.solve(weights, right)

    @cached_property
    def _solver(self) -> FoldIn:
        return FoldIn.of(self.item_factors_, 1.0, self.regularization)

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        scores = self.fold_in(histories) @ self.item_factors_.T
        scores[np.diff(histories.matrix.indptr) == 0] = np.nan
        return scores

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        # Section 5 of Hu et al.: score = sum over the history of c_j * y_i' (Y'CY + reg I)^-1 y_j
        weights = self.alpha * self._weights(history).toarray()[0].astype(np.float64)
        factors = self.item_factors_.astype(np.float64)
        watched = np.flatnonzero(weights)
        near = factors[watched]
        gram = factors.T @ factors + self.regularization * np.eye(self.factors)
        gram += (near * (weights[watched] - 1)[:, None]).T @ near
        parts = np.zeros(len(weights))
        parts[watched] = weights[watched] * (near @ np.linalg.solve(gram, factors[item]))
        return parts[history.matrix.indices]

    def item_vectors(self) -> np.ndarray:
        """The factors of the items, (n_items, factors) float32."""
        return self.item_factors_
