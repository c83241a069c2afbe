"""Interactions: checks on construction, ids, histories."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_lib import load_dataset, splits
from recsys_lib.data.interactions import Histories, Interactions, as_ids, codes_of, oldest_first

ids = st.one_of(
    st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=30, unique=True),
    st.lists(st.text("abcé7 -", min_size=1, max_size=6), min_size=1, max_size=30, unique=True),
)


def frame(timestamps: bool = True) -> pd.DataFrame:
    table = pd.DataFrame({"user_id": [9, 7, 7], "item_id": [3, 3, 1], "rating": [4.0, 2.0, 5.0]})
    return table.assign(timestamp=[30, 20, 10]) if timestamps else table


@given(ids, ids)
@settings(max_examples=100, deadline=None)
def test_codes_find_exactly_the_ids_that_are_known(known, asked):
    known = np.unique(as_ids(known))
    codes = codes_of(asked, known)
    position = {value: code for code, value in enumerate(known.tolist())}
    assert codes.tolist() == [position.get(value, -1) for value in asked]


def test_ids_of_another_kind_are_unknown():
    assert codes_of(["7"], np.array([7])).tolist() == [-1]
    assert codes_of([7], np.array(["7"])).tolist() == [-1]
    assert codes_of([], np.array([7])).tolist() == []
    assert codes_of([7], np.array([], dtype=np.int64)).tolist() == [-1]
    with pytest.raises(ValueError, match="one-dimensional"):
        as_ids(np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("asked", "codes"),
    [(["x", 9], [-1, 1]), ([None, 9], [-1, 1]), ([9.0, 7.5], [1, -1]), ([9, float("nan")], [1, -1]), ("12", [2])],
)
@pytest.mark.parametrize("kind", [int, str])
def test_an_id_of_another_kind_takes_no_known_one_with_it(asked, codes, kind):
    known = Interactions.from_frame(pd.DataFrame({"user_id": [7, 9, 12], "item_id": [7, 9, 12]}).astype(kind))
    place = {7: 0, 9: 1, 12: 2} if kind is int else {"7": 1, "9": 2, "12": 0}
    expected = [-1 if code < 0 else place[known.item_ids.dtype.type([7, 9, 12][code]).item()] for code in codes]
    assert known.item_codes(asked).tolist() == known.user_codes(asked).tolist() == expected


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_from_frame_and_to_frame_are_inverse(data):
    pairs = data.draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=50, unique=True))
    users, items = zip(*pairs, strict=True)
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"user_id": users, "item_id": items})
    table["rating"] = rng.integers(1, 6, size=len(table)).astype(np.float32)
    table["timestamp"] = rng.integers(0, 99, size=len(table))
    known = Interactions.from_frame(table)
    expected = table.sort_values(["user_id", "item_id"], ignore_index=True)
    pd.testing.assert_frame_equal(known.to_frame(), expected, check_dtype=False)
    assert known.matrix.has_sorted_indices
    assert known.matrix.dtype == np.float32


def test_given_ids_and_ratings_make_rows_columns_and_entries():
    known = Interactions.from_frame(frame(), user_ids=[7, 1], item_ids=[3, 8, 1])
    assert (known.user_ids.tolist(), known.item_ids.tolist()) == ([1, 7], [1, 3, 8])
    assert known.matrix.toarray().tolist() == [[0, 0, 0], [5, 2, 0]]
    assert known.timestamps.tolist() == [10, 20]
    zeros = Interactions.from_frame(frame().assign(rating=0.0))  # still interactions
    assert (zeros.matrix.nnz, zeros.rows(np.array([0])).matrix.nnz) == (3, 2)
    bare = Interactions.from_frame(frame(timestamps=False).drop(columns="rating"))
    assert (bare.matrix.data.tolist(), bare.timestamps, "timestamp" in bare.to_frame()) == ([1, 1, 1], None, False)


def test_bad_tables_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="lack the column 'item_id'; they have"):
        Interactions.from_frame(pd.DataFrame({"user_id": [1]}))
    twice = pd.concat([frame(), frame().iloc[[2]]])
    with pytest.raises(ValueError, match="1 pairs stand in the interactions twice, user 7 and item 1 first"):
        Interactions.from_frame(twice)
    with pytest.raises(ValueError, match="NaN or infinite"):
        Interactions(csr_matrix([[np.nan]]), np.arange(1), np.arange(1))


def test_a_transposed_matrix_is_recognised():
    matrix = csr_matrix(np.ones((2, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="it looks transposed"):
        Interactions(matrix, np.arange(3), np.arange(2))
    with pytest.raises(ValueError, match=r"the matrix is \(2, 3\) but there are 4 users"):
        Interactions(matrix, np.arange(4), np.arange(3))
    with pytest.raises(ValueError, match="user_ids must be ascending and unique"):
        Interactions(matrix, np.array([1, 1]), np.arange(3))
    with pytest.raises(ValueError, match="5 timestamps for 6 interactions"):
        Interactions(matrix, np.arange(2), np.arange(3), np.arange(5))


def test_rows_follow_the_codes_and_minus_one_is_empty(known):
    codes = np.array([5, -1, 0, 5])
    histories = known.rows(codes)
    assert histories.matrix.shape == (4, known.n_items)
    assert histories.matrix[1].nnz == 0
    for place in (0, 2, 3):
        expected = known.matrix[codes[place]]
        assert (histories.matrix[place] != expected).nnz == 0
        start, end = known.matrix.indptr[codes[place] : codes[place] + 2]
        own = histories.timestamps[histories.matrix.indptr[place] : histories.matrix.indptr[place + 1]]
        assert own.tolist() == known.timestamps[start:end].tolist()
    assert histories.row_of_entry.tolist() == np.repeat(range(4), np.diff(histories.matrix.indptr)).tolist()
    assert known.rows(np.array([], dtype=np.int64)).matrix.shape == (0, known.n_items)


@given(st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=5))
@settings(max_examples=80, deadline=None)
def test_steps_back_count_what_is_more_recent(rows):
    lengths = [len(row) for row in rows]
    when = np.array([moment for row in rows for moment in row], dtype=np.int64)
    indices = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    matrix = csr_matrix((np.ones(len(when), np.float32), indices, np.cumsum([0, *lengths])), shape=(len(rows), 8))
    expected = []
    for row in rows:
        for moment in row:
            newer, same = sum(other > moment for other in row), row.count(moment)
            expected.append(int(np.floor(newer + (same - 1) / 2)))
    assert Histories(matrix, when).steps_back().tolist() == expected
    assert not Histories(matrix).steps_back().any()


@given(
    st.lists(st.lists(st.integers(-3, 2) | st.sampled_from([-(2**63), 2**63 - 1]), max_size=8), min_size=1, max_size=5),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_oldest_first_is_by_row_time_and_column_in_whichever_order_entries_are_stored(rows, reverse):
    lengths = [len(row) for row in rows]
    when = np.array([moment for row in rows for moment in row], dtype=np.int64)
    columns = [range(length)[::-1] if reverse else range(length) for length in lengths]
    indices = np.array([column for row in columns for column in row], dtype=np.int32)
    matrix = csr_matrix((np.ones(len(when), np.float32), indices, np.cumsum([0, *lengths])), shape=(len(rows), 8))
    known, of = Histories(matrix, when), np.repeat(np.arange(len(rows)), lengths)
    expected = sorted(range(len(when)), key=lambda entry: (of[entry], when[entry], indices[entry]))
    assert oldest_first(known).tolist() == expected
    expected = sorted(range(len(when)), key=lambda entry: (of[entry], indices[entry]))
    assert oldest_first(Histories(matrix)).tolist() == expected


@pytest.mark.parametrize(
    ("column", "cells", "sentence"),
    [
        ("rating", ["4", "5", "x"], "rating holds no numbers .such as '4'.: load_dataset.frame..interactions reads it"),
        ("rating", [4, np.nan, 5], "row 1 has nan as rating; it must be a finite number"),
        ("rating", [4, 5, 1e300], r"row 2 has 1e\+300 as rating"),
        ("timestamp", [1, 2, None], "row 2 has nan as timestamp; it must be a finite number of seconds since 1970"),
        ("timestamp", [1, -2, 3], "row 1 has -2 as timestamp"),
        ("timestamp", pd.to_datetime(["2020-01-01"] * 3), "timestamp holds no numbers .such as Timestamp"),
    ],
)
@pytest.mark.parametrize("use", [Interactions.from_frame, splits.temporal_user])
def test_ratings_and_times_that_are_no_numbers_are_refused_with_their_row(column, cells, sentence, use):
    table = frame().assign(**{column: cells})
    with pytest.raises(ValueError, match=f"interactions: {sentence}"):
        use(table)
    if "load_dataset" in sentence and "x" not in cells:  # the advice works
        assert use(load_dataset(table).interactions)
