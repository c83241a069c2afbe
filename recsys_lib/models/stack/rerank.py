"""A second stage at the best of a blend, with what the models do not see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.base import Recommender, genres_of, years_of
from recsys_lib.models.features.candidates import CandidateFeatures
from recsys_lib.models.lists import standardised, z_scores
from recsys_lib.models.stack.blend import Blend, HeldOut, best_unseen, labels_at, listwise_fit
from recsys_lib.models.stack.trees import grow, tree_scores


class Candidates(NamedTuple):
    """The items that are ordered anew, of n users: columns and whether the place is filled, their features, scores.

    ``codes``, ``filled``: (n, depth); ``features``: (n, depth, n_features); ``blended``: (n, n_items), of the blend.
    """

    codes: np.ndarray
    filled: np.ndarray
    features: np.ndarray
    blended: np.ndarray

    def of_users(self, rows: np.ndarray) -> Candidates:
        """Those of some users."""
        return Candidates(*(table[rows] for table in self))


class Reranker(Recommender):
    """Order the ``depth`` best of a blend anew, by the scores of its models and :class:`CandidateFeatures` beside them.

    Two learners vote, each moved to mean 0 and standard deviation 1 over a user's candidates: a linear model that
    makes what came next as probable as can be among the candidates (:func:`.blend.listwise_fit`), and
    gradient-boosted trees that tell it from the rest (:func:`.trees.grow`), which find what depends on
    what. Both learn from what the blend holds out. The vote is moved to the mean and spread of the blend's scores, so
    that it can be read as a correction of them; items beyond ``depth`` follow in the order of the blend. Histories that
    the blend leaves to one model are not ordered anew.

    - ``blend``: is fitted, too, unless it is already on the very interactions given.
    - ``depth``: how many are ordered anew.
    - ``penalty``: on the squares of the coefficients of the features, each scaled to standard deviation 1.
    - ``trees``: how many; 0 leaves the linear model alone.
    """

    needs_history = True
    made_of = "blend"
    blend: Blend | None = field(default=None, kw_only=False)
    depth: int = 100
    penalty: float = 0.01
    trees: int = 80

    # ---- learning --------------------------------------------------------------------------------------------

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        if self.blend is None:
            raise ValueError("Reranker needs a blend: Reranker(Blend({'als': ALS(), 'ease': EASE()}))")
        if self.blend.train is not train:
            self.blend.fit(train, items=items, users=users)
        held_out = self.blend.held_out(train, items=items, users=users)
        self._learn([(self._candidates_of(part, items), part.relevant) for part in held_out])

    def _learn(self, parts: Sequence[tuple[Candidates, csr_matrix]]) -> None:
        """Learn from candidates and what is relevant, (n, n_items)."""
        lists = [(part.filled, part.features, labels_at(relevant, part.codes)) for part, relevant in parts]
        filled, features, labels = map(np.concatenate, zip(*lists, strict=True))
        labels &= filled
        self.mean_, spread = features[filled].mean(axis=0), features[filled].std(axis=0)
        self.scale_ = np.where(spread > 1e-6, spread, 1).astype(np.float32)
        scaled = (features - self.mean_) / self.scale_
        self.coefficients_ = listwise_fit(scaled, labels, filled, penalty=self.penalty).astype(np.float32)
        rows = filled & labels.any(axis=1, keepdims=True)
        self.trees_ = grow(features[rows], labels[rows], trees=self.trees)

    def learnt_by_others(self, held_out: Sequence[HeldOut], items: pd.DataFrame | None = None) -> list[np.ndarray]:
        """Scores of the users of each part, (n, n_items), learnt in all parts from the other two thirds of the users.

        The weights of the blend are those that it has: it must be fitted.
        """
        parts = [(self._candidates_of(part, items), part.relevant) for part in held_out]
        scores = [np.zeros(part.relevant.shape, np.float32) for part in held_out]
        everybody = np.unique(np.concatenate([part.users for part in held_out]))
        drawn = np.random.default_rng(0).permutation(len(everybody)) % 3
        group = [drawn[np.searchsorted(everybody, part.users)] for part in held_out]
        for number in range(3):
            model = type(self)(self.blend, **self.params())
            inside = [own == number for own in group]
            pairs = zip(parts, inside, strict=True)
            model._learn([(every.of_users(~own), relevant[~own]) for (every, relevant), own in pairs])
            for table, (candidates, _), own in zip(scores, parts, inside, strict=True):
                table[own] = model._reranked(candidates.of_users(own))
        return scores

    def _candidates_of(self, part: HeldOut, items: pd.DataFrame | None) -> Candidates:
        """Candidates of what a blend held out, with features of that part's own, which take 1 GB and are let go."""
        return self._candidates(part.scores.values(), part.histories, self._features_of(part.train, items))

    def _features_of(self, train: Interactions, items: pd.DataFrame | None) -> CandidateFeatures:
        years, genres = years_of(items, train), genres_of(items, train)
        return CandidateFeatures(train, years, genres, relevant_from=self.blend.relevant_from)

    # ---- serving ---------------------------------------------------------------------------------------------

    @cached_property
    def _served_features(self) -> CandidateFeatures:
        return CandidateFeatures(self.train, self.years, self.genres, relevant_from=self.blend.relevant_from)

    def _candidates(self, scores: Iterable[np.ndarray], histories: Histories, extra: CandidateFeatures) -> Candidates:
        """The best of the blend, from the scores of each of its models, (n, n_items)."""
        z = [z_scores(table, histories.matrix)[0] for table in scores]
        weights = self.blend.weights_.astype(np.float32)
        blended = sum(weight * table for weight, table in zip(weights, z, strict=True))
        codes, filled = best_unseen(blended, histories.matrix, self.depth)
        own = np.stack([np.take_along_axis(table, codes, axis=1) for table in (*z, blended)], axis=-1)
        features = np.concatenate([own, extra.features(histories, codes)], axis=-1)
        return Candidates(codes, filled, features, blended)

    def _reranked(self, candidates: Candidates) -> np.ndarray:
        """Scores of the second stage, (n, n_items)."""
        codes, filled, features, blended = candidates
        if not filled.any():
            return blended
        linear = ((features - self.mean_) / self.scale_) @ self.coefficients_
        boosted = np.zeros(filled.shape)
        boosted[filled] = tree_scores(self.trees_, features[filled])
        votes = sum(standardised(vote.astype(np.float64), filled)[0] for vote in (linear, boosted))
        before = np.take_along_axis(blended, codes, axis=1)
        _, mean, spread = standardised(before.astype(np.float64), filled)
        new = standardised(votes, filled)[0] * spread + mean
        border, lowest = (np.where(filled, table, np.inf).min(axis=1, keepdims=True) for table in (before, new))
        shift = np.subtract(border, lowest, out=np.zeros_like(lowest), where=filled.any(axis=1, keepdims=True))
        result = blended - shift - 1
        rows, places = np.nonzero(filled)
        result[rows, codes[rows, places]] = new[rows, places]
        return result

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        members = [part.score(histories, users) for part in self.blend.models.values()]
        return self._reranked(self._candidates(members, histories, self._served_features))

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        # What the items of the history bring to the blend; the second stage corrects that for the item itself.
        return self.blend._contributions(history, item, user)

    def _similarity(self, codes: np.ndarray) -> np.ndarray:
        return self.blend._similarity(codes)
