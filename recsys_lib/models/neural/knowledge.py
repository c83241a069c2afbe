"""What the training ratings say, ready to be asked for any pair, person or history: the dense inputs of the hybrid."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions, codes_of
from recsys_lib.models.neural.side import genre_flags, item_features
from recsys_lib.models.neural.tables import Affinity, Side, shrunk_means

USER_WINDOWS, ITEM_WINDOWS = (1, 3, 10), (10, 50)  # entries on either side in time that make up "around then"
USER_SPANS = (0, 60, 600, 3600)  # seconds on either side within which ratings were given together


@dataclass(frozen=True)
class Catalogue:
    """Everybody and everything that gets a vector: ids with ratings and ids that only stand in the tables.

    Attributes
    ----------
    user_ids, item_ids : ndarray
        Ascending.
    kinds : dict of ndarray, (n_items, kinds) float32
        Flags of "genres" and of "decade", where the data has them.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    kinds: dict[str, np.ndarray]

    @classmethod
    def of(cls, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> Catalogue:
        """From the interactions and the tables."""
        user_ids = _with(train.user_ids, users, "user_id")
        item_ids = _with(train.item_ids, items, "item_id")
        features, names = item_features(items, item_ids)
        decades = features[:, [name.startswith("decade") for name in names]]
        found = {"genres": genre_flags(items, item_ids)[0], "decade": decades}
        return cls(user_ids, item_ids, {name: flags for name, flags in found.items() if flags.shape[1]})


def _with(ids: np.ndarray, table: pd.DataFrame | None, column: str) -> np.ndarray:
    """The ids and those of a table, ascending; a table of another type of id adds none."""
    if table is None:
        return ids
    more = table[column].to_numpy()
    more = more.astype(str) if more.dtype.hasobject else more
    return np.union1d(ids, more) if (more.dtype.kind == "U") == (ids.dtype.kind == "U") else ids


@dataclass(frozen=True)
class Grid:
    """Dense features of some people with all films: (n, f1), (n_items, f2) and one (n, n_items) a pair feature."""

    person: np.ndarray
    film: np.ndarray
    pair: list[np.ndarray]


class Knowledge:
    """Sums over the histories of both sides.

    Parameters
    ----------
    train
        The ratings.
    catalogue
        The ids that get a vector.
    without
        Of "time" and "dense features", what is left out to see what it is worth; "leave-one-out" leaves each pair's
        own rating in its features, which is the mistake that this module is there to prevent.

    Attributes
    ----------
    mean
        Mean rating.
    columns : ndarray, (train.n_items,)
        Column of each of ``train.item_ids`` among ``catalogue.item_ids``.
    matrix : csr_matrix, (n_users, n_items) float32
        The ratings, rows and columns as in the catalogue.
    people, films : Side
        Histories of either side.
    """

    def __init__(self, train: Interactions, catalogue: Catalogue, without: Collection[str] = ()) -> None:
        self.catalogue, self.times = catalogue, None if "time" in without else train.timestamps
        self.share = 0.0 if "dense features" in without else 1.0
        self.leaks = "leave-one-out" in without
        self.columns = codes_of(train.item_ids, catalogue.item_ids)
        rows = codes_of(train.user_ids, catalogue.user_ids)[train.row_of_entry]
        columns, ratings = self.columns[train.matrix.indices], train.matrix.data.astype(np.float64)
        shape = (len(catalogue.user_ids), len(catalogue.item_ids))
        self.mean = float(ratings.mean())
        self.item_means = shrunk_means(columns, ratings, shape[1], self.mean)
        self.spread = float(np.std(ratings - self.item_means[columns]))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))]).astype(np.int32)
        self.matrix = csr_matrix((train.matrix.data, columns.astype(np.int32), indptr), shape=shape)
        self.people = self.side(self.matrix, self.times)
        gaps = ratings - shrunk_means(rows, ratings, shape[0], self.mean)[rows]
        self.films = Side(columns, gaps, ratings - self.mean, shape[1], self.times, float(np.std(gaps)), ITEM_WINDOWS)
        self.tastes = self._affinities(self.matrix, self.people.gaps)

    def side(self, matrix: csr_matrix, times: np.ndarray | None) -> Side:
        """People as rows of a matrix whose columns are the catalogue's."""
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        ratings = matrix.data.astype(np.float64)
        gaps = ratings - self.item_means[matrix.indices]
        return Side(rows, gaps, ratings - self.mean, matrix.shape[0], times, self.spread, USER_WINDOWS, USER_SPANS)

    def _affinities(self, matrix: csr_matrix, gaps: np.ndarray) -> list[Affinity]:
        return [Affinity.of(matrix, gaps, flags) for flags in self.catalogue.kinds.values()]

    def names(self) -> list[str]:
        """Names of the dense features: the person's, the film's, the pair's."""
        person = [f"person: {name}" for name in self.people.names()]
        film = [f"film: {name}" for name in self.films.names()]
        return [*person, "time", *film, *(f"person and film: {name}" for name in self.catalogue.kinds)]

    def blocks(self) -> tuple[int, int, int]:
        """How many dense features belong to the person, to the film, to the pair."""
        return len(self.people.names()) + 1, len(self.films.names()), len(self.catalogue.kinds)

    def _time(self, when: np.ndarray) -> np.ndarray:
        """Time of a rating, about -0.5 to 0.5, (n,) float32; little beyond what was seen in training."""
        middle, width = float(self.times.mean()), float(np.ptp(self.times)) or 1.0
        return np.clip((when - middle) / width, -0.7, 0.7).astype(np.float32)

    def training(self) -> dict[str, np.ndarray]:
        """The training pairs, each without its own rating: users, items, user_gaps, item_gaps, dense, target."""
        own = None if self.leaks else np.arange(self.matrix.nnz)
        return {
            "users": self.people.rows,
            "items": self.films.rows,
            "user_gaps": self.people.gaps.astype(np.float32),
            "item_gaps": self.films.gaps.astype(np.float32),
            "dense": self._dense(self.people.rows, self.films.rows, self.times, own),
            "target": (self.matrix.data - self.mean).astype(np.float32),
        }

    def _dense(
        self, users: np.ndarray, items: np.ndarray, when: np.ndarray | None, own: np.ndarray | None
    ) -> np.ndarray:
        """Dense features of pairs of codes, (n, f) float32; ``own`` are their entries, to be left out."""
        moment = np.zeros(len(users), np.float32)
        if self.times is not None:
            moment = self._time(np.full(len(users), self.times.max()) if when is None else when)
        person = self.people.features(users, when, own)
        film = self.films.features(items, when, own)
        gap = 0.0 if own is None else self.people.gaps[own]
        pair = [taste.of_pairs(users, items, gap, person[:, 0])[:, None] for taste in self.tastes]
        return np.concatenate([person, moment[:, None], film, *pair], axis=1) * np.float32(self.share)

    def pairs(self, users: np.ndarray, items: np.ndarray, when: np.ndarray | None) -> np.ndarray:
        """Dense features of pairs that are asked for, (n, f) float32; zeros where a side (code -1, say) is unknown.

        ``when`` are seconds; None means after everything in the training data.
        """
        when = None if self.times is None else when
        dense = self._dense(users, items, when, None)
        first, second, _ = self.blocks()
        person, film = self.rated(users, items)
        dense[~person, :first] = 0
        dense[~film, first : first + second] = 0
        dense[~(person & film), first + second :] = 0
        return dense

    def rated(self, users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each person and each film has ratings, (n,) bool each; code -1 has none."""
        sums = self.people.sums["count"], self.films.sums["count"]
        return tuple((codes >= 0) & (counts[codes] > 0) for codes, counts in zip((users, items), sums, strict=True))

    def widened(self, histories: Histories) -> tuple[csr_matrix, Side]:
        """Histories with the catalogue's columns, and their sums."""
        matrix = histories.matrix
        shape = (matrix.shape[0], len(self.catalogue.item_ids))
        wide = csr_matrix((matrix.data, self.columns[matrix.indices].astype(np.int32), matrix.indptr), shape=shape)
        times = None
        if self.times is not None:
            times = histories.timestamps if histories.timestamps is not None else np.zeros(matrix.nnz, np.int64)
        return wide, self.side(wide, times)

    def grid(self, matrix: csr_matrix, side: Side) -> Grid:
        """Dense features of the people of these histories with all films of the training data, after everything."""
        person = side.features(np.arange(matrix.shape[0]), None, None)
        moment = np.zeros((matrix.shape[0], 1), np.float32)
        if self.times is not None:
            moment[:] = self._time(self.times.max())
        film = self.films.features(self.columns, None, None)
        known = (self.films.sums["count"] > 0)[:, None]
        some = (side.sums["count"] > 0)[:, None]
        pair = []
        for taste in self._affinities(matrix, side.gaps):
            shares = known * taste.flags / np.maximum(taste.flags.sum(axis=1, keepdims=True), 1)
            pair.append((some * taste.deviations(person[:, 0]) @ shares[self.columns].T).astype(np.float32))
        share = np.float32(self.share)
        person = np.concatenate([person, moment], axis=1) * some
        return Grid(person * share, film * share, [values * share for values in pair])
