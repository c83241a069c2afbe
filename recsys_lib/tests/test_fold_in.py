"""Users are folded in as the normal equations say, step by step or directly."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys_lib.models import fold_in
from recsys_lib.models.fold_in import FoldIn

RIDGE, BACKGROUND = 2.0, 0.5


@pytest.fixture(scope="module")
def factors():
    return np.random.default_rng(0).normal(0, 0.3, (90, 12)).astype(np.float32)


@pytest.fixture(scope="module", params=["weights above 0", "most weights below 0"])
def users(request):
    """Histories of 0 to 60 items: their weights and what stands on the right side at each entry."""
    rng = np.random.default_rng(1)
    lengths = np.append(rng.integers(0, 60, 40), 0)
    indices = np.concatenate([np.sort(rng.choice(90, length, replace=False)) for length in lengths])
    right = (8 * 2.0 ** -rng.uniform(0, 12, len(indices))).astype(np.float32)
    weights = right if request.param == "weights above 0" else right - np.float32(0.5)  # of a background of 0.5
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return csr_matrix((weights, indices, indptr), shape=(len(lengths), 90)), right


def expected(factors, weights, right):
    """Each user's normal equations, in 64 bits."""
    y, solved = factors.astype(float), np.zeros((weights.shape[0], factors.shape[1]))
    for row in range(len(solved)):
        part = slice(weights.indptr[row], weights.indptr[row + 1])
        near = y[weights.indices[part]]
        system = BACKGROUND * y.T @ y + RIDGE * np.eye(y.shape[1]) + (near * weights.data[part, None]).T @ near
        solved[row] = np.linalg.solve(system, near.T @ right[part])
    return solved


SETTINGS = {"as it is": {}, "in small groups": {"GROUP": 900}, "directly": {"MAX_STEPS": 1}}


@pytest.mark.parametrize("setting", SETTINGS)
def test_users_solve_the_normal_equations(factors, users, setting, monkeypatch):
    for name, value in SETTINGS[setting].items():
        monkeypatch.setattr(fold_in, name, value)
    weights, right = users
    solved, true = FoldIn.of(factors, BACKGROUND, RIDGE).solve(weights, right), expected(factors, weights, right)
    assert solved.dtype == np.float32
    errors = np.linalg.norm(solved - true, axis=1)
    assert (errors <= 1e-5 * np.linalg.norm(true, axis=1)).all()
    assert not solved[np.diff(weights.indptr) == 0].any()


def test_alone_as_in_company(factors, users):
    weights, right = users
    solver = FoldIn.of(factors, BACKGROUND, RIDGE)
    together, row = solver.solve(weights, right), 3
    alone = solver.solve(weights[[row]], right[weights.indptr[row] : weights.indptr[row + 1]])
    np.testing.assert_allclose(alone[0], together[row], rtol=1e-4, atol=1e-5 * np.abs(together[row]).max())


def test_items_without_factors_and_no_users(factors):
    solver = FoldIn.of(np.zeros_like(factors), BACKGROUND, RIDGE)
    one = csr_matrix((np.ones(2, np.float32), [3, 4], [0, 2]), shape=(1, 90))
    assert not solver.solve(one, one.data).any()
    assert solver.solve(csr_matrix((0, 90), dtype=np.float32), np.zeros(0, np.float32)).shape == (0, 12)


def test_a_penalty_that_is_too_small_is_named(factors):
    solver = FoldIn.of(factors, BACKGROUND, RIDGE)
    one = csr_matrix((np.full(30, -9, np.float32), np.arange(30), [0, 30]), shape=(1, 90))
    with pytest.raises(ValueError, match="with a penalty of 2.0; it must be larger"):
        solver.solve(one, np.ones(30, np.float32))
    with pytest.raises(ValueError, match="with a penalty of 0.0; it must be larger"):
        FoldIn.of(np.zeros_like(factors), BACKGROUND, 0.0)
