"""Results on disk, computed again from the lists; kinds of people and films; sentences."""

import findings
import numpy as np
import pandas as pd
import pytest
import served_worst

from recsys_lib import splits
from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.evaluation import inference, segments
from recsys_lib.evaluation.task import Task, against, compare, evaluate
from recsys_lib.files import read_json, write_json, write_parquet
from recsys_lib.models import ALS, EASE, Popularity
from recsys_lib.run import results
from recsys_lib.run.run import OtherDataError
from recsys_lib.run.training import Training
from recsys_lib.tests.made import prepare

KS = (5, 10)


@pytest.fixture(scope="module")
def prepared(tables, module_home):
    """Made data, prepared and with two models' results."""
    run = prepare(tables)
    return run, run.tables_with_test("the tests")


@pytest.fixture(scope="module")
def evaluations(models, task):
    return {name: evaluate(model, task, KS, resamples=200, seed=3) for name, model in models.items()}


@pytest.fixture(scope="module")
def written(prepared, evaluations, task):
    run, data = prepared
    board = compare(evaluations, resamples=200, seed=3)
    content = results.leaderboard(evaluations, board, results.describe_data(data, task), {"ease": {"fit_seconds": 1.5}})
    content["protocol"] |= {"bootstrap": {"resamples": 200, "seed": 3}}
    results.write_results(run, evaluations, content)
    return content


def named(content, name):
    return next(model for model in content["models"] if model["name"] == name)


def test_leaderboard_on_disk(prepared, written, evaluations):
    stored = read_json(prepared[0].paths.metrics / "leaderboard.json")
    assert set(stored) == {"protocol", "data", "models"}
    means = [model["metrics"]["ndcg@10"]["mean"] for model in stored["models"]]
    assert means == sorted(means, reverse=True)
    first = named(stored, "ease")
    assert first["fit_seconds"] == 1.5
    assert set(first["metrics"]["ndcg@10"]) == {"mean", "low", "high", "n_users"}
    assert first["metrics"]["ndcg@10"]["mean"] == pytest.approx(evaluations["ease"].means["ndcg@10"])
    assert stored["data"]["n_users"] == 120
    table = pd.read_parquet(prepared[0].paths.metrics / "per_user" / "ease.parquet")
    assert table.columns[0] == "user_id"
    assert table["ndcg@10"].mean() == pytest.approx(first["metrics"]["ndcg@10"]["mean"])


def test_the_lists_alone_give_the_leaderboard(prepared, written):
    again, _ = results.recompute(prepared[0])
    assert results.largest_change(written, again) < 1e-9
    assert [m["name"] for m in again["models"]] == [m["name"] for m in written["models"]]
    assert named(again, "ease")["fit_seconds"] == 1.5
    assert results.main([prepared[0].dataset, "--check"]) == 0


@pytest.mark.filterwarnings("ignore:All-NaN slice", "ignore:Mean of empty slice")  # of one person, not all is defined
def test_a_list_keeps_what_stands_below_it_and_what_cannot_be_listed():
    """Films that nobody had rated before, predicted ratings, and text ids survive the way to the disk and back."""
    rows = [("a", x, 5.0, day) for day, x in enumerate("qrstuvwxyz")]
    rows += [("b", x, 4.0 - (x == "r"), day) for day, x in enumerate("rstuvwq")]
    rows += [("c", x, 5.0, day) for day, x in enumerate("zyxr")]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"]).astype({"rating": np.float32})
    later = pd.DataFrame([("a", "new", 5.0, 99), ("b", "z", 1.0, 99)], columns=frame.columns).astype(
        {"rating": np.float32}
    )
    split = splits.temporal_user(pd.concat([frame, later]))
    task = Task.from_split(split)
    model = EASE(regularization=1).fit(task.known)
    model.predicts_ratings, model.predict = True, lambda users, items, when: np.linspace(1, 5, len(users))
    before = evaluate(model, task, (1, 2), resamples=50)
    table = results.whole_lists(before)
    assert (table["rank"] == 0).sum() == (before.positions["rank"] == 0).sum() > 0
    after = results.evaluation_of(table, task, [1, 2], resamples=50)
    pd.testing.assert_frame_equal(after.per_user, before.per_user)
    pd.testing.assert_frame_equal(after.intervals, before.intervals)
    assert (after.rating, after.overall) == (before.rating, before.overall)


