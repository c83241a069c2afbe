"""Load a data set: from a name or a path to checked tables, and their identity."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa

from recsys_lib.data import schema
from recsys_lib.data.fetch import Source, find_known, resolve, unpacked
from recsys_lib.data.interactions import order_column, relevance_threshold
from recsys_lib.data.known import KNOWN, nothing_called
from recsys_lib.data.readers import RawTables, read_files, read_frames
from recsys_lib.data.schema import Scale
from recsys_lib.paths import Paths, table_name

_log = logging.getLogger(__name__)
Duplicates = Literal["last", "sum", "keep"]
BadRows = Literal["raise", "drop"]
MissingItems = Literal["raise", "keep", "drop"]
TimeUnit = Literal["s", "ms", "us", "ns", "days"]
_EARLY = 94_694_400  # 1973-01-01 in seconds: what ends before counts something else, as like as not
_CHOICES = {"duplicates": Duplicates, "bad_rows": BadRows, "missing_items": MissingItems, "time_unit": TimeUnit}


@dataclass(frozen=True)
class Dataset:
    """A data set as the lab sees it, whatever its files look like.

    - ``name``: the name of its folders, such as ``"ml-100k"``.
    - ``interactions``: user_id, item_id, rating (float32), timestamp (int64, UNIX seconds, UTC), in the order of the
      file. Implicit feedback has rating 1, or its weight; data without time has no timestamp column, but perhaps a
      position (int64), which orders a user's interactions. A pair of user and item stands in it once, unless
      ``duplicates`` kept all.
    - ``items``: item_id, title, year (Int16, nullable), genres (list of str, may be empty), one row an item; more where
      the data set has it. Every item of the interactions has its row.
    - ``users``: user_id, and age, gender, occupation, ... where the data set has them; one row a user.
    - ``sha256``: checksum of the interactions' values (see :func:`identity`), not of the archive, because ml-100k comes
      from two different archives with the same rows.
    - ``rating_scale``, (float, float) or None: lowest and highest rating; None for implicit feedback.
    - ``source``, ``path``: where the data came from, in words, and the archive, the file or the folder that was read.
    - ``dropped``: what was left out while reading, and how many rows: ``{"rows without ...": 3}``.
    """

    name: str
    interactions: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame
    sha256: str
    rating_scale: tuple[float, float] | None
    source: str
    path: Path | None = None
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def has_timestamps(self) -> bool:
        """Whether the interactions say when."""
        return "timestamp" in self.interactions

    @property
    def has_order(self) -> bool:
        """Whether a user's interactions have an order, by timestamps or by positions."""
        return order_column(self.interactions) is not None

    @property
    def has_ratings(self) -> bool:
        """Whether the interactions say how much (explicit feedback)."""
        return self.rating_scale is not None

    @property
    def relevant_from(self) -> float | None:
        """Rating from which an item counts as relevant (:func:`relevance_threshold`); None for implicit feedback."""
        if self.rating_scale is None:
            return None
        return relevance_threshold(np.append(self.interactions["rating"].unique(), self.rating_scale))

    @property
    def has_genres(self) -> bool:
        """Whether any item has a genre."""
        return bool(self.items["genres"].map(len).gt(0).any())

    @property
    def demographics(self) -> list[str]:
        """Columns of the users' table beside the id."""
        return [column for column in self.users.columns if column != "user_id"]

    def titles(self) -> pd.Series:
        """Titles by item id, to read."""
        return self.items.set_index("item_id")["title"]

    def __repr__(self) -> str:
        table, times = self.interactions, ""
        if self.has_timestamps and len(table):
            first, last = pd.to_datetime(table["timestamp"].agg(["min", "max"]), unit="s")
            times = f", {first:%Y-%m-%d} to {last:%Y-%m-%d}"
        return (
            f"Dataset({self.name!r}, {len(table):,} interactions of {table['user_id'].nunique():,} users with "
            f"{table['item_id'].nunique():,} items, ratings {self.rating_scale}{times}, from {self.source})"
        )


