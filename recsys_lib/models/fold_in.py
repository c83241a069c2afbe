"""Factors of users from their histories, by ridge regression on the factors of items."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories
from recsys_lib.models.weights import Weighted

GROUP = 250_000  # numbers in the histories solved at once: 1 MB, which stays in a core's cache
TOLERANCE = 2e-6  # of the residual, relative to the right side
MAX_STEPS = 40  # after which a user is solved directly


@dataclass(frozen=True)
class FoldIn:
    """Solves ``(S + Y_h' diag(w) Y_h) x = Y_h' c`` for many users, h being the items of each one's history.

    With ``S = U'U``, ``W = U^-1`` and the whitened factors ``B = Y W``, the system of a user is
    ``I + B_h' diag(w) B_h``: the identity plus what one history adds, whose eigenvalues lie close together, so that
    conjugate gradients need few steps (6 to 10 for histories of MovieLens), and no d x d matrix is formed. For all
    users of ml-100k at once that takes 40 % of the time of a batched ``numpy.linalg.solve`` with 64 factors, and 20 %
    with 128. Systems that do not converge, such as those with negative weights, are formed and solved.

    Attributes
    ----------
    factors : ndarray, (n_items, d) float32
        Y.
    whitening : ndarray, (d, d) float32
        W.
    ridge
        The penalty in S, for the message where it is too small.

    References
    ----------
    M. Hestenes, E. Stiefel, "Methods of Conjugate Gradients for Solving Linear Systems", 1952. G. Takacs, I. Pilaszy,
    D. Tikk, "Applications of the Conjugate Gradient Method for Implicit Feedback Collaborative Filtering", RecSys 2011.
    """

    factors: np.ndarray
    whitening: np.ndarray
    ridge: float

    @classmethod
    def of(cls, factors: np.ndarray, background: float, ridge: float) -> FoldIn:
        """With ``S = background Y'Y + ridge I``.

        Raises
        ------
        ValueError
            If S is not positive definite.
        """
        shared = background * (factors.T @ factors).astype(np.float64) + ridge * np.eye(factors.shape[1])
        whitening = solve_triangular(_cholesky(shared, ridge), np.eye(len(shared)), lower=True).T
        return cls(factors, np.ascontiguousarray(whitening, dtype=np.float32), ridge)

    def solve(self, weights: csr_matrix, right: np.ndarray) -> np.ndarray:
        """Factors of users, (n, d) float32; zeros for an empty history.

        Parameters
        ----------
        weights : csr_matrix, (n, n_items) float32
            w, at the entries of each history; may be negative.
        right : ndarray, (nnz,) float32
            c, at the same entries.

        Raises
        ------
        ValueError
            If a system is not positive definite in 32 bits.
        """
        used = np.zeros(len(self.factors), dtype=bool)
        used[weights.indices] = True
        columns = (np.cumsum(used) - 1)[weights.indices]  # among the items of any history here
        whitened, lengths, width = self.factors[used] @ self.whitening, np.diff(weights.indptr), len(self.whitening)
        solved = np.zeros((len(lengths), width), dtype=np.float32)
        buffer = np.empty(max(GROUP, lengths.max(initial=0) * width), dtype=np.float32)  # one, which stays in the cache
        for rows in _groups(lengths, width):
            places = np.arange(lengths[rows[-1]])
            inside = places < lengths[rows, None]
            entries = (weights.indptr[rows, None] + places) * inside  # shorter histories are filled up with weight 0
            near = buffer[: entries.size * width].reshape(*entries.shape, width)
            whitened.take(columns[entries], axis=0, out=near, mode="clip")
            w, goal = weights.data[entries] * inside, np.vecmat(right[entries] * inside, near)
            solved[rows], converged = _conjugate_gradients(near, w, goal)
            for row in np.flatnonzero(~converged):
                system = (near[row] * w[row][:, None]).T @ near[row] + np.eye(width, dtype=np.float32)
                _cholesky(system, self.ridge)
                solved[rows[row]] = np.linalg.solve(system, goal[row])
        return solved @ self.whitening.T


def _cholesky(system: np.ndarray, ridge: float) -> np.ndarray:
    try:
        return np.linalg.cholesky(system)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"the factors of a user cannot be solved with a penalty of {ridge}; it must be larger"
        ) from None


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

    Parameters
    ----------
    near : ndarray, (k, n, d) float32
        Whitened factors of the histories.
    weights : ndarray, (k, n) float32
    goal : ndarray, (k, d) float32
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


@dataclass(kw_only=True, eq=False, repr=False)
class Factorised(Weighted):
    """A model whose items have factors; those of a user are solved from the history that is served.

    So a new user is served like everybody else; an empty history cannot be scored.

    Attributes
    ----------
    item_factors_ : ndarray, (n_items, d) float32
        Learnt by ``fit``.
    item_bias_ : ndarray, (n_items,) float32, or 0
    """

    updatable = True  # by folding in
    item_bias_ = 0.0

    @abstractmethod
    def _ridge(self) -> tuple[float, float]:
        """Weight of the background of all items, and penalty: what :meth:`FoldIn.of` takes."""

    @abstractmethod
    def _system(self, histories: Histories) -> tuple[csr_matrix, np.ndarray]:
        """Weights and right side: what :meth:`FoldIn.solve` takes."""

    @cached_property
    def _solver(self) -> FoldIn:
        return FoldIn.of(self.item_factors_, *self._ridge())

    def user_factors(self, histories: Histories) -> np.ndarray:
        """Factors of users from their histories, (n, d) float32; zeros for an empty history."""
        return self._solver.solve(*self._system(histories))

    def item_vectors(self) -> np.ndarray:
        """Factors of the items, (n_items, d) float32."""
        return self.item_factors_

    def _update(self) -> None:
        """Items keep their factors; users' come from their histories anyway."""

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        scores = self.user_factors(histories) @ self.item_factors_.T + self.item_bias_
        scores[np.diff(histories.matrix.indptr) == 0] = np.nan
        return scores

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        # score = sum over the history of c_j * y_i' (S + Y_h' diag(w) Y_h)^-1 y_j (Hu, Koren and Volinsky, section 5)
        (weights, right), (background, ridge) = self._system(history), self._ridge()
        y, near = (factors.astype(np.float64) for factors in (self.item_factors_, self.item_factors_[weights.indices]))
        system = background * y.T @ y + ridge * np.eye(y.shape[1]) + (near * weights.data[:, None]).T @ near
        parts = np.zeros(len(y))
        parts[weights.indices] = right * (near @ np.linalg.solve(system, y[item]))
        return parts[history.matrix.indices]
