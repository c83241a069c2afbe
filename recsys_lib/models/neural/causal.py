"""A causal transformer: the sequential model that papers compare with, served by numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions, oldest_first
from recsys_lib.models.neural.base import NeuralModel, numpy_weights
from recsys_lib.models.neural.serving import State, causal_places

ROWS = 256  # histories that serving pads to one length


@dataclass(kw_only=True, eq=False, repr=False)
class CausalTransformer(NeuralModel):
    """Predict the next item at every place of a history from the items up to there, in their order.

    An item's embedding of length 1, times the root of its dimension, and one of its place go through blocks of causal
    self-attention, in which a place sees itself and those before it. What comes out at the last place ranks the
    catalogue by the cosine with the same embeddings. All places learn at once, by the cross-entropy of the item that
    follows under a softmax of ``cosine / temperature`` over items drawn anew for each step. Ratings are not read, but
    for the weight of a target; nor are times, but for the order.

    - ``embedding_dim``, ``blocks``: width of the vectors; blocks of attention, of one head, and a net as wide.
    - ``max_length``: items of a history that are read, the last ones; longer ones are learnt from in pieces.
    - ``epochs``, ``batch_size``, ``lr``, ``patience``: as in the ranker and the hybrid; a batch has so many places.
    - ``dropout``: share of coordinates that is hidden in training, of the input and of what each block adds.
    - ``negatives``, ``temperature``: items that stand for the catalogue in the softmax of a step, and its temperature.
    - ``low_weight``: of a target rated below :attr:`Interactions.relevant_from`; others have 1.

    W.-C. Kang, J. McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018 (the layout). A. Klenitskiy,
    A. Vasilev, "Turning Dross Into Gold Loss: is BERT4Rec really better than SASRec?", RecSys 2023 (the softmax).
    """

    embedding_dim: int = 64
    blocks: int = 2
    max_length: int = 50
    epochs: int = 30
    batch_size: int = 1000
    lr: float = 3e-3
    schedule: ClassVar[str] = "onecycle"
    dropout: float = 0.5
    negatives: int = 500
    temperature: float = 0.05
    low_weight: float = 1.0
    patience: int | None = None
    needs_history: ClassVar[bool] = True
    rest: ClassVar[tuple[str, str]] = "item", "what no single item of the history explains"

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None, **how: Any) -> None:
        if train.timestamps is None:
            raise ValueError("CausalTransformer needs timestamps or positions, and the interactions have neither")
        if not (np.diff(train.matrix.indptr) >= 2).any():
            raise ValueError("CausalTransformer needs users with at least two interactions, and there is none")
        self._train_nets(**how)

    def _learning(self, device: Any) -> tuple[Any, list[dict], Any, Callable]:
        from recsys_lib.models.neural import causal_net as nets

        net = nets.CausalNet(self)
        groups = [{"params": list(net.parameters()), "weight_decay": 0.0}]
        return net, groups, nets.Windows(self, device), nets.next_item_loss

    def _state(self, net: Any) -> State:
        state = numpy_weights(net)
        state["items"] /= np.linalg.norm(state["items"], axis=1, keepdims=True)
        return state

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        return sum(self._scores_of(state, histories) for state in self.states) / len(self.states)

    def _scores_of(self, state: State, histories: Histories) -> np.ndarray:
        """Scores by one net, (n, n_items): cosines over the temperature; 0 of an empty history."""
        items, ends = histories.matrix.indices[oldest_first(histories)], histories.matrix.indptr[1:, None]
        lengths = np.minimum(np.diff(histories.matrix.indptr), self.max_length)
        vectors = np.zeros((len(lengths), self.embedding_dim), np.float32)
        rows = np.argsort(lengths, kind="stable")[np.count_nonzero(lengths == 0) :]
        for chosen in np.split(rows, range(ROWS, len(rows), ROWS)) if len(rows) else ():
            place = np.minimum(np.arange(lengths[chosen].max()), lengths[chosen, None] - 1)
            padded = items[ends[chosen] - lengths[chosen, None] + place]  # (rows, L)
            last = causal_places(state, padded, self.blocks)[np.arange(len(chosen)), lengths[chosen] - 1]
            vectors[chosen] = last / np.linalg.norm(last, axis=1, keepdims=True)
        return vectors @ state["items"].T / np.float32(self.temperature)

    def item_vectors(self) -> np.ndarray:
        """Embeddings of all nets side by side, each of length 1."""
        return np.concatenate([state["items"] for state in self.states], axis=1)

    def _attributed(self, state: State, history: Histories, item: int, user: Any) -> dict[str, np.ndarray]:
        """Leave out each item and see what the score loses (occlusion: Zeiler and Fergus, 2014)."""
        n, whole = history.matrix.nnz, self._scores_of(state, history)[0, item]
        kept = np.nonzero(~np.eye(n, dtype=bool))[1]  # all but the first, all but the second, ...
        parts = history.matrix.data[kept], history.matrix.indices[kept], np.arange(n + 1) * (n - 1)
        without = csr_matrix(parts, shape=(n, self.train.n_items))
        when = None if history.timestamps is None else history.timestamps[kept]
        return {"history": whole - self._scores_of(state, Histories(without, when))[:, item]}
