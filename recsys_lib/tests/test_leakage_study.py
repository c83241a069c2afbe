"""The rebuilt network: what leaks, leaks; what does not, does not."""

from dataclasses import replace

import numpy as np
import pytest
from leakage_study import LEAKS, features, run_leak

from recsys_lib import splits
from recsys_lib.data import leaks


@pytest.fixture(scope="module")
def split(tables):
    return splits.random(tables[0], valid=0.0, seed=0)


@pytest.fixture(scope="module")
def runs(split, tables):
    return {name: run_leak(split, tables[1], tables[2], name, epochs=8, batch=128) for name in LEAKS}


def test_a_feature_made_from_the_rating_gives_it_away(split, runs):
    ratings = split.test["rating"].to_numpy(float)
    errors = {name: np.sqrt(np.mean((run["predicted"] - ratings) ** 2)) for name, run in runs.items()}
    assert errors["deviation as feature"] < errors["liked as feature"] < errors["no leak"]
    assert leaks.agreement(runs["liked as feature"]["predicted"], ratings) > 0.98
    assert leaks.agreement(runs["no leak"]["predicted"], ratings) < 0.95


def test_features_without_a_leak_do_not_know_the_test_ratings(split, tables):
    changed = split.test.assign(rating=6 - split.test["rating"])
    for leak in LEAKS:
        one, two = (features(rows, split.history, tables[1], tables[2], leak, 4.0) for rows in (split.test, changed))
        assert one.equals(two) == ("feature" not in leak)
        assert one.shape[1] == 21 + ("feature" in leak)


def test_what_is_drawn_depends_on_the_seed_alone(split, tables):
    given = {"epochs": 1, "batch": 256, "seed": 4}
    one, two = (run_leak(split, tables[1], tables[2], "no leak", **given)["predicted"] for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_early_stopping_looks_at_the_validation_part_alone(tables):
    split = splits.random(tables[0], valid=0.2, seed=0)
    run = run_leak(split, tables[1], tables[2], epochs=6, batch=128)
    again = run_leak(split, tables[1], tables[2], epochs=run["stopped_after"], batch=128)
    np.testing.assert_array_equal(run["stopped"], again["predicted"])
    turned = replace(split, test=split.test.assign(rating=6 - split.test["rating"]))
    assert run_leak(turned, tables[1], tables[2], epochs=6, batch=128)["stopped_after"] == run["stopped_after"]


def test_unknown_leaks_and_data_without_ratings_are_named(split, tables):
    with pytest.raises(ValueError, match="'no leak'"):
        run_leak(split, tables[1], tables[2], "future")
    implicit = splits.random(tables[0].assign(rating=1.0), valid=0.0)
    with pytest.raises(ValueError, match="no ratings"):
        run_leak(implicit, tables[1], tables[2])
