"""The interface that all models share."""

import json
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from recsys_lib import models
from recsys_lib.data import splits
from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.evaluation.task import Task
from recsys_lib.models import ALS, EASE, ItemKNN, Popularity, SequenceKNN, Trending, load_model
from recsys_lib.models.base import MODULES
from recsys_lib.tests.made import made_tables, small_model

MODELS = {name: partial(small_model, name) for name in MODULES} | {
    "mean": partial(Popularity, kind="mean"),
    "decayed": partial(Popularity, kind="decayed"),
    "als_recent": partial(ALS, factors=8, half_life=10, low_weight=0.3),
    "als_raw": partial(ALS, factors=8, iterations=5, positive_from=None, alpha=40, regularization=0.01),
    "bm25": partial(ItemKNN, neighbours=20, weighting="bm25", half_life=5),
    "ease_weighted": partial(EASE, regularization=20, low_weight=0.3, item_power=-0.2, half_life=10),
}


@pytest.fixture(scope="module")
def fitted(fitted, known, content):
    return fitted | {name: build().fit(known, **content) for name, build in MODELS.items() if name not in fitted}


@pytest.fixture(params=list(MODELS))
def model(request, fitted):
    return fitted[request.param]


def test_lists_are_whole_ordered_and_without_what_was_seen(model, known):
    lists = model.recommend(known.user_ids, k=7)
    assert lists.columns.tolist() == ["user_id", "item_id", "score", "rank", "fallback"]
    assert (lists.groupby("user_id")["rank"].apply(list).map(lambda ranks: ranks == list(range(1, 8)))).all()
    assert (lists.groupby("user_id")["score"].diff().dropna() <= 0).all()
    assert not lists.duplicated(["user_id", "item_id"]).any()
    assert lists.merge(known.to_frame(), on=["user_id", "item_id"]).empty
    assert lists["user_id"].nunique() == known.n_users and not lists["fallback"].any()
    members = {"Blend": {"ease", "popularity"}, "Reranker": {"blend"}}
    assert set(model.members) == members.get(type(model).__name__, set())


def test_saved_and_loaded_or_learnt_again_gives_the_same_lists_and_no_pickle(model, known, content, tmp_path):
    folder = model.save(tmp_path / "model", data={"name": "made"})
    again, anew = load_model(folder), model.fresh()
    assert anew.train is None
    for other in (again, anew.fit(known, **content)):
        assert type(other) is type(model)
        assert other.params() == model.params()
        pd.testing.assert_frame_equal(other.recommend(known.user_ids), model.recommend(known.user_ids))
    assert getattr(again, "log", None) == getattr(model, "log", None)
    assert json.loads((folder / "config.json").read_text())["data"] == {"name": "made"}
    assert {path.suffix for path in folder.rglob("*.*") if path.is_file()} <= {".json", ".safetensors"}


SERVING = """
import sys
from pathlib import Path
from recsys_lib.models import load_model
for folder in Path(sys.argv[1]).iterdir():
    model = load_model(folder)
    model.recommend_new([1, 2], 3), model.explain(1, 5), model.similar_items([3], 2)
    hasattr(model, "parts") and model.parts(1, 5), model.predicts_ratings and model.predict([1], [2])
print([name for name in ("torch", "implicit", "lightgbm", "sklearn") if name in sys.modules])
"""


def test_what_serves_does_without_what_fits(fitted, tmp_path):
    for name in MODULES:
        fitted[name].save(tmp_path / name)
    done = subprocess.run([sys.executable, "-c", SERVING, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in MODELS if "Neural" not in name])  # which know users' demographics
def test_a_user_is_only_a_row_of_history(fitted, name, known):
    """A new user with the history of a known one gets the same scores."""
    histories = known.rows(np.array([3, 50]))
    scores = fitted[name].score(histories, known.user_ids[[3, 50]])
    np.testing.assert_array_equal(fitted[name].score(histories), scores)
    np.testing.assert_allclose(fitted[name].score(known.rows([50]))[0], scores[1], rtol=2e-5, atol=2e-5)


def test_explanations_add_up_to_the_score(model, known):
    for user in known.user_ids[:5]:
        first = model.recommend([user], k=1).iloc[0]
        reasons = model.explain(user, first["item_id"], k=4)
        assert reasons["contribution"].sum() == pytest.approx(first["score"], rel=1e-3, abs=1e-4)
        seen = known.item_ids[known.rows(known.user_codes([user])).matrix.indices]
        assert set(reasons["item_id"].dropna()) <= set(seen)


