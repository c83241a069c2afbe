"""Each model against its formula, written out plainly."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations

import lightgbm
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.data.splits import return_visit
from recsys_lib.models import (
    ALS,
    BPR,
    EASE,
    AttributeKNN,
    Blend,
    GenrePopularity,
    ItemKNN,
    Popularity,
    Reranker,
    SequenceKNN,
    Trending,
)
from recsys_lib.models import ease as ease_module
from recsys_lib.models.lists import standardised
from recsys_lib.models.neighbours import user_weighting
from recsys_lib.models.stack.blend import HeldOut, hold_out, listwise_fit, search_weights
from recsys_lib.models.stack.trees import PARAMS, grow, tree_scores
from recsys_lib.models.weights import confidence, whole

DAY = 86_400


def made(rows):
    return Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"]))


def two_models():
    return {"ease": EASE(regularization=20), "popularity": Popularity()}


SMALL = [
    (1, 1, 5.0, 0),
    (1, 2, 4.0, 10 * DAY),
    (2, 1, 2.0, 20 * DAY),
    (2, 3, 5.0, 20 * DAY),
    (3, 1, 4.0, 30 * DAY),
    (3, 2, 1.0, 30 * DAY),
]


# ---- weights -----------------------------------------------------------------------------------------------------


def test_weights_by_rating_and_recency():
    train = made(SMALL)
    weights = confidence(whole(train), train, positive_from=4, low_weight=0.5, half_life=1).toarray()
    np.testing.assert_allclose(weights, [[0.5, 1, 0], [0.5, 0, 1], [1, 0.5, 0]])
    np.testing.assert_allclose(confidence(whole(train), train, positive_from=None).toarray(), train.matrix.toarray())
    assert confidence(whole(train), train, low_weight=0).nnz == 4
    nothing_high = made([(1, 1, 1.0, 0), (1, 2, 1.0, 0), (2, 1, 1.0, 0)])
    assert confidence(whole(nothing_high), nothing_high, low_weight=0).data.tolist() == [1, 1, 1]
    half_stars = made([(1, 1, 3.5, 0), (1, 2, 4.5, 0), (1, 3, 4.0, 0)])
    weights = confidence(whole(half_stars), half_stars, positive_from=4, low_weight=0.3)
    np.testing.assert_allclose(weights.toarray(), [[0.3, 1, 1]])


# ---- popularity --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"kind": "count"}, [3, 2, 1]),
        ({"kind": "sum"}, [11, 5, 5]),
        ({"kind": "mean", "shrinkage": 1}, [(11 + 3.5) / 4, (5 + 3.5) / 3, (5 + 3.5) / 2]),
        ({"kind": "decayed", "half_life_days": 10}, [1 / 8 + 1 / 2 + 1, 1 / 4 + 1, 1 / 2]),
        ({"kind": "recent", "recent_days": 10}, [2.75, 1.5, 1.25]),
    ],
)
def test_popularity_in_five_senses(given, expected):
    np.testing.assert_allclose(Popularity(**given).fit(made(SMALL)).scores_, expected, rtol=1e-6)


def test_trending_knows_the_past_alone():
    train = made(SMALL)
    model = Trending(half_life_days=10, bin_days=1, floor=0).fit(train)
    # user 1 was last here on day 10, user 2 on day 20
    np.testing.assert_allclose(model.score(train.rows([0, 1])), [[0.5, 1, 0], [0.25 + 1, 0.5, 1]], rtol=1e-6)


def test_genre_popularity_is_the_formula():
    items = pd.DataFrame({"item_id": [1, 2, 3], "genres": [["A"], ["A", "B"], []]})
    train = made(SMALL)
    model = GenrePopularity(popularity_weight=0.6, genre_weight=0.4, low_weight=0.5).fit(train, items=items)
    affinity = (1 / 1.5) * 0.5**0.5 + (0.5 / 1.5) * 1  # of user 3 to item 2: liked A, thought less of A and B
    np.testing.assert_allclose(model.score(train.rows([2]))[0][1], 0.6 * 2 / 3 + 0.4 * affinity, rtol=1e-6)


# ---- ALS and BPR -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        ALS(factors=6, iterations=4, alpha=7, regularization=3, low_weight=0.3),
        BPR(factors=6, iterations=10, background=0.02, fold_in=1),
    ],
    ids=["ALS", "BPR"],
)
def test_a_user_is_folded_in_by_ridge(known, model):
    """ALS: every item counts 1, those of the history alpha times their weight; BPR: see its docstring."""
    history = known.rows(np.array([5]))
    y = model.fit(known).item_factors_.astype(float)
    w = confidence(history, known, low_weight=model.low_weight).toarray()[0]
    c, near, background, ridge = (
        (7 * w, np.where(w > 0, 7 * w - 1, 0), 1, 3) if isinstance(model, ALS) else (w, w, 0.02, 1)
    )
    x = np.linalg.solve(background * y.T @ y + (y * near[:, None]).T @ y + ridge * np.eye(6), y.T @ c)
    np.testing.assert_allclose(model.user_factors(history)[0], x, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(model.score(history)[0], x @ y.T + model.item_bias_, rtol=1e-3, atol=1e-5)


def test_als_finds_the_tastes_of_two_groups():
    pairs = ((user, item) for user in range(40) for item in range(12) if item != user % 12)
    train = made([(user, item, 5.0, 0) for user, item in pairs if user % 2 == item % 2])
    lists = ALS(factors=4, regularization=1, iterations=20, threads=1).fit(train).recommend(train.user_ids, k=1)
    assert (lists["user_id"] % 2 == lists["item_id"] % 2).mean() > 0.95


# ---- neighbours --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", ["cosine", "tfidf", "bm25"])
def test_item_knn_is_the_formula(known, weighting):
    model = ItemKNN(neighbours=80, weighting=weighting, shrinkage=3).fit(known)
    a = user_weighting(confidence(whole(known), known), weighting).toarray().astype(float)
    norm = np.linalg.norm(a, axis=0)
    similarity = a.T @ a / (np.outer(norm, norm) + 3)
    np.fill_diagonal(similarity, 0)
    expected = confidence(whole(known), known).toarray() @ similarity
    np.testing.assert_allclose(model.score(whole(known)), expected, rtol=1e-4, atol=1e-5)


def test_attribute_knn_is_the_cosine_of_rare_attributes():
    items = pd.DataFrame({"item_id": [1, 2, 3, 4], "genres": [["A", "x"], ["A", "x"], ["A", "y"], ["y"]]})
    train = Interactions.from_frame(pd.DataFrame({"user_id": [1, 2], "item_id": [1, 3]}), item_ids=items["item_id"])
    model = AttributeKNN().fit(train, items=items)
    a, x, y = np.log(4 / np.array([3, 2, 2]))  # what an attribute of so many of the four items counts
    vectors = np.array([[a, x, 0], [a, x, 0], [a, 0, y], [0, 0, y]])
    cosine = vectors @ vectors.T / np.outer(*[np.linalg.norm(vectors, axis=1)] * 2)
    np.testing.assert_allclose(model.score(train.rows([0, 1])), (cosine - np.eye(4))[[0, 2]], rtol=2e-3, atol=1e-7)
    assert model.recommend([1], 1)["item_id"].tolist() == [2]  # which nobody has had
    assert model.similar_items([4], 1)["similar_item_id"].tolist() == [3]


def test_what_nothing_leads_to_follows_by_popularity():
    """Users 3 and 4 had 9 and 8; nobody who had 1 had them, or 5, and numbers say nothing of what to list."""
    rows = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 9), (4, 9), (3, 8), (4, 8), (5, 9), (5, 7), (6, 5), (6, 4)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id"])
    frame["position"] = frame.groupby("user_id").cumcount()
    model = SequenceKNN(backward=0, shrinkage=0).fit(frame)
    model.few = 0  # the scores as they are
    listed = model.recommend_new([1], 4)
    assert listed["item_id"].tolist()[:3] == [2, 9, 8]
    assert (listed["score"].to_numpy()[1:] < 0).all()


def test_items_of_the_same_attributes_are_not_listed_by_their_numbers():
    """Numbered as users had them, neighbours in number are neighbours in a history: a list of ties would tell."""
    items = pd.DataFrame({"item_id": range(100), "genres": [["A"]] * 99 + [["B"]]})
    train = Interactions.from_frame(pd.DataFrame({"user_id": [1, 2], "item_id": [0, 99]}), item_ids=items["item_id"])
    listed = AttributeKNN(weighting="cosine").fit(train, items=items).recommend([1], 20)["item_id"]
    assert set(listed) <= set(range(1, 99))
    assert 30 < listed.mean() < 70


def test_item_knn_keeps_so_many_neighbours(known):
    kept = ItemKNN(neighbours=5).fit(known).similarity_
    assert np.diff(kept.indptr).max() == 5
    whole_table = ItemKNN(neighbours=80).fit(known).similarity_.toarray()
    np.testing.assert_allclose(np.sort(kept.toarray(), axis=1)[:, -5:], np.sort(whole_table, axis=1)[:, -5:])
    # all users watched all: every item is as near as any other, and the lower columns are kept
    train = made([(user, item, 5.0, item) for user in (1, 2, 3) for item in range(5)])
    for model in (ItemKNN(neighbours=2, weighting="cosine"), SequenceKNN(neighbours=2, power=0, window=9)):
        kept = model.fit(train).similarity_.toarray() > 0
        assert [np.flatnonzero(row).tolist() for row in kept] == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]


@pytest.mark.parametrize("directed", [{}, {"decay": 0.5, "backward": 0.3, "power": 0.4, "next_power": 0.2}])
def test_sequence_knn_counts_what_follows_within_its_window(directed):
    """Pair by pair, from the order alone; either direction counts alike by default."""
    histories = {1: [1, 2, 3, 4, 5], 2: [1, 5], 3: [5, 3, 1, 2]}
    rows = [(user, item, place) for user, items in histories.items() for place, item in enumerate(items)]
    train = Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "position"]))
    model = SequenceKNN(window=2, shrinkage=0.7, neighbours=10, half_life=1, **directed).fit(train)
    counts, n = np.zeros((5, 5)), np.bincount(train.matrix.indices)
    for items in histories.values():
        for first, then in combinations(range(len(items)), 2):
            worth = (then - first) ** -model.decay if then - first <= 2 else 0
            counts[items[first] - 1, items[then] - 1] += worth
            counts[items[then] - 1, items[first] - 1] += worth * model.backward
    expected = counts / (np.outer(n**model.power, n ** directed.get("next_power", model.power)) + 0.7)
    np.testing.assert_allclose(model.similarity_.toarray(), expected, rtol=1e-5)
    recency = np.array([0.5, 1, 0.25, 0, 0.125])  # the last user had 5, 3, 1 and 2, in this order
    np.testing.assert_allclose(model.score(train.rows([2]))[0], recency @ expected, rtol=1e-5)
    follows = model.similar_items([1], k=5)["similar_item_id"].tolist()
    assert follows == [item for item in (np.argsort(-expected[0], kind="stable") + 1) if expected[0, item - 1]]
    assert model.explain([1, 3], 2).set_index("item_id")["users"].to_dict() == {1: 2, 3: 1}


# ---- EASE --------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 1000), st.floats(0.5, 200), st.sampled_from([0, 4096]))
def test_ease_is_the_same_from_either_side(n_users, n_items, seed, regularization, dense):
    """Fewer users than items or more, weights kept or the users in their place: the scores are the textbook's."""
    x = (np.random.default_rng(seed).random((n_users, n_items)) < 0.5).astype(np.float32)
    x[0, :], x[:, 0] = 1, 1
    train = Interactions(csr_matrix(x), np.arange(n_users), np.arange(n_items))
    inverse = np.linalg.inv(x.T @ x + regularization * np.eye(n_items))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ease_module, "DENSE", dense)
        model = EASE(regularization=regularization).fit(train)
    assert model.updatable == (n_users >= n_items or dense > 0)
    np.testing.assert_allclose(model.score(train.matrix), x @ weights, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(model._similarity(np.arange(n_items)), weights, rtol=1e-3, atol=1e-4)
    item = n_items - 1
    parts = model.explain([0], item)["contribution"].sum()
    assert parts == pytest.approx(float(model.score(model.history_of([0]))[0, item]), abs=1e-4)


def test_ease_refuses_politely_and_offers_fewer_items(known, monkeypatch):
    monkeypatch.setattr(ease_module.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000})())
    with pytest.raises(MemoryError, match=r"needs about .* max_items=.* would fit"):
        EASE().fit(known)
    monkeypatch.undo()
    model = EASE(max_items=30).fit(known)
    scores = model.score(whole(known))
    assert np.isfinite(scores).sum(axis=1).tolist() == [30] * known.n_users
    assert known.item_counts[np.isfinite(scores[0])].min() >= known.item_counts[np.isnan(scores[0])].max()


