"""People are folded in as the normal equations say, whichever way they are solved."""

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
def people(request):
    """Histories of 0 to 60 items: their weights and what stands on the right side at each entry."""
    rng = np.random.default_rng(1)
    lengths = np.append(rng.integers(0, 60, 40), 0)
    indices = np.concatenate([np.sort(rng.choice(90, length, replace=False)) for length in lengths])
    right = (8 * 2.0 ** -rng.uniform(0, 12, len(indices))).astype(np.float32)
    weights = right if request.param == "weights above 0" else right - np.float32(0.5)  # of a background of 0.5
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return csr_matrix((weights, indices, indptr), shape=(len(lengths), 90)), right


def expected(factors, weights, right):
    """Each person's normal equations, in 64 bits."""
    y, found = factors.astype(float), np.zeros((weights.shape[0], factors.shape[1]))
    for row in range(len(found)):
        part = slice(weights.indptr[row], weights.indptr[row + 1])
        near = y[weights.indices[part]]
        system = BACKGROUND * y.T @ y + RIDGE * np.eye(y.shape[1]) + (near * weights.data[part, None]).T @ near
        found[row] = np.linalg.solve(system, near.T @ right[part])
    return found


WAYS = {
    "step by step": {},
    "in small groups": {"GROUP": 900},
    "all directly": {"STEPS": 1},
    "long ones directly": {"GROUP": 300},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_solves_the_normal_equations(factors, people, way, monkeypatch):
    for name, value in WAYS[way].items():
        monkeypatch.setattr(fold_in, name, value)
    weights, right = people
    found, true = FoldIn.of(factors, BACKGROUND, RIDGE).solve(weights, right), expected(factors, weights, right)
    assert found.dtype == np.float32
    errors = np.linalg.norm(found - true, axis=1)
    assert (errors <= 1e-5 * np.linalg.norm(true, axis=1)).all()
    assert not found[np.diff(weights.indptr) == 0].any()


def test_the_ways_are_taken(factors, people, monkeypatch):
    weights, right = people
    taken = []
    plain = fold_in._directly
    monkeypatch.setattr(fold_in, "_directly", lambda *given: taken.append(len(given[0])) or plain(*given))
    solver = FoldIn.of(factors, BACKGROUND, RIDGE)
    solver.solve(weights, right)
    assert taken == []
    monkeypatch.setattr(fold_in, "GROUP", 300)  # 25 items of 12 factors
    solver.solve(weights, right)
    assert taken == sorted(length for length in np.diff(weights.indptr) if length > 25)


def test_alone_as_in_company(factors, people):
    weights, right = people
    solver = FoldIn.of(factors, BACKGROUND, RIDGE)
    together, row = solver.solve(weights, right), 3
    alone = solver.solve(weights[[row]], right[weights.indptr[row] : weights.indptr[row + 1]])
    np.testing.assert_allclose(alone[0], together[row], rtol=1e-4, atol=1e-5 * np.abs(together[row]).max())


def test_items_without_factors_and_nobody_at_all(factors):
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
