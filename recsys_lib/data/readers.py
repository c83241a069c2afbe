"""Read tables in common forms: GroupLens's files, delimited text, JSON lines, parquet, one user a line."""

from __future__ import annotations

import ast
import bz2
import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from csv import Error as CsvError
from csv import reader
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet
from pyarrow import json as arrow_json

NO_GENRE = ("unknown", "(no genres listed)", "")
WEIGHT = "weight"
_WANTED = ("user_id", "item_id", "rating", WEIGHT, "timestamp", "position")
# what a table is called: the whole stem of its file's name, or its ending (RecBole)
_STEMS = {
    "interactions": ("interactions", "ratings", "events", "plays", "inter", "user_artists", "bx-book-ratings"),
    "items": ("items", "movies", "item", "books", "artists", "bx-books"),
    "users": ("users", "people", "user", "bx-users"),
}
_ENDINGS = (".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".item", ".user", ".parquet", ".jsonl", ".json")
# spellings that are understood without a mapping, letters and digits only, lower case
_SPELLINGS = {
    "user_id": ("userid", "user", "reviewerid"),
    "item_id": ("itemid", "item", "movieid", "movie", "isbn", "bookid", "asin", "artistid"),
    "rating": ("rating", "stars", "overall", "bookrating"),
    "timestamp": ("timestamp", "time", "unixreviewtime"),
    "position": ("position",),
    "title": ("title", "booktitle"),
    "genres": ("genres",),
    "year": ("year", "releaseyear", "publicationyear", "yearofpublication", "originalpublicationyear"),
}
_SEPARATORS = ("::", "\t", ";", "|", ",", " ")  # one that is earlier wins a tie; a blank only where there is no other
_OF_ITEMS = {"id": "item_id", "name": "title"}  # understood in a table of items that has no better
_ATTRIBUTES = "_item2attributes.json"
_MISSING = ["", "nan", "NaN", "None", "NULL", r"\N"]
_KINDS = {"timestamp": "iufbM", "position": "iuf"}  # dtypes of cells that can be numbers; others are texts
_PACKED = {b"\x1f\x8b": "gzip", b"BZ": "bz2"}
_HEAD_BYTES, _HEAD_LINES = 1 << 16, 50
_BLOCK_BYTES = 16 << 20
_SHOWN = 3
_UNIT_SECONDS = {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "days": 86_400}
# the last four digits in brackets, or a span of years; after it at most one more bracket, such as "(V)" for video
_YEAR = r"^(?P<title>.*?)\s*\((?P<year>\d{4})(?:\s*[–-]\s*\d{0,4})?\)\s*(?P<rest>\([^()]*\))?$"


@dataclass
class RawTables:
    """Tables as a reader gives them, with the lab's column names, not yet checked; None where there is no such file.

    Attributes
    ----------
    files, columns, spare
        File of each table, for messages; names in the file of the interactions, where the table is one's own, and
        those of them that were not understood.
    first_line
        Line of its file that the first row of the interactions stands on.
    unread, skipped
        What could not be read at all, a sentence for each file and cause; the line numbers by name of the file.
    notes
        What each file was taken for.
    whole_ids
        Whether the format has whole numbers as ids.
    """

    interactions: pd.DataFrame = field(default_factory=pd.DataFrame)
    items: pd.DataFrame | None = None
    users: pd.DataFrame | None = None
    tags: pd.DataFrame | None = None
    links: pd.DataFrame | None = None
    files: dict[str, Path] = field(default_factory=dict)
    first_line: int = 1
    unread: list[str] = field(default_factory=list)
    skipped: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    whole_ids: bool = False
    columns: list[str] = field(default_factory=list)
    spare: list[str] = field(default_factory=list)

    def file(self, table: str) -> str:
        """Name of a table's file."""
        return self.files[table].name if table in self.files else f"the {table}"


def lines_of(rows: np.ndarray, first_line: int, skipped: Sequence[int] = ()) -> np.ndarray:
    """Line of its file that each row stands on, skipped lines counted.

    >>> lines_of(np.array([0, 1, 2]), 1, [2, 4])
    array([1, 3, 5])
    """
    skipped = np.sort(np.asarray(skipped, np.int64))
    return rows + first_line + np.searchsorted(skipped - np.arange(len(skipped)), rows + first_line, side="right")


# titles and genres


def split_year(titles: pd.Series) -> pd.DataFrame:
    """Take the year out of titles such as "Toy Story (1995)".

    Returns
    -------
    DataFrame
        title (str, without the year, single spaces) and year (Int16, missing where the title names none).

    Examples
    --------
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


def split_genres(genres: pd.Series, separator: str = "|") -> pd.Series:
    """Lists of genres from joined ones; what says "no genre" gives an empty list.

    >>> split_genres(pd.Series(["Action|Drama", "(no genres listed)", "unknown"])).tolist()
    [['Action', 'Drama'], [], []]
    """
    lists = genres.fillna("").str.split(separator)
    return lists.map(lambda names: [name.strip() for name in names if name.strip() not in NO_GENRE])


# bytes and lines


def _packing(path: Path) -> str | None:
    with path.open("rb") as handle:
        return _PACKED.get(handle.read(2))


def _bytes_of(path: Path, most: int = -1) -> bytes:
    """Bytes of a file, decompressed if it is compressed by its first bytes; the first ``most`` of them."""
    with {"gzip": gzip.open, "bz2": bz2.open, None: open}[_packing(path)](path, "rb") as handle:
        return handle.read(most)


def _encoding(content: bytes) -> str:
    """UTF-16 where a mark says so, UTF-8 where the bytes are, else Windows-1252; Latin-1 where it lacks a byte."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for encoding in ("utf-8-sig" if content.startswith(codecs.BOM_UTF8) else "utf-8", "cp1252"):
        with suppress(UnicodeDecodeError):
            codecs.getincrementaldecoder(encoding)().decode(content)  # a head may end within a letter
            return encoding
    return "latin-1"


def _text_of(path: Path) -> str:
    content = _bytes_of(path)
    return content.decode(_encoding(content))


def _lines(text: str) -> list[str]:
    """Lines with any of the three line ends; other separators, such as a form feed, stay inside a line."""
    return re.split(r"\r\n|\r|\n", text)


def read_lines(path: Path) -> pd.Series:
    """Lines of a small text file that are not empty, as text."""
    lines = _text_of(path).split("\n")
    return pd.Series([line.rstrip("\r") for line in lines if line.strip()], dtype="str")


def _head(path: Path) -> tuple[list[str], str]:
    """First lines of a text file, and its encoding as far as they tell."""
    content = _bytes_of(path, _HEAD_BYTES)
    encoding = _encoding(content)
    lines = _lines(content.decode(encoding, errors="ignore"))
    whole = lines if len(content) < _HEAD_BYTES or len(lines) == 1 else lines[:-1]
    return [line for line in whole[:_HEAD_LINES] if line.strip()], encoding


def _fields(line: str, separator: str) -> list[str]:
    """Fields of a line; double quotes can hold a separator of one letter.

    >>> _fields("1::2::a:b", "::"), _fields('1,"a,b"', ","), _fields(" 1  2 ", " ")
    (['1', '2', 'a:b'], ['1', 'a,b'], ['1', '2'])
    """
    if separator == " ":
        return line.split()
    return line.split(separator) if len(separator) > 1 else next(reader([line], delimiter=separator))


def header_of(path: Path, delimiter: str = ",") -> list[str]:
    """Names in the first line of a delimited file."""
    lines, _ = _head(path)
    return _fields(lines[0], delimiter) if lines else []


# delimited text, by pyarrow's reader: typed columns, both cores, no Python loop over rows


def read_typed(
    path: Path,
    types: Mapping[str, pa.DataType],
    tables: RawTables,
    *,
    delimiter: str = ",",
    names: Sequence[str] | None = None,
    header: bool = True,
    only: Sequence[str] | None = None,
    quoted: bool = True,
    newlines: bool = False,
    missing: Sequence[str] = ("",),
    escaped: bool = False,
) -> pd.DataFrame:
    """Read a delimited file, the columns that are named in ``types`` with those types.

    A file that does not fit is read once more, slower, as text: numeric columns whose values are not all numbers
    stay text, so that a check can name the rows, and lines with another number of fields are left out and named in
    ``tables.unread``.

    Parameters
    ----------
    types
        Arrow types by column; others are inferred.
    names, header
        Column names, by default those of the header line; whether there is one.
    only
        Columns to keep; the others are not even converted. Those that the file lacks are left out.
    quoted, newlines
        Whether double quotes can hold a delimiter; whether they can hold the end of a line, which is slower.
    missing
        What stands for a missing value where it is not quoted.
    escaped
        Whether a double quote within others stands behind a backslash.
    """
    lines, encoding = _head(path)
    present = list(names or (_fields(lines[0], delimiter) if lines else ()))
    if not present:
        tables.unread.append(f"{path.name} is empty")
        return pd.DataFrame()
    kept = [name for name in (only or present) if name in present]
    if header and len(lines) == 1:
        return pd.DataFrame(columns=kept)
    content = None
    if delimiter in ("::", " "):  # pyarrow takes separators of one letter
        text = _text_of(path)
        rows = (
            text.replace("::", "\x1f") if delimiter == "::" else "\n".join("\x1f".join(r.split()) for r in _lines(text))
        )
        content, encoding, delimiter, quoted = rows.encode(), "utf-8", "\x1f", False

    def read(types: Mapping[str, pa.DataType], encoding: str, skip: Callable | None = None) -> pd.DataFrame:
        source = pa.OSFile(str(path)) if content is None else pa.BufferReader(content)
        if content is None and (packing := _packing(path)):
            source = pa.CompressedInputStream(source, packing)
        table = csv.read_csv(
            source,
            read_options=csv.ReadOptions(
                block_size=_BLOCK_BYTES, column_names=present, skip_rows=int(header), encoding=encoding,
                use_threads=skip is None,
            ),
            parse_options=csv.ParseOptions(
                delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=newlines,
                escape_char="\\" if escaped else False, invalid_row_handler=skip,
            ),
            convert_options=csv.ConvertOptions(
                column_types=types, include_columns=kept, null_values=list(missing), strings_can_be_null=True,
                quoted_strings_can_be_null=list(missing) == [""],
            ),
        )  # fmt: skip
        if any(pa.types.is_binary(kind) for kind in table.schema.types):
            raise pa.ArrowInvalid("a column is not UTF-8")
        return table.to_pandas(split_blocks=True, self_destruct=True)  # hands memory over column by column

    types = {name: kind for name, kind in types.items() if name in kept}
    with suppress(pa.ArrowInvalid, UnicodeDecodeError):
        return read(types, "utf-16" if encoding == "utf-16" else "utf8")
    uneven = []
    whole = "utf8" if content else _encoding(_bytes_of(path))
    frame = read(dict.fromkeys(kept, pa.string()), whole, lambda row: uneven.append(row) or "skip")
    if uneven:
        shown = ", ".join(f"line {row.number} ({row.actual_columns} fields)" for row in uneven[:_SHOWN])
        _unread(tables, path, len(uneven), f"{uneven[0].expected_columns} fields: {shown}")
        tables.skipped[path.name] = np.array([row.number for row in uneven])
    numeric = {name: kind for name, kind in types.items() if not pa.types.is_string(kind)}
    return frame.assign(**{name: as_numbers(frame[name], kind) for name, kind in numeric.items()})


def _unread(tables: RawTables, path: Path, n_lines: int, what: str) -> None:
    lines = "1 line does" if n_lines == 1 else f"{n_lines:,} lines do"
    tables.unread.append(f"{path.name}: {lines} not have {what}")


def as_numbers(values: pd.Series, kind: pa.DataType) -> pd.Series:
    """Text as numbers of an Arrow type; cells that are none stay what they are, missing ones missing.

    Where the type has fractions, they may be written with a comma, and "true" and "false" are 1 and 0.

    >>> as_numbers(pd.Series(["1", "2.0"]), pa.int64()).tolist()
    [1, 2]
    >>> as_numbers(pd.Series(["1", "two"]), pa.int64()).tolist(), as_numbers(pd.Series(["4,5"]), pa.float32()).tolist()
    ([1.0, 'two'], [4.5])
    """
    whole = pa.types.is_integer(kind)
    values = values.mask(values.eq(""))
    numbers = pd.to_numeric(values, errors="coerce")
    if not whole and (numbers.isna() & values.notna()).any():
        plain = values.str.replace(r"^\s*([+-]?\d+),(\d+)\s*$", r"\1.\2", regex=True)
        numbers = pd.to_numeric(plain.str.lower().replace({"true": "1", "false": "0"}), errors="coerce")
    strange = (numbers.isna() & values.notna()) | (whole & numbers.mod(1).gt(0))
    if strange.any():
        return numbers.astype(object).mask(strange, values)
    exact = numbers.isna().any() or np.isinf(numbers.to_numpy(float, na_value=np.nan)).any()
    return numbers.astype("float64") if whole and exact else numbers.astype(kind.to_pandas_dtype())


# GroupLens


_RATING_TYPES = {"user_id": pa.int64(), "item_id": pa.int64(), "rating": pa.float32(), "timestamp": pa.int64()}
_CSV_NAMES = {"userId": "user_id", "movieId": "item_id", "imdbId": "imdb_id", "tmdbId": "tmdb_id"}
_OCCUPATIONS = (  # by number, from the README of ml-1m
    *("other", "educator", "artist", "clerical", "student", "customer service", "health care", "executive"),
    *("farmer", "homemaker", "K-12 student", "lawyer", "programmer", "retired", "sales", "scientist"),
    *("self-employed", "engineer", "tradesman", "unemployed", "writer"),
)


def _is_root(folder: Path) -> bool:
    """Whether ratings in a GroupLens format lie here: by the names of a ratings.csv, whole ids of a ratings.dat."""
    if (folder / "u.data").is_file():
        return True
    if (folder / "ratings.dat").is_file():
        lines, _ = _head(folder / "ratings.dat")
        return not lines or ("::" in lines[0] and not any(re.match(r"[^:]*::0\d", line) for line in lines))
    ratings = folder / "ratings.csv"
    return ratings.is_file() and bool({"userId", "movieId"} & set(header_of(ratings)))


def find_root(folder: Path) -> Path | None:
    """The folder, or one up to two levels below it, that holds ratings in a GroupLens format."""
    below = sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_dir())
    return next((candidate for candidate in (folder, *below) if _is_root(candidate)), None)


