"""Made data with a structure that models can learn: tastes by genre, popularity, time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib import models
from recsys_lib.data.splits import temporal_user
from recsys_lib.models.base import Recommender
from recsys_lib.run.run import Run

GENRES = ["Action", "Comedy", "Drama", "Sci-Fi", "Romance"]
OCCUPATIONS = ["student", "engineer", "writer"]


def made_tables(
    n_users: int = 120, n_items: int = 80, per_user: int = 30, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Interactions, items and users whose ratings follow the tastes that their genres and factors give."""
    rng = np.random.default_rng(seed)
    genres = rng.random((n_items, len(GENRES))) < 0.3
    genres[np.arange(n_items), rng.integers(len(GENRES), size=n_items)] = True
    taste = rng.normal(size=(n_users, len(GENRES)))
    quality = rng.normal(scale=0.5, size=n_items)
    liking = taste @ (genres / genres.sum(axis=1, keepdims=True)).T + quality + 3.6
    popularity = 1 / np.arange(1, n_items + 1) ** 0.7
    rows = []
    for user in range(n_users):
        chance = popularity * np.exp(0.8 * (liking[user] - liking[user].mean()))
        size = int(rng.integers(per_user // 2, per_user + 1))
        chosen = rng.choice(n_items, size=min(size, n_items - 5), replace=False, p=chance / chance.sum())
        ratings = np.clip(np.rint(liking[user, chosen] + rng.normal(scale=0.5, size=len(chosen))), 1, 5)
        when = 880_000_000 + int(rng.integers(10_000_000)) + np.sort(rng.integers(0, 400_000, size=len(chosen)))
        rows.append(pd.DataFrame({"user_id": user + 1, "item_id": chosen + 1, "rating": ratings, "timestamp": when}))
    interactions = pd.concat(rows, ignore_index=True).sample(frac=1, random_state=seed).reset_index(drop=True)
    interactions["rating"] = interactions["rating"].astype(np.float32)
    items = pd.DataFrame(
        {
            "item_id": np.arange(1, n_items + 1),
            "title": [f"Film {i + 1}" for i in range(n_items)],
            "year": pd.array(rng.integers(1930, 1998, size=n_items), dtype="Int16"),
            "genres": [[name for name, has in zip(GENRES, row, strict=True) if has] for row in genres],
        }
    )
    users = pd.DataFrame(
        {
            "user_id": np.arange(1, n_users + 1),
            "age": rng.integers(15, 70, size=n_users),
            "gender": rng.choice(["F", "M"], size=n_users),
            "occupation": rng.choice(OCCUPATIONS, size=n_users),
            "zip_code": [f"{z:05d}" for z in rng.integers(0, 99_999, size=n_users)],
        }
    )
    return interactions, items, users


def write_ml_100k(folder: Path, **sizes: int) -> Path:
    """Write made data in the files of GroupLens's ml-100k: u.data, u.item, u.user, u.genre."""
    interactions, items, users = made_tables(**sizes)
    folder.mkdir(parents=True, exist_ok=True)
    interactions.astype({"rating": int}).to_csv(folder / "u.data", sep="\t", header=False, index=False)
    names = ["unknown", *GENRES]
    (folder / "u.genre").write_text("".join(f"{name}|{code}\n" for code, name in enumerate(names)))
    lines = []
    for item in items.itertuples():
        flags = "|".join(str(int(name in item.genres)) for name in names)
        date = f"01-Jan-{item.year}"
        lines.append(f"{item.item_id}|{item.title} ({item.year})|{date}||http://example.org|{flags}\n")
    (folder / "u.item").write_text("".join(lines), encoding="latin-1")
    users[["user_id", "age", "gender", "occupation", "zip_code"]].to_csv(
        folder / "u.user", sep="|", header=False, index=False
    )
    return folder


def prepare(tables: tuple[pd.DataFrame, ...], name: str = "made") -> Run:
    """Write what 02_preprocessing leaves of these tables below the current home."""
    run, (interactions, items, users) = Run(name), tables
    data = {"name": name, "sha256": "a" * 64, "rating_scale": [1, 5], "source": "the tests"}
    run.write_tables(temporal_user(interactions), items, users, data=data, relevant_from=4.0)
    return run


SMALL = {
    "ALS": {"factors": 4, "iterations": 2},
    "BPR": {"factors": 4, "iterations": 2},
    "NeuralHybrid": {"embedding_dim": 4, "hidden": (4,), "epochs": 1},
    "NeuralRanker": {"embedding_dim": 4, "hidden": 4, "epochs": 1},
    "CausalTransformer": {"embedding_dim": 4, "epochs": 1},
}


def small_model(name: str, **changed: Any) -> Recommender:
    """A small model of a class, not fitted."""
    kind, blended = getattr(models, name), {"ease": models.EASE(), "popularity": models.Popularity()}
    parts = {"Blend": (blended,), "Reranker": (models.Blend(blended),)}.get(name, ())
    return kind(*parts, **SMALL.get(name, {}) | changed)
