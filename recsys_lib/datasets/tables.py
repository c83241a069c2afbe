"""The tables of a data set: their columns, and the data set that holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

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
        feedback has rating 1; data without time has no timestamp column.
    items : DataFrame
        item_id, title, year (Int16, nullable), genres (list of str, may be empty), one row an item; more where
        the data set has it. Every item of the interactions has its row.
    users : DataFrame
        user_id, and age, gender, occupation, ... where the data set has them; one row a user of the interactions.
    sha256
        Checksum of the archive or the file that the data was read from.
    rating_scale : (float, float) or None
        Lowest and highest rating; None for implicit feedback.
    source
        Where the data came from, in words.
    tags, links : DataFrame or None
        Where the data set has them.
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
