"""Popularity in several senses, and popularity mixed with the genres that a user watches."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.base import Recommender
from recsys_lib.models.weights import Weighted, last_times

DAY = 86_400  # seconds
KINDS = ("count", "sum", "mean", "decayed", "recent")


class Popularity(Recommender):
    """One list for all users, those with an empty history among them.

    Popular is, by ``kind``,

    - ``count``: how many users rated the item; ``sum``: the sum of its ratings;
    - ``mean``: its mean rating, with as many made-up ratings at the mean of all as ``shrinkage`` says: the "true
      Bayesian estimate" that IMDb published for its Top 250;
    - ``decayed``: the count, each interaction weighing ``2 ** (-age in days / half_life_days)``; ``recent``: the count
      of the last ``recent_days``, ties in the order of the whole count. Both go back from the last interaction, and
      need timestamps.
    """

    updatable = True
    kind: str = "count"
    half_life_days: float = 30.0
    recent_days: float = 14.0
    shrinkage: float = 20.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        if self.kind in ("decayed", "recent") and train.seconds is None:
            raise ValueError(f"Popularity(kind={self.kind!r}) needs timestamps, and the interactions have none")
        ratings, total = train.matrix.data, partial(np.bincount, train.matrix.indices, minlength=train.n_items)
        count = total().astype(np.float64)
        if self.kind == "count":
            scores = count
        elif self.kind == "sum":
            scores = total(ratings)
        elif self.kind == "mean":
            scores = (total(ratings) + self.shrinkage * ratings.mean()) / (count + self.shrinkage)
        else:
            age = (train.timestamps.max() - train.timestamps) / DAY
            recent = self.kind == "recent"
            scores = total(age <= self.recent_days if recent else np.exp2(-age / self.half_life_days))
            scores = scores + recent * count / (count.max() + 1)
        self.scores_ = scores.astype(np.float32)

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        return np.tile(self.scores_, (histories.matrix.shape[0], 1))


class Trending(Recommender):
    """Popularity around the moment when the user was last here.

    ``score(u, i)`` sums the interactions of the item over the time before the user's last one, each weighing
    ``2 ** (-age in days / half_life_days)``, plus ``floor`` times the item's share of the whole count, for what had no
    ratings lately. Only the past of that moment counts, in bins of ``bin_days``. A history without times (or of a new
    user) is taken to end now: with the last interaction known.
    """

    updatable = True
    half_life_days: float = 30.0
    bin_days: float = 3.0
    floor: float = 1.0

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        if train.seconds is None:
            raise ValueError("Trending needs timestamps, and the interactions have none")
        bins = self._bins(train.timestamps)
        shape = (int(bins.max()) + 1, train.n_items)
        ones = np.ones(len(bins), dtype=np.float32)
        self.counts_ = csr_matrix((ones, (bins, train.matrix.indices)), shape=shape)
        self.share_ = train.item_counts / train.item_counts.max()

    def _bins(self, timestamps: np.ndarray) -> np.ndarray:
        return ((timestamps - self.train.timestamps.min()) // int(self.bin_days * DAY)).astype(np.int64)

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        age = self._bins(last_times(histories, self.train))[:, None] - np.arange(self.counts_.shape[0])
        decay = np.exp2(-age * (self.bin_days / self.half_life_days))
        kernel = np.where(age >= 0, decay, 0).astype(np.float32)
        return (self.counts_.T @ kernel.T).T + self.floor * self.share_


class GenrePopularity(Weighted):
    """Popularity mixed with how well an item's genres fit what the user watched.

    ``score = popularity_weight * popularity + genre_weight * affinity``. Popularity is the item's share of the most
    popular item's count, in 0..1. Affinity is the mean, over the user's history, of the cosine between the genres of
    the item and those of each item watched, in 0..1; ratings count as in :func:`recsys_lib.models.weights.confidence`.

    Items without a genre have affinity 0, and so has everything for a user without a history: popularity answers.
    """

    updatable = True
    popularity_weight: float = 0.6
    genre_weight: float = 0.4

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        if self.genres is None:
            raise ValueError("GenrePopularity needs genres, and no item has one: fit(..., items=items), with 'genres'")
        genres = self.genres.astype(np.float32)
        norms = np.linalg.norm(genres, axis=1, keepdims=True)
        self.genres_ = np.divide(genres, norms, out=np.zeros_like(genres), where=norms > 0)
        self.popularity_ = (self.train.item_counts / self.train.item_counts.max()).astype(np.float32)

    def _profile_weights(self, histories: Histories) -> csr_matrix:
        """Weights of the items watched, adding up to 1 in each row that has any."""
        weights = self._weights(histories)
        totals = np.asarray(weights.sum(axis=1)).ravel()
        weights.data /= np.repeat(totals, np.diff(weights.indptr))
        return weights

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        affinity = (self._profile_weights(histories) @ self.genres_) @ self.genres_.T
        return self.popularity_weight * self.popularity_ + self.genre_weight * affinity

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        weights = self._profile_weights(history).toarray()[0]
        return (self.genre_weight * weights * (self.genres_ @ self.genres_[item]))[history.matrix.indices]
