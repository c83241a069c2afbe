"""The tables of a data set: their columns, and the data set that holds them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

INTERACTIONS = ("user_id", "item_id", "rating", "timestamp")
ITEMS = ("item_id", "title", "year", "genres")
USERS = ("user_id",)


@dataclass(frozen=True)
class Dataset:
    """A data set as the lab sees it, whatever its files look like.

    Attributes
    ----------
    name
        The name of its folders, such as ``"ml-100k"``.
    interactions : DataFrame
        user_id, item_id, rating (float32), timestamp (int64, UNIX seconds, UTC), in the order of the file. Implicit
        feedback has rating 1, or its weight; data without time has no timestamp column. A pair of user and item
        stands in it once.
    items : DataFrame
        item_id, title, year (Int16, nullable), genres (list of str, may be empty), one row an item; more where
        the data set has it. Every item of the interactions has its row.
    users : DataFrame
        user_id, and age, gender, occupation, ... where the data set has them; one row a user of the interactions.
    sha256
        Identity of the data: checksum of the interactions' values (see :func:`identity`), not of the archive, because
        ml-100k comes from two different archives with the same rows.
    rating_scale : (float, float) or None
        Lowest and highest rating; None for implicit feedback.
    source
        Where the data came from, in words.
    path
        The archive, the file or the folder that was read.
    tags, links : DataFrame or None
        Where the data set has them: user_id, item_id, tag, timestamp; item_id, imdb_id (text, with its leading
        zeros), tmdb_id (Int64, nullable).
    dropped
        What was left out while reading, and how many rows: ``{"rows without ...": 3}``.
    """

    name: str
    interactions: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame
    sha256: str
    rating_scale: tuple[float, float] | None
    source: str
    path: Path | None = None
    tags: pd.DataFrame | None = None
    links: pd.DataFrame | None = None
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def has_timestamps(self) -> bool:
        """Whether the interactions say when."""
        return "timestamp" in self.interactions

    @property
    def has_ratings(self) -> bool:
        """Whether the interactions say how much (explicit feedback)."""
        return self.rating_scale is not None

    @property
    def has_genres(self) -> bool:
        """Whether any item has a genre."""
        return bool(self.items["genres"].map(len).gt(0).any())

    @property
    def demographics(self) -> list[str]:
        """Columns of the users' table beside the id."""
        return [column for column in self.users.columns if column != "user_id"]

    def titles(self) -> pd.Series:
        """Titles by item id, for people to read."""
        return self.items.set_index("item_id")["title"]

    def __repr__(self) -> str:
        table = self.interactions
        return (
            f"Dataset({self.name!r}, {len(table):,} interactions of {table['user_id'].nunique():,} users with "
            f"{table['item_id'].nunique():,} items, ratings {self.rating_scale}, from {self.source})"
        )


@dataclass
class Trouble:
    """What kept parts of files from being read.

    Attributes
    ----------
    sentences
        One for each file and cause.
    skipped
        Line numbers that were left out, by name of the file.
    """

    sentences: list[str] = field(default_factory=list)
    skipped: dict[str, np.ndarray] = field(default_factory=dict)

    def lines_of(self, file: str, rows: np.ndarray, first_line: int) -> np.ndarray:
        """Line of its file that each row stands on, skipped lines counted.

        >>> Trouble(skipped={"a.csv": np.array([2, 4])}).lines_of("a.csv", np.array([0, 1, 2]), 1)
        array([1, 3, 5])
        """
        skipped = np.sort(self.skipped.get(file, np.empty(0, np.int64)))
        return rows + first_line + np.searchsorted(skipped - np.arange(len(skipped)), rows + first_line, side="right")


@dataclass
class RawTables:
    """Tables as a reader gives them, with the lab's column names, not yet checked.

    Attributes
    ----------
    interactions, items, users, tags, links
        As in :class:`Dataset`; None where there is no such file.
    files
        File of each table, for messages.
    first_line
        Line of its file that the first row of the interactions stands on.
    trouble
        What could not be read at all.
    notes
        What a person should know: columns that were taken for others or left out.
    whole_ids
        Whether the format has whole numbers as ids.
    columns
        Names in the file of the interactions, where they are a person's own.
    """

    interactions: pd.DataFrame
    items: pd.DataFrame | None = None
    users: pd.DataFrame | None = None
    tags: pd.DataFrame | None = None
    links: pd.DataFrame | None = None
    files: dict[str, Path] = field(default_factory=dict)
    first_line: int = 1
    trouble: Trouble = field(default_factory=Trouble)
    notes: list[str] = field(default_factory=list)
    whole_ids: bool = False
    columns: list[str] = field(default_factory=list)

    def file(self, table: str) -> str:
        """Name of a table's file."""
        return self.files[table].name if table in self.files else f"the {table}"


def identity(interactions: pd.DataFrame) -> str:
    """SHA-256 of the interactions themselves: two results are of the same data if and only if this is equal.

    It covers the names, the order and the values of the columns, with ids as int64 or text, ratings as float32 and
    timestamps as int64, and the order of the rows. It does not depend on the file: ml-100k has the same identity from
    GroupLens's archive and from its copy on PyPI.

    Examples
    --------
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
