"""Features of candidates, which the re-ranker reads beside the scores of models, and 02 shows and checks."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import ClassVar
from weakref import WeakValueDictionary

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, diags_array

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.popularity import DAY
from recsys_lib.models.weights import confidence

YEAR = 365.25 * DAY
SHRINKAGE = 5.0  # made-up ratings at the overall mean, in the mean rating of an item
LONG_AGO = 5000.0  # days since an item was last met, where nobody had met it by then
WHOLE = 1e9  # half-life of a history that forgets nothing


class CandidateFeatures:
    """Features of users' candidate items from interactions and, where they are known, years and genres.

    - the item: log count, shrunk mean rating, year;
    - the user: log length of the history, mean rating, logs of the time since the first and the sixth last
      interaction;
    - taste: how far year, popularity and genres are from those of the last few films, and of all;
    - similarity: cosine with the films rated high, those rated low, and the last ones; ratings above the user's mean,
      weighed by it; how often the item *followed* the last films in other users' histories;
    - the moment: the item's age, and how many rated it in the month, half a year, two years and all the time before the
      user's last interaction. What others did later does not count here.

    Without timestamps there is no moment, and nothing follows anything.

    Parameters
    ----------
    train
        What models were fitted on.
    years : ndarray, (n_items,) float32, optional
        Of release; NaN where unknown.
    genres : ndarray, (n_items, n_genres), optional
        Zeros and ones.
    relevant_from
        Ratings from here on are high, those more than 1 below are low.
    """

    def __init__(
        self,
        train: Interactions,
        years: np.ndarray | None = None,
        genres: np.ndarray | None = None,
        *,
        relevant_from: float = 4.0,
    ) -> None:
        self.train = train
        self._known = _Known.of(train)
        self.relevant_from = relevant_from
        known = years is not None and np.isfinite(years).any()
        self.years = np.where(np.isfinite(years), years, np.nanmedian(years)) if known else None
        self.genres = None
        if genres is not None:
            self.genres = genres / np.maximum(np.linalg.norm(genres, axis=1, keepdims=True), 1e-12)

    def features(self, histories: Histories, codes: np.ndarray) -> np.ndarray:
        """Features of the items ``codes``, (n, depth), for each user: (n, depth, n_features) float32."""
        columns = [*self._items(codes), *self._users(histories), *self._tastes(histories, codes)]
        columns += self._similarity(histories, codes)
        if self.train.timestamps is not None:
            columns += [*self._moment(histories, codes), *self._following(histories, codes)]
        return np.stack([np.broadcast_to(column, codes.shape) for column in columns], axis=-1).astype(np.float32)

    def names(self) -> list[str]:
        """Names of the features, in their order."""
        timed, dated = self.train.timestamps is not None, self.years is not None
        names = ["item: log(1 + ratings)", "item: shrunk mean rating", *["item: year"] * dated]
        names += ["user: log(1 + ratings)", "user: mean rating"]
        names += ["user: log(1 + days since the first)", "user: log(1 + seconds since the sixth last)"] * timed
        names += [
            "year: distance to the last 3",
            "year: distance to the last 10",
            "year: minus the mean of all",
        ] * dated
        names += ["popularity: minus the mean of the last 10"]
        names += ["genres: cosine with the last 3", "genres: cosine with all"] * (self.genres is not None)
        names += [f"similarity: with the items rated {which}" for which in ("high", "low", "last")]
        names += ["similarity: ratings above the mean, weighted"]
        if timed:
            names += ["moment: ratings until now", "moment: ratings in 30 days", "moment: ratings in 180 days"]
            names += ["moment: share of all in 180 days", "moment: ratings in 730 days", "moment: days since the last"]
            names += ["moment: age in years"] * dated
            names += ["sequence: followed the last within 20", "sequence: followed the last within 3"]
        return names

    def table(self, histories: Histories, codes: np.ndarray) -> pd.DataFrame:
        """Features by name, a row a candidate of each user in turn, (n * depth, n_features)."""
        values = self.features(histories, codes)
        return pd.DataFrame(values.reshape(-1, values.shape[-1]), columns=self.names())

    # ---- groups of features, each (n, depth) or (n, 1) ---------------------------------------------------------

    def _items(self, codes: np.ndarray) -> list[np.ndarray]:
        data, counts = self.train.matrix.data, self.train.item_counts
        totals = np.bincount(self.train.matrix.indices, data, minlength=self.train.n_items)
        mean = (totals + SHRINKAGE * data.mean()) / (counts + SHRINKAGE)
        return [table[codes] for table in (np.log1p(counts), mean, *([] if self.years is None else [self.years]))]

    def _users(self, histories: Histories) -> list[np.ndarray]:
        columns = [np.log1p(np.diff(histories.matrix.indptr)), _row_means(histories.matrix)]
        if self.train.timestamps is not None:
            here, lately = _since(histories, self._now(histories))
            columns += [np.log1p(here / DAY), np.log1p(lately)]
        return [column[:, None] for column in columns]

    def _tastes(self, histories: Histories, codes: np.ndarray) -> list[np.ndarray]:
        columns = []
        short, middle, long = (_shares(histories, half_life) for half_life in (3, 10, WHOLE))
        if self.years is not None:
            for shares in (short, middle):
                mean = shares @ self.years
                spread = np.sqrt(np.maximum(shares @ np.square(self.years) - np.square(mean), 0))
                columns.append(np.abs(self.years[codes] - mean[:, None]) / (spread[:, None] + 2))
            columns.append(self.years[codes] - (long @ self.years)[:, None])
        popularity = np.log1p(self.train.item_counts)
        columns.append(popularity[codes] - (middle @ popularity)[:, None])
        if self.genres is not None:
            columns += [_at((shares @ self.genres) @ self.genres.T, codes) for shares in (short, long)]
        return columns

    def _similarity(self, histories: Histories, codes: np.ndarray) -> list[np.ndarray]:
        matrix = histories.matrix
        high = confidence(histories, self.train, positive_from=self.relevant_from, low_weight=0.5).data == 1
        low, last = matrix.data < self.relevant_from - 1, histories.steps_back() < 3
        above = matrix.data - _row_means(matrix)[histories.row_of_entry]
        weights = np.stack([high, low, last, above, np.ones(matrix.nnz)]).astype(np.float32)  # (5, nnz)
        sums = np.zeros((len(weights), *codes.shape), np.float32)
        for row, (start, stop) in enumerate(pairwise(matrix.indptr)):  # each user has other candidates
            cosines = self._known.cosines[matrix.indices[start:stop]][:, codes[row]]  # (history, depth)
            sums[:, row] = weights[:, start:stop] @ cosines
        return [*sums[:3], sums[3] / (sums[4] + 0.5)]

    def _moment(self, histories: Histories, codes: np.ndarray) -> list[np.ndarray]:
        start, span, order, begins, times = self._known.calendar
        now = np.clip(self._now(histories) - start, 0, span - 1).astype(np.int64)[:, None]
        before = np.searchsorted(order, codes * span + now) - begins[codes]
        columns = [np.log1p(before)]
        for days in (30, 180, 730):
            then = np.maximum(now - int(days * DAY), 0)
            met = before + begins[codes] - np.searchsorted(order, codes * span + then)
            columns.append(np.log1p(met))
            if days == 180:
                everything = np.searchsorted(times, now) - np.searchsorted(times, then)
                columns.append(np.log1p(1e4 * met / np.maximum(everything, 1)))
        previous = order[np.maximum(before + begins[codes] - 1, 0)] - codes * span
        columns.append(np.log1p(np.where(before > 0, (now - previous) / DAY, LONG_AGO)))
        if self.years is not None:
            columns.append(1970 + (now + start) / YEAR - self.years[codes])
        return columns

    def _following(self, histories: Histories, codes: np.ndarray) -> list[np.ndarray]:
        columns = []
        for table, half_life in zip(self._known.followers, (3, 1), strict=True):
            weights = np.exp2(-histories.steps_back() / half_life)
            lately = _like(histories.matrix, np.where(weights > 1e-2, weights, 0))
            columns.append(_at((lately @ table).toarray(), codes))
        return columns

    # ---- what they are made of -----------------------------------------------------------------------------------

    def _now(self, histories: Histories) -> np.ndarray:
        """Last moment of each history, (n,) seconds; the end of what is known where there is none."""
        last = np.full(histories.matrix.shape[0], float(self.train.timestamps.max()))
        filled = np.diff(histories.matrix.indptr) > 0
        if histories.timestamps is not None and filled.any():
            last[filled] = np.maximum.reduceat(histories.timestamps, histories.matrix.indptr[:-1][filled])
        return last


class _Known:
    """What interactions alone decide: one for the same interactions, in whichever models they stand."""

    _made: ClassVar[WeakValueDictionary[int, _Known]] = WeakValueDictionary()  # by the identity of the interactions

    def __init__(self, train: Interactions) -> None:
        self.train = train  # kept alive, so that nothing else can have its identity

    @classmethod
    def of(cls, train: Interactions) -> _Known:
        """What is made already for these interactions, or something new."""
        return cls._made.setdefault(id(train), cls(train))

    @cached_property
    def cosines(self) -> np.ndarray | csr_matrix:
        """Shrunk cosines between items by who had them, (n_items, n_items) float32; dense where that is smaller."""
        matrix, scale = self.train.matrix, diags_array(1 / np.sqrt(self.train.item_counts + SHRINKAGE))
        users = (csr_matrix((np.ones(matrix.nnz, np.float32), *_places(matrix)), matrix.shape) @ scale).tocsr()
        cosines = (users.T @ users).tocsr().astype(np.float32)
        return cosines.toarray() if 2 * cosines.nnz > matrix.shape[1] ** 2 else cosines

    @cached_property
    def followers(self) -> list[csr_matrix]:
        """How often an item (column) followed another (row), over the root of both counts: among 20 films, among 3."""
        train = self.train
        rows, scale = train.row_of_entry, diags_array(1 / np.sqrt(train.item_counts + 3))
        order = np.lexsort((train.matrix.indices, train.timestamps, rows))
        rows, items = rows[order], train.matrix.indices[order]
        tables = []
        for reach, power in ((20, 0.5), (3, 0.0)):
            counts = csr_matrix((train.n_items, train.n_items), dtype=np.float32)
            for apart in range(1, reach + 1):  # one after the other: all pairs at once take twenty times the memory
                same = np.flatnonzero(rows[apart:] == rows[:-apart])
                weights = np.full(len(same), apart**-power, np.float32)
                counts = counts + csr_matrix((weights, (items[same], items[same + apart])), shape=counts.shape)
            tables.append((scale @ counts @ scale).tocsr().astype(np.float32))
        return tables

    @cached_property
    def calendar(self) -> tuple[int, int, np.ndarray, np.ndarray, np.ndarray]:
        """Start and span of time; all (item, time) as sorted numbers; where each item begins there; sorted times."""
        times = self.train.timestamps - self.train.timestamps.min()
        span = int(times.max()) + 1
        order = np.sort(self.train.matrix.indices.astype(np.int64) * span + times)
        begins = np.concatenate([[0], np.cumsum(self.train.item_counts.astype(np.int64))])
        return int(self.train.timestamps.min()), span, order, begins, np.sort(times)


def years_of(items: pd.DataFrame | None, train: Interactions) -> np.ndarray:
    """Year of release of each column, (n_items,) float32; NaN where it is not known."""
    if items is None or "year" not in items:
        return np.full(train.n_items, np.nan, dtype=np.float32)
    return items.set_index("item_id")["year"].reindex(train.item_ids).to_numpy(np.float32, na_value=np.nan)


def _places(matrix: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    return matrix.indices, matrix.indptr


def _like(matrix: csr_matrix, data: np.ndarray) -> csr_matrix:
    """Other values at the same places, those that are not zero."""
    made = csr_matrix((np.asarray(data, dtype=np.float32), *_places(matrix)), shape=matrix.shape, copy=True)
    made.eliminate_zeros()
    return made


def _row_means(matrix: csr_matrix) -> np.ndarray:
    """Mean of the stored entries of each row, (n,); 0 of an empty one."""
    return np.asarray(matrix.sum(axis=1)).ravel() / np.maximum(np.diff(matrix.indptr), 1)


def _shares(histories: Histories, half_life: float) -> csr_matrix:
    """Weights of the films of each history, the last ones most, adding up to 1."""
    weights = np.exp2(-histories.steps_back() / half_life)
    totals = np.bincount(histories.row_of_entry, weights, minlength=histories.matrix.shape[0])
    return csr_matrix((weights / totals[histories.row_of_entry], *_places(histories.matrix)), histories.matrix.shape)


def _since(histories: Histories, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds from the first interaction and from the sixth last (the first, if there are fewer) to now, (n,) each."""
    first = now.copy()
    if histories.timestamps is not None:
        np.minimum.at(first, histories.row_of_entry, histories.timestamps)
    sixth = first.copy()
    if histories.timestamps is not None:
        older = histories.steps_back() >= 5
        np.maximum.at(sixth, histories.row_of_entry[older], histories.timestamps[older])
    return now - first, now - sixth


def _at(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return np.take_along_axis(np.asarray(table), codes, axis=1)
