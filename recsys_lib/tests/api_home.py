"""A small run for the tests of the service: tables, models, a registry with a champion, in a home of their own."""

from types import SimpleNamespace

import pandas as pd

from recsys_lib import splits
from recsys_lib.data.interactions import Interactions
from recsys_lib.files import read_json
from recsys_lib.models import EASE, Popularity
from recsys_lib.paths import Paths
from recsys_lib.run import artifacts, registry
from recsys_lib.tests.demo_home import make_run
from recsys_lib.tests.made import made_tables


def with_registry(name: str = "made") -> Paths:
    """The run of the demo's tests, with two registered models: EASE is the champion, popularity is not."""
    paths = make_run(name)
    for model in ("popularity", "ease"):
        enter(paths, model)
    registry.promote(paths, "ease")
    return paths


def enter(paths: Paths, model: str) -> registry.Version:
    """Register what is saved under this name, as 07_evaluation does."""
    board = read_json(paths.metrics / "leaderboard.json")
    board["protocol"] = {"fingerprint": "made", "ranked_by": "ndcg@10"}
    evaluation = SimpleNamespace(per_user=pd.DataFrame({"user_id": [1], "ndcg@10": [0.1]}))
    return registry.register(paths, model, evaluation, board)


def fit_again(paths: Paths, model: str, regularization: float) -> registry.Version:
    """Fit and register another EASE."""
    prepared = artifacts.read_prepared(paths)
    fitted = EASE(regularization=regularization).fit(Interactions.from_frame(prepared.split.history))
    artifacts.save_model(paths, model, fitted, prepared)
    return enter(paths, model)


def only_pairs(name: str = "pairs") -> Paths:
    """A run of pairs of texts: no ratings, no times, no genres, no facts; the ids are as awkward as ids may be."""
    interactions, _, _ = made_tables(n_users=40, n_items=30)
    users = interactions["user_id"].map(lambda user: f"u/{user} ä?&#%2F")
    films = interactions["item_id"].map(lambda item: f"film {item}/😀")
    table = pd.DataFrame({"user_id": users, "item_id": films, "rating": 1.0}).astype({"rating": "float32"})
    ids = sorted(table["item_id"].unique())
    items = pd.DataFrame(
        {"item_id": ids, "title": ids, "year": pd.array([None] * len(ids), dtype="Int16"), "genres": [[] for _ in ids]}
    )
    paths, split = Paths(name), splits.random(table, seed=0)
    data = {"name": name, "sha256": "1" * 64, "rating_scale": None, "source": "made"}
    people = pd.DataFrame({"user_id": sorted(table["user_id"].unique())})
    artifacts.write_prepared(paths, split, items, people, data=data, relevant_from=0.0)
    prepared = artifacts.read_prepared(paths)
    for model_name, model in {"popularity": Popularity(), "ease": EASE()}.items():
        artifacts.save_model(paths, model_name, model.fit(Interactions.from_frame(split.history)), prepared)
    return paths
