"""The net that predicts ratings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions, codes_of
from recsys_lib.models.features.pairs import Catalogue, PairFeatures
from recsys_lib.models.neural.base import NeuralModel, State, numpy_weights
from recsys_lib.models.neural.serving import rating_grid, rating_pairs, rating_slopes

if TYPE_CHECKING:
    from recsys_lib.models.neural.training import Plan, Task

IN_NET = ("history", "ids", "side features", "perceptron", "product")
LEAVE_OUT = (*IN_NET, "time", "dense features", "leave-one-out")


@dataclass(kw_only=True, eq=False, repr=False)
class NeuralHybrid(NeuralModel):
    """Predict ratings from both histories, IDs, content and the features of the pair.

    A user is an ID embedding, demographics and two normalised sums over the items they rated: one embedding for
    "rated it" and one weighted by how; an item is the same of its raters, with genres and decade. The pair's own rating
    is taken out of both while training (leave-one-out), so the net learns from histories as it will meet them. The
    dense features of :class:`recsys_lib.models.features.pairs.PairFeatures` (shrunk means, spreads, counts, what the
    user thinks of such items, how things stood around then) go in beside.

    Parameters
    ----------
    embedding_dim, hidden
        Width of the vectors, widths of the hidden layers ((256, 128, 64), say).
    epochs, batch_size, lr, schedule
        AdamW with this highest learning rate; a batch is so many ratings (None: a fortieth of them, at least 2,000).
    decay
        Weight decay of embeddings; a step shrinks them by ``lr * decay``.
    dropout, vector_dropout
        Share of hidden units, and of the vectors' coordinates, that is hidden in training.
    history_dropout
        Share of rows whose user (and, apart from that, whose item) is shown as unknown: no ID, no history. This is
        what makes predictions for new users and items sound.
    batch_norm
        Normalise hidden layers over the batch.
    without
        Parts left out, to see what they are worth: see :data:`LEAVE_OUT`.
    patience
        Epochs without a better validation value after which training stops (needs ``validate`` in ``fit``).
    n_models
        Nets with seeds of their own whose predictions are averaged.
    seed, device
        Start of all randomness; "auto", "cpu", "cuda", "mps".

    References
    ----------
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

    def __post_init__(self) -> None:
        self.hidden, self.without = tuple(self.hidden), tuple(self.without)
        for part in self.without:
            if part not in LEAVE_OUT:
                raise ValueError(f"without has {part!r}; what can be left out is {', '.join(LEAVE_OUT)}")

    # ---- training --------------------------------------------------------------------------------------------

    def _prepare(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        if np.ptp(train.matrix.data) == 0:
            raise ValueError("NeuralHybrid predicts ratings, and these are all alike; use NeuralRanker")
        self.catalogue = Catalogue.of(train, items, users)
        self.features = PairFeatures(train, self.catalogue, self.without)

    def _task(self, seed: int) -> tuple[Task, Plan]:
        import torch

        from recsys_lib.models.neural.rating_net import Lists, Pairs, RatingNet, squared_loss
        from recsys_lib.models.neural.training import Plan, Task, choose_device

        known, device = self.features, choose_device(self.device)
        by_user, by_item = (
            csr_matrix((gaps, known.matrix.indices, known.matrix.indptr), shape=known.matrix.shape)
            for gaps in (known.users.gaps, known.items.gaps)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = RatingNet(
                self.catalogue.user_content,
                self.catalogue.item_content,
                (Lists.of(by_user, device), Lists.of(by_item.T.tocsr(), device)),
                known.blocks(),
                dim=self.embedding_dim,
                hidden=self.hidden,
                dropout=self.dropout,
                vector_dropout=self.vector_dropout,
                cold=self.history_dropout,
                batch_norm=self.batch_norm,
            )
        for part in IN_NET:
            if part in self.without:
                net.leave_out(part)
        pairs = Pairs(known.training(), self.batch_size or max(2000, known.matrix.nnz // 40), device)
        plan = Plan(self.epochs, self.lr, self.schedule, 5.0, patience=self.patience, seed=seed, device=self.device)
        return Task(net, net.groups(self.decay), pairs, pairs.steps, squared_loss), plan

    def _state(self, net: Any) -> State:
        """Embeddings, finished vectors of all items, the layers."""
        weights = numpy_weights(net)
        state = {k: v for k, v in weights.items() if k not in ("user_side", "item_side", "raters", "judged")}
        known = self.features
        history = np.zeros_like(weights["item_id"])
        for name, values in (("raters", np.ones(known.matrix.nnz)), ("judged", known.items.gaps)):
            filled = csr_matrix((values, known.matrix.indices, known.matrix.indptr), shape=known.matrix.shape)
            history = history + filled.T.tocsr() @ weights[name]
        counts = known.items.sums["count"]
        rated = (counts > 0)[:, None]
        state["items"] = (
            self.catalogue.item_content @ weights["item_map"]
            + rated * (history / np.sqrt(counts + 1)[:, None] + weights["item_id"])
        ).astype(np.float32)
        state["item_bias"] = state["item_bias"] * rated[:, 0]
        del state["item_id"], state["item_map"]
        return state

    # ---- serving ---------------------------------------------------------------------------------------------

    def _vectors(
        self, state: State, matrix: csr_matrix, gaps: np.ndarray, codes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors and biases of users: rows of history, who they are (a code, or -1), (n, dim) and (n,)."""
        seen = csr_matrix((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
        weighted = csr_matrix((gaps.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
        counts = np.diff(matrix.indptr)
        vectors = (seen @ state["seen"] + weighted @ state["weighted"]) / np.sqrt(counts + 1)[:, None]
        here, some = codes >= 0, counts > 0
        vectors += (here & some)[:, None] * state["user_id"][codes]
        vectors += here[:, None] * (self.catalogue.user_content @ state["user_map"])[codes]
        return vectors.astype(np.float32), (here & some) * state["user_bias"][codes]

    def _user_vectors(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Vectors and biases of all users, with a row of zeros at the end for unknown ones."""
        known = self.features
        codes = np.arange(len(self.catalogue.user_ids))
        vectors, bias = self._vectors(state, known.matrix, known.users.gaps, codes)
        return np.vstack([vectors, np.zeros((1, vectors.shape[1]), np.float32)]), np.append(bias, np.float32(0))

    def _codes(self, user_ids: Any, item_ids: Any) -> tuple[np.ndarray, np.ndarray]:
        """Codes in the catalogue; -1 for unknown ids."""
        return codes_of(user_ids, self.catalogue.user_ids), codes_of(item_ids, self.catalogue.item_ids)

    def predict(self, user_ids: Any, item_ids: Any, timestamps: Any = None) -> np.ndarray:
        """Predict the rating of each pair, on the data's own scale, (n,) float64.

        Parameters
        ----------
        user_ids, item_ids
            Pairs; an id without ratings is predicted from its side features, an unknown one from the rest.
        timestamps : array of seconds, optional
            When each rating is given; by default after everything in the training data. Ratings that lie between
            those of the training data (a random split, say) are predicted worse without it.
        """
        users, items = self._codes(user_ids, item_ids)
        if len(users) == 0:
            return np.zeros(0)
        dense = self.features.pairs(users, items, None if timestamps is None else np.asarray(timestamps, np.int64))
        total = np.zeros(len(users))
        for state in self.states:
            vectors, bias = self._user_vectors(state)
            items_ = np.vstack([state["items"], np.zeros((1, self.embedding_dim), np.float32)])
            item_bias = np.append(state["item_bias"], np.float32(0))
            total += rating_pairs(state, vectors[users], items_[items], dense) + bias[users] + item_bias[items]
        ratings = self.train.matrix.data
        return np.clip(self.features.mean + total / len(self.states), ratings.min(), ratings.max())

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        known = self.features
        matrix, side = known.widened(histories)
        codes = np.full(matrix.shape[0], -1) if users is None else codes_of(users, self.catalogue.user_ids)
        grid = known.grid(matrix, side)
        total = np.zeros((matrix.shape[0], self.train.n_items), np.float32)
        for state in self.states:
            vectors, bias = self._vectors(state, matrix, side.gaps, codes)
            total += rating_grid(state, vectors, state["items"][known.columns], grid.user, grid.item, grid.pair)
            total += bias[:, None] + state["item_bias"][known.columns]
        return known.mean + total / len(self.states)

    def item_vectors(self) -> np.ndarray:
        """Vectors of the items, those of all nets side by side."""
        return np.concatenate([state["items"][self.features.columns] for state in self.states], axis=1)

    # ---- explanations ----------------------------------------------------------------------------------------

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        parts = [self._attributed(state, history, item, user)["history"] for state in self.states]
        return np.mean(parts, axis=0)

    def _attributed(self, state: State, history: Histories, item: int, user: Any) -> dict[str, np.ndarray]:
        """What each input adds to the score of column ``item`` under one net, by part; see :meth:`parts`."""
        known, dim = self.features, self.embedding_dim
        matrix, side = known.widened(history)
        code = -1 if user is None else int(codes_of(np.array([user]), self.catalogue.user_ids)[0])
        column = int(known.columns[item])
        grid = known.grid(matrix, side)
        dense = np.concatenate([grid.user[0], grid.item[item], [values[0, item] for values in grid.pair]])
        u, bias = self._vectors(state, matrix, side.gaps, np.array([code]))
        slopes = rating_slopes(state, np.concatenate([u[0], state["items"][column], dense]), dim)
        rated = state["seen"][matrix.indices] + side.gaps[:, None] * state["weighted"][matrix.indices]
        history_part = rated @ slopes[:dim] / np.sqrt(matrix.nnz + 1)
        traits = np.zeros(len(self.catalogue.user_names))
        if code >= 0:
            traits = self.catalogue.user_content[code] * (state["user_map"] @ slopes[:dim])
        own = float(u[0] @ slopes[:dim]) - history_part.sum() - traits.sum() + float(bias[0])
        other = float(state["items"][column] @ slopes[dim : 2 * dim]) + float(state["item_bias"][column])
        return {
            "history": history_part,
            "traits": traits,
            "user": np.array([own]),
            "item": np.array([other]),
            "dense": slopes[2 * dim :] * dense,
        }

    def parts(self, user_or_history: Any, item_id: Any) -> pd.DataFrame:
        """All that moved a predicted rating, additive: part, reason, item_id, contribution (stars), largest first.

        Parts are "history" (a line an item the user rated), "user" (ID, demographics), "item" (its raters, ID,
        genres), "features" (a line a dense feature) and "start" (the mean, and what the net says of zeros). The
        contributions sum to the score, which is the predicted rating before it is clipped to the scale.
        """
        history, user, column = self._asked(user_or_history, item_id)
        found = [self._attributed(state, history, column, user) for state in self.states]
        means = {name: np.mean([each[name] for each in found], axis=0) for name in found[0]}
        score = float(self.score(history, None if user is None else [user])[0, column])
        ids = self.train.item_ids[history.matrix.indices]
        rows = [("history", "rated", i, value) for i, value in zip(ids, means["history"], strict=True)]
        rows += [
            ("user", name, None, v) for name, v in zip(self.catalogue.user_names, means["traits"], strict=True) if v
        ]
        rows += [
            ("user", "who they are (ID)", None, means["user"][0]),
            ("item", "its vector", item_id, means["item"][0]),
        ]
        rows += [("features", name, None, v) for name, v in zip(self.features.names(), means["dense"], strict=True)]
        rows.append(("start", "mean of all ratings", None, score - sum(row[3] for row in rows)))
        return self._parts_table(rows)

    # ---- on disk ---------------------------------------------------------------------------------------------

    def _learnt(self) -> dict[str, Any]:
        return {**super()._learnt(), "catalogue": vars(self.catalogue)}

    def _restore(self, learnt: dict[str, Any]) -> None:
        self.catalogue = Catalogue(**learnt.pop("catalogue"))
        super()._restore(learnt)
        self.features = PairFeatures(self.train, self.catalogue, self.without)
