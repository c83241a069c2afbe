"""Several models as one: a weighted sum of what each says, on a scale that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.base import Recommender
from recsys_lib.models.lists import top_k

PEOPLE = 2000  # enough to learn a dozen weights from
EQUAL = 0.35  # weight of each model that learning is drawn to


@dataclass(frozen=True)
class Rehearsal:
    """What models said of people whose histories were cut short, and what came then.

    Attributes
    ----------
    earlier : Interactions
        What the models knew.
    users : ndarray, (n,)
        Ids of the people.
    histories : Histories, (n, n_items)
        Of these people, in ``earlier``.
    scores : dict
        Of each model by name, (n, n_items) float32.
    relevant : csr_matrix, (n, n_items)
        What turned out to be relevant.
    """

    earlier: Interactions
    users: np.ndarray
    histories: Histories
    scores: dict[str, np.ndarray]
    relevant: csr_matrix

    @classmethod
    def of(
        cls,
        models: Mapping[str, Recommender],
        earlier: Interactions,
        relevant: csr_matrix,
        *,
        items: pd.DataFrame | None = None,
        users: pd.DataFrame | None = None,
    ) -> Rehearsal:
        """Ask models, once those not fitted on ``earlier`` are, about up to ``PEOPLE`` people.

        Parameters
        ----------
        relevant : csr_matrix, (n_users, n_items)
            Rows and columns as in ``earlier``.
        """
        people = np.flatnonzero(np.diff(relevant.indptr))
        if len(people) > PEOPLE:
            people = np.sort(np.random.default_rng(0).choice(people, PEOPLE, replace=False))
        histories, ids, scores = earlier.rows(people), earlier.user_ids[people], {}
        for name, model in models.items():
            if getattr(model, "train", None) is not earlier:
                model.fit(earlier, items=items, users=users)
            scores[name] = model.score(histories, ids)
        return cls(earlier, ids, histories, scores, relevant[people])

    def of_models(self, names: Sequence[str]) -> Rehearsal:
        """The same of some of the models."""
        return replace(self, scores={name: self.scores[name] for name in names})

    def of_people(self, rows: np.ndarray) -> Rehearsal:
        """The same of some of the people."""
        matrix, times = self.histories.matrix, self.histories.timestamps
        entries = np.isin(self.histories.row_of_entry, rows)
        histories = Histories(matrix[rows], None if times is None else times[entries])
        scores = {name: table[rows] for name, table in self.scores.items()}
        return Rehearsal(self.earlier, self.users[rows], histories, scores, self.relevant[rows])


class Blend(Recommender):
    """Weighted sum of the z-scores that each model gives a person's unseen items.

    ``score(u, i) = sum_m weight_m * (s_m(u, i) - mean_m(u)) / sd_m(u)``: mean and standard deviation are taken for
    each person and model over the items that the person has not met, so that no model shouts the others down.

    Weights that are not given are learnt in ``fit`` from a rehearsal: a part of each person's history is held back,
    fresh copies of the models are fitted on the rest, and :func:`search_weights` finds what foretells the part held
    back. Then the models are fitted on everything.

    Parameters
    ----------
    models
        By name. ``fit`` leaves alone those that are fitted already on the very interactions given.
    weights
        By name; None to learn them.
    holdout : {"recent", "random"}
        Which part of a history is held back: the last one, or any. It should be like what is to be foretold.
    share
        How much of each history is held back.
    turns
        How many rehearsals teach, each holding back another part. More than 1 only with ``holdout="random"``, where
        all parts are alike, and no more than ``1 / share``; all models are fitted once more for each.
    relevant_from
        Ratings from here on are what is to be foretold; ignored where no rating reaches it.
    penalty
        How strongly weights that are learnt are drawn to being equal: with few people, what is most probable is not
        what makes the best lists. 0 where one model is far better than the others.
    newcomer, few
        The model that alone serves histories of fewer than ``few`` films. What is best for long histories, which
        weights are learnt from, can be worse than popularity for short ones. None: all are served alike.

    References
    ----------
    L. Breiman, "Stacked Regressions", Machine Learning 24, 1996. J. H. Lee, "Analyses of Multiple Evidence
    Combination", SIGIR 1997.
    """

    def __init__(
        self,
        models: Mapping[str, Recommender] | None = None,
        *,
        weights: Mapping[str, float] | None = None,
        holdout: str = "recent",
        share: float = 0.25,
        turns: int = 1,
        relevant_from: float = 4.0,
        penalty: float = 1.0,
        newcomer: str | None = None,
        few: int = 12,
    ) -> None:
        if holdout not in ("recent", "random"):
            raise ValueError(f"holdout is {holdout!r}; it must be 'recent' or 'random'")
        most = int(1 / share + 1e-9) if holdout == "random" else 1
        if not 1 <= turns <= most:
            raise ValueError(
                f"turns is {turns}; with holdout={holdout!r} and a share of {share} it must be 1 to {most}"
            )
        self.models = dict(models or {})
        self.weights = None if weights is None else {name: float(weight) for name, weight in weights.items()}
        self.holdout = holdout
        self.share = share
        self.turns = turns
        self.relevant_from = relevant_from
        self.penalty = penalty
        self.newcomer = newcomer
        self.few = few
        self._rehearsals: list[Rehearsal] = []

    def params(self) -> dict[str, Any]:
        """Parameters without the models, which are saved in folders of their own."""
        return {name: value for name, value in super().params().items() if name != "models"}

    @property
    def members(self) -> dict[str, Recommender]:
        """The models by name."""
        return self.models

    @members.setter
    def members(self, members: dict[str, Recommender]) -> None:
        self.models = members

    def fresh(self) -> Self:
        """The same models and parameters, and nothing learnt yet."""
        return type(self)({name: part.fresh() for name, part in self.models.items()}, **self.params())

    def learning_from(self, rehearsal: Rehearsal) -> Self:
        """Learn from this rehearsal in ``fit``, rather than hold something back and fit all models again.

        Raises
        ------
        ValueError
            If it is not one of the same models.
        """
        if list(rehearsal.scores) != list(self.models):
            raise ValueError(f"the rehearsal is one of {', '.join(rehearsal.scores)}, not of {', '.join(self.models)}")
        self._rehearsals = [rehearsal]
        return self

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        if not self.models:
            raise ValueError("Blend needs models: Blend({'als': ALS(), 'ease': EASE()})")
        unknown = set(self.weights or {}) - set(self.models)
        if unknown:
            raise ValueError(
                f"there is a weight for {sorted(unknown)[0]!r}, but the models are {', '.join(self.models)}"
            )
        if self.newcomer is not None and self.newcomer not in self.models:
            raise ValueError(
                f"newcomers are to be served by {self.newcomer!r}, but the models are {', '.join(self.models)}"
            )
        weights = self.weights
        if weights is None:
            weights = search_weights(self.rehearse(train, items=items, users=users), penalty=self.penalty)
        self.weights_ = np.array([weights.get(name, 1.0) for name in self.models])
        for part in self.models.values():
            if getattr(part, "train", None) is not train:
                part.fit(train, items=items, users=users)

    def rehearse(
        self, train: Interactions, *, items: pd.DataFrame | None = None, users: pd.DataFrame | None = None
    ) -> list[Rehearsal]:
        """What the weights are learnt from: given before, or made once by fresh copies of the models."""
        if not self._rehearsals:
            for turn in range(self.turns):
                earlier, relevant = hold_back(train, self.share, self.holdout, self.relevant_from, turn)
                copies = {name: part.fresh() for name, part in self.models.items()}
                self._rehearsals.append(Rehearsal.of(copies, earlier, relevant, items=items, users=users))
        return self._rehearsals

    @property
    def learnt_weights(self) -> dict[str, float]:
        """The weights in use, by name, adding up to 1."""
        total = max(float(self.weights_.sum()), 1e-12)
        return dict(zip(self.models, (self.weights_ / total).round(4).tolist(), strict=True))

    def served_alone(self, histories: Histories) -> np.ndarray:
        """Whose history is so short that one model serves it, (n,) bool."""
        return (np.diff(histories.matrix.indptr) < self.few) & (self.newcomer is not None)

    def weights_for(self, histories: Histories) -> np.ndarray:
        """Weight of each model for each history, (models, n, 1) float32."""
        weights = np.repeat(self.weights_.astype(np.float32)[:, None], histories.matrix.shape[0], axis=1)
        if self.newcomer is not None:
            alone = np.array([name == self.newcomer for name in self.models], np.float32)
            weights = np.where(self.served_alone(histories), alone[:, None], weights)
        return weights[:, :, None]

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        total = np.zeros(histories.matrix.shape, dtype=np.float32)
        for weights, part in zip(self.weights_for(histories), self.models.values(), strict=True):
            if weights.any():
                total += weights * standardised(part.score(histories, users), histories.matrix)[0]
        total[np.diff(histories.matrix.indptr) == 0] = np.nan
        return total

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        users, parts = None if user is None else np.array([user]), np.zeros(history.matrix.nnz)
        for weight, part in zip(self.weights_for(history).ravel(), self.models.values(), strict=True):
            if weight != 0:
                _, _, spread = standardised(part.score(history, users), history.matrix)
                parts += weight / spread[0] * part._contributions(history, item, user)
        return parts

    def _similarity(self) -> Callable[[np.ndarray], np.ndarray]:
        return list(self.models.values())[int(np.argmax(self.weights_))]._similarity()


def standardised(scores: np.ndarray, seen: csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shift and scale each row so that its unseen items have mean 0 and standard deviation 1; NaN becomes 0.

    Returns
    -------
    z : ndarray, (n, n_items) float32
    mean, spread : ndarray, (n,) float64
        What was taken off and divided by; the spread of a row without any is 1.

    Examples
    --------
    >>> seen = csr_matrix(np.array([[0, 0, 0, 1.0]]))
    >>> standardised(np.array([[1.0, 2.0, 3.0, 9.0]]), seen)[0].round(2)
    array([[-1.22,  0.  ,  1.22,  8.57]], dtype=float32)
    """
    scores = np.asarray(scores, dtype=np.float32)
    counted = np.isfinite(scores)
    rows = np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr))
    counted[rows, seen.indices] = False
    n = np.maximum(counted.sum(axis=1), 1)
    mean = np.where(counted, scores, 0).sum(axis=1, dtype=np.float64) / n
    centred = scores - mean[:, None].astype(np.float32)
    spread = np.sqrt(np.square(np.where(counted, centred, 0)).sum(axis=1, dtype=np.float64) / n)
    spread[spread < 1e-12] = 1
    return np.nan_to_num(centred / spread[:, None].astype(np.float32), nan=0.0), mean, spread


