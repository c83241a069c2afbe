"""Metrics beyond accuracy: against a plain reading of their formulas, and where they have nothing to say."""

from itertools import combinations

import numpy as np
import pytest
import sampled
from scipy.sparse import csr_matrix

from recsys_lib.evaluation.metrics import beyond_accuracy as beyond
from recsys_lib.evaluation.metrics import rating
from recsys_lib.evaluation.metrics.ranking import judge, positions

K, USERS, ITEMS = 4, 30, 12


@pytest.fixture(scope="module")
def lists():
    rng = np.random.default_rng(0)
    made = rng.random((USERS, ITEMS)).argsort(axis=1)[:, :6]
    made[np.arange(6) >= rng.integers(0, 7, size=USERS)[:, None]] = -1
    return made


@pytest.fixture(scope="module")
def genres():
    made = (np.random.default_rng(1).random((ITEMS, 3)) < 0.5).astype(float)
    made[0] = 0  # nothing is known of this one
    return made


@pytest.fixture(scope="module")
def histories():
    return csr_matrix((np.random.default_rng(2).random((USERS, ITEMS)) < 0.4) * 3.0)


def shown(lists, user):
    return [code for code in lists[user, :K] if code >= 0]


def test_coverage_and_gini(lists):
    listed = np.concatenate([shown(lists, user) for user in range(USERS)])
    assert beyond.coverage(lists, ITEMS, K) == len(set(listed)) / ITEMS
    counts = np.bincount(listed.astype(int), minlength=ITEMS)
    pairs = np.abs(counts[:, None] - counts[None, :]).sum()
    assert beyond.gini(lists, ITEMS, K) == pytest.approx(pairs / (2 * ITEMS * counts.sum()))
    assert np.isnan(beyond.gini(np.full((2, 3), -1), ITEMS, K))


def test_novelty_and_popularity_lift(lists, histories):
    popularity = np.arange(1, ITEMS + 1) * 2
    novelty = beyond.novelty(lists, popularity, 100, K)
    lift = beyond.popularity_lift(lists, popularity, histories, K)
    for user in range(USERS):
        codes = shown(lists, user)
        if not codes:
            assert np.isnan(novelty[user])
            assert np.isnan(lift[user])
            continue
        assert novelty[user] == pytest.approx(-np.log2(popularity[codes] / 100).mean())
        before = popularity[histories[user].indices].mean()  # the ratings themselves must not weigh
        assert lift[user] == pytest.approx(popularity[codes].mean() / before - 1)


def test_intra_list_diversity(lists, genres):
    found = beyond.intra_list_diversity(lists, genres, K)
    for user in range(USERS):
        vectors = [genres[code] for code in shown(lists, user) if genres[code].any()]
        pairs = [1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(vectors, 2)]
        assert np.isnan(found[user]) if not pairs else found[user] == pytest.approx(np.mean(pairs))


def test_overlap(lists):
    found = beyond.overlap(lists, ITEMS, K)
    for user in range(USERS):
        own = set(shown(lists, user))
        others = [len(own & set(shown(lists, other))) / K for other in range(USERS) if other != user]
        assert found[user] == pytest.approx(np.mean(others))


def test_serendipity(lists):
    relevant = csr_matrix((np.random.default_rng(4).random((USERS, ITEMS)) < 0.5).astype(float))
    expected = np.tile([0, 1, 2, 3, 4], (USERS, 1))
    found = beyond.serendipity(lists, judge(lists, relevant).hits, expected, K)
    for user in range(USERS):
        surprising = [code for code in shown(lists, user) if relevant[user, code] and code not in range(K)]
        assert found[user] == len(surprising) / K


def test_miscalibration(lists, genres, histories):
    found = beyond.miscalibration(lists, genres, histories, K)
    for user in range(USERS):
        shares = []
        for codes in (histories[user].indices, shown(lists, user)):
            parts = [genres[code] / genres[code].sum() for code in codes if genres[code].any()]
            shares.append(np.sum(parts, axis=0) / len(parts) if parts else None)
        if any(share is None for share in shares):
            assert np.isnan(found[user])
            continue
        p, q = shares
        known = p > 0
        ratio = p[known] / (0.99 * q[known] + 0.01 * p[known])
        assert found[user] == pytest.approx((p[known] * np.log(ratio)).sum())
    assert (found[~np.isnan(found)] >= -1e-12).all()


def test_known_answers(genres):
    history = csr_matrix(np.eye(ITEMS)[[1, 2, 3, 4]].sum(axis=0, keepdims=True))
    assert beyond.miscalibration(np.array([[1, 2, 3, 4]]), genres, history, 4)[0] == pytest.approx(0)
    assert beyond.novelty(np.array([[0, 0, 1]]), np.array([1, 4]), 4, 3)[0] == 1.0  # what stands twice is shown once
    errors = np.array([0.5, -1.0, 2.0])
    assert rating.rmse(errors) == pytest.approx(np.sqrt((0.25 + 1 + 4) / 3))
    assert rating.mae(errors) == pytest.approx(3.5 / 3)


def test_sampled_ranks_are_those_of_drawn_lists():
    """Drawing from the place alone gives what drawing films and ranking them gives, on average."""
    rng = np.random.default_rng(6)
    scores = rng.random((1, 300))
    relevant = csr_matrix(([1.0, 1.0, 1.0], ([0, 0, 0], [3, 50, 200])), shape=(1, 301))
    found = positions(scores, relevant)
    ours = np.mean([sampled.sampled_ranks(found, 20, seed=seed) for seed in range(3000)], axis=0)
    others = np.setdiff1d(np.arange(300), [3, 50, 200])
    drawn = np.stack([rng.choice(others, 20, replace=False) for _ in range(3000)])
    plain = [1 + (scores[0, drawn] > scores[0, item]).sum(axis=1).mean() for item in (3, 50, 200)]
    np.testing.assert_allclose(ours, plain, atol=0.2)


def test_against_everything_the_sample_is_the_whole_ranking():
    scores = np.random.default_rng(7).random((5, 40))
    relevant = csr_matrix((np.arange(40) == 7).astype(float)[None].repeat(5, axis=0))
    found = positions(scores, relevant)
    assert sampled.sampled_ranks(found, 1000).tolist() == found.rank.tolist()
