"""Features of user-item pairs: by hand, left out, named, and without what a data set may lack."""

import numpy as np
import pandas as pd
import pytest

from recsys_lib.models.features.pairs import PairFeatures, Side, user_features

DAY = 86_400


@pytest.fixture(scope="module")
def fitted(tables, split):
    return PairFeatures.of(split.train, tables[1], tables[2])


def small():
    train = pd.DataFrame(
        {
            "user_id": [1, 1, 1, 2, 2],
            "item_id": [10, 11, 12, 10, 11],
            "rating": [5.0, 3.0, 4.0, 2.0, 1.0],
            "timestamp": [0, 1 * DAY, 3 * DAY, 2 * DAY, 2 * DAY],
        }
    )
    items = pd.DataFrame({"item_id": [10, 11, 12, 13], "genres": [["A"], ["A", "B"], ["B"], []]})
    items["year"] = pd.array([1960, 1970, None, 1950], dtype="Int16")
    return train, items, pd.DataFrame({"user_id": [1, 2, 3], "gender": ["F", "M", "F"]})


def test_values_by_hand():
    train, items, users = small()
    features = PairFeatures.of(train, items, users)
    row = features.table(pd.DataFrame({"user_id": [2], "item_id": [12], "timestamp": [2 * DAY]})).iloc[0]
    mean = 3.0
    of_10, of_11 = mean + (5 + 2 - 2 * mean) / 7, mean + (3 + 1 - 2 * mean) / 7  # as if five ratings of the mean beside
    gaps = [2 - of_10, 1 - of_11]
    user_mean = sum(gaps) / 7
    expected = {
        "user: mean against expectation": user_mean,
        "user: mean rating": (2 + 1 - 2 * mean) / 7,
        "user: number of ratings": np.log1p(2) / 4,
        "item: number of ratings": np.log1p(1) / 4,
        "item: mean rating": (4 - mean) / 6,
        "user: ratings of the same second": (sum(gaps) - 2 * user_mean) / 4,
        "user: 2 ratings around then": sum(gaps) / 4 - user_mean,
        "user and item: genres": (gaps[1] + 5 * user_mean) / 6 - user_mean,  # of B alone, which 11 has
        "gender F": 0,
        "gender M": 1,
        "genre A": 0,
        "genre B": 1,
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=1e-6), name


def test_ratings_of_the_same_moment_leave_the_own_out():
    """User 0 gave two ratings in one second, a third a minute later, a fourth the next day; user 1 gave one."""
    gaps, times = np.array([1.0, -2.0, 0.5, 3.0, 9.0]), np.array([100, 100, 160, 90_000, 100])
    side = Side(np.array([0, 0, 0, 0, 1]), gaps, gaps, 2, times, 1.0, (), (0, 60))
    assert side.names()[-2:] == ["ratings of the same second", "ratings within 60 s"]
    means = np.array([1.5, 4.5, 2.0, -0.5]) / 8  # of the three others of user 0, as if five ratings of 0 beside
    second = [(-2 - means[0]) / 3, (1 - means[1]) / 3, 0, 0, 0]
    minute = [(-1.5 - 2 * means[0]) / 4, (1.5 - 2 * means[1]) / 4, (-1 - 2 * means[2]) / 4, 0, 0]
    np.testing.assert_allclose(side.features(side.rows, None, np.arange(5))[:, -2:], np.transpose([second, minute]))
    asked = side.features(np.zeros(1, int), np.array([100]), None)[0, -2]
    assert asked == pytest.approx((-1 - 2 * 2.5 / 9) / 4)
    assert (side.features(np.zeros(1, int), None, None)[0, -2:] == 0).all()


def test_left_out_equals_fitted_without_the_row(tables, split, fitted):
    """But for what one rating of many moves the mean of all."""
    left_out, tolerance = fitted.table(), 10 / len(split.train)
    assert len(left_out) == len(split.train)
    for row in (0, 17, 400, len(split.train) - 1):
        others = PairFeatures.of(split.train.drop(index=row), tables[1], tables[2])
        alone = others.table(split.train.loc[[row]])
        for name in left_out:
            assert left_out[name].iloc[row] == pytest.approx(alone[name].iloc[0], abs=tolerance), (name, row)


def test_every_feature_is_named_and_explained(fitted):
    table, described = fitted.table(), fitted.describe()
    assert list(table) == described["feature"].tolist()
    assert len(table.columns) >= 21
    assert {"user", "item", "interaction", "temporal", "demographic", "content"} <= set(described["group"])
    assert described["meaning"].str.len().min() > 10
    assert np.isfinite(table.to_numpy()).all()


def test_rows_keep_their_order_and_unknown_ids_are_zeros(tables, split, fitted):
    order = np.random.default_rng(0).permutation(len(split.train))
    shuffled = PairFeatures.of(split.train.iloc[order], tables[1], tables[2]).table()
    np.testing.assert_allclose(shuffled.to_numpy(), fitted.table().to_numpy()[order], atol=1e-6)
    row = fitted.table(pd.DataFrame({"user_id": [-5], "item_id": [-5], "timestamp": [0]})).drop(columns="time")
    assert (row.to_numpy() == 0).all()


def test_what_the_data_lacks_is_left_out(tables):
    pairs = tables[0][["user_id", "item_id"]]
    described = PairFeatures.of(pairs).describe()
    assert not {"temporal", "demographic", "content"} & set(described["group"][described["feature"] != "time"])
    assert (PairFeatures.of(pairs).table() == 0).to_numpy().any()


def test_numbers_are_cut_at_quintiles_and_names_of_one_are_left_out():
    users = pd.DataFrame({"user_id": range(100), "age": range(100), "name": [f"n{i}" for i in range(100)]})
    flags, names = user_features(users, np.arange(100))
    assert names == [f"age {quintile}" for quintile in range(5)]
    assert (flags.sum(axis=1) == 1).all() and (flags.sum(axis=0) == 20).all()


def test_of_hundreds_of_attributes_the_most_frequent_are_features():
    train, items, _ = small()
    items["genres"] = [[f"brand {n}" for n in range(100)], ["brand 99", "all"], ["all"], []]
    names = PairFeatures.of(train, items).catalogue.item_names
    genres = [name for name in names if name.startswith("genre")]
    assert len(genres) == 60
    assert {"genre all", "genre brand 99", "genre brand 0"} <= set(genres), "of equally frequent ones the first"
