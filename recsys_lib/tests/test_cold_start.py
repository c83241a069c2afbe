"""New users: which films are shown, what every model does with nothing, and people whom no model has met."""

import cold_start_tables as tables_of
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.evaluation import new_users as cold_start
from recsys_lib.evaluation import refits
from recsys_lib.evaluation.task import evaluate
from recsys_lib.models import EASE, ItemKNN, NeuralRanker, Popularity, short
from recsys_lib.models.base import MODULES
from recsys_lib.models.lists import top_k


@pytest.mark.parametrize("name", list(MODULES))
def test_what_a_model_does_with_nothing_is_what_it_says(fitted, name):
    model = fitted[name]
    scores = model.score(csr_matrix((1, model.train.n_items), dtype=np.float32))
    listed = model.recommend_new({}, k=5)
    assert listed["fallback"].all()  # nothing is known of the person, whoever answers
    assert len(listed) == 5
    assert listed["score"].notna().all()
    falls_back = tables_of.WITH_NOTHING[name] == tables_of.POPULAR
    assert np.isnan(scores).all() == falls_back
    assert falls_back or np.isfinite(scores).all()
    if falls_back or name in ("Popularity", "GenrePopularity"):
        order = np.lexsort((np.arange(model.train.n_items), -model.train.item_counts))
        assert listed["item_id"].tolist() == model.train.item_ids[order[:5]].tolist()


def test_a_short_history_is_listed_by_scores_popularity_and_taste():
    scores = np.array([[0.0, 1.0, 2.0, 3.0, 9.0, np.nan]] * 2, dtype=np.float32)
    histories = csr_matrix(np.array([[0, 0, 0, 0, 5.0, 0], [0, 0, 0, 4.0, 1.0, 0]]))
    popular, traits = np.float32([1, 2, 0, 4, 8, 5]), np.float32([[1, 0, 1, 0, 1, 0], [0, 1, 1, 1, 0, 1]]).T
    mixed = short.with_popularity(scores, histories, 8.0, 4.0, popular, traits)
    base = popular @ traits / 20
    for row, liked in enumerate(([4], [3])):
        unseen = [item for item in range(5) if histories[row, item] == 0]
        t = (histories[row].nnz / 8) ** 0.5
        lift = np.log((traits[liked].sum(axis=0) + 20 * base) / (len(liked) + 20) / base)
        own, common = scores[row][unseen].astype(float), popular[[*unseen, 5]].astype(float)
        taste = traits[unseen] @ np.maximum(lift, 0)
        common = ((common - common.mean()) / common.std())[:-1]
        expected = own.mean() + own.std() * (
            t * (own - own.mean()) / own.std() + (1 - t) * common + 6 * t * (1 - t) * taste
        )
        np.testing.assert_allclose(mixed[row, unseen], expected, rtol=1e-5)
    assert np.isnan(mixed[:, 5]).all()


def test_only_short_histories_are_moved_and_only_where_few_users_have_such(task):
    model, popular = EASE().fit(task.known), Popularity().fit(task.known)
    lengths = np.diff(task.known.matrix.indptr)
    assert model.few == min(12, int(np.quantile(lengths, 0.05)))
    assert popular.few == 0
    whole = task.known.rows(np.flatnonzero(lengths >= model.few))
    np.testing.assert_array_equal(model.scores_to_list(whole)[0], model.score(whole))
    given = whole.first(2)
    assert (model.scores_to_list(given)[0] != model.score(given)).all()
    one_each = EASE().fit(task.known.to_frame().groupby("user_id").head(2))
    assert one_each.few == 2


def test_the_table_of_nothing(fitted):
    assert set(tables_of.WITH_NOTHING) == set(MODULES)
    table = tables_of.with_nothing({"ease": fitted["EASE"], "hybrid": fitted["NeuralHybrid"]}, 5).set_index("model")
    assert table["fallback"].tolist() == [True, False]
    assert table.loc["ease", "popular"] == 5
    assert (table["milliseconds"] > 0).all()


def test_several_draws_are_averaged(task, models):
    models, keys = {"ease": models["ease"]}, ["way", "size", "user_id"]
    several, first = (cold_start.new_user_table(models, task, (1, 3), draws=draws).set_index(keys) for draws in (4, 1))
    assert (several.index == first.index).all()
    whole = several.xs(-1, level="size")["value"]
    np.testing.assert_allclose(whole, first.xs(-1, level="size")["value"])
    assert set(several["value"].round(6)) - set(first["value"].round(6)), "nobody was given other films"


