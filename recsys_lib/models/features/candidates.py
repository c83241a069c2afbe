"""Features of candidates, which the re-ranker reads beside the scores of models, and 02 shows and checks."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import ClassVar
from weakref import WeakValueDictionary

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, diags_array, issparse

from recsys_lib.data.catalogue import MOST_GENRES
from recsys_lib.data.interactions import Histories, Interactions, row_starts, with_values
from recsys_lib.models.neighbours import followed, nearest
from recsys_lib.models.popularity import DAY
from recsys_lib.models.weights import confidence, last_times, threshold

YEAR = 365.25 * DAY
SHRINKAGE = 5.0  # made-up ratings at the overall mean, in the mean rating of an item
LONG_AGO = 5000.0  # days since an item was last rated, where it had no rating by then
NO_DECAY = 1e9  # half-life of a history that forgets nothing
WIDE_CATALOGUE = 2**14  # items of which all cosines take over 1 GB,
KEPT_COSINES = 1000  # so that only the largest of each are kept
FEW_USERS = 16  # a session of the application asks for one at a time

Columns = dict[str, np.ndarray]  # features by name, each (n, depth) or (n, 1)


class CandidateFeatures:
    """Features of users' candidate items from interactions and, where they are known, years and genres.

    - the item: log count, shrunk mean rating, year;
    - the user: log length of the history, mean rating, logs of the time since the first and the sixth last interaction;
    - taste: how far year, popularity and genres are from those of the last few films, and of all;
    - similarity: cosine with the films rated high, those rated low, and the last ones; ratings above the user's mean,
      weighed by it; how often the item *followed* the last films in other users' histories;
    - the moment: the item's age, and how many rated it in the month, half a year, two years and all the time before the
      user's last interaction. What others did later does not count here.

    Without timestamps there is no moment, and without an order nothing follows anything.

    ``train`` is what models were fitted on; ``years``, (n_items,) float32, are those of release, NaN where unknown;
    ``genres``, (n_items, n_genres), zeros and ones. Ratings from ``relevant_from`` on are high, more than 1 below low.
    """

    def __init__(
        self,
        train: Interactions,
        years: np.ndarray | None = None,
        genres: np.ndarray | None = None,
        *,
        relevant_from: float | str = "scale",
    ) -> None:
        self.train, self.relevant_from = train, threshold(train, relevant_from)
        self._tables = _Tables.of(train)
        known = years is not None and np.isfinite(years).any()
        self.years = np.where(np.isfinite(years), years, np.nanmedian(years)) if known else None
        self.genres = None
        if genres is not None:
            unit = genres / np.maximum(np.linalg.norm(genres, axis=1, keepdims=True), 1e-12)
            self.genres = unit if genres.shape[1] <= MOST_GENRES else csr_matrix(unit)  # of which an item has few

    def features(self, histories: Histories, codes: np.ndarray) -> np.ndarray:
        """Features of the items ``codes``, (n, depth), for each user: (n, depth, n_features) float32."""
        columns = self._columns(histories, codes).values()
        return np.stack([np.broadcast_to(column, codes.shape) for column in columns], axis=-1).astype(np.float32)

    def table(self, histories: Histories, codes: np.ndarray) -> pd.DataFrame:
        """Features by name, a row a candidate of each user in turn, (n * depth, n_features)."""
        columns = self._columns(histories, codes)
        values = {name: np.broadcast_to(column, codes.shape).ravel() for name, column in columns.items()}
        return pd.DataFrame(values).astype(np.float32)

    def _columns(self, histories: Histories, codes: np.ndarray) -> Columns:
        columns = self._items(codes) | self._users(histories) | self._tastes(histories, codes)
        columns |= self._similarity(histories, codes)
        if self.train.seconds is not None:
            columns |= self._moment(histories, codes)
        if self.train.timestamps is not None:
            columns |= self._following(histories, codes)
        return columns

    def _items(self, codes: np.ndarray) -> Columns:
        columns = {"item: log(1 + ratings)": np.log1p(self.train.item_counts)[codes]}
        columns["item: shrunk mean rating"] = self._tables.mean_ratings[codes]
        return columns if self.years is None else columns | {"item: year": self.years[codes]}

    def _users(self, histories: Histories) -> Columns:
        columns = {"log(1 + ratings)": np.log1p(np.diff(histories.matrix.indptr))}
        columns["mean rating"] = _row_means(histories.matrix)
        if self.train.seconds is not None:
            now, rows = last_times(histories, self.train).astype(np.float64), histories.row_of_entry
            when = now[rows] if histories.timestamps is None else histories.timestamps
            first, older = now.copy(), histories.steps_back() >= 5
            np.minimum.at(first, rows, when)
            sixth = first.copy()  # the first, if there are fewer
            np.maximum.at(sixth, rows[older], when[older])
            columns["log(1 + days since the first)"] = np.log1p((now - first) / DAY)
            columns["log(1 + seconds since the sixth last)"] = np.log1p(now - sixth)
        return {f"user: {name}": column[:, None] for name, column in columns.items()}

    def _tastes(self, histories: Histories, codes: np.ndarray) -> Columns:
        columns, popularity = {}, np.log1p(self.train.item_counts)
        last_3, last_10, whole = (_shares(histories, half_life) for half_life in (3, 10, NO_DECAY))
        if self.years is not None:
            for name, shares in {"last 3": last_3, "last 10": last_10}.items():
                mean = shares @ self.years
                spread = np.sqrt(np.maximum(shares @ np.square(self.years) - np.square(mean), 0))
                distance = np.abs(self.years[codes] - mean[:, None]) / (spread[:, None] + 2)
                columns[f"year: distance to the {name}"] = distance
            columns["year: minus the mean of all"] = self.years[codes] - (whole @ self.years)[:, None]
        columns["popularity: minus the mean of the last 10"] = popularity[codes] - (last_10 @ popularity)[:, None]
        if self.genres is not None:
            for name, shares in {"the last 3": last_3, "all": whole}.items():
                columns[f"genres: cosine with {name}"] = _at((shares @ self.genres) @ self.genres.T, codes)
        return columns

    def _similarity(self, histories: Histories, codes: np.ndarray) -> Columns:
        matrix = histories.matrix
        high = confidence(histories, self.train, positive_from=self.relevant_from, low_weight=0.5).data == 1
        low, last = matrix.data < self.relevant_from - 1, histories.steps_back() < 3
        above = matrix.data - _row_means(matrix)[histories.row_of_entry]
        weights = np.stack([high, low, last, above, np.ones(matrix.nnz)]).astype(np.float32)  # (5, nnz)
        sums, cosines = np.zeros((len(weights), *codes.shape), np.float32), self._tables.cosines
        if issparse(cosines):
            asked = weights.any(axis=1) & (above.any() | (np.arange(len(weights)) < 4))  # the last divides that before
            for place in np.flatnonzero(asked):
                sums[place] = _at(with_values(matrix, weights[place]) @ cosines, codes)
        for row, (start, stop) in enumerate(pairwise(matrix.indptr) if not issparse(cosines) else ()):
            cells = _cells(cosines, matrix.indices[start:stop], codes[row])  # each user has other candidates
            sums[:, row] = weights[:, start:stop] @ cells
        names = (f"similarity: with the items rated {which}" for which in ("high", "low", "last"))
        columns = dict(zip(names, sums, strict=False))
        return columns | {"similarity: ratings above the mean, weighted": sums[3] / (sums[4] + 0.5)}

    def _moment(self, histories: Histories, codes: np.ndarray) -> Columns:
        start, span, order, begins, times = self._tables.calendar
        now = np.clip(last_times(histories, self.train) - start, 0, span - 1)[:, None]
        ago = (0, 30, 180, 730)  # days
        then = np.maximum(now - np.array(ago) * DAY, 0)
        asked = (codes[..., None] * span + then[:, None]).reshape(-1, len(ago))
        sorting = np.argsort(asked[:, 0])  # so that one search comes where the last one was
        places = np.empty_like(asked)
        places[sorting] = np.searchsorted(order, asked[sorting])
        before, *earlier = np.moveaxis(places.reshape(*codes.shape, len(ago)) - begins[codes][..., None], -1, 0)
        columns = {"ratings until now": np.log1p(before)}
        for days, beginning, past in zip(ago[1:], then.T[1:], earlier, strict=True):
            columns[f"ratings in {days} days"] = np.log1p(before - past)
            if days == 180:
                total = np.searchsorted(times, now) - np.searchsorted(times, beginning)[:, None]
                columns["share of all in 180 days"] = np.log1p(1e4 * (before - past) / np.maximum(total, 1))
        previous = order[np.maximum(before + begins[codes] - 1, 0)] - codes * span
        columns["days since the last"] = np.log1p(np.where(before > 0, (now - previous) / DAY, LONG_AGO))
        if self.years is not None:
            columns["age in years"] = 1970 + (now + start) / YEAR - self.years[codes]
        return {f"moment: {name}": column for name, column in columns.items()}

    def _following(self, histories: Histories, codes: np.ndarray) -> Columns:
        columns, matrix = {}, histories.matrix
        tables = self._tables.followers_for(len(codes))
        for (reach, table), half_life in zip(tables.items(), (3, 1), strict=True):
            weights = np.exp2(-histories.steps_back() / half_life)
            weights = np.where(weights > 1e-2, weights, 0).astype(np.float32)
            last = with_values(matrix, weights).copy()
            last.eliminate_zeros()
            if issparse(table):
                sums = _at(last @ table, codes)
            else:  # of the candidates alone, added up in the order of the product
                sums = np.empty(codes.shape, np.float32)
                for row, (start, stop) in enumerate(pairwise(last.indptr)):
                    cells = _cells(table, last.indices[start:stop], codes[row])
                    sums[row] = (last.data[start:stop, None] * cells).sum(axis=0)
            columns[f"sequence: followed the last within {reach}"] = sums
        return columns


class _Tables:
    """Tables that interactions alone decide: one for the same interactions, in whichever models they stand."""

    _made: ClassVar[WeakValueDictionary[int, _Tables]] = WeakValueDictionary()  # by the identity of the interactions

    def __init__(self, train: Interactions) -> None:
        self.train = train  # kept alive, so that nothing else can have its identity

    @classmethod
    def of(cls, train: Interactions) -> _Tables:
        return cls._made.setdefault(id(train), cls(train))

    @cached_property
    def mean_ratings(self) -> np.ndarray:
        """Mean rating of each item, drawn to the overall mean, (n_items,) float64."""
        data = self.train.matrix.data
        totals = np.bincount(self.train.matrix.indices, data, minlength=self.train.n_items)
        return (totals + SHRINKAGE * data.mean()) / (self.train.item_counts + SHRINKAGE)

    @cached_property
    def cosines(self) -> np.ndarray | csr_matrix:
        """Shrunk cosines between items by who had them, (n_items, n_items) float32; of wide catalogues the largest."""
        matrix, scale = self.train.matrix, diags_array(1 / np.sqrt(self.train.item_counts + SHRINKAGE))
        users = (with_values(matrix, np.ones(matrix.nnz, np.float32)) @ scale).tocsr()
        items = users.T.tocsr()
        if self.train.n_items > WIDE_CATALOGUE:
            return nearest(lambda block: items[block] @ users, self.train.n_items, KEPT_COSINES)
        return _dense_if_filled(items @ users)

    @cached_property
    def followers(self) -> dict[int, np.ndarray | csr_matrix]:
        """How often an item (column) followed another (row) within so many items, over the root of both counts."""
        scale, tables = diags_array(1 / np.sqrt(self.train.item_counts + 3)), {}
        for reach, power in ((20, 0.5), (3, 0.0)):
            counts = followed(self.train, np.ones(self.train.matrix.nnz, np.float32), reach, power)
            tables[reach] = (scale @ counts @ scale).tocsr()
        return tables

    def followers_for(self, users: int) -> dict[int, np.ndarray | csr_matrix]:
        """The same; dense, which is quicker to look up, from the first time on that many users are asked about."""
        for reach, table in self.followers.items() if users >= FEW_USERS else ():
            self.followers[reach] = _dense_if_filled(table) if issparse(table) else table
        return self.followers

    @cached_property
    def calendar(self) -> tuple[int, int, np.ndarray, np.ndarray, np.ndarray]:
        """Start and span of time; all (item, time) as sorted numbers; where each item begins there; sorted times."""
        times = self.train.timestamps - self.train.timestamps.min()
        span = int(times.max()) + 1
        order = np.sort(self.train.matrix.indices.astype(np.int64) * span + times)
        begins = row_starts(self.train.matrix.indices, self.train.n_items)
        return int(self.train.timestamps.min()), span, order, begins, np.sort(times)


def _row_means(matrix: csr_matrix) -> np.ndarray:
    """Mean of the stored entries of each row, (n,); 0 of an empty one."""
    return np.asarray(matrix.sum(axis=1)).ravel() / np.maximum(np.diff(matrix.indptr), 1)


def _shares(histories: Histories, half_life: float) -> csr_matrix:
    """Weights of the items of each history, the last ones most, adding up to 1."""
    weights, rows, matrix = np.exp2(-histories.steps_back() / half_life), histories.row_of_entry, histories.matrix
    totals = np.bincount(rows, weights, minlength=matrix.shape[0])
    return with_values(matrix, weights / totals[rows])


def _dense_if_filled(table: csr_matrix) -> np.ndarray | csr_matrix:
    """The table as it is, or dense, which is quicker to look up, where that takes at most eight times the memory."""
    return table.toarray() if 16 * table.nnz > table.shape[0] * table.shape[1] else table


def _cells(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The cells where some rows and columns cross, (rows, columns)."""
    return table.ravel().take(rows[:, None] * table.shape[1] + columns)


def _at(table: np.ndarray | csr_matrix, codes: np.ndarray) -> np.ndarray:
    return np.take_along_axis(table.toarray() if issparse(table) else np.asarray(table), codes, axis=1)
