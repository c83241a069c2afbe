"""Read tables in common forms: delimited text, JSON lines, parquet, one user a line, the Netflix prize's.

The content says what a file is, not the ending of its name. GroupLens's files are tables like others, whose columns are
known where they have no header.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import json as arrow_json
from pyarrow import parquet

from recsys_lib.data import cells
from recsys_lib.data.interactions import MISSING

WEIGHT = "weight"
_WANTED = ("user_id", "item_id", "rating", WEIGHT, "timestamp", "position")
# what a table is called: the whole stem of its file's name, or its ending (RecBole, ml-100k)
_STEMS = {
    "interactions": ("interactions", "ratings", "events", "plays", "inter", "user_artists", "bx-book-ratings", "data"),
    "items": ("items", "movies", "item", "books", "artists", "bx-books"),
    "users": ("users", "people", "user", "bx-users"),
}
_ENDINGS = (".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".item", ".user", ".parquet", ".jsonl", ".json")
# spellings that are understood without a mapping, letters and digits only, lower case
_SPELLINGS = {
    "user_id": ("userid", "user", "reviewerid"),
    "item_id": ("itemid", "item", "movieid", "movie", "isbn", "bookid", "asin", "artistid", "businessid"),
    "rating": ("rating", "stars", "overall", "bookrating"),
    "timestamp": ("timestamp", "time", "unixreviewtime"),
    "position": ("position",),
    "title": ("title", "booktitle"),
    "genres": ("genres",),
    "year": ("year", "releaseyear", "publicationyear", "yearofpublication", "originalpublicationyear"),
    WEIGHT: (),
    "zip_code": ("zipcode",),
}
_BESIDE = {"items": {"id": "item_id", "name": "title"}, "users": {"id": "user_id"}}  # where there is no better
_WHOLE = ("user_id", "item_id", "timestamp", "position")
_TEXTS = ("user_id", "item_id", "title", "genres", "zip_code")
_SEPARATORS = ("::", "\t", ";", "|", ",", " ")  # one that is earlier wins a tie; a blank only where there is no other
_ATTRIBUTES = "_item2attributes.json"
_PACKED = {b"\x1f\x8b": ("gzip", gzip.open), b"BZh": ("bz2", bz2.open)}
_UNREAD = (
    b"PK\3\4",
    b"\x28\xb5\x2f\xfd",
    b"\xfd7zXZ",
    b"7z\xbc\xaf",
    b"Rar!",
    *_PACKED,
)  # zip, zstd, xz, ...; or twice
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}  # of which the first begins with UTF-16's
_MARKS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
pa.set_memory_pool(pa.system_memory_pool())  # pyarrow's own takes seconds to clear the pages of a first gigabyte
_HEAD_BYTES, _HEAD_LINES = 1 << 16, 50
_SHOWN = 3
MOST_COLUMNS = 20  # that somebody names one by one
# GroupLens's files without a header; the genres of u.item stand in u.genre
_RATED = ["user_id", "item_id", "rating", "timestamp"]
_GROUPLENS = {
    "u.data": _RATED,
    "ratings.dat": _RATED,
    "u.item": ["item_id", "title", "_date", "_video", "_url"],
    "u.user": ["user_id", "age", "gender", "occupation", "zip_code"],
    "movies.dat": ["item_id", "title", "genres"],
    "users.dat": ["user_id", "gender", "age", "occupation", "zip_code"],
}
_OCCUPATIONS = (  # by number, from the README of ml-1m
    *("other", "educator", "artist", "clerical", "student", "customer service", "health care", "executive"),
    *("farmer", "homemaker", "K-12 student", "lawyer", "programmer", "retired", "sales", "scientist"),
    *("self-employed", "engineer", "tradesman", "unemployed", "writer"),
)
# Bytes that Western text in Windows-1252 hardly has: long runs beyond ASCII, a letter's two in UTF-8, rare signs, signs
# beside letters, capitals within words
_ODD = rb"[\x80-\xff]{3,}|[\xc2-\xdf][\x80-\xbf]|[\x81-\x84\x86-\x89\x8b\x8d\x8f\x90\x98\x9b\x9d]"
_SIGN = rb"[\xa4-\xa6\xa8\xac\xaf\xb1\xb3\xb6\xb8\xb9\xbc-\xbe]"
_ODD += rb"|(?<=[A-Za-z])%b|%b(?=[A-Za-z])|(?<=[a-z])[\x8a\x8c\x8e\xc0-\xd6\xd8-\xde]" % (_SIGN, _SIGN)
_ASIDE = r"\s*$|[#%]|sep=.$"  # lines before a table that are none of its rows: empty ones, comments, Excel's separator


@dataclass
class RawTables:
    """Tables as a reader gives them, with the lab's column names, not yet checked; None where there is no such file."""

    interactions: pd.DataFrame = field(default_factory=pd.DataFrame)
    items: pd.DataFrame | None = None
    users: pd.DataFrame | None = None
    files: dict[str, Path] = field(default_factory=dict)
    forms: dict[str, Form] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)  # what could not be read at all, a sentence for file and cause
    skipped: dict[str, list[int]] = field(default_factory=dict)  # by table, which rows that were
    notes: list[str] = field(default_factory=list)  # what each file was taken for
    encoding: str | None = None  # of all files, where it was given
    whole_ids: bool = False  # whether the format has whole numbers as ids
    columns: list[str] = field(default_factory=list)  # in the file of the interactions
    spare: list[str] = field(default_factory=list)  # those of them that were not understood

    def file(self, table: str) -> str:
        """Name of a table's file."""
        return self.files[table].name if table in self.files else f"the {table}"

    def lines(self, table: str, rows: Sequence[int]) -> list[int]:
        """Line of its file that each of a few rows, ascending, stands on; the row itself where there are no lines."""
        form, skipped = self.forms.get(table), set(self.skipped.get(table, ()))
        if form is None or form.kind not in ("text", "JSON lines"):
            return [row + (form is not None) for row in rows]
        starts = (line for place, line in enumerate(_starts(self.files[table], form)) if place not in skipped)
        lines = list(islice(starts, rows[-1] + 1)) if len(rows) else []
        return [lines[row] for row in rows]


