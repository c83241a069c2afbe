"""Tables of one's own: other names, other ids, no ratings, no times, twice the same pair."""

import ast
import csv
import gzip
import logging
import re
import zipfile
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_lib.benchmarks import reading
from recsys_lib.data import BadTableError, load_dataset
from recsys_lib.data.fetch import BadArchiveError
from recsys_lib.data.interactions import MISSING, Interactions
from recsys_lib.data.load import identity


@pytest.fixture
def table(tmp_path, lab_home):
    """Write text to a file and give its path."""

    def write(text: str, name: str = "plays.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def values(path, **options) -> list:
    return load_dataset(path, **options).interactions.values.tolist()


def test_string_ids_and_nothing_else(table, caplog):
    data = load_dataset(table("user,item,mood\nann,x,1\nbob,x,2\nann,y,3\n"))
    assert caplog.messages == [
        "plays.csv: utf-8, ',' between columns, a header, 3 rows; took 'user' as user_id, 'item' as item_id; "
        "left out mood"
    ]
    assert data.interactions.columns.tolist() == ["user_id", "item_id", "rating"]
    assert data.interactions.values.tolist() == [["ann", "x", 1], ["bob", "x", 1], ["ann", "y", 1]]
    assert (data.rating_scale, data.has_timestamps, data.has_genres, data.demographics) == (None, False, False, [])
    assert (data.name, data.items["title"].tolist(), data.users["user_id"].tolist()) == (
        "plays",
        ["x", "y"],
        ["ann", "bob"],
    )
    assert Interactions.from_frame(data.interactions).matrix.toarray().tolist() == [[1, 1], [1, 0]]


def test_explicit_ratings_take_their_scale_from_the_data(table):
    path, columns = table("who;what;stars;when\n5;9;2.5;100\n6;9;10;200\n"), {"who": "user_id", "what": "item_id"}
    data = load_dataset(str(path), columns={**columns, "when": "timestamp"}, items="", users=None)
    assert data.rating_scale == (2.5, 10.0)
    assert data.interactions.dtypes.astype(str).tolist() == ["int64", "int64", "float32", "int64"]
    assert load_dataset(path, columns=columns, rating_scale=[]).rating_scale == (2.5, 10)
    assert load_dataset(path, columns=columns, rating_scale=[1, 10]).rating_scale == (1, 10)
    with pytest.raises(BadTableError, match="ratings here go from 1 to 5"):
        load_dataset(path, columns=columns, rating_scale=(1, 5))


def test_weights_and_implicit_feedback(table):
    data = load_dataset(table("user\titem\tcount\n1\t7\t3\n2\t7\t12\n", "plays.tsv"), columns={"count": "weight"})
    assert (data.interactions["rating"].tolist(), data.rating_scale) == ([3.0, 12.0], None)
    with pytest.raises(BadTableError, match="1 row with a weight of 0 or less .line 2: 0.0.; weights are positive"):
        load_dataset(table("user,item,weight\n1,7,0\n"))
    assert values(table("user,item,rating\n1,7,3\n2,7,4\n"), implicit=True) == [[1, 7, 1], [2, 7, 1]]
    both = table("user,item,rating,weight\n1,7,3,9\n")
    assert values(both, implicit=True) == [[1, 7, 9]]
    with pytest.raises(ValueError, match="there are ratings and weights"):
        load_dataset(both)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["7", "12"], [7, 12]),
        (["007", "7"], ["007", "7"]),
        (["-3", "4"], [-3, 4]),
        (["7", "a"], ["7", "a"]),
        (["1.5", "2"], ["1.5", "2"]),
        (["9223372036854775808", "2"], ["9223372036854775808", "2"]),
        (["é ü", "日本"], ["é ü", "日本"]),
    ],
)
def test_ids_stay_what_they_are(table, written, read):
    data = load_dataset(table("user,item\n" + "".join(f"{one},{i}\n" for i, one in enumerate(written))))
    assert data.interactions["user_id"].tolist() == read


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pd.Series([1.0, 2.0]), [1, 2]),
        (pd.Series([1, 2], dtype="int8"), [1, 2]),
        (pd.Series([2**63, 1], dtype="uint64"), [str(2**63), "1"]),
        (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
        (pd.Series([True, False]), ["True", "False"]),
        (pd.to_datetime(pd.Series(["2020-01-01", "2020-01-02"])), ["2020-01-01 00:00:00", "2020-01-02 00:00:00"]),
        (pd.Series([b"\xff", b"a"]), ["b'\\xff'", "a"]),
        (pd.Series([b"7", b"8"]), [7, 8]),
        (pd.Series([Decimal("7.0"), Decimal("8.0")]), [7, 8]),
        (pd.Series([2**53 + 1, 2**53 + 3, None], dtype="Int64"), [2**53 + 1, 2**53 + 3]),
        (pd.Series([2**53 + 1, 2**53 + 3, None], dtype="category"), [2**53 + 1, 2**53 + 3]),
        (pd.Series(["7", "8", "NULL"]), [7, 8]),
        (pd.to_timedelta(pd.Series([1, 2]), unit="s"), ["0 days 00:00:01", "0 days 00:00:02"]),
    ],
)
def test_ids_of_parquet(tmp_path, lab_home, ids, expected):
    frame = pd.DataFrame({"user_id": ids, "item_id": 1})
    frame.to_parquet(tmp_path / "plays.parquet")
    for source in (tmp_path / "plays.parquet", frame):
        assert load_dataset(source, bad_rows="drop").interactions["user_id"].tolist() == expected


