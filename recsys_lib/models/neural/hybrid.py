"""The net that predicts ratings."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions, codes_of, with_values
from recsys_lib.models.features.pairs import Catalogue, PairFeatures
from recsys_lib.models.neural.base import NeuralModel, numpy_weights
from recsys_lib.models.neural.serving import State, rating_grid, rating_pairs, rating_slopes

PARTS = {  # of the net, that can be left out to see what they are worth: tensors that are then zero for good
    "history": ("seen", "weighted", "raters", "judged"),
    "ids": ("user_id", "item_id", "user_bias", "item_bias"),
    "side features": ("user_map", "item_map"),
    "perceptron": ("last.weight", "last.bias"),
    "product": ("product",),
}
LEAVE_OUT = (*PARTS, "time", "dense features", "leave-one-out")


class NeuralHybrid(NeuralModel):
    """Predict ratings from both histories, IDs, content and the features of the pair.

    A user is an ID embedding, demographics and two normalised sums over the items they rated: one embedding for
    "rated it" and one weighted by how; an item is the same of its raters, with genres and decade. The pair's own rating
    is taken out of both while training (leave-one-out), so the net learns from histories as it will meet them. The
    dense features of :class:`recsys_lib.models.features.pairs.PairFeatures` (shrunk means, spreads, counts, what the
    user thinks of such items, how things stood around then) go in beside.

    - ``embedding_dim``, ``hidden``: width of the vectors, widths of the hidden layers ((256, 128, 64), say).
    - ``epochs``, ``batch_size``, ``lr``, ``schedule``: AdamW with this highest learning rate; a batch is so many
      ratings (None: a fortieth of them, at least 2,000).
    - ``decay``: weight decay of embeddings; a step shrinks them by ``lr * decay``.
    - ``dropout``, ``vector_dropout``: share of hidden units, and of the vectors' coordinates, that is hidden in
      training.
    - ``history_dropout``: share of rows whose user (and, apart from that, whose item) is shown as unknown: no ID, no
      history. This is what makes predictions for new users and items sound.
    - ``batch_norm``: normalise hidden layers over the batch.
    - ``without``: parts left out, to see what they are worth: see :data:`LEAVE_OUT`.
    - ``patience``: epochs without a better validation value after which training stops (needs ``validate`` in ``fit``).
    - ``n_models``, ``seed``, ``device``: as in :class:`.base.NeuralModel`.

    Y. Koren, "Factorization meets the neighborhood", KDD 2008 (sums over histories).
    """

    embedding_dim: int = 64
    hidden: tuple[int, ...] = (256, 128)
    epochs: int = 6
    batch_size: int | None = None
    lr: float = 3e-3
    schedule: str = "onecycle"
    decay: float = 6.7
    dropout: float = 0.3
    vector_dropout: float = 0.25
    history_dropout: float = 0.01
    batch_norm: bool = False
    without: tuple[str, ...] = ()
    patience: int | None = None
    predicts_ratings: ClassVar[bool] = True
    rest: ClassVar[tuple[str, str]] = "start", "mean of all ratings"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hidden, self.without = tuple(self.hidden), tuple(self.without)
        for part in self.without:
            if part not in LEAVE_OUT:
                raise ValueError(f"without has {part!r}; what can be left out is {', '.join(LEAVE_OUT)}")

    # ---- training --------------------------------------------------------------------------------------------

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None, **how: Any) -> None:
        if np.ptp(train.matrix.data) == 0:
            raise ValueError("NeuralHybrid predicts ratings, and these are all alike; use NeuralRanker")
        self.catalogue_ = vars(Catalogue.of(train, items, users))
        self._train_nets(**how)

    @cached_property
    def catalogue(self) -> Catalogue:
        """All users and items that have a vector, and their content."""
        return Catalogue(**self.catalogue_)

    @cached_property
    def features(self) -> PairFeatures:
        """The dense features of pairs, fitted on :attr:`train`."""
        return PairFeatures(self.train, self.catalogue, self.without)

    def _learning(self, device: Any) -> tuple[Any, list[dict], Any, Callable]:
        from recsys_lib.models.neural import nets

        net, size = nets.RatingNet(self, device), self.batch_size or max(2000, self.train.matrix.nnz // 40)
        groups = nets.groups(net, PARTS["ids"] + PARTS["history"], self.decay, others=0.01)
        return net, groups, nets.Pairs(self.features.training(), size, device), nets.squared_loss

    def _state(self, net: Any) -> State:
        """Embeddings, finished vectors of all items, the layers with batch norm folded into them."""
        known, weights = self.features, numpy_weights(net)
        left_out = "user_side", "item_side", "raters", "judged", "item_id", "item_map"
        state = {k: v for k, v in weights.items() if k not in left_out and not k.startswith("norms.")}
        rated = with_values(known.matrix, np.ones(known.matrix.nnz)).T @ weights["raters"]
        judged = with_values(known.matrix, known.items.gaps).T @ weights["judged"]
        counts = known.items.sums["count"][:, None]
        history = (rated + judged) / np.sqrt(counts + 1) + weights["item_id"]
        content = self.catalogue.item_content @ weights["item_map"]
        state["items"] = (content + (counts > 0) * history).astype(np.float32)
        state["item_bias"] = state["item_bias"] * (counts[:, 0] > 0)
        for number in range(len(self.hidden) if self.batch_norm else 0):
            layer, norm = f"layers.{number}", f"norms.{number}"
            gain = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + 1e-5)
            shifted = (weights[f"{layer}.bias"] - weights[f"{norm}.running_mean"]) * gain
            state[f"{layer}.weight"] = weights[f"{layer}.weight"] * gain[:, None]
            state[f"{layer}.bias"] = shifted + weights[f"{norm}.bias"]
        return state

    # ---- serving ---------------------------------------------------------------------------------------------

    def _vectors(
        self, state: State, matrix: csr_matrix, gaps: np.ndarray, codes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors and biases of users: rows of history, who they are (a code, or -1), (n, dim) and (n,)."""
        seen, weighted = (with_values(matrix, values.astype(np.float32)) for values in (np.ones(matrix.nnz), gaps))
        counts = np.diff(matrix.indptr)
        vectors = (seen @ state["seen"] + weighted @ state["weighted"]) / np.sqrt(counts + 1)[:, None]
        here, some = codes >= 0, counts > 0
        vectors += (here & some)[:, None] * state["user_id"][codes]
        vectors += here[:, None] * (self.catalogue.user_content @ state["user_map"])[codes]
        return vectors.astype(np.float32), (here & some) * state["user_bias"][codes]

    def pair_vectors(self, state: State, users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, ...]:
        """Vectors of users and items, (n, dim) each, and both biases, (n,) each, by code; zeros for code -1."""
        known = self.features
        vectors, bias = self._vectors(state, known.matrix, known.users.gaps, np.arange(known.matrix.shape[0]))
        sides = (users, vectors, bias), (items, state["items"], state["item_bias"])
        (u, user_bias), (v, item_bias) = (
            (np.where(codes[:, None] >= 0, rows[codes], np.float32(0)), np.where(codes >= 0, biases[codes], 0))
            for codes, rows, biases in sides
        )
        return u, v, user_bias, item_bias

    def predict(self, user_ids: Any, item_ids: Any, timestamps: Any = None) -> np.ndarray:
        """Predict the rating of each pair, on the data's own scale, (n,) float64.

        - ``user_ids``, ``item_ids``: pairs; an id without ratings is predicted from its side features, an unknown one
          from the rest.
        - ``timestamps``, seconds: when each rating is given; by default after everything in the training data. Ratings
          that lie between those of the training data (a random split, say) are predicted worse without it.
        """
        ratings = self._known.matrix.data
        users, items = self.catalogue.codes(user_ids, item_ids)
        dense = self.features.pairs(users, items, None if timestamps is None else np.asarray(timestamps, np.int64))
        total = np.zeros(len(users))
        for state in self.states:
            u, v, user_bias, item_bias = self.pair_vectors(state, users, items)
            total += rating_pairs(state, u, v, dense) + user_bias + item_bias
        return np.clip(self.features.mean + total / len(self.states), ratings.min(), ratings.max())

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        known = self.features
        matrix, side = known.widened(histories)
        codes = np.full(matrix.shape[0], -1) if users is None else codes_of(users, self.catalogue.user_ids)
        user, item, pair = known.grid(matrix, side)
        total = np.zeros((matrix.shape[0], self.train.n_items), np.float32)
        for state in self.states:
            vectors, bias = self._vectors(state, matrix, side.gaps, codes)
            total += rating_grid(state, vectors, state["items"][known.columns], user, item, pair)
            total += bias[:, None] + state["item_bias"][known.columns]
        return known.mean + total / len(self.states)

    def item_vectors(self) -> np.ndarray:
        """Vectors of the items, those of all nets side by side."""
        return np.concatenate([state["items"][self.features.columns] for state in self.states], axis=1)

    # ---- explanations ----------------------------------------------------------------------------------------

    def _attributed(self, state: State, history: Histories, item: int, user: Any) -> dict[str, np.ndarray]:
        known, dim = self.features, self.embedding_dim
        matrix, side = known.widened(history)
        code = -1 if user is None else int(codes_of([user], self.catalogue.user_ids)[0])
        column = known.columns[item]
        of_user, of_items, of_pair = known.grid(matrix, side)
        dense = np.concatenate([of_user[0], of_items[item], [values[0, item] for values in of_pair]])
        u, bias = self._vectors(state, matrix, side.gaps, np.array([code]))
        slopes = rating_slopes(state, np.concatenate([u[0], state["items"][column], dense]), dim)
        of_u, of_v, of_dense = np.split(slopes, [dim, 2 * dim])
        rated = state["seen"][matrix.indices] + side.gaps[:, None] * state["weighted"][matrix.indices]
        of_history = rated @ of_u / np.sqrt(matrix.nnz + 1)
        traits = (code >= 0) * self.catalogue.user_content[code] * (state["user_map"] @ of_u)
        return {
            "history": of_history,
            "traits": traits,
            "user": u[0] @ of_u - of_history.sum() - traits.sum() + bias[0],
            "item": state["items"][column] @ of_v + state["item_bias"][column],
            "dense": of_dense * dense,
        }

    def _reasons(self, parts: dict[str, np.ndarray], item_id: Any) -> list[tuple[str, str, Any, float]]:
        traits = zip(self.catalogue.user_names, parts["traits"], strict=True)
        return [
            *(("user", name, None, value) for name, value in traits if value),
            ("user", "who they are (ID)", None, parts["user"]),
            ("item", "its vector", item_id, parts["item"]),
            *(("features", name, None, v) for name, v in zip(self.features.names(), parts["dense"], strict=True)),
        ]
