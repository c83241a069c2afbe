"""A second look at the best of a blend, with what the models do not see: popularity, mean rating, age."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.interactions import Histories, Interactions
from recsys_lib.models.base import Recommender
from recsys_lib.models.blend import Blend, best_unseen, hold_back, labels_at, listwise_fit, search_weights, standardised
from recsys_lib.models.popularity import DAY

SHRINKAGE = 5.0  # made-up ratings at the overall mean, in the mean rating of an item


class Reranker(Blend):
    """Order the ``depth`` best of a blend anew by a linear model of richer features.

    Features of a person and an item: each model's z-score z and ``log(1 + max(0, z + 1))``, which lets a high score
    count for less than in proportion; the item's log count and shrunk mean rating, and their squares; where there
    are timestamps, how long before the person's last interaction the item was first, in the middle and last watched
    (signed logs of days), and whether it was watched at all before, lately, or since.

    The coefficients are learnt as the weights of a :class:`Blend` are: from parts of the histories held back, by
    :func:`recsys_lib.models.blend.listwise_fit`. Items beyond ``depth`` follow in the order of the blend.

    Parameters
    ----------
    depth
        How many are ordered anew.
    penalty
        On the squares of the coefficients of the features, each scaled to standard deviation 1.

    Notes
    -----
    Ages come from everybody's interactions in ``train``: on a split that cuts each person's own history they know
    when others will watch an item, as every model of co-occurrence does there.
    """

    def __init__(
        self,
        models: Mapping[str, Recommender] | None = None,
        *,
        weights: Mapping[str, float] | None = None,
        holdout: str = "recent",
        share: float = 0.25,
        relevant_from: float = 4.0,
        depth: int = 150,
        penalty: float = 0.01,
    ) -> None:
        super().__init__(models, weights=weights, holdout=holdout, share=share, relevant_from=relevant_from)
        self.depth = depth
        self.penalty = penalty

    def _learn(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        histories, scores, relevant = self._rehearse(train, items, users)
        weights = self.weights or search_weights(scores, relevant, histories.matrix)
        self.weights_ = np.array([weights.get(name, 1.0) for name in self.models])
        seen = histories.matrix
        z = np.stack([standardised(table, seen)[0] for table in scores.values()])
        codes, there = best_unseen(np.tensordot(self.weights_.astype(np.float32), z, 1), seen, self.depth)
        earlier, _ = hold_back(train, self.share, self.holdout, self.relevant_from)
        features = self._features(z, codes, histories, item_facts(earlier))
        self.mean_ = features[there].mean(axis=0)
        spread = features[there].std(axis=0)
        self.scale_ = np.where(spread > 1e-6, spread, 1).astype(np.float32)
        features = (features - self.mean_) / self.scale_
        self.coefficients_ = listwise_fit(features, labels_at(relevant, codes), there, penalty=self.penalty)

    def _features(
        self, z: np.ndarray, codes: np.ndarray, histories: Histories, facts: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Features of the items ``codes`` of each person, (n, depth, n_features) float32."""
        own = np.stack([np.take_along_axis(table, codes, axis=1) for table in z], axis=-1)
        columns = [own, np.log1p(np.maximum(own + 1, 0)), facts["fixed"][codes]]
        if "first" in facts and histories.timestamps is not None:
            last = np.zeros(len(codes))
            filled = np.diff(histories.matrix.indptr) > 0
            if filled.any():
                last[filled] = np.maximum.reduceat(histories.timestamps, histories.matrix.indptr[:-1][filled])
            days = np.stack([(last[:, None] - facts[name][codes]) / DAY for name in ("first", "middle", "latest")], -1)
            flags = np.stack([days[..., 0] < 0, days[..., 0] < 30, days[..., 2] < 0], axis=-1)
            columns += [np.sign(days) * np.log1p(np.abs(days)), flags]
        elif "first" in facts:
            columns.append(np.zeros((*codes.shape, 6)))
        return np.concatenate(columns, axis=-1).astype(np.float32)

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        seen = histories.matrix
        z = np.stack([standardised(part.score(histories, users), seen)[0] for part in self.models.values()])
        blended = np.tensordot(self.weights_.astype(np.float32), z, 1)
        codes, there = best_unseen(blended, seen, self.depth)
        features = (self._features(z, codes, histories, item_facts(self.train)) - self.mean_) / self.scale_
        new = np.where(there, features @ self.coefficients_.astype(np.float32), np.nan)
        low, border = (np.nanmin(table, axis=1, initial=np.inf) for table in (new, self._at(blended, codes, there)))
        scores = blended - (border - low)[:, None] - 1
        rows, places = np.nonzero(there)
        scores[rows, codes[rows, places]] = new[rows, places]
        scores[np.diff(seen.indptr) == 0] = np.nan
        return scores

    def _at(self, table: np.ndarray, codes: np.ndarray, there: np.ndarray) -> np.ndarray:
        return np.where(there, np.take_along_axis(table, codes, axis=1), np.nan)

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        # The slope of the score in each model's own score, times what each film of the history adds to that.
        users, parts = None if user is None else np.array([user]), np.zeros(history.matrix.nnz)
        slopes = self.coefficients_ / self.scale_
        n = len(self.models)
        for place, part in enumerate(self.models.values()):
            z, _, spread = standardised(part.score(history, users), history.matrix)
            own = float(z[0, item])
            slope = slopes[place] + (slopes[n + place] / (own + 2) if own > -1 else 0)
            parts += slope / spread[0] * part._contributions(history, item, user)
        return parts


def item_facts(train: Interactions) -> dict[str, np.ndarray]:
    """What is known of each item: ``fixed``, (n_items, 4), and its first, mean and latest time, (n_items,) seconds."""
    columns, count = train.matrix.indices, train.item_counts.astype(np.float64)
    total = np.bincount(columns, train.matrix.data, minlength=train.n_items)
    mean = (total + SHRINKAGE * train.matrix.data.mean()) / (count + SHRINKAGE)
    popularity = np.log1p(count)
    facts = {"fixed": np.stack([popularity, popularity**2, mean, mean**2], axis=1)}
    if train.timestamps is not None:
        when = train.timestamps.astype(np.float64)
        first, latest = np.full(train.n_items, when.max()), np.full(train.n_items, when.min())
        np.minimum.at(first, columns, when)
        np.maximum.at(latest, columns, when)
        middle = np.bincount(columns, when - when.min(), minlength=train.n_items) / np.maximum(count, 1) + when.min()
        facts |= {"first": first, "middle": middle, "latest": latest}
    return facts