# bytes and lines


def _packing(path: Path) -> tuple[str | None, Callable]:
    """Name of what a file is compressed by, by its first bytes, and how to open it."""
    with path.open("rb") as handle:
        first = handle.read(3)
    return next((packed for mark, packed in _PACKED.items() if first.startswith(mark)), (None, open))


def _bytes_of(path: Path, most: int = -1) -> bytes:
    with _packing(path)[1](path, "rb") as handle:
        return handle.read(most)


def _encoding(path: Path, content: bytes) -> str:
    """UTF-16 or UTF-32 where a mark says so, UTF-8 where the bytes are, else Windows-1252 where they look it."""
    marked = [encoding for mark, encoding in _MARKS.items() if content.startswith(mark)]
    if marked:
        return marked[0]
    if content.startswith(_UNREAD):
        raise ValueError(
            f"{path.name} is packed in a way that cannot be read: unpack it (a zip archive needs the ending .zip; of a "
            "spreadsheet, save the sheet as CSV)"
        )
    for encoding in ("utf-8-sig" if content.startswith(codecs.BOM_UTF8) else "utf-8", "cp1252"):
        with suppress(UnicodeDecodeError):
            codecs.getincrementaldecoder(encoding)().decode(content)  # a head may end within a letter
            odd = sum(map(len, re.findall(_ODD, content))) if encoding == "cp1252" else 0
            if b"\0" not in content and (not odd or 3 * odd < len(re.findall(rb"[\x80-\xff]", content))):
                return encoding
    if b"\0" in content:
        raise ValueError(
            f"{path.name} is not a table: neither text nor parquet (save a spreadsheet as CSV; of text in another "
            "encoding, say which, such as encoding='utf-16-le')"
        )
    raise ValueError(
        f"{path.name} is not in UTF-8, nor in a Western encoding as it seems: say which it has, such as "
        "encoding='cp1251', 'cp1256', 'shift_jis' or 'gb18030'"
    )


def _lines(text: str) -> list[str]:
    """Lines with any of the three line ends; other separators, such as a form feed, stay inside a line."""
    return re.split(r"\r\n|\r|\n", text)


def _text_of(path: Path, encoding: str | None) -> str:
    content = _bytes_of(path)
    return content.decode(encoding or _encoding(path, content))


def _read_lines(path: Path, encoding: str | None) -> pd.Series:
    """Lines of a text file that are not empty, as text."""
    return pd.Series([line for line in _lines(_text_of(path, encoding)) if line.strip()], dtype="str")


def _head(path: Path, encoding: str | None) -> tuple[list[str], int, str]:
    """First lines of a text file that are not empty, how many stand before, and its encoding as far as they tell."""
    content = _bytes_of(path, _HEAD_BYTES)
    encoding = encoding or _encoding(path, content)
    lines = _lines(content.decode(encoding, errors="ignore"))
    whole = lines if len(content) < _HEAD_BYTES or len(lines) < 3 else lines[:-1]
    before = next((place for place in range(len(whole)) if not _is_aside(whole, place)), len(whole))
    if 0 < before < len(whole):  # names may stand in a comment
        fields = _fields(whole[before], mark := _separator(whole[before : before + 1]))
        named = re.split(r"::|[\t;|, ]+", whole[before - 1].strip("#% "))
        if len(named) == len(fields) and {"user_id", "item_id"} <= set(our_names(named, {}).values()):
            before -= 1
            whole[before] = mark.join(named)
    return [line for line in whole[before : before + _HEAD_LINES] if line.strip()], before, encoding


def _is_aside(lines: Sequence[str], place: int) -> bool:
    """Whether a line above a table is none of its rows: as _ASIDE says, or a title, in words and without separators."""
    if re.match(_ASIDE, line := lines[place]):
        return True
    rest = [row for row in lines[place + 1 : place + _HEAD_LINES] if row.strip()][:3]
    parted = any(len(rest) > 1 and all(mark in row for row in rest) for mark in _SEPARATORS[:-1])
    words = len(line.split())
    in_words = re.match(r'"?[^\W\d]', line) and not any(mark in line for mark in _SEPARATORS[:-1])
    return bool(parted and in_words and (words == 1 or words != len(rest[0].split())))


