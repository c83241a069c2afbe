"""Features of a user-item pair that the neural hybrid reads, and that 02 shows and checks for leaks.

Everything that is made of ratings is leave-one-out: the features of a training pair hold nothing of its own rating. A
user's history is measured against the items' shrunk means, an item's against the users'; a full residual (minus both)
would carry the target, because each mean holds it. Leaving one out has a trace of its own (Prokhorenkova and others,
"CatBoost: unbiased boosting with categorical features", 2018), which shrinkage damps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.data.catalogue import MOST_GENRES, genre_matrix
from recsys_lib.data.interactions import Histories, Interactions, as_ids, codes_of, row_starts, rows_of, with_values
from recsys_lib.data.splits import Split

SHRINKAGE = 5.0  # ratings' worth of prior
USER_WINDOWS, ITEM_WINDOWS = (1, 3, 10), (10, 50)  # entries on either side in time that make up "around then"
USER_SPANS = (0, 60, 600, 3600)  # seconds on either side within which ratings were given together
FEATURES_BLOCK = 2**19  # pairs whose features are made at once: some 500 MB
MAX_VALUES = 60  # a column with more distinct values is no category
MEANINGS = {
    "mean against expectation": "shrunk mean of rating minus the other side's shrunk mean, stars",
    "mean rating": "shrunk mean rating minus the overall mean, stars",
    "spread": "standard deviation of rating minus expectation, minus the usual one, stars",
    "number of ratings": "log(1 + ratings) / 4",
    "time": "when the rating is given, from -0.5 (first of the training data) to 0.5 (last)",
}

# ---- what is known beside the ratings ----------------------------------------------------------------------------


def item_features(items: pd.DataFrame | None, item_ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Genres (scaled to length 1 a item) and decade of each item, (n_items, f) float32, with names."""
    flags, genres = _frequent_genres(items, item_ids)
    content, names = flags / np.sqrt(np.maximum(flags.sum(axis=1, keepdims=True), 1)), [f"genre {g}" for g in genres]
    if items is not None and "year" in items:
        years = _aligned(items.set_index("item_id")["year"], item_ids)
        decades, distinct = _flags(np.floor(pd.to_numeric(years, errors="coerce") / 10) * 10)
        content, names = np.hstack([content, decades]), names + [f"decade {int(decade)}" for decade in distinct]
    return content.astype(np.float32), names


