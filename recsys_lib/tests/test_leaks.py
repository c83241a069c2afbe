"""Leak checks: an honest pipeline passes, every planted leak is caught."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from recsys_lib import splits
from recsys_lib.data import leaks
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.splits import Split
from recsys_lib.models import ALS, EASE, ItemKNN, Popularity
from recsys_lib.models.features.pairs import PairFeatures, fitted_on


def failed(findings: list[leaks.Finding]) -> list[str]:
    return [finding.check for finding in findings if not finding.passed]


# ---- splits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*splits.WAYS, "rolling"])
def test_our_own_splits_pass(tables, name):
    if name != "canonical_fold":  # which needs ml-100k; it promises no order
        for split in splits.rolling(tables[0]) if name == "rolling" else [splits.by_name(tables[0], name)]:
            findings = leaks.check_split(split)
            assert not failed(findings)
            assert len(findings) == (2 if name == "random" else 4)


def test_a_test_row_in_training_is_caught(split):
    planted = replace(split, train=pd.concat([split.train, split.test.iloc[[3]]], ignore_index=True))
    with pytest.raises(leaks.LeakError, match="no pair of user and item stands in two parts: 1 of"):
        leaks.require(leaks.check_split(planted))


def test_an_order_that_is_wrong_is_caught_where_it_is_promised(split, tables):
    early = split.test.assign(timestamp=split.test["timestamp"].mask(split.test.index == split.test.index[7], 0))
    (check,) = failed(leaks.check_split(replace(split, test=early)))
    assert check == "train and validation before test, user by user"
    cut = splits.temporal_global(tables[0])  # one shared second is enough
    when = cut.test["timestamp"].mask(cut.test.index == 0, cut.valid["timestamp"].max())
    (check,) = failed(leaks.check_split(replace(cut, test=cut.test.assign(timestamp=when))))
    assert check == "train and validation before test, everybody at once"
    assert failed(leaks.check_split(replace(split, test=split.test.iloc[:0]))) == ["the test has rows"]
    random = splits.random(tables[0])
    assert failed(leaks.check_split(replace(random, name="temporal_user")))  # it would not hold
    assert not failed(leaks.check_split(random))


def test_sample_users_keeps_whole_histories(split):
    small = leaks.sample_users(split, rows=300)
    assert 200 < len(small.train) + len(small.valid) + len(small.test) <= 300
    for part, whole in ((small.train, split.train), (small.valid, split.valid), (small.test, split.test)):
        assert len(part) == whole["user_id"].isin(small.train["user_id"].unique()).sum()
    assert leaks.sample_users(split, rows=10**9) is split


# ---- pipelines ---------------------------------------------------------------------------------------------------


def means(rows: pd.DataFrame, by: str = "item_id") -> pd.Series:
    return rows.groupby(by)["rating"].mean()


def everything(split: Split) -> pd.DataFrame:
    return pd.concat([split.train, split.valid, split.test], ignore_index=True)


def liked(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"liked": rows["rating"] >= 4})


def running_mean(rows: pd.DataFrame) -> pd.DataFrame:
    ordered = rows.sort_values(["user_id", "timestamp"])
    return pd.DataFrame({"mean": ordered.groupby("user_id")["rating"].expanding().mean().droplevel(0).sort_index()})


PLANTED = {  # a leak, and the check that it fails
    "statistics over all rows": (lambda s: {"test": s.test["item_id"].map(means(everything(s)))}, "ratings shuffled"),
    "counts over all rows, which know what will be popular": (
        lambda s: {"train": s.train["item_id"].map(everything(s)["item_id"].value_counts()).to_numpy()},
        "other test rows",
    ),
    "liked flag": (lambda s: {"train": liked(s.train), "test": liked(s.test)}, "test ratings shuffled"),
    "deviation from the user's mean": (
        lambda s: {"test": (s.test["rating"] - s.test["user_id"].map(means(s.train, "user_id"))).to_numpy()},
        "test ratings shuffled",
    ),
    "liked flag in training alone": (lambda s: {"train": liked(s.train)}, "own rating"),
    "rolling mean that includes the row": (lambda s: {"train": running_mean(s.train)}, "own rating"),
    "item mean that includes the row": (
        lambda s: {"train": pd.DataFrame({"item_mean": s.train["item_id"].map(means(s.train))})},
        "own rating",
    ),
    "test rows in training": (lambda s: {"statistics": means(everything(s)).to_numpy()}, "test ratings shuffled"),
    "scaler over all rows": (lambda s: {"spread": np.array([everything(s)["timestamp"].std()])}, "other test rows"),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("planted", PLANTED)
def test_planted_leaks_are_caught(split, planted, seed):
    run, check = PLANTED[planted]
    assert any(check in failure for failure in failed(leaks.check_pipeline(run, split, probes=8, seed=seed)))


@pytest.mark.parametrize("way", ["temporal_user", "random", "temporal_global"])
def test_our_own_features_pass(tables, content, way):
    split = splits.by_name(tables[0], way)
    given = {"probes": 6, "tolerance": 2.5 / len(split.train)}
    findings = leaks.check_pipeline(partial(fitted_on, **content), split, **given)
    assert len(findings) == 3
    assert not failed(findings)


def test_implicit_feedback_has_no_rating_to_shuffle(split, content):
    ones = [part.assign(rating=np.float32(1)) for part in (split.train, split.valid, split.test)]
    implicit = Split(*ones, name=split.name)
    findings = leaks.check_pipeline(partial(fitted_on, **content), implicit)
    assert [finding.check for finding in findings] == ["other test rows: nothing that was fitted changes"]
    assert not failed(findings)


def test_a_fitted_pipeline_may_not_look_at_the_ratings_it_is_asked_about(split, content):
    fitted = PairFeatures.of(split.history, **content)
    assert not failed(leaks.check_fitted(fitted.table, split.test))
    known = Interactions.from_frame(split.history)
    scores = np.log1p(known.matrix.getnnz(axis=0))
    assert not failed(leaks.check_fitted(lambda rows: scores[known.item_codes(rows["item_id"])], split.test))
    assert failed(leaks.check_fitted(lambda rows: rows["rating"].rolling(50).mean(), split.test))
    assert failed(leaks.check_fitted(lambda rows: 1e-9 * rows["rating"].to_numpy(), split.test))


# ---- predictions and columns -------------------------------------------------------------------------------------


def honest_and_leaking(split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ratings, honest predictions, and predictions that know who liked what but are otherwise poor."""
    ratings = split.test["rating"].to_numpy(np.float64)
    film = means(split.history).reindex(split.test["item_id"]).fillna(split.history["rating"].mean()).to_numpy()
    noise = np.random.default_rng(0).normal(scale=0.2, size=len(ratings))
    return ratings, film, np.where(ratings >= 4, 4.4, 2.6) + np.clip(noise, -0.5, 0.5)


