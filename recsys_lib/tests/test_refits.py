"""Models fitted again: on parts of the users, without others' future, with other ties and seeds."""

import findings
import numpy as np
import pandas as pd
import pytest
import refitting

from recsys_lib import splits
from recsys_lib.data.interactions import Interactions
from recsys_lib.evaluation import refits
from recsys_lib.evaluation.task import evaluate
from recsys_lib.models import ALS, Blend, NeuralRanker, Popularity


def test_on_the_same_split_a_refit_gives_the_evaluation(split, task, models):
    values = refitting.on_splits(models, [split], 4.0, {})
    for name, model in models.items():
        expected = evaluate(model, task).per_user.set_index("user_id")["ndcg@10"]
        pd.testing.assert_series_equal(values[name], expected, check_names=False)


def test_without_the_future_each_user_is_tested_once_by_models_that_do_not_know_it(split, task, models, monkeypatch):
    parts, fitted = list(splits.without_future(split, 3)), []
    monkeypatch.setattr(
        Popularity, "_fit", lambda self, train, *_: fitted.append(train) or setattr(self, "scores_", train.item_counts)
    )
    values = refitting.on_splits({"popularity": models["popularity"]}, parts, 4.0, {})
    assert values.index.tolist() == task.users.tolist()
    for part, train in zip(parts, fitted, strict=True):
        others = ~np.isin(train.user_ids[train.row_of_entry], part.test["user_id"].unique())
        assert train.timestamps[others].max(initial=0) < part.test["timestamp"].min()
    table = findings.ways({"as above": values.assign(ease=values["popularity"] * 2)}, "popularity")
    assert table.set_index("model").loc["ease", ["ratio", "ratio_low", "ratio_high"]].tolist() == [2, 2, 2]
    assert "`ease` has 2.00 times (2.00-2.00) as above." in findings.holds(table, "popularity")
    assert "2.00 x" in findings.by_way(table).to_html()
    assert findings.holds(pd.DataFrame(), "popularity").startswith("Nothing is fitted again")


def test_another_hash_decides_ties_and_nothing_else():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"user_id": np.repeat(np.arange(30), 20), "item_id": np.tile(np.arange(20), 30), "rating": 4.0}
    )
    frame["timestamp"] = rng.integers(5, size=len(frame))  # four rows a second
    split = splits.temporal_user(frame)
    again = refitting.other_ties(split)
    assert [len(part) for part in (again.train, again.valid, again.test)] == [420, 60, 120]
    assert again.test["timestamp"].sort_values().tolist() == split.test["timestamp"].sort_values().tolist()
    assert len(again.test.merge(split.test)) < len(split.test)
    assert again.test.dtypes.equals(split.test.dtypes)
    apart = splits.temporal_user(frame.assign(timestamp=np.arange(len(frame))))
    pd.testing.assert_frame_equal(refitting.other_ties(apart).test, apart.test)


def test_the_users_curve_ends_at_the_evaluation(task, models, monkeypatch):
    curve = refitting.users_curve(models, task, (0.2, 1.0))
    assert curve["size"].unique().tolist() == [24, 120]
    last = curve[curve["size"] == 120].set_index("model")["mean"]
    for name, model in models.items():
        assert last[name] == pytest.approx(evaluate(model, task).means["ndcg@10"])
    assert "ease" in findings.more_users(curve)
    monkeypatch.setattr("recsys_lib.evaluation.task.MOST_USERS", 50)
    assert set(refitting.users_curve(models, task, (0.2, 1.0))["n_users"]) == {50}


def test_seeds_move_models_that_have_one(task, models):
    als = ALS(factors=4, iterations=2, seed=1).fit(task.known)
    asked = {"als": als, "ease": models["ease"]}
    found = refitting.other_seeds(asked, {"als": 0.1, "ease": 0.1}, task, {}, seeds=2)
    assert list(found) == ["als"]
    assert found["als"].shape == (len(task.users), 2)
    assert refitting.other_seeds({"als": als}, {"als": 9.0}, task, {}, seeds=2) == {}


def test_a_shift_reaches_the_seeds_of_members_and_leaves_the_model_alone(task):
    model = Blend({"als": ALS(factors=4, iterations=2, seed=1), "popularity": Popularity()}, weights={"als": 1.0})
    moved = refits.fitted_again(model.fit(task.known), task.known, {}, shift=5)
    assert (model.models["als"].seed, moved.models["als"].seed) == (1, 6)
    expected = ALS(factors=4, iterations=2, seed=6).fit(task.known)
    np.testing.assert_array_equal(moved.models["als"].item_factors_, expected.item_factors_)


def test_nets_that_are_averaged_are_evaluated_one_by_one(tables, task):
    content = {"items": tables[1], "users": tables[2]}
    model = NeuralRanker(embedding_dim=4, hidden=8, epochs=1, n_models=2).fit(task.known, **content)
    found = refitting.other_seeds({"nets": model}, {"nets": 99.0}, task, content)["nets"]
    alone = evaluate(model.by_seed[1], task, resamples=1).per_user["ndcg@10"]
    np.testing.assert_array_equal(found[:, 1], alone)
    assert found.shape[1] == 2
    assert (found[:, 0] != found[:, 1]).any()
    one = refits.fitted_again(model, Interactions.from_frame(tables[0]), content)
    assert (len(one.states), len(model.states)) == (1, 2)
