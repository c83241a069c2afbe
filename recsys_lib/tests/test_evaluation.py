"""Evaluation on made data, with models of a few lines."""

import numpy as np
import pandas as pd
import pytest

from recsys_lib import splits
from recsys_lib.data.interactions import Interactions
from recsys_lib.evaluation.metrics import ranking
from recsys_lib.evaluation.task import Task, check_fitted_on, compare, conclusion, evaluate, lists_given, mean_ndcg
from recsys_lib.models import Popularity, SequenceKNN
from recsys_lib.models.base import Recommender


class Counting(Recommender):
    """Popularity, the smallest model there is."""

    def _fit(self, train, items, users):
        self.counts_ = train.matrix.getnnz(axis=0).astype(np.float32)

    def _score(self, histories, users):
        return np.broadcast_to(self.counts_, histories.matrix.shape)


class Guessing(Counting):
    """Scores at random, and predicts the mean rating."""

    predicts_ratings = True

    def _score(self, histories, users):
        return np.random.default_rng(0).random(histories.matrix.shape)

    def predict(self, user_ids, item_ids, timestamps=None):
        return np.full(len(user_ids), self.train.matrix.data.mean())


@pytest.fixture(scope="module")
def history(split):
    return Interactions.from_frame(split.history)


@pytest.fixture(scope="module")
def results(split, history):
    return {
        "counting": evaluate(Counting().fit(history), split),
        "guessing": evaluate(Guessing().fit(history), split),
    }


def test_per_user_by_hand(split, history, results):
    result = results["counting"]
    assert result.per_user.columns[0] == "user_id"
    relevant = split.test[split.test["rating"] >= 4].groupby("user_id")["item_id"].agg(set)
    assert result.per_user["user_id"].tolist() == sorted(relevant.index)
    lists = result.lists.groupby("user_id")["item_id"].agg(list)
    for row in result.per_user.head(20).itertuples(index=False):
        hits = np.array([item in relevant[row.user_id] for item in lists[row.user_id]])
        expected = hits[:10].sum() / 10
        assert row[result.per_user.columns.get_loc("precision@10")] == pytest.approx(expected)


def test_blocks_and_faster_ways_give_the_same(split, history, results, monkeypatch):
    model, expected = Counting().fit(history), results["counting"]
    assert mean_ndcg(model, split) == pytest.approx(expected.means["ndcg@10"])
    assert mean_ndcg(model, Task.from_split(split)) == mean_ndcg(model, split)
    monkeypatch.setattr("recsys_lib.models.base.USERS_PER_BLOCK", 7)
    pd.testing.assert_frame_equal(evaluate(model, split).per_user, expected.per_user)
    within = expected.positions[expected.positions["rank"].between(1, 20)]
    listed = expected.lists.merge(within.drop(columns="midrank"), on=["user_id", "item_id", "rank"])
    assert len(listed) == len(within)
    quick = evaluate(model, split, whole=False)
    assert {"mrr", "auc", "r_precision"}.isdisjoint(quick.means)
    pd.testing.assert_frame_equal(quick.per_user, expected.per_user[list(quick.per_user.columns)])


def test_the_strict_protocol_fits_on_train_and_serves_the_history():
    """Who had 1 goes on to 2 in the train part, and to 3 after the item held out for validation."""
    visits = {1: [1, 2, 3, 4], 2: [1, 2, 3, 5], 3: [2, 3, 4], 4: [4, 1, 2]}
    rows = [(user, item, place) for user, items in visits.items() for place, item in enumerate(items)]
    split = splits.leave_one_out(pd.DataFrame(rows, columns=["user_id", "item_id", "position"]))
    items = pd.DataFrame({"item_id": [1, 2, 3, 4, 5, 6], "genres": [[]] * 6})
    task = Task.from_split(split, items=items, strict=True)
    assert (task.known.item_ids.tolist(), task.known.matrix.nnz, task.served.matrix.nnz) == ([1, 2, 3, 4, 5, 6], 6, 10)
    assert task.protocol["relevant_outside_catalogue"] == task.protocol["relevant_seen_before"] == 0
    model = SequenceKNN(backward=0, shrinkage=0).fit(Interactions.from_frame(split.train, item_ids=items["item_id"]))
    lists = evaluate(model, task, (2,)).lists.groupby("user_id")["item_id"].agg(list)
    assert {3, *visits[1][:3]}.isdisjoint(lists[1])
    with pytest.raises(ValueError, match=r"has 6.*fit it on Interactions.from_frame\(split.train\)"):
        check_fitted_on(SequenceKNN().fit(task.served), task)


def test_ratings(split, results):
    result = results["guessing"]
    guess = Interactions.from_frame(split.history).matrix.data.mean()
    errors = guess - split.test["rating"].to_numpy(float)
    assert result.rating["rmse"]["mean"] == pytest.approx(np.sqrt((errors**2).mean()), abs=1e-6)
    assert result.rating["rmse"]["low"] < result.rating["rmse"]["mean"] < result.rating["rmse"]["high"]
    assert results["counting"].rating is None


def test_a_model_that_has_seen_the_test_is_refused(tables, split):
    cheat = Counting().fit(Interactions.from_frame(tables[0]))
    with pytest.raises(ValueError, match="rows it is to be tested on"):
        evaluate(cheat, split)
    with pytest.raises(ValueError, match="unknown to it"):
        evaluate(Counting().fit(Interactions.from_frame(split.train)), split)
    assert mean_ndcg(Counting().fit(Interactions.from_frame(split.train)), split.for_validation()) > 0


