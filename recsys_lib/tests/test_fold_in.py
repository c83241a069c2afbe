"""Users are folded in as the normal equations say, step by step or directly."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys_lib.models import BPR, fold_in

RIDGE, BACKGROUND = 2.0, 0.5


@pytest.fixture(scope="module")
def factors():
    return np.random.default_rng(0).normal(0, 0.3, (90, 12)).astype(np.float32)


def solve(factors, weights, right):
    return fold_in.solve(factors, fold_in.whitening_of(factors, BACKGROUND, RIDGE), weights, right)


def expected(factors, weights, right):
    """Each user's normal equations, in 64 bits."""
    y, c = factors.astype(float), csr_matrix((right, weights.indices, weights.indptr), weights.shape)
    shared = BACKGROUND * y.T @ y + RIDGE * np.eye(y.shape[1])
    return np.linalg.solve([shared + (y * w[:, None]).T @ y for w in weights.toarray()], (c @ y)[:, :, None])[:, :, 0]


@pytest.mark.parametrize(
    "setting", [{}, {"GROUP": 900}, {"MAX_STEPS": 1}], ids=["as it is", "small groups", "directly"]
)
@pytest.mark.parametrize("less", [0.0, 0.5], ids=["weights above 0", "most weights below 0"])  # a background of 0.5
def test_users_solve_the_normal_equations(factors, less, setting, monkeypatch):
    """Histories of 0 to 60 items; a user alone gets the same as among others."""
    for name, value in setting.items():
        monkeypatch.setattr(fold_in, name, value)
    rng = np.random.default_rng(1)
    lengths = np.append(rng.integers(0, 60, 40), 0)
    indices = np.concatenate([np.sort(rng.choice(90, length, replace=False)) for length in lengths])
    right = (8 * 2.0 ** -rng.uniform(0, 12, len(indices))).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    weights = csr_matrix((right - np.float32(less), indices, indptr), shape=(len(lengths), 90))
    solved, true = solve(factors, weights, right), expected(factors, weights, right)
    assert solved.dtype == np.float32
    assert (np.linalg.norm(solved - true, axis=1) <= 1e-5 * np.linalg.norm(true, axis=1)).all()
    assert not solved[lengths == 0].any()
    alone = solve(factors, weights[[3]], right[indptr[3] : indptr[4]])[0]
    np.testing.assert_allclose(alone, solved[3], rtol=1e-4, atol=1e-5 * np.abs(solved[3]).max())


def test_what_cannot_be_solved_is_named_and_nobody_is_solved_too(factors, known):
    assert solve(factors, csr_matrix((0, 90), dtype=np.float32), np.zeros(0, np.float32)).shape == (0, 12)
    model = BPR(factors=4, iterations=1, fold_in=0.0, background=0.0).fit(known)
    with pytest.raises(ValueError, match="with a penalty of 0.0; it must be larger"):
        model.recommend_new([1, 2])
    one = csr_matrix((np.full(30, -9, np.float32), np.arange(30), [0, 30]), shape=(1, 90))
    assert not solve(np.zeros_like(factors), one, np.ones(30, np.float32)).any()  # items without factors
    with pytest.raises(np.linalg.LinAlgError):
        solve(np.ones((90, 12), np.float32), one, np.ones(30, np.float32))
