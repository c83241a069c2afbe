"""Delimited text into tables, by pyarrow's reader: typed columns, both cores, no Python loop over rows."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from csv import reader
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from recsys_lib.data.tables import Trouble

_BLOCK_BYTES = 16 << 20
_SHOWN = 3


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Bytes of a file, unpacked if it is a compressed one."""
    with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else nullcontext(raw) as handle:
        yield handle


def encoding_of(path: Path) -> str:
    """UTF-8 if the whole file is; else Latin-1, which older MovieLens files are written in."""
    with _opened(path) as handle:
        content = handle.read()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig" if content.startswith(b"\xef\xbb\xbf") else "utf-8"


def read_lines(path: Path) -> pd.Series:
    """Lines of a small text file that are not empty, as text."""
    lines = path.read_text(encoding=encoding_of(path)).split("\n")
    return pd.Series([line.rstrip("\r") for line in lines if line.strip()], dtype="str")


def first_line(path: Path) -> str:
    """First line of a text file, without its end and a byte-order mark; empty if the file is."""
    with _opened(path) as handle:
        return handle.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n")


def header_of(path: Path, delimiter: str) -> list[str]:
    """Names in the first line of a delimited file."""
    line = first_line(path)
    return next(reader([line], delimiter=delimiter)) if line else []


def read_typed(
    path: Path,
    types: Mapping[str, pa.DataType],
    *,
    delimiter: str = ",",
    names: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    quoted: bool = True,
    newlines: bool = False,
    trouble: Trouble | None = None,
) -> pd.DataFrame:
    """Read a delimited file, the columns that are named in ``types`` with those types.

    A file that does not fit is read once more, slower, as text: numeric columns whose values are not all numbers
    stay text, so that a check can name the rows, and lines with another number of fields are left out and named in
    ``trouble``.

    Parameters
    ----------
    path
        A file with one row a line; compressed ones (``.gz``) are read as they are.
    types
        Arrow types by column; others are found out.
    names
        Column names of a file that has no header line.
    only
        Columns to keep; the others are not even converted. Those that the file lacks are left out.
    quoted
        Whether double quotes can hold a delimiter.
    newlines
        Whether they can hold the end of a line, which is slower.
    trouble
        Takes a sentence for each thing that keeps lines from being read; without it that is an error.

    Raises
    ------
    ValueError
        If lines cannot be read and there is no ``trouble``.
    """
    present = list(names or header_of(path, delimiter))
    if not present:
        return _nothing(path, trouble)
    kept = [name for name in (only or present) if name in present]
    types = {name: kind for name, kind in types.items() if name in kept}
    parse = csv.ParseOptions(delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=newlines)
    options = {"names": names, "kept": kept, "parse": parse}
    try:
        return _frame(path, types, **options)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return _read_loosely(path, types, trouble, **options)


def _frame(
    path: Path,
    types: Mapping[str, pa.DataType],
    *,
    names: Sequence[str] | None,
    kept: list[str],
    parse: csv.ParseOptions,
    encoding: str = "utf8",
    threads: bool = True,
) -> pd.DataFrame:
    """Read with pyarrow, and hand the memory over to pandas column by column."""
    table = csv.read_csv(
        path,
        read_options=csv.ReadOptions(
            block_size=_BLOCK_BYTES, column_names=list(names) if names else None, encoding=encoding, use_threads=threads
        ),
        parse_options=parse,
        convert_options=csv.ConvertOptions(
            column_types=types, include_columns=kept, null_values=[""], strings_can_be_null=True
        ),
    )
    return table.to_pandas(split_blocks=True, self_destruct=True)


def _nothing(path: Path, trouble: Trouble | None) -> pd.DataFrame:
    """What an empty file gives."""
    _say(trouble, f"{path.name} is empty")
    return pd.DataFrame()


def _say(trouble: Trouble | None, sentence: str) -> None:
    if trouble is None:
        raise ValueError(sentence)
    trouble.sentences.append(sentence)


def _read_loosely(
    path: Path,
    types: Mapping[str, pa.DataType],
    trouble: Trouble | None,
    *,
    names: Sequence[str] | None,
    kept: list[str],
    parse: csv.ParseOptions,
) -> pd.DataFrame:
    """Read as text, note the lines with too many or too few fields, and turn into numbers what can be."""
    uneven = []

    def skip(row: csv.InvalidRow) -> str:
        uneven.append(row)
        return "skip"

    loose = csv.ParseOptions(
        delimiter=parse.delimiter,
        quote_char=parse.quote_char,
        newlines_in_values=parse.newlines_in_values,
        invalid_row_handler=skip,
    )
    text = dict.fromkeys(kept, pa.string())
    encoding = "utf8" if encoding_of(path).startswith("utf") else "latin-1"
    frame = _frame(path, text, names=names, kept=kept, parse=loose, encoding=encoding, threads=False)
    if uneven:
        shown = ", ".join(f"line {row.number} ({row.actual_columns} fields)" for row in uneven[:_SHOWN])
        lines = "1 line does" if len(uneven) == 1 else f"{len(uneven):,} lines do"
        _say(trouble, f"{path.name}: {lines} not have {uneven[0].expected_columns} fields: {shown}")
        trouble.skipped[path.name] = np.array([row.number for row in uneven])
    return frame.assign(**{name: as_numbers(frame[name], kind) for name, kind in types.items() if not _is_text(kind)})


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def as_numbers(values: pd.Series, kind: pa.DataType) -> pd.Series:
    """Text as numbers of an Arrow type, or as it was if a value is none; missing values stay missing.

    >>> as_numbers(pd.Series(["1", "2.0"]), pa.int64()).tolist()
    [1, 2]
    >>> as_numbers(pd.Series(["1", "two"]), pa.int64()).tolist()
    ['1', 'two']
    """
    numbers = pd.to_numeric(values, errors="coerce")
    whole = pa.types.is_integer(kind)
    if (numbers.isna() & values.notna()).any() or (whole and (numbers % 1).gt(0).any()):
        return values
    exact = numbers.isna().any() or np.isinf(numbers.to_numpy(float, na_value=np.nan)).any()
    return numbers.astype("float64") if whole and exact else numbers.astype(kind.to_pandas_dtype())
