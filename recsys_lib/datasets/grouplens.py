"""Readers of the files that GroupLens publishes: ``u.data``, ``::``-separated ``.dat``, CSV."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from recsys_lib.datasets.delimited import read_lines, read_typed
from recsys_lib.datasets.titles import split_genres, split_year

RATING_FILES = ("u.data", "ratings.csv", "ratings.dat")
_RATING_TYPES = {"user_id": pa.int64(), "item_id": pa.int64(), "rating": pa.float32(), "timestamp": pa.int64()}
# README of ml-1m
_OCCUPATIONS = [
    "other",
    "educator",
    "artist",
    "clerical",
    "student",
    "customer service",
    "health care",
    "executive",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales",
    "scientist",
    "self-employed",
    "engineer",
    "tradesman",
    "unemployed",
    "writer",
]


@dataclass
class Tables:
    """Tables as they were read, not yet checked.

    Attributes
    ----------
    interactions, items, users, tags, links
        As in :class:`recsys_lib.datasets.Dataset`; None where there is no such file.
    files
        File of each table, for messages.
    first_line
        Line of its file that the first row of the interactions stands on.
    """

    interactions: pd.DataFrame
    items: pd.DataFrame | None = None
    users: pd.DataFrame | None = None
    tags: pd.DataFrame | None = None
    links: pd.DataFrame | None = None
    files: dict[str, Path] = field(default_factory=dict)
    first_line: int = 1


def find_root(folder: Path) -> Path | None:
    """The folder, or one just below it, that holds ratings in a GroupLens format."""
    for candidate in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if any((candidate / name).is_file() for name in RATING_FILES):
            return candidate
    return None


def read_folder(folder: Path) -> Tables:
    """Read an unpacked MovieLens folder, whichever of the three formats it has.

    Raises
    ------
    FileNotFoundError
        If no ratings file is there.
    """
    root = find_root(folder)
    if root is None:
        raise FileNotFoundError(f"{folder} holds none of {', '.join(RATING_FILES)}")
    readers = {"u.data": _read_u_data, "ratings.dat": _read_dat, "ratings.csv": _read_csv}
    return next(read(root) for name, read in readers.items() if (root / name).is_file())


def _items(item_id: pd.Series, titles: pd.Series, genres: pd.Series) -> pd.DataFrame:
    """Table of items from titles that hold the year and lists of genres."""
    return pd.concat([item_id.astype(np.int64).rename("item_id"), split_year(titles), genres.rename("genres")], axis=1)


def _read_u_data(root: Path) -> Tables:
    """ml-100k: tab-separated ratings; films and people separated by bars, genres as flags."""
    files = {"interactions": root / "u.data"}
    tables = Tables(
        read_typed(files["interactions"], _RATING_TYPES, delimiter="\t", names=list(_RATING_TYPES), quoted=False),
        files=files,
    )
    if (root / "u.item").is_file():
        files["items"] = root / "u.item"
        parts = read_lines(files["items"]).str.split("|", expand=True)
        names = read_lines(root / "u.genre").str.split("|", expand=True)[0].to_numpy()
        flags = (parts.iloc[:, -len(names) :] == "1").to_numpy()
        joined = pd.Series(["|".join(names[row]) for row in flags], dtype="str")  # a line for each film, once
        known = joined.map(lambda text: "|".join(name for name in text.split("|") if name != "unknown"))
        tables.items = _items(parts[0], parts[1], split_genres(known))
    if (root / "u.user").is_file():
        files["users"] = root / "u.user"
        people = read_lines(files["users"]).str.split("|", expand=True)
        people.columns = ["user_id", "age", "gender", "occupation", "zip_code"]
        tables.users = people.astype({"user_id": np.int64, "age": np.int64})
    return tables


def _read_dat(root: Path) -> Tables:
    """ml-1m and ml-10m: fields separated by two colons; titles, but no rating, may hold a single colon."""
    files = {"interactions": root / "ratings.dat"}
    names = ["user_id", "_1", "item_id", "_2", "rating", "_3", "timestamp"]  # what stands between two colons is empty
    ratings = read_typed(
        files["interactions"], _RATING_TYPES, delimiter=":", names=names, only=list(_RATING_TYPES), quoted=False
    )
    tables = Tables(ratings, files=files)
    if (root / "movies.dat").is_file():
        files["items"] = root / "movies.dat"
        films = read_lines(files["items"]).str.extract(r"^(\d+)::(.*)::(.*)$")
        tables.items = _items(films[0], films[1], split_genres(films[2]))
    if (root / "users.dat").is_file():
        files["users"] = root / "users.dat"
        people = read_lines(files["users"]).str.split("::", expand=True)
        people.columns = ["user_id", "gender", "age", "occupation", "zip_code"]
        people = people.astype({"user_id": np.int64, "age": np.int64, "occupation": np.int64})
        people["occupation"] = pd.Series(_OCCUPATIONS, dtype="str").reindex(people["occupation"]).to_numpy()
        tables.users = people[["user_id", "age", "gender", "occupation", "zip_code"]]
    if (root / "tags.dat").is_file():
        tags = read_lines(root / "tags.dat").str.extract(r"^(\d+)::(\d+)::(.*)::(\d+)$")
        tags.columns = ["user_id", "item_id", "tag", "timestamp"]
        tables.tags = tags.astype(dict.fromkeys(("user_id", "item_id", "timestamp"), np.int64))
    return tables


def _read_csv(root: Path) -> Tables:
    """ml-20m and later: CSV with a header line."""
    theirs = {"userId": "user_id", "movieId": "item_id", "rating": "rating", "timestamp": "timestamp"}
    files = {"interactions": root / "ratings.csv"}
    types = {name: _RATING_TYPES[ours] for name, ours in theirs.items()}
    ratings = read_typed(files["interactions"], types, only=list(theirs)).rename(columns=theirs)
    tables = Tables(ratings, files=files, first_line=2)
    text = pa.string()
    if (root / "movies.csv").is_file():
        files["items"] = root / "movies.csv"
        films = read_typed(files["items"], {"movieId": pa.int64(), "title": text, "genres": text})
        tables.items = _items(films["movieId"], films["title"], split_genres(films["genres"]))
    if (root / "tags.csv").is_file():
        files["tags"] = root / "tags.csv"
        tags = read_typed(files["tags"], {"userId": pa.int64(), "movieId": pa.int64(), "tag": text})
        tables.tags = tags.rename(columns=theirs)
    if (root / "links.csv").is_file():
        files["links"] = root / "links.csv"
        links = read_typed(files["links"], {"movieId": pa.int64(), "imdbId": text, "tmdbId": pa.int64()})
        links["tmdbId"] = links["tmdbId"].astype("Int64")
        tables.links = links.rename(columns={"movieId": "item_id", "imdbId": "imdb_id", "tmdbId": "tmdb_id"})
    return tables
