"""Cells of tables as the lab has them: ids of one kind, numbers, seconds, titles without year, lists of genres."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys_lib.data.interactions import MISSING

NO_GENRE = ("unknown", "(no genres listed)", "")
UNIT_SECONDS = {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "days": 86_400}
_NUMBERS = {"timestamp": "iufM", "position": "iuf", "user_id": "iuf", "item_id": "iuf"}  # dtypes that are kept
_DAYS = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y", "%b %d, %Y", "%m %d, %Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_THUMBS = dict.fromkeys(("true", "yes", "y", "up", "like", "liked", "good", "positive", "+", "👍"), 1.0)
_THUMBS |= dict.fromkeys(("false", "no", "n", "down", "dislike", "disliked", "bad", "negative", "-", "👎"), 0.0)
# the last four digits in brackets, or a span of years; after it at most one more bracket, such as "(V)" for video
_YEAR = r"^(?P<title>.*?)\s*\((?P<year>\d{4})(?:\s*[–-]\s*\d{0,4})?\)\s*(?P<rest>\([^()]*\))?$"


# titles and genres


def split_year(titles: pd.Series) -> pd.DataFrame:
    """Title (without the year, single spaces) and year (Int16, may be missing) of titles such as "Toy Story (1995)".

    >>> split_year(pd.Series(["Godfather, The (1972)", "Seven (Se7en) (1995)", "Babylon 5"]))
                title  year
    0  Godfather, The  1972
    1   Seven (Se7en)  1995
    2       Babylon 5  <NA>
    """
    plain = titles.str.replace(r"\s+", " ", regex=True).str.strip()
    parts = plain.str.extract(_YEAR)
    title = (parts["title"] + (" " + parts["rest"]).fillna("")).str.strip()
    year = pd.to_numeric(parts["year"], errors="coerce").astype("Int16")
    return pd.DataFrame({"title": title.where(parts["year"].notna(), plain), "year": year})


def genre_lists(cells: pd.Series) -> pd.Series:
    """Lists of genres from lists, from texts of lists (Python's or JSON's, also of objects with a name), or joined texts.

    What is missing, or says "no genre", gives an empty list.

    >>> genre_lists(pd.Series(["A, B", None, "unknown"])).tolist()
    [['A', 'B'], [], []]
    >>> genre_lists(pd.Series(["['A', 'B']", '[{"id": 1, "name": "A"}]'])).tolist()
    [['A', 'B'], ['A']]
    """  # noqa: E501
    texts = cells.dropna()
    if not texts.map(lambda cell: isinstance(cell, str)).all():
        return cells.map(_names)
    if texts.str.startswith("[").any():
        return cells.map(lambda cell: _names(literal(cell)) if isinstance(cell, str) else [])
    separator = next((mark for mark in ("|", ";", ",") if texts.str.contains(mark, regex=False).any()), "|")
    code, distinct = pd.factorize(cells.astype("str").fillna(""))  # few texts, many items
    lists = [[name.strip() for name in text.split(separator) if name.strip() not in NO_GENRE] for text in distinct]
    return pd.Series([list(lists[place]) for place in code], cells.index, dtype=object)


def literal(text: str) -> object:
    """The list or the object that a text writes, in JSON or in Python; the text alone in a list if it is neither."""
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return read(text.strip())
    return [text]


def _names(cell: object) -> list[str]:
    values = cell if isinstance(cell, list | tuple | np.ndarray) else []
    return [str(value.get("name", value) if isinstance(value, dict) else value) for value in values]


# numbers and times


def plain_cells(values: pd.Series, ours: str, where: str) -> pd.Series:
    """A typed column as plain numbers, or as texts and numbers with missing ones missing; dates stay dates of a timestamp.

    ValueError, which begins with ``where``, for lists or structs.
    """  # noqa: E501
    own = isinstance(values.dtype, np.dtype)
    if isinstance(values.dtype, pd.StringDtype):
        values = values.astype("str")  # with NaN for what is missing
    elif not own and values.dtype.kind in "iuf" and values.notna().all():
        return pd.Series(values.to_numpy())
    elif not (values.dtype.kind in _NUMBERS.get(ours, "iufb") and (own or values.dtype.kind == "M")):
        cells = values.astype(object)
        nested = next((cell for cell in cells if isinstance(cell, list | tuple | set | dict | np.ndarray)), None)
        if nested is not None:
            shown = nested.tolist() if isinstance(nested, np.ndarray) else nested
            raise ValueError(f"{where} holds {shown}, not single values: DataFrame.explode makes a row of each {ours}")
        values = pd.Series([_as_text(cell) for cell in cells], dtype=object)  # whole numbers stay whole
    return values if values.dtype.kind in "iufbM" else values.mask(values.isin(MISSING))


def _as_text(cell: object) -> object:
    """A cell as text, where it is no number."""
    if isinstance(cell, str | int | float | np.number) and not isinstance(cell, bool):
        return cell
    if isinstance(cell, bytes):
        with suppress(UnicodeDecodeError):
            return cell.decode()
    if pd.isna(cell):
        return None
    return f"{cell:f}" if isinstance(cell, Decimal) else str(cell)


def as_numbers(values: pd.Series) -> pd.Series:
    """Ratings or weights from texts, float32; cells that are none stay what they are, missing ones missing.

    Fractions may be written with a comma, unless all of them could be thousands: "1,234". Where no cell is a number,
    thumbs are: "yes", "up", "true" are 1, "no", "down", "false" are 0.

    >>> as_numbers(pd.Series(["4,5", "3"])).tolist(), as_numbers(pd.Series(["up", "Down"])).tolist()
    ([4.5, 3.0], [1.0, 0.0])
    >>> as_numbers(pd.Series(["1", "two"])).tolist()
    [1.0, 'two']
    """
    if pd.api.types.is_numeric_dtype(values.dtype):
        return values
    numbers = pd.to_numeric(values, errors="coerce")
    if (numbers.isna() & values.notna()).any():
        texts = values.astype("str").str.strip()
        if texts.str.contains(r"^[+-]?(?:0,\d+|\d+,(?:\d{1,2}|\d{4,}))$").any():
            numbers = pd.to_numeric(texts.str.replace(r"^([+-]?\d+),(\d+)$", r"\1.\2", regex=True), errors="coerce")
        numbers = numbers if numbers.notna().any() else texts.str.lower().map(_THUMBS).astype(float)
    strange = numbers.isna() & values.notna()
    return numbers.astype(object).mask(strange, values) if strange.any() else numbers.astype(np.float32)


def as_seconds(values: pd.Series, unit: str = "s") -> pd.Series:
    """Timestamps as whole UNIX seconds: dates are turned into them (UTC where they name no zone), numbers cut.

    What is neither stays as it is, for the checks to name. Whole numbers such as 20030501 are dates.

    >>> as_seconds(pd.Series(["1970-01-01 00:01:00", "1970-01-02", "86401"])).tolist()
    [60, 86400, 86401]
    >>> as_seconds(pd.Series([12.7, 3.0])).tolist(), as_seconds(pd.Series([19700102])).tolist()
    ([12, 3], [86400])
    >>> as_seconds(pd.Series(["05/13/1970", "n/a"])).tolist()
    [11404800.0, 'n/a']
    """
    if values.dtype.kind == "M":
        return _since_1970(pd.to_datetime(values, utc=True))
    if not pd.api.types.is_numeric_dtype(values.dtype):
        numbers = pd.to_numeric(values, errors="coerce")
        dates = _since_1970(_dates(values.mask(numbers.notna()).astype("str")))
        seconds = as_seconds(numbers, unit).where(numbers.notna(), dates)
        strange = seconds.isna() & values.notna()
        if strange.any():
            return seconds.astype(object).mask(strange, values)
    elif unit == "s" and (dates := _days(values)) is not None:
        return dates
    elif unit == "s" and values.dtype.kind in "iu":
        return values
    else:
        seconds = np.floor(values * UNIT_SECONDS[unit])
    return seconds.astype(np.int64) if seconds.abs().lt(2**62).all() else seconds


def _days(values: pd.Series) -> pd.Series | None:
    """Seconds of days that are written such as 20030501, or of years alone; None where one is neither."""
    low, high, form = values.min(), values.max(), "%Y%m%d"
    if 1900 <= low <= high <= 2100 and not (values % 1).any():
        form = "%Y"
    elif not 19_000_101 <= low <= high <= 21_001_231:
        return None
    if values.hasnans:
        return None
    dates = pd.to_datetime(values.astype("int64").astype("str"), format=form, utc=True, errors="coerce")
    return _since_1970(dates) if dates.notna().all() else None


def _since_1970(dates: pd.Series) -> pd.Series:
    seconds = dates.astype("datetime64[s, UTC]").astype(np.int64)
    return seconds.astype(float).mask(dates.isna()) if dates.isna().any() else seconds


def _dates(texts: pd.Series) -> pd.Series:
    """Dates of texts, in ISO's form or in the one local form that fits; missing where none does, or two that differ."""

    def read(texts: pd.Series, form: str) -> pd.Series:
        return pd.to_datetime(texts, utc=True, errors="coerce", format=form)

    dates = read(texts, "ISO8601")
    rest = texts[dates.isna() & texts.notna()]
    forms = [day + clock for day in _DAYS for clock in _CLOCKS]
    tried = [read(rest, form) for form in forms if read(rest.head(1000), form).notna().any()]
    most = max((dates.notna().sum() for dates in tried), default=0)
    best = [dates for dates in tried if dates.notna().sum() == most]
    return dates.fillna(best[0]) if best and all(other.equals(best[0]) for other in best) else dates


