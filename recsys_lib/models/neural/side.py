"""What is known of films and people beside the ratings, as arrays of zeros and ones."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import codes_of

MOST_VALUES = 60  # a column with more distinct values is no category


def genre_flags(items: pd.DataFrame | None, item_ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Flags of genres, (n_items, n_genres) float32, and the genres' names; no column where there are none.

    >>> items = pd.DataFrame({"item_id": [1, 2], "genres": [["Drama"], ["Action", "Drama"]]})
    >>> genre_flags(items, np.array([1, 2, 3]))
    (array([[0., 1.],
           [1., 1.],
           [0., 0.]], dtype=float32), ['Action', 'Drama'])
    """
    if items is None or "genres" not in items:
        return np.zeros((len(item_ids), 0), np.float32), []
    table = items[["item_id", "genres"]].explode("genres").dropna()
    names = sorted(table["genres"].unique())
    rows, columns = codes_of(table["item_id"], item_ids), codes_of(table["genres"], np.array(names, dtype=str))
    flags = np.zeros((len(item_ids), len(names)), np.float32)
    kept = rows >= 0
    flags[rows[kept], columns[kept]] = 1
    return flags, names


def item_features(items: pd.DataFrame | None, item_ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Genres (scaled to length 1 a film) and decade of each film, (n_items, f) float32, with names."""
    flags, names = genre_flags(items, item_ids)
    genres = flags / np.sqrt(np.maximum(flags.sum(axis=1, keepdims=True), 1))
    blocks, labels = [genres], [f"genre {name}" for name in names]
    if items is not None and "year" in items:
        years = _aligned(items.set_index("item_id")["year"], item_ids)
        decades, decade_names = _buckets(np.floor(pd.to_numeric(years, errors="coerce") / 10) * 10)
        blocks.append(decades)
        labels += [f"decade {int(name)}" for name in decade_names]
    return np.concatenate(blocks, axis=1).astype(np.float32), labels


def user_features(users: pd.DataFrame | None, user_ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Demographics of each person as zeros and ones, (n_users, f) float32, with names.

    Numbers with many values are cut at their quintiles, postal codes at their first character, other columns with up
    to 60 values are categories. A person without a row gets zeros, as a newcomer does.
    """
    blocks, labels = [np.zeros((len(user_ids), 0), np.float32)], []
    if users is None:
        return blocks[0], labels
    table = users.set_index("user_id")
    for name in table.columns:
        values = _aligned(table[name], user_ids)
        if pd.api.types.is_numeric_dtype(values) and values.nunique() > 10:
            values = pd.qcut(values, 5, labels=False, duplicates="drop")
        elif values.nunique() > MOST_VALUES and "zip" in name:
            values = values.astype("string").str.slice(0, 1)
        if not 2 <= values.nunique() <= MOST_VALUES:
            continue
        flags, found = _buckets(values)
        blocks.append(flags)
        labels += [f"{name} {value}" for value in found]
    return np.concatenate(blocks, axis=1).astype(np.float32), labels


def _aligned(column: pd.Series, ids: np.ndarray) -> pd.Series:
    """The column's values in the order of ``ids``; missing where an id has none."""
    return column[~column.index.duplicated()].reindex(ids).reset_index(drop=True)


def _buckets(values: pd.Series) -> tuple[np.ndarray, list]:
    """One column of zeros and ones a distinct value; a row of zeros where it is missing."""
    codes, found = pd.factorize(values, sort=True)
    flags = np.zeros((len(codes), len(found)), np.float32)
    rows = np.flatnonzero(codes >= 0)
    flags[rows, codes[rows]] = 1
    return flags, list(found)