def read_folder(folder: Path) -> RawTables:
    """Read an unpacked MovieLens folder, whichever of the three formats it has; FileNotFoundError if it has none."""
    root = find_root(folder)
    if root is None:
        raise FileNotFoundError(f"{folder} holds none of u.data, ratings.dat, ratings.csv")
    name = next(name for name in ("u.data", "ratings.dat", "ratings.csv") if (root / name).is_file())
    tables = RawTables(files={"interactions": root / name}, whole_ids=True)
    if name == "ratings.csv":
        _read_csv(root, tables)
    else:
        names = list(_RATING_TYPES)
        how = {"names": names, "delimiter": "\t"}
        if name == "ratings.dat":  # between two colons there is nothing
            how = {"names": [names[0], "_1", names[1], "_2", names[2], "_3", names[3]], "delimiter": ":", "only": names}
        tables.interactions = read_typed(root / name, _RATING_TYPES, tables, header=False, quoted=False, **how)
        for file in filter(lambda file: file.startswith("u.") == (name == "u.data"), _SMALL_FILES):
            _read_small(root / file, *_SMALL_FILES[file], tables)
    if tables.items is not None:
        tables.items = _items(tables.items)
    return tables


# of ml-100k (genres as so many flags), ml-1m and ml-10m (titles and tags may hold colons): table, form of a line
_SMALL_FILES = {
    "u.item": ("items", r"(?P<item_id>\d+)\|(?P<title>.*)\|[^|]*\|[^|]*\|[^|]*\|(?P<genres>[01](?:\|[01]){{{}}})"),
    "u.user": (
        "users", r"(?P<user_id>\d+)\|(?P<age>\d+)\|(?P<gender>[^|]*)\|(?P<occupation>[^|]*)\|(?P<zip_code>[^|]*)"
    ),
    "movies.dat": ("items", r"(?P<item_id>\d+)::(?P<title>.*)::(?P<genres>.*)"),
    "users.dat": (
        "users", r"(?P<user_id>\d+)::(?P<gender>[^:]*)::(?P<age>\d+)::(?P<occupation>\d+)::(?P<zip_code>[^:]*)"
    ),
    "tags.dat": ("tags", r"(?P<user_id>\d+)::(?P<item_id>\d+)::(?P<tag>.*)::(?P<timestamp>\d+)"),
}  # fmt: skip


