"""Variety in a list, and what it costs."""

import numpy as np
import pytest

from recsys_lib.models import EASE, load_model
from recsys_lib.models.lists import calibrate, mmr


@pytest.fixture(scope="module")
def model(known, tables):
    return EASE(regularization=20).fit(known, items=tables[1])


def test_no_variety_asked_for_changes_nothing(model, known):
    plain = model.recommend(known.user_ids, k=5)
    assert plain.equals(model.recommend(known.user_ids, k=5, diversity=0.0, diversify="calibration"))


def test_mmr_lists_are_less_alike_and_cost_score(model, known):
    def likeness(lists):
        vectors = known.audience[known.item_codes(lists["item_id"])].reshape(-1, 5, known.audience.shape[1])
        return np.mean([v @ v.T for v in vectors])

    plain, varied = model.recommend(known.user_ids, k=5), model.recommend(known.user_ids, k=5, diversity=0.6)
    assert likeness(varied) < likeness(plain) - 0.05
    assert varied["score"].mean() < plain["score"].mean()
    assert (varied.groupby("user_id")["item_id"].nunique() == 5).all()
    assert varied.loc[varied["rank"] == 1, "item_id"].tolist() == plain.loc[plain["rank"] == 1, "item_id"].tolist()


def test_calibrated_lists_have_the_genres_of_the_history(model, known, tmp_path):
    model = load_model(model.save(tmp_path / "model"))
    shares = model.genres / model.genres.sum(axis=1, keepdims=True)
    target = known.matrix.astype(bool) @ shares
    target /= target.sum(axis=1, keepdims=True)

    def gap(**given):
        lists = model.recommend(known.user_ids, k=8, **given)
        shown = shares[known.item_codes(lists["item_id"])].reshape(known.n_users, 8, -1).mean(axis=1)
        return np.abs(shown - target).sum(axis=1).mean()

    assert gap(diversity=0.7, diversify="calibration") < 0.8 * gap()


def test_rows_that_end_early_and_ties():
    scores = np.array([[2.0, 1.0, np.nan, np.nan], [1.0, 1.0, 1.0, 1.0]])
    vectors = np.tile(np.eye(4)[None], (2, 1, 1))
    assert mmr(scores, vectors, 3, 0.5).tolist() == [[0, 1, -1], [0, 1, 2]]
    assert calibrate(scores, vectors, np.full((2, 4), 0.25), 3, 0.5).tolist() == [[0, 1, -1], [0, 1, 2]]


def test_newcomers_and_bad_input(model, known):
    assert len(model.recommend_new([1, 2], k=4, diversity=0.5)) == 4
    with pytest.raises(ValueError, match="it must be 'mmr' or 'calibration'"):
        model.recommend([1], diversify="random")
    with pytest.raises(ValueError, match="it must be from 0"):
        model.recommend([1], diversity=2)
    with pytest.raises(ValueError, match="calibration needs genres"):
        EASE().fit(known).recommend([1], diversity=0.5, diversify="calibration")
