"""Several models as one: a weighted sum of their scores, on a scale that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions, oldest_first, places_in_rows, row_starts, rows_of
from recsys_lib.models.base import Recommender
from recsys_lib.models.lists import top_k, z_scores
from recsys_lib.models.weights import threshold

MAX_USERS = 2000  # enough to learn a dozen weights from,
MAX_SCORES = 2**24  # and fewer where the catalogue is wide: 64 MB for each model
EQUAL_WEIGHT = 0.35  # weight of each model that learning is drawn to
DEPTH = 100  # items of each user that weights are learnt from
SITTING = 3600  # seconds; a longer pause parts two sittings


@dataclass(frozen=True)
class HeldOut:
    """Scores of models that know only a part of each history, and what of the rest is relevant.

    - ``train``: what the models were fitted on.
    - ``users``, (n,): ids.
    - ``scores``, dict of ndarray, (n, n_items) float32: by the model's name.
    - ``relevant``, (n, n_items): what is relevant among the interactions held out.
    """

    train: Interactions
    users: np.ndarray
    scores: dict[str, np.ndarray]
    relevant: csr_matrix

    @classmethod
    def of(
        cls, models: Mapping[str, Recommender], train: Interactions, relevant: csr_matrix, **tables: pd.DataFrame | None
    ) -> HeldOut:
        """Score up to ``MAX_USERS`` users, chosen at random; models not fitted on ``train`` are fitted first.

        ``relevant`` has the rows and columns of ``train``; ``tables`` are the ``items`` and ``users`` of ``fit``.
        """
        rows = np.flatnonzero(np.diff(relevant.indptr))
        most = max(1, min(MAX_USERS, MAX_SCORES // train.n_items))
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
        histories, ids, scores = train.rows(rows), train.user_ids[rows], {}
        for name, model in models.items():
            if model.train is not train:
                model.fit(train, **tables)
            scores[name] = model.score(histories, ids)
        return cls(train, ids, scores, relevant[rows])

    @cached_property
    def histories(self) -> Histories:
        """The histories of the users as the models know them, (n, n_items)."""
        return self.train.rows(self.train.user_codes(self.users))

    def of_models(self, names: Sequence[str]) -> HeldOut:
        """The same of some of the models."""
        return replace(self, scores={name: self.scores[name] for name in names})


class Blend(Recommender):
    """Weighted sum of the z-scores that each model gives a user's unseen items.

    ``score(u, i) = sum_m weight_m * (s_m(u, i) - mean_m(u)) / sd_m(u)``: mean and standard deviation are taken for
    each user and model over the items that the user has not seen, so that all models have the same scale.

    Weights that are not given are learnt in ``fit``: a part of each history is held out (:func:`hold_out`), fresh
    copies of the models are fitted on the rest, and :func:`search_weights` finds what predicts the part held out. Then
    the models are fitted on everything.

    - ``models``: by name. ``fit`` leaves alone those that are fitted already on the very interactions given.
    - ``weights``: by name; None to learn them.
    - ``holdout`` ("recent" | "random" | "later"): which part of a history is held out: the last one, any, or what came
      in later sittings than the last one kept (see :func:`hold_out`). It should be like what is to be predicted.
    - ``share``: how much of each history is held out.
    - ``folds``: how many times another part is held out to learn from, all models fitted once more for each: with
      "random" another share, with "later" a longer one, ``share`` times 1, 2, ...; with "recent" there is one.
    - ``relevant_from``: ratings from here on are to be predicted ("scale": see :func:`confidence`); ignored where no
      rating reaches it.
    - ``penalty``: how strongly weights that are learnt are drawn to being equal: with few users, what is most probable
      is not what makes the best lists. 0 where one model is far better than the others.

    L. Breiman, "Stacked Regressions", Machine Learning 24, 1996. J. H. Lee, "Analyses of Multiple Evidence
    Combination", SIGIR 1997.
    """

    needs_history = True
    made_of = "models"
    models: Mapping[str, Recommender] | None = field(default=None, kw_only=False)
    weights: Mapping[str, float] | None = None
    holdout: str = "recent"
    share: float = 0.25
    folds: int = 1
    relevant_from: float | str = "scale"
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.holdout not in ("recent", "random", "later"):
            raise ValueError(f"holdout is {self.holdout!r}; it must be 'recent', 'random' or 'later'")
        most = int(1 / self.share + 1e-9) if self.holdout != "recent" else 1
        if not 1 <= self.folds <= most:
            given = f"holdout={self.holdout!r} and a share of {self.share}"
            raise ValueError(f"folds is {self.folds}; with {given} it must be 1 to {most}")
        self.models = dict(self.models or {})
        if self.weights is not None:
            self.weights = {name: float(weight) for name, weight in self.weights.items()}
        self._held_out: list[HeldOut] = []
        self._held_out_of: Interactions | None = None  # what it was made from, unless it was given

    def learning_from(self, held_out: HeldOut) -> Self:
        """Learn the weights from this in ``fit``, rather than hold something out and fit all models again.

        Raises ValueError if it has the scores of other models.
        """
        if list(held_out.scores) != list(self.models):
            raise ValueError(f"these are scores of {', '.join(held_out.scores)}, not of {', '.join(self.models)}")
        self._held_out, self._held_out_of = [held_out], None
        return self

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        if not self.models:
            raise ValueError("Blend needs models: Blend({'als': ALS(), 'ease': EASE()})")
        for name in self.weights or {}:
            if name not in self.models:
                raise ValueError(f"there is no model {name!r} in this blend; its models are {', '.join(self.models)}")
        weights = self.weights
        if weights is None:
            weights = search_weights(self.held_out(train, items=items, users=users), penalty=self.penalty)
        self.weights_ = np.array([weights.get(name, 1.0) for name in self.models])
        for part in self.models.values():
            if part.train is not train:
                part.fit(train, items=items, users=users)

    @property
    def updatable(self) -> bool:
        """Whether all models are; the weights stay."""
        return all(part.updatable for part in self.models.values())

    def _renew(self, train: Interactions) -> None:
        self._set_train(train)
        for part in self.models.values():
            part._renew(train)

    def held_out(self, train: Interactions, **tables: pd.DataFrame | None) -> list[HeldOut]:
        """The data that weights are learnt from: given before, or made once for ``train`` by copies of the models."""
        made = self._held_out_of is not None
        if not self._held_out or (made and self._held_out_of is not train):
            self._held_out, self._held_out_of = [], train
            for fold in range(self.folds):
                kept, relevant = hold_out(train, self.share, self.holdout, self.relevant_from, fold)
                enough = sum(len(part.users) for part in self._held_out) >= MAX_USERS
                if self.holdout == "later" and (enough or not relevant.nnz):
                    continue
                copies = {name: part.fresh() for name, part in self.models.items()}
                self._held_out.append(HeldOut.of(copies, kept, relevant, **tables))
        return self._held_out

    @property
    def learnt_weights(self) -> dict[str, float]:
        """The weights in use, by name, adding up to 1."""
        total = max(float(self.weights_.sum()), 1e-12)
        return dict(zip(self.models, (self.weights_ / total).round(4).tolist(), strict=True))

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        total = np.zeros(histories.matrix.shape, dtype=np.float32)
        for weight, part in zip(self.weights_.astype(np.float32), self.models.values(), strict=True):
            if weight:
                total += weight * z_scores(part.score(histories, users), histories.matrix)[0]
        return total

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        users, parts = None if user is None else np.array([user]), np.zeros(history.matrix.nnz)
        for weight, part in zip(self.weights_.astype(np.float32), self.models.values(), strict=True):
            if weight:
                _, _, spread = z_scores(part.score(history, users), history.matrix)
                parts += weight / spread[0] * part._contributions(history, item, user)
        return parts

    def _similarity(self, codes: np.ndarray) -> np.ndarray:
        return list(self.models.values())[int(np.argmax(self.weights_))]._similarity(codes)


def hold_out(
    train: Interactions, share: float, holdout: str, relevant_from: float | str, fold: int = 0
) -> tuple[Interactions, csr_matrix]:
    """Hold out a share of every history, rounded down, and one item at least of two or more.

    - ``holdout`` ("recent" | "random" | "later"): ``recent`` takes the last entries by time, ties by item; without
      timestamps, and for ``random``, any. ``later`` keeps of these what is in one sitting with the last entry kept: a
      run without a pause longer than an hour.
    - ``fold``: 0 takes the last entries of that order, 1 those before them, and so on: no entry is held out in two
      folds. With ``later`` each fold takes all from there on.

    Returns ``kept``, Interactions: with the same users and items as ``train``. ``relevant``, (n_users, n_items): what
    was held out and rated ``relevant_from`` or more; all that was held out where no rating reaches it.
    """
    rows, lengths = train.row_of_entry, np.diff(train.matrix.indptr)
    if holdout == "later" and train.seconds is None:
        raise ValueError('holdout="later" needs timestamps, and the interactions have none')
    if holdout != "random" and train.timestamps is not None:
        order = oldest_first(train)
    else:
        order = np.lexsort((np.random.default_rng(0).random(len(rows)), rows))
    place = places_in_rows(rows, order, train.n_users)
    size = np.where(lengths > 1, np.maximum(np.floor(share * lengths), 1), 0)
    end = (lengths - fold * size)[rows]
    kept = (place < end - size[rows]) | (place >= end)
    if holdout == "later":
        pause = np.diff(train.timestamps[order], prepend=0) > SITTING
        sitting = np.empty_like(order)
        sitting[order] = np.cumsum(pause | (np.diff(rows[order], prepend=-1) > 0))
        before, last_kept = place < np.maximum(end - size[rows], 1), np.zeros(train.n_users, np.int64)
        np.maximum.at(last_kept, rows[before], sitting[before])
        kept = sitting <= last_kept[rows]
    liked_from = threshold(train, relevant_from)
    liked_from = liked_from if train.best_rating >= liked_from else -np.inf
    parts = []
    for mask in (kept, ~kept & (train.matrix.data >= liked_from)):
        indptr = row_starts(rows[mask], train.n_users).astype(np.int32)
        parts.append(csr_matrix((train.matrix.data[mask], train.matrix.indices[mask], indptr), train.matrix.shape))
    when = None if train.timestamps is None else train.timestamps[kept]
    return Interactions(parts[0], train.user_ids, train.item_ids, when, train.dated), parts[1]


def best_unseen(scores: np.ndarray, seen: csr_matrix, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the best unseen items of each row, (n, depth) int64, and which places of the list are filled."""
    codes, _ = top_k(scores, depth, exclude=seen)
    return np.maximum(codes, 0), codes >= 0


