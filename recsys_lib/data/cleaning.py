"""From tables as they were read to tables that can be trusted: feedback, checks, duplicates, complete ids."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from recsys_lib.data import checks
from recsys_lib.data.own import WEIGHT
from recsys_lib.data.tables import RawTables

Scale = tuple[float, float]
_log = logging.getLogger(__name__)


def take_feedback(tables: RawTables, *, implicit: bool, duplicates: str) -> bool:
    """Put ratings, weights or ones into the column "rating"; True if they are ratings."""
    frame = tables.interactions
    rated, weighed = "rating" in frame, WEIGHT in frame
    if rated and weighed and not implicit:
        raise ValueError("there are ratings and weights; map one of them, or pass implicit=True to read the weights")
    explicit = rated and not implicit
    if explicit and duplicates == "sum":
        raise ValueError("duplicates='sum' adds up weights; ratings cannot be added up, keep the 'last' of them")
    if not explicit and len(frame.columns):
        frame = frame.drop(columns="rating", errors="ignore")
        ones = np.ones(len(frame), np.float32)
        tables.interactions = frame.rename(columns={WEIGHT: "rating"}) if weighed else frame.assign(rating=ones)
    order = [column for column in ("user_id", "item_id", "rating", "timestamp") if column in tables.interactions]
    tables.interactions = tables.interactions[order]
    return explicit


def clean(
    tables: RawTables,
    scale: Scale | None,
    *,
    weights: bool,
    duplicates: str = "last",
    bad_rows: str = "raise",
    missing_items: str = "raise",
) -> dict[str, int]:
    """Check all tables, and leave out what the options allow to leave out.

    Parameters
    ----------
    tables
        As read, with ratings or weights in the column "rating"; changed in place.
    scale
        Lowest and highest rating, where that is known.
    weights
        Whether the ratings are weights of implicit feedback.
    duplicates, bad_rows, missing_items
        As in :func:`recsys_lib.data.load_dataset`.

    Returns
    -------
    dict
        What was left out, and how many rows.

    Raises
    ------
    BadTableError
        With all problems of all tables.
    """
    dropped: dict[str, int] = {}
    problems = _unread(tables, drop=bad_rows == "drop", dropped=dropped)
    rules = {
        "interactions": checks.interaction_rules(tables.interactions.columns, scale, weights=weights),
        "items": _item_rules(tables.items),
        "users": checks.USER_RULES,
    }
    for name, table_rules in rules.items():
        if getattr(tables, name) is not None:
            checked, found = _check_one(tables, name, table_rules, drop=bad_rows == "drop", dropped=dropped)
            setattr(tables, name, checked)
            problems += found
    unknown = _unknown_items(tables) if missing_items != "keep" else np.zeros(0, bool)
    if unknown.any() and (missing_items == "raise" or unknown.all()):
        problems.append(checks.unknown_items_sentence(tables, unknown))
    if problems:
        raise checks.BadTableError(problems)
    if unknown.any():
        dropped[f"rows whose item {tables.file('items')} lacks"] = int(unknown.sum())
        tables.interactions = tables.interactions[~unknown].reset_index(drop=True)
    _drop_duplicates(tables, duplicates, dropped)
    return dropped


def _unread(tables: RawTables, *, drop: bool, dropped: dict[str, int]) -> list[str]:
    """What could not be read, a sentence each; none if it may be left out and there is something beside it."""
    file, sentences = tables.file("interactions"), list(tables.trouble.sentences)
    if not sentences and not len(tables.interactions):
        return [f"{file} holds no rows"]
    if not drop or not len(tables.interactions):
        return sentences
    _warn(sentences)
    if skipped := len(tables.trouble.skipped.get(file, ())):
        dropped[f"lines of {file} that cannot be read"] = skipped
    return []


def _unknown_items(tables: RawTables) -> np.ndarray:
    """Rows of the interactions whose item has no row of its own, (n_rows,) bool; none where there is no such table."""
    frames = (tables.interactions, tables.items)
    if any(frame is None or "item_id" not in frame for frame in frames):
        return np.zeros(0, bool)
    return checks.unknown_items(*frames)


def _item_rules(items: pd.DataFrame | None) -> list[checks.Rule]:
    return [*checks.ITEM_RULES, *([checks.YEAR] if items is not None and "year" in items else [])]


def _warn(sentences: list[str]) -> None:
    for sentence in sentences:
        _log.warning(sentence)


def _check_one(
    tables: RawTables, name: str, rules: Sequence[checks.Rule], *, drop: bool, dropped: dict[str, int]
) -> tuple[pd.DataFrame, list[str]]:
    """Check the types of one table's columns, then the values of the rows whose types are right.

    Returns
    -------
    (DataFrame, list of str)
        The table with the types that it should have, and the problems that forbid to go on.
    """
    frame, file, own = getattr(tables, name), tables.file(name), name == "interactions"
    if own and not len(frame.columns):
        return frame, []  # an empty file, which the reader has named
    how = {"trouble": tables.trouble, "columns": tables.columns if own else ()}
    first = tables.first_line if own else 1 + (tables.first_line == 2)
    types = checks.check(frame, checks.type_rules(frame.columns, whole_ids=tables.whole_ids), file, first, **how)
    numeric = frame.assign(
        **{column: pd.to_numeric(frame[column], errors="coerce") for column in _numbers(frame, tables)}
    )
    values = checks.check(numeric[~types.bad] if types.bad.any() else numeric, rules, file, first, **how)
    bad = types.bad.copy()
    bad[~types.bad] |= values.bad
    found = types.problems + values.problems
    if found and (not drop or values.lacking or bad.all()):
        return frame, found
    if bad.any():
        dropped[f"rows of {file} with missing or impossible values"] = int(bad.sum())
        _warn(found)
        numeric = numeric[~bad].reset_index(drop=True)
    return _typed(numeric), []


def _numbers(frame: pd.DataFrame, tables: RawTables) -> list[str]:
    """Columns that should be numbers and are not yet."""
    wanted = ("rating", "timestamp", "year", *(("user_id", "item_id") if tables.whole_ids else ()))
    there = [column for column in wanted if column in frame]
    return [column for column in there if not pd.api.types.is_numeric_dtype(frame[column].dtype)]


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The types that the tables' columns have everywhere."""
    types = {"rating": np.float32, "timestamp": np.int64, "year": "Int16"}
    ids = [column for column in ("user_id", "item_id") if column in frame]
    types |= {column: np.int64 for column in ids if pd.api.types.is_numeric_dtype(frame[column].dtype)}
    changed = {column: kind for column, kind in types.items() if column in frame and frame[column].dtype != kind}
    return frame.astype(changed) if changed else frame