# ids


def agree_on_ids(frames: Iterable[pd.DataFrame | None], *, whole: bool = False) -> None:
    """Make ids integers where every table writes them as such ("10.0" too); else text in all of them.

    Where the format has ``whole`` ids, cells that are none stay as they are, for the checks to name.
    """
    for column in ("user_id", "item_id"):
        holders = [frame for frame in frames if frame is not None and column in frame]
        numbers = [whole_ids(frame[column]) for frame in holders]
        for frame, whole_numbers in zip(holders, numbers, strict=True):
            ids = frame[column]
            if all(each is not None for each in numbers):
                frame[column] = whole_numbers
            elif whole:
                parsed = pd.to_numeric(ids, errors="coerce")
                frame[column] = parsed.astype(object).mask(parsed.isna() & ids.notna(), ids)
            elif not isinstance(ids.dtype, pd.StringDtype):
                frame[column] = ids.map(str).astype("str").mask(ids.isna())


def whole_ids(ids: pd.Series) -> pd.Series | None:
    """Ids as whole numbers, where each is one: an integer, or text that says the same as it; ".0" and blanks aside.

    >>> [whole_ids(pd.Series(ids)) is not None for ids in (["7", "12"], ["10.0", "7"], ["007", "12"], ["a"])]
    [True, True, False, False]
    """
    if ids.dtype.kind in "iu":
        return ids.astype(np.int64) if not len(ids) or int(ids.max()) <= np.iinfo(np.int64).max else None
    if ids.dtype.kind == "f":
        whole = (ids.isna() | ids.mod(1).eq(0) | np.isinf(ids)).all()
        unsafe = ids.isna().any() or (ids.abs() > 2**53).any()  # refused by the checks
        return None if not whole else ids if unsafe else ids.astype(np.int64)
    if not isinstance(ids.dtype, pd.StringDtype):
        ids = ids.map(str, na_action="ignore").astype("str")
    texts = pa.array(ids, pa.large_string())
    numbers = canonical(texts)
    if numbers is None:
        numbers = canonical(pc.replace_substring_regex(texts, r"^[\s\x{a0}]+|(\.0+)?[\s\x{a0}]*$", ""))
    if numbers is None or not numbers.null_count:
        return None if numbers is None else pd.Series(numbers.to_numpy(), index=ids.index)
    return pd.Series(numbers.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get).array, index=ids.index)


def canonical(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray | None:
    """Whole numbers from texts, where each is how the number is written: "007", "+7" and "7.0" are not.

    >>> canonical(pa.chunked_array([["7", "-12"]])).to_pylist(), canonical(pa.chunked_array([["7", "012"]]))
    ([7, -12], None)
    """
    with suppress(pa.ArrowInvalid):
        numbers = pc.cast(texts, pa.int64())  # which takes no blanks, no sign but a minus, and hexadecimal ones
        zeros = texts.filter(pc.or_(pc.starts_with(texts, "0"), pc.starts_with(texts, "-0")))
        if pc.all(pc.equal(zeros, "0"), min_count=0).as_py():
            return numbers
    return None
