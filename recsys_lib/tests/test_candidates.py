"""Features of users and items, counted out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.base import years_of
from recsys_lib.models.features import candidates
from recsys_lib.models.features.candidates import DAY, YEAR, CandidateFeatures

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
FRAME = pd.DataFrame(ROWS, columns=["user_id", "item_id", "rating", "timestamp"]).astype({"timestamp": np.int64})
FRAME["timestamp"] += int(START)
YEARS = np.array([1990.0, 1995.0, 2000.0, np.nan], dtype=np.float32)
GENRES = np.array([[1, 0], [1, 0], [0, 1], [1, 1]])


@pytest.fixture(scope="module")
def train():
    return Interactions.from_frame(FRAME)


@pytest.fixture(scope="module")
def features(train):
    """Features of some items for one user, by name."""
    known = CandidateFeatures(train, YEARS, GENRES)

    def of(user, items):
        history = user if isinstance(user, Histories) else train.rows([user])
        return {name: list(values) for name, values in known.table(history, np.array([items])).items()}

    return of


def cosines(train):
    watched = (train.matrix.toarray() > 0).astype(float)
    return watched.T @ watched / np.sqrt(np.outer(train.item_counts + 5, train.item_counts + 5))


def test_what_is_known_of_an_item(features):
    table, overall = features(0, [0, 3]), np.mean([row[2] for row in ROWS])
    np.testing.assert_allclose(table["item: log(1 + ratings)"], np.log1p([2, 1]), rtol=1e-6)
    np.testing.assert_allclose(
        table["item: shrunk mean rating"], [(8 + 5 * overall) / 7, (1 + 5 * overall) / 6], rtol=1e-6
    )
    assert table["item: year"] == [1990, 1995]  # an unknown year is the middle one


def test_what_is_known_of_a_user(features):
    table = features(0, [3])
    np.testing.assert_allclose(table["user: log(1 + ratings)"], np.log1p(3), rtol=1e-6)
    np.testing.assert_allclose(table["user: mean rating"], 11 / 3, rtol=1e-6)
    np.testing.assert_allclose(table["user: log(1 + days since the first)"], np.log1p(2), rtol=1e-6)
    np.testing.assert_allclose(table["user: log(1 + seconds since the sixth last)"], np.log1p(2 * DAY), rtol=1e-6)


def test_the_moment_counts_nothing_that_came_later(features):
    """Item 1 at the last moment of user 2: rated once, two days before; what user 3 does later is not known."""
    table = features(1, [0, 3])
    for when in ("until now", "in 30 days", "in 180 days", "in 730 days"):
        np.testing.assert_allclose(table[f"moment: ratings {when}"], np.log1p([1, 0]), rtol=1e-6)
    share = np.log1p([1e4 * 1 / 3, 0])  # of the three that came before that moment
    np.testing.assert_allclose(table["moment: share of all in 180 days"], share, rtol=1e-6)
    np.testing.assert_allclose(table["moment: days since the last"], np.log1p([2, 5000]), rtol=1e-6)
    age = [10 + 2 * DAY / YEAR, 5 + 2 * DAY / YEAR]
    np.testing.assert_allclose(table["moment: age in years"], age, rtol=1e-6)
    later = features(2, [1])
    np.testing.assert_allclose(later["moment: ratings until now"], np.log1p(2), rtol=1e-6)
    assert later["moment: ratings in 30 days"] == [0]


def test_what_follows_follows_in_one_direction(train, features):
    table = features(Histories(csr_matrix(np.array([[0.0, 4.0, 0.0, 0.0]])), np.array([int(START)])), [0, 2, 3])
    scale = 1 / np.sqrt((train.item_counts[1] + 3) * (train.item_counts[2] + 3))
    for reach in (20, 3):
        np.testing.assert_allclose(table[f"sequence: followed the last within {reach}"], [0, 2 * scale, 0], rtol=1e-6)


def test_similarity_is_the_sum_of_shrunk_cosines(train, features):
    table, cosine = features(0, [3]), cosines(train)
    expected = {"high": cosine[0, 3] + cosine[1, 3], "low": cosine[2, 3], "last": cosine[:3, 3].sum()}
    for which, value in expected.items():
        np.testing.assert_allclose(table[f"similarity: with the items rated {which}"], value, rtol=1e-5)
    above = (np.array([5, 4, 2]) - 11 / 3) @ cosine[:3, 3] / (cosine[:3, 3].sum() + 0.5)
    np.testing.assert_allclose(table["similarity: ratings above the mean, weighted"], above, rtol=1e-5)


# Groups of users that share no items: the cosines of many are sparse; of a wide catalogue only the nearest are kept.
@pytest.mark.parametrize(("apart", "wide"), [(1, 2**14), (20, 2**14), (20, 1)])
def test_similarity_of_every_candidate_in_a_small_and_in_a_wide_catalogue(apart, wide, monkeypatch):
    monkeypatch.setattr(candidates, "WIDE", wide)
    groups = [FRAME.assign(user_id=FRAME["user_id"] + 10 * n, item_id=FRAME["item_id"] + 10 * n) for n in range(apart)]
    train = Interactions.from_frame(pd.concat(groups, ignore_index=True))
    codes = np.tile(np.arange(train.n_items), (train.n_users, 1))
    table = CandidateFeatures(train).table(train.rows(np.arange(train.n_users)), codes)
    rated_high = (train.matrix.toarray() >= 4) | ((train.matrix.toarray() > 0) & (train.user_ids % 10 == 3)[:, None])
    expected = rated_high @ cosines(train)  # the third user of a group has no rating of 4 or more: all count
    unseen = train.matrix.toarray().ravel() == 0
    similarity = table["similarity: with the items rated high"][unseen]
    np.testing.assert_allclose(similarity, expected.ravel()[unseen], atol=1e-6)


def test_taste_is_the_distance_from_what_was_watched(features):
    table, shares = features(0, [3]), np.exp2(-np.array([2, 1, 0]) / 3)
    shares /= shares.sum()
    mean = shares @ YEARS[:3]
    distance = abs(1995 - mean) / (np.sqrt(shares @ YEARS[:3] ** 2 - mean**2) + 2)
    np.testing.assert_allclose(table["year: distance to the last 3"], distance, rtol=1e-4)
    np.testing.assert_allclose(table["year: minus the mean of all"], 0, atol=1e-6)
    for which in ("the last 3", "all"):
        np.testing.assert_allclose(table[f"genres: cosine with {which}"], 0.5**0.5, rtol=1e-6)


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("years", [YEARS, None])
@pytest.mark.parametrize("genres", [GENRES, None])
def test_whatever_is_missing_the_features_are_numbers(times, years, genres):
    train = Interactions.from_frame(FRAME if times else FRAME.drop(columns="timestamp"))
    candidates, codes = CandidateFeatures(train, years, genres), np.array([[0, 1], [2, 3], [1, 1]])
    nothing = Histories(csr_matrix((3, 4), dtype=np.float32), np.zeros(0, dtype=np.int64) if times else None)
    for histories in (train.rows([0, 1, 2]), nothing, Histories(train.matrix)):
        table, values = candidates.table(histories, codes), candidates.features(histories, codes)
        assert np.isfinite(values).all()
        np.testing.assert_array_equal(table, values.reshape(6, -1))
    dated, kinds = 4 + times if years is not None else 0, 2 if genres is not None else 0
    assert table.shape[1] == 9 + 10 * times + dated + kinds


def test_years_by_column(train):
    items = pd.DataFrame({"item_id": [4, 2, 9], "year": pd.array([1999, None, 1980], dtype="Int16")})
    np.testing.assert_array_equal(years_of(items, train), [np.nan, np.nan, np.nan, 1999])
    assert np.isnan(years_of(None, train)).all()