@pytest.mark.parametrize(
    ("column", "cells", "says"),
    [
        ("user_id", [1e300, 2.0], r"1 row with an id beyond 2\*\*53 \(line \d: 1e\+300\); .* as integers or text"),
        ("item_id", [2.0, np.inf], r"1 row with an id beyond"),
        ("user_id", [[1], [2]], r"holds \[1\], not single values: DataFrame.explode makes a row of each user_id"),
        ("item_id", [{"a": 1}, {"a": 2}], "holds {'a': 1}, not single values"),
        ("rating", [[1], [2]], "not single values"),
        ("rating", [1e300, 2.0], "1 row with an infinite rating"),
        ("rating", pd.to_datetime(["2020-01-01", "2020-01-02"]), "2 rows with a rating that is not a number"),
        ("weight", pd.to_timedelta([1, 2], unit="s"), "2 rows with a rating that is not a number"),
        ("timestamp", [1e300, 2.0], "1 row with an absurdly late timestamp"),
        ("timestamp", pd.to_timedelta([1, 2], unit="s"), "2 rows with a timestamp that is not a number or a date"),
        ("timestamp", [True, False], "2 rows with a timestamp that is not a number or a date"),
        ("position", [1.5, 2.0], "1 row with an impossible position"),
        ("position", pd.Series([2**64 - 1, 1], dtype="uint64"), "1 row with an impossible position"),
        ("position", [True, False], "2 rows with a position that is not a number"),
    ],
)
def test_cells_that_cannot_be_what_their_column_is(tmp_path, lab_home, column, cells, says):
    frame = pd.DataFrame({"user_id": [1, 2], "item_id": [3, 4]}).assign(**{column: cells})
    frame.to_parquet(tmp_path / "plays.parquet")
    for source, name in ((tmp_path / "plays.parquet", "plays.parquet"), (frame, "the interactions")):
        with pytest.raises(ValueError, match=f"{name}, column '{'rating' if column == 'weight' else column}'.*{says}"):
            load_dataset(source)


@pytest.mark.parametrize(
    "kind", ["Int64", "Float64", "string", "int64[pyarrow]", "string[pyarrow]", "category", object]
)
@pytest.mark.parametrize("column", ["user_id", "rating", "timestamp", "position"])
def test_dtypes_of_a_frame(lab_home, column, kind):
    frame = pd.DataFrame({"user_id": [1, 2, 3], "item_id": 4, column: [5, 6, 7]})
    text = kind in ("string", "string[pyarrow]")
    cells = frame[column].astype("str" if text else "int64").astype(kind)
    assert load_dataset(frame.assign(**{column: cells})).interactions[column].tolist() == [5, 6, 7]
    lacking = frame.assign(**{column: cells.mask([False, False, True])})
    with pytest.raises(BadTableError, match=f"column '{column}': 1 row with no value"):
        load_dataset(lacking)
    assert load_dataset(lacking, bad_rows="drop").interactions[column].tolist() == [5, 6]


def test_all_files_agree_on_the_kind_of_ids(table, tmp_path):
    table("user_id,item_id\n1,1\n2,2\n", "mine/events.csv")
    table("item_id,title\n1,One\n2,Two\nx3,Three\n", "mine/items.csv")
    table("user_id,town\n2,Ghent\n1,Rome\n", "mine/users.csv")
    data = load_dataset(tmp_path / "mine")
    assert data.interactions["item_id"].tolist() == ["1", "2"]
    assert data.interactions["user_id"].tolist() == [1, 2]
    assert data.titles()["x3"] == "Three"
    assert data.users.to_dict("list") == {"user_id": [1, 2], "town": ["Rome", "Ghent"]}