def test_agreement_gives_a_liked_flag_away(split):
    ratings, honest, leaking = honest_and_leaking(split)
    assert leaks.agreement(leaking, ratings) == 1.0
    assert leaks.agreement(honest, ratings) < 0.85
    assert not failed(leaks.check_predictions(honest, ratings))
    assert failed(leaks.check_predictions(leaking, ratings)) == ["predictions do not know who liked what"]
    halves = np.array([3.5, 4.0, 3.0, 4.5])  # half a step on half stars
    assert leaks.agreement(np.array([3.6, 3.8, 3.7, 4.4]), halves) == 1.0
    assert leaks.agreement(np.array([3.8, 3.6, 3.7, 4.4]), halves) == 0.5


def test_an_error_too_small_to_be_true_is_caught_on_u1_alone(split):
    ratings, noise = split.test["rating"].to_numpy(np.float64), np.random.default_rng(0).normal(size=len(split.test))
    u1 = replace(split, name="canonical_fold", params={"k": 1})
    floor = leaks.rmse_floor(u1)
    checks = failed(leaks.check_predictions(ratings + 0.75 * noise, ratings, rmse_floor=floor))
    assert checks == ["the error is not too small to be true"]
    assert not failed(leaks.check_predictions(ratings + 0.95 * noise, ratings, rmse_floor=floor))
    assert leaks.rmse_floor(replace(u1, params={"k": 2})) is leaks.rmse_floor(split) is None


def test_rows_without_a_prediction_are_left_out():
    (finding,) = leaks.check_predictions(np.array([np.nan, 3.0, 4.0]), np.array([5.0, 4.0, 2.0]))
    assert finding.passed
    assert "0.0% of 2 rows" in finding.detail


def test_single_columns_that_know_the_answer_are_named(split, content):
    fitted = PairFeatures.of(split.train, **content)
    table, ratings = fitted.table(split.valid), split.valid["rating"].to_numpy()
    assert not failed(leaks.check_columns(table, ratings))
    planted = table.assign(
        liked=ratings >= 4,
        minus=-ratings,
        word=pd.Categorical(np.where(ratings >= 4, "yes", "no")),
        often_missing=np.where(np.arange(len(ratings)) % 2, ratings, np.nan),
    )
    (finding,) = leaks.check_columns(planted, ratings)
    assert finding.detail == "alarm: liked, minus, word, often_missing"
    (alike,) = leaks.check_columns(table, np.full(len(table), 5.0))
    assert alike.passed


@pytest.mark.parametrize("rows", [10, 20, 40, 80, 160])
def test_dice_raise_no_alarm(rows):
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        columns = {"hour": 24, "occupation": 20, "pair": rows // 2}
        features = pd.DataFrame({name: pd.Categorical(rng.integers(0, n, rows)) for name, n in columns.items()})
        ratings = rng.integers(1, 6, rows).astype(float)
        alarms += failed(leaks.check_columns(features.assign(age=rng.normal(size=rows)), ratings)) != []
        alarms += failed(leaks.check_predictions(rng.normal(3.9, 0.3, rows), ratings)) != []
    assert alarms <= 1


# ---- a model of the lab, as anybody would check it ---------------------------------------------------------------


def model_outputs(split: Split, make, users: int = 100) -> dict:
    """What a model gives on a split: scores of some users."""
    known = Interactions.from_frame(split.history)
    model = make().fit(known)
    asked = known.user_ids[:users]
    return {"scores": model.score(known.rows(known.user_codes(asked)), asked)}


MODELS = {
    "popularity": Popularity,
    "ALS": partial(ALS, factors=8, iterations=3, threads=1),
    "kNN": ItemKNN,
    "EASE": EASE,
}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_the_lab_do_not_know_the_test(split, name):
    findings = leaks.check_pipeline(partial(model_outputs, make=MODELS[name]), split)
    assert len(findings) == 2
    assert not failed(findings)


def test_a_model_fitted_on_everything_is_caught(split):
    def run(changed: Split) -> dict:
        return model_outputs(replace(split, train=everything(changed), valid=split.valid.iloc[:0]), EASE)

    assert len(failed(leaks.check_pipeline(run, split))) == 2
