"""Metrics beyond accuracy: against a plain reading of their formulas, and where they have nothing to say."""

from itertools import combinations

import numpy as np
import pytest
import sampled
from scipy.sparse import csr_matrix

from recsys_lib.evaluation.metrics import beyond_accuracy as beyond
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


def check(found, lists, plain):
    """Compare with a plain function of what is shown and to whom; None is no value."""
    for user in range(USERS):
        expected = plain(shown(lists, user), user)
        assert np.isnan(found[user]) if expected is None else found[user] == pytest.approx(expected)


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
    check(novelty, lists, lambda codes, _: -np.log2(popularity[codes] / 100).mean() if codes else None)

    def lift(codes, user):
        before = popularity[histories[user].indices].mean()  # the ratings themselves must not weigh
        return popularity[codes].mean() / before - 1 if codes else None

    check(beyond.popularity_lift(lists, popularity, histories, K), lists, lift)


def test_intra_list_diversity(lists, genres):
    def apart(codes, _):
        vectors = [genres[code] for code in codes if genres[code].any()]
        pairs = [1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(vectors, 2)]
        return np.mean(pairs) if pairs else None

    check(beyond.intra_list_diversity(lists, genres, K), lists, apart)


def test_overlap(lists):
    def common(codes, user):
        return np.mean([len({*codes} & {*shown(lists, other)}) / K for other in range(USERS) if other != user])

    check(beyond.overlap(lists, ITEMS, K), lists, common)


def test_serendipity(lists):
    relevant = csr_matrix((np.random.default_rng(4).random((USERS, ITEMS)) < 0.5).astype(float))
    expected = np.tile([0, 1, 2, 3, 4], (USERS, 1))
    found = beyond.serendipity(lists, judge(lists, relevant).hits, expected, K)
    check(found, lists, lambda codes, user: sum(relevant[user, c] > 0 and c not in range(K) for c in codes) / K)


def test_miscalibration(lists, genres, histories):
    def divergence(codes, user):
        shares = []
        for some in (histories[user].indices, codes):
            parts = [genres[code] / genres[code].sum() for code in some if genres[code].any()]
            if not parts:
                return None
            shares.append(np.mean(parts, axis=0))
        p, q = (share[shares[0] > 0] for share in shares)
        return (p * np.log(p / (0.99 * q + 0.01 * p))).sum()

    check(beyond.miscalibration(lists, genres, histories, K), lists, divergence)


def test_what_stands_twice_is_shown_once():
    assert beyond.novelty(np.array([[0, 0, 1]]), np.array([1, 4]), 4, 3)[0] == 1.0


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
