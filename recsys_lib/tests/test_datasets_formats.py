"""The three GroupLens formats, written the way that GroupLens writes them."""

import re

import numpy as np
import pandas as pd
import pytest

from recsys_lib.data import KNOWN, BadTableError, load_dataset
from recsys_lib.data.cells import split_year
from recsys_lib.tests.made import made_tables, write_ml_100k


def write_dat(folder, *, encoding="latin-1", users=True):
    """Files of ml-1m (latin-1, with users) or of ml-10m (UTF-8, without)."""
    folder.mkdir(parents=True)
    (folder / "ratings.dat").write_text("1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n")
    films = "1193::Misérables, Les (1995)::Drama|Musical\n661::Mission: Impossible :: Two (1996)::Action\n"
    films += "3::Babylon::unknown\n"
    (folder / "movies.dat").write_text(films, encoding=encoding)
    if users:
        (folder / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072-1234\n")
    return folder


def write_csv(folder):
    """Files of ml-latest-small."""
    folder.mkdir(parents=True)
    (folder / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,0.5,964981247\n7,1,5.0,1106635946\n"
    )
    (folder / "movies.csv").write_text(
        'movieId,title,genres\n1,Toy Story (1995),Adventure|Animation\n3,"Amélie, ""the"" (2001) ",(no genres listed)\n'
        "9,Death Note (2006–2007),Animation\n10,Moonlight,Drama\n",
        encoding="utf-8",
    )
    (folder / "tags.csv").write_text('userId,movieId,tag,timestamp\n7,1,"two\nlines",1445714994\n')
    return folder


def test_u_data(lab_home, tmp_path):
    interactions, items, users = made_tables(n_users=15)
    data = load_dataset(write_ml_100k(tmp_path / "ml-100k", n_users=15))
    pd.testing.assert_frame_equal(data.interactions, interactions)
    pd.testing.assert_frame_equal(data.items, items)
    pd.testing.assert_frame_equal(data.users, users)
    assert data.rating_scale == (1.0, 5.0)
    assert data.interactions.dtypes.astype(str).tolist() == ["int64", "int64", "float32", "int64"]


def test_a_lone_u_data(lab_home, tmp_path):
    folder = write_ml_100k(tmp_path / "somewhere", n_users=5)
    data = load_dataset(folder / "u.data")
    assert (data.rating_scale, data.demographics[0], data.has_genres) == ((1.0, 5.0), "age", True)
    (folder / "u.item").unlink()
    (folder / "u.user").unlink()
    bare = load_dataset(folder / "u.data")
    assert (bare.sha256, bare.demographics, bare.has_genres, bare.titles()[3]) == (data.sha256, [], False, "3")


def test_dat_in_latin_1_with_users(lab_home, tmp_path):
    data = load_dataset(write_dat(tmp_path / "ml-1m"))
    assert data.interactions.values.tolist() == [
        [1, 1193, 5, 978300760],
        [1, 661, 3, 978302109],
        [2, 1193, 4, 978298413],
    ]
    assert data.items["title"].tolist() == ["Misérables, Les", "Mission: Impossible :: Two", "Babylon"]
    assert data.items["year"].tolist()[:2] == [1995, 1996] and data.items["year"].isna()[2]
    assert data.items["genres"].tolist() == [["Drama", "Musical"], ["Action"], []]
    assert data.users.values.tolist() == [
        [1, 1, "F", "K-12 student", "48067"],
        [2, 56, "M", "self-employed", "70072-1234"],
    ]


def test_dat_in_utf_8(lab_home, tmp_path):
    folder = write_dat(tmp_path / "ml-10M100K", encoding="utf-8", users=False)
    (folder / "ratings.dat").write_text("1::122::5::838985046\n1::1193::0.5::838983525\n")
    (folder / "movies.dat").write_text("122::Amélie (2001)::Comedy\n1193::B (1992)::Drama\n", encoding="utf-8")
    data = load_dataset(folder)
    assert data.rating_scale == (0.5, 5.0)
    assert data.titles()[122] == "Amélie"
    assert data.users.columns.tolist() == ["user_id"]


def test_csv(lab_home, tmp_path):
    data = load_dataset(write_csv(tmp_path / "ml-latest-small"))
    assert data.rating_scale == (0.5, 5.0)
    assert data.items["title"].tolist() == ["Toy Story", 'Amélie, "the"', "Death Note", "Moonlight"]
    assert data.items["year"].fillna(0).tolist() == [1995, 2001, 2006, 0]
    assert data.items["genres"].tolist() == [["Adventure", "Animation"], [], ["Animation"], ["Drama"]]
    assert data.users["user_id"].tolist() == [1, 7]


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_known_set_is_read_from_ones_own_folder(lab_home, tmp_path, monkeypatch, name):
    known = KNOWN[name]
    write = {"ml-100k": write_ml_100k, "ml-1m": write_dat, "ml-10m": write_dat}.get(name, write_csv)
    write(tmp_path / known.folders[-1])
    monkeypatch.setenv("MOVIELENS_DIR", str(tmp_path))
    data = load_dataset(name)
    assert (data.name, data.rating_scale) == (name, known.rating_scale)
    assert known.url == f"https://files.grouplens.org/datasets/movielens/{name}.zip"


def test_an_unknown_name_lists_the_known_ones(lab_home):
    with pytest.raises(ValueError) as found:
        load_dataset("ml-5m")
    assert all(name in str(found.value) for name in (*KNOWN, "ml-5m", "CSV"))


def test_a_folder_of_ones_own_that_does_not_exist_is_said(lab_home, tmp_path, monkeypatch, caplog):
    write_ml_100k(lab_home / "data/raw/ml-100k/ml-100k", n_users=3)
    monkeypatch.setenv("MOVIELENS_DIR", str(tmp_path / "nowhere"))
    assert load_dataset("ml-100k").source == "the folder ml-100k in data/raw/ml-100k"
    assert "nowhere, which does not exist" in caplog.text


def test_items_without_a_row_are_named(lab_home, tmp_path):
    folder = write_csv(tmp_path / "mine")
    with (folder / "ratings.csv").open("a") as ratings:
        ratings.write("8,77,3.0,964982703\n8,78,3.0,964982703\n9,77,3.0,964982703\n9,79,3.0,964982703\n")
    says = (
        "ratings.csv, column 'item_id': 4 rows with 3 items that movies.csv lacks "
        "(line 5: 77, line 6: 78, line 7: 77, ...)"
    )
    with pytest.raises(BadTableError, match=re.escape(says)):
        load_dataset(folder)
    kept = load_dataset(folder, missing_items="keep").items.set_index("item_id")
    assert kept.loc[77, ["title", "genres"]].tolist() == ["77", []]
    fewer = load_dataset(folder, missing_items="drop")
    assert (fewer.dropped, len(fewer.interactions)) == ({"rows whose item movies.csv lacks": 4}, 3)


def test_lines_that_do_not_fit_are_all_named(lab_home, tmp_path):
    folder = write_ml_100k(tmp_path / "made", n_users=3)
    lines = (folder / "u.data").read_text().splitlines()
    lines[1], lines[4] = "1\t2\t3", "x\t2\t3\t881250949"
    (folder / "u.data").write_text("\n".join(lines))
    (folder / "u.user").write_text("1|24|M|writer|05201\nnonsense\n")
    with pytest.raises(BadTableError) as found:
        load_dataset(folder)
    assert found.value.problems == [
        "u.data: 1 line does not have 4 fields: line 2 (3 fields)",
        "u.user: 1 line does not have 5 fields: line 2 (1 fields)",
        "u.data, column 'user_id': 1 row with a user_id that is not a whole number (line 5: 'x'); "
        "in this format ids are whole numbers",
    ]


@pytest.mark.parametrize(
    ("written", "title", "year"),
    [
        ("Toy Story (1995)", "Toy Story", 1995),
        ("Toy Story  (1995)  ", "Toy Story", 1995),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", 1968),
        ("1984 (1956)", "1984", 1956),
        ("(500) Days of Summer (2009)", "(500) Days of Summer", 2009),
        ("Shanghai Triad (Yao a yao yao) (1995)", "Shanghai Triad (Yao a yao yao)", 1995),
        ("Land Before Time III (1995) (V)", "Land Before Time III (V)", 1995),
        ("Fawlty Towers (1975-1979)", "Fawlty Towers", 1975),
        ("Big Bang Theory, The (2007-)", "Big Bang Theory, The", 2007),
        ("unknown", "unknown", None),
        ("Hyena Road", "Hyena Road", None),
        ("", "", None),
    ],
)
def test_titles_and_years(written, title, year):
    row = split_year(pd.Series([written], dtype="str")).iloc[0]
    assert row["title"] == title
    assert (row["year"] == year) if year else row["year"] is pd.NA


def test_ratings_off_the_scale_are_named_and_dropped_when_asked(lab_home, tmp_path, caplog):
    folder = write_dat(tmp_path / "ml-1m")
    (folder / "ratings.dat").write_text("1::1193::5::978300760\n1::661::7::978302109\n2::1193::nan::978298413\n")
    with pytest.raises(BadTableError) as refused:
        load_dataset(folder)
    assert refused.value.problems == [
        "ratings.dat, column 'rating': 1 row with no value (line 3: nothing); every row needs its rating",
        "ratings.dat, column 'rating': 1 row with a rating off the scale (line 2: 7.0); ratings here go from 1 to 5",
    ]
    data = load_dataset(folder, bad_rows="drop")
    assert data.dropped == {"rows of ratings.dat with missing or impossible values": 2}
    assert (data.interactions["rating"].tolist(), data.interactions["rating"].dtype) == ([5.0], np.float32)
    assert "left out 2 rows of ratings.dat" in caplog.text


def test_ids_that_are_text_under_the_names_of_grouplens(lab_home, tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\nann,tt0111161,4\nbob,tt0068646,5\n")
    assert load_dataset(tmp_path).interactions["item_id"].tolist() == ["tt0111161", "tt0068646"]
