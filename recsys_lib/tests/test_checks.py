"""Checks of tables: every problem at once, each in one sentence."""

import numpy as np
import pandas as pd
import pytest

from recsys_lib.data import BadTableError, load_dataset
from recsys_lib.data.schema import check, interaction_rules

LINES = lambda rows: [row + 2 for row in rows]  # noqa: E731


def problems_of(frame, *, scale=(1, 5)):
    return check(frame, interaction_rules(frame.columns, scale), "t.csv", LINES).problems


@pytest.fixture
def frame():
    """Six good rows."""
    when, ratings = np.arange(6) + 880_000_000, np.float32([1, 2, 3, 4, 5, 1])
    return pd.DataFrame({"user_id": [1, 1, 2, 2, 3, 3], "item_id": [1, 2] * 3, "rating": ratings, "timestamp": when})


def test_missing_columns_are_all_named(frame):
    assert problems_of(frame.drop(columns=["user_id", "item_id"])) == [
        "t.csv has no column 'user_id' and no column 'item_id'; it has rating, timestamp"
    ]


def test_all_problems_of_a_table_at_once(frame):
    frame["rating"] = [np.nan, np.inf, 9, 0, 3, 6]
    frame["timestamp"] = [-1, 5, 5, 5, 5, 9e11]
    frame["user_id"] = ["a", None, "", "b", "b", "c"]
    assert problems_of(frame) == [
        "t.csv, column 'user_id': 2 rows with no value (line 3: nothing, line 4: ''); every row needs its user_id",
        "t.csv, column 'rating': 1 row with no value (line 2: nothing); every row needs its rating",
        "t.csv, column 'rating': 1 row with an infinite rating (line 3: inf); ratings are finite",
        "t.csv, column 'rating': 3 rows with a rating off the scale (line 4: 9.0, line 5: 0.0, line 7: 6.0); "
        "ratings here go from 1 to 5",
        "t.csv, column 'timestamp': 1 row with a negative timestamp (line 2: -1.0); "
        "timestamps are UNIX seconds, from 0 (1970) to before 4102444800 (2100)",
        "t.csv, column 'timestamp': 1 row with timestamps that look like milliseconds (divide them by 1,000, or "
        "pass time_unit='ms' if all are) "
        "(line 7: 900000000000.0); timestamps are UNIX seconds, from 0 (1970) to before 4102444800 (2100)",
    ]


def test_the_edges_of_what_is_right(frame):
    assert problems_of(frame) == []
    frame["timestamp"] = [0, 1, 4_102_444_799, 5, 5, 5]
    frame["rating"] = np.float32([1, 5, 1, 5, 1, 5])
    assert problems_of(frame) == []
    assert len(problems_of(frame.assign(timestamp=frame["timestamp"] + 1))) == 1
    assert len(problems_of(frame.assign(rating=frame["rating"] + np.float32(0.001)))) == 1


def test_problems_of_all_files_are_in_one_error(tmp_path, lab_home):
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,1,4,five\n1,,3,7\n2,1,great,7\n2,1,3,881250949000\n3,1,3\n4,1,inf,7\n4,9,3,7\n"
    )
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,A (1995),Drama\n1,B (1996),Drama\n")
    with pytest.raises(BadTableError) as refused:
        load_dataset(tmp_path)
    assert [problem.split("; ")[0] for problem in refused.value.problems] == [
        "ratings.csv: 1 line does not have 4 fields: line 6 (3 fields)",
        "ratings.csv, column 'rating': 1 row with a rating that is not a number (line 4: 'great')",
        "ratings.csv, column 'timestamp': 1 row with a timestamp that is not a number or a date (line 2: 'five')",
        "ratings.csv, column 'item_id': 1 row with no value (line 3: nothing)",
        "ratings.csv, column 'rating': 1 row with an infinite rating (line 7: inf)",
        "ratings.csv, column 'timestamp': 1 row with timestamps that look like milliseconds (divide them by 1,000, or "
        "pass time_unit='ms' if all are) "
        "(line 5: 881250949000.0)",
        "movies.csv, column 'item_id': 1 row with the item_id of an earlier row (line 3: 1)",
        "ratings.csv, column 'item_id': 1 row with an item that movies.csv lacks (line 8: 9)",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ["t.csv is empty"]),
        ("userId,movieId,rating,timestamp\n", ["t.csv holds no rows"]),
        (
            "u,i,n\n1,2,3\n",
            [
                "t.csv has no column 'user_id' and no column 'item_id'; it has u, i, n (say which is which, such as "
                "columns={'u': 'user_id', 'i': 'item_id'}, or names=['user_id', 'item_id', 'rating'] if its first line "
                "is a row)"
            ],
        ),
    ],
)
def test_tables_without_rows_or_known_columns(tmp_path, lab_home, text, says):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(BadTableError) as refused:
        load_dataset(tmp_path / "t.csv")
    assert refused.value.problems == says


def test_every_one_of_many_bad_rows_is_counted(frame):
    n = 300_000
    big = pd.DataFrame({"user_id": 1, "item_id": np.arange(n), "timestamp": np.arange(n) + 10**12})
    (problem,) = problems_of(big)
    assert "300,000 rows" in problem