@given(st.integers(20, 200_000), st.floats(2**26, 2**36))
def test_the_items_that_ease_offers_fit(n_users, free):
    with pytest.raises(MemoryError) as refusal:
        ease_module.check_memory(n_users, 10**9, available=free)
    offered = int(str(refusal.value).split("max_items=")[1].split()[0])
    assert offered > 0
    ease_module.check_memory(n_users, offered, available=free)


# ---- blend and re-ranker -----------------------------------------------------------------------------------------


def test_a_blend_is_the_weighted_sum_of_z_scores(known):
    models = two_models()
    blend = Blend(models, weights={"ease": 0.7, "popularity": 0.3}).fit(known)
    histories = known.rows(np.arange(10))
    expected = 0
    for name, weight in {"ease": 0.7, "popularity": 0.3}.items():
        scores = blend.models[name].score(histories).astype(float)
        unseen = np.where(histories.matrix.toarray() > 0, np.nan, scores)
        expected = expected + weight * (scores - np.nanmean(unseen, 1)[:, None]) / np.nanstd(unseen, 1)[:, None]
    np.testing.assert_allclose(blend.score(histories), expected, rtol=1e-3, atol=1e-4)
    flat = np.array([[2.0, 2.0], [np.nan, 1.0]])
    assert (standardised(flat, np.isfinite(flat))[0] == 0).all()