def test_the_films_shown(task):
    histories = task.known.rows(task.codes)
    for way, key in (("first", 1), ("last", -1)):
        shown = cold_start.shown_films(histories, 3, way, task.popularity)
        assert (np.diff(shown.matrix.indptr) == 3).all()
        row = histories.matrix[[4]].indices
        when = histories.timestamps[histories.row_of_entry == 4]
        expected = row[np.lexsort((row, key * when))[:3]]
        assert shown.matrix[[4]].indices.tolist() == sorted(expected)
    with pytest.raises(ValueError, match="no way 'best' to choose films; there are any, first, last, known, liked"):
        cold_start.shown_films(histories, 3, "best", task.popularity)

    drawn = [cold_start.shown_films(histories, size, "any", task.popularity).matrix.toarray() > 0 for size in (1, 3)]
    assert (drawn[0] <= drawn[1]).all()
    assert drawn[1].any(axis=0).sum() > 20  # not the same films for everybody

    histories = Histories(csr_matrix(np.array([[5.0, 3.0, 5.0, 1.0]])), np.arange(4))
    counts = np.array([2, 9, 7, 8])
    liked = [cold_start.shown_films(histories, size, "liked", counts).matrix.indices.tolist() for size in (1, 2, 3)]
    assert liked == [[2], [0, 2], [0, 1, 2]]
    assert cold_start.shown_films(histories, 2, "known", counts).matrix.indices.tolist() == [1, 3]
    assert cold_start.shown_films(histories, 0, "known", counts).matrix.nnz == 0


def test_with_the_whole_history_a_new_user_gets_what_a_known_one_gets(task, models):
    values = cold_start.new_user_table(models, task, (0, 4))
    expected = evaluate(models["ease"], task, resamples=1).per_user.set_index("user_id")["ndcg@10"]
    own = values[(values["model"] == "ease") & (values["size"] == -1)].set_index("user_id")["value"]
    np.testing.assert_allclose(own, expected[own.index])
    wide = values.pivot(index="user_id", columns=["model", "size"], values="value")
    pd.testing.assert_series_equal(wide["ease", 0], wide["popularity", 0], check_names=False)
    curve = cold_start.curve(values, resamples=50).set_index(["model", "size"])
    assert curve.loc[("ease", 4), "mean"] == pytest.approx(wide["ease", 4].mean())
    assert (curve["low"] <= curve["mean"]).all()
    gained = tables_of.gains(values, "popularity", resamples=50).set_index("size")["mean"]
    assert gained[4] == pytest.approx((wide["ease", 4] - wide["popularity", 4]).mean())
    assert gained[0] == 0
    enough = np.diff(task.histories.indptr) >= 4
    assert sorted(values["user_id"].unique()) == task.users[enough].tolist()
    assert len(cold_start.new_user_table(models, task, (10_000,))) == 0


def test_what_was_given_is_reflected_and_every_step_is_measured(task, content):
    model = Popularity().fit(task.known, **content)
    values = cold_start.new_user_table({"popularity": model}, task, (0, 2), whole=False).set_index(["user_id", "size"])
    assert values.xs(0, level="size")["reflected"].isna().all()
    user = values.index[0][0]
    history = task.served.rows(task.codes[task.users == user])
    given = cold_start.shown_films(task.served.rows(task.codes), 2, "any", task.popularity).matrix[task.users == user]
    own = set(np.flatnonzero(model.genres[given.indices].any(axis=0)))
    listed = top_k(model.score(history), 10, exclude=history.matrix)[0][0]
    alike = [bool(own & set(np.flatnonzero(model.genres[code]))) for code in listed]
    assert values.loc[(user, 2), "reflected"] == np.mean(alike)

    values = pd.DataFrame(
        {"model": ["a"] * 4 + ["b"] * 4, "size": [0, 0, 1, 1] * 2, "user_id": [1, 2] * 4}
        | {"value": [0.1, 0.2, 0.3, 0.6, 0.1, 0.1, 0.2, 0.2]}
    )
    steps = cold_start.steps(values, "a", ("b",), resamples=20)
    assert steps["ndcg", "mean"].tolist() == pytest.approx([0.15, 0.45])
    assert steps["the size before", "mean"].tolist() == pytest.approx([np.nan, 0.3], nan_ok=True)
    assert steps["b", "mean"].tolist() == pytest.approx([0.05, 0.25])