def test_relevant_items_outside_the_catalogue_stay_relevant(tables, split):
    item = split.test.loc[split.test["rating"] >= 4, "item_id"].iloc[0]
    parts = [part[part["item_id"] != item].reset_index(drop=True) for part in (split.train, split.valid)]
    cut = splits.Split(*parts, split.test, name="cut")
    result = evaluate(Counting().fit(Interactions.from_frame(cut.history)), cut)
    rows = split.test[(split.test["rating"] >= 4)]
    assert result.protocol["relevant_outside_catalogue"] == pytest.approx((rows["item_id"] == item).mean())
    assert result.protocol["relevant"] == len(rows)


def test_leaderboard(results):
    board = compare(results)
    assert board["model"].tolist() == ["counting", "guessing"]
    assert {"ndcg@10", "ndcg@10_low", "ndcg@10_high", "p_holm", "rmse", "precision@5_low"} <= set(board.columns)
    assert np.isnan(board.loc[0, "p_holm"])
    assert 0 < board.loc[1, "p_holm"] <= 1
    assert board.loc[1, "difference"] == pytest.approx(board.loc[1, "ndcg@10"] - board.loc[0, "ndcg@10"])
    assert "counting" in conclusion(board)


def test_results_of_different_tasks_and_unknown_metrics_are_refused(split, history, results):
    other = evaluate(Counting().fit(history), split, relevant_from=3.0)
    with pytest.raises(ValueError, match="different tasks"):
        compare({"a": results["counting"], "b": other})
    with pytest.raises(ValueError, match="no metric 'ndcg@7'; it has ndcg@5"):
        compare(results, by="ndcg@7")


def test_implicit_feedback(tables):
    frame = tables[0].drop(columns="rating")
    cut = splits.temporal_user(frame)
    result = evaluate(Guessing().fit(Interactions.from_frame(cut.history)), cut)
    assert result.protocol["relevant"] == len(cut.test)
    assert result.rating is None


def test_lists_are_what_recommend_serves_popular_films_for_users_without_a_history(tables):
    cut = splits.temporal_global(tables[0], test=0.3, valid=0.0)
    model = Guessing().fit(Interactions.from_frame(cut.history))
    result = evaluate(model, cut)
    new = ~result.per_user["user_id"].isin(cut.history["user_id"])
    assert result.protocol["users_without_history"] == new.sum() > 0
    pd.testing.assert_frame_equal(result.lists, model.recommend(result.per_user["user_id"], k=20))
    assert set(result.lists.loc[result.lists["fallback"], "user_id"]) == set(result.per_user.loc[new, "user_id"])


def test_a_winner_is_named_only_among_enough_users_and_outside_the_noise(split, results):
    board = compare(results)
    assert "leads every other model" in conclusion(board)
    board["n_users"] = 99
    assert "no winner is named" in conclusion(board)
    twins = compare({"a": results["counting"], "b": results["counting"]})
    assert not twins["distinct"].any()
    assert "cannot be told apart from b: no winner" in conclusion(twins)
    alone = compare({"counting": results["counting"]})
    assert alone.columns.tolist() == twins.columns.tolist()
    assert not alone["distinct"].any()
    assert "nothing to compare it with" in conclusion(alone)
    few = split.test["user_id"].unique()[:40]
    small = splits.Split(split.train, split.valid, split.test[split.test["user_id"].isin(few)], name="small")
    known = Interactions.from_frame(small.history)
    board = compare({"a": evaluate(Counting().fit(known), small), "b": evaluate(Guessing().fit(known), small)})
    assert board["p_holm"].iloc[1] < 0.01
    assert not board["distinct"].any()


def test_empty_test_part_and_nothing_relevant_are_named(split):
    with pytest.raises(ValueError, match="test part of the split is empty"):
        Task.from_split(splits.Split(split.train, split.valid, split.test.iloc[:0], name="x"))
    with pytest.raises(ValueError, match="lower relevant_from"):
        Task.from_split(split, 6.0)


def test_what_popularity_would_show_is_what_it_shows(task, results):
    lists = results["counting"].lists
    first = lists[lists["rank"] <= 10].groupby("user_id")["item_id"].agg(list)
    assert [task.known.item_ids[row].tolist() for row in task.expected] == first.loc[task.users].tolist()
    assert results["counting"].means["serendipity@10"] == 0


def test_a_point_of_the_learning_curve_has_the_fallback_that_lists_have(task):
    """A model that cannot score some users lists popular items for them, and is judged by these lists everywhere."""

    class Silent(Guessing):
        def _score(self, histories, users):
            scores = super()._score(histories, users)
            scores[::2] = np.nan
            return scores

    model, everybody = Silent().fit(task.known), np.arange(len(task.users))
    whole = ranking.ndcg(ranking.judge(lists_given(model, task, everybody), task.relevant), 10)
    np.testing.assert_allclose(whole, evaluate(model, task).per_user["ndcg@10"])
    assert whole[::2].sum() > 0


def test_twins_are_judged_as_they_are_listed(tables):
    interactions, items = tables[0], tables[1].copy()
    items.loc[items.index[1], ["title", "year"]] = items.loc[items.index[0], ["title", "year"]].tolist()
    twins = items["item_id"].iloc[:2].tolist()
    task = Task.from_split(splits.temporal_user(interactions), items=items)
    result = evaluate(Popularity().fit(task.known, items=items), task)
    listed = result.lists[result.lists["item_id"].isin(twins)]
    assert len(listed) and not listed.duplicated("user_id").any()
    seen = task.known.to_frame().query("item_id in @twins")["user_id"]
    assert not listed["user_id"].isin(seen).any()
