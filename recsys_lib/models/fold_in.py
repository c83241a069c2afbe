"""Factors of users from their histories, by ridge regression on the factors of items."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories
from recsys_lib.models.weights import Weighted

GROUP = 250_000  # numbers in the histories solved at once: 1 MB, which stays in a core's cache
TOLERANCE = 2e-6  # of the residual, relative to the right side
MAX_STEPS = 40  # after which a user is solved directly


class Factorised(Weighted):
    """A model whose items have factors Y; those of a user are solved from the history that is served.

    They are the x of ``(S + Y_h' diag(w) Y_h) x = Y_h' c``, h being the items of the history and
    ``S = background Y'Y + ridge I``. So a new user is served like everybody else; an empty history cannot be scored.

    ``fit`` learns ``item_factors_``, (n_items, d) float32, and ``item_bias_``, (n_items,) float32, or 0.
    """

    updatable = True  # by folding in
    needs_history = True
    item_bias_ = 0.0

    @abstractmethod
    def _ridge(self) -> tuple[float, float]:
        """Weight of the background of all items, and penalty."""

    @abstractmethod
    def _system(self, histories: Histories) -> tuple[csr_matrix, np.ndarray]:
        """The w that :func:`solve` takes, and c at the same entries."""

    @cached_property
    def _whitening(self) -> np.ndarray:
        return whitening_of(self.item_factors_, *self._ridge())

    def user_factors(self, histories: Histories) -> np.ndarray:
        """Factors of users from their histories, (n, d) float32; zeros for an empty history."""
        try:
            return solve(self.item_factors_, self._whitening, *self._system(histories))
        except np.linalg.LinAlgError:
            penalty = self._ridge()[1]
            raise ValueError(f"a user cannot be folded in with a penalty of {penalty}; it must be larger") from None

    def item_vectors(self) -> np.ndarray:
        """Factors of the items, (n_items, d) float32."""
        return self.item_factors_

    _renew = Weighted._set_train  # items keep their factors; users' come from their histories anyway

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        return self.user_factors(histories) @ self.item_factors_.T + self.item_bias_

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        # score = sum over the history of c_j * y_i' (S + Y_h' diag(w) Y_h)^-1 y_j (Hu, Koren and Volinsky, section 5)
        (weights, right), (background, ridge) = self._system(history), self._ridge()
        y, near = (factors.astype(np.float64) for factors in (self.item_factors_, self.item_factors_[weights.indices]))
        system = background * y.T @ y + ridge * np.eye(y.shape[1]) + (near * weights.data[:, None]).T @ near
        parts = np.zeros(len(y))
        parts[weights.indices] = right * (near @ np.linalg.solve(system, y[item]))
        return parts[history.matrix.indices]


def whitening_of(factors: np.ndarray, background: float, ridge: float) -> np.ndarray:
    """W with ``W W' = (background Y'Y + ridge I)^-1``, (d, d) float32; LinAlgError if that is not positive definite."""
    shared = background * (factors.T @ factors).astype(np.float64) + ridge * np.eye(factors.shape[1])
    # Of an upper triangle nothing is left to eliminate: NumPy only substitutes back, and SciPy's 7 MB are not needed.
    return np.linalg.solve(np.linalg.cholesky(shared).T, np.eye(len(shared))).astype(np.float32)


def solve(factors: np.ndarray, whitening: np.ndarray, weights: csr_matrix, right: np.ndarray) -> np.ndarray:
    """Solve ``(S + Y_h' diag(w) Y_h) x = Y_h' c`` for many histories h, (n, d) float32; zeros for an empty one.

    With ``B = Y W`` the system of a user is ``I + B_h' diag(w) B_h``: the identity plus what one history adds, whose
    eigenvalues lie close together, so that conjugate gradients need few steps (6 to 10 for histories of MovieLens),
    and no d x d matrix is formed. For all users of ml-100k that takes a third of the time of ``numpy.linalg.solve``
    with 64 factors. Systems that do not converge, such as those with negative weights, are formed and solved;
    LinAlgError if one is not positive definite in 32 bits.

    - ``factors``, ``whitening``, (n_items, d) and (d, d) float32: Y, and W from :func:`whitening_of`.
    - ``weights``, (n, n_items) float32: w, at the entries of each history; may be negative.
    - ``right``, (nnz,) float32: c, at the same entries.

    M. Hestenes, E. Stiefel, "Methods of Conjugate Gradients for Solving Linear Systems", 1952. G. Takacs, I. Pilaszy,
    D. Tikk, "Applications of the Conjugate Gradient Method for Implicit Feedback Collaborative Filtering", RecSys 2011.
    """
    used = np.isin(np.arange(len(factors)), weights.indices)  # the items of any history here
    columns, whitened = (np.cumsum(used) - 1)[weights.indices], factors[used] @ whitening
    lengths, width = np.diff(weights.indptr), len(whitening)
    solved = np.zeros((len(lengths), width), dtype=np.float32)
    for rows in _groups(lengths, width):
        places = np.arange(lengths[rows[-1]])
        inside = places < lengths[rows, None]
        entries = (weights.indptr[rows, None] + places) * inside  # shorter histories are filled up with weight 0
        near, w = whitened[columns[entries]], weights.data[entries] * inside
        goal = np.vecmat(right[entries] * inside, near)
        solved[rows], converged = _conjugate_gradients(near, w, goal)
        for row in np.flatnonzero(~converged):
            system = (near[row] * w[row][:, None]).T @ near[row] + np.eye(width, dtype=np.float32)
            np.linalg.cholesky(system)  # refuses what is not positive definite
            solved[rows[row]] = np.linalg.solve(system, goal[row])
    return solved @ whitening.T


def _groups(lengths: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """Rows that are solved at once, by length; empty histories are in none."""
    order = np.argsort(lengths, kind="stable")
    start = np.searchsorted(lengths[order], 1)
    while start < len(order):
        longer = lengths[order[start : start + GROUP // width]] * width  # than all before
        stop = start + max(1, np.searchsorted(np.arange(1, len(longer) + 1) * longer, GROUP, side="right"))
        yield order[start:stop]
        start = stop


def _conjugate_gradients(near: np.ndarray, weights: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve ``(I + near' diag(w) near) x = goal`` for each of a group, (k, d); also which converged, (k,) bool.

    Whitened factors of the histories ``near`` are (k, n, d), ``weights`` (k, n), ``goal`` (k, d), all float32.
    """
    x, residual, direction = np.zeros_like(goal), goal.copy(), goal.copy()
    size = np.vecdot(residual, residual)
    limit = TOLERANCE**2 * size
    with np.errstate(over="ignore", invalid="ignore"):  # what does not converge is solved directly
        for _ in range(MAX_STEPS):
            image = np.vecmat(weights * np.matvec(near, direction), near) + direction
            curvature = np.vecdot(direction, image)
            step = (size / np.where(curvature > 0, curvature, 1))[:, None]
            x += step * direction
            residual -= step * image
            before, size = size, np.vecdot(residual, residual)
            if (size <= limit).all():
                break
            direction = residual + (size / np.where(before > 0, before, 1))[:, None] * direction
    return x, size <= limit