def _fields(line: str, separator: str) -> list[str]:
    """Fields of a line; double quotes can hold a separator of one letter.

    >>> _fields("1::2::a:b", "::"), _fields('1,"a,b"', ","), _fields(" 1  2 ", " ")
    (['1', '2', 'a:b'], ['1', 'a,b'], ['1', '2'])
    """
    if separator == " ":
        return line.split()
    return line.split(separator) if len(separator) > 1 else next(csv.reader([line], delimiter=separator))


def _as_text(path: Path, form: Form) -> IO[str]:
    return io.TextIOWrapper(_packing(path)[1](path, "rb"), form.encoding, errors="replace", newline="")


def _starts(path: Path, form: Form) -> Iterator[int]:
    """Line on which each row of a text file begins; empty lines are none."""
    with _as_text(path, form) as handle:
        lines, before = islice(handle, form.before + form.header, None), 0
        if form.quoted:
            rows = csv.reader(lines, delimiter=form.separator)
            for row in rows:
                if row:
                    yield form.before + form.header + before + 1
                before = rows.line_num
        else:
            yield from (n for n, line in enumerate(lines, form.before + form.header + 1) if line.strip("\r\n"))


# what a file is


@dataclass(frozen=True)
class Form:
    """The form that a file is taken for."""

    # "text" (delimited), "sequences" (one user a line, then the items in order), "attributes" (their items: a JSON
    # object of lists), "Netflix prize" (a line "1:" before the ratings of film 1), "JSON lines" or "parquet"
    kind: str
    names: list[str]
    header: bool = False
    separator: str = ""
    encoding: str = "utf-8"
    quoted: bool = False  # whether double quotes can hold a separator
    before: int = 0  # lines before the header, or the first row
    head: tuple[str, ...] = ()  # the first lines, of text

    def __str__(self) -> str:
        if self.kind != "text":
            return {"sequences": "one user a line, then the items in order"}.get(self.kind, self.kind)
        return f"{self.encoding}, {self.separator!r} between columns, {'a' if self.header else 'no'} header"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn whatever a library says of a file that it cannot read into one sentence that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeError, csv.Error, json.JSONDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path.name} cannot be read, it is damaged or of another form ({reason})") from error
    except LookupError as error:
        raise ValueError(f"{path.name}: {error}; encoding= takes names such as 'cp1251' or 'shift_jis'") from error


def form_of(
    path: Path,
    table: str = "interactions",
    *,
    columns: Mapping[str, str] | None = None,
    names: Sequence[str] | None = None,
    separator: str | None = None,
    encoding: str | None = None,
) -> Form:
    r"""Tell what a file is by its content; ValueError, which says what to pass, where nothing can be guessed.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "visits"
    >>> _ = path.write_text("196\t242\t3\t881250949\n")
    >>> form_of(path).names, str(form_of(path))
    (['user_id', 'item_id', 'rating', 'timestamp'], "utf-8, '\\t' between columns, no header")
    """
    if path.is_dir():
        return Form("parquet", parquet.ParquetDataset(path).schema.names)
    if _bytes_of(path, 4) == b"PAR1":
        return Form("parquet", parquet.ParquetFile(path).schema_arrow.names)
    lines, before, encoding = _head(path, encoding)
    if not lines:
        return Form("text", [], encoding=encoding, separator=",")
    first = lines[0].strip()
    if path.name.endswith(_ATTRIBUTES):
        return Form("attributes", ["item_id", "genres"])
    if re.fullmatch(r"\d+:", first):
        return Form("Netflix prize", _RATED, encoding=encoding)
    if re.match(r"(?i)<(!doctype|html|\?xml)|version https://git-lfs", first):
        raise ValueError(
            f"{path.name} is a page or a pointer, no table (it begins {first[:40]!r}): get the file itself"
        )
    objects = [one for one in map(cells.literal, lines) if isinstance(one, dict)] if first.startswith("{") else []
    if first.startswith(("[{", "{")) and not objects or first == "[":
        raise ValueError(
            f"{path.name} is JSON, but no JSON lines: write one object a line, or load the DataFrame that "
            "pandas.read_json makes of it"
        )
    if objects:
        names = list(dict.fromkeys(name for one in objects for name in one))
        return Form("JSON lines", names, encoding=encoding, before=before)
    separator = separator or _separator(lines)
    form = Form("text", [], separator=separator, encoding=encoding, before=before, head=tuple(lines))
    return _with_columns(form, path, table, columns, names)


