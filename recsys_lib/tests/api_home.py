"""Small runs for the tests of the service: tables, models and a champion, in a home of their own."""

import shutil
import socket

import httpx
import pandas as pd

from recsys_lib import splits
from recsys_lib.benchmarks.demo import Server
from recsys_lib.files import write_json
from recsys_lib.models import EASE, Popularity
from recsys_lib.run.run import Run
from recsys_lib.tests.demo_home import make_run
from recsys_lib.tests.made import made_tables


def with_champion() -> Run:
    """The run of the application's tests; EASE is the champion."""
    make_run("made")
    crown(Run("made"), "ease", "1")
    return Run("made")


def crown(run: Run, model: str, version: str) -> None:
    """Make champion what is saved under this name, as 07_evaluation leaves it behind."""
    folder = run.paths.outputs / "registry" / model / version
    shutil.copytree(run.paths.models / model, folder, dirs_exist_ok=True)
    record = {"model": model, "version": version, "folder": folder.relative_to(run.paths.outputs).as_posix()}
    write_json(run.paths.outputs / "champion.json", record)


def only_pairs() -> None:
    """A run of pairs of texts: no ratings, no times, no genres, no facts; the ids are as awkward as ids may be."""
    interactions, _, _ = made_tables(n_users=40, n_items=30)
    users = interactions["user_id"].map(lambda user: f"u/{user} ä?&#%2F" if user > 1 else "1")
    films = interactions["item_id"].map(lambda item: f"film {item}/😀" if item > 1 else "1")
    table = pd.DataFrame({"user_id": users, "item_id": films, "rating": 1.0}).astype({"rating": "float32"})
    items = pd.DataFrame({"item_id": sorted(set(films))}).assign(year=pd.NA).astype({"year": "Int16"})
    items = items.assign(title=items["item_id"], genres=[[] for _ in items.index])
    run = Run("pairs")
    data = {"name": "pairs", "sha256": "1" * 64, "rating_scale": None, "source": "made"}
    users = pd.DataFrame({"user_id": sorted(set(users))})
    run.write_tables(splits.random(table, seed=0), items, users, data=data, relevant_from=0.0)
    for name, model in {"popularity": Popularity(), "ease": EASE()}.items():
        run.save_model(name, model.fit(run.known))
    crown(run, "ease", "1")


def connect(server: Server) -> socket.socket:
    """A connection to a server."""
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)))


def is_problem(answer: httpx.Response, status: int, kind: str = "") -> dict:
    """Check the form of a problem and give its members."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert content["status"] == status
    assert content["request_id"] == answer.headers["x-request-id"]
    assert content["title"] and content["detail"]
    assert content["type"] == (f"urn:recsys-lab:problem:{kind}" if kind else "about:blank")
    return content
