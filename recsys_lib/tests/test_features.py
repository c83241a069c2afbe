"""Features: by hand, left out, in time, on disk, and without what a data set may lack."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib import splits
from recsys_lib.models.features import DAY, Encoder, Feature, Features, Timeline, describe, drift, outputs


@pytest.fixture(scope="module")
def parts(tables):
    return splits.temporal_user(tables[0])


@pytest.fixture(scope="module")
def fitted(tables, parts) -> Features:
    return Features().fit(parts.train, items=tables[1], users=tables[2])


def small() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
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
    users = pd.DataFrame({"user_id": [1, 2, 3], "age": [30, 40, 50], "gender": ["F", "M", "X"]})
    return train, items, users


def test_values_by_hand():
    train, items, users = small()
    features = Features(shrinkage=0, recent_days=1).fit(train, items=items, users=users)
    row = pd.DataFrame({"user_id": [2], "item_id": [12], "timestamp": [4 * DAY + 7 * 3600]})
    values = features.transform(row).iloc[0]
    expected = {
        "user_count": np.log(3),
        "user_mean": 1.5,
        "user_std": 0.5,
        "user_liked": 0.0,
        "user_popularity": np.log(3),
        "item_count": np.log(2),
        "item_mean": 4.0,
        "item_liked": 1.0,
        "item_raters": 4.0,
        "genre_number": 1,
        "genre_share": 0.5,
        "user_place": np.log(3),
        "user_since_first": 2 + 7 / 24,
        "user_since_last": 2 + 7 / 24,
        "item_place": np.log(2),
        "item_since_first": 1 + 7 / 24,
        "item_recent": 0.0,
        "genre_A": 0,
        "genre_B": 1,
        "user_age": 40,
        "weekend": 0,
    }
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, abs=1e-6), name
    assert (values["hour"], values["weekday"], values["month"]) == (7, 0, 1)  # Monday, 5 January 1970
    assert values["user_gender"] == "M"
    for name in ("item_year", "item_age", "user_year_distance", "item_std"):
        assert np.isnan(values[name]), name


def test_words_come_from_the_people_in_training():
    train, items, users = small()  # the third person has no training row
    features = Features().fit(train, items=items, users=users)
    assert features.arrays["user_gender.words"].tolist() == ["F", "M"]
    values = features.transform(pd.DataFrame({"user_id": [3], "item_id": [10], "timestamp": [0]})).iloc[0]
    assert pd.isna(values["user_gender"])
    assert values["user_age"] == 50


def test_genre_means_and_affinity_by_hand():
    train, items, _ = small()
    features = Features(shrinkage=1).fit(train, items=items)
    row = pd.DataFrame({"user_id": [1], "item_id": [11], "timestamp": [5 * DAY]})
    values = features.transform(row).iloc[0]
    overall, own = 3.0, (12 + 3.0) / 4  # everybody's mean; the person's, shrunk by one rating
    assert values["user_mean"] == pytest.approx(own)
    genre_a, genre_b = (5 + 3 + 2 + 1 + overall) / 5, (3 + 4 + 1 + overall) / 4
    assert values["genre_mean"] == pytest.approx((genre_a + genre_b) / 2)
    a, b = (5 + 3 - 2 * own) / 3, (3 + 4 - 2 * own) / 3
    assert values["genre_affinity"] == pytest.approx((a + b) / 2)
    assert values["genre_share"] == pytest.approx(2 / 3)


def test_left_out_equals_fitted_without_the_row(tables, parts, fitted):
    left_out = fitted.leave_one_out()
    assert len(left_out) == len(parts.train)
    some = np.array([400, 3])
    pd.testing.assert_frame_equal(fitted.leave_one_out(some), left_out.iloc[some].reset_index(drop=True))
    for row in (0, 17, 400, len(parts.train) - 1):
        others = parts.train.drop(index=row)
        refitted = Features().fit(others, items=tables[1], users=tables[2])
        alone = refitted.transform(parts.train.loc[[row]])
        for name in left_out:
            one, other = left_out[name].iloc[row], alone[name].iloc[0]
            assert one == other or np.isclose(one, other, rtol=1e-5, atol=1e-6, equal_nan=True), (name, row, one, other)


@given(st.integers(0, 10**6), st.floats(1, 5))
@settings(max_examples=25, deadline=None)
def test_a_rows_own_rating_never_moves_its_features(row, rating):
    train, items, users = small()
    row %= len(train)
    changed = train.assign(rating=train["rating"].mask(train.index == row, rating))
    before, after = (Features().fit(table, items=items, users=users).leave_one_out() for table in (train, changed))
    numbers = before.select_dtypes("number").columns
    np.testing.assert_allclose(before.loc[row, numbers], after.loc[row, numbers].astype(float), rtol=1e-4, atol=1e-4)


def test_the_rating_column_of_asked_rows_is_not_looked_at(parts, fitted):
    with_ratings, without = fitted.transform(parts.test), fitted.transform(parts.test.drop(columns="rating"))
    pd.testing.assert_frame_equal(with_ratings, without)


def test_at_least_the_21_features_and_their_groups(fitted):
    table = pd.DataFrame([vars(feature) for feature in fitted.features])
    assert set(table["group"]) == {"user", "item", "genre", "time", "demographic"}
    assert len(table) >= 21
    assert not table["name"].duplicated().any()
    assert (table["meaning"].str.len() > 0).all()
    assert {"user_age", "user_gender", "user_occupation", "user_region"} <= set(table["name"])


def test_cold_people_and_films_get_priors_not_errors(tables, parts, fitted):
    row = pd.DataFrame({"user_id": [10**6], "item_id": [10**6], "timestamp": [900_000_000]})
    values = fitted.transform(row).iloc[0]
    mean = parts.train["rating"].mean()
    assert values["user_mean"] == pytest.approx(mean)
    assert values["item_mean"] == pytest.approx(mean)
    assert values[["user_count", "item_count", "user_place", "item_recent", "genre_number"]].eq(0).all()
    assert values[["user_since_last", "genre_affinity", "item_year", "user_age", "user_gender"]].isna().all()


def test_what_the_data_lacks_is_left_out(tables):
    interactions, items, users = tables
    bare = interactions[["user_id", "item_id"]].assign(rating=np.float32(1))
    features = Features().fit(bare)
    assert [feature.name for feature in features.features] == [
        "user_count",
        "user_popularity",
        "item_count",
    ]
    assert list(features.leave_one_out()) == [feature.name for feature in features.features]
    no_ratings = {feature.name for feature in Features().fit(interactions.assign(rating=1.0), items=items).features}
    assert "item_mean" not in no_ratings
    assert {"genre_share", "hour", "item_year"} <= no_ratings
    assert Features().fit(bare, users=users).transform(bare)["user_age"].notna().all()


def test_string_ids_and_numbers_missing_in_the_users_table():
    train, items, users = small()
    for frame, column in ((train, "user_id"), (users, "user_id"), (train, "item_id"), (items, "item_id")):
        frame[column] = frame[column].map("id-{}".format)
    users["age"] = [30, np.nan, 50]
    values = Features().fit(train, items=items, users=users.iloc[:2]).transform(train)
    assert values["user_age"].isna().tolist() == [False, False, False, True, True]
    assert values["genre_A"].tolist() == [1, 1, 0, 1, 1]


def test_words_that_name_a_person_are_left_out():
    train = pd.DataFrame({"user_id": np.arange(300) // 2, "item_id": np.arange(300), "rating": np.arange(300) % 5})
    users = pd.DataFrame({"user_id": np.arange(150), "name": [f"name {i}" for i in range(150)], "zip": "12345"})
    names = [feature.name for feature in Features().fit(train, users=users).features]
    assert "user_name" not in names
    assert "user_region" in names


def test_rows_without_timestamps_and_empty_training_are_refused(parts, fitted):
    with pytest.raises(ValueError, match="fitted with timestamps, and these rows have none"):
        fitted.transform(parts.test.drop(columns="timestamp"))
    with pytest.raises(ValueError, match="at least one training row"):
        Features().fit(parts.train.iloc[:0])


def test_saved_features_and_encoders_come_back_without_pickle(tmp_path, parts, fitted):
    fitted.save(tmp_path / "features")
    again = Features.load(tmp_path / "features")
    pd.testing.assert_frame_equal(again.transform(parts.test), fitted.transform(parts.test))
    assert again.features == fitted.features
    encoder = Encoder().fit(fitted.leave_one_out(), fitted.features)
    encoder.save(tmp_path / "encoder")
    for one, other in zip(
        encoder.transform(fitted.transform(parts.test)),
        Encoder.load(tmp_path / "encoder").transform(again.transform(parts.test)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    for archive in tmp_path.glob("*/arrays.npz"):
        with np.load(archive, allow_pickle=False) as stored:
            assert all(not stored[name].dtype.hasobject for name in stored.files)
    with pytest.raises(ValueError, match="do not hold the training rows"):
        again.leave_one_out()
    with pytest.raises(FileNotFoundError, match="config.json is missing"):
        Features.load(tmp_path / "nowhere")


def test_out_of_fold_rows_come_from_the_other_folds(parts, fitted):
    table = fitted.out_of_fold(folds=4, seed=1)
    assert table.index.tolist() == list(range(len(parts.train)))
    assert list(table) == list(fitted.leave_one_out())
    left_out = fitted.leave_one_out()
    assert 0.8 < np.corrcoef(table["user_mean"], left_out["user_mean"])[0, 1] < 1


# ---- timeline ----------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-50, 50)), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(-1, 3), st.integers(-90, 90)), min_size=1, max_size=20),
)
@settings(max_examples=100, deadline=None)
def test_timeline_agrees_with_counting(moments, questions):
    codes, when = (np.array(column) for column in zip(*moments, strict=True))
    timeline = Timeline.of(codes, when, n_groups=4)
    groups, until = (np.array(column) for column in zip(*questions, strict=True))
    earlier = [when[(codes == group) & (when <= moment)] for group, moment in questions]
    assert timeline.until(groups, until).tolist() == [len(times) for times in earlier]
    first = [moment - min(times) if len(times) else 0 for times, moment in zip(earlier, until, strict=True)]
    assert timeline.since_first(groups, until).tolist() == first
    last = [moment - max(times) if len(times) else np.nan for times, moment in zip(earlier, until, strict=True)]
    np.testing.assert_array_equal(timeline.since_last(groups, until), np.array(last, dtype=float))


def test_timeline_leaves_the_rows_own_moment_out():
    codes, when = np.array([0, 0, 0, 1]), np.array([10, 10, 40, 5])
    timeline = Timeline.of(codes, when, n_groups=2)
    assert (timeline.until(codes, when) - 1).tolist() == [1, 1, 2, 0]
    np.testing.assert_array_equal(timeline.since_last(codes, when, own=1), [0, 0, 30, np.nan])
    assert timeline.since_first(codes, when, own=1).tolist() == [0, 0, 30, 0]


# ---- encoder and description -------------------------------------------------------------------------------------


def test_encoder_standardises_numbers_and_leaves_flags(parts, fitted):
    table = fitted.leave_one_out()
    encoder = Encoder().fit(table, fitted.features)
    numbers, categories = encoder.transform(table)
    assert numbers.dtype == np.float32
    assert categories.dtype == np.int64
    assert np.isfinite(numbers).all()
    column = list(encoder.numbers).index("user_count")
    assert numbers[:, column].mean() == pytest.approx(0, abs=1e-4)
    assert numbers[:, column].std() == pytest.approx(1, abs=1e-3)
    flag = list(encoder.numbers).index("weekend")
    assert set(np.unique(numbers[:, flag])) <= {0.0, 1.0}
    assert (categories > 0).all()
    assert (categories.max(axis=0) < encoder.sizes).all()


def test_encoder_knows_only_the_words_of_training():
    kinds = [Feature("job", "demographic", "category", "users: job", "")]
    encoder = Encoder().fit(pd.DataFrame({"job": pd.Categorical(["b", "a", None])}), kinds)
    _, codes = encoder.transform(pd.DataFrame({"job": pd.Categorical(["a", "b", "z", None])}))
    assert codes[:, 0].tolist() == [1, 2, 0, 0]
    assert encoder.sizes == [3]


def test_describe_gives_each_feature_one_row(fitted):
    table = describe(fitted.leave_one_out(), fitted.features)
    assert table["feature"].tolist() == [feature.name for feature in fitted.features]
    assert table["missing"].between(0, 1).all()
    numbers = table[table["kind"] == "number"]
    assert (numbers["low"] <= numbers["median"]).all()
    assert (numbers["median"] <= numbers["high"]).all()
    assert table.loc[table["feature"] == "user_gender", "most_frequent"].isin(["F", "M"]).all()


def test_drift_names_what_moves_most(parts, fitted):
    table = drift(fitted.leave_one_out(), fitted.transform(parts.valid))
    assert table["shift"].abs().is_monotonic_decreasing
    assert table.set_index("feature").loc["user_place", "shift"] > 0  # later rows have more behind them
    assert not table["feature"].isin(["hour", "user_gender"]).any()


def test_outputs_hold_all_that_is_fitted(tables, parts):
    made = outputs(parts, items=tables[1], users=tables[2], shrinkage=2.0)
    assert {"train", "test", "encoder.mean", "encoder.user_gender", "statistics.item_sum"} <= set(made)
