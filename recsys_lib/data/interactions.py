"""Interactions: one sparse matrix and the ids behind its rows and columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

MISSING = ["", "nan", "NaN", "None", "NULL", r"\N"]  # texts that say that there is no value
MOST_LEVELS = 101  # of a scale of ratings, such as 0 to 100; counts of plays have more
FEW = 16  # ids that are not worth the search for equal ones among them


def as_ids(values: Iterable) -> np.ndarray:
    """Ids as a one-dimensional array of integers or strings, never of Python objects; a lone id is one.

    >>> as_ids(["b", "a"]).dtype.kind, as_ids([3, 1]).dtype.kind, as_ids("12")
    ('U', 'i', array(['12'], dtype='<U2'))
    """
    if np.isscalar(values):
        values = [values]
    array = np.asarray(values if isinstance(values, np.ndarray | pd.Series | pd.Index) else list(values))
    if array.ndim != 1:
        raise ValueError(f"ids must be one-dimensional, not of shape {array.shape}")
    return array.astype(str) if array.dtype.hasobject else array


def codes_of(ids: Iterable, known: np.ndarray) -> np.ndarray:
    """Position of each id in the sorted array ``known``; -1 where it is not there.

    >>> codes_of([20, 5, 10], np.array([10, 20, 30]))
    array([ 1, -1,  0])
    """
    values = ids if isinstance(ids, pd.Series | pd.Index) else as_ids(ids)
    if isinstance(values, np.ndarray) and len(values) <= FEW:
        code, distinct = np.arange(len(values)), values
    else:
        code, distinct = pd.factorize(values)  # each distinct id is looked up once
    distinct = as_ids(distinct)
    if len(known) == 0 or (distinct.dtype.kind == "U") != (known.dtype.kind == "U"):  # "7" is not 7
        return np.full(len(values), -1, dtype=np.int64)
    position = np.minimum(np.searchsorted(known, distinct), len(known) - 1).astype(np.int64)
    return np.append(np.where(known[position] == distinct, position, -1), -1)[code]


def ids_like(values: Iterable, known: np.ndarray) -> np.ndarray:
    """Ids of the kind that ``known`` is of, where all of them can be: text that is a whole number, or numbers as text.

    >>> ids_like([1, "9"], np.array([1, 9])), ids_like([7], np.array(["7", "x"])), ids_like(["a"], np.array([1]))
    (array([1, 9]), array(['7'], dtype='<U21'), array(['a'], dtype='<U1'))
    """
    ids = as_ids(values)
    if known.dtype.kind == "U":
        if ids.dtype.kind == "f":  # 7.0 is "7"
            return np.array([f"{number:.0f}" if number.is_integer() else str(number) for number in ids.tolist()], str)
        return ids.astype(str)
    return ids.astype(np.int64) if ids.dtype.kind == "U" and all(map(_is_whole, ids.tolist())) else ids


def _is_whole(text: str) -> bool:
    return len(text) < 19 and text.removeprefix("-").isdecimal()


def _codes_like(ids: Iterable, known: np.ndarray) -> np.ndarray:
    """:func:`codes_of` by :func:`ids_like`; one id of another kind takes no other with it."""
    ids = ids_like(ids, known)
    if ids.dtype.kind != "U" or known.dtype.kind == "U":
        return codes_of(ids, known)
    codes = np.full(len(ids), -1, dtype=np.int64)
    whole = np.array(list(map(_is_whole, ids.tolist())), dtype=bool)
    codes[whole] = codes_of(ids[whole].astype(np.int64), known)
    return codes


def distinct_ids(values: Iterable) -> np.ndarray:
    """Distinct ids, ascending."""
    values = values if isinstance(values, pd.Series | pd.Index) else as_ids(values)
    return np.unique(as_ids(pd.unique(values)))


def check_frame(frame: pd.DataFrame) -> None:
    """Refuse a table that lacks a user or an item, in a row or as a column, or whose ratings or times are no numbers.

    >>> check_frame(pd.DataFrame({"user_id": [1, None], "item_id": [3, 4]}))
    Traceback (most recent call last):
    ValueError: interactions: 1 row has no user_id (row 1 first)
    """
    for column in ("user_id", "item_id"):
        if column not in frame:
            raise ValueError(f"interactions lack the column {column!r}; they have {list(frame.columns)}")
        rows = np.flatnonzero(frame[column].isna() | (frame[column].dtype.kind == "O" and frame[column].isin(MISSING)))
        if len(rows):
            says = "1 row has" if len(rows) == 1 else f"{len(rows):,} rows have"
            raise ValueError(f"interactions: {says} no {column} (row {rows[0]} first)")
    for column, largest in (("rating", np.finfo(np.float32).max), ("timestamp", 2**63 - 1), ("position", 2**63 - 1)):
        if column not in frame:
            continue
        values = frame[column]
        if values.dtype.kind not in "iufb":
            shown = repr(values.iloc[0]) if len(values) else "nothing"
            raise ValueError(
                f"interactions: {column} holds no numbers (such as {shown}): load_dataset(frame).interactions reads it"
            )
        right = values.between(0 if column == "timestamp" else -largest, largest).fillna(False).to_numpy(bool)
        if not right.all():
            row, since = int(np.argmin(right)), " of seconds since 1970" * (column == "timestamp")
            raise ValueError(
                f"interactions: row {row} has {values.iloc[row]} as {column}; it must be a finite number{since}"
            )


def order_column(frame: pd.DataFrame) -> str | None:
    """The column that orders a user's interactions: the timestamp, else the position, else none."""
    return next((name for name in ("timestamp", "position") if name in frame), None)