def test_a_list_that_was_changed_is_noticed(prepared, written, capsys):
    path = prepared[0].paths.metrics / "lists" / "ease.parquet"
    lists = pd.read_parquet(path)
    other = lists.copy()
    other["rank"] = other.groupby("user_id")["rank"].transform(lambda rank: rank.max() + 1 - rank)
    write_parquet(path, other)
    assert results.main([prepared[0].dataset, "--check"]) == 1
    write_parquet(path, lists)
    assert results.main([prepared[0].dataset, "--check"]) == 0


@pytest.mark.parametrize(
    ("file", "content", "read", "step"),
    [
        ("metrics/leaderboard.json", {"models": []}, lambda run: run.results, "07"),
        ("champion.json", {"model": "ease", "path": "models/ease"}, lambda run: run.champion, "07"),
        ("models/ease/config.json", {"model": "EASE", "params": {}}, lambda run: run.models["ease"], "05"),
    ],
)
def test_what_an_older_version_left_is_refused_with_the_command_that_makes_it_again(
    tables, lab_home, file, content, read, step
):
    run = prepare(tables)
    write_json(run.paths.outputs / file, content)
    with pytest.raises(OtherDataError, match=rf"another version of the lab wrote it.*make {step} DATASET=made` makes"):
        read(run)


def test_lists_of_another_split_are_refused(prepared, written, tables, capsys):
    run, data = prepared
    facts = {"data": data.manifest["data"], "relevant_from": 4.0}
    run.write_tables(splits.random(tables[0], seed=1), data.items, data.users, **facts)
    assert results.main([run.dataset]) == 1
    assert "another split" in capsys.readouterr().err
    run.write_tables(data.split, data.items, data.users, **facts)
    assert results.main([run.dataset, "--check"]) == 0


def test_without_a_leaderboard_the_step_is_named(lab_home, capsys):
    assert results.main(["nothing-here"]) == 1
    assert "make 07" in capsys.readouterr().err


def test_results_of_models_that_are_gone_go_too(prepared, written, evaluations):
    run = prepared[0]
    write_parquet(run.paths.metrics / "lists" / "gone.parquet", evaluations["ease"].lists)
    results.write_results(run, evaluations, written)
    assert sorted(path.stem for path in (run.paths.metrics / "lists").glob("*")) == ["ease", "popularity"]


def test_segments_divide_everybody_and_recover_the_mean(prepared, task, evaluations):
    kinds = segments.user_groups(task, prepared[1].users)
    assert {"activity", "taste", "genre", "age", "gender"} <= set(kinds.columns)
    table = segments.by_user(evaluations, kinds)
    own = table[(table["model"] == "ease") & (table["segment"] == "activity")]
    assert own["n_users"].sum() == len(task.users)
    weighted = (own["mean"] * own["n_users"]).sum() / own["n_users"].sum()
    assert weighted == pytest.approx(evaluations["ease"].means["ndcg@10"])


def test_recall_by_kind_of_film(task, evaluations):
    kinds = segments.item_groups(task)
    everything = kinds.assign(known=pd.Categorical(["all"] * len(kinds)))[["item_id", "known"]]
    table = segments.by_item(evaluations, task, everything)
    own = table[table["model"] == "ease"].iloc[0]
    assert own["mean"] == pytest.approx(evaluations["ease"].means["recall@10"])


def test_shortened_histories_keep_the_latest():
    frame = pd.DataFrame({"user_id": 1, "item_id": [1, 2, 3, 4], "rating": 3.0, "timestamp": [40, 10, 30, 20]})
    known = Interactions.from_frame(frame)
    cut = known.rows(np.array([0, -1])).first(2)
    assert known.item_ids[cut.matrix.indices].tolist() == [1, 3]
    assert cut.timestamps.tolist() == [40, 30]
    assert isinstance(cut, Histories)


