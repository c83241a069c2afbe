"""A second stage at the best of a blend, with what the models do not see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.base import Recommender, genres_of
from recsys_lib.models.features.candidates import CandidateFeatures, years_of
from recsys_lib.models.stack.blend import Blend, HeldOut, best_unseen, labels_at, listwise_fit, standardised
from recsys_lib.models.stack.trees import grow, tree_scores


class Reranker(Recommender):
    """Order the ``depth`` best of a blend anew, by the scores of its models and :class:`CandidateFeatures` beside them.

    Two learners vote, each moved to mean 0 and standard deviation 1 over a person's candidates: a linear model that
    makes what came next as probable as can be among the candidates (:func:`.blend.listwise_fit`), and
    gradient-boosted trees that tell it from the rest (:func:`.trees.grow`), which find what depends on
    what. Both learn from what the blend holds out. The vote is moved to the mean and spread of the blend's scores, so
    that it can be read as a correction of them; items beyond ``depth`` follow in the order of the blend. Histories that
    the blend leaves to one model are not ordered anew.

    Parameters
    ----------
    blend
        Is fitted, too, unless it is already on the very interactions given.
    depth
        How many are ordered anew.
    penalty
        On the squares of the coefficients of the features, each scaled to standard deviation 1.
    trees
        How many; 0 leaves the linear model alone.
    """

    def __init__(self, blend: Blend | None = None, *, depth: int = 100, penalty: float = 0.01, trees: int = 80) -> None:
        self.blend = blend
        self.depth = depth
        self.penalty = penalty
        self.trees = trees

    def params(self) -> dict[str, Any]:
        """Parameters without the blend, which is saved in a folder of its own."""
        return {name: value for name, value in super().params().items() if name != "blend"}

    @property
    def members(self) -> dict[str, Recommender]:
        """The blend."""
        return {} if self.blend is None else {"blend": self.blend}

    @members.setter
    def members(self, members: dict[str, Recommender]) -> None:
        self.blend = members.get("blend")

    def fresh(self) -> Self:
        """The same blend and parameters, and nothing learnt yet."""
        return type(self)(None if self.blend is None else self.blend.fresh(), **self.params())

    # ---- learning --------------------------------------------------------------------------------------------

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        if self.blend is None:
            raise ValueError("Reranker needs a blend: Reranker(Blend({'als': ALS(), 'ease': EASE()}))")
        if self.blend.train is not train:
            self.blend.fit(train, items=items, users=users)
        self.years_ = years_of(items, train)
        parts = self.blend.held_out(train, items=items, users=users)
        self._learn([(part, self._features_of(part.train, items)) for part in parts])

    def _learn(self, parts: Sequence[tuple[HeldOut, CandidateFeatures]]) -> None:
        looked = []
        for part, candidates in parts:
            codes, there, features, _ = self._looked_at(part.scores.values(), part.histories, candidates)
            looked.append((there, features, labels_at(part.relevant, codes) & there))
        there, features, labels = map(np.concatenate, zip(*looked, strict=True))
        self.mean_, spread = features[there].mean(axis=0), features[there].std(axis=0)
        self.scale_ = np.where(spread > 1e-6, spread, 1).astype(np.float32)
        scaled = (features - self.mean_) / self.scale_
        self.coefficients_ = listwise_fit(scaled, labels, there, penalty=self.penalty).astype(np.float32)
        rows = there & labels.any(axis=1, keepdims=True)
        self.trees_ = grow(features[rows], labels[rows], trees=self.trees)

    def learnt_by_others(self, held_out: HeldOut, items: pd.DataFrame | None = None, groups: int = 3) -> np.ndarray:
        """Scores of the users held out, (n, n_items), each learnt from the users of the other groups alone.

        The weights of the blend are those that it has: it must be fitted.
        """
        candidates, found = (
            self._features_of(held_out.train, items),
            np.empty_like(next(iter(held_out.scores.values()))),
        )
        group = np.random.default_rng(0).permutation(len(found)) % groups
        for number in range(groups):
            judge, own = type(self)(self.blend, **self.params()), held_out.of_users(np.flatnonzero(group == number))
            judge._learn([(held_out.of_users(np.flatnonzero(group != number)), candidates)])
            found[group == number] = judge._scores(own.scores.values(), own.histories, candidates)
        return found

    def _features_of(self, train: Interactions, items: pd.DataFrame | None) -> CandidateFeatures:
        return CandidateFeatures(
            train, years_of(items, train), genres_of(items, train), relevant_from=self.blend.relevant_from
        )

    # ---- serving ---------------------------------------------------------------------------------------------

    @property
    def _candidates(self) -> CandidateFeatures:
        found = vars(self).get("_known")
        if found is None or found.train is not self.train:
            found = CandidateFeatures(self.train, self.years_, self.genres, relevant_from=self.blend.relevant_from)
            self._known = found
        return found

    def _looked_at(
        self, scores: Any, histories: Histories, candidates: CandidateFeatures
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Candidates and whether they are there, (n, depth); their features; the blend's scores, (n, n_items)."""
        z = [standardised(table, histories.matrix)[0] for table in scores]
        blended = sum(weights * table for weights, table in zip(self.blend.weights_for(histories), z, strict=True))
        codes, there = best_unseen(blended, histories.matrix, self.depth)
        own = np.stack([np.take_along_axis(table, codes, axis=1) for table in (*z, blended)], axis=-1)
        return codes, there, np.concatenate([own, candidates.features(histories, codes)], axis=-1), blended

    def _scores(self, scores: Any, histories: Histories, candidates: CandidateFeatures) -> np.ndarray:
        codes, there, features, blended = self._looked_at(scores, histories, candidates)
        if not there.any():
            return blended
        linear = ((features - self.mean_) / self.scale_) @ self.coefficients_
        boosted = np.zeros(there.shape)
        boosted[there] = tree_scores(self.trees_, features[there])
        votes = sum(levelled(said, there)[0] for said in (linear, boosted))
        before = np.take_along_axis(blended, codes, axis=1)
        _, mean, spread = levelled(before, there)
        new = levelled(votes, there)[0] * spread + mean
        border, low = (np.where(there, table, np.inf).min(axis=1, keepdims=True) for table in (before, new))
        some = there.any(axis=1, keepdims=True)
        result = blended - np.subtract(border, low, out=np.zeros_like(low), where=some) - 1
        rows, places = np.nonzero(there)
        result[rows, codes[rows, places]] = new[rows, places]
        return np.where(self.blend.served_by_one(histories)[:, None], blended, result)

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        said = [part.score(histories, users) for part in self.blend.models.values()]
        scores = self._scores(said, histories, self._candidates)
        scores[np.diff(histories.matrix.indptr) == 0] = np.nan
        return scores

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        # What the films of the history bring to the blend; the second stage corrects that for the film itself.
        return self.blend._contributions(history, item, user)

    def _similarity(self) -> Callable[[np.ndarray], np.ndarray]:
        return self.blend._similarity()


def levelled(values: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Move the values that are there to mean 0 and standard deviation 1 in each row; with both, (n, 1), as they were.

    Examples
    --------
    >>> levelled(np.array([[1.0, 3.0, 9.0]]), np.array([[True, True, False]]))[0]
    array([[-1.,  1.,  0.]])
    """
    n = np.maximum(there.sum(axis=1, keepdims=True), 1)
    mean = np.where(there, values, 0).sum(axis=1, keepdims=True, dtype=np.float64) / n
    off = np.where(there, values - mean, 0)
    spread = np.sqrt(np.square(off).sum(axis=1, keepdims=True) / n)
    spread[spread < 1e-12] = 1
    return off / spread, mean, spread
