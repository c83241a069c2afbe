"""Lists from scores, against sorting everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_lib.models.lists import top_k


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), st.integers(1, 30), st.integers(1, 35), st.integers(0, 10_000), st.integers(1, 5))
def test_top_k_is_a_stable_sort(n_rows, n_items, k, seed, levels):
    """Few levels make many ties, which must go to the lower column."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (n_rows, n_items)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = np.nan
    seen = csr_matrix(rng.random(scores.shape) < 0.3)
    before = scores.copy()
    codes, best = top_k(scores, k, exclude=seen)
    np.testing.assert_array_equal(scores, before)
    assert codes.shape == best.shape == (n_rows, min(k, n_items))
    for row in range(n_rows):
        allowed = [i for i in range(n_items) if not np.isnan(scores[row, i]) and not seen[row, i]]
        expected = sorted(allowed, key=lambda item: (-scores[row, item], item))[:k]
        listed = codes[row][codes[row] >= 0]
        assert listed.tolist() == expected
        np.testing.assert_array_equal(best[row, : len(listed)], scores[row, listed])
        assert np.isnan(best[row, len(listed) :]).all()


@pytest.mark.parametrize("k", [1, 10, 150])
@pytest.mark.parametrize("order", [1, -1])
def test_long_rows_with_many_ties(k, order):
    """More columns than groups; values that fall or rise along the row, or are all the same."""
    counts = np.floor(300 / np.arange(1, 1002))[::order]
    scores = np.stack([counts, np.zeros(1001), np.where(np.arange(1001) < 5, 1.0, np.nan)]).astype(np.float32)
    codes, best = top_k(scores, k)
    for row in range(3):
        expected = np.argsort(-np.nan_to_num(scores[row], nan=-1), kind="stable")[:k]
        expected = np.where(np.isnan(scores[row, expected]), -1, expected)
        np.testing.assert_array_equal(codes[row], expected)
        np.testing.assert_array_equal(best[row], np.where(expected < 0, np.nan, scores[row, expected]))


def test_stored_zeros_are_excluded_too():
    seen = csr_matrix((np.zeros(1), ([0], [1])), shape=(1, 3))
    assert top_k(np.array([[1.0, 9.0, 2.0]]), 3, exclude=seen)[0].tolist() == [[2, 0, -1]]


def test_a_list_has_at_least_one_place():
    with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
        top_k(np.ones((1, 2)), 0)
