"""Readers of the files that GroupLens publishes: ``u.data``, ``::``-separated ``.dat``, CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from recsys_lib.data.delimited import header_of, read_lines, read_typed
from recsys_lib.data.tables import RawTables, Trouble
from recsys_lib.data.titles import split_genres, split_year

RATING_FILES = ("u.data", "ratings.dat", "ratings.csv")
_RATING_TYPES = {"user_id": pa.int64(), "item_id": pa.int64(), "rating": pa.float32(), "timestamp": pa.int64()}
_CSV_NAMES = {"userId": "user_id", "movieId": "item_id", "imdbId": "imdb_id", "tmdbId": "tmdb_id"}
_OCCUPATIONS = (  # by number, from the README of ml-1m
    *("other", "educator", "artist", "clerical", "student", "customer service", "health care", "executive"),
    *("farmer", "homemaker", "K-12 student", "lawyer", "programmer", "retired", "sales", "scientist"),
    *("self-employed", "engineer", "tradesman", "unemployed", "writer"),
)


def _is_root(folder: Path) -> bool:
    """Whether ratings in a GroupLens format lie here; a ratings.csv must have at least one of GroupLens's names."""
    if any((folder / name).is_file() for name in ("u.data", "ratings.dat")):
        return True
    ratings = folder / "ratings.csv"
    return ratings.is_file() and bool({"userId", "movieId"} & set(header_of(ratings, ",")))


def find_root(folder: Path) -> Path | None:
    """The folder, or one up to two levels below it, that holds ratings in a GroupLens format."""
    below = sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_dir())
    return next((candidate for candidate in (folder, *below) if _is_root(candidate)), None)


def read_folder(folder: Path) -> RawTables:
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


def _ratings(file: Path, **how: object) -> RawTables:
    """Tables with the interactions alone."""
    trouble = Trouble()
    read = read_typed(file, trouble=trouble, **how)
    return RawTables(read, files={"interactions": file}, trouble=trouble, whole_ids=True)


def _parts(tables: RawTables, name: str, file: Path, pattern: str, columns: list[str]) -> pd.DataFrame | None:
    """Take the lines of a small file apart; None if there is no such file, and a problem where a line does not fit."""
    if not file.is_file():
        return None
    tables.files[name] = file
    lines = read_lines(file)
    parts = lines.str.extract(pattern).set_axis(columns, axis=1)
    strange = np.flatnonzero(parts[columns[0]].isna())
    if len(strange):
        shown = ", ".join(f"line {place + 1}: {lines[place][:40]!r}" for place in strange[:3])
        lines = "1 line does" if len(strange) == 1 else f"{len(strange):,} lines do"
        tables.trouble.sentences.append(f"{file.name}: {lines} not have the fields {', '.join(columns)} ({shown})")
    return parts.drop(index=strange).reset_index(drop=True)


def _items(item_id: pd.Series, titles: pd.Series, genres: pd.Series) -> pd.DataFrame:
    """Table of items from titles that hold the year and lists of genres."""
    return pd.concat([item_id.astype(np.int64).rename("item_id"), split_year(titles), genres.rename("genres")], axis=1)


def _flagged(flags: pd.Series, names: list[str]) -> pd.Series:
    """Lists of genres from flags such as ``0|1|0``; the genre "unknown" is none.

    >>> _flagged(pd.Series(["0|1|1", "1|0|0"]), ["unknown", "Action", "Drama"]).tolist()
    [['Action', 'Drama'], []]
    """
    on = flags.str.split("|", expand=True).eq("1").to_numpy()
    texts = np.full(len(on), "", dtype=object)
    for code, name in enumerate(names):
        texts = texts + np.where(on[:, code], f"{name}|", "")
    return split_genres(pd.Series(texts, index=flags.index))


def _read_u_data(root: Path) -> RawTables:
    """ml-100k: tab-separated ratings; films and people separated by bars, genres as flags."""
    tables = _ratings(root / "u.data", types=_RATING_TYPES, delimiter="\t", names=list(_RATING_TYPES), quoted=False)
    if (root / "u.item").is_file():
        names = read_lines(root / "u.genre").str.split("|").str[0].tolist()
        pattern = rf"^(\d+)\|(.*)\|[^|]*\|[^|]*\|[^|]*\|([01](?:\|[01]){{{len(names) - 1}}})$"
        films = _parts(tables, "items", root / "u.item", pattern, ["item_id", "title", "genres"])
        tables.items = _items(films["item_id"], films["title"], _flagged(films["genres"], names))
    columns = ["user_id", "age", "gender", "occupation", "zip_code"]
    people = _parts(tables, "users", root / "u.user", r"^(\d+)\|(\d+)\|([^|]*)\|([^|]*)\|([^|]*)$", columns)
    if people is not None:
        tables.users = people.astype({"user_id": np.int64, "age": np.int64})
    return tables