def labels_at(relevant: csr_matrix, codes: np.ndarray) -> np.ndarray:
    """Whether each of the columns ``codes``, (n, depth), is stored in its row of ``relevant``, (n, depth) bool."""
    stored = rows_of(relevant) * relevant.shape[1] + relevant.indices
    return np.isin(np.arange(len(codes))[:, None] * relevant.shape[1] + codes, stored)


def search_weights(held_out: Sequence[HeldOut], *, penalty: float = 0.0) -> dict[str, float]:
    """Weights by model, adding up to 1, under which relevant items are the most probable of those of an equal blend.

    They are fitted to each user's ``DEPTH`` best by :func:`listwise_fit`, none below 0; ``penalty`` is on the squared
    distances from equal weights. The problem is convex: there is one best answer, the same on every run, and as many
    unknowns as models, so that a few hundred users suffice.
    """
    parts = []
    for part in held_out:
        seen = part.histories.matrix
        z = [z_scores(table, seen)[0] for table in part.scores.values()]
        codes, filled = best_unseen(sum(z), seen, DEPTH)
        features = np.stack([np.take_along_axis(table, codes, axis=1) for table in z], axis=-1)
        parts.append((features, labels_at(part.relevant, codes), filled))
    features, labels, filled = map(np.concatenate, zip(*parts, strict=True))
    weights = listwise_fit(features, labels, filled, penalty=penalty, towards=EQUAL_WEIGHT, lowest=0.0)
    shares = weights / weights.sum() if weights.any() else np.full(len(weights), 1 / len(weights))
    return dict(zip(held_out[0].scores, shares.tolist(), strict=True))


