"""The helper of training notebooks, beside fitting and saving: validation, and what diversity costs."""

import numpy as np
import pandas as pd
import pytest

from recsys_lib import splits
from recsys_lib.data.interactions import Interactions
from recsys_lib.evaluation.inference import intervals
from recsys_lib.models import EASE, Blend, ItemKNN, Popularity, Reranker
from recsys_lib.models.base import Recommender
from recsys_lib.run.run import Run
from recsys_lib.run.training import Training
from recsys_lib.tests.made import prepare


@pytest.fixture(scope="module")
def training(tables, module_home):
    return Training(prepare(tables), "05_made")


@pytest.fixture(scope="module")
def given(training):
    return training.held_out_scores({"ease": EASE(regularization=20), "popularity": Popularity()})


def test_held_out_scores_are_those_of_what_was_held_out(training, given):
    held = training.held_out.test
    held = held[(held["rating"] >= 4) & held["item_id"].isin(training.train.item_ids)]
    expected = {user: set(rows["item_id"]) for user, rows in held.groupby("user_id")}
    assert given.users.tolist() == sorted(expected)
    for row, user in enumerate(given.users):
        assert set(training.train.item_ids[given.relevant[row].indices]) == expected[user]
    known = training.train.rows(training.train.user_codes(given.users))
    np.testing.assert_array_equal(given.histories.matrix.toarray(), known.matrix.toarray())


def test_models_that_are_fitted_already_are_asked_as_they_are(training):
    model = Popularity().fit(training.train)
    model.scores_ = model.scores_[::-1].copy()
    given = training.held_out_scores({"popularity": model})
    np.testing.assert_array_equal(given.scores["popularity"][0], model.scores_)


def test_a_reranker_is_judged_on_what_it_learns_from(training, given):
    blend = Blend({"ease": EASE(regularization=20), "popularity": Popularity()}).learning_from(given)
    training.fit(blend)
    judged = Reranker(blend, depth=30, trees=5)
    crosswise = training.judge_crosswise(judged, given)
    assert 0 < crosswise < 1
    assert crosswise != training.judge(blend)
    kept = training.keep("second", Reranker(blend.fresh(), depth=30, trees=5), judged=judged)
    assert kept.train is training.history
    facts = training.run.model_config("second")["data"]
    assert facts["valid_ndcg@10_low"] < crosswise < facts["valid_ndcg@10_high"]


def test_models_of_one_mean_keep_their_own_intervals(training):
    task = training.task
    liked = task.relevant[:, : task.known.n_items].toarray() > 0
    inside = np.flatnonzero(liked.sum(axis=1) == task.n_relevant)

    class Knowing(Recommender):
        """Puts what is relevant first for every second user, last for the others."""

        start: int = 0

        def _fit(self, train, items, users):
            pass

        def _score(self, histories, users):
            known = np.where(np.isin(users, task.users[inside[self.start : len(inside) // 2 * 2 : 2]]), 1.0, -1.0)
            return liked[np.searchsorted(task.users, users)] * known[:, None]

    models = [Knowing(start=start) for start in (0, 1)]
    for model in models:
        training.fit(model)
    assert training.judge(models[0]) == training.judge(models[1]) > 0
    for model in models:
        training.keep("knowing", model)
        facts, values = training.run.model_config("knowing")["data"], training.per_user(model)
        row = intervals(values.to_frame("ndcg")).loc["ndcg"]
        assert [facts["valid_ndcg@10_low"], facts["valid_ndcg@10_high"]] == [row["low"], row["high"]]
    assert not training.per_user(models[0]).equals(training.per_user(models[1]))


def test_the_cost_of_diversity_begins_with_the_model_itself(training):
    model = EASE(regularization=20).fit(training.train, items=training.tables.items)
    cost = training.cost_of_diversity(model, ["mmr", "calibration"], [0.0, 0.5])
    assert cost["diversify"].tolist() == ["mmr", "mmr", "calibration", "calibration"]
    first = cost.iloc[[0, 2]]
    assert first["ndcg@10"].tolist() == pytest.approx([training.judge(model)] * 2)
    lists = model.recommend(training.task.users, 10)
    assert first["films shown"].tolist() == [lists["item_id"].nunique()] * 2
    assert cost.loc[1, "films shown"] > cost.loc[0, "films shown"]


def test_a_comparison_has_intervals_and_paired_differences_to_the_best(training):
    table = training.compare(
        {"popularity": Popularity(), "ease": EASE(regularization=20), "again": EASE(regularization=20)}
    )
    best = table["ndcg@10"].idxmax()
    assert (table["ndcg@10_low"] <= table["ndcg@10"]).all() and (table["ndcg@10"] <= table["ndcg@10_high"]).all()
    np.testing.assert_allclose(table["difference"], table["ndcg@10"] - table.loc[best, "ndcg@10"], atol=1e-12)
    ends = table.set_index("model").loc[["ease", "again"], ["difference_low", "difference_high"]]
    assert (ends.iloc[0] == ends.iloc[1]).all(), "the same model twice: paired, nothing lies between them"
    assert table["distinct"].tolist() == (table["difference_high"] < 0).tolist()
    assert training.compare({}).empty


def test_a_reranker_for_users_who_come_back_is_judged_by_what_other_users_taught(training):
    """Sixty users in three sittings: what they like on a later visit is what comes after their last item by number."""
    rng, rows = np.random.default_rng(0), []
    for user in range(60):
        start = int(rng.integers(40))
        rows += [(user, (start + n) % 40, 5.0, 100_000 * (n // 4) + n) for n in range(12)]
    known = Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"]))
    models = {"knn": ItemKNN(), "popularity": Popularity()}
    blend = Blend(models, weights={"knn": 1.0, "popularity": 1.0}, holdout="later", share=0.4, folds=2).fit(known)
    model, visits = Reranker(blend, depth=30, trees=5), blend.held_out(known)
    values = training.judge_each(model, visits)
    assert list(values.columns) == ["knn", "popularity", "re-ranked"]
    assert values.index.tolist() == list(range(60))
    assert values["re-ranked"].mean() > 0.7 > values["popularity"].mean()
    kept = training.keep("later", Reranker(blend.fresh(), depth=30, trees=5), judged=model, spent=1000.0)
    assert kept.blend.holdout == "later"
    facts = training.run.model_config("later")["data"]
    assert facts["valid_ndcg@10"] is None
    assert facts["fit_seconds"] > 1000


def test_validation_asks_some_users_of_many(tables, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path))
    interactions, items, users = tables
    split = splits.leave_one_out(interactions)
    assert splits.asking_some(split) is split
    with monkeypatch.context() as few:
        few.setattr(splits, "ASKED", 20)
        some = splits.asking_some(split)
    assert some.test["user_id"].nunique() == 20 and len(some.train) == len(split.train)
    data = {"name": "made", "sha256": "a" * 64, "rating_scale": None, "source": "the tests"}
    brands = [[f"brand {place}"] for place in range(len(items))]
    Run("made").write_tables(split, items.assign(genres=brands), users, data=data, relevant_from=0.0)
    training = Training(Run("made"), "05_made")
    assert training.has_attributes and not training.has_genres
    assert training.held_share == 0, "one item is held out, as the split does it"