def _read_dat(root: Path) -> RawTables:
    """ml-1m and ml-10m: fields separated by two colons; titles and tags may hold colons, ratings hold none."""
    names = ["user_id", "_1", "item_id", "_2", "rating", "_3", "timestamp"]  # between two colons there is nothing
    how = {"delimiter": ":", "names": names, "only": list(_RATING_TYPES), "quoted": False}
    tables = _ratings(root / "ratings.dat", types=_RATING_TYPES, **how)
    films = _parts(tables, "items", root / "movies.dat", r"^(\d+)::(.*)::(.*)$", ["item_id", "title", "genres"])
    if films is not None:
        tables.items = _items(films["item_id"], films["title"], split_genres(films["genres"]))
    columns = ["user_id", "gender", "age", "occupation", "zip_code"]
    people = _parts(tables, "users", root / "users.dat", r"^(\d+)::([^:]*)::(\d+)::(\d+)::([^:]*)$", columns)
    if people is not None:
        people = people.astype({"user_id": np.int64, "age": np.int64, "occupation": np.int64})
        people["occupation"] = pd.Series(_OCCUPATIONS, dtype="str").reindex(people["occupation"]).to_numpy()
        tables.users = people[["user_id", "age", "gender", "occupation", "zip_code"]]
    columns = ["user_id", "item_id", "tag", "timestamp"]
    tags = _parts(tables, "tags", root / "tags.dat", r"^(\d+)::(\d+)::(.*)::(\d+)$", columns)
    if tags is not None:
        tables.tags = tags.astype(dict.fromkeys(("user_id", "item_id", "timestamp"), np.int64))
    return tables


def _read_csv(root: Path) -> RawTables:
    """ml-20m and later, ml-latest, ml-latest-small: CSV with a header line."""
    text, whole = pa.string(), pa.int64()
    types = {"userId": whole, "movieId": whole, "rating": pa.float32(), "timestamp": whole}
    tables = _ratings(root / "ratings.csv", types=types, only=list(types))
    tables.interactions = tables.interactions.rename(columns=_CSV_NAMES)
    tables.first_line = 2
    films = _small(tables, "items", root / "movies.csv", {"movieId": whole, "title": text, "genres": text})
    if films is not None:
        tables.items = _items(films["item_id"], films["title"], split_genres(films["genres"]))
    tables.tags = _small(tables, "tags", root / "tags.csv", {"userId": whole, "movieId": whole, "tag": text})
    links = _small(tables, "links", root / "links.csv", {"movieId": whole, "imdbId": text, "tmdbId": whole})
    tables.links = None if links is None else links.astype({"tmdb_id": "Int64"})
    return tables


def _small(tables: RawTables, name: str, file: Path, types: dict[str, pa.DataType]) -> pd.DataFrame | None:
    """Read one of the tables beside the ratings, if it is there."""
    if not file.is_file():
        return None
    tables.files[name] = file
    frame = read_typed(file, types, newlines=True, trouble=tables.trouble)
    lacking = [column for column in types if column not in frame]
    if lacking:
        tables.trouble.sentences.append(f"{file.name} has no column {lacking[0]!r}; it has {', '.join(frame.columns)}")
        return None
    return frame.rename(columns=_CSV_NAMES)


_STEM = "recbole/dataset_example/ml-100k/ml-100k"
PACKAGE_FILES = {"interactions": f"{_STEM}.inter", "items": f"{_STEM}.item", "users": f"{_STEM}.user"}


def read_package(folder: Path) -> RawTables:
    """Read ml-100k as the RecBole package carries it, so that the tables equal those of GroupLens's own archive."""
    files = {name: folder / file for name, file in PACKAGE_FILES.items()}
    types = dict.fromkeys(("user_id:token", "item_id:token", "timestamp:float"), pa.int64())
    types["rating:float"] = pa.float32()
    ratings = _plain_names(read_typed(files["interactions"], types, delimiter="\t", quoted=False))
    users = _text_table(files["users"]).astype({"user_id": np.int64, "age": np.int64})
    films = _text_table(files["items"])
    # The package splits "Toy Story (1995)" at the last bracket: joined again and split as everywhere, the one film
    # with a bracket after the year gets its title too. The film that is called "unknown" (267) is misspelt there.
    whole = films["movie_title"] + " (" + films["release_year"] + ")"
    titles = whole.mask(films["movie_title"].eq("unkonwn"), "unknown")
    items = _items(films["item_id"], titles, split_genres(films["class"], " "))
    return RawTables(ratings, items, users, files=files, first_line=2, whole_ids=True)


def _text_table(path: Path) -> pd.DataFrame:
    """Read a tab-separated file with a header line, all columns as text."""
    parts = read_lines(path).str.split("\t", expand=True)
    return _plain_names(parts.iloc[1:].set_axis(parts.iloc[0].tolist(), axis=1).reset_index(drop=True))


def _plain_names(frame: pd.DataFrame) -> pd.DataFrame:
    """Names without the types that RecBole's files give them."""
    return frame.rename(columns=lambda name: name.split(":")[0])
