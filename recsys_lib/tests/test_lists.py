"""Lists from scores: against sorting everything, diverse, and with twins: items of one title and year under two ids."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_lib.models import EASE, ItemKNN, Popularity, load_model
from recsys_lib.models.lists import calibrate, merge_twins, mmr, top_k


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 30), st.integers(1, 35), st.integers(0, 10_000), st.integers(1, 5), st.booleans()
)
def test_top_k_is_a_stable_sort(n_rows, n_items, k, seed, levels, with_twins):
    """Few levels make many ties, which must go to the lower column; of twins one is listed, and none of a seen one."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (n_rows, n_items)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = np.nan
    seen, group = csr_matrix(rng.random(scores.shape) < 0.3), rng.integers(0, n_items, n_items)
    twins = np.array([np.flatnonzero(group == number)[0] for number in group]) if with_twins else np.arange(n_items)
    before = scores.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys_lib.models.lists.SCORES_PER_BLOCK", 60)  # some tables are searched in several blocks
        codes, best = top_k(scores, k, exclude=seen, twins=twins if with_twins else None)
    np.testing.assert_array_equal(scores, before)
    assert codes.shape == best.shape == (n_rows, min(k, n_items))
    for row in range(n_rows):
        expected, taken = [], set(twins[seen[row].indices])
        scored = np.flatnonzero(~np.isnan(scores[row])).tolist()
        for item in sorted(scored, key=lambda item: (-scores[row, item], item)):
            if twins[item] not in taken:
                taken.add(twins[item])
                expected.append(item)
        listed = codes[row][codes[row] >= 0]
        assert listed.tolist() == expected[:k]
        np.testing.assert_array_equal(best[row, : len(listed)], scores[row, listed])
        assert np.isnan(best[row, len(listed) :]).all()


def test_stored_zeros_are_excluded_too_and_a_list_has_at_least_one_place():
    seen = csr_matrix((np.zeros(1), ([0], [1])), shape=(1, 3))
    assert top_k(np.array([[1.0, 9.0, 2.0]]), 3, exclude=seen)[0].tolist() == [[2, 0, -1]]
    assert np.isnan(merge_twins(np.array([[1.0, 9.0, 2.0]]), np.array([0, 1, 1]), seen)[0, 1:]).all()
    with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
        top_k(np.ones((1, 2)), 0)


# ---- diversity ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(known, tables):
    return EASE(regularization=20).fit(known, items=tables[1])


def test_mmr_lists_are_less_alike_and_cost_score(model, known):
    def likeness(lists):
        vectors = known.audience[known.item_codes(lists["item_id"])].reshape(-1, 5, known.audience.shape[1])
        return np.mean([v @ v.T for v in vectors])

    plain, varied = model.recommend(known.user_ids, k=5), model.recommend(known.user_ids, k=5, diversity=0.6)
    assert likeness(varied) < likeness(plain) - 0.05
    assert varied["score"].mean() < plain["score"].mean()
    assert varied.loc[varied["rank"] == 1, "item_id"].tolist() == plain.loc[plain["rank"] == 1, "item_id"].tolist()
    assert plain.equals(model.recommend(known.user_ids, k=5, diversity=0.0, diversify="calibration"))


@pytest.mark.parametrize("diversify", ["mmr", "calibration"])
@pytest.mark.parametrize("diversity", [0.5, 1.0])
def test_diverse_lists_are_whole_and_name_nothing_twice(model, known, diversify, diversity):
    lists = model.recommend(known.user_ids, k=8, diversity=diversity, diversify=diversify)
    assert (lists.groupby("user_id").size() == 8).all()
    assert not lists.duplicated(["user_id", "item_id"]).any()
    few = known.item_ids[:12]
    some = model.recommend(known.user_ids, k=8, diversity=diversity, diversify=diversify, candidates=few)
    plain = model.recommend(known.user_ids, k=8, candidates=few)
    assert some.groupby("user_id").size().equals(plain.groupby("user_id").size())
    assert len(model.recommend_new([1, 2], k=4, diversity=diversity, diversify=diversify)) == 4