def _with_columns(
    form: Form, path: Path, table: str, columns: Mapping[str, str] | None, names: Sequence[str] | None
) -> Form:
    """Complete the form of delimited text by its first lines: header, quotes, and what its columns are."""
    rows = [_fields(line, form.separator) for line in form.head]
    first_row, header, widths = rows[0], _is_header(rows, given=names is not None), Counter(map(len, rows))
    sequences = replace(form, kind="sequences", names=["user_id", "item_id", "position"])
    if names is not None and list(names) == sequences.names[:2] and len(first_row) > 2:
        return sequences
    if names is not None and len(names) != len(first_row):
        raise ValueError(f"names= gives {len(names)} names, and {path.name} has {len(first_row)} columns")
    quoted = len(form.separator) == 1 and form.separator != " " and not any(map(_typed_name, first_row))
    form = replace(form, names=list(names or first_row), header=header, quoted=quoted)
    known = _GROUPLENS.get(path.name, ())
    if path.name == "u.item" and (genres := path.with_name("u.genre")).is_file():
        known = [*known, *_read_lines(genres, None).str.split("|").str[0]]
    width = widths.most_common(1)[0][0]
    if names is None and width == len(known):
        return replace(form, names=list(known), header=False, quoted=False)
    if names is None and header and width == len(first_row) + 1:  # a separator ends each row, or R counts them
        ended = not any(row[-1].strip() for row in rows[1:] if len(row) == width)
        return replace(form, names=[*first_row, ""] if ended else ["", *first_row])
    if header or names is not None or (columns and set(columns) <= set(first_row)):
        return form
    if len(widths) > 1 and all(cell.isdecimal() for row in rows for cell in row):
        return sequences
    guess = _guess(first_row, table)
    if guess is None:
        n, begins = len(first_row), ", ".join(map(repr, first_row[:_SHOWN]))
        says = f"say what its {n} columns are, such as names={names_of(n)}"
        if n > MOST_COLUMNS:
            says = f"of a matrix of {n} columns make rows of one user and one item first, as pandas.melt does"
        raise ValueError(
            f"{path.name} has no header line (it begins {begins}): {says}, or names={sequences.names[:2]} if each "
            "line is a user and then the items in order"
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


def _is_header(rows: Sequence[Sequence[str]], *, given: bool) -> bool:
    """Whether the fields of a first line are names: known ones, pandas's own "0,1,2", or texts unlike those below.

    Like those below is "u17" above "u3". Where names are ``given``, the file has none but above a column of numbers.

    >>> _is_header([["who", "what"], ["u3", "x"]], given=False), _is_header([["u17", "y"], ["u3", "x"]], given=False)
    (True, False)
    """
    fields, below = rows[0], list(zip(*rows[1:], strict=False)) or [()] * len(rows[0])
    if our_names(fields, {}) or fields == [str(place) for place in range(len(fields))]:
        return True
    below_shapes = [{re.sub(r"\d+", "0", cell) for cell in column} for column in below]
    pairs = zip((re.sub(r"\d+", "0", cell) for cell in fields), below_shapes, strict=False)
    alike = any("0" in shape and shape in shapes for shape, shapes in pairs)
    if alike or any(map(_is_number, fields)):
        return False
    return not given or any(column and all(map(_is_number, column)) for column in below)


def _typed_name(name: object) -> bool:
    return str(name).endswith((":token", ":float", ":token_seq", ":float_seq"))


def names_of(n: int) -> list[str]:
    """Propose names for n columns."""
    return [*_RATED, *(f"column_{place + 1}" for place in range(4, n))][:n]


def _guess(fields: Sequence[str], table: str) -> list[str] | None:
    """Names of the columns of a file without a header, in MovieLens's order where the first line fits it."""
    if table != "interactions":
        known = {"items": ["item_id", "title", "genres"], "users": ["user_id"]}.get(table, [])
        return [*known, *(f"column_{place + 1}" for place in range(len(known), len(fields)))][: len(fields)]
    numbers = [float(cell.replace(",", ".")) if _is_number(cell) else np.nan for cell in fields]
    if len(fields) == 2:
        return ["user_id", "item_id"]
    if len(fields) == 3 and numbers[2] >= 1e8:
        return ["user_id", "item_id", "timestamp"]
    if len(fields) in (3, 4) and abs(numbers[2]) <= 100 and (len(fields) == 3 or numbers[3] >= 1e8):
        return _RATED[: len(fields)]
    return None


def our_names(present: Iterable[str], columns: Mapping[str, str], table: str = "interactions") -> dict[str, str]:
    """Our name of each column that is understood: by the mapping, else by its spelling, RecBole's types aside.

    >>> our_names(["User ID", "track", "plays", "rating:float"], {"track": "item_id", "plays": "weight"})
    {'track': 'item_id', 'plays': 'weight', 'User ID': 'user_id', 'rating:float': 'rating'}
    """
    present = list(present)
    names = {theirs: columns[theirs] for theirs in present if theirs in columns}
    twice = [theirs for theirs, ours in names.items() if list(names.values()).count(ours) > 1]
    if twice:
        raise ValueError(f"columns: {twice[0]!r} and {twice[1]!r} of the same table both map to {names[twice[0]]!r}")
    plain = {name: str(name).partition(":")[0] if _typed_name(name) else str(name) for name in present}
    for ours, spellings in _SPELLINGS.items():
        if ours in present and ours not in names and ours not in names.values():
            names[ours] = ours
        like = [name for name in present if "".join(filter(str.isalnum, plain[name])).lower() in spellings]
        if ours not in names.values() and like and like[0] not in names:
            names[like[0]] = ours
    for theirs, ours in _BESIDE.get(table, {}).items():
        if theirs in present and ours not in names.values():
            names[theirs] = ours
    return names


def find_root(folder: Path) -> Path | None:
    """The folder, or one up to two levels below it, that holds interactions, in a table that is called so if any."""
    below = sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_dir())
    for lone in (False, True):
        for place in (folder, *below):
            if "interactions" in _files_of(place, lone=lone):
                return place
    return None