def _read_small(file: Path, table: str, pattern: str, tables: RawTables) -> None:
    """Take the lines of a small file apart, if there is one; those that do not fit are a problem."""
    if not file.is_file():
        return
    tables.files[table] = file
    lines = read_lines(file)
    names = read_lines(file.with_name("u.genre")).str.split("|").str[0] if file.name == "u.item" else ()
    frame = lines.str.extract(f"^{pattern.format(len(names) - 1)}$" if len(names) else f"^{pattern}$")
    if len(names):
        on = frame["genres"].str.split("|", expand=True).reindex(columns=names.index).eq("1").to_numpy()
        frame["genres"] = ["|".join(names[flags]) for flags in on]
    strange = np.flatnonzero(frame.iloc[:, 0].isna())
    if len(strange):
        shown = ", ".join(f"line {place + 1}: {lines[place][:40]!r}" for place in strange[:_SHOWN])
        _unread(tables, file, len(strange), f"the fields {', '.join(frame)} ({shown})")
    frame = frame.drop(index=strange).reset_index(drop=True)
    whole = frame.columns.intersection(["user_id", "item_id", "age", "timestamp"])
    frame = frame.astype(dict.fromkeys(whole, np.int64))
    if file.name == "users.dat":
        codes = frame["occupation"].astype(np.int64)
        frame["occupation"] = pd.Series(_OCCUPATIONS, dtype="str").reindex(codes).to_numpy()
        frame = frame[["user_id", "age", "gender", "occupation", "zip_code"]]
    setattr(tables, table, frame)


