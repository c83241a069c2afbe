"""Factors of people from their histories, by ridge regression on the factors of items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.linalg.lapack import sposv
from scipy.sparse import csr_matrix

GROUP = 250_000  # numbers that the histories solved at once have between them: 1 MB, which stays in a core's cache
TOLERANCE = 2e-6  # of the remainder, beside the right side, at which a person's factors are taken for found
STEPS = 40  # after which they are solved directly
TOO_SMALL = "the factors of a person cannot be solved with a penalty of {}; it must be larger"


@dataclass(frozen=True)
class FoldIn:
    """Solves ``(S + Y_h' diag(w) Y_h) x = Y_h' c`` for many people, h being what each of them met.

    With ``S = U'U``, ``W = U^-1`` and the whitened factors ``B = Y W``, the system of a person is
    ``I + B_h' diag(w) B_h``: the one matrix plus what one history adds, whose eigenvalues lie close together, so that
    conjugate gradients need few steps (6 to 10 for histories of MovieLens), and the d x d matrix of a person is never
    formed. Where they need many, or a history is long, it is formed and solved.

    Attributes
    ----------
    factors : ndarray, (n_items, d) float32
        Y.
    whitening : ndarray, (d, d) float32
        W.
    ridge
        The penalty in S, for what is said where it is too small.

    References
    ----------
    M. Hestenes, E. Stiefel, "Methods of Conjugate Gradients for Solving Linear Systems", 1952. Other uses of them in
    matrix factorisation: Takacs et al. (see :class:`recsys_lib.models.als.ALS`).
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
        try:
            whitening = solve_triangular(cholesky(shared), np.eye(len(shared)))
        except LinAlgError:
            raise ValueError(TOO_SMALL.format(ridge)) from None
        return cls(factors, np.ascontiguousarray(whitening, dtype=np.float32), ridge)

    def solve(self, weights: csr_matrix, right: np.ndarray) -> np.ndarray:
        """Factors of people, (n, d) float32; zeros for an empty history.

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
        met = np.zeros(len(self.factors), dtype=bool)
        met[weights.indices] = True
        columns = (np.cumsum(met) - 1)[weights.indices]  # among those that anybody here met
        whitened, lengths, width = self.factors[met] @ self.whitening, np.diff(weights.indptr), len(self.whitening)
        found = np.zeros((len(lengths), width), dtype=np.float32)
        room = np.empty(max(GROUP, lengths.max(initial=0) * width), dtype=np.float32)  # one, which stays in the cache
        for rows in _groups(lengths, width):
            places = np.arange(lengths[rows[-1]])
            there = places < lengths[rows, None]
            entries = (weights.indptr[rows, None] + places) * there  # shorter histories are filled up with weight 0
            near = room[: entries.size * width].reshape(*entries.shape, width)
            whitened.take(columns[entries], axis=0, out=near, mode="clip")
            try:
                found[rows] = _solved(near, weights.data[entries] * there, right[entries] * there)
            except LinAlgError:
                raise ValueError(TOO_SMALL.format(self.ridge)) from None
        return found @ self.whitening.T


def _groups(lengths: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """Rows that are solved at once, by length; of empty histories none."""
    order = np.argsort(lengths, kind="stable")
    start = np.searchsorted(lengths[order], 1)
    while start < len(order):
        longer = lengths[order[start : start + GROUP // width]] * width  # than all before
        stop = start + max(1, np.searchsorted(np.arange(1, len(longer) + 1) * longer, GROUP, side="right"))
        yield order[start:stop]
        start = stop


def _solved(near: np.ndarray, weights: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve ``(I + near' diag(w) near) x = near' c`` for each of a group, (k, d) float32.

    Parameters
    ----------
    near : ndarray, (k, n, d) float32
        Whitened factors of the histories.
    weights, right : ndarray, (k, n) float32
    """
    goal = np.vecmat(right, near)
    if near[0].size > GROUP:
        return np.stack([_directly(*each) for each in zip(near, weights, goal, strict=True)])
    with np.errstate(over="ignore", invalid="ignore"):  # what does not converge is found below, or refused
        found, done = _conjugate_gradients(near, weights, goal)
    for row in np.flatnonzero(~done):
        found[row] = _directly(near[row], weights[row], goal[row])
    return found


def _conjugate_gradients(near: np.ndarray, weights: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve as :func:`_solved` step by step; also whether each has been found, (k,) bool."""
    found, rest, way = np.zeros_like(goal), goal.copy(), goal.copy()
    size = np.vecdot(rest, rest)
    enough = TOLERANCE**2 * size
    for _ in range(STEPS):
        felt = np.matvec(near, way)
        felt *= weights
        turned = np.vecmat(felt, near)
        turned += way
        bend = np.vecdot(way, turned)
        step = (size / np.where(bend > 0, bend, 1))[:, None]
        found += step * way
        turned *= step
        rest -= turned
        before, size = size, np.vecdot(rest, rest)
        if (size <= enough).all():
            break
        way *= (size / np.where(before > 0, before, 1))[:, None]
        way += rest
    return found, size <= enough


def _directly(near: np.ndarray, weights: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Solve as :func:`_solved` for one person, by Cholesky's method, (d,) float32."""
    system = (near * weights[:, None]).T @ near + np.eye(near.shape[1], dtype=np.float32)
    _, found, failed = sposv(system, goal)
    if failed:
        raise LinAlgError("not positive definite")
    return found