def test_new_users_are_served_with_nothing_one_or_many_items(model, known):
    for liked in ([], [3], [3, 9, 20], {3: 5.0, 9: 1.0}, {3: 1.0}):
        lists = model.recommend_new(liked, k=5)
        assert len(lists) == 5
        assert not set(lists["item_id"]) & set(liked)
        assert (lists["fallback"] == (len(liked) == 0)).all()


def test_similar_items_leave_out_the_item_itself(model, monkeypatch):
    ids = model.train.item_ids
    near = model.similar_items(ids, k=4)
    assert not (near["item_id"] == near["similar_item_id"]).any()
    assert (near.groupby("item_id")["score"].diff().dropna() <= 0).all()
    monkeypatch.setattr("recsys_lib.models.base.SCORES_PER_BLOCK", 1)  # blocks of 32
    np.testing.assert_allclose(model.similar_items(ids, k=4)["score"], near["score"], rtol=1e-5)


def test_similar_items_are_those_that_the_model_learnt_to_be(fitted, known):
    """Each model against its own weights; no two models list the same."""
    factors = fitted["ALS"].item_factors_ / np.linalg.norm(fitted["ALS"].item_factors_, axis=1, keepdims=True)
    watched = known.matrix.toarray() > 0
    expected = {name: fitted[name].similarity_.toarray() for name in ("ItemKNN", "SequenceKNN")}
    expected |= {"EASE": fitted["EASE"].weights_, "ALS": factors @ factors.T}
    together = watched.T.astype(float) @ watched
    expected["Popularity"] = together / np.sqrt(np.outer(watched.sum(axis=0), watched.sum(axis=0)))
    lists = set()
    for name, table in expected.items():
        near = fitted[name].similar_items(known.item_ids[:3], k=5)
        codes = known.item_codes(near["item_id"]), known.item_codes(near["similar_item_id"])
        np.testing.assert_allclose(near["score"], table[codes], rtol=1e-4)
        others = [np.delete(table[code], code) for code in range(3)]
        np.testing.assert_allclose(near["score"], np.concatenate([np.sort(row)[:-6:-1] for row in others]), rtol=1e-4)
        lists.add(tuple(near["similar_item_id"]))
    assert len(lists) == len(expected)


def test_ids_of_the_other_kind_are_understood(fitted, known):
    model = fitted["EASE"]
    pd.testing.assert_frame_equal(model.recommend([1, "9"], k=3), model.recommend([1, 9], k=3))
    pd.testing.assert_frame_equal(model.explain("1", "13"), model.explain(1, 13))
    pd.testing.assert_frame_equal(model.similar_items(["5"], k=3), model.similar_items([5], k=3))
    text = Interactions(known.matrix, np.sort(known.user_ids.astype(str)), known.item_ids, known.timestamps)
    assert not Popularity().fit(text).recommend([9], k=3)["fallback"].any()


@pytest.mark.parametrize("name", ["ALS", "ItemKNN", "Blend"])
def test_a_table_can_be_fitted_on_and_a_second_fit_forgets_the_first(name, known, tables):
    build = MODELS[name]
    model, half = build().fit(known), tables[0][tables[0]["user_id"] % 2 == 0]
    before = model.recommend(known.user_ids)  # makes what serving needs
    expected = build().fit(Interactions.from_frame(half)).recommend(known.user_ids)
    pd.testing.assert_frame_equal(model.fit(half).recommend(known.user_ids), expected)
    assert not expected.equals(before)


@pytest.mark.parametrize(
    "name", ["ALS", "als_recent", "BPR", "ItemKNN", "EASE", "Blend", "GenrePopularity", "NeuralRanker"]
)
def test_implicit_feedback_needs_no_ratings(name, tables, known, content):
    model = MODELS[name]().fit(tables[0].drop(columns=["rating"]), **content)
    lists = model.recommend(known.user_ids[:10], k=5)
    assert len(lists) == 50
    assert not lists["fallback"].any()


