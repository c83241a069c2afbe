"""The interface that all models share."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models import (
    ALS,
    BPR,
    EASE,
    AttributeKNN,
    Blend,
    GenrePopularity,
    ItemKNN,
    NeuralHybrid,
    NeuralRanker,
    Popularity,
    Reranker,
    SequenceKNN,
    Trending,
    load_model,
)


def parts():
    return {"ease": EASE(regularization=20), "knn": ItemKNN(neighbours=20), "popularity": Popularity()}


BUILDERS = {
    "popularity": Popularity,
    "mean": lambda: Popularity(kind="mean"),
    "decayed": lambda: Popularity(kind="decayed"),
    "trending": Trending,
    "genres": GenrePopularity,
    "als": lambda: ALS(factors=8, iterations=5, threads=1),
    "als_recent": lambda: ALS(factors=8, iterations=5, half_life=10, threads=1),
    "als_raw": lambda: ALS(factors=8, iterations=5, positive_from=None, alpha=40, regularization=0.01, threads=1),
    "bpr": lambda: BPR(factors=8, iterations=20),
    "knn": lambda: ItemKNN(neighbours=20, half_life=5),
    "attributes": AttributeKNN,
    "bm25": lambda: ItemKNN(neighbours=20, weighting="bm25"),
    "sequence": lambda: SequenceKNN(window=5, neighbours=30),
    "ease": lambda: EASE(regularization=20),
    "ease_weighted": lambda: EASE(regularization=20, low_weight=0.3, item_power=-0.2, half_life=10),
    "blend": lambda: Blend(parts()),
    "reranker": lambda: Reranker(Blend(parts()), depth=30, trees=5),
}


@pytest.fixture(scope="module")
def fitted(known, tables):
    return {name: build().fit(known, items=tables[1]) for name, build in BUILDERS.items()}


@pytest.fixture(params=list(BUILDERS))
def model(request, fitted):
    return fitted[request.param]


def test_lists_are_whole_ordered_and_without_what_was_seen(model, known):
    lists = model.recommend(known.user_ids, k=7)
    assert lists.columns.tolist() == ["user_id", "item_id", "score", "rank", "fallback"]
    assert (lists.groupby("user_id").size() == 7).all()
    assert (lists.groupby("user_id")["rank"].apply(list).map(lambda ranks: ranks == list(range(1, 8)))).all()
    assert (lists.groupby("user_id")["score"].diff().dropna() <= 0).all()
    assert not lists.duplicated(["user_id", "item_id"]).any()
    seen = known.to_frame()[["user_id", "item_id"]]
    assert lists.merge(seen, on=["user_id", "item_id"]).empty
    assert not lists["fallback"].any()
    members = {"Blend": {"ease", "knn", "popularity"}, "Reranker": {"blend"}}
    assert set(model.members) == members.get(type(model).__name__, set())


def test_saved_and_loaded_gives_the_same_lists_and_no_pickle(model, known, tmp_path):
    folder = model.save(tmp_path / "model", data={"name": "made"})
    again = load_model(folder)
    assert type(again) is type(model)
    assert again.params() == model.params()
    pd.testing.assert_frame_equal(again.recommend(known.user_ids), model.recommend(known.user_ids))
    assert json.loads((folder / "config.json").read_text())["data"] == {"name": "made"}
    assert {path.suffix for path in folder.rglob("*.*") if path.is_file()} <= {".json", ".safetensors"}


def test_a_user_is_only_a_row_of_history(model, known):
    """A new user with the history of a known one gets the same scores."""
    histories = known.rows(np.array([3, 50]))
    scores = model.score(histories, known.user_ids[[3, 50]])
    np.testing.assert_array_equal(model.score(histories), scores)
    np.testing.assert_allclose(model.score(known.rows([50]))[0], scores[1], rtol=2e-5, atol=2e-5)


def test_explanations_add_up_to_the_score(model, known):
    for user in known.user_ids[:5]:
        first = model.recommend([user], k=1).iloc[0]
        reasons = model.explain(user, first["item_id"], k=4)
        assert reasons["contribution"].sum() == pytest.approx(first["score"], rel=1e-3, abs=1e-4)
        seen = known.item_ids[known.rows(known.user_codes([user])).matrix.indices]
        assert set(reasons["item_id"].dropna()) <= set(seen)


def test_new_users_are_served_with_nothing_one_or_many_items(model, known):
    nothing = model.recommend_new([], k=5)
    assert len(nothing) == 5
    assert nothing["fallback"].all()
    for liked in ([3], [3, 9, 20], {3: 5.0, 9: 1.0}, {3: 1.0}):
        lists = model.recommend_new(liked, k=5)
        assert len(lists) == 5
        assert not set(lists["item_id"]) & set(liked)
        assert not lists["fallback"].any()


def test_similar_items_leave_out_the_item_itself(model, monkeypatch):
    near = model.similar_items([1, 2], k=4)
    assert not (near["item_id"] == near["similar_item_id"]).any()
    assert (near.groupby("item_id")["score"].diff().dropna() <= 0).all()
    ids = model.train.item_ids
    whole = model.similar_items(ids, k=4)
    monkeypatch.setattr("recsys_lib.models.base.SCORES", 1)  # blocks of 32
    np.testing.assert_allclose(model.similar_items(ids, k=4)["score"], whole["score"], rtol=1e-5)


def test_similar_items_are_those_that_the_model_learnt_to_be(fitted, known):
    """Each model against its own weights; no two models list the same."""
    knn = fitted["knn"].similarity_[[0, 1, 2]].toarray()
    sequence = fitted["sequence"].similarity_[[0, 1, 2]].toarray()
    factors = fitted["als"].item_factors_ / np.linalg.norm(fitted["als"].item_factors_, axis=1, keepdims=True)
    watched = known.matrix.toarray() > 0
    together = (watched.T.astype(float) @ watched) / np.sqrt(np.outer(watched.sum(axis=0), watched.sum(axis=0)))
    expected = {"ease": fitted["ease"].weights_, "knn": knn, "sequence": sequence, "als": factors @ factors.T}
    lists = {}
    for name, table in (expected | {"popularity": together}).items():
        near = fitted[name].similar_items(known.item_ids[:3], k=5)
        codes = known.item_codes(near["item_id"]), known.item_codes(near["similar_item_id"])
        np.testing.assert_allclose(near["score"], table[codes], rtol=1e-4)
        others = [np.delete(table[code], code) for code in range(3)]
        np.testing.assert_allclose(near["score"], np.concatenate([np.sort(row)[:-6:-1] for row in others]), rtol=1e-4)
        lists[name] = tuple(near["similar_item_id"])
    assert len(set(lists.values())) == len(lists)


def test_ids_of_the_other_kind_are_understood_or_named(fitted, known):
    model = fitted["ease"]
    plain = model.recommend([1, 9], k=3)
    pd.testing.assert_frame_equal(model.recommend([1, "9"], k=3), plain)
    pd.testing.assert_frame_equal(model.explain("1", "13"), model.explain(1, 13))
    pd.testing.assert_frame_equal(model.similar_items(["5"], k=3), model.similar_items([5], k=3))
    with pytest.raises(KeyError, match="user ann is not among the 120 users known; ids here are whole numbers"):
        model.explain("ann", 13)
    with pytest.raises(KeyError, match="item toy is not in the catalogue; ids here are whole numbers"):
        model.recommend_new(["toy"])
    text = Interactions(known.matrix, np.sort(known.user_ids.astype(str)), known.item_ids, known.timestamps)
    assert not Popularity().fit(text).recommend([9], k=3)["fallback"].any()


def test_a_table_can_be_fitted_on_and_a_second_fit_forgets_the_first(known, tables):
    for build in (BUILDERS["als"], BUILDERS["knn"]):
        model = build().fit(known)
        before = model.recommend(known.user_ids)  # makes what serving needs
        half = tables[0][tables[0]["user_id"] % 2 == 0]
        expected = build().fit(Interactions.from_frame(half)).recommend(known.user_ids)
        pd.testing.assert_frame_equal(model.fit(half).recommend(known.user_ids), expected)
        assert not expected.equals(before)
    with pytest.raises(ValueError, match="twice"):
        Popularity().fit(pd.concat([tables[0], tables[0][:1]]))
    with pytest.raises(ValueError, match="EASE is not fitted yet"):
        EASE().score(known.matrix)


def test_what_was_never_learnt_can_be_learnt_again(model, known, tables):
    again = model.fresh()
    assert again.train is None
    again.fit(known, items=tables[1])
    pd.testing.assert_frame_equal(again.recommend(known.user_ids), model.recommend(known.user_ids))


@pytest.mark.parametrize("name", ["als", "als_recent", "bpr", "knn", "ease", "blend", "genres"])
def test_implicit_feedback_needs_no_ratings(name, tables, known):
    model = BUILDERS[name]().fit(tables[0].drop(columns=["rating"]), items=tables[1])
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


def test_wrong_input_gets_one_sentence(fitted, known):
    model = fitted["ease"]
    with pytest.raises(ValueError, match="histories have 3 columns, but EASE was fitted on 80 items"):
        model.score(csr_matrix((1, 3)))
    with pytest.raises(KeyError, match="user 999 is not among the 120 users known"):
        model.recommend([999], unknown="raise")
    with pytest.raises(ValueError, match="it must be 'popular' or 'raise'"):
        model.recommend([1], unknown="guess")
    with pytest.raises(KeyError, match="item 999 is not in the catalogue"):
        model.recommend_new([999])
    with pytest.raises(ValueError, match="there is not one interaction"):
        EASE().fit(Interactions(csr_matrix((1, 1)), np.array([1]), np.array([1])))
    with pytest.raises(FileNotFoundError, match="holds no saved model"):
        load_model("nowhere")
    with pytest.raises(TypeError, match="EASE ranks items; it does not predict ratings"):
        model.predict(known.user_ids[:1], known.item_ids[:1])


def test_who_cannot_be_scored_gets_the_popular_items_flagged(fitted, known):
    lists = fitted["ease"].recommend([999, 1], k=5)
    assert lists.loc[lists["user_id"] == 999, "fallback"].all()
    assert not lists.loc[lists["user_id"] == 1, "fallback"].any()
    top = known.item_ids[np.argsort(-known.item_counts, kind="stable")[:5]]
    assert lists.loc[lists["user_id"] == 999, "item_id"].tolist() == top.tolist()

    empty = Histories(csr_matrix((1, known.n_items), dtype=np.float32), np.zeros(0, np.int64))
    scores, fallback = fitted["knn"].scores_to_list(empty)
    assert fallback.all()
    np.testing.assert_array_equal(scores[0], known.item_counts)


def test_candidates_and_nobody(fitted):
    lists = fitted["ease"].recommend([1], k=5, candidates=[70, 71, 72])
    assert set(lists["item_id"]) <= {70, 71, 72}
    assert fitted["ease"].recommend([], k=5).columns.tolist() == lists.columns.tolist()


def test_what_cannot_be_loaded_is_refused_in_one_sentence(fitted, tmp_path):
    folder = fitted["ease"].save(tmp_path / "model")
    with pytest.raises(ValueError, match="it holds a model of class EASE, not ALS"):
        ALS.load(folder)
    config = json.loads((folder / "config.json").read_text())
    older, renamed = {"format": 1}, {"params": config["params"] | {"was": 1}}
    for change, sentence in (
        (older, "another version of the lab: `make run`"),
        (renamed, "argument 'was': `make run`"),
    ):
        changed = {name: part for name, part in (config | change).items() if name != "content_sha256"}
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=f"model.* {sentence} fits"):
            load_model(folder)
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


@pytest.mark.parametrize("name", ["popularity", "mean", "trending", "genres", "knn", "sequence"])
def test_what_is_cheap_to_fit_counts_new_interactions_in(name, earlier_and_later, known, tables):
    earlier, later = earlier_and_later
    start = Interactions.from_frame(earlier, item_ids=known.item_ids)
    updated = BUILDERS[name]().fit(start, items=tables[1]).update(later)
    everything = pd.concat([earlier, later]).drop_duplicates(["user_id", "item_id"], keep="last")
    expected = BUILDERS[name]().fit(everything, items=tables[1]).recommend(known.user_ids)
    pd.testing.assert_frame_equal(updated.recommend(known.user_ids), expected)


@pytest.mark.parametrize("name", ["als", "bpr", "ease", "blend"])
def test_users_are_served_from_their_longer_histories(name, earlier_and_later, known, tables):
    earlier, later = earlier_and_later
    later = later.drop_duplicates(["user_id", "item_id"], keep="last")
    model = BUILDERS[name]().fit(Interactions.from_frame(earlier, item_ids=known.item_ids), items=tables[1])
    new = later.assign(user_id=later["user_id"].where(later["user_id"] % 2 == 0, later["user_id"] + 1000))
    lists = model.update(new).recommend(new["user_id"].unique(), k=5)
    assert not lists["fallback"].any()
    assert lists.merge(new, on=["user_id", "item_id"]).empty
    if name != "blend":
        mine = new[new["user_id"] > 1000].iloc[0]["user_id"]
        history = model.train.rows(model.train.user_codes([mine]))
        np.testing.assert_allclose(
            model.recommend([mine], k=1)["score"],
            np.nanmax(np.where(history.matrix.toarray() > 0, np.nan, model.scores_to_list(history)[0])),
        )


def test_updates_that_need_a_fit_are_refused(fitted, tables):
    assert not (Reranker.updatable or NeuralHybrid.updatable or NeuralRanker.updatable)
    with pytest.raises(TypeError, match="Reranker cannot take up new interactions: fit it anew"):
        fitted["reranker"].update(tables[0])
    with pytest.raises(KeyError, match="item 999 is not in the catalogue: fit EASE anew"):
        fitted["ease"].update(tables[0][:1].assign(item_id=999))
    with pytest.raises(ValueError, match="the new interactions have no timestamps"):
        fitted["ease"].update(tables[0][:1].drop(columns="timestamp"))