def relevance_threshold(ratings: np.ndarray) -> float:
    """Rating from which an item counts as relevant: the first in use at least three quarters of the way up the scale.

    4 on 1 to 5 and on half stars, 8 on 1 to 10, 1 where ratings are 0 and 1.

    >>> [relevance_threshold(np.arange(low, high + step, step)) for low, high, step in ((1, 5, 1), (0.5, 5, 0.5), (1, 10, 1))]
    [4.0, 4.0, 8.0]
    """  # noqa: E501
    levels = np.unique(np.asarray(ratings, dtype=np.float64))
    return float(levels[levels >= levels[0] + 0.75 * (levels[-1] - levels[0])][0])


def row_starts(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Where each row's entries begin among entries sorted by row, (n_rows + 1,) int64; the last is their number.

    >>> row_starts(np.array([0, 0, 2]), 3)
    array([0, 2, 2, 3])
    """
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_rows))]).astype(np.int64)


def rows_of(matrix: csr_matrix) -> np.ndarray:
    """Row of each stored entry, (nnz,) int64."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def with_values(matrix: csr_matrix, values: np.ndarray) -> csr_matrix:
    """The same entries with other values, (nnz,)."""
    return csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape)


def ordered_in_rows(known: Interactions | Histories, key: np.ndarray) -> np.ndarray:
    """Entries row after row, each by an ascending ``key``, (nnz,) int64, equal ones by the column: (nnz,) int64."""
    rows, matrix = known.row_of_entry, known.matrix
    start = int(key.min(initial=0))
    span = int(key.max(initial=0)) - start + 1
    if matrix.has_sorted_indices and len(matrix.indptr) * span < 2**63:  # one integer sorts several times faster
        return np.argsort(rows * span + (key - start), kind="stable")
    return np.lexsort((matrix.indices, key, rows))


def oldest_first(known: Interactions | Histories) -> np.ndarray:
    """Entries row after row, each oldest first; equal times, and all without times, by the column, (nnz,) int64."""
    when = np.zeros(known.matrix.nnz, np.int64) if known.timestamps is None else known.timestamps
    return ordered_in_rows(known, when)


def places_in_rows(rows: np.ndarray, order: np.ndarray, n_rows: int) -> np.ndarray:
    """Place of each entry within its row, from 0, when entries are taken in ``order`` (row after row), (nnz,) int64.

    >>> places_in_rows(np.array([0, 1, 0]), np.array([2, 0, 1]), 2)
    array([1, 0, 0])
    """
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - row_starts(rows, n_rows)[rows[order]]
    return place


