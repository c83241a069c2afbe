"""The net that ranks: a user is their history and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.features.pairs import item_features, user_features
from recsys_lib.models.neural.base import NeuralModel, numpy_weights
from recsys_lib.models.neural.serving import State, event_weights, pooled_history, ranking_scores, ranking_slopes
from recsys_lib.models.weights import last_times

MONTH = 30.44 * 86_400  # seconds
MAX_MONTHS = 120
EMBEDDINGS = ("item_in", "item_out", "side_in", "side_out")  # of the net: weights decay, and serving has their sums


class NeuralRanker(NeuralModel):
    """Rank what comes next from what a user has seen, by a net trained on histories cut at random places.

    Each example is the part of a history before a random moment; the targets are the next events, under a full
    softmax over the items not seen yet. The history is pooled by several heads that forget at different speeds (learnt)
    and weigh each rating as they learnt to, goes through a small net, and meets each item in a dot product. There is no
    embedding of the user: a new one is served by the same forward pass. Serving needs numpy alone, training torch.

    - ``embedding_dim``, ``heads``, ``hidden``: width of an item's embedding, number of pooling heads, width of the
      hidden layer.
    - ``epochs``, ``batch_size``, ``lr``, ``weight_decay``: AdamW; a batch is so many users; decay falls on the
      embeddings.
    - ``dropout``, ``event_dropout``, ``context_dropout``: share of hidden units, of events, and of users' demographics
      that is hidden in training.
    - ``window``: length of the future to predict, as a share of the history before it (never under 5 events).
    - ``relevant_from``, ``low_weight``: ratings from here on are targets of weight 1, lower ones of ``low_weight``.
    - ``average``: decay of the moving average of the weights; 0 takes the last ones.
    - ``n_models``, ``seed``, ``device``: as in :class:`.base.NeuralModel`.
    """

    embedding_dim: int = 48
    heads: int = 4
    hidden: int = 96
    epochs: int = 130
    batch_size: int = 256
    lr: float = 1.2e-3
    weight_decay: float = 1e-2
    dropout: float = 0.3
    event_dropout: float = 0.2
    context_dropout: float = 0.1
    window: float = 0.15
    relevant_from: float = 4.0
    low_weight: float = 0.3
    average: float = 0.98
    schedule: ClassVar[str] = "constant"
    clip: ClassVar[float] = 1.0
    rest: ClassVar[tuple[str, str]] = "item", "liked by everybody"

    # ---- training --------------------------------------------------------------------------------------------

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None, **how: Any) -> None:
        if not (np.diff(train.matrix.indptr) >= 2).any():
            raise ValueError("NeuralRanker needs users with at least two interactions, and there is none")
        self.levels_ = np.unique(train.matrix.data)
        self.demographics_, self.user_names = user_features(users, train.user_ids)
        self.months_ = _months(train.seconds)
        self._content, _ = item_features(items, train.item_ids)
        self._train_nets(**how)

    def _learning(self, device: Any) -> tuple[Any, list[dict], Any, Callable]:
        from recsys_lib.models.neural import nets

        net = nets.RankingNet(self, self._content)
        groups = nets.groups(net, EMBEDDINGS, self.weight_decay)
        return net, groups, nets.Prefixes(self, device), nets.ranking_loss

    def _state(self, net: Any) -> State:
        items, candidates = (part.detach().cpu().numpy() for part in net.item_embeddings())
        kept = {name: value for name, value in numpy_weights(net).items() if name not in (*EMBEDDINGS, "features")}
        return {"items": items.copy(), "candidates": candidates.copy(), **kept}

    # ---- serving ---------------------------------------------------------------------------------------------

    def rating_codes(self, ratings: np.ndarray) -> np.ndarray:
        """Which of the known ratings is nearest, (nnz,) int64."""
        borders = (self.levels_[1:] + self.levels_[:-1]) / 2
        return np.searchsorted(borders, ratings, side="right")

    def context(self, users: np.ndarray, lengths: np.ndarray, last: np.ndarray | None) -> np.ndarray:
        """Encode what is known beside the events, (n, 1 + months + demographics) float32; users -1 are new."""
        month = np.zeros((len(users), len(self.months_)), np.float32)
        if last is not None and len(self.months_):
            code = np.maximum(np.searchsorted(self.months_, last, side="right") - 1, 0)
            month[np.arange(len(users)), code] = lengths > 0
        who = np.where(users[:, None] >= 0, self.demographics_[users], 0)
        return np.concatenate([np.log1p(lengths)[:, None] / 5, month, who], axis=1).astype(np.float32)

    def _inputs(self, histories: Histories, users: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Codes of the ratings, (nnz,), and context, (n, c)."""
        lengths = np.diff(histories.matrix.indptr)
        codes = np.full(len(lengths), -1) if users is None else self.train.user_codes(users)
        last = None if histories.timestamps is None else last_times(histories, self.train)
        return self.rating_codes(histories.matrix.data), self.context(codes, lengths, last)

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        codes, context = self._inputs(histories, users)
        steps = histories.steps_back()
        scores = sum(ranking_scores(state, histories, codes, context, steps) for state in self.states)
        return scores / len(self.states)

    def item_vectors(self) -> np.ndarray:
        """Vectors that items are ranked by, all nets' side by side, less their mean (which popularity fills)."""
        vectors = np.concatenate([state["candidates"] for state in self.states], axis=1)
        return vectors - vectors.mean(axis=0)

    def _attributed(self, state: State, history: Histories, item: int, user: Any) -> dict[str, np.ndarray]:
        codes, context = self._inputs(history, None if user is None else np.array([user]))
        weights = event_weights(state, codes, history.steps_back())  # (nnz, heads)
        pooled, scale = pooled_history(state, history, weights)
        slopes, others = ranking_slopes(state, pooled[0], context[0], item)
        projected = state["items"][history.matrix.indices] @ slopes.reshape(weights.shape[1], -1).T  # (nnz, heads)
        return {"history": (projected * weights * scale[0]).sum(axis=1), "context": others * context[0]}

    def _reasons(self, parts: dict[str, np.ndarray], item_id: Any) -> list[tuple[str, str, Any, float]]:
        months = [f"month {number + 1} of the data" for number in range(len(self.months_))]
        names = ["length of the history", *months, *self.user_names]
        return [("user", name, None, value) for name, value in zip(names, parts["context"], strict=True) if value]


def _months(timestamps: np.ndarray | None) -> np.ndarray:
    """When each month of the data begins, in seconds; no month without times."""
    if timestamps is None:
        return np.zeros(0)
    start, end = float(timestamps.min()), float(timestamps.max())
    width = max(MONTH, (end - start) / MAX_MONTHS)
    return start + width * np.arange(int((end - start) // width) + 1)
