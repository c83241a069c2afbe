"""Tables of one's own: CSV, TSV or parquet, with any column names, with or without ratings and timestamps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from recsys_lib.data.delimited import as_numbers, first_line, header_of, read_typed
from recsys_lib.data.tables import RawTables
from recsys_lib.data.titles import split_genres

ENDINGS = (".csv", ".tsv", ".txt", ".data", ".parquet", ".csv.gz", ".tsv.gz")
WEIGHT = "weight"
_WANTED = ("user_id", "item_id", "rating", WEIGHT, "timestamp")
_STEMS = {
    "interactions": ("interactions", "ratings", "events", "plays"),
    "items": ("items", "movies"),
    "users": ("users", "people"),
}
# spellings that are understood without a mapping, letters and digits only, lower case
_SPELLINGS = {
    "user_id": ("userid", "user"),
    "item_id": ("itemid", "item", "movieid", "movie"),
    "rating": ("rating", "stars"),
    "timestamp": ("timestamp", "time"),
    "title": ("title",),
    "genres": ("genres",),
    "year": ("year",),
}


def is_table(path: Path) -> bool:
    """Whether the name ends as that of a table does."""
    return path.is_file() and path.name.lower().endswith(ENDINGS)


def read_own(
    path: Path,
    columns: Mapping[str, str] | None = None,
    items: Path | None = None,
    users: Path | None = None,
) -> RawTables:
    """Read a table of interactions, or a folder of tables, under the lab's column names.

    Parameters
    ----------
    path
        A file, or a folder that holds one called interactions, ratings, events or plays (or a single table),
        and perhaps items or movies, users or people.
    columns
        ``{"their": "ours"}``, for all tables; ours are user_id, item_id, rating, weight, timestamp, title, year and
        genres.
    items, users
        Files of items and of people.

    Raises
    ------
    FileNotFoundError
        If the folder holds no table of interactions.
    ValueError
        If a mapping does not fit a column.
    """
    files = _files_of(path) if path.is_dir() else {"interactions": path}
    files |= {name: file for name, file in (("items", items), ("users", users)) if file is not None}
    columns = dict(columns or {})
    foreign = [
        f"{theirs!r} maps to {ours!r}" for theirs, ours in columns.items() if ours not in (*_WANTED, *_SPELLINGS)
    ]
    if foreign:
        raise ValueError(f"columns: {foreign[0]}, which is none of {', '.join((*_WANTED, 'title', 'year', 'genres'))}")
    tables = RawTables(pd.DataFrame(), files=files, first_line=1 if _is_parquet(files["interactions"]) else 2)
    tables.columns = _header(files["interactions"])
    read = {name: _read(file, name, columns, tables) for name, file in files.items()}
    _mapping_fits(columns, files)
    tables.interactions = read["interactions"]
    tables.items = _as_items(read["items"]) if "items" in read else None
    tables.users = read.get("users")
    _agree_on_ids([table for table in (tables.interactions, tables.items, tables.users) if table is not None])
    return tables


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(".parquet")


def _files_of(folder: Path) -> dict[str, Path]:
    """Which table is in which file of a folder."""
    tables = sorted(file for file in folder.iterdir() if is_table(file))
    found = {}
    for name, stems in _STEMS.items():
        named = [file for stem in stems for file in tables if file.name.lower().split(".")[0] == stem]
        if named:
            found[name] = named[0]
    rest = [file for file in tables if file not in found.values()]
    if "interactions" not in found and len(rest) == 1:
        found["interactions"] = rest[0]
    if "interactions" not in found:
        names = ", ".join(f"{stem}.csv" for stem in _STEMS["interactions"])
        raise FileNotFoundError(f"{folder} holds no table of interactions: call it one of {names} (or .tsv, .parquet)")
    return found


def _delimiter(path: Path) -> str:
    """The separator of a file's first line that comes most often; a comma in doubt."""
    line = first_line(path)
    return max((",", "\t", ";", "|"), key=line.count)