def test_learnt_weights_find_the_model_that_knows_and_are_drawn_to_being_equal():
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=(2, 300, 60)).astype(np.float32)
    nothing = Interactions(csr_matrix(truth.shape, dtype=np.float32), np.arange(300), np.arange(60))
    held_out = [HeldOut(nothing, nothing.user_ids, {"noise": noise, "truth": truth}, csr_matrix(truth > 1.5))]
    weights = [search_weights(held_out, penalty=penalty) for penalty in (0, 1, 1000)]
    noises = [each["noise"] for each in weights]
    assert noises[0] < 0.1 < noises[1] < noises[2] == pytest.approx(0.5, abs=0.01)
    assert [sum(each.values()) for each in weights] == pytest.approx([1, 1, 1])


def test_listwise_fit_recovers_the_coefficients():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(4000, 8, 2)).astype(np.float32)
    chance = np.exp(features @ np.array([1.5, -0.7]))
    picked = (chance.cumsum(1) / chance.sum(1, keepdims=True) > rng.random((4000, 1))).argmax(1)
    labels = np.arange(8) == picked[:, None]
    fitted = listwise_fit(features, labels, np.ones_like(labels), penalty=0)
    np.testing.assert_allclose(fitted, [1.5, -0.7], atol=0.1)


def test_what_is_held_out_is_the_end_of_each_history_or_another_part_in_each_fold(known):
    kept, relevant = hold_out(known, 0.25, "recent", 4.0)
    assert (np.diff(kept.matrix.indptr) == np.ceil(0.75 * np.diff(known.matrix.indptr))).all()
    for user in range(5):
        held = relevant[user].indices
        whole_row = known.rows(np.array([user]))
        when = dict(zip(whole_row.matrix.indices, whole_row.timestamps, strict=True))
        assert min((when[item] for item in held), default=np.inf) >= kept.rows(np.array([user])).timestamps.max()
    assert relevant.data.min() >= 4
    lengths, seen = np.diff(known.matrix.indptr), csr_matrix(known.matrix.shape)
    for fold in range(4):
        kept, relevant = hold_out(known, 0.25, "random", -np.inf, fold)
        assert (np.diff(relevant.indptr) == lengths // 4).all()
        np.testing.assert_array_equal((kept.matrix + relevant).toarray(), known.matrix.toarray())
        seen = seen + (relevant != 0)
    assert seen.max() == 1
    short = made([(user, item, 5.0, item) for user in (1, 2, 3) for item in range(user)])
    kept, relevant = hold_out(short, 0.25, "recent", 4.0)
    assert (kept.matrix.toarray() > 0).tolist() == [[True, False, False], [True, False, False], [True, True, False]]
    assert np.diff(relevant.indptr).tolist() == [0, 1, 1]


def test_later_sittings_are_held_out_as_the_split_holds_them_out():
    rng, rows = np.random.default_rng(0), []
    for user in range(50):
        when = np.cumsum(rng.choice([0, 60, 7200, 90_000], size=20))
        chosen = zip(rng.permutation(60)[:20], when, strict=True)
        rows += [(user, int(item), float(rng.integers(1, 6)), int(t)) for item, t in chosen]
    train = made(rows)
    for fold, share in enumerate((0.2, 0.4, 0.6000001)):
        kept, relevant = hold_out(train, 0.2, "later", 4.0, fold)
        split = return_visit(train.to_frame(), test=share, valid=0)
        both = kept.to_frame().merge(split.history, on=["user_id", "item_id"])
        assert len(both) == len(split.history) == kept.matrix.nnz
        assert relevant.nnz == (split.test["rating"] >= 4).sum() > 0
    kept, _ = hold_out(train, 0.2, "later", 4.0, 9)  # something of everybody is kept
    assert kept.matrix.getnnz(axis=1).min() >= 1
    one_sitting = made([(user, user % 7, 5.0, 0) for user in range(20)])
    assert Blend(two_models(), holdout="later", share=0.2).held_out(one_sitting) == []
    with pytest.raises(ValueError, match="needs timestamps"):
        hold_out(Interactions(train.matrix, train.user_ids, train.item_ids), 0.2, "later", 4.0)


def test_a_blend_and_its_reranker_learn_from_every_fold(known, tables):
    parts = two_models()
    blend = Blend(parts, holdout="random", share=0.2, folds=3).fit(known, items=tables[1])
    held_out = blend.held_out(known)
    assert len(held_out) == 3
    together, first = search_weights(held_out, penalty=1.0), search_weights(held_out[:1], penalty=1.0)
    assert blend.learnt_weights == pytest.approx(together, abs=1e-4)
    assert together != first
    several = Reranker(blend, depth=20, trees=5).fit(known, items=tables[1])
    once = Reranker(blend.learning_from(held_out[0]), depth=20, trees=5).fit(known, items=tables[1])
    assert (several.coefficients_ != once.coefficients_).any()


def test_a_blend_learns_from_what_is_given_as_held_out(known, monkeypatch):
    parts = two_models()
    kept, relevant = hold_out(known, 0.25, "recent", 4.0)
    held_out = HeldOut.of({name: part.fresh() for name, part in parts.items()}, kept, relevant)
    given_, own = Blend(parts).learning_from(held_out).fit(known), Blend(parts).fit(known)
    assert given_.learnt_weights == own.learnt_weights
    assert parts["ease"].train is known
    with pytest.raises(ValueError, match="scores of ease, popularity, not of ease"):
        Blend({"ease": EASE()}).learning_from(held_out)
    monkeypatch.setattr("recsys_lib.models.stack.blend.MAX_SCORES", 30 * known.n_items)  # a wide catalogue
    assert [len(part.users) for part in Blend(parts).held_out(known)] == [30]


def test_a_reranker_leaves_the_tail_behind_and_in_order(known, tables):
    blend = Blend(two_models()).fit(known, items=tables[1])
    model = Reranker(blend, depth=10, trees=5).fit(known, items=tables[1])
    before, after = (
        each.recommend(known.user_ids, k=15)["item_id"].to_numpy().reshape(-1, 15) for each in (blend, model)
    )
    np.testing.assert_array_equal(np.sort(after[:, :10]), np.sort(before[:, :10]))
    np.testing.assert_array_equal(after[:, 10:], before[:, 10:])
    assert (after != before).any(axis=1).mean() > 0.5


def test_a_reranker_finds_what_its_models_do_not_say():
    """All users go on with the items that others had right after the last one; popularity knows nothing of it."""
    starts = np.random.default_rng(0).integers(30, size=150)
    train = made(
        [(user, (start + n) % 30, 5.0, 100 * user + n) for user, start in enumerate(starts) for n in range(12)]
    )
    best = Reranker(Blend({"popularity": Popularity()}), depth=18).fit(train).recommend(train.user_ids, k=1)
    assert (((best["item_id"] - starts - 11) % 30) <= 3).mean() > 0.9  # three were held out to learn from


def test_a_reranker_is_judged_by_what_others_taught(known, tables):
    """Scores of users whose own relevant items were not used: they were learnt from other users alone."""
    blend = Blend(two_models()).fit(known, items=tables[1])
    model, (held_out,) = Reranker(blend, depth=20, trees=5), blend.held_out(known)
    (scores,) = model.learnt_by_others([held_out], tables[1])
    assert np.isfinite(scores).all()
    own = np.random.default_rng(0).permutation(len(scores)) % 3 == 0
    relevant = held_out.relevant.toarray()
    changed = replace(held_out, relevant=csr_matrix(np.where(own[:, None], relevant[:, ::-1], relevant)))
    (again,) = model.learnt_by_others([changed], tables[1])
    np.testing.assert_array_equal(again[own], scores[own])
    assert (again[~own] != scores[~own]).any()
    twice = model.learnt_by_others([held_out, changed], tables[1])  # a user is in one group in all parts
    np.testing.assert_array_equal(twice[1][own], twice[0][own])


def test_trees_say_what_lightgbm_says():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3000, 4)).astype(np.float32)
    labels = (features[:, 0] * features[:, 1] > 0) & (features[:, 2] < 1)
    table = grow(features, labels, trees=30)
    model = lightgbm.train(PARAMS, lightgbm.Dataset(features, labels.astype(np.float32)), 30)
    others = rng.normal(size=(5000, 4)).astype(np.float32)
    np.testing.assert_allclose(tree_scores(table, others), model.predict(others, raw_score=True), rtol=1e-9, atol=1e-9)
    assert ((tree_scores(table, features) > 0) == labels).mean() > 0.9
    for nothing in (grow(features, labels | True), grow(features, labels & False), grow(features, labels, trees=0)):
        assert not tree_scores(nothing, features).any()


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (Blend, "Blend needs models"),
        (Reranker, "Reranker needs a blend"),
        (lambda: Blend({"ease": EASE()}, weights={"als": 1}), "no model 'als' in this blend; its models are ease"),
        (lambda: Blend(holdout="last"), "holdout is 'last'; it must be 'recent', 'random' or 'later'"),
        (lambda: Blend(holdout="recent", share=0.2, folds=2), "folds is 2; with holdout='recent' and a share of"),
        (lambda: Blend(holdout="random", share=0.2, folds=6), "folds is 6; with holdout='random' and a share of"),
        (lambda: Blend(holdout="random", share=0.2, folds=0), "folds is 0; with holdout='random' and a share of"),
        (lambda: EASE(regularization=0), "it must be above 0"),
        (lambda: ItemKNN(weighting="idf"), "it must be one of cosine, tfidf, bm25"),
        (lambda: Popularity(kind="best"), "it must be one of count, sum, mean, decayed, recent"),
        (GenrePopularity, "needs genres, and no item has one"),
        (AttributeKNN, "needs genres, and no item has one"),
    ],
)
def test_what_a_model_lacks_is_named(known, build, says):
    with pytest.raises(ValueError, match=says):
        build().fit(known)


