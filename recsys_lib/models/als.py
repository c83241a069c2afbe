"""Matrix factorisation of implicit feedback by alternating least squares."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.fold_in import Factorised
from recsys_lib.models.weights import whole


class ALS(Factorised):
    """Implicit-feedback ALS, by the ``implicit`` library.

    Finds factors x (users) and y (items) that minimise
    ``sum_ui c_ui (p_ui - x_u . y_i)^2 + regularization * (|x|^2 + |y|^2)``, where p is 1 for what the user
    interacted with and 0 for all else, and c is ``alpha * weight`` there and 1 elsewhere.

    A user's factors are always solved from the history given, ``x = (Y'CY + regularization I)^-1 Y'C p``.

    ``factors``, ``regularization``, ``iterations`` and ``alpha`` are as in ``implicit``; weights as in
    :func:`.weights.confidence`, whose half-life counts both in the fit and in the history that is served. The same seed
    gives the same factors, whatever the number of ``threads`` (0: all cores); ``progress`` shows a bar.

    Y. Hu, Y. Koren, C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008.
    """

    factors: int = 64
    regularization: float = 20.0
    iterations: int = 15
    alpha: float = 5.0
    seed: int = 42
    threads: int = 0
    progress: bool = False

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        from implicit.cpu.als import AlternatingLeastSquares  # what serves a model does without

        solver = AlternatingLeastSquares(
            factors=self.factors,
            regularization=self.regularization,
            alpha=self.alpha,
            iterations=self.iterations,
            num_threads=self.threads,
            random_state=self.seed,
        )
        solver.fit(self._weights(whole(train)), show_progress=self.progress)
        self.item_factors_ = solver.item_factors

    def _ridge(self) -> tuple[float, float]:
        return 1.0, self.regularization

    def _system(self, histories: Histories) -> tuple[csr_matrix, np.ndarray]:
        weights = self._weights(histories)
        right = weights.data * np.float32(self.alpha)
        weights.data = right - 1
        return weights, right
