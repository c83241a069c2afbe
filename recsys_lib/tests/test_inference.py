"""Intervals, tests and power: known answers, agreement with SciPy, and error rates that are as promised."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recsys_lib.evaluation import inference


def test_interval_agrees_with_scipy_and_the_normal_one():
    values = np.random.default_rng(0).normal(2.0, 1.0, size=400)
    found = inference.intervals(pd.DataFrame({"a": values}), resamples=4000).loc["a"]
    other = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    assert found["mean"] == pytest.approx(values.mean())
    assert (found["low"], found["high"]) == pytest.approx(tuple(other), abs=0.02)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    samples = pd.DataFrame(rng.exponential(size=(150, 400)))  # 400 studies of 150 users, skewed as metrics are
    found = inference.intervals(samples, resamples=600)
    covered = ((found["low"] <= 1) & (found["high"] >= 1)).mean()
    assert 0.90 <= covered <= 0.98


def test_users_without_a_value_are_left_out():
    frame = pd.DataFrame({"a": [1.0, np.nan, 1.0, np.nan], "b": [0.0, 1.0, 2.0, 3.0]})
    found = inference.intervals(frame, resamples=500)
    assert found.loc["a", ["mean", "low", "high", "n_users"]].tolist() == [1.0, 1.0, 1.0, 2.0]
    assert found.loc["b", "n_users"] == 4


def test_same_seed_same_interval_and_blocks_do_not_matter(monkeypatch):
    frame = pd.DataFrame({"a": np.random.default_rng(3).random(50)})
    whole = inference.intervals(frame, seed=5)
    pd.testing.assert_frame_equal(whole, inference.intervals(frame, seed=5))
    monkeypatch.setattr(inference, "BLOCK", 1000)
    pd.testing.assert_frame_equal(whole, inference.intervals(frame, seed=5))


def test_permutation_agrees_with_scipy():
    differences = np.random.default_rng(4).normal(0.25, 1.0, size=60)
    ours = inference.permutation_p(differences, permutations=20_000)[0]
    other = stats.permutation_test(
        (differences, np.zeros(60)),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=100_000,
        rng=np.random.default_rng(0),
    )
    assert ours == pytest.approx(other.pvalue, abs=0.01)


def test_t_test_agrees_with_scipy_and_few_permutations_with_counting():
    rng = np.random.default_rng(5)
    first, second = rng.random((2, 40))
    assert inference.t_test_p(first - second)[0] == pytest.approx(stats.ttest_rel(first, second).pvalue)
    degenerate = [inference.t_test_p(values)[0] for values in (np.zeros(10), np.ones(10), np.ones(1))]
    np.testing.assert_array_equal(degenerate, [1.0, 0.0, np.nan])
    # of the eight ways to flip three equal differences, two are as far from zero as what was seen
    assert inference.permutation_p(np.ones(3), permutations=50_000)[0] == pytest.approx(0.25, abs=0.01)


def test_under_no_difference_tests_err_as_often_as_they_say():
    rng = np.random.default_rng(6)
    differences = rng.normal(size=(80, 500)) * rng.exponential(size=(80, 1))
    for p in (inference.permutation_p(differences, permutations=2000), inference.t_test_p(differences)):
        assert 0.02 <= (p < 0.05).mean() <= 0.08


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_raw_and_the_bonferroni_value(p_values):
    p = np.array(p_values)
    adjusted = inference.holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(p * len(p), 1) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    np.testing.assert_allclose(inference.holm(np.array([0.01, 0.04, np.nan, 0.03])), [0.03, 0.06, np.nan, 0.06])
    assert inference.holm(np.array([])).tolist() == []


def test_paired_table():
    rng = np.random.default_rng(9)
    differences = np.stack([rng.normal(-0.5, 1, 200), rng.normal(0, 1, 200)], axis=1)
    table = inference.paired_table(differences)
    assert table.loc[0, "p_holm"] < 0.01 < table.loc[1, "p_holm"]
    assert table.loc[0, "effect_size"] == pytest.approx(differences[:, 0].mean() / differences[:, 0].std(ddof=1))
    assert (table["effect_low"] < table["effect_size"]).all()
    assert (table["effect_size"] < table["effect_high"]).all()
    assert (table["difference_low"] < table["difference"]).all()


def test_the_smallest_difference_of_a_table_stands_the_correction():
    """At that difference four of five studies find a column whose p has to pass Holm's first step among eight."""
    rng = np.random.default_rng(12)
    noise = rng.normal(size=(200, 8))
    reach = inference.paired_table(noise, resamples=10, permutations=10)["smallest_difference"].to_numpy()
    assert reach == pytest.approx(inference.smallest_difference(noise, level=0.05 / 8))
    p_values = [inference.t_test_p(rng.normal(reach[0], noise[:, 0].std(ddof=1), 200))[0] for _ in range(1000)]
    assert np.mean(np.array(p_values) < 0.05 / 8) == pytest.approx(0.8, abs=0.04)


def test_seeds_and_users_are_told_apart():
    rng = np.random.default_rng(10)
    users, seeds = rng.normal(size=(500, 1)), rng.normal(scale=0.1, size=(1, 8))
    parts = inference.seed_variance(users + seeds)
    assert parts["sd_seeds"] == pytest.approx(seeds.std(ddof=1))
    assert parts["se_users"] == pytest.approx(users.std(ddof=1) / np.sqrt(500))
    assert (parts["users"], parts["seeds"]) == (500, 8)


def test_nobody_to_resample_is_an_error():
    with pytest.raises(ValueError, match="nobody to resample"):
        inference.resampled_means(np.empty((0, 2)))


def test_ratios_of_means_are_paired():
    rng = np.random.default_rng(0)
    base = rng.random(400)
    values = pd.DataFrame({"base": base, "twice": 2 * base, "other": rng.random(400)})
    table = inference.ratios(values, "base", resamples=500)
    np.testing.assert_allclose(table.loc["twice"], 2)  # drawn together: a constant ratio has no spread
    np.testing.assert_allclose(table.loc["base"], 1)
    low, ratio, high = table.loc["other", ["low", "ratio", "high"]]
    assert ratio == values["other"].mean() / base.mean()
    spread = np.sqrt(((values["other"] - ratio * base) ** 2).mean() / 400) / base.mean()  # delta method
    np.testing.assert_allclose([ratio - low, high - ratio], 1.96 * spread, rtol=0.15)