def test_a_list_for_one_taste_is_of_its_kind():
    items = pd.DataFrame({"item_id": range(40), "title": [f"Film {item}" for item in range(40)], "year": 1990})
    items["genres"] = [["Horror"] if item < 20 else ["Drama"] for item in range(40)]
    items.loc[items["item_id"] >= 20, "year"] = 1944
    rows = [(user, item, 5.0) for user in range(40) for item in range(20 * (user % 2), 20 * (user % 2) + 20)]
    known = Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "rating"]))
    models = {"knn": ItemKNN().fit(known, items=items), "popularity": Popularity().fit(known, items=items)}
    table = cold_start.tastes(models, items).set_index("taste")
    assert table.index.tolist() == ["Horror", "1940s"]  # of the others there are no films
    assert table["knn"].tolist() == [1, 1]
    assert table["popularity"].tolist() == [1, 0]
    assert table.loc["1940s", "given"] == "; ".join(f"Film {item}" for item in range(20, 25))


def test_better_from_when_on():
    gained = pd.DataFrame(
        {
            "model": ["a"] * 4 + ["b"] * 4 + ["c"] * 4,
            "size": [0, 1, 3, -1] * 3,
            "low": [0, 0.1, 0.1, 9, 0, 0.1, -0.1, 9, 0.1, 0.1, 0.1, 9],
        }
    )
    needed = tables_of.films_needed(gained)
    assert needed["a"] == 1
    assert np.isnan(needed["b"])
    assert needed["c"] == 0
    means = pd.DataFrame({0: [0.1, 0.2, 0.1], 1: [0.3, 0.1, 0.1], 3: [0.1, 0.1, 0.4]}, index=["a", "b", "c"])
    text = tables_of.sentence(means, needed)
    assert text.startswith(
        "With none the best has 0.200; with 1 film `a` leads (0.300); with 3 films `c` leads (0.400)"
    )
    assert "Not surely better with 3: b" in text


def test_new_users_are_in_no_training_data(split):
    task = cold_start.new_users_task(split, 0.25, 4, 4.0, seed=1)
    assert (np.diff(task.histories.indptr) == 4).all()
    fitted = refits.fitted_without(
        {"knn": ItemKNN(), "net": NeuralRanker(embedding_dim=2, epochs=1, n_models=3)}, task, {}
    )
    for model in fitted.values():
        assert not set(model.train.user_ids) & set(task.users)
        assert np.array_equal(model.train.item_ids, task.known.item_ids)
    assert len(fitted["net"].states) == 1
    own = pd.concat([split.history, split.test])
    own = own[own["user_id"] == task.users[0]]
    given, asked = task.items[task.histories[[0]].indices], task.items[task.relevant[[0]].indices]
    assert set(given) <= set(own["item_id"])
    assert set(asked) == set(own.loc[own["rating"] >= 4, "item_id"]) - set(given)
    values = cold_start.new_user_table(fitted, task, (0, 4), whole=False)
    assert values["size"].unique().tolist() == [0, 4]
    assert values["value"].between(0, 1).all()
    with pytest.raises(ValueError, match="nobody has more than 1000 films in the history"):
        cold_start.new_users_task(split, 0.25, 1000, 4.0)


def test_films_and_people_by_how_many_ratings_they_have(task):
    films = tables_of.films_by_count(task, (1, 5, 30))
    counts = np.concatenate([task.popularity, np.zeros(len(task.items) - task.known.n_items)])
    assert (
        films.loc[films["ratings"] == "5-29", "item_id"].tolist() == task.items[(counts >= 5) & (counts < 30)].tolist()
    )
    people = tables_of.users_by_count(task, (1, 15))
    lengths = np.diff(task.histories.indptr)
    assert (people["films"] == "15 and more").tolist() == (lengths >= 15).tolist()
    assert people["films"].cat.categories.tolist() == ["none", "1-14", "15 and more"]


def test_what_is_said_of_films_and_people():
    table = pd.DataFrame({"segment": "s", "group": ["1-4", "1-4"], "model": ["a", "p"], "mean": [0.2, 0.1]})
    text = tables_of.sentence_known(table, table, "p")
    assert text.startswith("Best recall among films with 1-4 ratings `a` (0.200). Among users with 1-4 films `a` leads")
