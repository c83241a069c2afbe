"""``load_dataset``: from a name or a path to checked tables."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pandas as pd

from recsys_lib.data import schema
from recsys_lib.data.catalogue import KNOWN
from recsys_lib.data.fetch import Source, find_known, resolve, unpacked
from recsys_lib.data.grouplens import find_root, read_folder
from recsys_lib.data.own import is_table, read_own
from recsys_lib.data.schema import Scale
from recsys_lib.data.tables import Dataset, RawTables, identity
from recsys_lib.paths import Paths, table_name

_log = logging.getLogger(__name__)


def load_dataset(
    dataset: str | Path = "ml-100k",
    *,
    columns: Mapping[str, str] | None = None,
    items: str | Path | None = None,
    users: str | Path | None = None,
    implicit: bool = False,
    rating_scale: Scale | None = None,
    duplicates: Literal["last", "sum"] = "last",
    bad_rows: Literal["raise", "drop"] = "raise",
    missing_items: Literal["raise", "keep", "drop"] = "raise",
) -> Dataset:
    r"""Load a data set, check it, and give it the lab's columns.

    Parameters
    ----------
    dataset
        The name of a known MovieLens data set (:data:`recsys_lib.data.KNOWN`), or a path: a folder or a zip
        archive in a GroupLens format, a CSV, TSV or parquet file, or a folder of such files (interactions, items,
        users). Paths are looked for from the working folder and from the repository.
    columns
        ``{"their": "ours"}`` for tables of one's own. Ours are user_id, item_id and, where there are such, rating,
        weight, timestamp; title, year, genres in the table of items. Usual spellings, such as userId, are understood
        without it.
    items, users
        Files of items and of people to go with a table of one's own.
    implicit
        Read no ratings: every interaction counts 1. So do interactions without a column of ratings; those with a
        column of weights (how often, how long) count that much.
    rating_scale
        Lowest and highest rating; of a table of one's own by default the ones that occur.
    duplicates
        What becomes of rows with the same user and item: the "last" by time (of those at the same time, and without
        time, the last in the file) is kept, or, for implicit feedback, their weights are added up: "sum".
    bad_rows
        Rows with missing or impossible values: "raise" names them all in one error; "drop" leaves them out.
    missing_items
        Items of the interactions that the table of items lacks: "raise", "keep" them with their id as title, or
        "drop" their interactions.

    Returns
    -------
    Dataset
        Its ``dropped`` counts every row that was left out.

    Raises
    ------
    ValueError
        If there is no such data set or file, or an option does not fit.
    FileNotFoundError
        If a known data set can be had nowhere; the message says which file to put where.
    BadTableError
        If the tables do not hold what they should: a sentence for each problem.

    Examples
    --------
    >>> import tempfile
    >>> plays = Path(tempfile.mkdtemp()) / "plays.csv"
    >>> _ = plays.write_text("listener,track,times\nann,a1,3\nbob,a1,1\nann,b2,2\n")
    >>> data = load_dataset(plays, columns={"listener": "user_id", "track": "item_id", "times": "weight"})
    >>> data.interactions
      user_id item_id  rating
    0     ann      a1     3.0
    1     bob      a1     1.0
    2     ann      b2     2.0
    >>> data.rating_scale is None, data.titles()["b2"]
    (True, 'b2')
    """
    _choice("duplicates", duplicates, ("last", "sum"))
    _choice("bad_rows", bad_rows, ("raise", "drop"))
    _choice("missing_items", missing_items, ("raise", "keep", "drop"))
    given = {"columns": columns, "items": items, "users": users}
    source, name, scale = _find(str(dataset), given)
    tables = source.read()
    for note in tables.notes:
        _log.warning(note)
    explicit = schema.take_feedback(tables, implicit=implicit, duplicates=duplicates)
    scale = (tuple(map(float, rating_scale or ())) or scale or _grouplens_scale(tables)) if explicit else None
    dropped = schema.clean(
        tables, scale, weights=not explicit, duplicates=duplicates, bad_rows=bad_rows, missing_items=missing_items
    )
    for what, rows in dropped.items():
        _log.warning("%s: left out %s %s", name, f"{rows:,}", what)
    if explicit and scale is None:
        ratings = tables.interactions["rating"]
        scale = (float(ratings.min()), float(ratings.max()))
    return _finished(tables, source, name, scale, dropped)


def _choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{option}={value!r} must be one of {', '.join(map(repr, allowed))}")


def _find(dataset: str, given: dict[str, object]) -> tuple[Source, str, Scale | None]:
    """Find the files; the name of the data set; its scale, if that is known."""
    own = [option for option, value in given.items() if value]
    if dataset in KNOWN:
        if own:
            raise ValueError(f"{own[0]}= is for tables of one's own; {dataset} is known and needs none")
        return find_known(KNOWN[dataset]), dataset, KNOWN[dataset].rating_scale
    path = resolve(Path(dataset))
    if path is None:
        raise ValueError(
            f"there is no data set and no file {dataset!r}; known data sets are {', '.join(KNOWN)}, and the path of a "
            "folder, a zip archive, a CSV, TSV or parquet file will do too"
        )
    name = table_name(dataset)
    source = _source_of(path, Paths(dataset).raw, given, plain=not own)
    return source, name, KNOWN[name].rating_scale if name in KNOWN and not own and not is_table(path) else None


def _source_of(path: Path, raw: Path, given: dict[str, object], *, plain: bool) -> Source:
    """A folder, an archive or a table that a person brought."""
    folder, words = path, f"the {'folder' if path.is_dir() else 'file'} {path.name}"
    if path.is_file() and path.suffix.lower() == ".zip":
        folder, words = unpacked(path, raw), f"the archive {path.name}"
    elif path.name in ("u.data", "ratings.dat"):
        folder = path.parent
    if folder.is_dir() and plain and find_root(folder):
        return Source(lambda: read_folder(folder), words, path)
    if not folder.is_dir() and not is_table(folder):
        raise ValueError(f"{path} is no folder, zip archive, CSV, TSV or parquet file")
    extra = {option: _existing(given[option], option) for option in ("items", "users")}
    return Source(lambda: read_own(_innermost(folder), given["columns"], **extra), words, path)


def _innermost(path: Path) -> Path:
    """Go down while a folder holds one folder and nothing else, as unpacked archives often do."""
    while path.is_dir() and len(inside := list(path.iterdir())) == 1 and inside[0].is_dir():
        path = inside[0]
    return path


def _existing(path: str | Path | None, option: str) -> Path | None:
    if path is None or not str(path):
        return None
    found = resolve(Path(path))
    if found is None:
        raise ValueError(f"{option}={str(path)!r} does not exist")
    return found


def _grouplens_scale(tables: RawTables) -> Scale | None:
    """Scale of a MovieLens folder of an unknown name: whole stars, or halves where a rating is no whole star."""
    if tables.file("interactions") not in ("u.data", "ratings.dat"):
        return None
    ratings = pd.to_numeric(tables.interactions["rating"], errors="coerce")
    return (0.5, 5.0) if (ratings % 1).gt(0).any() else (1.0, 5.0)


def _finished(tables: RawTables, source: Source, name: str, scale: Scale | None, dropped: dict[str, int]) -> Dataset:
    """Give every item and every user a row, and the data its identity."""
    return Dataset(
        name=name,
        interactions=tables.interactions,
        items=schema.complete_items(tables.items, tables.interactions),
        users=schema.complete_users(tables.users, tables.interactions),
        sha256=identity(tables.interactions),
        rating_scale=scale,
        source=source.words,
        path=source.path,
        tags=tables.tags,
        links=tables.links,
        dropped=dropped,
    )