def load_dataset(
    dataset: str | Path | pd.DataFrame = "ml-100k",
    *,
    columns: Mapping[str, str] | None = None,
    items: str | Path | pd.DataFrame | None = None,
    users: str | Path | pd.DataFrame | None = None,
    implicit: bool = False,
    rating_scale: Scale | None = None,
    duplicates: Duplicates | None = None,
    bad_rows: BadRows = "raise",
    missing_items: MissingItems = "raise",
    names: Sequence[str] | None = None,
    separator: str | None = None,
    time_unit: TimeUnit = "s",
    encoding: str | None = None,
    not_rated: float | Sequence[float] = (),
) -> Dataset:
    r"""Load a data set, check it, and give it the lab's columns.

    - ``dataset``: the name of a known MovieLens data set (:data:`recsys_lib.data.KNOWN`), or a path, from the working
      folder or the repository: a folder or a zip archive in a GroupLens format, a table, or a folder or a zip archive
      of tables (interactions, items, users). A table is delimited text (separator, header and encoding are detected),
      JSON lines, parquet, one user a line followed by the items in order, or the Netflix prize's form; text may be
      compressed by gzip or bzip2. One logged line says what each file was taken for. The same at an s3:// address,
      which is copied to ``data/raw`` first, once for each content. Or a DataFrame.
    - ``columns``: ``{"their": "ours"}`` for tables of one's own: user_id, item_id, rating, weight, timestamp, position;
      title, year, genres. Usual spellings, such as userId, are understood without it.
    - ``items``, ``users``: to go with a table of one's own: files, or DataFrames where that is one.
    - ``implicit``: read no ratings: every interaction counts 1. So do interactions without a column of ratings; those
      with a column of weights (how often, how long) count that much.
    - ``rating_scale``: lowest and highest rating; of a table of one's own by default the ones that occur.
    - ``duplicates``: of rows with the same user and item the "last" by time (or in the file) is kept, or, for implicit
      feedback, their weights are added up: "sum"; "keep" leaves all, for
      :func:`recsys_lib.data.splits.leave_one_out`: the default where there is an order without times.
    - ``bad_rows``: those with missing or impossible values: "raise" names them all; "drop" leaves them out.
    - ``missing_items``: items that the table of items lacks: "raise", "keep" them with their id as title, or "drop"
      their interactions.
    - ``names``, ``separator``, ``encoding``: columns and separator of the interactions, where the file does not tell
      (``["user_id", "item_id"]`` of more columns: one user a line); the encoding of all text, such as "cp1251", where
      it is not UTF-8, UTF-16, UTF-32 or Windows-1252.
    - ``time_unit``: what timestamps that are numbers count.
    - ``not_rated``: ratings that mean "not rated", such as 0 or -1: their rows are left out and counted. With
      ``implicit=True``, where no rating is read, they stay.

    ``dropped`` of the result counts every row that was left out. ValueError if there is no such data set or file, or an
    option does not fit; FileNotFoundError if a known data set can be had nowhere, with the file to put and where;
    StorageError if an s3:// address cannot be read; BadTableError if the tables do not hold what they should, with a
    sentence for each problem.
    """
    chosen = {"duplicates": duplicates, "bad_rows": bad_rows, "missing_items": missing_items, "time_unit": time_unit}
    check_reading(chosen)
    given = {"columns": columns, "items": items, "users": users, "names": names, "separator": separator}
    given |= {"encoding": encoding} if encoding else {}
    given |= {"time_unit": time_unit} if time_unit != "s" else {}
    source, name, scale = (_in_memory if isinstance(dataset, pd.DataFrame) else _find)(dataset, given)
    tables = source.read()
    for note in () if name in KNOWN else tables.notes:
        _log.warning(note)
    if duplicates is None:
        named = set(tables.interactions.columns)
        duplicates = "keep" if "position" in named and not named & {"timestamp", "rating"} else "last"
    explicit = schema.take_feedback(tables, implicit=implicit, duplicates=duplicates)
    scale = (tuple(map(float, rating_scale or ())) or scale or _grouplens_scale(tables)) if explicit else None
    dropped = schema.drop_not_rated(tables, not_rated) if explicit else {}
    how = {"duplicates": duplicates, "bad_rows": bad_rows, "missing_items": missing_items}
    dropped |= schema.clean(tables, scale, weights=not explicit, **how)
    for what, rows in dropped.items():
        _log.warning("%s: left out %s %s", name, f"{rows:,}", what)
    frame = tables.interactions
    if time_unit == "s" and frame.get("timestamp", pd.Series([_EARLY])).max() < _EARLY:
        _log.warning("%s: in seconds its timestamps end before 1973: if they count days, pass time_unit='days'", name)
    if explicit and scale is None:
        scale = (float(frame["rating"].min()), float(frame["rating"].max()))
    whole = schema.complete_items(tables.items, frame), schema.complete_users(tables.users, frame)
    return Dataset(name, frame, *whole, identity(frame), scale, source.words, source.path, dropped)