@dataclass(frozen=True)
class Interactions:
    """Who interacted with what, how strongly, and when.

    - ``matrix``, (n_users, n_items) float32: ratings in the data's own units, or weights of implicit feedback. Column
      indices are sorted in each row.
    - ``user_ids``, (n_users,): the id behind each row, ascending.
    - ``item_ids``, (n_items,): the id behind each column, ascending.
    - ``timestamps``, (matrix.nnz,) int64, or None: UNIX seconds of each stored entry, parallel to ``matrix.data``; None
      where the data has no time.
    - ``dated``: false where ``timestamps`` are no seconds but positions: the data has an order and no time.

    ValueError if the matrix does not fit its ids (a transposed one, say), or ids are not ascending and unique.

    >>> frame = pd.DataFrame({"user_id": [7, 7, 9], "item_id": [1, 3, 3], "rating": [5.0, 2.0, 4.0]})
    >>> known = Interactions.from_frame(frame)
    >>> known
    Interactions(2 users x 2 items, 3 interactions, density 75.00%, no timestamps)
    >>> known.matrix.toarray()
    array([[5., 2.],
           [0., 4.]], dtype=float32)
    """

    matrix: csr_matrix
    user_ids: np.ndarray
    item_ids: np.ndarray
    timestamps: np.ndarray | None = None
    dated: bool = True

    def __post_init__(self) -> None:
        expected = (len(self.user_ids), len(self.item_ids))
        if self.matrix.shape != expected:
            hint = " (it looks transposed)" if self.matrix.shape == expected[::-1] else ""
            raise ValueError(
                f"the matrix is {self.matrix.shape} but there are {expected[0]} users and {expected[1]} items{hint}"
            )
        for name, ids in (("user_ids", self.user_ids), ("item_ids", self.item_ids)):
            if np.any(ids[1:] <= ids[:-1]):
                raise ValueError(f"{name} must be ascending and unique")
        if self.timestamps is not None and len(self.timestamps) != self.matrix.nnz:
            raise ValueError(f"{len(self.timestamps)} timestamps for {self.matrix.nnz} interactions")
        if not np.isfinite(self.matrix.data).all():
            raise ValueError("the matrix holds NaN or infinite values")

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        user_ids: Iterable | None = None,
        item_ids: Iterable | None = None,
    ) -> Interactions:
        """Build from a table with user_id, item_id and, where there are such, rating (else 1) and timestamp or position.

        Ids that are given, in any order, get a row or a column, and rows with others are left out; by default all in
        the table do. ValueError if a column or an id is missing, a rating or a time is no number, or a pair (user,
        item) stands in it twice.
        """  # noqa: E501
        check_frame(frame)
        users = distinct_ids(frame["user_id"] if user_ids is None else user_ids)
        items = distinct_ids(frame["item_id"] if item_ids is None else item_ids)
        rows, columns = codes_of(frame["user_id"], users), codes_of(frame["item_id"], items)
        kept = np.flatnonzero((rows >= 0) & (columns >= 0))
        order = kept[np.argsort(rows[kept] * len(items) + columns[kept], kind="stable")]
        rows, columns = rows[order], columns[order]
        twice = np.flatnonzero((rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1]))
        if len(twice):
            user, item = users[rows[twice[0]]].item(), items[columns[twice[0]]].item()
            raise ValueError(
                f"{len(twice)} pairs stand in the interactions twice, user {user!r} and item {item!r} first"
            )
        ratings = frame["rating"].to_numpy(np.float32)[order] if "rating" in frame else np.ones(len(order), np.float32)
        indptr = row_starts(rows, len(users)).astype(np.int32)
        matrix = csr_matrix((ratings, columns.astype(np.int32), indptr), shape=(len(users), len(items)))
        column = order_column(frame)
        timestamps = None if column is None else frame[column].to_numpy(np.int64)[order]
        return cls(matrix, users, items, timestamps, dated=column != "position")

    @property
    def seconds(self) -> np.ndarray | None:
        """UNIX seconds of each stored entry; None where the data has no time, though it may have an order."""
        return self.timestamps if self.dated else None

    @property
    def n_users(self) -> int:
        """Number of rows."""
        return self.matrix.shape[0]

    @property
    def n_items(self) -> int:
        """Number of columns."""
        return self.matrix.shape[1]

    @cached_property
    def item_counts(self) -> np.ndarray:
        """How many users interacted with each item, (n_items,) float32."""
        return np.bincount(self.matrix.indices, minlength=self.n_items).astype(np.float32)

    @cached_property
    def relevant_from(self) -> float:
        """:func:`relevance_threshold` of the ratings; minus infinity where they are counts, of over 101 levels."""
        levels = np.unique(self.matrix.data)
        return relevance_threshold(levels) if len(levels) <= MOST_LEVELS else -np.inf

    @cached_property
    def best_rating(self) -> float:
        """The highest rating there is."""
        return float(self.matrix.data.max())

    @cached_property
    def audience(self) -> np.ndarray:
        """Vectors of unit length that say who watched an item, (n_items, at most 32) float64."""
        from scipy.sparse.linalg import svds  # 10 MB, for diversity alone

        watched = self.matrix.astype(bool).astype(np.float64)
        d = min(32, min(watched.shape) - 1)
        start = np.ones(min(watched.shape))
        _, values, right = svds(watched, k=d, v0=start) if d > 0 else (None, np.ones(1), np.ones((1, watched.shape[1])))
        vectors = right.T * values
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    @property
    def row_of_entry(self) -> np.ndarray:
        """Row of each stored entry, (nnz,) int64, parallel to ``matrix.data``."""
        return rows_of(self.matrix)

    def user_codes(self, user_ids: Iterable) -> np.ndarray:
        """Row of each user id, int64; -1 where unknown. "7" is 7 where the ids are numbers."""
        return _codes_like(user_ids, self.user_ids)

    def item_codes(self, item_ids: Iterable) -> np.ndarray:
        """Column of each item id, int64; -1 where unknown. "7" is 7 where the ids are numbers."""
        return _codes_like(item_ids, self.item_ids)

    def rows(self, codes: np.ndarray) -> Histories:
        """Histories of the users at these rows; -1 gives an empty one."""
        codes = np.asarray(codes, dtype=np.int64)
        lengths = np.where(codes >= 0, np.diff(self.matrix.indptr)[codes], 0)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        entries = np.repeat(self.matrix.indptr[codes] - indptr[:-1], lengths) + np.arange(indptr[-1])
        content = self.matrix.data[entries], self.matrix.indices[entries], indptr.astype(np.int32)
        matrix = csr_matrix(content, shape=(len(codes), self.n_items))
        return Histories(matrix, None if self.timestamps is None else self.timestamps[entries])

    def only(self, codes: np.ndarray) -> Interactions:
        """The interactions of the users at these rows, ascending; every column stays, also an empty one."""
        chosen = self.rows(codes)
        return Interactions(chosen.matrix, self.user_ids[codes], self.item_ids, chosen.timestamps, self.dated)

    def to_frame(self) -> pd.DataFrame:
        """The table again: user_id, item_id, rating and, where known, timestamp or position."""
        users, items = self.user_ids[self.row_of_entry], self.item_ids[self.matrix.indices]
        frame = pd.DataFrame({"user_id": users, "item_id": items, "rating": self.matrix.data})
        column = "timestamp" if self.dated else "position"
        return frame if self.timestamps is None else frame.assign(**{column: self.timestamps})

    def __repr__(self) -> str:
        density = self.matrix.nnz / max(1, self.n_users * self.n_items)
        when = "no timestamps" if self.timestamps is None else f"with {'timestamps' if self.dated else 'positions'}"
        return (
            f"Interactions({self.n_users:,} users x {self.n_items:,} items, {self.matrix.nnz:,} interactions, "
            f"density {density:.2%}, {when})"
        )


