"""Matrix factorisation for ranking: Bayesian personalised ranking."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from implicit.cpu.bpr import BayesianPersonalizedRanking
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.base import Recommender
from recsys_lib.models.fold_in import FoldIn
from recsys_lib.models.stack.weights import confidence, whole


class BPR(Recommender):
    """Bayesian personalised ranking, by the ``implicit`` library, with people folded in.

    The fit maximises ``log sigmoid(score(u, i) - score(u, j))`` over items i that the person liked and sampled
    items j, with ``score(u, i) = x_u . y_i + b_i``. To serve any history, known or new, the person's factors are
    solved from it by ridge regression, as in ALS: ``x = (Y'Y * background + Y_h'Y_h + I * fold_in)^-1 Y_h' 1``,
    over the rows Y_h of the history; an empty one cannot be scored. One thread: the fit is not repeatable with more.

    Parameters
    ----------
    factors, learning_rate, regularization, iterations
        As in ``implicit``.
    background
        How much all items count as not liked when a person is folded in.
    fold_in
        Ridge penalty on the factors of a person.
    positive_from, low_weight, half_life
        How ratings become weights: :func:`recsys_lib.models.stack.weights.confidence`. The fit knows no half-life, and
        samples whatever weighs more than 0.
    seed
        Of the first factors and the sampling.

    References
    ----------
    S. Rendle, C. Freudenthaler, Z. Gantner, L. Schmidt-Thieme, "BPR: Bayesian Personalized Ranking from Implicit
    Feedback", UAI 2009.
    """

    def __init__(
        self,
        *,
        factors: int = 64,
        learning_rate: float = 0.02,
        regularization: float = 0.01,
        iterations: int = 100,
        background: float = 0.02,
        fold_in: float = 1.0,
        positive_from: float | None = 4.0,
        low_weight: float = 0.0,
        half_life: float | None = None,
        seed: int = 42,
    ) -> None:
        self.factors = factors
        self.learning_rate = learning_rate
        self.regularization = regularization
        self.iterations = iterations
        self.background = background
        self.fold_in = fold_in
        self.positive_from = positive_from
        self.low_weight = low_weight
        self.half_life = half_life
        self.seed = seed

    def _weights(self, histories: Histories, half_life: float | None) -> csr_matrix:
        return confidence(
            histories, self.train, positive_from=self.positive_from, low_weight=self.low_weight, half_life=half_life
        )

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        solver = BayesianPersonalizedRanking(
            factors=self.factors,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            iterations=self.iterations,
            num_threads=1,
            random_state=self.seed,
        )
        solver.fit(self._weights(whole(train), None), show_progress=False)
        self.item_factors_ = np.ascontiguousarray(solver.item_factors[:, :-1])
        self.item_bias_ = np.ascontiguousarray(solver.item_factors[:, -1])

    def fold_in_people(self, histories: Histories) -> np.ndarray:
        """Factors of people from their histories, (n, factors) float32."""
        weights = self._weights(histories, self.half_life)
        return self._people().solve(weights, weights.data)

    def _people(self) -> FoldIn:
        found = vars(self).get("_fold_in")
        if found is None or found.factors is not self.item_factors_:
            self._fold_in = found = FoldIn.of(self.item_factors_, self.background, self.fold_in)
        return found

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        scores = self.fold_in_people(histories) @ self.item_factors_.T + self.item_bias_
        scores[np.diff(histories.matrix.indptr) == 0] = np.nan
        return scores

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        weights = self._weights(history, self.half_life).toarray()[0].astype(np.float64)
        factors = self.item_factors_.astype(np.float64)
        gram = self.background * factors.T @ factors + self.fold_in * np.eye(self.factors)
        gram += (factors * weights[:, None]).T @ factors
        return (weights * (factors @ np.linalg.solve(gram, factors[item])))[history.matrix.indices]

    def _item_vectors(self) -> np.ndarray:
        return self.item_factors_