def listwise_fit(
    features: np.ndarray,
    labels: np.ndarray,
    filled: np.ndarray,
    *,
    penalty: float,
    towards: float = 0.0,
    lowest: float | None = None,
) -> np.ndarray:
    """Fit a conditional logit, one list a user, one choice a relevant item: coefficients, (n_features,) float64.

    Maximises ``mean over users, mean over their relevant items of log softmax(features @ w)[item]``, the softmax over
    the items of the user's list, less ``penalty |w - towards|^2``; no coefficient is below ``lowest``.

    - ``features``, (n, depth, n_features) float32: of the items of each list.
    - ``labels``, ``filled``, (n, depth) bool: what is relevant, and which places of a list hold an item. Rows without
      anything relevant are left out.

    D. McFadden, "Conditional Logit Analysis of Qualitative Choice Behavior", 1974. Z. Cao et al., "Learning to Rank:
    From Pairwise Approach to Listwise Approach", ICML 2007 (ListNet, whose top-one form this is).
    """
    from scipy.optimize import minimize  # 18 MB that a served blend does without

    labels = labels & filled
    kept = labels.any(axis=1)
    n, n_features = int(kept.sum()), features.shape[-1]
    if n == 0:
        return np.zeros(n_features)
    flat, labels, filled = features[kept].reshape(-1, n_features), labels[kept], filled[kept]
    target = labels / labels.sum(axis=1, keepdims=True) / n
    closed = np.where(filled, 0, -np.inf)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total = (flat @ weights.astype(np.float32)).reshape(labels.shape).astype(np.float64) + closed
        top = total.max(axis=1, keepdims=True)
        chance = np.exp(total - top)
        sums = chance.sum(axis=1, keepdims=True)
        gap = (chance / sums / n - target).ravel()
        value = float(np.mean(np.log(sums) + top) - (target * np.where(filled, total, 0)).sum())
        slope = (gap.astype(np.float32) @ flat).astype(np.float64)
        off = weights - towards
        return value + penalty * float(off @ off), slope + 2 * penalty * off

    start = np.full(n_features, towards)
    limits = None if lowest is None else [(lowest, None)] * n_features
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": 100}).x
