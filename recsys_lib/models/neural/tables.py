"""What ratings say of people and films: sums over histories from which one pair's own rating can be taken out.

Everything here is leave-one-out: the features of a training pair hold nothing of its own rating. A person's history is
measured against the films' shrunk means, a film's against the people's; a full residual (minus both) would carry the
target, because each mean holds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

SHRINKAGE = 5.0  # ratings' worth of prior


def shrunk_means(codes: np.ndarray, values: np.ndarray, size: int, mean: float) -> np.ndarray:
    """Mean of each group, pulled towards ``mean`` as if by 5 ratings of that value, (size,) float64.

    >>> shrunk_means(np.array([0, 0, 1]), np.array([5.0, 5.0, 3.0]), 3, 3.0).round(3)
    array([3.571, 3.   , 3.   ])
    """
    total = np.bincount(codes, values - mean, minlength=size)
    return mean + total / (np.bincount(codes, minlength=size) + SHRINKAGE)


@dataclass(frozen=True)
class Side:
    """Histories of one side (people, or films), entry by entry.

    Attributes
    ----------
    rows : ndarray of int64, (nnz,)
        Whose entry it is.
    gaps : ndarray of float64, (nnz,)
        Rating minus the shrunk mean of the *other* side.
    ratings : ndarray of float64, (nnz,)
        Rating minus the mean of all.
    size
        Number of people (or films).
    timestamps
        Seconds, (nnz,), or None.
    spread
        Typical spread of the gaps, where a row has none of its own.
    windows
        Entries on either side in time that make up "around then"; a feature each.
    spans
        Seconds on either side in time within which entries count as given together; a feature each.
    """

    rows: np.ndarray
    gaps: np.ndarray
    ratings: np.ndarray
    size: int
    timestamps: np.ndarray | None
    spread: float
    windows: tuple[int, ...]
    spans: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        sums = {
            "count": np.bincount(self.rows, minlength=self.size).astype(np.float64),
            "gap": np.bincount(self.rows, self.gaps, minlength=self.size),
            "square": np.bincount(self.rows, self.gaps**2, minlength=self.size),
            "rating": np.bincount(self.rows, self.ratings, minlength=self.size),
        }
        object.__setattr__(self, "sums", sums)
        if self.timestamps is not None:
            order = np.lexsort((self.timestamps, self.rows))
            place = np.empty(len(order), np.int64)
            place[order] = np.arange(len(order))
            object.__setattr__(self, "place", place)
            object.__setattr__(self, "running", np.concatenate([[0.0], np.cumsum(self.gaps[order])]))
            object.__setattr__(self, "bounds", np.concatenate([[0], np.cumsum(sums["count"])]).astype(np.int64))
            object.__setattr__(self, "sorted_times", self.timestamps[order])

    def names(self) -> list[str]:
        """Names of the features, in their order."""
        names = ["mean against expectation", "mean rating", "spread", "number of ratings"]
        if self.timestamps is not None:
            names += [f"{2 * window} ratings around then" for window in self.windows]
            names += [f"ratings within {span} s" if span else "ratings of the same second" for span in self.spans]
        return names

    def features(self, rows: np.ndarray, when: np.ndarray | None, own: np.ndarray | None) -> np.ndarray:
        """Features of these rows, without the entries ``own``, (n, f) float32: see :meth:`names`."""
        gap, rating, one = (0.0, 0.0, 0.0) if own is None else (self.gaps[own], self.ratings[own], 1.0)
        count = np.maximum(self.sums["count"][rows] - one, 0)
        total = self.sums["gap"][rows] - gap
        square = np.maximum(self.sums["square"][rows] - np.square(gap), 0)
        prior = SHRINKAGE * self.spread**2
        mean = total / (count + SHRINKAGE)
        spread = np.sqrt(np.maximum((square + prior) / (count + SHRINKAGE) - np.square(mean), 1e-4)) - self.spread
        columns = [mean, (self.sums["rating"][rows] - rating) / (count + SHRINKAGE), spread, np.log1p(count) / 4]
        if self.timestamps is not None:
            columns += [self._around(rows, when, own, window) - mean for window in self.windows]
            columns += [self._within(rows, when, own, span, mean) for span in self.spans]
        return np.stack(columns, axis=1).astype(np.float32) * (count > 0)[:, None]

    def _around(self, rows: np.ndarray, when: np.ndarray | None, own: np.ndarray | None, window: int) -> np.ndarray:
        """Shrunk mean gap of the entries nearest in time, (n,); the last ones where ``when`` is None."""
        low, high = self.bounds[rows], self.bounds[rows + 1]
        if own is not None:
            middle, gap, one = self.place[own], self.gaps[own], 1
        else:
            middle, gap, one = (high if when is None else self._places(rows, when)), 0.0, 0
        start, stop = np.maximum(low, middle - window), np.minimum(high, middle + window + one)
        total = self.running[stop] - self.running[start] - gap
        return total / (stop - start - one + 2.0)

    def _within(
        self, rows: np.ndarray, when: np.ndarray | None, own: np.ndarray | None, span: int, mean: np.ndarray
    ) -> np.ndarray:
        """Shrunk mean of the gaps of entries at most ``span`` seconds away, minus the row's ``mean``, (n,)."""
        if own is None and when is None:
            return np.zeros(len(rows))
        when, gap, one = (when, 0.0, 0) if own is None else (self.timestamps[own], self.gaps[own], 1)
        start, stop = self._place(rows, when - span, "left"), self._place(rows, when + span, "right")
        count = stop - start - one
        return (self.running[stop] - self.running[start] - gap - count * mean) / (count + 2.0)

    def _places(self, rows: np.ndarray, when: np.ndarray) -> np.ndarray:
        """Where in its row's order of time each moment falls, (n,); the middle of equal times."""
        return (self._place(rows, when, "left") + self._place(rows, when, "right")) // 2

    def _place(self, rows: np.ndarray, when: np.ndarray, side: str) -> np.ndarray:
        """How many entries are before (side "left") or not after ("right") each moment, those of all rows before."""
        earliest = self.sorted_times.min()
        width = int(self.sorted_times.max() - earliest) + 3
        keys = np.repeat(np.arange(self.size), np.diff(self.bounds)) * width + (self.sorted_times - earliest) + 1
        return np.searchsorted(keys, rows * width + np.clip(when - earliest + 1, 0, width - 1), side=side)


