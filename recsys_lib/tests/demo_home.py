"""A small run for the tests of the demo: made tables, two fitted models and a leaderboard, in a home of their own."""

import numpy as np

from recsys_lib import splits
from recsys_lib.data.interactions import Interactions
from recsys_lib.files import write_json
from recsys_lib.models import EASE, ItemKNN, Popularity
from recsys_lib.paths import Paths
from recsys_lib.run import artifacts
from recsys_lib.tests.made import made_tables

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    '"><svg onload="window.hacked = 3">',
    "{{ 7 * 7 }} & 'quotes' \"double\"",
]


def make_run(name: str = "made", *, hostile: bool = True) -> Paths:
    """Write tables, models and a leaderboard below the current home; the best known films have hostile titles."""
    interactions, items, users = made_tables()
    titles = items["title"].tolist()
    titles[4] = "Usual Suspects, The"
    if hostile:
        titles[: len(HOSTILE)] = HOSTILE
        users.loc[:, "occupation"] = "<b>writer</b>"
    paths, split = Paths(name), splits.temporal_user(interactions)
    paths.logs.mkdir(parents=True, exist_ok=True)
    data = {"name": name, "sha256": "0" * 64, "rating_scale": [1, 5], "source": "made"}
    artifacts.write_prepared(paths, split, items.assign(title=titles), users, data=data, relevant_from=4.0)
    prepared, known = artifacts.read_prepared(paths), Interactions.from_frame(split.history)
    board = []
    fitted = {"popularity": Popularity(), "ease": EASE(), "item_knn": ItemKNN()}
    for place, (model_name, model) in enumerate(fitted.items()):
        artifacts.save_model(paths, model_name, model.fit(known, items=items, users=users), prepared, fit_seconds=0.5)
        board.append(_entry(model_name, 0.1 * (1 + place)))
    protocol = {"split": {"name": split.name, "params": split.params}}
    write_json(paths.metrics / "leaderboard.json", {"protocol": protocol, "data": data, "models": board})
    return paths


def _entry(name: str, mean: float) -> dict:
    value = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02, "n_users": 120}
    rmse = {"mean": 1 - mean, "low": 0.9 - mean, "high": np.nextafter(1 - mean, 2), "n_users": 120}
    return {"name": name, "params": {}, "metrics": {"ndcg@10": value, "rmse": rmse}, "fit_seconds": 0.5}