def test_order_needs_timestamps_and_says_so(tables):
    known = Interactions.from_frame(tables[0].drop(columns=["timestamp"]))
    for model in (Popularity(kind="decayed"), Popularity(kind="recent"), Trending(), SequenceKNN()):
        with pytest.raises(ValueError, match="needs timestamps.*, and the interactions have n"):
            model.fit(known)
    ItemKNN(half_life=5).fit(known)  # a half-life without times weighs nothing
    ordered = Interactions.from_frame(tables[0].rename(columns={"timestamp": "position"}))
    with pytest.raises(ValueError, match="the new interactions have no positions"):
        SequenceKNN().fit(ordered).update(tables[0])


WRONG = {
    "histories have 3 columns, but EASE was fitted on 80 items": lambda ease: ease.score(csr_matrix((1, 3))),
    "there is not one interaction": lambda ease: ease.fresh().fit(ease.train.only([])),
    "twice": lambda ease: ease.fresh().fit(pd.concat([ease.train.to_frame()] * 2)),
    "EASE ranks items; it does not predict ratings": lambda ease: ease.predict([1], [1]),
    "user 999 is not among the 120 users known": lambda ease: ease.recommend([999], unknown="raise"),
    "user ann is not among the 120 users known; ids here are whole numbers": lambda ease: ease.explain("ann", 13),
    "it must be 'popular' or 'raise'": lambda ease: ease.recommend([1], unknown="guess"),
    "item 999 is not in the catalogue": lambda ease: ease.recommend_new([999]),
    "item toy is not in the catalogue; ids here are whole numbers": lambda ease: ease.recommend_new(["toy"]),
    "holds no saved model": lambda ease: load_model("nowhere"),
    "item 998 is not in the catalogue: fit EASE anew": lambda ease: ease.update(
        ease.train.to_frame()[:1].assign(item_id=998)
    ),
    "the new interactions have no timestamps": lambda ease: ease.update(
        ease.train.to_frame()[:1].drop(columns="timestamp")
    ),
}


@pytest.mark.parametrize("sentence", list(WRONG))
def test_wrong_input_gets_one_sentence(fitted, sentence):
    with pytest.raises((ValueError, KeyError, TypeError, FileNotFoundError), match=sentence):
        WRONG[sentence](fitted["EASE"])


def test_who_cannot_be_scored_gets_the_popular_items_flagged(fitted, known):
    lists = fitted["EASE"].recommend([999, 1], k=5).set_index("user_id")
    assert lists.loc[999, "fallback"].all() and not lists.loc[1, "fallback"].any()
    top = known.item_ids[np.argsort(-known.item_counts, kind="stable")[:5]]
    assert lists.loc[999, "item_id"].tolist() == top.tolist()
    empty = Histories(csr_matrix((1, known.n_items), dtype=np.float32), np.zeros(0, np.int64))
    scores, fallback = fitted["ItemKNN"].scores_to_list(empty)
    assert fallback.all()
    np.testing.assert_array_equal(scores[0], known.item_counts)


def test_candidates_and_nobody(fitted):
    lists = fitted["EASE"].recommend([1], k=5, candidates=[70, 71, 72])
    assert set(lists["item_id"]) <= {70, 71, 72}
    assert fitted["EASE"].recommend([], k=5).columns.tolist() == lists.columns.tolist()


def test_what_cannot_be_loaded_is_refused_in_one_sentence(fitted, tmp_path):
    folder = fitted["EASE"].save(tmp_path / "model")
    with pytest.raises(ValueError, match="it holds a model of class EASE, not ALS"):
        ALS.load(folder)
    config = json.loads((folder / "config.json").read_text())
    older, renamed = {"format": 2}, {"params": config["params"] | {"was": 1}}
    for change, sentence in (
        (older, "another version of the lab: fit and save it anew"),
        (renamed, "argument 'was': fit and save it anew"),
    ):
        changed = {name: part for name, part in (config | change).items() if name != "content_sha256"}
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=f"model.* {sentence}"):
            load_model(folder)
    assert load_model(fitted["EASE"].save(folder)).train.n_items == fitted["EASE"].train.n_items
    (folder / "config.json").write_text(json.dumps(config | {"data": {"fit_seconds": 1}}))
    with pytest.raises(ValueError, match="model is damaged"):
        load_model(folder)


# ---- new interactions without a new fit --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def earlier_and_later(tables):
    """The first three quarters in time, with all items, and the rest: known users, new users, and a rating again."""
    frame = tables[0].sort_values("timestamp", kind="stable")
    cut = len(frame) * 3 // 4
    again = frame[:1].assign(rating=1.0, timestamp=frame["timestamp"].max() + 1)
    return frame[:cut], pd.concat([frame[cut:], again])