def test_items_and_users_of_ones_own(table):
    events = table("user,item,rating\nann,1,5\nbob,2,3\n")
    items = table("item,title,year,genres,studio\n1,One,1999,Drama|War,A\n2,,,,B\n3,Three,2001,War,C\n", "films.csv")
    users = table("user,age\nbob,31\n", "people.csv")
    data = load_dataset(events, items=items, users=users)
    assert data.items.columns.tolist() == ["item_id", "title", "year", "genres", "studio"]
    assert data.items["title"].tolist() == ["One", "2", "Three"]
    assert data.items["year"].dtype == "Int16" and data.items["year"].isna().tolist() == [False, True, False]
    assert data.items["genres"].tolist() == [["Drama", "War"], [], ["War"]]
    assert data.users["age"].isna().tolist() == [True, False]


def test_the_last_of_a_pair_is_kept_by_time(table, caplog):
    path = table("user,item,rating,timestamp\n1,1,1,300\n1,1,2,100\n2,1,3,50\n1,1,4,200\n3,1,1,7\n3,1,5,7\n")
    data = load_dataset(path)
    assert data.interactions.values.tolist() == [[1, 1, 1, 300], [2, 1, 3, 50], [3, 1, 5, 7]]
    assert data.dropped == {"rows before the last one of the same user and item": 3}
    assert "left out 3 rows before the last one of the same user and item" in caplog.text
    assert values(table("user,item,rating\na,x,1\nb,x,3\na,x,2\n")) == [["b", "x", 3.0], ["a", "x", 2.0]]
    assert len(values(table(f"user,item\n-1,5\n{2**62},6\n{2**62},{2**61}\n-1,5\n"))) == 3


def test_weights_of_a_pair_are_added_up(table):
    path = table("user,item,weight,time\nb,x,1,10\na,x,2,30\nb,x,4,20\nb,y,8,1\nb,x,16,5\n")
    data = load_dataset(path, duplicates="sum")
    assert data.interactions.values.tolist() == [["a", "x", 2, 30], ["b", "x", 21, 20], ["b", "y", 8, 1]]
    assert data.dropped == {"rows added to another of the same user and item": 2}
    assert sorted(values(table("user,item\n1,1\n1,1\n2,1\n"), duplicates="sum")) == [[1, 1, 2], [2, 1, 1]]
    with pytest.raises(ValueError, match="ratings cannot be added up"):
        load_dataset(table("user,item,rating\n1,1,3\n"), duplicates="sum")


@pytest.mark.parametrize(
    ("text", "options", "proposal", "read"),
    [
        ("1,2,3,4,0\n2,3,4,5,6\n", {}, r"(names)=(\[.*?\])", [[1, 2, 3, 4], [2, 3, 4, 5]]),
        (
            "1 7 8 9\n2 7 8 8\n",
            {},
            r"or (names)=(\[.*?\])",
            [[1, 7, 1, 0], [1, 8, 1, 1], [1, 9, 1, 2], [2, 7, 1, 0], [2, 8, 1, 1], [2, 8, 1, 2]],
        ),
        ("1" + ",2" * 30 + "\n", {"duplicates": "last"}, r"or (names)=(\[.*?\])", [[1, 2, 1, 29]]),
        ("who,item\n1,2\n", {}, r"(columns)=({.*?})", [[1, 2, 1]]),
        ("user,what\n1,2\n", {}, r"(columns)=({.*?})", [[1, 2, 1]]),
        ("who,what\n1,2\n", {}, r"(columns)=({.*?})", [[1, 2, 1]]),
        ("amy,up\nbob,jaws\n", {}, r"(names)=(\[.*?\])", [["amy", "up", 1], ["bob", "jaws", 1]]),
        ("user^item\n1^2\n", {}, r"(separator)=('\^')", [[1, 2, 1]]),
        ("user,item,rating\n1,2,x\n1,3,4\n1\n", {}, "(bad_rows)=('drop')", [[1, 3, 4]]),
        ("user,item,time\n1,2,881250949123\n", {}, "(time_unit)=('ms')", [[1, 2, 1, 881250949]]),
        ("user,item,time\n1,2,881250949123456\n", {}, "(time_unit)=('us')", [[1, 2, 1, 881250949]]),
        ("user,item,time\n1,2,881250949123456789\n", {}, "(time_unit)=('ns')", [[1, 2, 1, 881250949]]),
        ("user,item,rating,weight\n1,2,3,9\n", {}, "(implicit)=(True)", [[1, 2, 9]]),
        ("user,item,rating\n1,2,3\n1,2,4\n", {"duplicates": "sum"}, "(duplicates)=.* keep the ('last')", [[1, 2, 4]]),
        ("user,item\n1,2\n", {"duplicates": "all"}, "(duplicates)=.* one of 'last', ('sum')", [[1, 2, 1]]),
        ("user,item\n1,\n1,2\n", {"bad_rows": "skip"}, "(bad_rows)=.* one of 'raise', ('drop')", [[1, 2, 1]]),
        ("user,item\n1,2\n1,3\n", {"items": "item\n2\n"}, "(missing_items)=('keep')", [[1, 2, 1], [1, 3, 1]]),
        ("user,item\n1,2\n1,3\n", {"items": "item\n2\n"}, "(missing_items)=('drop')", [[1, 2, 1]]),
    ],
)
def test_what_a_message_proposes_works(table, text, options, proposal, read):
    path = table(text)
    if "items" in options:
        options = {"items": table(options["items"], "films.csv")}
    with pytest.raises(ValueError) as refused:
        load_dataset(path, **options)
    argument, value = re.search(proposal, str(refused.value)).groups()
    assert values(path, **options | {argument: ast.literal_eval(value)}) == read


