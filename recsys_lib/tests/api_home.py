"""Small runs for the tests of the service: tables, models and a champion, in a home of their own."""

import shutil

import pandas as pd

from recsys_lib import splits
from recsys_lib.files import write_json
from recsys_lib.models import EASE, Popularity
from recsys_lib.run.run import Run
from recsys_lib.tests.demo_home import make_run
from recsys_lib.tests.made import made_tables


def with_champion(name: str = "made") -> Run:
    """The run of the application's tests; EASE is the champion."""
    make_run(name)
    crown(Run(name), "ease", "1")
    return Run(name)


def crown(run: Run, model: str, version: str) -> None:
    """Make champion what is saved under this name, as 07_evaluation leaves it behind."""
    folder = run.paths.outputs / "registry" / model / version
    shutil.copytree(run.paths.models / model, folder, dirs_exist_ok=True)
    record = {"model": model, "version": version, "folder": folder.relative_to(run.paths.outputs).as_posix()}
    write_json(run.paths.outputs / "champion.json", record)


def fit_again(run: Run, model: str, regularization: float) -> None:
    """Fit and save another EASE under this name."""
    run.save_model(model, EASE(regularization=regularization).fit(run.known))


def only_pairs(name: str = "pairs") -> Run:
    """A run of pairs of texts: no ratings, no times, no genres, no facts; the ids are as awkward as ids may be."""
    interactions, _, _ = made_tables(n_users=40, n_items=30)
    users = interactions["user_id"].map(lambda user: f"u/{user} ä?&#%2F" if user > 1 else "1")
    films = interactions["item_id"].map(lambda item: f"film {item}/😀" if item > 1 else "1")
    table = pd.DataFrame({"user_id": users, "item_id": films, "rating": 1.0}).astype({"rating": "float32"})
    ids = sorted(table["item_id"].unique())
    items = pd.DataFrame(
        {"item_id": ids, "title": ids, "year": pd.array([None] * len(ids), dtype="Int16"), "genres": [[] for _ in ids]}
    )
    run = Run(name)
    data = {"name": name, "sha256": "1" * 64, "rating_scale": None, "source": "made"}
    users = pd.DataFrame({"user_id": sorted(table["user_id"].unique())})
    run.write_tables(splits.random(table, seed=0), items, users, data=data, relevant_from=0.0)
    for model_name, model in {"popularity": Popularity(), "ease": EASE()}.items():
        run.save_model(model_name, model.fit(run.known))
    crown(run, "ease", "1")
    return run