def _items(films: pd.DataFrame) -> pd.DataFrame:
    """Table of items from titles that hold the year and joined genres."""
    genres = split_genres(films["genres"]).rename("genres")
    return pd.concat([films["item_id"].astype(np.int64), split_year(films["title"]), genres], axis=1)


def _read_csv(root: Path, tables: RawTables) -> None:
    """ml-20m and later, ml-latest, ml-latest-small: CSV with a header line."""
    text, whole = pa.string(), pa.int64()
    types = {"userId": whole, "movieId": whole, "rating": pa.float32(), "timestamp": whole}
    ratings = read_typed(root / "ratings.csv", types, tables, only=list(types))
    tables.interactions, tables.first_line = ratings.rename(columns=_CSV_NAMES), 2
    beside = {
        "items": ("movies.csv", {"movieId": whole, "title": text, "genres": text}),
        "tags": ("tags.csv", {"userId": whole, "movieId": whole, "tag": text}),
        "links": ("links.csv", {"movieId": whole, "imdbId": text, "tmdbId": whole}),
    }
    for name, (file, types) in beside.items():
        if not (root / file).is_file():
            continue
        tables.files[name] = root / file
        frame = read_typed(root / file, types, tables, newlines=True)
        if lacking := [column for column in types if column not in frame]:
            tables.unread.append(f"{file} has no column {lacking[0]!r}; it has {', '.join(frame.columns)}")
        else:
            setattr(tables, name, frame.rename(columns=_CSV_NAMES))
    tables.links = None if tables.links is None else tables.links.astype({"tmdb_id": "Int64"})


_STEM = "recbole/dataset_example/ml-100k/ml-100k"
PACKAGE_FILES = {"interactions": f"{_STEM}.inter", "items": f"{_STEM}.item", "users": f"{_STEM}.user"}


def read_package(folder: Path) -> RawTables:
    """Read ml-100k as the RecBole package carries it, so that the tables equal those of GroupLens's own archive."""
    files = {name: folder / file for name, file in PACKAGE_FILES.items()}
    tables = RawTables(files=files, first_line=2, whole_ids=True)

    def read(file: Path) -> pd.DataFrame:
        """Columns without the types that their names end in."""
        present = header_of(file, "\t")
        types = {name: _RATING_TYPES.get(name.split(":")[0], pa.string()) for name in present}
        frame = read_typed(file, types, tables, delimiter="\t", quoted=False)
        return frame.rename(columns=lambda name: name.split(":")[0])

    tables.interactions, films, users = read(files["interactions"]), read(files["items"]), read(files["users"])
    tables.users = users.astype({"age": np.int64})
    # The package splits "Toy Story (1995)" at the last bracket: joined again and split as everywhere, the one film
    # with a bracket after the year gets its title too. The film that is called "unknown" (267) is misspelt there.
    whole = films["movie_title"] + " (" + films["release_year"] + ")"
    titles, genres = whole.mask(films["movie_title"].eq("unkonwn"), "unknown"), films["class"].str.replace(" ", "|")
    tables.items = _items(films.assign(title=titles, genres=genres))
    return tables


# tables of one's own


@dataclass(frozen=True)
class Form:
    """What a file is taken for.

    ``kind`` is "text" (delimited), "sequences" (one user a line, then the items in order), "attributes" (their items: a
    JSON object of lists), "Netflix prize" (a line "1:" before the ratings of film 1), "JSON lines" or "parquet".
    """

    kind: str
    names: list[str]
    header: bool = False
    separator: str = ""
    encoding: str = ""

    def __str__(self) -> str:
        if self.kind != "text":
            return {"sequences": "one user a line, then the items in order"}.get(self.kind, self.kind)
        return f"{self.encoding}, {self.separator!r} between columns, {'a' if self.header else 'no'} header"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn whatever a library says of a file that it cannot read into one sentence that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeError, CsvError, json.JSONDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path.name} cannot be read, it is damaged or of another form ({reason})") from error


def form_of(
    path: Path,
    table: str = "interactions",
    *,
    columns: Mapping[str, str] | None = None,
    names: Sequence[str] | None = None,
    separator: str | None = None,
) -> Form:
    r"""Tell what a file is by its content, not by the ending of its name.

    Raises
    ------
    ValueError
        If it is no table, or its columns have no names and none can be guessed; the sentence says what to pass.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "u.data"
    >>> _ = path.write_text("196\t242\t3\t881250949\n")
    >>> form_of(path).names, str(form_of(path))
    (['user_id', 'item_id', 'rating', 'timestamp'], "utf-8, '\\t' between columns, no header")
    """
    if path.is_dir():
        return Form("parquet", parquet.ParquetDataset(path).schema.names)
    lines, encoding = _head(path)
    if lines and lines[0].startswith("PAR1"):
        return Form("parquet", parquet.ParquetFile(path).schema_arrow.names)
    if not lines:
        return Form("text", [], encoding=encoding, separator=",")
    first = lines[0].strip()
    if any("\0" in line for line in lines):
        raise ValueError(f"{path.name} is no table: it is neither text nor parquet (of text, UTF-8 is read best)")
    if path.name.endswith(_ATTRIBUTES):
        return Form("attributes", ["item_id", "genres"])
    if re.fullmatch(r"\d+:", first):
        return Form("Netflix prize", ["user_id", "item_id", "rating", "timestamp"], encoding=encoding)
    if first.startswith("[{") or first == "[":
        raise ValueError(f"{path.name} is one JSON array: write it as JSON lines, one object a line")
    if first.startswith("{"):
        objects = [json.loads(line) for line in lines if line.lstrip().startswith("{")]
        return Form("JSON lines", list(dict.fromkeys(name for one in objects for name in one)))
    separator = separator or _separator(lines)
    rows = [_fields(line, separator) for line in lines]
    cells, header = rows[0], _is_header(rows[0])
    if names is not None and len(names) != len(cells):
        raise ValueError(f"names= gives {len(names)} names, and {path.name} has {len(cells)} columns")
    form = Form("text", list(names or cells), header, separator, encoding)
    if header or names is not None or (columns and set(columns) <= set(cells)):
        return form
    if len({len(row) for row in rows}) > 1 and all(cell.isdecimal() for row in rows for cell in row):
        return replace(form, kind="sequences", names=["user_id", "item_id", "position"])
    guess = _guess(cells, table)
    if guess is None:
        such = [*_WANTED[:3], "timestamp", *(f"column_{place + 1}" for place in range(4, len(cells)))][: len(cells)]
        raise ValueError(
            f"{path.name} has no header line (it begins {', '.join(map(repr, cells[:_SHOWN]))}): say what its "
            f"{len(cells)} columns are, such as names={such!r}"
        )
    return replace(form, names=guess)