def test_frames_that_a_message_proposes_are_read(tmp_path, lab_home):
    (tmp_path / "one.json").write_text('[{"user_id": 1, "item_id": 2}]')
    assert values(pd.read_json(tmp_path / "one.json")) == [[1, 2, 1]]
    lists = pd.DataFrame({"user": [1, 2], "item": [[5, 6], [7]]})
    with pytest.raises(ValueError, match="column 'item' holds .* DataFrame.explode makes a row of each item_id"):
        load_dataset(lists)
    assert values(lists.explode("item")) == [[1, 5, 1], [1, 6, 1], [2, 7, 1]]
    indexed = lists.explode("item").set_index(["user", "item"]).assign(rating=3)
    assert values(indexed) == [[1, 5, 3], [1, 6, 3], [2, 7, 3]]  # names of an index are columns
    with pytest.raises(BadTableError, match="no column 'user_id' and no column 'item_id'; it has 0, 1"):
        load_dataset(pd.DataFrame([[1, 2]]))
    matrix = pd.DataFrame({"user": [1, 2], "Jaws": [5, None], "Up": [None, 3]})
    rows = matrix.melt("user", var_name="item", value_name="rating").dropna()
    assert values(rows) == [[1, "Jaws", 5], [2, "Up", 3]]


def test_names_that_a_message_proposes_are_understood(tmp_path, lab_home):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("user,item\n1,2\n")
    with pytest.raises(FileNotFoundError) as refused:
        load_dataset(tmp_path)
    names = re.search("call it one of (.*) \\(or", str(refused.value)).group(1).split(", ")
    for name in [*names, "interactions.tsv"]:
        (tmp_path / "a.csv").rename(tmp_path / name)
        assert values(tmp_path) == [[1, 2, 1]]
        (tmp_path / name).rename(tmp_path / "a.csv")
    frame = pd.DataFrame({"who": [1], "item": [2]})
    with pytest.raises(ValueError, match=r"mapped by columns=$"):
        load_dataset(frame, names=["user_id", "item_id"])
    assert values(frame, columns={"who": "user_id"}) == [[1, 2, 1]]
    with pytest.raises(ValueError, match="has no column 'user_id'; it has who, item .*columns={'who'"):
        load_dataset(frame)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"columns": {"nope": "user_id"}}, "plays.csv have no column 'nope' to map; the columns are item, user"),
        ({"users": "nope.csv"}, "users='nope.csv' does not exist"),
        ({"missing_items": "x"}, "missing_items='x' must be"),
        ({"dataset": "ml-100k", "columns": {"a": "user_id"}}, "ml-100k is known and needs none"),
        ({"columns": {"user": "users"}}, "maps to 'users', which is none of user_id, item_id"),
        ({"columns": {"user": "user_id", "item": "user_id"}}, "'user' and 'item' of the same table both map to"),
    ],
)
def test_options_that_do_not_fit_are_said(table, options, says):
    with pytest.raises(ValueError, match=says):
        load_dataset(**{"dataset": table("user,item\n1,1\n"), **options})


