"""``load_dataset``: from a name or a path to checked tables."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from recsys_lib.datasets import checks
from recsys_lib.datasets.archives import unpacked
from recsys_lib.datasets.catalogue import KNOWN
from recsys_lib.datasets.grouplens import find_root
from recsys_lib.datasets.own import WEIGHT, is_table, read_own
from recsys_lib.datasets.sources import Source, find_known, folder_source, resolve
from recsys_lib.datasets.tables import Dataset, RawTables, identity
from recsys_lib.paths import Paths, run_name

Scale = tuple[float, float]
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
        The name of a known MovieLens data set (:data:`recsys_lib.datasets.KNOWN`), or a path: a folder or a zip
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
    source, name, known_scale = _find(str(dataset), given)
    tables = source.read()
    for note in tables.notes:
        _log.info(note)
    explicit = _take_feedback(tables, implicit=implicit, duplicates=duplicates)
    scale = (rating_scale or known_scale or _grouplens_scale(source, tables)) if explicit else None
    dropped: dict[str, int] = {}
    _checked(tables, scale, weights=not explicit, drop=bad_rows == "drop", dropped=dropped)
    _drop_duplicates(tables, duplicates, dropped)
    _settle_items(tables, missing_items, dropped)
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
    name = run_name(dataset)
    source = _source_of(path, Paths(dataset).raw, given, plain=not own)
    return source, name, KNOWN[name].rating_scale if name in KNOWN and not own else None


def _source_of(path: Path, raw: Path, given: dict[str, object], *, plain: bool) -> Source:
    """A folder, an archive or a table that a person brought."""
    folder, words = path, f"the {'folder' if path.is_dir() else 'file'} {path.name}"
    if path.is_file() and zipfile.is_zipfile(path):
        folder, words = unpacked(path, raw), f"the archive {path.name}"
    elif path.name in ("u.data", "ratings.dat"):
        folder = path.parent
    if folder.is_dir() and plain and find_root(folder):
        return Source(folder_source(folder, words).read, words, path)
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


def _grouplens_scale(source: Source, tables: RawTables) -> Scale | None:
    """Scale of a MovieLens folder of an unknown name: whole stars, or halves where a rating is no whole star."""
    if "interactions" not in tables.files or tables.files["interactions"].name not in ("u.data", "ratings.dat"):
        return None
    ratings = pd.to_numeric(tables.interactions["rating"], errors="coerce")
    return (0.5, 5.0) if (ratings % 1).gt(0).any() else (1.0, 5.0)


def _take_feedback(tables: RawTables, *, implicit: bool, duplicates: str) -> bool:
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


def _checked(tables: RawTables, scale: Scale | None, *, weights: bool, drop: bool, dropped: dict[str, int]) -> None:
    """Check all tables; raise with all problems, or leave the bad rows out."""
    rules = checks.interaction_rules(tables.interactions.columns, scale, weights=weights)
    problems, file = list(tables.trouble.sentences), tables.file("interactions")
    if not problems and not len(tables.interactions):
        problems.append(f"{file} holds no rows")
    if drop and len(tables.interactions):
        _warn(problems)
        problems = []
        if skipped := len(tables.trouble.skipped.get(file, ())):
            dropped[f"lines of {file} that cannot be read"] = skipped
    tables.interactions, found = _check_one(tables, "interactions", rules, drop=drop, dropped=dropped)
    problems += found
    for name, table_rules in (("items", _item_rules(tables.items)), ("users", checks.USER_RULES)):
        if getattr(tables, name) is not None:
            checked, found = _check_one(tables, name, table_rules, drop=drop, dropped=dropped)
            setattr(tables, name, checked)
            problems += found
    if problems:
        raise checks.BadTableError(problems)


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


def _settle_items(tables: RawTables, missing_items: str, dropped: dict[str, int]) -> None:
    """See that every item of the interactions has its row in the table of items, where there is one."""
    if tables.items is None or missing_items == "keep":
        return
    unknown = checks.unknown_items(tables.interactions, tables.items)
    if not unknown.any():
        return
    if missing_items == "raise" or unknown.all():
        raise checks.BadTableError([checks.unknown_items_sentence(tables, unknown)])
    dropped[f"rows whose item {tables.file('items')} lacks"] = int(unknown.sum())
    tables.interactions = tables.interactions[~unknown].reset_index(drop=True)


def _finished(tables: RawTables, source: Source, name: str, scale: Scale | None, dropped: dict[str, int]) -> Dataset:
    """Give every item and every user a row, and the data its identity."""
    return Dataset(
        name=name,
        interactions=tables.interactions,
        items=complete_items(tables.items, tables.interactions),
        users=complete_users(tables.users, tables.interactions),
        sha256=identity(tables.interactions),
        rating_scale=scale,
        source=source.words,
        path=source.path,
        tags=tables.tags,
        links=tables.links,
        dropped=dropped,
    )


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