@dataclass(frozen=True)
class Affinity:
    """How people rate kinds of films (genres, decades), as sums that one pair can be taken out of.

    Attributes
    ----------
    flags : ndarray, (n_items, kinds) float32
        Zeros and ones.
    total, count : ndarray, (n_users, kinds)
        Sum of gaps and number of entries of each kind.
    """

    flags: np.ndarray
    total: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, matrix: csr_matrix, gaps: np.ndarray, flags: np.ndarray) -> Affinity:
        """Sum the gaps of each row of ``matrix`` by the kinds of its films."""
        total = csr_matrix((gaps, matrix.indices, matrix.indptr), shape=matrix.shape) @ flags
        count = csr_matrix((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape) @ flags
        return cls(flags, total, count)

    def deviations(self, mean: np.ndarray) -> np.ndarray:
        """Shrunk mean gap of each person with each kind, minus the person's own, (n_users, kinds)."""
        return (self.total + SHRINKAGE * mean[:, None]) / (self.count + SHRINKAGE) - mean[:, None]

    def of_pairs(self, rows: np.ndarray, columns: np.ndarray, gap: np.ndarray | float, mean: np.ndarray) -> np.ndarray:
        """Mean over the film's kinds of the person's shrunk deviation there, without the pair itself, (n,) float32.

        ``gap`` is the pair's own gap, or 0.0 where it is no part of the history; ``mean`` the person's shrunk gap.
        """
        flags = self.flags[columns]
        one = 0.0 if np.isscalar(gap) else 1.0
        gap = gap if np.isscalar(gap) else gap[:, None]
        total = self.total[rows] - gap * flags + SHRINKAGE * mean[:, None]
        deviation = total / (self.count[rows] - one * flags + SHRINKAGE) - mean[:, None]
        return ((deviation * flags).sum(axis=1) / np.maximum(flags.sum(axis=1), 1)).astype(np.float32)