def _files_of(folder: Path, *, lone: bool = True) -> dict[str, Path]:
    """Which table is in which file of a folder; a ``lone`` table of any name is that of the interactions."""
    plain = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] not in "._"]
    tables = [path for path in plain if re.sub(r"\.(gz|bz2)$", "", path.name.lower()).endswith(_ENDINGS)]
    tables = [path for path in tables if not re.match(r"(readme|licen[sc]e|tags|links)\b", path.name.lower())]
    if tables and all(re.match(r"part-.*\.parquet$", path.name) for path in tables):
        return {"interactions": folder}
    parts = {path: (path.name.lower().split(".")[0], path.suffix[1:].lower()) for path in tables}
    files = {}
    for name, stems in _STEMS.items():
        if fitting := [path for stem in stems for path in tables if stem in parts[path]]:
            files[name] = fitting[0]
    rest = [path for path in tables if path not in files.values() and not path.name.endswith(_ATTRIBUTES)]
    if lone and "interactions" not in files and len(rest) == 1:
        files["interactions"] = rest[0]
    return files


def read_files(
    path: Path,
    columns: Mapping[str, str] | None = None,
    items: Path | None = None,
    users: Path | None = None,
    *,
    names: Sequence[str] | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    time_unit: str = "s",
    archive: str | None = None,
) -> RawTables:
    """Read a table of interactions, or a folder of tables, perhaps of an ``archive``, under the lab's column names.

    The arguments are those of :func:`recsys_lib.data.load_dataset`. FileNotFoundError if a folder holds no table of
    interactions, ValueError if a mapping does not fit a column, or a file cannot be read.
    """
    files = {"interactions": path}
    if path.is_dir():
        root = find_root(path)
        if root is None and any(path.glob("part-*")):
            raise ValueError(f"{path} holds a table in parts of text: join them to one file, or write parquet")
        if root is None:
            known = ", ".join(f"{stem}.csv" for stem in _STEMS["interactions"][:4])
            raise FileNotFoundError(
                f"{archive or path} holds no table of interactions: call it one of {known} (or .tsv, .parquet)"
            )
        files = _files_of(root)
    elif path.name in ("u.data", "ratings.dat"):  # GroupLens's, which never come alone
        files = _files_of(path.parent) | files
    attributes = files["interactions"].with_name(files["interactions"].name.split(".")[0] + _ATTRIBUTES)
    if attributes.is_file():
        files.setdefault("items", attributes)
    files |= {name: file for name, file in (("items", items), ("users", users)) if file is not None}
    forms = {}
    for name, file in files.items():
        given = {"names": names, "separator": separator} if name == "interactions" else {}
        with _named(file):
            forms[name] = form_of(file, name, columns=columns, encoding=encoding, **given)
    present = [column for form in forms.values() for column in form.names]
    _check_mapping(columns, present, " and ".join(file.name for file in files.values()))
    tables = RawTables(files=files, forms=forms, encoding=encoding, columns=forms["interactions"].names)
    for name, file in files.items():
        with _named(file):
            _keep(tables, name, _read(file, name, columns or {}, tables), time_unit)
    tables.whole_ids = _is_grouplens(tables)
    cells.agree_on_ids((tables.interactions, tables.items, tables.users), whole=tables.whole_ids)
    if "items" in forms and forms["items"].kind == "attributes":
        _complete_attributes(tables)
    return tables


def _is_grouplens(tables: RawTables) -> bool:
    """Whether the names of file and columns are GroupLens's, and most ids are whole numbers as there."""
    file, frame = tables.file("interactions"), tables.interactions.head(1000)
    named = tables.columns == _GROUPLENS.get(file) or {"userId", "movieId"} <= set(tables.columns)
    if not named or not {"user_id", "item_id"} <= set(frame) or not len(frame):
        return False
    return all(frame[name].astype("str").str.fullmatch("[1-9][0-9]*").mean() > 0.5 for name in ("user_id", "item_id"))


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
    given = {name: _without_index(frame) for name, frame in given.items() if frame is not None}
    _check_mapping(columns, [column for frame in given.values() for column in frame], "the tables")
    tables = RawTables(columns=list(interactions.columns))
    for name, frame in given.items():
        names, only = _taken(tables, name, list(frame.columns), columns or {})
        _keep(tables, name, _plain(frame[only].copy(), names, f"the {name}"), time_unit)
    cells.agree_on_ids((tables.interactions, tables.items, tables.users))
    return tables