def test_baselines_are_ratios_of_means(evaluations):
    table = against(evaluations, ["popularity", "not there"], resamples=100)
    means = {name: result.means["ndcg@10"] for name, result in evaluations.items()}
    row = table.iloc[0]
    assert table[["model", "baseline"]].to_numpy().tolist() == [["ease", "popularity"]]
    assert row["ratio"] == pytest.approx(means["ease"] / means["popularity"])
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    assert row["p_holm"] == row["p_permutation"]
    assert "`ease`" in findings.baselines(table.assign(distinct=True, ratio=1.5))
    assert "none" in findings.baselines(table.assign(distinct=False))
    assert "x (" in findings.beside(table).to_html()
    assert "None of" in findings.baselines(against(evaluations, []))


def test_worst_served_people_have_the_lowest_values(prepared, task, evaluations):
    worst = served_worst.served_worst(evaluations["ease"], task, n=3, least=1)
    values = evaluations["ease"].per_user["ndcg@10"]
    assert worst["ndcg@10"].max() <= values.sort_values().iloc[2] + 1e-12
    assert (worst["why"].str.len() > 0).all()
    titles = prepared[1].items.set_index("item_id")["title"]
    assert served_worst.with_titles(worst, evaluations["ease"], task, titles)["listed"].str.startswith("Film ").all()


def test_reliability_of_perfect_predictions_lies_on_the_diagonal():
    ratings = np.repeat([1.0, 2.0, 3.0, 4.0, 5.0], 40)
    table = segments.reliability(pd.DataFrame({"predicted": ratings, "rating": ratings}))
    np.testing.assert_allclose(table["predicted"], table["rating"])
    assert table["rows"].tolist() == [20] * 10


def test_what_training_saw_is_held_against_the_test_part(prepared, evaluations, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    training = Training(prepared[0], "05_made")
    for name, model in {"popularity": Popularity(), "ease": EASE(regularization=20), "als": ALS(factors=4)}.items():
        training.keep(name, model)
    training.report()
    before = results.validation_means(prepared[0])
    assert set(before) == {"popularity", "ease", "als"}
    assert all(0 < value < 1 for value in before.values())
    board = compare({**evaluations, "als": evaluations["popularity"]}, resamples=50, seed=3)
    assert findings.validation_agrees(board, before).startswith("Of 3 models with a value on validation")
    assert findings.validation_agrees(board, {}).startswith("Fewer than three")


def test_sentences_are_made_from_the_results(prepared, task, evaluations):
    board = compare(evaluations, resamples=200)
    assert f"{len(task.users):,} users" in findings.protocol(task, list(KS))
    assert f"`{board['model'].iloc[1]}`" in findings.power(board)
    assert "Nothing is better" in findings.trade_off(board, {"coverage@10": "coverage"})
    assert "2 models were compared" in findings.threats(task, prepared[1], board)
    assert "numpy" in findings.footer(prepared[0], prepared[1], {}, 0)
    assert findings.seeds({}, {}).startswith("No model")
    assert findings.reliable(evaluations, {}) == "No model here predicts ratings."
    assert findings.seeds({"als": inference.seed_variance(np.random.default_rng(0).random((9, 3)))}, {"net": 9.0})


def test_errors_by_kind_cover_every_row_once(task):
    test = task.test[["user_id", "item_id", "rating"]]
    frame = test.assign(error=np.where(test["item_id"] % 2 == 0, 1.0, -1.0))
    table = segments.errors_by_kind(frame, task)
    assert table.groupby("of")["rows"].sum().tolist() == [len(test), len(test)]
    assert (table["rmse"] == 1.0).all()
    assert table.loc[table["of"] == "item", "group"].tolist()[-1] in ("10-49", "50 and more")