def check_reading(given: Mapping[str, object]) -> None:
    """Refuse arguments that :func:`load_dataset` does not have, and words that one cannot be, with a ValueError.

    >>> check_reading({"colums": {"who": "user_id"}})
    Traceback (most recent call last):
    ValueError: load_dataset takes no 'colums'; did you mean 'columns'?
    """
    known = list(signature(load_dataset).parameters)[1:]
    for option, value in given.items():
        if option not in known:
            near = get_close_matches(option, known, n=1, cutoff=0)[0]
            raise ValueError(f"load_dataset takes no {option!r}; did you mean {near!r}?")
        allowed = get_args(_CHOICES.get(option))
        if allowed and value is not None and value not in allowed:
            raise ValueError(f"{option}={value!r} must be one of {', '.join(map(repr, allowed))}")


def _in_memory(interactions: pd.DataFrame, given: dict[str, object]) -> tuple[Source, str, Scale | None]:
    for option in ("items", "users"):
        if not isinstance(given[option], pd.DataFrame | None):
            raise ValueError(f"{option}= must be a DataFrame where the interactions are one")
    if [option for option in ("names", "separator", "encoding") if given.pop(option, None)]:
        raise ValueError("names=, separator= and encoding= are for files; a DataFrame's columns are mapped by columns=")
    return Source(lambda: read_frames(interactions, **given), "a DataFrame", None), "table", None


def _find(dataset: str | Path, given: dict[str, object]) -> tuple[Source, str, Scale | None]:
    """Find the files; the name of the data set; its scale, if that is known."""
    dataset = str(dataset)
    for option in ("items", "users"):
        if isinstance(given[option], pd.DataFrame):
            raise ValueError(f"{option}= must be a file where the interactions are one")
    own = [option for option, value in given.items() if value]
    if dataset in KNOWN:
        if own:
            raise ValueError(f"{own[0]}= is for tables of one's own; {dataset} is known and needs none")
        return find_known(KNOWN[dataset]), dataset, KNOWN[dataset].rating_scale
    path = resolve(dataset)
    if path is None:
        raise ValueError(nothing_called(dataset))
    name, zipped = table_name(dataset), path.is_file() and path.suffix.lower() == ".zip"
    scale = KNOWN[name].rating_scale if name in KNOWN and not own and (zipped or path.is_dir()) else None
    folder = unpacked(path, Paths(dataset).raw) if zipped else path
    words = f"the {'archive' if zipped else 'folder' if path.is_dir() else 'file'} {path.name}"
    files = {option: resolve(given[option]) for option in ("items", "users") if given[option]}
    if lacking := [option for option, file in files.items() if file is None]:
        raise ValueError(f"{lacking[0]}={str(given[lacking[0]])!r} does not exist")
    given = {**given, "items": None, "users": None, **files, "archive": path.name if zipped else None}
    return Source(lambda: read_files(folder, **given), words, path), name, scale


def _grouplens_scale(tables: RawTables) -> Scale | None:
    """Scale of a MovieLens folder of an unknown name: whole stars, or halves where a rating is no whole star."""
    if not tables.whole_ids or tables.file("interactions") not in ("u.data", "ratings.dat"):
        return None
    ratings = pd.to_numeric(tables.interactions["rating"], errors="coerce")
    return (0.5, 5.0) if (ratings.unique() % 1 > 0).any() else (1.0, 5.0)


def identity(interactions: pd.DataFrame) -> str:
    """SHA-256 of the interactions themselves: two results are of the same data if and only if this is equal.

    It covers the names, the order and the values of the columns, with ids as int64 or text, ratings as float32 and
    timestamps as int64, and the order of the rows. It does not depend on the file: ml-100k has the same identity from
    GroupLens's archive and from its copy on PyPI.

    >>> frame = pd.DataFrame({"user_id": [1, 2], "item_id": ["a", "b"]})
    >>> identity(frame) == identity(frame.copy()), identity(frame) == identity(frame.iloc[::-1])
    (True, False)
    """
    digest = hashlib.sha256()
    for column in interactions.columns:
        values = interactions[column]
        digest.update(f"{column}:{len(values)};".encode())
        if values.dtype.kind in "iuf":
            digest.update(np.ascontiguousarray(values.to_numpy()).view(np.uint8).data)
        else:
            for part in _text_buffers(values):
                digest.update(part)
    return digest.hexdigest()


def _text_buffers(values: pd.Series) -> tuple[memoryview, memoryview]:
    """Lengths of texts in bytes (int64), and all of them one after the other in UTF-8."""
    text = pa.array(values, pa.large_string())
    text = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
    _, starts, content = text.buffers()
    offsets = np.frombuffer(starts, np.int64)[text.offset : text.offset + len(text) + 1]
    return np.diff(offsets).data, memoryview(content)[offsets[0] : offsets[-1]]