def hold_back(
    train: Interactions, share: float, holdout: str, relevant_from: float, turn: int = 0
) -> tuple[Interactions, csr_matrix]:
    """Cut every history short.

    Parameters
    ----------
    share
        Of each history, rounded down.
    holdout : {"recent", "random"}
        ``recent`` takes the last entries by time, ties by item; without timestamps, and for ``random``, any.
    turn
        0 takes the last entries of that order, 1 those before them, and so on: no entry is held back in two turns.

    Returns
    -------
    earlier : Interactions
        With the same users and items as ``train``.
    relevant : csr_matrix, (n_users, n_items)
        What was held back and rated ``relevant_from`` or more; all that was held back where no rating reaches it.
    """
    rows = train.row_of_entry
    if holdout == "recent" and train.timestamps is not None:
        order = np.lexsort((train.matrix.indices, train.timestamps, rows))
    else:
        order = np.lexsort((np.random.default_rng(0).random(len(rows)), rows))
    lengths = np.diff(train.matrix.indptr)
    place = np.empty(len(rows), dtype=np.int64)
    place[order] = np.arange(len(rows)) - train.matrix.indptr[rows[order]]
    held = np.floor(share * lengths)
    end = (lengths - turn * held)[rows]
    kept = (place < end - held[rows]) | (place >= end)
    threshold = relevant_from if train.best_rating >= relevant_from else -np.inf
    parts = []
    for mask in (kept, ~kept & (train.matrix.data >= threshold)):
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[mask], minlength=train.n_users))]).astype(np.int32)
        parts.append(csr_matrix((train.matrix.data[mask], train.matrix.indices[mask], indptr), train.matrix.shape))
    when = None if train.timestamps is None else train.timestamps[kept]
    return Interactions(parts[0], train.user_ids, train.item_ids, when), parts[1]


