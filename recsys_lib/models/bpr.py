"""Matrix factorisation for ranking: Bayesian personalised ranking."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from implicit.cpu.bpr import BayesianPersonalizedRanking

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.fold_in import FoldIn
from recsys_lib.models.weights import Weighted


@dataclass(kw_only=True, eq=False, repr=False)
class BPR(Weighted):
    """Bayesian personalised ranking, by the ``implicit`` library, with people folded in.

    The fit maximises ``log sigmoid(score(u, i) - score(u, j))`` over items i that the user liked and sampled
    items j, with ``score(u, i) = x_u . y_i + b_i``. To serve any history, known or new, the user's factors are
    solved from it by ridge regression, as in ALS: ``x = (Y'Y * background + Y_h'Y_h + I * fold_in)^-1 Y_h' 1``,
    over the rows Y_h of the history; an empty one cannot be scored. One thread: the fit is not repeatable with more.

    Parameters
    ----------
    factors, learning_rate, regularization, iterations
        As in ``implicit``.
    background
        How much all items count as not liked when a user is folded in.
    fold_in
        Ridge penalty on the factors of a user.
    positive_from, low_weight, half_life
        How ratings become weights: :func:`recsys_lib.models.weights.confidence`. The fit knows no half-life, and
        samples whatever weighs more than 0.
    seed
        Of the first factors and the sampling.

    References
    ----------
    S. Rendle, C. Freudenthaler, Z. Gantner, L. Schmidt-Thieme, "BPR: Bayesian Personalized Ranking from Implicit
    Feedback", UAI 2009.
    """

    factors: int = 64
    learning_rate: float = 0.02
    regularization: float = 0.01
    iterations: int = 100
    background: float = 0.02
    fold_in: float = 1.0
    low_weight: float = 0.0
    seed: int = 42

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        solver = BayesianPersonalizedRanking(
            factors=self.factors,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            iterations=self.iterations,
            num_threads=1,
            random_state=self.seed,
        )
        solver.fit(self._weights_fitted(), show_progress=False)
        self.item_factors_ = np.ascontiguousarray(solver.item_factors[:, :-1])
        self.item_bias_ = np.ascontiguousarray(solver.item_factors[:, -1])

    def fold_in_users(self, histories: Histories) -> np.ndarray:
        """Factors of users from their histories, (n, factors) float32."""
        weights = self._weights(histories)
        return self._solver.solve(weights, weights.data)

    @cached_property
    def _solver(self) -> FoldIn:
        return FoldIn.of(self.item_factors_, self.background, self.fold_in)

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        scores = self.fold_in_users(histories) @ self.item_factors_.T + self.item_bias_
        scores[np.diff(histories.matrix.indptr) == 0] = np.nan
        return scores

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        weights = self._weights(history).toarray()[0].astype(np.float64)
        factors = self.item_factors_.astype(np.float64)
        gram = self.background * factors.T @ factors + self.fold_in * np.eye(self.factors)
        gram += (factors * weights[:, None]).T @ factors
        return (weights * (factors @ np.linalg.solve(gram, factors[item])))[history.matrix.indices]

    def item_vectors(self) -> np.ndarray:
        """The factors of the items, without their biases, (n_items, factors) float32."""
        return self.item_factors_
