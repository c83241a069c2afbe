"""Sittings and return visits: how rows are divided, what models are served, what the tables say."""

import findings
import numpy as np
import pandas as pd
import pytest

from recsys_lib import splits
from recsys_lib.data.interactions import Interactions
from recsys_lib.evaluation import return_visits
from recsys_lib.evaluation.task import NothingRelevantError, Task, evaluate
from recsys_lib.models import EASE, Popularity

HOUR = 3600


def visits(*hours: float, user: int = 1, rating: float = 5.0) -> pd.DataFrame:
    """One interaction at each hour."""
    when = (np.array(hours) * HOUR).astype(np.int64)
    return pd.DataFrame({"user_id": user, "item_id": range(len(when)), "rating": rating, "timestamp": when})


@pytest.fixture(scope="module")
def coming_back() -> pd.DataFrame:
    """Forty users whose ten interactions fall into sittings; every other user comes back after the cut at eight."""
    rng = np.random.default_rng(0)
    tables = []
    for user in range(40):
        later = 100 if user % 2 else 0
        table = visits(0, 0.1, 0.2, 50, 50.1, 50.2, 50.3, 50.4, 50.5, 50.6 + later, user=user)
        tables.append(table.assign(item_id=rng.permutation(15)[:10]))
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize(("gap", "same"), [("1h", 1), ("2h", 2), ("2D", 4)])
def test_a_sitting_ends_with_the_first_long_pause(gap, same):
    history, later = visits(0), visits(1, 2.5, 40, 41, 300).assign(item_id=range(1, 6))
    assert splits.same_sitting(history, later, gap).sum() == same
    shuffled = later.sample(frac=1, random_state=0)
    assert shuffled[splits.same_sitting(history, shuffled, gap)]["item_id"].max() == same


def test_a_user_without_a_history_has_no_sitting_to_go_on_with():
    later = pd.concat([visits(1), visits(1, user=2)])
    assert splits.same_sitting(visits(0), later).tolist() == [True, False]


def test_both_cuts_are_moved_to_the_end_of_their_sitting():
    """Of ten rows temporal_user gives seven to train and one to validation; rows 6 to 8 are of one sitting."""
    frame = visits(0, 1, 2, 3, 4, 5, 10, 10.1, 10.2, 20)
    split = splits.return_visit(frame)
    parts = [part["item_id"].tolist() for part in (split.train, split.valid, split.test)]
    assert parts == [[0, 1, 2, 3, 4, 5, 6, 7, 8], [], [9]]
    split = splits.return_visit(
        frame.assign(timestamp=(np.array([0, 1, 2, 3, 4, 5, 6, 10, 10.1, 20]) * HOUR).astype(int))
    )
    parts = [part["item_id"].tolist() for part in (split.train, split.valid, split.test)]
    assert parts == [[0, 1, 2, 3, 4, 5, 6], [7, 8], [9]]


def test_who_never_comes_back_is_not_tested(coming_back):
    split = splits.return_visit(coming_back)
    assert sorted(split.test["user_id"]) == list(range(1, 40, 2))
    held_out = splits.held_out_split(split)
    assert held_out.params["gap"] == "1h"
    assert len(held_out.history) <= len(split.history)


def test_the_models_of_temporal_user_are_evaluated_on_the_same_questions(coming_back):
    """Fitted on the history of temporal_user, served with the rows of the same sitting, asked for what came later."""
    split, whole = splits.temporal_user(coming_back), Task.from_split(splits.return_visit(coming_back))
    task = Task.from_split(split).later_sittings("1h")
    assert task.users.tolist() == whole.users.tolist()
    assert (task.histories.astype(bool) != whole.histories.astype(bool)).nnz == 0
    model = EASE(regularization=1.0).fit(Interactions.from_frame(split.history))
    result = evaluate(model, task)
    listed = set(zip(result.lists["user_id"], result.lists["item_id"], strict=True))
    served = task.served.to_frame()
    assert not listed & set(zip(served["user_id"], served["item_id"], strict=True))
    expected = model.score(task.served.rows(task.codes), task.users)
    first = result.lists[result.lists["rank"] == 1].set_index("user_id")["score"]
    seen = task.histories.toarray() > 0
    np.testing.assert_allclose(first.loc[task.users], np.where(seen, -np.inf, expected).max(axis=1), rtol=1e-5)


