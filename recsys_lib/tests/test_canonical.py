"""The published folds: the user's earlier ratings alone, shares of the mixes, the table of errors."""

import canonical
import numpy as np
import pandas as pd
import pytest

from recsys_lib import splits
from recsys_lib.data.interactions import Interactions
from recsys_lib.evaluation.metrics.rating import bias_predictions
from recsys_lib.models.neural.hybrid import NeuralHybrid


@pytest.fixture(scope="module")
def split(tables):
    return splits.random(tables[0], valid=0.0, seed=0)


def test_later_ratings_of_the_user_are_not_read(split, tables):
    first = split.test.sort_values("timestamp").groupby("user_id").head(1)
    asked_at = split.train["user_id"].map(first.set_index("user_id")["timestamp"])
    turned = split.train.assign(rating=split.train["rating"].where(split.train["timestamp"] < asked_at, 1.0))
    known = Interactions.from_frame(split.train.drop(columns="timestamp"))
    net = NeuralHybrid(epochs=1, embedding_dim=4, hidden=(8,)).fit(known, items=tables[1], users=tables[2])
    one, two = (canonical.predict_from_earlier({"net": net}, base, first)["net"] for base in (split.train, turned))
    np.testing.assert_allclose(one, two)


def test_biases_from_earlier_ratings_are_the_usual_ones_in_the_end(split):
    late = split.test.assign(timestamp=int(1e10))
    usual = bias_predictions(split.train, late)
    np.testing.assert_allclose(canonical.biases_from_earlier(split.train, late), usual, atol=1e-6)
    early = canonical.biases_from_earlier(split.train, late.assign(timestamp=0))
    np.testing.assert_allclose(early, bias_predictions(split.train, late.assign(user_id=-1)))


def test_shares_find_the_member_that_is_right():
    given = np.array([1.0, 3.0, 5.0, 2.0])
    table = pd.DataFrame({"neural hybrid": given, "Bayesian factors": [3.0, 3.0, 2.0, 3.0]})
    (share,) = canonical.choose_shares(table, given).values()
    assert share == pytest.approx({"neural hybrid": 1.0, "Bayesian factors": 0.0}, abs=1e-9)


def test_errors_are_over_rows_and_tests_over_users():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"user_id": np.repeat(np.arange(40), 5), "rating": 3.0, "fold": ["u1", "u2"] * 100})
    noise = rng.normal(size=200)
    table["shrunk biases"], table["neural hybrid, seed 0"], table["neural hybrid, seed 1"] = 3 + noise, 3.1, 3.3
    table["neural hybrid"] = 3.2
    board = canonical.summary(table).set_index("model")
    assert board.index.tolist() == ["shrunk biases", "neural hybrid"]
    assert board.loc["shrunk biases", "rmse"] == pytest.approx(np.sqrt(np.mean(noise**2)))
    assert board.loc["shrunk biases", "rmse_u1"] == pytest.approx(np.sqrt(np.mean(noise[::2] ** 2)))
    assert board.loc["neural hybrid", ["rmse", "mae", "rmse_low"]].tolist() == pytest.approx([0.2] * 3)
    assert board.loc["neural hybrid", "spread"] == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert board.loc["neural hybrid", "difference_shrunk biases"] == pytest.approx(0.04 - np.mean(noise**2))
    assert board.loc["neural hybrid", "p_shrunk biases"] < 0.01


def test_myfm_beats_the_biases(split, tables):
    known = Interactions.from_frame(split.train)
    model = canonical.MyFM(sweeps=40).fit(known, items=tables[1], users=tables[2])
    asked = (split.test[name].to_numpy() for name in ("user_id", "item_id", "timestamp"))
    truth = split.test["rating"].to_numpy()
    errors = model.predict(*asked) - truth
    assert np.mean(errors**2) < np.mean((bias_predictions(split.train, split.test) - truth) ** 2)
