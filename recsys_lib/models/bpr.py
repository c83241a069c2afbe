"""Matrix factorisation for ranking: Bayesian personalised ranking."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.fold_in import Factorised


class BPR(Factorised):
    """Bayesian personalised ranking, by the ``implicit`` library, with users folded in.

    The fit maximises ``log sigmoid(score(u, i) - score(u, j))`` over items i that the user liked and sampled
    items j, with ``score(u, i) = x_u . y_i + b_i``. To serve any history, known or new, the user's factors are
    solved from it by ridge regression, as in ALS: ``x = (Y'Y * background + Y_h'Y_h + I * fold_in)^-1 Y_h' 1``,
    over the rows Y_h of the history. One thread: the fit is not repeatable with more.

    ``factors``, ``learning_rate``, ``regularization`` and ``iterations`` are as in ``implicit``. ``background`` is how
    much all items count as not liked when a user is folded in, ``fold_in`` the ridge penalty on the user's factors.
    Weights are as in :func:`.weights.confidence`; the fit knows no half-life, and samples whatever weighs more than 0.

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
        from implicit.cpu.bpr import BayesianPersonalizedRanking  # what serves a model does without

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

    def _ridge(self) -> tuple[float, float]:
        return self.background, self.fold_in

    def _system(self, histories: Histories) -> tuple[csr_matrix, np.ndarray]:
        weights = self._weights(histories)
        return weights, weights.data