# ---- of all models -----------------------------------------------------------------------------------------------


def test_als_is_the_same_with_one_or_two_threads_and_answers_two_at_once(known):
    one, two = (ALS(factors=16, threads=threads).fit(known) for threads in (1, 2))
    np.testing.assert_array_equal(one.item_factors_, two.item_factors_)
    expected = one.recommend(known.user_ids)
    with ThreadPoolExecutor(2) as pool:
        assert all(lists.equals(expected) for lists in pool.map(two.recommend, [known.user_ids] * 2))


def test_a_bare_matrix_has_no_time(known):
    bare = ItemKNN(half_life=2).fit(known).score(known.matrix)
    np.testing.assert_allclose(bare, ItemKNN().fit(known).score(Histories(known.matrix)), rtol=1e-5)


@pytest.mark.parametrize("kind", [ALS, BPR, EASE, ItemKNN])
def test_liking_starts_where_the_scale_says(tables, kind):
    ratings = tables[0].assign(rating=tables[0]["rating"] * 2)  # 2 to 10
    users, small = ratings["user_id"].unique()[:5], {"factors": 4} if kind in (ALS, BPR) else {}
    by_scale, given = (kind(**small, **more).fit(ratings) for more in ({}, {"positive_from": 8.0}))
    pd.testing.assert_frame_equal(by_scale.recommend(users, 5), given.recommend(users, 5))
    lower = kind(**small, positive_from=4.0).fit(ratings).recommend(users, 5)
    assert not by_scale.recommend(users, 5)["score"].equals(lower["score"])


def test_counts_are_no_scale(tables):
    counts = Interactions.from_frame(tables[0].assign(rating=np.arange(len(tables[0])) + 1.0))
    assert confidence(counts.rows([0, 1]), counts, low_weight=0.0).data.tolist() == [1.0] * int(counts.matrix[:2].nnz)
