"""Lists from scores, against sorting everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_lib.models import lists
from recsys_lib.models.lists import merge_twins, top_k


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 30), st.integers(1, 35), st.integers(0, 10_000), st.integers(1, 5), st.booleans()
)
def test_top_k_is_a_stable_sort(n_rows, n_items, k, seed, levels, with_twins):
    """Few levels make many ties, which must go to the lower column; of twins one is listed, and none of a seen one."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (n_rows, n_items)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = np.nan
    seen, group = csr_matrix(rng.random(scores.shape) < 0.3), rng.integers(0, n_items, n_items)
    twins = np.array([np.flatnonzero(group == number)[0] for number in group]) if with_twins else np.arange(n_items)
    before = scores.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "SCORES_PER_BLOCK", 60)  # some tables are searched in several blocks
        codes, best = top_k(scores, k, exclude=seen, twins=twins if with_twins else None)
    np.testing.assert_array_equal(scores, before)
    assert codes.shape == best.shape == (n_rows, min(k, n_items))
    for row in range(n_rows):
        expected, taken = [], set(twins[seen[row].indices])
        scored = np.flatnonzero(~np.isnan(scores[row])).tolist()
        for item in sorted(scored, key=lambda item: (-scores[row, item], item)):
            if twins[item] not in taken:
                taken.add(twins[item])
                expected.append(item)
        listed = codes[row][codes[row] >= 0]
        assert listed.tolist() == expected[:k]
        np.testing.assert_array_equal(best[row, : len(listed)], scores[row, listed])
        assert np.isnan(best[row, len(listed) :]).all()


def test_stored_zeros_are_excluded_too_and_a_list_has_at_least_one_place():
    seen = csr_matrix((np.zeros(1), ([0], [1])), shape=(1, 3))
    assert top_k(np.array([[1.0, 9.0, 2.0]]), 3, exclude=seen)[0].tolist() == [[2, 0, -1]]
    assert np.isnan(merge_twins(np.array([[1.0, 9.0, 2.0]]), np.array([0, 1, 1]), seen)[0, 1:]).all()
    with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
        top_k(np.ones((1, 2)), 0)
