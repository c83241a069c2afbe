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


def cosines(train):
    watched = (train.matrix.toarray() > 0).astype(float)
    return watched.T @ watched / np.sqrt(np.outer(train.item_counts + 5, train.item_counts + 5))


def test_features_by_hand(train):
    """Item 1 at the last moment of user 2 was rated once; what user 3 does later does not count."""
    overall, cosine, high = FRAME["rating"].mean(), cosines(train)[:3, 3], np.array([5, 4, 2]) - 11 / 3
    last = np.exp2(-np.array([2, 1, 0]) / 3) / np.exp2(-np.array([2, 1, 0]) / 3).sum()
    spread = np.sqrt(last @ YEARS[:3] ** 2 - (last @ YEARS[:3]) ** 2)
    scale = 1 / np.sqrt((train.item_counts[1] + 3) * (train.item_counts[2] + 3))
    had_item_2 = Histories(csr_matrix(np.array([[0.0, 4.0, 0.0, 0.0]])), np.array([int(START)]))
    by_hand = [
        (
            train.rows([0]),
            [0, 3],
            {
                "item: log(1 + ratings)": np.log1p([2, 1]),
                "item: shrunk mean rating": [(8 + 5 * overall) / 7, (1 + 5 * overall) / 6],
                "item: year": [1990, 1995],  # an unknown year is the middle one
            },
        ),
        (
            train.rows([0]),
            [3],
            {
                "user: log(1 + ratings)": np.log1p(3),
                "user: mean rating": 11 / 3,
                "user: log(1 + days since the first)": np.log1p(2),
                "user: log(1 + seconds since the sixth last)": np.log1p(2 * DAY),
                "similarity: with the items rated high": cosine[0] + cosine[1],
                "similarity: with the items rated low": cosine[2],
                "similarity: with the items rated last": cosine.sum(),
                "similarity: ratings above the mean, weighted": high @ cosine / (cosine.sum() + 0.5),
                "year: distance to the last 3": abs(1995 - last @ YEARS[:3]) / (spread + 2),
                "year: minus the mean of all": 0,
                "genres: cosine with the last 3": 0.5**0.5,
                "genres: cosine with all": 0.5**0.5,
            },
        ),
        (
            train.rows([1]),
            [0, 3],
            {
                **{f"moment: ratings in {days} days": np.log1p([1, 0]) for days in (30, 180, 730)},
                "moment: ratings until now": np.log1p([1, 0]),
                "moment: share of all in 180 days": np.log1p([1e4 * 1 / 3, 0]),  # of the three before that moment
                "moment: days since the last": np.log1p([2, 5000]),
                "moment: age in years": [10 + 2 * DAY / YEAR, 5 + 2 * DAY / YEAR],
            },
        ),
        (train.rows([2]), [1], {"moment: ratings until now": np.log1p(2), "moment: ratings in 30 days": 0}),
        (had_item_2, [0, 2, 3], {f"sequence: followed the last within {n}": [0, 2 * scale, 0] for n in (20, 3)}),
    ]
    for history, items, expected in by_hand:
        table = CandidateFeatures(train, YEARS, GENRES).table(history, np.array([items]))
        for name, values in expected.items():
            np.testing.assert_allclose(table[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


# Groups of users that share no items: the cosines of many are sparse; of a wide catalogue only the nearest are kept.
@pytest.mark.parametrize(("apart", "wide"), [(1, 2**14), (20, 2**14), (20, 1)])
def test_similarity_of_every_candidate_in_a_small_and_in_a_wide_catalogue(apart, wide, monkeypatch):
    monkeypatch.setattr(candidates, "WIDE_CATALOGUE", wide)
    groups = [FRAME.assign(user_id=FRAME["user_id"] + 10 * n, item_id=FRAME["item_id"] + 10 * n) for n in range(apart)]
    train = Interactions.from_frame(pd.concat(groups, ignore_index=True))
    codes = np.tile(np.arange(train.n_items), (train.n_users, 1))
    table = CandidateFeatures(train).table(train.rows(np.arange(train.n_users)), codes)
    rated_high = (train.matrix.toarray() >= 4) | ((train.matrix.toarray() > 0) & (train.user_ids % 10 == 3)[:, None])
    expected = rated_high @ cosines(train)  # the third user of a group has no rating of 4 or more: all count
    unseen = train.matrix.toarray().ravel() == 0
    similarity = table["similarity: with the items rated high"][unseen]
    np.testing.assert_allclose(similarity, expected.ravel()[unseen], atol=1e-6)


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
    assert candidates.features(train.rows([]), codes[:0]).shape == (0, 2, table.shape[1]), "nobody was held out"


def test_years_by_column(train):
    items = pd.DataFrame({"item_id": [4, 2, 9], "year": pd.array([1999, None, 1980], dtype="Int16")})
    np.testing.assert_array_equal(years_of(items, train), [np.nan, np.nan, np.nan, 1999])
    assert np.isnan(years_of(None, train)).all()


def test_hundreds_of_attributes_and_wide_tables_give_the_same_features(train, monkeypatch):
    """What is sparse for the sake of time and memory changes no value."""
    wide = np.hstack([GENRES, np.eye(4), np.zeros((4, 80))])
    some, codes = train.rows([0, 1, 2]), np.array([[3, 0], [1, 2], [2, 1]])
    expected = CandidateFeatures(train, YEARS, wide[:, :6]).features(some, codes)
    np.testing.assert_allclose(CandidateFeatures(train, YEARS, wide).features(some, codes), expected, rtol=1e-6)
    monkeypatch.setattr(candidates, "_dense_if_filled", lambda table: table)
    again = Interactions.from_frame(FRAME)
    np.testing.assert_allclose(CandidateFeatures(again, YEARS, wide).features(some, codes), expected, rtol=1e-5)