@dataclass(frozen=True)
class Histories:
    """Rows of history, without the users' ids: all that a model may know of them.

    ``matrix`` (n, n_items) and ``timestamps`` (nnz,) are as in the :class:`Interactions` that a model was fitted on.
    """

    matrix: csr_matrix
    timestamps: np.ndarray | None = None

    @property
    def row_of_entry(self) -> np.ndarray:
        """Row of each stored entry, (nnz,) int64."""
        return rows_of(self.matrix)

    def first(self, size: int, order: np.ndarray | None = None) -> Histories:
        """Only the ``size`` first entries of each row in an order; by default the most recent, equal times by the column.

        ``order`` holds the entries, row after row, (nnz,) int64.
        """  # noqa: E501
        rows, matrix = self.row_of_entry, self.matrix
        if order is None:
            when = np.zeros(matrix.nnz, np.int64) if self.timestamps is None else self.timestamps
            order = ordered_in_rows(self, -when)
        kept = places_in_rows(rows, order, matrix.shape[0]) < size
        indptr = row_starts(rows[kept], matrix.shape[0])
        cut = csr_matrix((matrix.data[kept], matrix.indices[kept], indptr), shape=matrix.shape)
        return Histories(cut, None if self.timestamps is None else self.timestamps[kept])

    def steps_back(self) -> np.ndarray:
        """How many interactions of the same row are more recent, (nnz,) int64; 0 everywhere without timestamps.

        Entries of the same second share the mean of their places (rounded down), so that no order is made up.

        >>> matrix = csr_matrix(np.array([[5, 4, 3, 2]], dtype=np.float32))
        >>> Histories(matrix, np.array([10, 30, 20, 30])).steps_back()
        array([3, 0, 2, 0])
        """
        if self.timestamps is None:
            return np.zeros(self.matrix.nnz, dtype=np.int64)
        rows = self.row_of_entry
        order = ordered_in_rows(self, self.timestamps.max(initial=0) - self.timestamps)
        row, when = rows[order], self.timestamps[order]
        place = np.arange(len(order)) - self.matrix.indptr[row]
        group = np.cumsum(np.append(True, (row[1:] != row[:-1]) | (when[1:] != when[:-1]))[: len(order)]) - 1
        mean_place = np.bincount(group, place) / np.maximum(np.bincount(group), 1)
        steps = np.empty(len(order), dtype=np.int64)
        steps[order] = np.floor(mean_place[group]).astype(np.int64)
        return steps