def _frequent_genres(items: pd.DataFrame | None, item_ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Flags of the genres as :func:`genre_matrix` gives them; of hundreds, such as brands, of the most frequent."""
    flags, genres = genre_matrix(items, item_ids)
    kept = np.sort(np.argsort(-flags.sum(axis=0), kind="stable")[:MOST_GENRES])
    return flags[:, kept], [genres[place] for place in kept]


def user_features(users: pd.DataFrame | None, user_ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Demographics of each user as zeros and ones, (n_users, f) float32, with names.

    Numbers with many values are cut at their quintiles, postal codes at their first character, other columns with up
    to 60 values are categories. A user without a row gets zeros, as a new user does.
    """
    content, names = np.zeros((len(user_ids), 0), np.float32), []
    table = pd.DataFrame() if users is None else users.set_index("user_id")
    for name in table.columns:
        values = _aligned(table[name], user_ids)
        if pd.api.types.is_numeric_dtype(values) and values.nunique() > 10:
            values = pd.qcut(values, 5, labels=False, duplicates="drop")
        elif values.nunique() > MAX_VALUES and "zip" in name:
            values = values.astype("string").str.slice(0, 1)
        if 2 <= values.nunique() <= MAX_VALUES:
            flags, distinct = _flags(values)
            content, names = np.hstack([content, flags]), names + [f"{name} {value}" for value in distinct]
    return content, names


def _aligned(column: pd.Series, ids: np.ndarray) -> pd.Series:
    """The column's values in the order of ``ids``; missing where an id has none."""
    return column[~column.index.duplicated()].reindex(ids).reset_index(drop=True)


def _flags(values: pd.Series) -> tuple[np.ndarray, list]:
    """One column of zeros and ones a distinct value, ascending, and the values; a row of zeros where it is missing."""
    codes, distinct = pd.factorize(values, sort=True)
    return (codes[:, None] == np.arange(len(distinct))).astype(np.float32), list(distinct)


# ---- sums over histories, from which one pair can be taken out ----------------------------------------------------


def shrunk_means(codes: np.ndarray, values: np.ndarray, size: int, mean: float) -> np.ndarray:
    """Mean of each group, pulled towards ``mean`` as if by 5 ratings of that value, (size,) float64.

    >>> shrunk_means(np.array([0, 0, 1]), np.array([5.0, 5.0, 3.0]), 3, 3.0).round(3)
    array([3.571, 3.   , 3.   ])
    """
    total = np.bincount(codes, values - mean, minlength=size)
    return mean + total / (np.bincount(codes, minlength=size) + SHRINKAGE)


class Side:
    """Histories of one side (users, or items), entry by entry, and their sums.

    ``rows`` (nnz,) int64 say whose entry it is, ``gaps`` (nnz,) float64 are ratings minus the shrunk means of the
    *other* side, ``ratings`` those minus the mean of all, ``timestamps`` seconds or None. ``spread`` is the typical one
    of the gaps. Features look at ``windows`` of entries, and at ``spans`` of seconds, on either side in time.
    """

    def __init__(
        self,
        rows: np.ndarray,
        gaps: np.ndarray,
        ratings: np.ndarray,
        size: int,
        timestamps: np.ndarray | None,
        spread: float,
        windows: tuple[int, ...],
        spans: tuple[int, ...] = (),
    ) -> None:
        self.rows, self.gaps, self.ratings, self.timestamps = rows, gaps, ratings, timestamps
        self.spread, self.windows, self.spans = spread, windows, spans
        self.sums = {
            "count": np.bincount(rows, minlength=size).astype(np.float64),
            "gap": np.bincount(rows, gaps, minlength=size),
            "square": np.bincount(rows, gaps**2, minlength=size),
            "rating": np.bincount(rows, ratings, minlength=size),
        }
        if timestamps is not None:
            order = np.lexsort((timestamps, rows))
            self.running = np.concatenate([[0.0], np.cumsum(gaps[order])])
            self.bounds = row_starts(rows, size)

    def names(self) -> list[str]:
        """Names of the features, in their order."""
        names = ["mean against expectation", "mean rating", "spread", "number of ratings"]
        if self.timestamps is not None:
            names += [f"{2 * window} ratings around then" for window in self.windows]
            names += [f"ratings within {span} s" if span else "ratings of the same second" for span in self.spans]
        return names

    def features(self, rows: np.ndarray, when: np.ndarray | None, own: np.ndarray | None) -> np.ndarray:
        """Features of these rows, without the entries ``own``, (n, f) float32: see :meth:`names`."""
        gap, rating, one = (0.0, 0.0, 0) if own is None else (self.gaps[own], self.ratings[own], 1)
        count = np.maximum(self.sums["count"][rows] - one, 0)
        total = self.sums["gap"][rows] - gap
        square = np.maximum(self.sums["square"][rows] - np.square(gap), 0)
        prior = SHRINKAGE * self.spread**2
        mean = total / (count + SHRINKAGE)
        spread = np.sqrt(np.maximum((square + prior) / (count + SHRINKAGE) - np.square(mean), 1e-4)) - self.spread
        columns = [mean, (self.sums["rating"][rows] - rating) / (count + SHRINKAGE), spread, np.log1p(count) / 4]
        if self.timestamps is not None:
            columns += self._around(rows, when, own, mean)
        return np.stack(columns, axis=1).astype(np.float32) * (count > 0)[:, None]

    def _around(
        self, rows: np.ndarray, when: np.ndarray | None, own: np.ndarray | None, mean: np.ndarray
    ) -> list[np.ndarray]:
        """Shrunk mean gaps of the entries nearest in time, and of those given together, minus the row's ``mean``.

        The last entries, and none given together, where both ``when`` and ``own`` are None.
        """
        gap, one = (0.0, 0) if own is None else (self.gaps[own], 1)
        when = when if own is None else self.timestamps[own]
        low, high = self.bounds[rows], self.bounds[rows + 1]
        if own is not None:
            middle = self._own_place[own]
        elif when is not None:
            middle = (self._place(rows, when, "left") + self._place(rows, when, "right")) // 2
        else:
            middle = high
        columns = []
        for window in self.windows:
            start, stop = np.maximum(low, middle - window), np.minimum(high, middle + window + one)
            total = self.running[stop] - self.running[start] - gap
            columns.append(total / (stop - start - one + 2.0) - mean)
        for span in self.spans if when is not None else ():
            start, stop = self._place(rows, when - span, "left"), self._place(rows, when + span, "right")
            count = stop - start - one
            columns.append((self.running[stop] - self.running[start] - gap - count * mean) / (count + 2.0))
        return columns + [np.zeros(len(rows))] * (len(self.windows) + len(self.spans) - len(columns))

    @cached_property
    def _own_place(self) -> np.ndarray:
        """Where each entry stands in the order of rows and times; training alone asks for it."""
        place = np.empty(len(self.rows), np.int64)
        place[np.lexsort((self.timestamps, self.rows))] = np.arange(len(self.rows))
        return place

    @cached_property
    def _moments(self) -> tuple[np.ndarray, int, int]:
        """Row and time of the entries in order, as one number each; the earliest time; numbers that a row takes."""
        earliest = self.timestamps.min()
        width = int(self.timestamps.max() - earliest) + 3
        return np.sort(self.rows * width + self.timestamps - earliest + 1), earliest, width

    def _place(self, rows: np.ndarray, when: np.ndarray, side: str) -> np.ndarray:
        """How many entries are before (side "left") or not after ("right") each moment, those of all rows before."""
        keys, earliest, width = self._moments
        return np.searchsorted(keys, rows * width + np.clip(when - earliest + 1, 0, width - 1), side=side)


class Affinity:
    """How users rate kinds of items (``flags``: genres, decades), as sums that one pair can be taken out of.

    ``total`` and ``count``, (n_users, kinds), are the sum of the gaps and the number of entries of each kind.
    """

    def __init__(self, matrix: csr_matrix, gaps: np.ndarray, flags: np.ndarray) -> None:
        self.flags = flags
        self.shares = flags / np.maximum(flags.sum(axis=1, keepdims=True), 1)
        self.total = with_values(matrix, gaps) @ flags
        self.count = with_values(matrix, np.ones(matrix.nnz)) @ flags

    def deviations(self, mean: np.ndarray) -> np.ndarray:
        """Shrunk mean gap of each user with each kind, minus the user's own, (n_users, kinds)."""
        return (self.total + SHRINKAGE * mean[:, None]) / (self.count + SHRINKAGE) - mean[:, None]

    def of_pairs(self, rows: np.ndarray, columns: np.ndarray, gap: np.ndarray | None, mean: np.ndarray) -> np.ndarray:
        """Mean over the item's kinds of the user's shrunk deviation there, without the pair itself, (n,) float32.

        ``gap`` is the pair's own gap, or None where it is no part of the history; ``mean`` the user's shrunk gap.
        """
        flags, mean = self.flags[columns], mean[:, None]
        own, one = (0.0, 0.0) if gap is None else (gap[:, None], 1.0)
        total = self.total[rows] - own * flags + SHRINKAGE * mean
        deviation = total / (self.count[rows] - one * flags + SHRINKAGE) - mean
        return ((deviation * flags).sum(axis=1) / np.maximum(flags.sum(axis=1), 1)).astype(np.float32)


# ---- features of pairs --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Catalogue:
    """All users and items that get a vector, with ratings or only in the tables, and what the tables say of them."""

    user_ids: np.ndarray  # ascending, as the items'
    item_ids: np.ndarray
    user_content: np.ndarray  # (n_users, f) float32: demographics, see user_features
    item_content: np.ndarray  # (n_items, f) float32: genres and decade, see item_features
    user_names: list[str]  # of the columns
    item_names: list[str]
    kinds: dict[str, np.ndarray]  # flags of "genres" and of "decade" where the data has them, (n_items, kinds) float32

    @classmethod
    def of(cls, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> Catalogue:
        """From the interactions and the tables."""
        user_ids = _with(train.user_ids, users, "user_id")
        item_ids = _with(train.item_ids, items, "item_id")
        user_content, user_names = user_features(users, user_ids)
        item_content, item_names = item_features(items, item_ids)
        decades = item_content[:, [name.startswith("decade") for name in item_names]]
        kinds = {"genres": _frequent_genres(items, item_ids)[0], "decade": decades}
        kinds = {name: flags for name, flags in kinds.items() if flags.shape[1]}
        return cls(user_ids, item_ids, user_content, item_content, user_names, item_names, kinds)

    def codes(self, user_ids: Iterable, item_ids: Iterable) -> tuple[np.ndarray, np.ndarray]:
        """Codes of ids, int64; -1 for unknown ones."""
        return codes_of(user_ids, self.user_ids), codes_of(item_ids, self.item_ids)


def _with(ids: np.ndarray, table: pd.DataFrame | None, column: str) -> np.ndarray:
    """The ids and those of a table, ascending; a table of another type of id adds none."""
    more = ids[:0] if table is None else as_ids(table[column])
    return np.union1d(ids, more) if (more.dtype.kind == "U") == (ids.dtype.kind == "U") else ids


class PairFeatures:
    """Features of user-item pairs, fitted on training ratings.

    ``without``: of "time" and "dense features", what is left out to see what it is worth; "leave-one-out" leaves each
    pair's own rating in its features, which is the mistake that this module is there to prevent.

    ``columns``, (train.n_items,), is the column of each of ``train.item_ids`` among ``catalogue.item_ids``; ``matrix``
    are the ratings by the catalogue, ``mean`` is theirs; ``users`` and ``items`` are the histories of either side.
    """

    def __init__(self, train: Interactions, catalogue: Catalogue, without: Collection[str] = ()) -> None:
        self.catalogue, self.times = catalogue, None if "time" in without else train.seconds
        self.share = np.float32("dense features" not in without)
        self.leaks = "leave-one-out" in without
        self.columns = codes_of(train.item_ids, catalogue.item_ids)
        rows = codes_of(train.user_ids, catalogue.user_ids)[train.row_of_entry]
        columns, ratings = self.columns[train.matrix.indices], train.matrix.data.astype(np.float64)
        shape = (len(catalogue.user_ids), len(catalogue.item_ids))
        self.mean = float(ratings.mean())
        self.item_means = shrunk_means(columns, ratings, shape[1], self.mean)
        self.spread = float(np.std(ratings - self.item_means[columns]))
        indptr = row_starts(rows, shape[0]).astype(np.int32)
        self.matrix = csr_matrix((train.matrix.data, columns.astype(np.int32), indptr), shape=shape)
        self.users = self.side(self.matrix, self.times)
        gaps = ratings - shrunk_means(rows, ratings, shape[0], self.mean)[rows]
        self.items = Side(columns, gaps, self.users.ratings, shape[1], self.times, float(np.std(gaps)), ITEM_WINDOWS)
        self.tastes = self._affinities(self.matrix, self.users.gaps)

    def side(self, matrix: csr_matrix, times: np.ndarray | None) -> Side:
        """Users as rows of a matrix whose columns are the catalogue's."""
        ratings = matrix.data.astype(np.float64)
        gaps = ratings - self.item_means[matrix.indices]
        return Side(
            rows_of(matrix), gaps, ratings - self.mean, matrix.shape[0], times, self.spread, USER_WINDOWS, USER_SPANS
        )

    def _affinities(self, matrix: csr_matrix, gaps: np.ndarray) -> list[Affinity]:
        return [Affinity(matrix, gaps, flags) for flags in self.catalogue.kinds.values()]

    @classmethod
    def of(cls, train: pd.DataFrame, items: pd.DataFrame | None = None, users: pd.DataFrame | None = None) -> Self:
        """Fit on a table of interactions, with the tables of items and users where there are any."""
        known = Interactions.from_frame(train)
        features = cls(known, Catalogue.of(known, items, users))
        codes = known.item_codes(train["item_id"]), known.user_codes(train["user_id"])
        features.order = np.argsort(np.lexsort(codes))  # where each row of the table stands among the entries
        return features

    def table(self, frame: pd.DataFrame | None = None) -> pd.DataFrame:
        """All features of rows, by name: what the hybrid is given of them.

        (n, f) float32; the columns are those that :meth:`describe` explains. ``frame`` has user_id, item_id and, where
        known, timestamp; its ratings are not read. None: the rows that it was fitted on (by :meth:`of`), each without
        its own rating, in the order in which they were given.
        """
        if frame is None:
            rows = self.training()
            users, items, dense = (rows[name][self.order] for name in ("users", "items", "dense"))
        else:
            users, items = self.catalogue.codes(frame["user_id"], frame["item_id"])
            dense = self.pairs(users, items, frame["timestamp"].to_numpy() if "timestamp" in frame else None)
        content = [
            np.where((codes >= 0)[:, None], values[codes], 0)
            for codes, values in ((users, self.catalogue.user_content), (items, self.catalogue.item_content))
        ]
        names = [*self.names(), *self.catalogue.user_names, *self.catalogue.item_names]
        return pd.DataFrame(np.concatenate([dense, *content], axis=1), columns=names)

    def describe(self) -> pd.DataFrame:
        """Describe each feature: feature, group (user, item, interaction, temporal, demographic, content), meaning."""
        rows = []
        for name in self.names():
            side, _, feature = name.rpartition(": ")
            temporal = any(words in feature for words in ("time", "around then", "within", "same second"))
            meaning = MEANINGS.get(
                feature, f"shrunk mean gap to expectation of those ratings, minus the {side}'s own, stars"
            )
            if side == "user and item":
                side, meaning = "interaction", f"how far above their mean the user rates such {feature}, shrunk, stars"
            rows.append((name, "temporal" if temporal else side, meaning))
        rows += [(name, "demographic", "1 where it is so") for name in self.catalogue.user_names]
        genres = "1 where it is so; genres share a length of 1"
        rows += [(name, "content", genres) for name in self.catalogue.item_names]
        return pd.DataFrame(rows, columns=["feature", "group", "meaning"])

    def names(self) -> list[str]:
        """Names of the dense features: the user's, the item's, the pair's."""
        user = [f"user: {name}" for name in self.users.names()]
        item = [f"item: {name}" for name in self.items.names()]
        return [*user, "time", *item, *(f"user and item: {name}" for name in self.catalogue.kinds)]

    def blocks(self) -> tuple[int, int, int]:
        """How many dense features belong to the user, to the item, to the pair."""
        return len(self.users.names()) + 1, len(self.items.names()), len(self.catalogue.kinds)

    def _time(self, when: np.ndarray | None, size: int) -> np.ndarray:
        """Time of ratings, about -0.5 to 0.5, (size, 1) float32: the last one where None, zeros without times."""
        if self.times is None:
            return np.zeros((size, 1), np.float32)
        when = np.full(size, self.times.max()) if when is None else when
        middle, width = float(self.times.mean()), float(np.ptp(self.times)) or 1.0
        return np.clip((when - middle) / width, -0.7, 0.7).astype(np.float32)[:, None]

    def training(self) -> dict[str, np.ndarray]:
        """The training pairs, each without its own rating: users, items, user_gaps, item_gaps, dense, target."""
        own = None if self.leaks else np.arange(self.matrix.nnz)
        return {
            "users": self.users.rows,
            "items": self.items.rows,
            "user_gaps": self.users.gaps.astype(np.float32),
            "item_gaps": self.items.gaps.astype(np.float32),
            "dense": self._dense(self.users.rows, self.items.rows, self.times, own),
            "target": (self.matrix.data - self.mean).astype(np.float32),
        }

    def _dense(
        self, users: np.ndarray, items: np.ndarray, when: np.ndarray | None, own: np.ndarray | None
    ) -> np.ndarray:
        """Dense features of pairs of codes, (n, f) float32; ``own`` are their entries, to be left out."""
        dense = np.empty((len(users), sum(self.blocks())), np.float32)
        for start in range(0, len(users), FEATURES_BLOCK):
            block = slice(start, start + FEATURES_BLOCK)
            rows, columns = users[block], items[block]
            then, mine = (None if part is None else part[block] for part in (when, own))
            user, item = self.users.features(rows, then, mine), self.items.features(columns, then, mine)
            gap = None if mine is None else self.users.gaps[mine]
            pair = [taste.of_pairs(rows, columns, gap, user[:, 0])[:, None] for taste in self.tastes]
            np.concatenate([user, self._time(then, len(rows)), item, *pair], axis=1, out=dense[block])
        dense *= self.share
        return dense

    def pairs(self, users: np.ndarray, items: np.ndarray, when: np.ndarray | None) -> np.ndarray:
        """Dense features of pairs that are asked for, (n, f) float32; zeros where a side (code -1, say) is unknown.

        ``when`` are seconds; None means after everything in the training data.
        """
        dense = self._dense(users, items, None if self.times is None else when, None)
        user = (users >= 0) & (self.users.sums["count"][users] > 0)
        item = (items >= 0) & (self.items.sums["count"][items] > 0)
        known = np.repeat([user, item, user & item], self.blocks(), axis=0).T
        return np.where(known, dense, np.float32(0))

    def widened(self, histories: Histories) -> tuple[csr_matrix, Side]:
        """Histories with the catalogue's columns, and their sums."""
        matrix, times = histories.matrix, None
        shape = (matrix.shape[0], len(self.catalogue.item_ids))
        wide = csr_matrix((matrix.data, self.columns[matrix.indices].astype(np.int32), matrix.indptr), shape=shape)
        if self.times is not None:
            times = histories.timestamps if histories.timestamps is not None else np.zeros(matrix.nnz, np.int64)
        return wide, self.side(wide, times)

    def grid(self, matrix: csr_matrix, side: Side) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Dense features of the users of these histories with all items of the training data, after everything.

        Float32: the users', (n, f1), the items', (n_items, f2), and one (n, n_items) a pair feature.
        """
        some = (side.sums["count"] > 0)[:, None]
        known = (self.items.sums["count"] > 0)[self.columns]
        user = side.features(np.arange(matrix.shape[0]), None, None)
        pair = [
            ((some * taste.deviations(user[:, 0])) @ taste.shares[self.columns].T * known).astype(np.float32)
            for taste in self._affinities(matrix, side.gaps)
        ]
        user = np.concatenate([user, self._time(None, len(user))], axis=1) * some
        item = self.items.features(self.columns, None, None)
        return user * self.share, item * self.share, [values * self.share for values in pair]


def fitted_on(
    split: Split, items: pd.DataFrame | None = None, users: pd.DataFrame | None = None
) -> dict[str, np.ndarray | pd.DataFrame]:
    """Everything that is fitted for the features of a split, for :func:`recsys_lib.data.leaks.check_pipeline`.

    "train" and "test" are their features, "statistics.*" the sums that these are made of.
    """
    features = PairFeatures.of(split.train, items, users)
    sums = {"user": features.users.sums, "item": features.items.sums}
    statistics = {f"statistics.{side}.{name}": values for side, of in sums.items() for name, values in of.items()}
    return {"train": features.table(), "test": features.table(split.test), **statistics}