def _pair_keys(frame: pd.DataFrame) -> np.ndarray:
    """A number for each pair of user and item, (n_rows,) int64."""
    users, items = frame["user_id"], frame["item_id"]
    if users.dtype.kind == "i" and items.dtype.kind == "i" and min(users.min(), items.min()) >= 0:
        width = int(items.max()) + 1
        if (int(users.max()) + 1) * width < 2**63:
            return users.to_numpy() * np.int64(width) + items.to_numpy()
    user, item = (pd.factorize(values)[0].astype(np.int64) for values in (users, items))
    return user * (item.max() + 1) + item


def _drop_duplicates(tables: RawTables, duplicates: str, dropped: dict[str, int]) -> None:
    """Leave each pair of user and item once."""
    frame = tables.interactions
    keys = _pair_keys(frame)
    ordered = np.sort(keys)
    if not (ordered[1:] == ordered[:-1]).any():
        return
    order = np.lexsort((frame["timestamp"], keys)) if "timestamp" in frame else np.argsort(keys, kind="stable")
    last = np.append(keys[order][1:] != keys[order][:-1], True)
    rows = order[last]
    if duplicates == "sum":
        starts = np.flatnonzero(np.append(True, last[:-1]))
        sums = np.add.reduceat(frame["rating"].to_numpy(np.float64)[order], starts)
        frame = frame.assign(rating=pd.Series(sums.astype(np.float32), index=rows).reindex(frame.index))
    what = "added to another" if duplicates == "sum" else "before the last one"
    dropped[f"rows {what} of the same user and item"] = len(keys) - len(rows)
    tables.interactions = frame.iloc[np.sort(rows)].reset_index(drop=True).astype({"rating": np.float32})


def complete_items(items: pd.DataFrame | None, interactions: pd.DataFrame) -> pd.DataFrame:
    """One row for every item: those without one, or without a title, get their id as title."""
    ids = pd.Series(interactions["item_id"].unique(), name="item_id")
    if items is not None:
        ids = ids[~ids.isin(items["item_id"])]
        items = items.assign(title=items["title"].fillna(items["item_id"].astype("str")))
        if not len(ids):
            return items
    ids = ids.sort_values(ignore_index=True)
    years = pd.array([pd.NA] * len(ids), dtype="Int16")
    bare = pd.DataFrame({"item_id": ids, "title": ids.astype("str"), "year": years, "genres": [[] for _ in ids]})
    return bare if items is None else pd.concat([items, bare], ignore_index=True)


def complete_users(users: pd.DataFrame | None, interactions: pd.DataFrame) -> pd.DataFrame:
    """One row for every user of the interactions, in the order of their ids."""
    ids = pd.DataFrame({"user_id": interactions["user_id"].unique()}).sort_values("user_id", ignore_index=True)
    return ids if users is None else ids.merge(users, on="user_id", how="left")