def test_the_identity_is_of_the_values(table):
    one = load_dataset(table("user,item,rating\n1,2,3\n2,3,4\n")).sha256
    assert load_dataset(table("item,extra,user,rating\n2,x,1,3.0\n3,y,2,4\n", "other.csv")).sha256 == one
    assert load_dataset(table("user,item,rating\n1,2,3\n2,3,5\n")).sha256 != one
    assert load_dataset(table("user,item,rating\n2,3,4\n1,2,3\n")).sha256 != one
    texts = [pd.DataFrame({"user_id": ids, "item_id": [1, 2]}) for ids in (["ab", "c"], ["a", "bc"])]
    assert identity(texts[0]) != identity(texts[1])


def test_lines_that_cannot_be_read_are_counted_when_dropped(table, caplog):
    path = table("user,item,rating\na,x,5\nb,x\nc,x,great\nd,x,3,9\ne,y,4\n")
    with caplog.at_level(logging.WARNING):
        data = load_dataset(path, bad_rows="drop")
    assert data.interactions["user_id"].tolist() == ["a", "e"]
    assert data.dropped == {
        "lines of plays.csv that cannot be read": 2,
        "rows of plays.csv with missing or impossible values": 1,
    }
    assert "plays.csv: 2 lines do not have 3 fields: line 3 (2 fields), line 5 (4 fields)" in caplog.text
    assert "(line 4: 'great')" in caplog.text
    packed = path.with_name("packed.csv.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert load_dataset(packed, bad_rows="drop").sha256 == data.sha256
    with pytest.raises(BadTableError, match="line 2: 'x'"):
        load_dataset(table("user,item,rating\na,b,x\n"), bad_rows="drop")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1).filter(
            lambda text: text not in MISSING
        ),
        min_size=1,
        unique=True,
    )
)
def test_any_text_is_an_id(tmp_path, lab_home, ids):
    frame = pd.DataFrame({"user_id": ids, "item_id": ids})
    path = tmp_path / "any.csv"
    frame.to_csv(path, index=False, quoting=csv.QUOTE_ALL)
    read = load_dataset(path)
    assert read.interactions["user_id"].astype(str).tolist() == ids
    assert set(read.items["title"]) == set(ids)
    known = Interactions.from_frame(read.interactions)
    assert known.matrix.nnz == len(ids) == known.n_users


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("../ratings.csv", BadArchiveError, "leads out of the folder"),
        ("readme.md", FileNotFoundError, "^mine.zip holds no table of interactions: call it one of interactions.csv"),
        ("", FileNotFoundError, "^mine.zip holds no table of interactions"),
        (None, BadArchiveError, "mine.zip is truncated or corrupt"),
    ],
)
def test_archives_of_ones_own_are_refused_with_the_reason(tmp_path, lab_home, name, error, says):
    (tmp_path / "mine.zip").write_bytes(b"PK\x03\x04 and no more")
    if name is not None:
        with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
            archive.writestr(name or "empty/", "userId,movieId,rating,timestamp\n" if name else "")
    with pytest.raises(error, match=says):
        load_dataset(tmp_path / "mine.zip")


def test_years_of_items_are_checked(table):
    path, items = table("user,item\n1,1\n"), table("item,year\n1,1995\n2,19955\n3,1995.5\n4,\n5,soon\n", "films.csv")
    with pytest.raises(BadTableError) as found:
        load_dataset(path, items=items)
    assert [problem.split("; ")[0] for problem in found.value.problems] == [
        "films.csv, column 'year': 1 row with a year that is not a number (line 6: 'soon')",
        "films.csv, column 'year': 2 rows with an absurd year (line 3: 19955.0, line 4: 1995.5)",
    ]


def test_the_benchmark_measures_what_the_lab_does(tmp_path, lab_home):
    folder = reading.made_ratings(tmp_path / "made", rows=50_000)
    result = reading.measure(reading.lab, folder)
    assert result["rows"] == 50_000 == reading.measure(reading.read_pandas, folder)["rows"]
    assert list(result["steps"]) == ["read and check", "index", "split"]
    assert sum(result["steps"].values()) <= result["cpu"] and 0 < result["peak_gib"] < 8
    assert "rows/s" in reading.table_of([result])
    counts = load_dataset(folder).interactions["item_id"].value_counts()
    assert counts.head(len(counts) // 10).sum() > 0.3 * counts.sum()
    plays = load_dataset(
        reading.made_plays(tmp_path, rows=20_000) / "plays.csv", columns={"listener": "user_id", "track": "item_id"}
    )
    assert plays.rating_scale is None and not plays.has_timestamps
    known = Interactions.from_frame(plays.interactions)
    assert known.matrix.nnz == 20_000 - sum(plays.dropped.values()) and known.user_ids.dtype.kind == "U"