def test_same_and_later_sittings_divide_what_is_relevant(coming_back):
    task = Task.from_split(splits.temporal_user(coming_back))
    same, later = task.same_sitting("1h"), task.later_sittings("1h")
    assert same.relevant.nnz + later.relevant.nnz == task.relevant.nnz
    for part in (task, same, later, task.later_sittings("1D")):  # what is asked for is in no history that is served
        served = part.served.to_frame().merge(part.test, on=["user_id", "item_id"])
        assert served.empty and len(part.test)
    assert same.protocol["sittings"] == {"which": "same", "gap": "1h"}
    assert len({part.protocol["fingerprint"] for part in (task, same, later)}) == 3
    with pytest.raises(NothingRelevantError):
        task.later_sittings("500h")


def test_data_without_times_and_implicit_feedback(coming_back):
    with pytest.raises(ValueError, match="needs timestamps"):
        Task.from_split(splits.random(coming_back.drop(columns="timestamp"))).later_sittings()
    task = Task.from_split(splits.temporal_user(coming_back.drop(columns="rating"))).later_sittings()
    assert set(np.unique(task.served.matrix.data)) == {1.0}


def test_of_many_users_some_are_asked_what_later_visits_bring(coming_back, monkeypatch):
    task = Task.from_split(splits.temporal_user(coming_back))
    models = {"popularity": Popularity().fit(task.known)}
    evaluations = {name: evaluate(model, task) for name, model in models.items()}
    monkeypatch.setattr(return_visits, "GAPS", {"later": "1h"})
    whole = return_visits.by_gap(models, task, evaluations)
    monkeypatch.setattr("recsys_lib.evaluation.task.MOST_USERS", 15)
    drawn = return_visits.by_gap(models, task, evaluations)
    everybody, some = (each["later"]["popularity"].per_user for each in (whole, drawn))
    assert 0 < len(some) < 15 and len(everybody) == 20
    of_these = everybody[everybody["user_id"].isin(some["user_id"])].reset_index(drop=True)
    columns = ["user_id", "ndcg@10", "recall@10"]  # lists are compared with those of others by "personalisation"
    pd.testing.assert_frame_equal(some[columns], of_these[columns])
    assert len(drawn["same sitting"]["popularity"].per_user) == len(whole["same sitting"]["popularity"].per_user)


def test_table_and_sentences_follow_the_numbers_of_each_visit(coming_back, monkeypatch):
    task = Task.from_split(splits.temporal_user(coming_back))
    models = {"popularity": Popularity().fit(task.known), "ease": EASE(regularization=1.0).fit(task.known)}
    evaluations = {name: evaluate(model, task) for name, model in models.items()}
    monkeypatch.setattr(return_visits, "GAPS", {"> 1h": "1h", "> 1D": "1D", "> 30D": "30D"})
    results = return_visits.by_gap(models, task, evaluations)
    assert list(results) == ["same sitting", "> 1h", "> 1D"]  # nobody comes back after a month
    for visit, part in (("same sitting", task.same_sitting()), ("> 1D", task.later_sittings("1D"))):
        expected = evaluate(models["ease"], part, (10,), whole=False)
        pd.testing.assert_frame_equal(results[visit]["ease"].per_user, expected.per_user)
    table = return_visits.table(results, "popularity")
    later = table[table["visit"] == "> 1h"].set_index("model")
    assert table.groupby("visit")["model"].nunique().tolist() == [2, 2, 2]
    assert (later["n_users"] == 20).all()
    assert not table["distinct"].any()  # of so few users no winner is named
    mean = later["ndcg@10"]
    assert later["ratio"]["ease"] == pytest.approx(mean["ease"] / mean["popularity"])
    p = table["p_permutation"].dropna()
    assert (table.loc[p.index, "p_holm"] >= p).all()

    text = findings.coming_back(table, "ease", "popularity", "ndcg@10")
    assert text.startswith(f"Of 20 users who come back > 1h, `{later.index[0]}` serves best")
    assert "not shown for a later visit" in text
    lead = table.assign(distinct=True, ratio=2.0)
    assert findings.coming_back(lead, "ease", "popularity", "ndcg@10").endswith("it leads on both.")
    assert findings.coming_back(table[:2], "ease", "popularity", "ndcg@10").startswith("Nobody comes back")
    assert "(20 users)" in findings.by_visit(table, ["ease", "popularity"], "popularity", "ndcg@10").to_html()
    seconds = {"ease": 2.0, "popularity": 1.0}
    gain = findings.net_gain({"on the leaderboard": evaluations}, "ease", "popularity", seconds, "ndcg@10")
    change = evaluations["ease"].means["ndcg@10"] - evaluations["popularity"].means["ndcg@10"]
    assert f"by {change:+.4f} on the leaderboard" in gain
    assert gain.endswith("2.0 instead of 1.0 CPU seconds to fit.")
    assert "not both" in findings.net_gain({"x": {}}, "ease", "popularity", seconds, "ndcg@10")
