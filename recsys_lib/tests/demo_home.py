"""A small run for the tests of the application: made tables, four fitted models and a leaderboard."""

import explored
import numpy as np

from recsys_lib import splits
from recsys_lib.files import write_json, write_parquet
from recsys_lib.models import EASE, Blend, ItemKNN, Popularity
from recsys_lib.run.run import Run
from recsys_lib.tests.made import made_tables

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    '"><svg onload="window.hacked = 3">',
    "{{ 7 * 7 }} & 'quotes' \"double\"",
]


def make_run(name: str = "made", *, hostile: bool = True) -> Run:
    """Write tables, models and a leaderboard below the current home; the best known films have hostile titles."""
    interactions, items, users = made_tables()
    titles = items["title"].tolist()
    titles[4] = "Usual Suspects, The"
    if hostile:
        titles[: len(HOSTILE)] = HOSTILE
        users.loc[:, "occupation"] = "<b>writer</b>"
    run, split = Run(name), splits.temporal_user(interactions)
    run.paths.logs.mkdir(parents=True, exist_ok=True)
    data = {"name": name, "sha256": "0" * 64, "rating_scale": [1, 5], "source": "made"}
    run.write_tables(split, items.assign(title=titles), users, data=data, relevant_from=4.0)
    parts = {"ease": EASE(), "item_knn": ItemKNN()}
    models = {"popularity": Popularity(), **parts, "blend": Blend(parts, weights={"ease": 1.0, "item_knn": 1.0})}
    board, per_user = [], {}
    for place, (model_name, model) in enumerate(models.items()):
        run.save_model(model_name, model.fit(run.known, items=items, users=users), fit_seconds=0.5)
        board.append(_entry(model_name, 0.1 * (1 + place)))
        scores = np.random.default_rng(place).normal(0.1 * (1 + place), 0.1, run.known.n_users)
        table = run.tables.users[["user_id"]].assign(**{"ndcg@10": scores, "rmse": 1 - scores})
        write_parquet(run.paths.metrics / "per_user" / f"{model_name}.parquet", table)
        per_user[model_name] = table
    protocol = {"split": {"name": split.name, "params": split.params}}
    leaderboard = {"protocol": protocol, "data": data, "models": board[::-1]}
    write_json(run.paths.metrics / "leaderboard.json", leaderboard)
    tables = Run(name).tables_with_test("made")
    facts = explored.facts(per_user, tables, explored.liked_later(models, tables))
    write_json(run.paths.metrics / "explored.json", facts)
    return run


def _entry(name: str, mean: float) -> dict:
    value = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02, "n_users": 120}
    rmse = {"mean": 1 - mean, "low": 0.9 - mean, "high": np.nextafter(1 - mean, 2), "n_users": 120}
    return {"name": name, "params": {}, "metrics": {"ndcg@10": value, "rmse": rmse}, "fit_seconds": 0.5}
