"""Delimited text into tables, by pyarrow's reader: typed columns, both cores, no Python loop over rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import csv

_BLOCK_BYTES = 16 << 20


def encoding_of(path: Path) -> str:
    """UTF-8 if the whole file is; else Latin-1, which older MovieLens files are written in."""
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig" if content.startswith(b"\xef\xbb\xbf") else "utf-8"


def read_lines(path: Path) -> pd.Series:
    """Lines of a small text file that are not empty, as text."""
    lines = path.read_text(encoding=encoding_of(path)).split("\n")
    return pd.Series([line.rstrip("\r") for line in lines if line.strip()], dtype="str")


def read_typed(
    path: Path,
    types: Mapping[str, pa.DataType] | None = None,
    *,
    delimiter: str = ",",
    names: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    quoted: bool = True,
) -> pd.DataFrame:
    """Read a delimited file, the columns that are named in ``types`` with those types.

    Parameters
    ----------
    path
        A file with one row a line; compressed ones (``.gz``) are read as they are.
    types
        Arrow types by column; others are found out.
    names
        Column names of a file that has no header line.
    only
        Columns to keep; the others are not even converted.
    quoted
        Whether double quotes can hold a delimiter.

    Raises
    ------
    pyarrow.ArrowInvalid
        If a value does not fit its type.
    """
    table = csv.read_csv(
        path,
        read_options=csv.ReadOptions(block_size=_BLOCK_BYTES, column_names=list(names) if names else None),
        parse_options=csv.ParseOptions(delimiter=delimiter, quote_char='"' if quoted else False),
        convert_options=csv.ConvertOptions(column_types=dict(types or {}), include_columns=list(only or [])),
    )
    return table.to_pandas(split_blocks=True, self_destruct=True)
