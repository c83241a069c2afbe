"""Searches: resumable, repeatable, and blind to the test part."""

import numpy as np
import optuna
import pytest
import yaml

from recsys_lib import splits
from recsys_lib.run.tuning import SPACES, Tuner, chosen, main
from recsys_lib.tests.made import prepare

optuna.logging.set_verbosity(optuna.logging.WARNING)


def keys(frame):
    return set(zip(frame["user_id"], frame["item_id"], strict=True))


@pytest.mark.parametrize("make", [splits.temporal_user, splits.temporal_global, splits.random])
def test_validation_holds_out_as_much_as_the_test_and_never_the_test(tables, make):
    split = make(tables[0])
    again = splits.held_out_split(split)
    assert keys(again.train) | keys(again.test) == keys(split.history)
    assert not keys(again.test) & keys(split.test)
    assert len(again.test) / len(split.history) == pytest.approx(0.25, abs=0.02)
    assert len(again.valid) == 0


def test_splits_of_their_own_kind_are_judged_on_validation(tables):
    split = splits.leave_one_out(tables[0])
    assert keys(splits.held_out_split(split).test) == keys(split.valid)


def test_a_search_stops_at_its_budget_and_goes_on_later(split, tables, tmp_path):
    def search(trials):
        tuner = Tuner(split, tables[1], storage=f"sqlite:///{tmp_path / 'tuning.db'}", identity="made")
        return tuner.search("ease", trials)

    assert len(search(3).trials) == 3
    more = search(5)
    assert len(more.trials) == 5
    assert len(search(4).trials) == 5
    assert more.best_value == max(trial.value for trial in more.trials)


def test_a_search_never_sees_the_test_part(split, tables):
    """Another test part, the same search."""
    other = splits.Split(
        split.train, split.valid, split.test.sample(frac=0.3, random_state=1), "temporal_user", split.params
    )
    values = [[t.value for t in Tuner(s, tables[1]).search("item_knn", 4).trials] for s in (split, other)]
    assert values[0] == values[1]


@pytest.mark.parametrize("name", list(SPACES))
def test_every_model_can_be_searched(split, tables, name):
    study = Tuner(split, tables[1]).search(name, 1)
    assert np.isfinite(study.best_value)
    assert study.best_trial.user_attrs["params"]


def test_models_that_the_data_has_nothing_for_are_left_out(tables):
    split = splits.random(tables[0].drop(columns="timestamp"))
    items = tables[1].assign(genres=[[] for _ in range(len(tables[1]))])
    assert Tuner(split, items).possible() == ["als", "bpr", "item_knn", "ease"]


def test_histories_with_an_order_alone_are_searched_by_direction(tables):
    rows = tables[0].assign(position=tables[0].groupby("user_id")["timestamp"].rank(method="first").astype(int))
    rows = rows.drop(columns=["timestamp", "rating"])
    items = tables[1].assign(genres=[[f"brand {place % 70}", "all"] for place in range(len(tables[1]))])
    tuner = Tuner(splits.leave_one_out(rows), items, fixed={"attributes": {"shrinkage": 1.0}})
    assert tuner.possible() == ["als", "als_recent", "bpr", "item_knn", "sequence_knn", "attributes", "ease"]
    studies = {name: tuner.search(name, 2) for name in ("sequence_knn", "attributes")}
    section = chosen(studies)["05_item_models"]
    assert {"decay", "backward", "power", "next_power", "half_life"} <= set(section["sequence_knn"])
    assert set(section["attributes"]) == {"weighting", "neighbours", "half_life", "low_weight", "shrinkage"}


def test_the_choice_is_written_beside_what_others_wrote_with_a_plot_of_what_mattered(tables, lab_home):
    paths, file = prepare(tables).paths, lab_home / "made.yaml"
    file.write_text("06_neural_hybrid: {epochs: 3}\n05_item_models: {depth: 9, ease: {regularization: 1}}\n")
    main(["made", "--trials", "5", "--models", "als", "ease", "--params", str(file)])
    searches = optuna.get_all_study_summaries(f"sqlite:///{paths.outputs / 'tuning.db'}")
    best = {search.study_name.split("-")[0]: search.best_trial.user_attrs["params"] for search in searches}
    content = yaml.safe_load(file.read_text())
    assert content["06_neural_hybrid"] == {"epochs": 3}
    assert content["05_item_models"]["depth"] == 9
    assert content["05_item_models"]["ease"] == best["ease"]
    assert content["04_als"]["factors"] == best["als"]["factors"]
    assert content["04_als"]["trials"] == 5
    assert sorted(file.name for file in paths.figures.iterdir()) == ["tuning_als.png", "tuning_ease.png"]