def _without_index(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose index counts its rows; an index that has a name becomes a column."""
    named = [name for name in frame.index.names if name is not None and name not in frame]
    return (frame.reset_index(named) if named else frame).reset_index(drop=True)


def _taken(
    tables: RawTables, table: str, present: list[str], columns: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Our names of the columns that are taken of a table, and which are read: of the interactions no others."""
    names = our_names(present, columns, table)
    if table == "interactions":
        names = {theirs: ours for theirs, ours in names.items() if ours in _WANTED}
        tables.spare = [theirs for theirs in present if theirs not in names]
    only = [theirs for theirs in present if theirs in names or (table != "interactions" and theirs != "")]
    if twice := [name for name in only if only.count(name) > 1]:
        raise ValueError(f"{tables.file(table)} has two columns {twice[0]!r}: rename one of them, or leave it out")
    return names, only


def _plain(frame: pd.DataFrame, names: Mapping[str, str], file: str) -> pd.DataFrame:
    """Make plain the cells of typed columns that mean something, under our names."""
    for theirs, ours in names.items():
        if ours in (*_WANTED, "year"):
            frame[theirs] = cells.plain_cells(frame[theirs], ours, f"{file}, column {theirs!r}")
    return frame.rename(columns=names)


def _keep(tables: RawTables, name: str, frame: pd.DataFrame, time_unit: str) -> None:
    """Put a table in its place: times in seconds, ratings as numbers, items with all their columns."""
    if "timestamp" in frame:
        frame["timestamp"] = cells.as_seconds(frame["timestamp"], time_unit)
    for column in {"rating", WEIGHT} & set(frame):
        frame[column] = cells.as_numbers(frame[column])
    setattr(tables, name, as_items(frame) if name == "items" else frame)


def as_items(items: pd.DataFrame) -> pd.DataFrame:
    """Items with the columns that every items' table has; years are taken out of titles where most end in one."""
    if "item_id" not in items:
        return items
    n = len(items)
    title = items["title"].astype("str") if "title" in items else pd.Series([None] * n, dtype="str")
    lists = cells.genre_lists(items["genres"]) if "genres" in items else pd.Series([[] for _ in range(n)], dtype=object)
    year = items["year"] if "year" in items else pd.Series([pd.NA] * n, dtype="Int16")
    if "year" not in items and 2 * (split := cells.split_year(title))["year"].notna().sum() >= max(1, n):
        title, year = split["title"], split["year"]
    year = year.mask(year.isin([0, "0"]))  # unknown, in Book-Crossing
    first = pd.DataFrame({"item_id": items["item_id"], "title": title, "year": year, "genres": lists})
    return pd.concat([first, items.drop(columns=list(first.columns), errors="ignore")], axis=1)


def _check_mapping(columns: Mapping[str, str] | None, present: Iterable[str], holders: str) -> None:
    """Refuse a mapping to a name that is none of ours, or from a column that no table has."""
    allowed = (*_WANTED, "title", "year", "genres")
    for theirs, ours in (columns or {}).items():
        if ours not in allowed:
            raise ValueError(f"columns: {theirs!r} maps to {ours!r}, which is none of {', '.join(allowed)}")
        if theirs not in present:
            listed = ", ".join(sorted(set(map(str, present))))
            raise ValueError(f"{holders} have no column {theirs!r} to map; the columns are {listed}")


def _read(path: Path, table: str, columns: Mapping[str, str], tables: RawTables) -> pd.DataFrame:
    """Read one file; of the interactions only the columns that are understood."""
    form = tables.forms[table]
    names, only = _taken(tables, table, form.names, columns)
    if form.kind == "text":
        frame = _text(table, names, only, tables)
    elif form.kind == "attributes":
        frame = _attributes(path, form)
    elif form.kind == "sequences":
        frame = _sequences(path, form, tables.encoding)
    elif form.kind == "Netflix prize":
        frame = _netflix(path, tables.encoding)
    else:
        given = parquet.read_table(path, columns=only) if form.kind == "parquet" else _json(table, only, tables)
        if isinstance(given, pa.Table):
            given = given.to_pandas(ignore_metadata=True, integer_object_nulls=True)
        frame = _plain(given, names, path.name)
    taken = ", ".join(theirs if theirs == ours else f"{theirs!r} as {ours}" for theirs, ours in names.items())
    left = ", ".join(str(theirs) for theirs in form.names if theirs not in only)
    tables.notes.append(
        f"{path.name}: {form}, {len(frame):,} rows; took {taken or 'no column'}{left and f'; left out {left}'}"
    )
    return frame.rename(columns=names).rename(columns=lambda name: name.split(":")[0] if _typed_name(name) else name)


def _text(table: str, names: Mapping[str, str], only: list[str], tables: RawTables) -> pd.DataFrame:
    """Read delimited text by pyarrow: typed columns, both cores, no Python loop over rows.

    Ids are read as text, so that "007" stays what it is, or as numbers where no cell is written like that. A file that
    does not fit is read once more, slower, as text: columns whose values are not all numbers stay text, so that a check
    can name the rows, and lines with another number of fields are left out and named.
    """
    path, form = tables.files[table], tables.forms[table]
    if not form.names:
        tables.unread.append(f"{path.name} is empty")
        return pd.DataFrame()
    if form.header and len(form.head) == 1:
        return pd.DataFrame(columns=only)
    types = {theirs: pa.string() for theirs, ours in names.items() if ours in _TEXTS}
    types |= {theirs: pa.float32() for theirs, ours in names.items() if ours in ("rating", WEIGHT)}
    quotes, whole = _marks(path, form)
    form = replace(form, quoted=form.quoted and quotes)
    # before a separator a backslash is but a letter, as in "C:\\"
    escaped = form.quoted and table != "interactions" and bool(re.search(rb'\\"[^",;|\s]', _bytes_of(path)))
    how = {"escape": "\\" if escaped else None, "block_size": 1 << 20 if table == "interactions" else 16 << 20}
    how["content"] = None if form.separator in _SEPARATORS[1:-1] else _separated(path, form, tables.encoding)
    how["quote"] = '"' if form.quoted or not quotes else False  # to none pyarrow gives twice the memory
    numbers = {theirs: pa.int64() for theirs, ours in names.items() if ours in _WHOLE}
    uneven: list = []
    for first in (numbers, {})[not whole :]:
        with suppress(pa.ArrowInvalid, UnicodeDecodeError):
            parsed = _parsed(path, form, types | first, only, **how)
            if not any(parsed[name].null_count for name in first):
                break
    else:
        everything = _bytes_of(path)
        encoding = tables.encoding or _encoding(path, everything)
        everything.decode(encoding)  # or says which byte it cannot be; pyarrow would go on without the row
        form = replace(form, encoding=encoding)
        text = dict.fromkeys(only, pa.string())
        how["block_size"] = 64 << 20  # for a cell that is longer than a block
        parsed = _parsed(path, form, text, only, **how, skip=lambda row: uneven.append(row) or "skip")
    tables.forms[table] = form
    if form.quoted:
        _check_quotes(path, form, len(parsed) + len(uneven), how["escape"])
    if uneven:
        rows = [row.number - form.before - form.header - 1 for row in uneven]
        lines = zip(tables.lines(table, rows[:_SHOWN]), uneven, strict=False)
        shown = ", ".join(f"line {line} ({row.actual_columns} fields)" for line, row in lines)
        does = "1 line does" if len(uneven) == 1 else f"{len(uneven):,} lines do"
        tables.unread.append(f"{path.name}: {does} not have {uneven[0].expected_columns} fields: {shown}")
        tables.skipped[table] = rows
    frame = parsed.to_pandas(split_blocks=True, self_destruct=True)  # hands memory over column by column
    if all(0 < line.count(form.separator) == line.count(form.separator + " ") for line in form.head):
        for name in (name for name in only if isinstance(frame[name].dtype, pd.StringDtype)):
            frame[name] = frame[name].str.lstrip(" ")  # a blank behind every separator belongs to it
    return _of_grouplens(path.name, form, frame)


def _json(table: str, only: list[str], tables: RawTables) -> pa.Table | pd.DataFrame:
    """Read JSON lines by pyarrow; where a line does not fit, line by line, in Python's way of writing, too."""
    path, form = tables.files[table], tables.forms[table]
    content = _bytes_of(path)
    if form.encoding != "utf-8":
        content = content.decode(form.encoding).encode()
    with suppress(pa.ArrowInvalid):
        return arrow_json.read_json(pa.BufferReader(content)).select(only)
    lines = [line for line in _lines(content.decode())[form.before :] if line.strip()]
    rows = [cells.literal(line) for line in lines]
    if bad := [place for place, row in enumerate(rows) if not isinstance(row, dict)]:
        shown = ", ".join(f"line {line}" for line in tables.lines(table, bad[:_SHOWN]))
        tables.unread.append(f"{path.name}: {len(bad):,} of the lines are not JSON objects: {shown}")
        tables.skipped[table] = bad
    return pd.DataFrame([row for row in rows if isinstance(row, dict)], columns=only, dtype=object)


def _parsed(
    path: Path,
    form: Form,
    types: Mapping[str, pa.DataType],
    only: list[str],
    *,
    content: bytes | None,
    quote: str | bool,
    escape: str | None,
    block_size: int,
    skip: Callable | None = None,
) -> pa.Table:
    """Parse columns of a text file, or of its ``content`` where it is at hand; uneven lines are handed to ``skip``."""
    source = pa.OSFile(str(path)) if content is None else pa.BufferReader(content)
    if content is None and (packing := _packing(path)[0]):
        source = pa.CompressedInputStream(source, packing)
    reading = arrow_csv.ReadOptions(
        column_names=form.names, skip_rows=form.before + form.header, block_size=block_size, use_threads=skip is None,
        encoding="utf8" if content or form.encoding.startswith("utf-8") else form.encoding,
    )  # fmt: skip
    parsing = arrow_csv.ParseOptions(
        delimiter=form.separator if content is None else "\x1f", quote_char=quote,
        escape_char=escape or False, newlines_in_values=form.quoted, invalid_row_handler=skip,
    )  # fmt: skip
    converting = arrow_csv.ConvertOptions(
        column_types=types, include_columns=only, null_values=MISSING,
        strings_can_be_null=True, quoted_strings_can_be_null=True,
    )  # fmt: skip
    parsed = arrow_csv.read_csv(source, reading, parsing, converting)
    if any(pa.types.is_binary(kind) for kind in parsed.schema.types):
        raise pa.ArrowInvalid("a column is not UTF-8")
    return parsed


def _marks(path: Path, form: Form) -> tuple[bool, bool]:
    """Whether double quotes stand below the header of a text file, and whether what reads as a whole number is written so.

    It is where no cell begins with a minus, or with a zero and goes on: pyarrow takes "007", "-0" and "0x1F", too.
    """  # noqa: E501
    separator, quotes = ord(form.separator[-1]), -(form.head[0].count('"') if form.header else 0)
    whole, end = form.encoding in ("utf-8", "cp1252"), b"\n"
    with _packing(path)[1](path, "rb") as handle:
        while quotes <= 0 and (block := handle.read(1 << 18)):
            quotes += block.count(b'"') if b'"' in block else 0  # most files have none: to see that is quicker
            whole = whole and b"-" not in block
            if whole:
                letters = np.frombuffer(end + block, np.uint8)
                before, after, zeros = letters[:-2], letters[2:], letters[1:-1] == ord("0")
                zeros &= (before < ord("-")) | (before == separator)
                after = after[zeros]
                whole, end = not ((after >= ord("0")) & (after != separator)).any(), block[-2:]
    return quotes > 0, whole and quotes <= 0


def _count(path: Path, mark: bytes) -> int:
    """How often a byte stands in a file."""
    with _packing(path)[1](path, "rb") as handle:
        return sum(block.count(mark) for block in iter(lambda: handle.read(1 << 18), b""))


def _check_quotes(path: Path, form: Form, rows: int, escape: str | None) -> None:
    """Refuse a file in which a quote that is not closed swallows lines."""
    if _count(path, b"\n") <= rows + form.header + form.before:
        return
    before = 0
    with _as_text(path, form) as handle:
        lines = csv.reader(handle, delimiter=form.separator, escapechar=escape, strict=True)
        try:
            for _ in lines:
                before = lines.line_num
        except csv.Error as error:
            raise ValueError(
                f"{path.name}, line {before + 1}: a quote is not closed on its line ({error}); close it, or write "
                'two ("") for a quote that belongs to the text'
            ) from error


def _separated(path: Path, form: Form, encoding: str | None) -> bytes:
    """Content of a file with a separator of one letter; "::" may stand in a title."""
    text = _text_of(path, encoding)
    if form.separator == " ":
        return "\n".join("\x1f".join(line.split()) for line in _lines(text)).encode()
    free = next((place for place, name in enumerate(form.names) if name == "title"), None)
    if free is None:
        return text.replace(form.separator, "\x1f").encode()
    mark, n = re.escape(form.separator), len(form.names)
    pattern = f"(?m)^{f'(.*?){mark}' * free}(.*){f'{mark}(.*?)' * (n - free - 1)}$"
    return re.sub(pattern, "\x1f".join(rf"\{place}" for place in range(1, n + 1)), text).encode()


def _of_grouplens(file: str, form: Form, frame: pd.DataFrame) -> pd.DataFrame:
    """Genres of ml-100k from as many flags; occupations of ml-1m from their numbers; other tables as they are."""
    if form.header or form.names[: len(_GROUPLENS.get(file, ()))] != _GROUPLENS.get(file):
        return frame
    if file == "u.item":
        genres = frame.columns[len(_GROUPLENS[file]) :]
        on = frame[genres].astype("str").eq("1").to_numpy()
        return frame[["item_id", "title"]].assign(genres=["|".join(genres[flags]) for flags in on])
    if file == "users.dat":
        words = pd.Series(_OCCUPATIONS, index=map(str, range(len(_OCCUPATIONS))), dtype="str")
        frame["occupation"] = words.reindex(frame["occupation"].astype("str")).to_numpy()
    return frame[_GROUPLENS["u.user"]] if file == "users.dat" else frame


def _sequences(path: Path, form: Form, encoding: str | None) -> pd.DataFrame:
    """Lines of a user and the items in their order as one row an interaction, with its position from 0."""
    lines = enumerate(_lines(_text_of(path, encoding)), 1)
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
    tables.items = pd.concat([tables.items, as_items(pd.DataFrame({"item_id": lacking}))], ignore_index=True)


def _netflix(path: Path, encoding: str | None) -> pd.DataFrame:
    """Ratings below the film that they belong to, of all files ``combined_data_<n>.txt`` beside this one."""
    files = sorted(path.parent.glob("combined_data_*.txt")) if path.name.startswith("combined_data_") else [path]
    lines = pd.concat([_read_lines(file, encoding) for file in files], ignore_index=True).str.strip()
    heads = lines.str.endswith(":")
    frame = lines[~heads].str.split(",", expand=True).reindex(columns=range(3))
    frame = frame.set_axis(["user_id", "rating", "timestamp"], axis=1)
    return frame.assign(item_id=lines.where(heads).ffill().str[:-1]).reset_index(drop=True)


# ml-100k as the package RecBole carries it


_FOLDER = "recbole/dataset_example/ml-100k"
PACKAGE_FILES = tuple(f"{_FOLDER}/ml-100k.{ending}" for ending in ("inter", "item", "user"))


def read_package(folder: Path) -> RawTables:
    """Read ml-100k as the RecBole package carries it, so that the tables equal those of GroupLens's own archive."""
    tables = read_files(folder / _FOLDER)
    # The package splits "Toy Story (1995)" at the last bracket: joined again and split as everywhere, the one film
    # with a bracket after the year gets its title too. The film that is called "unknown" (267) is misspelt there.
    films = tables.items
    titles = films["movie_title"] + " (" + films["year"].astype("str") + ")"
    titles, genres = titles.mask(films["movie_title"].eq("unkonwn"), "unknown"), films["class"].str.replace(" ", "|")
    tables.items = as_items(pd.DataFrame({"item_id": films["item_id"], "title": titles, "genres": genres}))
    return tables