def _separator(lines: Sequence[str]) -> str:
    """The separator that comes equally often in most lines, and most often; a comma in doubt."""
    bare = [re.sub(r'"[^"]*"', "", line.strip()) for line in lines]
    counts = {mark: [line.count(mark) for line in bare] for mark in _SEPARATORS}
    likely = [mark for mark in _SEPARATORS[:-1] if counts[mark][0]] or [mark for mark in " " if counts[mark][0]]
    if "::" in likely:
        return "::"
    return max(likely, key=lambda mark: (counts[mark].count(counts[mark][0]), counts[mark][0]), default=",")


def _is_number(cell: str) -> bool:
    return bool(re.fullmatch(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?", cell.strip()))


def _is_header(cells: Sequence[str]) -> bool:
    """Whether the fields of a first line are names: known ones, pandas's own "0,1,2", or texts without a number."""
    own = cells == [str(place) for place in range(len(cells))]
    return bool(our_names(cells, {})) or own or not any(map(_is_number, cells))


def _guess(cells: Sequence[str], table: str) -> list[str] | None:
    """Names of the columns of a file without a header, in MovieLens's order where the first line fits it."""
    if table != "interactions":
        known = ["item_id", "title", "genres"] if table == "items" else ["user_id"]
        return [*known, *(f"column_{place + 1}" for place in range(len(known), len(cells)))][: len(cells)]
    numbers = [float(cell.replace(",", ".")) if _is_number(cell) else np.nan for cell in cells]
    if len(cells) == 2:
        return ["user_id", "item_id"]
    if len(cells) == 3 and numbers[2] >= 1e8:
        return ["user_id", "item_id", "timestamp"]
    if len(cells) in (3, 4) and abs(numbers[2]) <= 100 and (len(cells) == 3 or numbers[3] >= 1e8):
        return ["user_id", "item_id", "rating", "timestamp"][: len(cells)]
    return None


def read_own(
    path: Path,
    columns: Mapping[str, str] | None = None,
    items: Path | None = None,
    users: Path | None = None,
    *,
    names: Sequence[str] | None = None,
    separator: str | None = None,
    time_unit: str = "s",
) -> RawTables:
    """Read a table of interactions, or a folder of tables, under the lab's column names.

    ``path`` is a file, the parts of one parquet table, or a folder that holds a table called interactions, ratings,
    events or plays (or a single one), and perhaps items or movies, users or people. The arguments are those of
    :func:`recsys_lib.data.load_dataset`. FileNotFoundError if the folder holds no table of interactions, ValueError if
    a mapping does not fit a column, or a file cannot be read.
    """
    files = _files_of(path) if path.is_dir() else {"interactions": path}
    attributes = files["interactions"].with_name(files["interactions"].name.split(".")[0] + _ATTRIBUTES)
    if attributes.is_file():
        files.setdefault("items", attributes)
    files |= {name: file for name, file in (("items", items), ("users", users)) if file is not None}
    forms = {}
    for name, file in files.items():
        given = {"names": names, "separator": separator} if name == "interactions" else {}
        with _named(file):
            forms[name] = form_of(file, name, columns=columns, **given)
    holders = " and ".join(file.name for file in files.values())
    _check_mapping(columns, [column for form in forms.values() for column in form.names], holders)
    own = forms["interactions"]
    tables = RawTables(files=files, first_line=1 + own.header, columns=own.names)
    for name, file in files.items():
        with _named(file):
            _keep(tables, name, _read(file, name, forms[name], columns or {}, tables), time_unit)
    _agree_on_ids(tables)
    if "items" in forms and forms["items"].kind == "attributes":
        _complete_attributes(tables)
    return tables


def read_frames(
    interactions: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    items: pd.DataFrame | None = None,
    users: pd.DataFrame | None = None,
    *,
    time_unit: str = "s",
) -> RawTables:
    """Take tables that are in memory, by the rules that hold for files."""
    given = {"interactions": interactions, "items": items, "users": users}
    given = {name: frame.reset_index(drop=True) for name, frame in given.items() if frame is not None}
    _check_mapping(columns, [column for frame in given.values() for column in frame], "the tables")
    tables = RawTables(first_line=0, columns=list(interactions.columns))
    for name, frame in given.items():
        names = our_names(frame.columns, columns or {})
        kept = [theirs for theirs in frame if name != "interactions" or names.get(theirs) in _WANTED]
        _check_once(kept, f"the {name}")
        frame = _cells(frame[kept].copy(), names, f"the {name}").rename(columns=names)
        _keep(tables, name, frame, time_unit)
    tables.spare = [theirs for theirs in interactions if theirs not in our_names(interactions.columns, columns or {})]
    _agree_on_ids(tables)
    return tables


def _keep(tables: RawTables, name: str, frame: pd.DataFrame, time_unit: str) -> None:
    """Put a table in its place, times in seconds and items with all their columns."""
    if "timestamp" in frame:
        frame["timestamp"] = _seconds(frame["timestamp"], time_unit)
    setattr(tables, name, _as_items(frame) if name == "items" else frame)


def _check_mapping(columns: Mapping[str, str] | None, present: Iterable[str], holders: str) -> None:
    """Refuse a mapping to a name that is none of ours, or from a column that no table has."""
    allowed = (*_WANTED, "title", "year", "genres")
    for theirs, ours in (columns or {}).items():
        if ours not in allowed:
            raise ValueError(f"columns: {theirs!r} maps to {ours!r}, which is none of {', '.join(allowed)}")
        if theirs not in present:
            listed = ", ".join(sorted(set(map(str, present))))
            raise ValueError(f"{holders} have no column {theirs!r} to map; the columns are {listed}")


def _files_of(folder: Path) -> dict[str, Path]:
    """Which table is in which file of a folder."""
    plain = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] not in "._"]
    tables = [path for path in plain if re.sub(r"\.(gz|bz2)$", "", path.name.lower()).endswith(_ENDINGS)]
    if tables and all(re.match(r"part-.*\.parquet$", path.name) for path in tables):
        return {"interactions": folder}
    parts = {path: (path.name.lower().split(".")[0], path.suffix[1:].lower()) for path in tables}
    files = {}
    for name, stems in _STEMS.items():
        if fitting := [path for stem in stems for path in tables if stem in parts[path]]:
            files[name] = fitting[0]
    rest = [path for path in tables if path not in files.values() and not path.name.endswith(_ATTRIBUTES)]
    if "interactions" not in files and len(rest) == 1:
        files["interactions"] = rest[0]
    if "interactions" not in files:
        known = ", ".join(f"{stem}.csv" for stem in _STEMS["interactions"][:4])
        raise FileNotFoundError(f"{folder} holds no table of interactions: call it one of {known} (or .tsv, .parquet)")
    return files


