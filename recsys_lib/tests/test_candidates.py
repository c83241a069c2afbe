"""Features of users and items, counted out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.features.candidates import DAY, YEAR, CandidateFeatures, years_of

START = 30 * YEAR  # the year 2000
ROWS = [  # item 3 follows item 2 twice; user 3 comes long after the others
    (1, 1, 5.0, 0),
    (1, 2, 4.0, DAY),
    (1, 3, 2.0, 2 * DAY),
    (2, 2, 4.0, DAY),
    (2, 3, 5.0, 2 * DAY),
    (3, 1, 3.0, 100 * DAY),
    (3, 4, 1.0, 101 * DAY),
]
YEARS = np.array([1990.0, 1995.0, 2000.0, np.nan], dtype=np.float32)


def made(times=True):
    frame = pd.DataFrame(ROWS, columns=["user_id", "item_id", "rating", "timestamp"])
    frame["timestamp"] += int(START)
    return Interactions.from_frame(frame if times else frame.drop(columns="timestamp"))


@pytest.fixture
def candidates():
    return CandidateFeatures(made(), YEARS, np.array([[1, 0], [1, 0], [0, 1], [1, 1]]))


def test_what_is_known_of_an_item(candidates):
    counts, mean, years = candidates._items(np.array([[0, 3]]))
    np.testing.assert_allclose(counts, np.log1p([[2, 1]]))
    overall = np.mean([row[2] for row in ROWS])
    np.testing.assert_allclose(mean, [[(8 + 5 * overall) / 7, (1 + 5 * overall) / 6]], rtol=1e-6)
    np.testing.assert_allclose(years, [[1990, 1995]])  # an unknown year is the middle one


def test_the_moment_counts_nothing_that_came_later(candidates):
    """Item 1 at the last moment of user 2: met once, two days before; what user 3 does later is not known."""
    train = candidates.train
    before, month, half_year, share, two_years, since, age = candidates._moment(train.rows([1]), np.array([[0, 3]]))
    np.testing.assert_allclose(before, np.log1p([[1, 0]]))
    np.testing.assert_allclose(month, np.log1p([[1, 0]]))
    np.testing.assert_allclose(half_year, two_years)
    np.testing.assert_allclose(share, np.log1p([[1e4 * 1 / 3, 0]]))  # of the three that came before that moment
    np.testing.assert_allclose(since, np.log1p([[2, 5000]]), rtol=1e-6)
    np.testing.assert_allclose(age, [[10 + 2 * DAY / YEAR, 5 + 2 * DAY / YEAR]], rtol=1e-6)
    later = candidates._moment(train.rows([2]), np.array([[1]]))
    np.testing.assert_allclose([later[0][0, 0], later[1][0, 0]], np.log1p([2, 0]))


def test_what_follows_follows_in_one_direction(candidates):
    train = candidates.train
    history = Histories(csr_matrix(np.array([[0.0, 4.0, 0.0, 0.0]])), np.array([int(START)]))
    near, next_ = candidates._following(history, np.array([[0, 2, 3]]))
    scale = 1 / np.sqrt((train.item_counts[1] + 3) * (train.item_counts[2] + 3))
    np.testing.assert_allclose(near, [[0, 2 * scale, 0]], rtol=1e-6)
    np.testing.assert_allclose(next_, [[0, 2 * scale, 0]], rtol=1e-6)


def test_similarity_is_the_sum_of_shrunk_cosines(candidates):
    train = candidates.train
    watched = (train.matrix.toarray() > 0).astype(float)
    cosine = watched.T @ watched / np.sqrt(np.outer(train.item_counts + 5, train.item_counts + 5))
    high, low, last, above = candidates._similarity(train.rows([0]), np.array([[3]]))
    np.testing.assert_allclose(high, [[cosine[0, 3] + cosine[1, 3]]], rtol=1e-5)
    np.testing.assert_allclose(low, [[cosine[2, 3]]], rtol=1e-5)
    np.testing.assert_allclose(last, [[cosine[:3, 3].sum()]], rtol=1e-5)
    deviations = np.array([5, 4, 2]) - 11 / 3
    np.testing.assert_allclose(above, [[deviations @ cosine[:3, 3] / (cosine[:3, 3].sum() + 0.5)]], rtol=1e-5)


@pytest.mark.parametrize("apart", [1, 20])  # groups of users that share no items: the cosines of many are sparse
def test_similarity_of_every_candidate_in_a_small_and_in_a_wide_catalogue(apart):
    one = pd.DataFrame(ROWS, columns=["user_id", "item_id", "rating", "timestamp"]).astype({"timestamp": np.int64})
    frames = [one.assign(user_id=one["user_id"] + 10 * n, item_id=one["item_id"] + 10 * n) for n in range(apart)]
    train = Interactions.from_frame(pd.concat(frames, ignore_index=True))
    watched = (train.matrix.toarray() > 0).astype(float)
    cosine = watched.T @ watched / np.sqrt(np.outer(train.item_counts + 5, train.item_counts + 5))
    codes = np.tile(np.arange(train.n_items), (train.n_users, 1))
    table = CandidateFeatures(train).table(train.rows(np.arange(train.n_users)), codes)
    rated_high = (train.matrix.toarray() >= 4) | ((train.matrix.toarray() > 0) & (train.user_ids % 10 == 3)[:, None])
    expected = rated_high @ cosine  # the third user of a group has no rating of 4 or more: all count
    np.testing.assert_allclose(table["similarity: with the items rated high"], expected.ravel(), atol=1e-6)


def test_taste_is_the_distance_from_what_was_watched(candidates):
    year_short, _, from_all, _, genre_short, genre_all = candidates._tastes(candidates.train.rows([0]), np.array([[3]]))
    shares = np.exp2(-np.array([2, 1, 0]) / 3)
    shares /= shares.sum()
    mean = shares @ YEARS[:3]
    spread = np.sqrt(shares @ YEARS[:3] ** 2 - mean**2)
    np.testing.assert_allclose(year_short, [[abs(1995 - mean) / (spread + 2)]], rtol=1e-4)
    np.testing.assert_allclose(from_all, [[0]], atol=1e-6)
    np.testing.assert_allclose(genre_short, [[0.5**0.5]], rtol=1e-6)
    np.testing.assert_allclose(genre_all, [[0.5**0.5]], rtol=1e-6)


@pytest.mark.parametrize("times", [True, False])
def test_whatever_is_missing_the_features_are_numbers(times):
    train = made(times)
    histories = Histories(csr_matrix((2, 4), dtype=np.float32), np.zeros(0, dtype=np.int64) if times else None)
    codes = np.array([[0, 1], [2, 3]])
    with_all = CandidateFeatures(train, YEARS, np.ones((4, 2))).features(train.rows([0, 1]), codes)
    without = CandidateFeatures(train).features(histories, codes)
    assert np.isfinite(with_all).all()
    assert np.isfinite(without).all()
    assert with_all.shape[2] - without.shape[2] == (7 if times else 6)
    bare = Histories(train.matrix)
    assert np.isfinite(CandidateFeatures(train).features(bare, np.zeros((3, 1), dtype=np.int64))).all()


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("years", [YEARS, None])
@pytest.mark.parametrize("genres", [np.ones((4, 2)), None])
def test_every_feature_has_a_name(times, years, genres):
    train = made(times)
    candidates, codes = CandidateFeatures(train, years, genres), np.array([[0, 3]])
    table = candidates.table(train.rows([0]), codes)
    assert len(table) == 2
    assert table.columns.is_unique
    np.testing.assert_allclose(table["item: log(1 + ratings)"], np.log1p([2, 1]), rtol=1e-6)
    if years is not None:
        np.testing.assert_allclose(table["item: year"], [1990, 1995])
        if times:
            np.testing.assert_allclose(
                table["moment: age in years"], [10 + 2 * DAY / YEAR, 5 + 2 * DAY / YEAR], rtol=1e-6
            )
    if times:
        _, last = candidates._following(train.rows([0]), codes)
        np.testing.assert_allclose(table["sequence: followed the last within 3"], last[0], rtol=1e-6)


def test_years_by_column():
    items = pd.DataFrame({"item_id": [4, 2, 9], "year": pd.array([1999, None, 1980], dtype="Int16")})
    np.testing.assert_array_equal(years_of(items, made()), [np.nan, np.nan, np.nan, 1999])
    assert np.isnan(years_of(None, made())).all()


def test_what_the_same_interactions_decide_is_made_once(candidates):
    assert CandidateFeatures(candidates.train)._known is candidates._known
    assert CandidateFeatures(made())._known is not candidates._known
