"""The tables of 06, the ensemble partner, and the command of the published folds."""

import json

import neural_study
import neural_tables
import numpy as np
import pandas as pd
import pytest
from bayesian_factors import BayesianFactors

from recsys_lib.data.interactions import Interactions
from recsys_lib.data.splits import temporal_user
from recsys_lib.evaluation.metrics.rating import bias_predictions, predictions, rmse
from recsys_lib.evaluation.task import Task, mean_ndcg
from recsys_lib.models import NeuralRanker, load_model
from recsys_lib.paths import Paths

JUDGED = pd.DataFrame(
    {
        "item_id": [1, 2, 1, 3],
        "rating": [1.0, 5.0, 5.0, 3.0],
        "predicted": [2.0, 4.0, 5.0, 3.0],
        "error": [1.0, -1.0, 0.0, 0.0],
    }
)


@pytest.fixture(scope="module")
def split(tables):
    return temporal_user(tables[0], test=0.2, valid=0)


@pytest.fixture(scope="module")
def bayesian(split, tables):
    model = BayesianFactors(n_factors=4, sweeps=30, burn_in=10, kept=10)
    return model.fit(Interactions.from_frame(split.train), items=tables[1], users=tables[2])


def test_errors_by_rating():
    table = neural_tables.errors_by_rating(JUDGED).set_index("rating")
    assert table.loc[5.0].to_dict() == {"n": 2, "predicted": 4.5, "bias": -0.5, "rmse": pytest.approx(0.5**0.5)}


def test_errors_by_genre_counts_a_film_in_each_of_its_genres():
    items = pd.DataFrame({"item_id": [1, 2, 3], "genres": [["A", "B"], ["B"], []]})
    table = neural_tables.errors_by_genre(JUDGED.assign(user_id=[1, 2, 3, 4]), items, least=1).set_index("genre")
    assert table["n"].to_dict() == {"A": 2, "B": 3}
    assert table["rmse"].to_dict() == pytest.approx({"B": (2 / 3) ** 0.5, "A": 0.5**0.5}), "the worst first"
    assert list(table.index) == ["B", "A"] and (table["rmse_low"] <= table["rmse"]).all()


def test_warm_and_cold():
    history = pd.DataFrame({"user_id": [1, 1], "item_id": [1, 2]})
    judged = JUDGED.assign(user_id=[1, 1, 9, 9])
    table = neural_study.warm_and_cold(history, judged, judged["rating"].to_numpy() + 2).set_index("rows")
    assert table["n"].to_dict() == {"user and item known": 2, "user new": 1, "both new": 1, "all": 4}
    assert table.loc["user and item known", "model"] == 1.0
    assert (table["biases"] == 2.0).all()


def test_known_films_from_nothing_to_everything(split):
    task = Task.from_split(split, 4.0)
    model = NeuralRanker(embedding_dim=8, hidden=16, epochs=60, batch_size=40).fit(task.known)
    table = neural_tables.by_known_films(model, task, (0, 1, 1000))
    assert table["size"].tolist() == [0, 1, 1000]
    assert table["mean"].iloc[-1] == pytest.approx(mean_ndcg(model, task, 10))
    assert (table["low"] <= table["mean"]).all() and (table["mean"] <= table["high"]).all()


def test_study_of_other_data_is_not_shown(tmp_path, lab_home):
    paths = Paths("somewhere")
    paths.reports.mkdir(parents=True)
    (paths.reports / neural_tables.STUDY).write_text(json.dumps({"data": {"sha256": "a"}}))
    assert neural_tables.read_study(paths, "a") == {"data": {"sha256": "a"}}
    assert neural_tables.read_study(paths, "b") is None


# ---- the ensemble partner ------------------------------------------------------------------------------------------


def test_bayesian_beats_the_biases_also_saved_and_loaded(bayesian, split, tmp_path):
    predicted = predictions(bayesian, split.test)
    biases = bias_predictions(split.train, split.test) - split.test["rating"].to_numpy()
    assert rmse(predicted["error"].to_numpy()) < rmse(biases)
    bayesian.save(tmp_path / "model")
    again = predictions(load_model(tmp_path / "model"), split.test)
    assert np.allclose(predicted["predicted"], again["predicted"])


def test_bayesian_serves_new_users(bayesian):
    liked = bayesian.score(bayesian.history_of({1: 5.0, 2: 5.0, 3: 5.0}).matrix)
    loathed = bayesian.score(bayesian.history_of({1: 1.0, 2: 1.0, 3: 1.0}).matrix)
    assert np.isfinite(liked).all()
    assert liked.mean() > loathed.mean()
    assert np.isfinite(bayesian.predict([9999], [1])).all()


def test_bayesian_score_of_a_known_user_is_the_prediction(bayesian):
    train = bayesian.train
    grid = bayesian.score(train.rows(np.array([2])), train.user_ids[[2]])[0]
    pairs = bayesian.predict(np.repeat(train.user_ids[2], train.n_items), train.item_ids)
    np.testing.assert_allclose(np.clip(grid, 1, 5), pairs, atol=1e-3)