def our_names(present: Iterable[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Our name of each column that is understood: by the mapping, else by its spelling, RecBole's types aside.

    >>> our_names(["User ID", "track", "plays", "rating:float"], {"track": "item_id", "plays": "weight"})
    {'track': 'item_id', 'plays': 'weight', 'User ID': 'user_id', 'rating:float': 'rating'}
    """
    present = list(present)
    names = {theirs: columns[theirs] for theirs in present if theirs in columns}
    twice = [theirs for theirs, ours in names.items() if list(names.values()).count(ours) > 1]
    if twice:
        raise ValueError(f"columns: {twice[0]!r} and {twice[1]!r} of the same table both map to {names[twice[0]]!r}")
    plain = {name: re.sub(r":(token|float)(_seq)?$", "", str(name)) for name in present}
    for ours, spellings in {**_SPELLINGS, WEIGHT: ()}.items():
        if ours in present and ours not in names and ours not in names.values():
            names[ours] = ours
        like = [name for name in present if "".join(filter(str.isalnum, plain[name])).lower() in spellings]
        if ours not in names.values() and like and like[0] not in names:
            names[like[0]] = ours
    return names


def _read(path: Path, table: str, form: Form, columns: Mapping[str, str], tables: RawTables) -> pd.DataFrame:
    """Read one file; of the interactions only the columns that are understood."""
    names = our_names(form.names, columns)
    if table == "items":
        names |= {
            theirs: ours for theirs, ours in _OF_ITEMS.items() if theirs in form.names and ours not in names.values()
        }
    wanted = {theirs: ours for theirs, ours in names.items() if table != "interactions" or ours in _WANTED}
    only = [theirs for theirs in form.names if theirs in wanted or table != "interactions"]
    _check_once(only, path.name)
    if form.kind == "parquet":
        frame = _cells(_frame(parquet.read_table(path, columns=only), names), names, path.name)
    elif form.kind == "attributes":
        frame = _attributes(path, form)
    elif form.kind == "sequences":
        frame = _sequences(path, form)
    elif form.kind == "Netflix prize":
        frame = _netflix(path)
    elif form.kind == "JSON lines":
        table = arrow_json.read_json(pa.BufferReader(_bytes_of(path))).select(only)
        frame = _cells(_frame(table, names), names, path.name)
    else:
        frame = _text(path, only, wanted, form, tables)
    taken = ", ".join(theirs if theirs == ours else f"{theirs!r} as {ours}" for theirs, ours in wanted.items())
    spare = [theirs for theirs in form.names if theirs not in only]
    if table == "interactions":
        tables.spare = spare
    left = ", ".join(map(str, spare))
    tables.notes.append(
        f"{path.name}: {form}, {len(frame):,} rows; took {taken or 'no column'}{left and f'; left out {left}'}"
    )
    return frame.rename(columns=wanted)


def _check_once(names: Sequence[str], file: str) -> None:
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise ValueError(f"{file} has two columns {twice[0]!r}: rename one of them, or leave it out")


def _text(path: Path, only: list[str], names: Mapping[str, str], form: Form, tables: RawTables) -> pd.DataFrame:
    """Read delimited text: ids as text first, so that "007" stays what it is."""
    kinds = dict.fromkeys(("user_id", "item_id", "title", "genres"), pa.string())
    kinds |= dict.fromkeys(("rating", WEIGHT), pa.float32())
    types = {theirs: kinds[ours] for theirs, ours in names.items() if ours in kinds}
    how = {"delimiter": form.separator, "names": form.names, "header": form.header, "only": only, "missing": _MISSING}
    if path != tables.files["interactions"]:  # before a separator a backslash is but a letter, as in "C:\\"
        how["escaped"] = bool(re.search(rb'\\"[^",;|\s]', _bytes_of(path)))
    frame = read_typed(path, types, tables, **how)
    mark = form.separator
    if mark != " " and all(0 < line.count(mark) == line.count(mark + " ") for line in _head(path)[0]):
        for name in (name for name, kind in types.items() if pa.types.is_string(kind)):
            frame[name] = frame[name].str.lstrip(" ")  # a blank behind every separator belongs to it
    titles = next((theirs for theirs, ours in names.items() if ours == "title"), None)
    if titles is None or form.header or "year" in names.values():
        return frame
    return pd.concat([frame.drop(columns=titles), split_year(frame[titles]).rename(columns={"title": titles})], axis=1)


def _frame(table: pa.Table, names: Mapping[str, str]) -> pd.DataFrame:
    """An Arrow table in pandas, where a missing id would make floats of the others: such columns are text."""
    for place, column in enumerate(table.schema):
        whole = names.get(column.name) in ("user_id", "item_id") and pa.types.is_integer(column.type)
        if whole and table.column(place).null_count:
            table = table.set_column(place, column.name, table.column(place).cast(pa.string()))
    return table.to_pandas(ignore_metadata=True)


def _cells(frame: pd.DataFrame, names: Mapping[str, str], file: str) -> pd.DataFrame:
    """Make typed cells those that text could hold: numbers, texts and dates; missing ones missing.

    ValueError for a column of lists or structs. Spans of time, and dates where there should be none, become texts, so
    that the checks name the rows.
    """
    for theirs in (theirs for theirs, ours in names.items() if ours in (*_WANTED, "year")):
        values, ours = frame[theirs], names[theirs]
        if isinstance(values.dtype, pd.CategoricalDtype):
            values = values.astype(object)
        kind, full = values.dtype.kind, bool(values.notna().all())
        if kind in "iufb" and not isinstance(values.dtype, np.dtype):  # pandas's own numbers, which can be missing
            if ours in ("user_id", "item_id") and kind in "iu" and not full:
                values = values.map(str, na_action="ignore")
            else:
                values = pd.Series(values.to_numpy() if full else values.to_numpy(float, na_value=np.nan))
        if values.dtype == object:
            nested = [cell for cell in values if isinstance(cell, list | tuple | set | dict | np.ndarray)]
            if nested:
                shown = nested[0].tolist() if isinstance(nested[0], np.ndarray) else nested[0]
                raise ValueError(f"{file}, column {theirs!r} holds {shown}, not single values; a {ours} is one value")
            values = pd.Series([_as_text(cell) for cell in values], dtype=object)  # whole numbers stay whole
        elif isinstance(values.dtype, pd.StringDtype):
            values = values.astype("str")  # with NaN for what is missing
        elif kind not in _KINDS.get(ours, "iufb"):
            values = values.astype(object).map(str, na_action="ignore")
        if not pd.api.types.is_numeric_dtype(values.dtype):
            values = values.mask(values.isin(_MISSING))
        frame[theirs] = values
    return frame


def _as_text(cell: object) -> object:
    """Bytes and decimals as text; other cells as they are."""
    if isinstance(cell, bytes):
        with suppress(UnicodeDecodeError):
            return cell.decode()
        return str(cell)
    return f"{cell:f}" if isinstance(cell, Decimal) else cell


def _sequences(path: Path, form: Form) -> pd.DataFrame:
    """Lines of a user and the items in their order as one row an interaction, with its position from 0."""
    lines = enumerate(_lines(_text_of(path)), 1)
    rows = [(number, _fields(line, form.separator)) for number, line in lines if line.strip()]
    if empty := [number for number, row in rows if not any(row[1:])]:
        raise ValueError(f"{path.name}: line {empty[0]} has no items; a line is a user and at least one item")
    pairs = [(user, item) for _, (user, *items) in rows for item in items if item]
    long = pd.DataFrame(pairs, columns=["user_id", "item_id"], dtype="str")
    return long.assign(position=long.groupby("user_id", sort=False).cumcount())


def _attributes(path: Path, form: Form) -> pd.DataFrame:
    """Attributes of each item, once each, as its genres."""
    content = json.loads(_bytes_of(path))
    if not isinstance(content, dict) or not all(isinstance(values, list) for values in content.values()):
        raise ValueError(f"{path.name} must give each item a list of attributes, such as {{'4': [1, 7]}}")
    lists = {item: list(dict.fromkeys(map(str, values))) for item, values in content.items()}
    return pd.DataFrame(lists.items(), columns=form.names)


def _complete_attributes(tables: RawTables) -> None:
    """Give items that the file of attributes lacks none; ValueError if those are more than half."""
    ids = tables.interactions["item_id"].drop_duplicates()
    lacking = ids[~ids.isin(tables.items["item_id"])].reset_index(drop=True)
    if 2 * len(lacking) > len(ids):
        raise ValueError(
            f"{tables.file('items')} belongs to other ids: it lacks {len(lacking):,} of the {len(ids):,} items of "
            f"{tables.file('interactions')}, {lacking.iloc[0]} first"
        )
    tables.items = pd.concat([tables.items, _as_items(pd.DataFrame({"item_id": lacking}))], ignore_index=True)


def _netflix(path: Path) -> pd.DataFrame:
    """Ratings below the film that they belong to, of all files ``combined_data_<n>.txt`` beside this one."""
    files = sorted(path.parent.glob("combined_data_*.txt")) if path.name.startswith("combined_data_") else [path]
    lines = pd.concat([read_lines(file) for file in files], ignore_index=True).str.strip()
    heads = lines.str.endswith(":")
    frame = lines[~heads].str.split(",", expand=True).reindex(columns=range(3))
    frame = frame.set_axis(["user_id", "rating", "timestamp"], axis=1)
    frame = frame.assign(item_id=lines.where(heads).ffill().str[:-1], rating=as_numbers(frame["rating"], pa.float32()))
    return frame.reset_index(drop=True)


def _seconds(values: pd.Series, unit: str = "s") -> pd.Series:
    """Timestamps as whole UNIX seconds: dates are turned into them (UTC where they name no zone), numbers cut.

    What is neither stays as it is, for the checks to name. Whole numbers such as 20030501 are dates.

    >>> _seconds(pd.Series(["1970-01-01 00:01:00", "1970-01-02", "86401"])).tolist()
    [60, 86400, 86401]
    >>> _seconds(pd.Series([12.7, 3.0])).tolist(), _seconds(pd.Series([19700102])).tolist()
    ([12, 3], [86400])
    >>> _seconds(pd.Series(["05/13/1970", "n/a"])).tolist()
    [11404800.0, 'n/a']
    """
    if pd.api.types.is_bool_dtype(values.dtype):
        return values.astype("str")
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return _since_1970(pd.to_datetime(values, utc=True))
    if pd.api.types.is_numeric_dtype(values.dtype):
        if unit == "s" and len(values) and values.between(19_000_101, 21_001_231).all():
            dates = pd.to_datetime(values.astype("int64").astype("str"), format="%Y%m%d", utc=True, errors="coerce")
            if dates.notna().all():
                return _since_1970(dates)
        if unit == "s" and values.dtype.kind in "iu":
            return values
        seconds = np.floor(values * _UNIT_SECONDS[unit])
    else:
        numbers = pd.to_numeric(values, errors="coerce")
        dates = _since_1970(_dates(values.mask(numbers.notna()).astype("str")))
        seconds = _seconds(numbers, unit).where(numbers.notna(), dates)
        strange = seconds.isna() & values.notna()
        if strange.any():
            return seconds.astype(object).mask(strange, values)
    return seconds.astype(np.int64) if seconds.abs().lt(2**62).all() else seconds


def _since_1970(dates: pd.Series) -> pd.Series:
    seconds = dates.astype("datetime64[s, UTC]").astype(np.int64)
    return seconds.astype(float).mask(dates.isna()) if dates.isna().any() else seconds


def _dates(texts: pd.Series) -> pd.Series:
    """Dates of texts, in ISO's form or in the one local form that fits; missing where none does, or two that differ."""
    dates = pd.to_datetime(texts, utc=True, errors="coerce", format="ISO8601")
    rest = texts[dates.isna() & texts.notna()]
    days = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y")
    forms = [day + clock for day in days for clock in ("", " %H:%M", " %H:%M:%S")]
    read = [pd.to_datetime(rest, utc=True, errors="coerce", format=form) for form in forms]
    best = max(read, key=lambda parsed: parsed.notna().sum())
    rivals = [one for one in read if one.notna().sum() == best.notna().sum() and not one.equals(best)]
    return dates if rivals or best.isna().all() else dates.fillna(best)


def _agree_on_ids(tables: RawTables) -> None:
    """Make ids integers where every table writes them as such ("10.0" too); else text in all of them."""
    for column in ("user_id", "item_id"):
        frames = (tables.interactions, tables.items, tables.users)
        holders = [frame for frame in frames if frame is not None and column in frame]
        whole = all(are_whole(frame[column]) for frame in holders)
        for frame in holders:
            frame[column] = as_ids(frame[column], whole=whole)


def are_whole(ids: pd.Series) -> bool:
    """Whether ids are integers, or text that gives the same text back when read as integers, ".0" aside.

    >>> [are_whole(pd.Series(ids)) for ids in (["7", "12"], ["10.0", "7"], ["007", "12"], ["a"])]
    [True, True, False, False]
    """
    if ids.dtype.kind in "iu":
        return not ids.notna().any() or int(ids.max()) <= np.iinfo(np.int64).max
    if ids.dtype.kind == "f":
        return bool((ids.isna() | ids.mod(1).eq(0) | np.isinf(ids)).all())
    with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        for part in (ids.head(1000), ids):  # the first rows mostly tell
            text = pc.replace_substring_regex(pc.cast(pa.array(part), pa.large_string()), r"\.0+$", "")
            if not pc.cast(pc.cast(text, pa.int64()), pa.large_string()).equals(text):
                return False
        return True
    return False


def as_ids(ids: pd.Series, *, whole: bool) -> pd.Series:
    """Ids as int64, or as text; missing ones stay missing."""
    missing = ids.isna()
    if whole:
        if not pd.api.types.is_numeric_dtype(ids.dtype):
            text = ids if isinstance(ids.dtype, pd.StringDtype) else ids.map(str, na_action="ignore").astype("str")
            numbers = text.str.replace(r"\.0+$", "", regex=True)
            return numbers.astype("Int64") if missing.any() else pd.to_numeric(numbers).astype(np.int64)
        unsafe = missing.any() or (ids.dtype.kind == "f" and ids.abs().max() > 2**53)  # refused by the checks
        return ids if unsafe else ids.astype(np.int64)
    if isinstance(ids.dtype, pd.StringDtype):
        return ids
    return ids.map(str).astype("str").mask(missing)


def _as_items(items: pd.DataFrame) -> pd.DataFrame:
    """Items with the columns that every items' table has."""
    if "item_id" not in items:
        return items
    n = len(items)
    title = items["title"].astype("str") if "title" in items else pd.Series([None] * n, dtype="str")
    lists = _genres(items["genres"]) if "genres" in items else pd.Series([[] for _ in range(n)], dtype=object)
    year = items["year"] if "year" in items else pd.Series([pd.NA] * n, dtype="Int16")
    year = year.mask(year.isin([0, "0"]))  # unknown, in Book-Crossing
    first = pd.DataFrame({"item_id": items["item_id"], "title": title, "year": year, "genres": lists})
    return pd.concat([first, items.drop(columns=list(first.columns), errors="ignore")], axis=1)


def _genres(cells: pd.Series) -> pd.Series:
    """Lists of genres from lists, from texts of lists (Python's or JSON's, also of objects with a name), or joined texts.

    >>> _genres(pd.Series(["A, B", None, "C"])).tolist(), _genres(pd.Series(["['A', 'B']", '[{"id": 1, "name": "A"}]'])).tolist()
    ([['A', 'B'], [], ['C']], [['A', 'B'], ['A']])
    """  # noqa: E501
    texts = cells.dropna()
    if not texts.map(lambda cell: isinstance(cell, str)).all():
        return cells.map(_names)
    if texts.str.startswith("[").any():
        return cells.map(lambda cell: _names(_literal(cell)) if isinstance(cell, str) else [])
    separator = next((mark for mark in ("|", ";", ",") if texts.str.contains(mark, regex=False).any()), "|")
    return split_genres(cells.astype("str"), separator)


def _literal(text: str) -> object:
    """The list that a text writes, in JSON or in Python; the text alone in a list if it is neither."""
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError):
            return read(text)
    return [text]


def _names(cell: object) -> list[str]:
    """A cell of genres as a list of names; what is missing is an empty one."""
    values = cell if isinstance(cell, list | tuple | np.ndarray) else []
    return [str(value.get("name", value) if isinstance(value, dict) else value) for value in values]
