"""The net that predicts ratings, and the one that ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions, codes_of
from recsys_lib.models.base import Recommender
from recsys_lib.models.neural.knowledge import Catalogue, Knowledge
from recsys_lib.models.neural.ranker import NeuralRanker
from recsys_lib.models.neural.serving import State, rating_grid, rating_pairs, rating_slopes
from recsys_lib.models.neural.side import item_features, user_features
from recsys_lib.models.neural.states import fingerprint

__all__ = ["LEAVE_OUT", "NeuralHybrid", "NeuralRanker"]

IN_NET = ("history", "ids", "side features", "perceptron", "product")
LEAVE_OUT = (*IN_NET, "time", "dense features", "leave-one-out")


class NeuralHybrid(Recommender):
    """Predict ratings from both histories, IDs, side features and what they say of each other.

    A person is an ID embedding, side features and two normalised sums over the films they rated: one embedding for
    "rated it" and one weighted by how; a film is the same of its raters. The pair's own rating is taken out of both
    while training (leave-one-out), so the net learns from histories as it will meet them. Some dense features
    (shrunk means, spreads, counts, what the person thinks of such films, how things stood around then) go in beside.
    The sums over histories follow Koren, "Factorization meets the neighborhood" (2008).

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
        Share of rows whose person (and, apart from that, whose film) is shown as unknown: no ID, no history. This is
        what makes predictions for newcomers sound.
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
    """

    predicts_ratings = True

    def __init__(
        self,
        embedding_dim: int = 64,
        hidden: tuple[int, ...] = (256, 128),
        epochs: int = 6,
        batch_size: int | None = None,
        lr: float = 3e-3,
        schedule: str = "onecycle",
        decay: float = 6.7,
        dropout: float = 0.3,
        vector_dropout: float = 0.25,
        history_dropout: float = 0.01,
        batch_norm: bool = False,
        without: tuple[str, ...] = (),
        patience: int | None = None,
        n_models: int = 1,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.embedding_dim = embedding_dim
        self.hidden = tuple(hidden)
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.schedule = schedule
        self.decay = decay
        self.dropout = dropout
        self.vector_dropout = vector_dropout
        self.history_dropout = history_dropout
        self.batch_norm = batch_norm
        self.without = tuple(without)
        for part in self.without:
            if part not in LEAVE_OUT:
                raise ValueError(f"without has {part!r}; what can be left out is {', '.join(LEAVE_OUT)}")
        self.patience = patience
        self.n_models = n_models
        self.seed = seed
        self.device = device

    # ---- training --------------------------------------------------------------------------------------------

    def fit(
        self,
        train: Interactions,
        *,
        items: pd.DataFrame | None = None,
        users: pd.DataFrame | None = None,
        validate: Any = None,
        checkpoint: Path | str | None = None,
        progress: bool = False,
    ) -> NeuralHybrid:
        """Learn from ratings.

        Parameters
        ----------
        validate : callable, optional
            ``(model) -> value``, smaller is better (an RMSE), called after every epoch; kept in ``log``.
        checkpoint
            Folder to resume from and to write to.
        progress
            Show a progress bar.

        Raises
        ------
        ValueError
            If all ratings are alike: implicit feedback has nothing to predict.
        """
        self._options = {"validate": validate, "checkpoint": checkpoint, "progress": progress}
        try:
            return super().fit(train, items=items, users=users)
        finally:
            del self._options

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        if np.ptp(train.matrix.data) == 0:
            raise ValueError("NeuralHybrid predicts ratings, and these are all alike; use NeuralRanker")
        self.catalogue = Catalogue.of(train, items, users)
        self.knowledge = Knowledge(train, self.catalogue, self.without)
        self.user_side_, self.people_names = user_features(users, self.catalogue.user_ids)
        self.item_side_, self.film_names = item_features(items, self.catalogue.item_ids)
        self.states: list[State] = []
        self.log: list[dict] = []
        for number in range(self.n_models):
            self._fit_one(number)

    def _fit_one(self, number: int) -> None:
        """Train one net and keep what serving needs of it."""
        from recsys_lib.models.neural.rating_net import Pairs, squared_loss
        from recsys_lib.models.neural.training import Plan, Task, choose_device
        from recsys_lib.models.neural.training import train as run

        seed, device = self.seed + 1000 * number, choose_device(self.device)
        net = self._net(seed, device)
        size = self.batch_size or max(2000, self.train.matrix.nnz // 40)
        pairs = Pairs(self.knowledge.training(), size, device)
        task = Task(net, net.groups(self.decay), pairs, pairs.steps, squared_loss)
        validate, folder = self._options["validate"], self._options["checkpoint"]
        if validate is not None:
            task.validate = lambda module: validate(self._with([*self.states, self._state(module)]))
        chosen = {name: value for name, value in self.params().items() if name not in ("epochs", "device")}
        task.identity = {"data": fingerprint(self.train), **chosen}
        plan = Plan(
            self.epochs, self.lr, self.schedule, clip=5.0, patience=self.patience, seed=seed, device=self.device
        )
        log = run(
            task,
            plan,
            checkpoint=None if folder is None else Path(folder) / f"{number}",
            progress=f"NeuralHybrid {number + 1}/{self.n_models}" if self._options["progress"] else None,
        )
        self.states.append(self._state(net))
        self.log += [{"model": number, **row} for row in log]

    def _net(self, seed: int, device: Any) -> Any:
        """A net with fresh weights."""
        import torch

        from recsys_lib.models.neural.rating_net import RatingNet, Sums

        known = self.knowledge
        sums = Sums.of(known.matrix, known.people.gaps, known.films.gaps, device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = RatingNet(
                self.user_side_,
                self.item_side_,
                sums,
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
        return net

    def _with(self, states: list[State]) -> NeuralHybrid:
        """A copy of this model that serves with these states."""
        copy = NeuralHybrid(**self.params())
        vars(copy).update(vars(self))
        copy.states = states
        return copy

    def _state(self, net: Any) -> State:
        """What serving needs of a trained net: embeddings, finished vectors of all films, the layers."""
        weights = {name: value.detach().cpu().numpy().copy() for name, value in net.state_dict().items()}
        state = {k: v for k, v in weights.items() if k not in ("user_side", "item_side", "raters", "judged")}
        known = self.knowledge
        turned = {}
        for name, values in (("raters", np.ones(known.matrix.nnz)), ("judged", known.films.gaps)):
            filled = csr_matrix((values, known.matrix.indices, known.matrix.indptr), shape=known.matrix.shape)
            turned[name] = filled.T.tocsr() @ weights[name]
        counts = known.films.sums["count"]
        history, rated = turned["raters"] + turned["judged"], (counts > 0)[:, None]
        state["films"] = (
            self.item_side_ @ weights["item_map"]
            + rated * (history / np.sqrt(counts + 1)[:, None] + weights["item_id"])
        ).astype(np.float32)
        state["item_bias"] = state["item_bias"] * rated[:, 0]
        del state["item_id"], state["item_map"]
        return state

    # ---- serving ---------------------------------------------------------------------------------------------

    def _vectors(
        self, state: State, matrix: csr_matrix, gaps: np.ndarray, codes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors and biases of people: rows of history, who they are (a code, or -1), (n, dim) and (n,)."""
        seen = csr_matrix((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
        felt = csr_matrix((gaps.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
        counts = np.diff(matrix.indptr)
        vectors = (seen @ state["seen"] + felt @ state["felt"]) / np.sqrt(counts + 1)[:, None]
        here, some = codes >= 0, counts > 0
        vectors += (here & some)[:, None] * state["user_id"][codes]
        vectors += here[:, None] * (self.user_side_ @ state["user_map"])[codes]
        return vectors.astype(np.float32), (here & some) * state["user_bias"][codes]

    def _people(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Vectors and biases of all people, with a row of zeros at the end for those that nobody knows."""
        known = self.knowledge
        codes = np.arange(len(self.catalogue.user_ids))
        vectors, bias = self._vectors(state, known.matrix, known.people.gaps, codes)
        return np.vstack([vectors, np.zeros((1, vectors.shape[1]), np.float32)]), np.append(bias, np.float32(0))

    def _codes(self, user_ids: Any, item_ids: Any) -> tuple[np.ndarray, np.ndarray]:
        """Codes in the catalogue; -1 for ids that nobody knows."""
        return codes_of(user_ids, self.catalogue.user_ids), codes_of(item_ids, self.catalogue.item_ids)

    def predict(self, user_ids: Any, item_ids: Any, timestamps: Any = None) -> np.ndarray:
        """Predict the rating of each pair, on the data's own scale, (n,) float64.

        Parameters
        ----------
        user_ids, item_ids
            Pairs; an id without ratings is predicted from its side features, one that nobody knows from the rest.
            :meth:`predict_table` says which is which.
        timestamps : array of seconds, optional
            When each rating is given; by default after everything in the training data. Ratings that lie between
            those of the training data (a random split, say) are predicted worse without it.
        """
        users, items = self._codes(user_ids, item_ids)
        if len(users) == 0:
            return np.zeros(0)
        dense = self.knowledge.pairs(users, items, None if timestamps is None else np.asarray(timestamps, np.int64))
        total = np.zeros(len(users))
        for state in self.states:
            people, bias = self._people(state)
            films = np.vstack([state["films"], np.zeros((1, self.embedding_dim), np.float32)])
            film_bias = np.append(state["item_bias"], np.float32(0))
            total += rating_pairs(state, people[users], films[items], dense) + bias[users] + film_bias[items]
        ratings = self.train.matrix.data
        return np.clip(self.knowledge.mean + total / len(self.states), ratings.min(), ratings.max())

    def predict_table(self, user_ids: Any, item_ids: Any, timestamps: Any = None) -> pd.DataFrame:
        """Predictions with what they rest on: user_id, item_id, predicted, known_user, known_item (has ratings)."""
        known_user, known_item = self.knowledge.rated(*self._codes(user_ids, item_ids))
        predicted = self.predict(user_ids, item_ids, timestamps)
        ids = {"user_id": np.asarray(user_ids), "item_id": np.asarray(item_ids)}
        return pd.DataFrame({**ids, "predicted": predicted, "known_user": known_user, "known_item": known_item})

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        known = self.knowledge
        matrix, side = known.widened(histories)
        codes = np.full(matrix.shape[0], -1) if users is None else codes_of(users, self.catalogue.user_ids)
        grid = known.grid(matrix, side)
        total = np.zeros((matrix.shape[0], self.train.n_items), np.float32)
        for state in self.states:
            vectors, bias = self._vectors(state, matrix, side.gaps, codes)
            total += rating_grid(state, vectors, state["films"][known.columns], grid.person, grid.film, grid.pair)
            total += bias[:, None] + state["item_bias"][known.columns]
        return known.mean + total / len(self.states)

    def item_vectors(self) -> np.ndarray:
        """Vectors of the films, those of all nets side by side."""
        return np.concatenate([state["films"][self.knowledge.columns] for state in self.states], axis=1)

    # ---- explanations ----------------------------------------------------------------------------------------

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        parts = [self._attributed(state, history, item, user)["history"] for state in self.states]
        return np.mean(parts, axis=0)

    def _attributed(self, state: State, history: Histories, item: int, user: Any) -> dict[str, np.ndarray]:
        """What each input adds to the score of column ``item`` under one net, by part; see :meth:`parts`."""
        known, dim = self.knowledge, self.embedding_dim
        matrix, side = known.widened(history)
        code = -1 if user is None else int(codes_of(np.array([user]), self.catalogue.user_ids)[0])
        column = int(known.columns[item])
        grid = known.grid(matrix, side)
        dense = np.concatenate([grid.person[0], grid.film[item], [values[0, item] for values in grid.pair]])
        u, bias = self._vectors(state, matrix, side.gaps, np.array([code]))
        slopes = rating_slopes(state, np.concatenate([u[0], state["films"][column], dense]), dim)
        rated = state["seen"][matrix.indices] + side.gaps[:, None] * state["felt"][matrix.indices]
        history_part = rated @ slopes[:dim] / np.sqrt(matrix.nnz + 1)
        traits = np.zeros(len(self.people_names))
        if code >= 0:
            traits = self.user_side_[code] * (state["user_map"] @ slopes[:dim])
        person = float(u[0] @ slopes[:dim]) - history_part.sum() - traits.sum() + float(bias[0])
        film = float(state["films"][column] @ slopes[dim : 2 * dim]) + float(state["item_bias"][column])
        return {
            "history": history_part,
            "traits": traits,
            "person": np.array([person]),
            "film": np.array([film]),
            "dense": slopes[2 * dim :] * dense,
        }

    def parts(self, user_or_history: Any, item_id: Any) -> pd.DataFrame:
        """All that moved a predicted rating, additive: part, reason, item_id, contribution (stars), largest first.

        Parts are "history" (a line a film the person rated), "person" (ID, demographics), "film" (its raters, ID,
        genres), "features" (a line a dense feature) and "start" (the mean, and what the net says of zeros). The
        contributions sum to the score, which is the predicted rating before it is clipped to the scale.
        """
        history, user, column = self._asked(user_or_history, item_id)
        found = [self._attributed(state, history, column, user) for state in self.states]
        means = {name: np.mean([each[name] for each in found], axis=0) for name in found[0]}
        score = float(self.score(history, None if user is None else [user])[0, column])
        ids = self.train.item_ids[history.matrix.indices]
        rows = [("history", "rated", i, value) for i, value in zip(ids, means["history"], strict=True)]
        rows += [("person", name, None, v) for name, v in zip(self.people_names, means["traits"], strict=True) if v]
        rows += [
            ("person", "who they are (ID)", None, means["person"][0]),
            ("film", "its vector", item_id, means["film"][0]),
        ]
        rows += [("features", name, None, v) for name, v in zip(self.knowledge.names(), means["dense"], strict=True)]
        rows.append(("start", "mean of all ratings", None, score - sum(row[3] for row in rows)))
        table = pd.DataFrame(rows, columns=["part", "reason", "item_id", "contribution"])
        return table.sort_values("contribution", key=np.abs, ascending=False, kind="stable", ignore_index=True)

    # ---- on disk ---------------------------------------------------------------------------------------------

    def _learnt(self) -> dict[str, Any]:
        kept = {"catalogue": vars(self.catalogue), "states": self.states, "log": self.log}
        return {**super()._learnt(), **kept, "film_names": self.film_names, "people_names": self.people_names}

    def _restore(self, learnt: dict[str, Any]) -> None:
        self.catalogue = Catalogue(**learnt.pop("catalogue"))
        super()._restore(learnt)
        self.knowledge = Knowledge(self.train, self.catalogue, self.without)