def test_calibrated_lists_have_the_genres_of_the_history(model, known, tmp_path):
    model = load_model(model.save(tmp_path / "model"))
    shares = model.genres / model.genres.sum(axis=1, keepdims=True)
    target = known.matrix.astype(bool) @ shares
    target /= target.sum(axis=1, keepdims=True)

    def gap(**how):
        lists = model.recommend(known.user_ids, k=8, **how)
        shown = shares[known.item_codes(lists["item_id"])].reshape(known.n_users, 8, -1).mean(axis=1)
        return np.abs(shown - target).sum(axis=1).mean()

    assert gap(diversity=1, diversify="calibration") < gap(diversity=0.7, diversify="calibration") < 0.8 * gap()


@pytest.mark.parametrize("diversity", [0.5, 1.0])
def test_rows_that_end_early_and_ties(diversity):
    scores = np.array([[2.0, 1.0, np.nan, np.nan], [1.0, 1.0, 1.0, 1.0]])
    vectors = np.tile(np.eye(4)[None], (2, 1, 1))
    assert mmr(scores, vectors, 3, diversity).tolist() == [[0, 1, -1], [0, 1, 2]]
    assert calibrate(scores, vectors, np.full((2, 4), 0.25), 3, diversity).tolist() == [[0, 1, -1], [0, 1, 2]]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"diversify": "random"}, "it must be 'mmr' or 'calibration'"),
        ({"diversity": 2}, "it must be from 0"),
        ({"diversity": 0.5, "diversify": "calibration"}, "calibration needs genres"),
    ],
)
def test_bad_input(known, how, says):
    with pytest.raises(ValueError, match=says):
        Popularity().fit(known).recommend([1], **how)


# ---- twins -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_twins(known, tables):
    """Items 1 and 2, and 10, 20 and 30, have the same title and year."""
    items = tables[1].copy()
    for ids in ([1, 2], [10, 20, 30]):
        items.loc[items["item_id"].isin(ids), ["title", "year"]] = [f"Twin {ids[0]}", 1999]
    return items


def test_a_list_holds_a_film_once_and_none_that_was_seen_under_another_id(known, with_twins, tmp_path):
    model = load_model(Popularity().fit(known, items=with_twins).save(tmp_path / "model"))
    first = {2: 1, 20: 10, 30: 10}
    lists = model.recommend(known.user_ids, k=known.n_items)
    film = lists["item_id"].replace(first)
    assert not pd.DataFrame({"user_id": lists["user_id"], "film": film}).duplicated().any()
    seen = known.to_frame()[["user_id", "item_id"]].replace({"item_id": first}).rename(columns={"item_id": "film"})
    assert lists.assign(film=film).merge(seen, on=["user_id", "film"]).empty
    whole = model.recommend(known.user_ids, k=known.n_items, merge_twins=False)
    assert len(whole) == known.n_users * known.n_items - known.matrix.nnz
    assert not set(model.recommend_new([20], k=known.n_items)["item_id"]) & {10, 20, 30}
    assert len(set(model.recommend([999], k=known.n_items)["item_id"]) & {10, 20, 30}) == 1
    for twin in (10, 20, 30):
        assert model.recommend([999], candidates=[twin])["item_id"].tolist() == [twin]


def test_similar_items_are_other_films_and_items_without_a_title_have_no_twins(known, with_twins):
    near = ItemKNN(neighbours=80).fit(known, items=with_twins).similar_items([20, 5], k=known.n_items)
    assert not set(near.loc[near["item_id"] == 20, "similar_item_id"]) & {10, 20, 30}
    assert len(set(near.loc[near["item_id"] == 5, "similar_item_id"]) & {10, 20, 30}) == 1
    for items in (with_twins.assign(title=None), with_twins[["item_id"]]):
        assert Popularity().fit(known, items=items).twins is None