@pytest.mark.parametrize("name", ["Popularity", "mean", "Trending", "GenrePopularity", "ItemKNN", "SequenceKNN"])
def test_what_is_cheap_to_fit_counts_new_interactions_in(name, earlier_and_later, known, content):
    earlier, later = earlier_and_later
    start = Interactions.from_frame(earlier, item_ids=known.item_ids)
    updated = MODELS[name]().fit(start, **content).update(later)
    everything = pd.concat([earlier, later]).drop_duplicates(["user_id", "item_id"], keep="last")
    expected = MODELS[name]().fit(everything, **content).recommend(known.user_ids)
    pd.testing.assert_frame_equal(updated.recommend(known.user_ids), expected)


@pytest.mark.parametrize("name", ["ALS", "BPR", "EASE", "Blend"])
def test_users_are_served_from_their_longer_histories(name, earlier_and_later, known, content):
    earlier, later = earlier_and_later
    later = later.drop_duplicates(["user_id", "item_id"], keep="last")
    model = MODELS[name]().fit(Interactions.from_frame(earlier, item_ids=known.item_ids), **content)
    new = later.assign(user_id=later["user_id"].where(later["user_id"] % 2 == 0, later["user_id"] + 1000))
    lists = model.update(new).recommend(new["user_id"].unique(), k=5)
    assert not lists["fallback"].any()
    assert lists.merge(new, on=["user_id", "item_id"]).empty
    mine = new.loc[new["user_id"] > 1000, "user_id"].iloc[0]
    scores, _ = model.scores_to_list(model.train.rows(model.train.user_codes([mine])))
    unseen = ~np.isin(known.item_ids, new.loc[new["user_id"] == mine, "item_id"])
    np.testing.assert_allclose(model.recommend([mine], k=1)["score"], scores[0, unseen].max(), rtol=1e-6)


@pytest.mark.parametrize("name", ["Reranker", "NeuralHybrid", "NeuralRanker"])
def test_updates_that_need_a_fit_are_refused(fitted, name, tables):
    assert not fitted[name].updatable
    with pytest.raises(TypeError, match=f"{name} cannot take up new interactions: fit it anew"):
        fitted[name].update(tables[0])


@pytest.mark.parametrize("name", MODULES)
def test_before_fit_every_use_says_so(name, tmp_path):
    model = getattr(models, name)()
    uses = [lambda: model.recommend([1]), lambda: model.recommend_new([1]), lambda: model.similar_items([1])]
    uses += [lambda: model.explain(1, 1), lambda: model.save(tmp_path / "model"), lambda: model.update(None)]
    uses += [lambda: model.predict([1], [1])] if model.predicts_ratings else []
    for use in uses:
        with pytest.raises(ValueError, match=f"{name} is not fitted yet: call fit first"):
            use()
    assert not list(tmp_path.iterdir())


def test_what_a_refusal_proposes_goes():
    rated, items, _ = made_tables(n_users=30, n_items=20, per_user=10)
    undated, nets = rated.drop(columns="timestamp"), {"epochs": 1, "embedding_dim": 4}
    placed, alike = undated.assign(position=undated.groupby("user_id").cumcount()), rated.assign(rating=3.0)
    low = splits.temporal_user(rated.assign(rating=rated["rating"].clip(upper=3)))
    proposals = {
        "use NeuralRanker": (models.NeuralHybrid(**nets).fit, (alike,), [models.NeuralRanker(**nets).fit]),
        "use random or leave_one_out": (splits.temporal_user, (undated,), [splits.random, splits.leave_one_out]),
        "use temporal_user or leave_one_out": (
            splits.temporal_global,
            (placed,),
            [splits.temporal_user, splits.leave_one_out],
        ),
        "fit(..., items=items), with 'genres'": (
            models.GenrePopularity().fit,
            (rated,),
            [partial(kind().fit, items=items) for kind in (models.GenrePopularity, models.AttributeKNN)],
        ),
        "lower relevant_from": (
            partial(Task.from_split, relevant_from=4.0),
            (low,),
            [partial(Task.from_split, relevant_from=3.0)],
        ),
    }
    for says, (refused, given, proposed) in proposals.items():
        with pytest.raises(ValueError, match=re.escape(says)):
            refused(*given)
        for call in proposed:
            assert call(*given) is not None
