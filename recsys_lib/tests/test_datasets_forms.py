"""Forms of tables: the content says what a file is, and whatever cannot be read ends in one sentence that names it."""

import bz2
import gzip
import json
import lzma
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_lib.data import BadTableError, leaks, load_dataset
from recsys_lib.data.interactions import Interactions, relevance_threshold
from recsys_lib.data.load import identity
from recsys_lib.data.order import order_facts
from recsys_lib.data.splits import Split, by_name, leave_one_out, temporal_global, temporal_user
from recsys_lib.evaluation.task import Task, evaluate
from recsys_lib.models import Popularity, SequenceKNN, load_model

ROWS = [[1, 10, 4.0, 1_400_000_000], [1, 11, 5.0, 1_400_000_100], [2, 10, 3.5, 1_400_000_200]]
HEADER = ["user_id", "item_id", "rating", "timestamp"]


def written(separator: str = ",", header: list[str] | None = HEADER, end: str = "\n") -> str:
    return end.join(separator.join(map(str, row)) for row in ([header] if header else []) + ROWS) + end


FORMS = {
    "colons.csv": written("::").encode(),
    "headerless.dat": written("::", None).encode(),
    "u.txt": written("\t", None).encode(),
    "bars.inter": written("|").encode(),
    "blanks.txt": written(" ").encode(),
    "recbole.inter": written("\t", ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]).encode(),
    "utf-16.csv": written().encode("utf-16"),
    "mark.csv": written().encode("utf-8-sig"),
    "old-mac.csv": written(end="\r").encode(),
    "packed": gzip.compress(written().encode(), mtime=0),
    "packed.csv.bz2": bz2.compress(written().encode()),
    "not-packed.csv.gz": written().encode(),
    "blank-too.csv": written(", ").encode(),
    "comma.csv": written(";").replace("3.5", "3,5").encode(),
    "floats.csv": written().replace("\n1,", "\n1.0,").encode(),
    "dates.csv": written().replace("1400000200", "2014-05-13 16:56:40").encode(),
    "local.csv": written().replace("1400000200", "05/13/2014 16:56:40").encode(),
    "zones.csv": written().replace("1400000200", "2014-05-13T17:56:40+01:00").encode(),
    "fractions.csv": written().replace("1400000200", "1400000200.7").encode(),
    "slashes.csv": written().replace("1400000200", "2014/05/13 16:56:40").encode(),
    "halves of a day.csv": written().replace("1400000200", "05/13/2014 4:56:40 PM").encode(),
    "words.csv": written().replace("1400000200", '"May 13, 2014 16:56:40"').encode(),
    "empty lines before.csv": b"\n\n" + written().encode(),
    "comments before.tsv": b"% bip weighted\n# 3 rows\n" + written("\t").encode(),
    "separator named.csv": b"sep=;\n" + written(";").encode(),
    "titled.csv": b"Ratings of May\n\n" + written().encode(),
    "titled too.csv": b'"Export"\n' + written(";").encode(),
    "names in a comment.tsv": b"# " + written("\t").replace("\t", " ", 3).encode(),
    "separator at the end.csv": written().replace("00\n", "00,\n").encode(),
    "no-break space.csv": written().replace("\n1,", "\n1\u00a0,").encode(),
    "utf-32.csv": written().encode("utf-32"),
    "rows of R.csv": written().replace("\n", "\n7,", 3).encode(),
    "blanks around ids.csv": written().replace("\n1,", "\n 1 ,").encode(),
    "reviews.csv": written().replace("stamp", "stamp,review").replace("00\n", '00,"good,\n ""really"""\n').encode(),
    "parquet": pd.DataFrame(ROWS, columns=HEADER).to_parquet(),
    "lines.jsonl": pd.DataFrame(ROWS, columns=HEADER).to_json(orient="records", lines=True).encode(),
    "python.jsonl": "".join(f"{dict(zip(HEADER, row, strict=True))}\n" for row in ROWS).encode(),
    "amazon.json": b"".join(
        b'{"reviewerID": %d, "asin": %d, "overall": %.1f, "unixReviewTime": %d}\n' % tuple(row) for row in ROWS
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_the_same_table_in_any_form(tmp_path, lab_home, name, caplog):
    (tmp_path / name).write_bytes(FORMS[name])
    data = load_dataset(tmp_path / name)
    assert data.interactions.columns.tolist() == HEADER
    assert data.interactions.values.tolist() == ROWS
    assert data.interactions.dtypes.astype(str).tolist() == ["int64", "int64", "float32", "int64"]
    assert data.sha256 == identity(pd.DataFrame(ROWS, columns=HEADER).astype({"rating": np.float32}))
    assert [message for message in caplog.messages if message.startswith(f"{name}: ") and "3 rows" in message]


def test_one_user_a_line_with_items_in_order(tmp_path, lab_home):
    (tmp_path / "Toys.txt").write_text("1 4 2\n2 4 5 6\n3 2\n")
    (tmp_path / "Toys_item2attributes.json").write_text('{"4": [7, 8, 7], "2": [7], "6": [9]}')
    data = load_dataset(tmp_path / "Toys.txt")
    assert data.interactions[["user_id", "item_id"]].values.tolist() == [[1, 4], [1, 2], [2, 4], [2, 5], [2, 6], [3, 2]]
    assert data.items.set_index("item_id")["genres"].to_dict() == {4: ["7", "8"], 2: ["7"], 5: [], 6: ["9"]}
    assert data.titles().to_dict() == {4: "4", 2: "2", 5: "5", 6: "6"}


@pytest.mark.parametrize(
    ("sequences", "attributes", "said"),
    [
        ("1 4 2\n\n2\n3 2\n", None, "Toys.txt: line 3 has no items; a line is a user and at least one item"),
        ("1 4 2\n2 5 6 4\n", {"4": [7], "8": [7]}, "other ids: it lacks 3 of the 4 items of Toys.txt, 2 first"),
        ("1 4 2\n2 5 6 4\n", {"B01": [7]}, "Toys_item2attributes.json belongs to other ids: it lacks 4 of the 4 items"),
        ("1 4 2\n2 5 6 4\n", {"4": "red"}, "Toys_item2attributes.json must give each item a list of attributes"),
        ("1 4 2\n2 5 6 4\n", [[4, 7]], "Toys_item2attributes.json must give each item a list of attributes"),
    ],
)
def test_sequences_that_are_not_whole_are_refused(tmp_path, lab_home, sequences, attributes, said):
    (tmp_path / "Toys.txt").write_text(sequences)
    if attributes is not None:
        (tmp_path / "Toys_item2attributes.json").write_text(json.dumps(attributes))
    with pytest.raises(ValueError, match=said):
        load_dataset(tmp_path / "Toys.txt")


def test_items_that_come_again_are_kept_and_counted(tmp_path, lab_home):
    """The last item of user 1 is one that the user had before: it stays, and no list can hold it."""
    (tmp_path / "visits.txt").write_text("1 30 10 30 20 30\n2 10 30 20\n")
    data = load_dataset(tmp_path / "visits.txt")
    assert data.interactions["item_id"].tolist() == [30, 10, 30, 20, 30, 10, 30, 20]
    facts = order_facts(data.interactions)
    assert (facts["repeats"], facts["targets_repeat"]) == (2 / 8, 1 / 2)
    split = leave_one_out(data.interactions)
    assert split.history["item_id"].tolist() == [10, 30, 10, 20, 30]
    result = evaluate(Popularity().fit(split.history), split)
    assert result.protocol["relevant_seen_before"] == 0.5
    assert result.per_user["recall@20"].tolist() == [0, 1], "what was seen before cannot be hit"
    leaks.require(leaks.check_split(split))
    once = by_name(data.interactions, "temporal_user", test=0.34, valid=0.0)
    assert once.train["item_id"].tolist() == [10, 20, 10, 30]
    for how, left in {"last": [10, 20, 30, 10, 30, 20], "sum": [10, 20, 30, 10, 30, 20]}.items():
        assert load_dataset(tmp_path / "visits.txt", duplicates=how).interactions["item_id"].tolist() == left


def test_one_user_a_line_has_an_order_and_no_dates(tmp_path, lab_home):
    (tmp_path / "visits.txt").write_text("1 30 10 20 40\n2 10 30\n")
    table = load_dataset(tmp_path / "visits.txt").interactions
    assert "timestamp" not in table
    split = leave_one_out(table)
    assert split.test["item_id"].tolist() == [40, 30]
    assert split.valid["item_id"].tolist() == [20]
    assert temporal_user(table, test=0.5, valid=0.25).train["item_id"].tolist() == [30, 10]
    with pytest.raises(ValueError, match="temporal_global needs timestamps.*use temporal_user or leave_one_out"):
        temporal_global(table)
    known = Interactions.from_frame(table)
    assert known.seconds is None
    assert known.to_frame()["position"].tolist() == [1, 2, 0, 3, 0, 1]
    with pytest.raises(ValueError, match="needs timestamps"):
        Popularity(kind="decayed").fit(known)
    model = SequenceKNN().fit(known)
    assert load_model(model.save(tmp_path / "model")).train.seconds is None


def test_a_frame_in_memory_is_read_like_a_file(tmp_path, lab_home):
    frame = pd.DataFrame(ROWS, columns=HEADER)
    theirs = frame.astype({"user_id": float, "item_id": str}).rename(columns={"user_id": "who", "item_id": "movieId"})
    items = pd.DataFrame({"id": ["10", "11"], "title": ["Alien", "Brazil"], "genres": ["A|B", ""]})
    data = load_dataset(theirs, columns={"who": "user_id", "id": "item_id"}, items=items)
    assert data.interactions.values.tolist() == ROWS
    assert data.items["genres"].tolist() == [["A", "B"], []]
    frame.to_csv(tmp_path / "same.csv", index=False)
    assert data.sha256 == load_dataset(tmp_path / "same.csv").sha256
    with pytest.raises(BadTableError, match="column 'user_id': 1 row with no value"):
        load_dataset(frame.assign(user_id=[1, None, 2]))
    with pytest.raises(ValueError, match="items= must be a file where the interactions are one"):
        load_dataset(tmp_path / "same.csv", items=items)
    with pytest.raises(ValueError, match="items= must be a DataFrame"):
        load_dataset(frame, items=tmp_path / "same.csv")


def test_a_column_that_stands_there_twice(tmp_path, lab_home):
    frame = pd.DataFrame([[1, 2, 3, 4]], columns=["user", "item", "rating", "rating"])
    frame.to_csv(tmp_path / "t.csv", index=False)
    for source, name in ((tmp_path / "t.csv", "t.csv"), (frame, "the interactions")):
        with pytest.raises(ValueError, match=f"{name} has two columns 'rating': rename one of them"):
            load_dataset(source)


def test_a_key_that_the_first_line_lacks(tmp_path, lab_home):
    (tmp_path / "t.jsonl").write_text('{"user": 1, "item": 2}\n{"user": 1, "item": 3, "rating": 4}\n')
    with pytest.raises(BadTableError, match="column 'rating': 1 row with no value .line 1: nothing"):
        load_dataset(tmp_path / "t.jsonl")


def test_the_netflix_prize(tmp_path, lab_home):
    (tmp_path / "combined_data_1.txt").write_text(
        "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n1488844,4,2005-09-07\n"
    )
    (tmp_path / "combined_data_2.txt").write_text("3:\n7,3,1970-01-02\n")
    table = load_dataset(tmp_path / "combined_data_1.txt").interactions
    assert table["item_id"].tolist() == [1, 1, 2, 3]
    assert table.iloc[3].tolist() == [7, 3, 3.0, 86_400]


@pytest.mark.parametrize(
    ("ratings", "threshold"),
    [
        ([1, 2, 3, 4, 5], 4),
        (np.arange(0.5, 5.5, 0.5), 4),
        (range(1, 11), 8),
        ([0, 1], 1),
        (np.arange(0.5, 4.5, 0.5), 3.5),
    ],
)
def test_what_is_relevant_follows_from_the_scale(ratings, threshold, recwarn):
    assert relevance_threshold(ratings) == threshold
    frame = pd.DataFrame({"user_id": np.repeat([1, 2], len(ratings)), "item_id": [*range(len(ratings))] * 2})
    frame = frame.assign(rating=np.tile(ratings, 2).astype(float), timestamp=np.tile(range(len(ratings)), 2))
    part = Split(frame, frame[:0], frame.assign(item_id=frame["item_id"] + len(ratings)), "made")
    task = Task.from_split(part)
    assert task.protocol["relevant_from"] == threshold
    assert task.relevant.nnz == 2 * sum(rating >= threshold for rating in ratings)
    assert [f"a rating of {threshold} or higher" in str(said.message) for said in recwarn] == [True] * (threshold != 4)


def test_archives_and_folders_of_tables(tmp_path, lab_home):
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        archive.writestr("mine/whatever.csv", written())
        archive.writestr("mine/readme.txt", "about it")
        archive.writestr("__MACOSX/mine/._whatever.csv", b"\0\5\x16\7")
        archive.writestr("mine/items.csv", "item,title\n10,Anna\n11,Bert\n")
    data = load_dataset(tmp_path / "mine.zip")
    assert data.interactions.values.tolist() == ROWS
    assert (data.name, data.titles()[11], data.source) == ("mine", "Bert", "the archive mine.zip")
    (tmp_path / "spark").mkdir()
    for part, row in enumerate(ROWS):
        pd.DataFrame([row], columns=HEADER).to_parquet(tmp_path / "spark" / f"part-{part:05}.snappy.parquet")
    (tmp_path / "spark" / "_SUCCESS").touch()
    assert load_dataset(tmp_path / "spark").interactions.values.tolist() == ROWS
    (tmp_path / "text").mkdir()
    for part in "01":
        (tmp_path / "text" / f"part-{part}.csv").write_text(written())
    with pytest.raises(ValueError, match="text holds a table in parts of text: join them to one file, or write"):
        load_dataset(tmp_path / "text")


def test_dat_files_whose_ids_have_leading_zeros(tmp_path, lab_home):
    (tmp_path / "ratings.dat").write_text("1::0111161::10::1381620027\n2::0068646::9::1381620028\n")
    (tmp_path / "movies.dat").write_text(
        "0111161::The Shawshank Redemption (1994)::Crime|Drama\n0068646::M: II (1931)::\n"
    )
    (tmp_path / "users.dat").write_text("1::10000001\n2::10000002\n")
    data = load_dataset(tmp_path)
    assert data.interactions["item_id"].tolist() == ["0111161", "0068646"]
    assert data.titles()["0068646"] == "M: II" and data.items["year"].tolist() == [1994, 1931]
    assert data.items["genres"].tolist() == [["Crime", "Drama"], []] and data.rating_scale == (9, 10)


@pytest.mark.parametrize(
    "cell", ["A|B", '"A, B"', "A;B", "\"['A', 'B']\"", '"[{""id"": 1, ""name"": ""A""}, {""id"": 2, ""name"": ""B""}]"']
)  # fmt: skip
def test_genres_in_any_form(tmp_path, lab_home, cell):
    (tmp_path / "ratings.csv").write_text(written())
    (tmp_path / "items.csv").write_text(f"item_id,genres\n10,{cell}\n11,\n")
    assert load_dataset(tmp_path).items["genres"].tolist() == [["A", "B"], []]
    (tmp_path / "items.csv").unlink()
    pd.DataFrame({"item_id": [10, 11], "genres": [["A"], None]}).to_parquet(tmp_path / "items.parquet")
    assert load_dataset(tmp_path).items["genres"].tolist() == [["A"], []]


POLISH, JAPANESE = "Człowiek z żelaza", "テスト映画"


@pytest.mark.parametrize(
    ("encoding", "title", "given"),
    [
        ("cp1252", "L’année – Œuvre €", False), ("cp1252", "Määrää yö «été»", False), ("utf-16", "电影", False),
        ("utf-8", "é ü", False), ("shift_jis", JAPANESE, True), ("cp1256", "فيلم", True), ("cp1251", "Солярис", True),
        ("koi8-r", "Солярис", True), ("big5", "電影", True), ("gbk", "电影", True), ("cp1250", POLISH, True),
        ("cp437", "Amélie", True), ("mac_roman", "Amélie", True), ("utf-16-le", "电影", True), ("euc-kr", "영화", True),
    ],
)  # fmt: skip
def test_encodings_are_read_or_have_to_be_given(tmp_path, lab_home, encoding, title, given):
    (tmp_path / "ratings.csv").write_text(written(), encoding="utf-16-le" if encoding == "utf-16-le" else None)
    (tmp_path / "items.csv").write_bytes(f"item_id,title\n10,{title}\n11,b\n".encode(encoding))
    if given:
        with pytest.raises(ValueError, match=r"(items|ratings).csv is n.* encoding='"):
            load_dataset(tmp_path)
    data = load_dataset(tmp_path, encoding=encoding if given else None)
    assert data.titles().to_dict() == {10: title, 11: "b"}


@pytest.mark.parametrize(("encoding", "says"), [("cp9999", "unknown encoding: cp9999; enc"), ("utf-8", "byte 0xe9")])
def test_an_encoding_that_is_none_or_another_is_refused(tmp_path, lab_home, encoding, says):
    (tmp_path / "t.csv").write_bytes("user,item\né,1\n".encode("cp1252"))
    with pytest.raises(ValueError, match=f"t.csv.*{says}"):
        load_dataset(tmp_path / "t.csv", encoding=encoding)


@pytest.mark.parametrize(("up", "down"), [("up", "Down"), ("yes", "no"), ("True", "False"), ("👍", "👎")])
def test_thumbs(tmp_path, lab_home, up, down):
    frame = pd.DataFrame({"user": [1, 2, 3, 4], "item": 1, "rating": [up, down, "banana", up]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    for source in (tmp_path / "t.csv", frame):
        assert load_dataset(source, bad_rows="drop").interactions["rating"].tolist() == [1, 0, 1]
        with pytest.raises(BadTableError, match=r"not a number \(line \d: 'banana'\); a rating is a number"):
            load_dataset(source)
    mixed = frame.assign(rating=["5", "yes", "4", "3"])
    with pytest.raises(BadTableError, match="1 row with a rating that is not a number .*'yes'"):
        load_dataset(mixed)


def test_lines_are_those_of_the_file(tmp_path, lab_home):
    """Past comments, empty lines, cells over two lines, and lines that are left out."""
    rows = '# exported\n\nuser,item,rating,review\n1,1,3,"two\nlines"\n\n2,2\n2,3,bad,x\n3,1\n4,4,worse,y\n'
    (tmp_path / "t.csv").write_text(rows)
    with pytest.raises(BadTableError) as found:
        load_dataset(tmp_path / "t.csv")
    assert found.value.problems == [
        "t.csv: 2 lines do not have 4 fields: line 7 (2 fields), line 9 (2 fields)",
        "t.csv, column 'rating': 2 rows with a rating that is not a number (line 8: 'bad', line 10: 'worse'); "
        "a rating is a number",
    ]


def test_a_bad_cell_condemns_its_row_alone(tmp_path, lab_home):
    path = tmp_path / "t.csv"
    path.write_text(written() + "nan,10,3,2014-05-13\n3,None,3,2014-05-13\n3,11,3,n/a\n4,11,3,2014-05-13\n")
    with pytest.raises(BadTableError) as found:
        load_dataset(path)
    assert [problem.split("; ")[0] for problem in found.value.problems] == [
        "t.csv, column 'timestamp': 1 row with a timestamp that is not a number or a date (line 7: 'n/a')",
        "t.csv, column 'user_id': 1 row with no value (line 5: nothing)",
        "t.csv, column 'item_id': 1 row with no value (line 6: nothing)",
    ]
    data = load_dataset(path, bad_rows="drop")
    assert data.interactions.values.tolist() == [*ROWS, [4, 11, 3, 1_399_939_200]]
    path.write_text(written() + written())  # two tables, with both headers, in one file
    assert load_dataset(path, bad_rows="drop").sha256 == identity(
        pd.DataFrame(ROWS, columns=HEADER).astype({"rating": np.float32})
    )


def test_arguments_say_what_the_file_does_not(tmp_path, lab_home, caplog):
    path = tmp_path / "t.csv"
    path.write_text("1,2,3,4,0\n2,3,4,5,6\n")
    with pytest.raises(ValueError, match=r"t.csv has no header line .* 5 columns are, such as names=\['user_id'"):
        load_dataset(path)
    names = ["user_id", "a", "item_id", "b", "rating"]
    assert load_dataset(path, names=names).interactions.values.tolist() == [[1, 3, 0], [2, 4, 6]]
    rated = load_dataset(path, names=names, not_rated=0)
    assert rated.interactions.values.tolist() == [[2, 4, 6]] and sum(rated.dropped.values()) == 1
    assert len(load_dataset(path, names=names, not_rated=0, implicit=True).interactions) == 2
    with pytest.raises(ValueError, match="names= gives 2 names, and t.csv has 5 columns"):
        load_dataset(path, names=names[:2])
    path.write_text("user,item,time\n1,2,881250949123\n")
    assert load_dataset(path, time_unit="ms").interactions["timestamp"].tolist() == [881250949]
    path.write_text("user,item,time\n1,2,20030501\n")
    assert load_dataset(path).interactions["timestamp"].tolist() == [1051747200]
    path.write_text("user,item,time\n1,2,2003\n1,3,2004\n")
    assert load_dataset(path).interactions["timestamp"].tolist() == [1041379200, 1072915200]
    assert "time_unit" not in caplog.text
    path.write_text("user,item,time\n1,2,16000\n")
    assert load_dataset(path).interactions["timestamp"].tolist() == [16000]
    assert "in seconds its timestamps end before 1973: if they count days, pass time_unit='days'" in caplog.text
    assert load_dataset(path, time_unit="days").interactions["timestamp"].tolist() == [1382400000]
    path.write_text('user,item,weight\n1,2,"1,234"\n1,3,"2"\n')  # a fraction, or thousands
    with pytest.raises(BadTableError, match="line 2: '1,234'"):
        load_dataset(path)
    path.write_text("user,item,time\n1,2,01/02/2003\n")  # the first of February, or the second of January
    with pytest.raises(BadTableError, match="line 2: '01/02/2003'"):
        load_dataset(path)


def test_book_crossing(tmp_path, lab_home):
    (tmp_path / "BX-Book-Ratings.csv").write_text(
        '"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n"276726";"0155061224";"5"\n"276727";"0155061224";"9"\n'
    )
    (tmp_path / "BX-Books.csv").write_text(
        '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication"\n'
        '"034545104X";"Adventures with the Real \\"Peterman\\"; \\"J.\\" &amp; co";"Paul A. O\'Day";"0"\n'
        '"0155061224";"C:\\\\";NULL;"1999"\n'
    )
    (tmp_path / "BX-Users.csv").write_text(
        '"User-ID";"Location";"Age"\n"276725";"a, b";NULL\n"276726";"c \\"d\\"e";"18"\n'
    )
    data = load_dataset(tmp_path, not_rated=0)
    assert data.interactions.values.tolist() == [[276726, "0155061224", 5], [276727, "0155061224", 9]]
    assert data.titles().tolist() == ['Adventures with the Real "Peterman"; "J." &amp; co', "C:\\"]
    assert data.items["year"].tolist() == [pd.NA, 1999] and data.items["Book-Author"].isna().tolist() == [False, True]
    (tmp_path / "BX-Books.csv").write_text('"ISBN";"Book-Title"\n"0155061224";"C:\\"\n"034545104X";"""b\\"""\n')
    assert load_dataset(tmp_path).titles().tolist() == ["C:\\", '"b\\"']  # no quote behind a backslash: a letter
    assert data.users["Location"].tolist()[0] == 'c "d"e' and data.users["Age"].isna().tolist() == [False, True]


def test_goodbooks(tmp_path, lab_home):
    (tmp_path / "ratings.csv").write_text("user_id,book_id,rating\n1,258,5\n2,4081,4\n")
    (tmp_path / "books.csv").write_text(
        "book_id,goodreads_book_id,authors,original_publication_year,title\n"
        '258,9,"Z, C",2001.0,"The Shadow, of the Wind (The Cemetery, #1)"\n4081,8,A,,B\n'
    )
    (tmp_path / "tags.csv").write_text("tag_id,tag_name\n1,x\n")
    data = load_dataset(tmp_path)
    assert data.interactions.values.tolist() == [[1, 258, 5], [2, 4081, 4]]
    assert data.titles().to_dict() == {258: "The Shadow, of the Wind (The Cemetery, #1)", 4081: "B"}
    assert data.items["year"].tolist() == [2001, pd.NA]


@pytest.mark.parametrize("name", ["year", "original_publication_year", "Year-Of-Publication", "releaseYear"])
def test_years_by_any_name(tmp_path, lab_home, name):
    (tmp_path / "ratings.csv").write_text(written())
    (tmp_path / "items.csv").write_text(f"item_id,{name}\n10,-750.0\n11,1999.0\n12,\n13,0\n")
    assert load_dataset(tmp_path).items["year"].tolist() == [-750, 1999, pd.NA, pd.NA]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gzip.compress(written().encode(), mtime=0)[:60], "cannot be read, it is damaged"),
        (b"PAR1 no", "cannot be read, it is damaged"),
        (b"\x89PNG\0", "is not a table: neither text nor parquet"),
        (b'[{"user_id": 1}]', "load the DataFrame that pandas.read_json makes of it"),
        (b'{\n "user_id": [1]\n}', "load the DataFrame that pandas.read_json makes of it"),
        (b"<!DOCTYPE html>\n<html>", "is a page or a pointer, no table .*: get the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "is a page or a pointer"),
        (b"PK\3\4 a book", "unpack it .a zip archive needs the ending .zip; of a spreadsheet, save the sheet as CSV"),
        (gzip.compress(gzip.compress(b"user,item\n1,2\n", mtime=0), mtime=0), "packed in a way that cannot be read"),
        (lzma.compress(b"user,item\n1,2\n"), "packed in a way that cannot be read"),
        (b"1,2,3,4,5\n" * 3, "no header line .* 5 columns are, such as names="),
        (b"1" + b",2" * 100, "of a matrix of 101 columns make rows of one user and one item first"),
        (b"user" + b",x" * 100 + b"\n1" + b",2" * 100, ".of a matrix make rows of one user and one item first"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, lab_home, content, says):
    (tmp_path / "mine.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"^mine.csv.* {says}"):
        load_dataset(tmp_path / "mine.csv")


def test_lines_of_json_that_do_not_fit(tmp_path, lab_home):
    rows = ['{"user_id": 1, "item_id": 2, "rating": 3}', '{"user_id": "a", "item_id": 3, "rating": 4}', '{"user_id": 1']
    (tmp_path / "t.json").write_text("\n".join([*rows, "", '{"user_id": 1, "item_id": 4, "rating": "good"}']))
    with pytest.raises(BadTableError) as found:
        load_dataset(tmp_path / "t.json")
    assert found.value.problems == [
        "t.json: 1 of the lines are not JSON objects: line 3",
        "t.json, column 'rating': 1 row with a rating that is not a number (line 5: 'good'); a rating is a number",
    ]
    read = load_dataset(tmp_path / "t.json", bad_rows="drop")
    assert read.interactions.values.tolist() == [["1", 2, 3.0], ["a", 3, 4.0]] and sum(read.dropped.values()) == 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(FORMS)), st.data())
def test_a_damaged_file_is_read_or_refused_by_name(tmp_path, lab_home, name, data):
    content = bytearray(FORMS[name])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 5))] = data.draw(
            st.sampled_from([b"", b'"', b"\r", b"\n\n", b"\xff", b"\0", b",,", b"nan", b"1e400", b"9" * 20, b"{"])
        )
    (tmp_path / name).write_bytes(content)
    try:
        load_dataset(tmp_path / name, bad_rows=data.draw(st.sampled_from(["raise", "drop"])))
    except ValueError as error:
        assert name in str(error)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(
        st.sampled_from(["0", "7", "10", "007", "-7", "-0", "00", "0x1F", "+7", "7.0", "0.5", "a0", "9" * 19]),
        min_size=1,
    ),
    around=st.sampled_from(["{}", " {}", "{} "]),
    separator=st.sampled_from(",;|\t"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
)
def test_ids_of_a_file_are_those_of_a_frame(tmp_path, lab_home, ids, around, separator, end, encoding):
    """Whether numbers were read as such at once, or as text because of one that is written otherwise."""
    frame = pd.DataFrame({"user_id": map(around.format, ids), "item_id": range(len(ids))})
    lines = [f"{user}{separator}{item}" for user, item in zip(frame["user_id"], frame["item_id"], strict=True)]
    path = tmp_path / "ids"
    path.write_bytes(end.join([f"user_id{separator}item_id", *lines, ""]).encode(encoding))
    assert load_dataset(path).sha256 == load_dataset(frame).sha256


@pytest.mark.parametrize(
    ("kind", "missing"), [("Int64", None), ("float64", None), ("object", None), ("str", ""), ("str", "nan")]
)
def test_a_missing_id_is_refused_everywhere(kind, missing):
    frame = pd.DataFrame(ROWS, columns=HEADER).astype({"user_id": kind})
    frame.loc[1, "user_id"] = missing
    for use in (Interactions.from_frame, temporal_user, Popularity().fit):
        with pytest.raises(ValueError, match=r"1 row has no user_id \(row 1 first\)"):
            use(frame)


@pytest.mark.parametrize("rest", ["4,d\n" * 1000, '4,"d"\n'])
@pytest.mark.parametrize("table", ["interactions", "items"])
def test_a_quote_that_is_not_closed_does_not_swallow_rows(tmp_path, lab_home, table, rest):
    (tmp_path / "interactions.csv").write_text("user_id,item_id\n1,3\n")
    (tmp_path / f"{table}.csv").write_text('item_id,user_id,title\n1,1,a\n\n3,1,"c\n' + rest.replace(",", ",1,"))
    with pytest.raises(ValueError, match=rf"^{table}.csv, line 4: a quote is not closed on its line .*; close it, or"):
        load_dataset(tmp_path)