def _header(path: Path) -> list[str]:
    """Column names of a table."""
    return parquet.read_schema(path).names if _is_parquet(path) else header_of(path, _delimiter(path))


def _mapping_fits(columns: Mapping[str, str], files: Mapping[str, Path]) -> None:
    """Refuse a mapping from a column that no table has."""
    present = {column for file in files.values() for column in _header(file)}
    lacking = [theirs for theirs in columns if theirs not in present]
    if lacking:
        names = " and ".join(file.name for file in files.values())
        raise ValueError(f"{names} have no column {lacking[0]!r} to map; the columns are {', '.join(sorted(present))}")


def our_names(present: Iterable[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Our name of each column that is understood: by the mapping, else by its spelling.

    >>> our_names(["User ID", "track", "plays"], {"track": "item_id", "plays": "weight"})
    {'track': 'item_id', 'plays': 'weight', 'User ID': 'user_id'}
    """
    present = list(present)
    found = {theirs: columns[theirs] for theirs in present if theirs in columns}
    twice = [theirs for theirs, ours in found.items() if list(found.values()).count(ours) > 1]
    if twice:
        raise ValueError(f"columns: {twice[0]!r} and {twice[1]!r} of the same table both map to {found[twice[0]]!r}")
    for ours, spellings in _SPELLINGS.items():
        if ours in present and ours not in found and ours not in found.values():
            found[ours] = ours
        like = [name for name in present if "".join(filter(str.isalnum, str(name))).lower() in spellings]
        if ours not in found.values() and like and like[0] not in found:
            found[like[0]] = ours
    if WEIGHT in present and WEIGHT not in found:
        found[WEIGHT] = WEIGHT
    return found


def _read(path: Path, table: str, columns: Mapping[str, str], tables: RawTables) -> pd.DataFrame:
    """Read one file; of the interactions only the columns that are understood."""
    present = _header(path)
    names = our_names(present, columns)
    wanted = {theirs: ours for theirs, ours in names.items() if table != "interactions" or ours in _WANTED}
    guessed = {theirs: ours for theirs, ours in wanted.items() if theirs != ours and theirs not in columns}
    if guessed:
        taken = ", ".join(f"{theirs!r} as {ours}" for theirs, ours in guessed.items())
        tables.notes.append(f"{path.name}: took {taken}")
    only = [theirs for theirs in present if theirs in wanted or table != "interactions"]
    left = [theirs for theirs in present if theirs not in only]
    if left:
        tables.notes.append(f"{path.name}: left out the columns {', '.join(left)}")
    frame = _parquet(path, only) if _is_parquet(path) else _text(path, only, wanted, tables)
    frame = frame.rename(columns=wanted)
    return frame.assign(timestamp=_seconds(frame["timestamp"])) if "timestamp" in frame else frame


def _parquet(path: Path, only: list[str]) -> pd.DataFrame:
    return parquet.read_table(path, columns=only).to_pandas(ignore_metadata=True)


def _text(path: Path, only: list[str], names: Mapping[str, str], tables: RawTables) -> pd.DataFrame:
    """Read delimited text: ids as text first, so that "007" stays what it is."""
    types = {theirs: pa.string() for theirs, ours in names.items() if ours in ("user_id", "item_id", "title", "genres")}
    types |= {theirs: pa.float32() for theirs, ours in names.items() if ours in ("rating", WEIGHT)}
    return read_typed(path, types, delimiter=_delimiter(path), only=only, trouble=tables.trouble)


def _seconds(values: pd.Series) -> pd.Series:
    """Timestamps as UNIX seconds: dates are turned into them (UTC where they name no zone), numbers are cut to whole.

    What is neither stays as it is, for the checks to name.

    >>> _seconds(pd.Series(["1970-01-01 00:01:00", "1970-01-02"])).tolist()
    [60, 86400]
    >>> _seconds(pd.Series([12.7, 3.0])).tolist()
    [12, 3]
    """
    if pd.api.types.is_bool_dtype(values.dtype):
        return values.astype("str")
    if pd.api.types.is_float_dtype(values.dtype):
        whole = np.floor(values)
        return whole.astype(np.int64) if np.isfinite(whole).all() else whole
    if pd.api.types.is_numeric_dtype(values.dtype):
        return values
    numbers = as_numbers(values, pa.float64()) if not _is_date(values) else values
    if pd.api.types.is_numeric_dtype(numbers.dtype):
        return _seconds(numbers)
    dates = pd.to_datetime(values, utc=True, errors="coerce", format=None if _is_date(values) else "ISO8601")
    if (dates.isna() & values.notna()).any():
        return values
    seconds = dates.astype("datetime64[s, UTC]").astype(np.int64)
    return seconds.astype(float).mask(dates.isna()) if dates.isna().any() else seconds


def _is_date(values: pd.Series) -> bool:
    return pd.api.types.is_datetime64_any_dtype(values.dtype)


def _agree_on_ids(frames: list[pd.DataFrame]) -> None:
    """Make ids integers where every table writes them as such; else text in all of them."""
    for column in ("user_id", "item_id"):
        holders = [frame for frame in frames if column in frame]
        whole = all(are_whole(frame[column]) for frame in holders)
        for frame in holders:
            frame[column] = as_ids(frame[column], whole=whole)


def are_whole(ids: pd.Series) -> bool:
    """Whether ids are integers, or text that gives the same text back when read as integers.

    >>> are_whole(pd.Series(["7", "12"])), are_whole(pd.Series(["007", "12"])), are_whole(pd.Series(["a"]))
    (True, False, False)
    """
    if pd.api.types.is_bool_dtype(ids.dtype) or _is_date(ids):
        return False
    if pd.api.types.is_integer_dtype(ids.dtype):
        return ids.empty or int(ids.max()) <= np.iinfo(np.int64).max
    if pd.api.types.is_float_dtype(ids.dtype):
        there = ids.dropna()
        return bool((np.isfinite(there) & (there % 1 == 0)).all())
    return _same_after_reading(ids.head(1000)) and _same_after_reading(ids)  # the first rows mostly tell


def _same_after_reading(ids: pd.Series) -> bool:
    """Whether text read as integers and written again is the same text."""
    try:
        text = pc.cast(pa.array(ids), pa.large_string())
        again = pc.cast(pc.cast(text, pa.int64()), pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return False
    return again.equals(text)


def as_ids(ids: pd.Series, *, whole: bool) -> pd.Series:
    """Ids as int64, or as text; missing ones stay missing."""
    missing = ids.isna()
    if whole:
        numbers = pd.to_numeric(ids)
        return numbers if missing.any() else numbers.astype(np.int64)
    if isinstance(ids.dtype, pd.StringDtype):
        return ids
    return ids.map(str).astype("str").mask(missing)


def _as_items(items: pd.DataFrame) -> pd.DataFrame:
    """Items with the columns that every items' table has."""
    if "item_id" not in items:
        return items
    n = len(items)
    title = items["title"].astype("str") if "title" in items else pd.Series([None] * n, dtype="str")
    lists = pd.Series([[] for _ in range(n)], dtype=object)
    if "genres" in items:
        texts = items["genres"].dropna().map(lambda value: isinstance(value, str)).all()
        lists = split_genres(items["genres"].astype("str")) if texts else items["genres"].map(_list)
    year = items["year"] if "year" in items else pd.Series(pd.array([pd.NA] * n, dtype="Int16"))
    first = pd.DataFrame({"item_id": items["item_id"], "title": title, "year": year, "genres": lists})
    return pd.concat([first, items.drop(columns=list(first.columns), errors="ignore")], axis=1)


def _list(value: object) -> list[str]:
    """A cell of genres as a list; what is missing is an empty one."""
    return [str(name) for name in value] if isinstance(value, list | tuple | np.ndarray) else []