def best_unseen(scores: np.ndarray, seen: csr_matrix, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the best unseen items of each row, (n, depth) int64, and a mask of those that there are."""
    codes, _ = top_k(scores, depth, exclude=seen)
    return np.maximum(codes, 0), codes >= 0


def search_weights(rehearsals: Sequence[Rehearsal], *, depth: int = 100, penalty: float = 0.0) -> dict[str, float]:
    """Weights, 0 or more, under which relevant items are the most probable of the ``depth`` best of an equal blend.

    See :func:`listwise_fit`. The problem is convex: there is one best answer, the same on every run, and as many
    unknowns as models, so that a few hundred people suffice.

    Parameters
    ----------
    rehearsals
        Of the same models; people without anything relevant do not count.
    penalty
        On the squared distances from equal weights.

    Returns
    -------
    dict
        Weights that add up to 1.
    """
    names = list(rehearsals[0].scores)
    features, labels, there = map(np.concatenate, zip(*(_best_of(told, depth) for told in rehearsals), strict=True))
    found = listwise_fit(features, labels, there, penalty=penalty, towards=EQUAL, lowest=0.0)
    total = found.sum()
    return dict(zip(names, (found / total if total > 0 else np.full(len(names), 1 / len(names))).tolist(), strict=True))


def _best_of(told: Rehearsal, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each model says of the best of an equal blend, (n, depth, models); which are relevant; which are there."""
    kept = np.flatnonzero(np.diff(told.relevant.indptr))
    seen = told.histories.matrix[kept]
    z = [standardised(table[kept], seen)[0] for table in told.scores.values()]
    codes, there = best_unseen(sum(z), seen, depth)
    features = np.stack([np.take_along_axis(table, codes, axis=1) for table in z], axis=-1)
    return features, labels_at(told.relevant[kept], codes), there


def labels_at(relevant: csr_matrix, codes: np.ndarray) -> np.ndarray:
    """Whether each of the columns ``codes``, (n, depth), is stored in its row of ``relevant``, (n, depth) bool."""
    n_items = relevant.shape[1]
    rows = np.repeat(np.arange(relevant.shape[0]), np.diff(relevant.indptr))
    return np.isin(np.arange(len(codes))[:, None] * n_items + codes, rows * n_items + relevant.indices)


def listwise_fit(
    features: np.ndarray,
    labels: np.ndarray,
    there: np.ndarray,
    *,
    penalty: float,
    towards: float = 0.0,
    lowest: float | None = None,
) -> np.ndarray:
    """Fit a conditional logit, one list a person, one choice a relevant item.

    Maximises ``mean over people, mean over their relevant items of log softmax(features @ w)[item]``, the softmax over
    the items of the person's list, less ``penalty |w - towards|^2``.

    Parameters
    ----------
    features : ndarray, (n, depth, n_features) float32
    labels : ndarray, (n, depth) bool
        Rows without any are left out.
    there : ndarray, (n, depth) bool
        False at places behind the end of a list.
    lowest
        Smallest coefficient allowed; None for no limit.

    Returns
    -------
    ndarray, (n_features,) float64

    References
    ----------
    D. McFadden, "Conditional Logit Analysis of Qualitative Choice Behavior", 1974. Z. Cao et al., "Learning to Rank:
    From Pairwise Approach to Listwise Approach", ICML 2007 (ListNet, whose top-one form this is).
    """
    from scipy.optimize import minimize  # 18 MB that a served blend does without

    labels = labels & there
    kept = labels.any(axis=1)
    n = int(kept.sum())
    if n == 0:
        return np.zeros(features.shape[-1])
    flat, shape = features[kept].reshape(-1, features.shape[-1]), labels[kept].shape
    target = labels[kept] / labels[kept].sum(axis=1, keepdims=True) / n
    closed = np.where(there[kept], 0, -np.inf)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total = (flat @ weights.astype(np.float32)).reshape(shape).astype(np.float64) + closed
        top = total.max(axis=1, keepdims=True)
        chance = np.exp(total - top)
        sums = chance.sum(axis=1, keepdims=True)
        gap = (chance / sums / n - target).ravel()
        value = float(np.mean(np.log(sums) + top) - (target * np.where(there[kept], total, 0)).sum())
        slope = (gap.astype(np.float32) @ flat).astype(np.float64)
        off = weights - towards
        return value + penalty * float(off @ off), slope + 2 * penalty * off

    start = np.full(flat.shape[1], towards)
    limits = None if lowest is None else [(lowest, None)] * flat.shape[1]
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": 100}).x
