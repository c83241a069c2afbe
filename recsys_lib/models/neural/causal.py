"""A causal transformer: the sequential model that papers compare with, served by numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.special import softmax

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.neural.base import NeuralModel, numpy_weights
from recsys_lib.models.neural.serving import State, gelu, layer_norm, linear

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
    - ``epochs``, ``batch_size``, ``lr``: AdamW with this highest learning rate; a batch has so many places.
    - ``dropout``: share of coordinates that is hidden in training, of the input and of what each block adds.
    - ``negatives``: items that stand for the catalogue in the softmax of a step; all where it has no more.
    - ``temperature``: of the softmax; the smaller, the more the likest wrong items are pushed away.
    - ``low_weight``: of a target rated below :attr:`Interactions.relevant_from`; others have 1.
    - ``patience``: epochs without a better validation value after which training stops (needs ``validate`` in ``fit``).

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

    def __post_init__(self) -> None:
        least = {"embedding_dim": 1, "blocks": 1, "max_length": 1, "epochs": 1, "batch_size": 1, "negatives": 2}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {lowest} or more")

    # ---- training --------------------------------------------------------------------------------------------

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

    # ---- serving ---------------------------------------------------------------------------------------------

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        return sum(self._scores_of(state, histories) for state in self.states) / len(self.states)

    def _scores_of(self, state: State, histories: Histories) -> np.ndarray:
        """Scores by one net, (n, n_items): cosines over the temperature; 0 of an empty history."""
        matrix, columns = histories.matrix, histories.matrix.indices
        when = np.zeros(matrix.nnz) if histories.timestamps is None else histories.timestamps
        items = columns[np.lexsort((columns, when, histories.row_of_entry))]  # each row's oldest first
        lengths = np.minimum(np.diff(matrix.indptr), self.max_length)
        vectors = np.zeros((len(lengths), self.embedding_dim), np.float32)
        rows = np.argsort(lengths, kind="stable")[np.count_nonzero(lengths == 0) :]
        for chosen in np.split(rows, range(ROWS, len(rows), ROWS)) if len(rows) else ():
            place = np.minimum(np.arange(lengths[chosen].max()), lengths[chosen, None] - 1)
            padded = items[matrix.indptr[chosen + 1, None] - lengths[chosen, None] + place]  # (rows, L)
            places = forward(state, padded, self.blocks)[np.arange(len(chosen)), lengths[chosen] - 1]
            vectors[chosen] = places / np.linalg.norm(places, axis=1, keepdims=True)
        return vectors @ state["items"].T / np.float32(self.temperature)

    def item_vectors(self) -> np.ndarray:
        """Embeddings of all nets side by side, each of length 1."""
        return np.concatenate([state["items"] for state in self.states], axis=1)

    def _attributed(self, state: State, history: Histories, item: int, user: Any) -> dict[str, np.ndarray]:
        """What the score loses without each item (occlusion: Zeiler and Fergus, 2014)."""
        n, whole = history.matrix.nnz, self._scores_of(state, history)[0, item]
        kept = np.nonzero(~np.eye(n, dtype=bool))[1]  # all but the first, all but the second, ...
        parts = history.matrix.data[kept], history.matrix.indices[kept], np.arange(n + 1) * (n - 1)
        without = csr_matrix(parts, shape=(n, history.matrix.shape[1]))
        when = None if history.timestamps is None else history.timestamps[kept]
        return {"history": whole - self._scores_of(state, Histories(without, when))[:, item]}


def forward(state: State, items: np.ndarray, blocks: int) -> np.ndarray:
    """What the net makes of each place of histories, oldest item first, (n, L) int64 to (n, L, dim) float32."""
    length, dim = items.shape[1], state["items"].shape[1]
    x = state["items"][items] * np.float32(np.sqrt(dim)) + state["positions"][:length]
    later = np.triu(np.full((length, length), -np.inf, np.float32), 1)
    for name in (f"blocks.{number}." for number in range(blocks)):
        query, key, value = np.split(linear(state, f"{name}qkv", layer_norm(state, f"{name}before", x)), 3, axis=-1)
        weights = softmax(query @ key.swapaxes(1, 2) / np.float32(np.sqrt(dim)) + later, axis=-1)  # (n, L, L)
        x = x + linear(state, f"{name}out", weights @ value)
        inner = gelu(linear(state, f"{name}up", layer_norm(state, f"{name}between", x)))
        x = x + linear(state, f"{name}down", inner)
    return layer_norm(state, "last", x)
