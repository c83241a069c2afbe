"""The net that predicts ratings, and the one that ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys_lib.files import read_json, write_json
from recsys_lib.interactions import Histories, Interactions
from recsys_lib.models.base import Recommender
from recsys_lib.models.neural.serving import State, rating_grid, rating_pairs
from recsys_lib.models.neural.side import genre_flags, item_features, user_features
from recsys_lib.models.neural.states import fingerprint, read_states, write_states
from recsys_lib.models.neural.tables import SIDE_NAMES, Affinity, Side, shrunk_means
from recsys_lib.models.neural_ranker import NeuralRanker

__all__ = ["NeuralHybrid", "NeuralRanker"]

USER_WINDOW, ITEM_WINDOW = 5, 15  # entries on either side in time that make up "around then"


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
    patience
        Epochs without a better validation value after which training stops (needs ``validate`` in ``fit``).
    n_models
        Nets with seeds of their own whose predictions are averaged.
    seed, device
        Start of all randomness; "auto", "cpu", "cuda", "mps".
    """

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
        history_dropout: float = 0.02,
        batch_norm: bool = False,
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
        self._know(train, items, users)
        self.user_side_, self.people_names = user_features(users, self.user_ids_)
        self.item_side_, self.film_names = item_features(items, self.item_ids_)
        self._prepare()
        self.states: list[State] = []
        self.log: list[dict] = []
        for number in range(self.n_models):
            self._fit_one(number)

    def _know(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        """Ids that get a vector: those with ratings and those that only stand in the tables."""
        self.user_ids_ = train.user_ids if users is None else np.union1d(train.user_ids, users["user_id"].to_numpy())
        self.item_ids_ = train.item_ids if items is None else np.union1d(train.item_ids, items["item_id"].to_numpy())
        if self.user_ids_.dtype.hasobject or self.item_ids_.dtype.hasobject:
            self.user_ids_, self.item_ids_ = self.user_ids_.astype(str), self.item_ids_.astype(str)
        self.genres_ = genre_flags(items, self.item_ids_)[0]
        self.decades_ = self._decades(items)

    def _decades(self, items: pd.DataFrame | None) -> np.ndarray:
        """Flags of decades, (n_items, decades) float32."""
        if items is None:
            return np.zeros((len(self.item_ids_), 0), np.float32)
        features, names = item_features(items, self.item_ids_)
        return features[:, [name.startswith("decade") for name in names]]

    def _prepare(self) -> None:
        """Sums over the histories of both sides, from ``train``; done again after loading."""
        from recsys_lib.interactions import codes_of

        train = self.train
        self._columns = codes_of(train.item_ids, self.item_ids_)
        rows = codes_of(train.user_ids, self.user_ids_)[train.row_of_entry]
        columns, ratings = self._columns[train.matrix.indices], train.matrix.data.astype(np.float64)
        self._mean = float(ratings.mean())
        self._item_means = shrunk_means(columns, ratings, len(self.item_ids_), self._mean)
        user_means = shrunk_means(rows, ratings, len(self.user_ids_), self._mean)
        counts = np.bincount(rows, minlength=len(self.user_ids_))
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        shape = (len(self.user_ids_), len(self.item_ids_))
        self._matrix = csr_matrix((train.matrix.data, columns.astype(np.int32), indptr), shape=shape)
        self._spread = float(np.std(ratings - self._item_means[columns]))
        times = train.timestamps
        self._clock = (0.0, 1.0) if times is None else (float(times.mean()), float(np.ptp(times)) or 1.0)
        self._people = self._side(self._matrix, times)
        spread = float(np.std(ratings - user_means[rows]))
        self._films = Side(
            columns, ratings - user_means[rows], ratings - self._mean, shape[1], times, spread, ITEM_WINDOW
        )
        self._tastes = self._affinities(self._matrix, self._people.gaps)

    def _side(self, matrix: csr_matrix, times: np.ndarray | None) -> Side:
        """People, as rows of a matrix whose columns are ``item_ids_``."""
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        ratings = matrix.data.astype(np.float64)
        gaps = ratings - self._item_means[matrix.indices]
        return Side(rows, gaps, ratings - self._mean, matrix.shape[0], times, self._spread, USER_WINDOW)

    def _affinities(self, matrix: csr_matrix, gaps: np.ndarray) -> list[Affinity]:
        """What people think of genres and of decades."""
        kinds = [flags for flags in (self.genres_, self.decades_) if flags.shape[1]]
        return [Affinity.of(matrix, gaps, flags) for flags in kinds]

    def feature_names(self) -> list[str]:
        """Names of the dense features, in their order."""
        side = SIDE_NAMES if self.train.timestamps is not None else SIDE_NAMES[:-1]
        kinds = [name for name, flags in (("genres", self.genres_), ("decade", self.decades_)) if flags.shape[1]]
        return [
            *(f"person: {name}" for name in side),
            "time",
            *(f"film: {name}" for name in side),
            *(f"person and film: {name}" for name in kinds),
        ]

    def _blocks(self) -> tuple[int, int, int]:
        """How many dense features belong to the person, to the film, to the pair."""
        side = len(SIDE_NAMES) - (self.train.timestamps is None)
        return side + 1, side, sum(flags.shape[1] > 0 for flags in (self.genres_, self.decades_))

    def _time(self, when: np.ndarray) -> np.ndarray:
        """Time of a rating, about -0.5 to 0.5, (n, 1) float32; never beyond what was seen in training."""
        return np.clip((when - self._clock[0]) / self._clock[1], -0.7, 0.7).astype(np.float32)[:, None]

    def _dense(
        self, users: np.ndarray, items: np.ndarray, when: np.ndarray | None, own: np.ndarray | None
    ) -> np.ndarray:
        """Dense features of pairs of known codes, (n, f) float32; ``own`` are their entries, to be left out."""
        times = np.zeros((len(users), 1), np.float32) if when is None else self._time(when)
        person = self._people.features(users, when, own)
        film = self._films.features(items, when, own)
        gap = 0.0 if own is None else self._people.gaps[own]
        pair = [taste.of_pairs(users, items, gap, person[:, 0])[:, None] for taste in self._tastes]
        return np.concatenate([person, times, film, *pair], axis=1)

    def _fit_one(self, number: int) -> None:
        """Train one net and keep what serving needs of it."""
        from recsys_lib.models.neural.rating_net import Pairs, squared_loss
        from recsys_lib.models.neural.training import Plan, Task, choose_device
        from recsys_lib.models.neural.training import train as run

        seed, train = self.seed + 1000 * number, self.train
        device = choose_device(self.device)
        net = self._net(seed, device)
        columns = {
            "users": self._people.rows,
            "items": self._films.rows,
            "user_gaps": self._people.gaps.astype(np.float32),
            "item_gaps": self._films.gaps.astype(np.float32),
            "dense": self._dense(self._people.rows, self._films.rows, train.timestamps, np.arange(train.matrix.nnz)),
            "target": (train.matrix.data - self._mean).astype(np.float32),
        }
        pairs = Pairs(columns, self.batch_size or max(2000, train.matrix.nnz // 40), device)
        task = Task(net, net.groups(self.decay), pairs, pairs.steps, squared_loss)
        validate = self._options["validate"]
        if validate is not None:
            task.validate = lambda module: validate(self._with([*self.states, self._state(module)]))
        task.identity = {"data": fingerprint(train), **{k: v for k, v in self.params().items() if k != "epochs"}}
        task.identity["hidden"] = list(self.hidden)
        folder = self._options["checkpoint"]
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

        sums = Sums.of(self._matrix, self._people.gaps, self._films.gaps, device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return RatingNet(
                self.user_side_,
                self.item_side_,
                sums,
                self._blocks(),
                dim=self.embedding_dim,
                hidden=self.hidden,
                dropout=self.dropout,
                vector_dropout=self.vector_dropout,
                cold=self.history_dropout,
                batch_norm=self.batch_norm,
            )

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
        films = self._matrix.T.tocsr()
        judged = csr_matrix((self._films.gaps.astype(np.float32), self._matrix.indices, self._matrix.indptr))
        judged.resize(self._matrix.shape)
        counts = films.getnnz(axis=1)
        films.data = np.ones_like(films.data)
        history = films @ weights["raters"] + judged.T @ weights["judged"]
        known = (counts > 0)[:, None]
        state["films"] = (
            self.item_side_ @ weights["item_map"]
            + known * (history / np.sqrt(counts + 1)[:, None] + weights["item_id"])
        ).astype(np.float32)
        state["item_bias"] = state["item_bias"] * known[:, 0]
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

    def predict(self, user_ids: Any, item_ids: Any, timestamps: Any = None) -> np.ndarray:
        """Predict the rating of each pair, on the data's own scale, (n,) float64.

        Parameters
        ----------
        user_ids, item_ids
            Pairs; an id without ratings is predicted from its side features, one that nobody knows from the rest.
        timestamps : array of seconds, optional
            When each rating is given; by default after everything in the training data.
        """
        users, items = self._codes(user_ids, item_ids)
        when = None if timestamps is None or self.train.timestamps is None else np.asarray(timestamps, np.int64)
        low, high = self.train.matrix.data.min(), self.train.matrix.data.max()
        if len(users) == 0:
            return np.zeros(0)
        dense = self._dense_served(users, items, when)
        total = np.zeros(len(users))
        for state in self.states:
            vectors, bias = self._all_people(state)
            films = np.vstack([state["films"], np.zeros((1, self.embedding_dim), np.float32)])
            film_bias = np.append(state["item_bias"], np.float32(0))
            total += rating_pairs(state, vectors[users], films[items], dense) + bias[users] + film_bias[items]
        return np.clip(self._mean + total / len(self.states), low, high)

    def _codes(self, user_ids: Any, item_ids: Any) -> tuple[np.ndarray, np.ndarray]:
        """Codes among the ids that have a vector; -1 for the others."""
        from recsys_lib.interactions import codes_of

        return codes_of(user_ids, self.user_ids_), codes_of(item_ids, self.item_ids_)

    def _dense_served(self, users: np.ndarray, items: np.ndarray, when: np.ndarray | None) -> np.ndarray:
        """Dense features of pairs, codes -1 and all; zeros where a side is not known."""
        if when is None and self.train.timestamps is not None:
            moments = np.full(len(users), self.train.timestamps.max())
            dense = self._dense(users, items, None, None)
            dense[:, self._blocks()[0] - 1] = self._time(moments)[:, 0]
        else:
            dense = self._dense(users, items, when, None)
        first, second, _ = self._blocks()
        known_user = (users >= 0) & (self._people.sums["count"][users] > 0)
        known_item = (items >= 0) & (self._films.sums["count"][items] > 0)
        dense[~known_user, :first] = 0
        dense[~known_item, first : first + second] = 0
        dense[~(known_user & known_item), first + second :] = 0
        return dense

    def _all_people(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Vectors and biases of all people, with a row of zeros at the end for those that nobody knows."""
        vectors, bias = self._vectors(state, self._matrix, self._people.gaps, np.arange(len(self.user_ids_)))
        return np.vstack([vectors, np.zeros((1, vectors.shape[1]), np.float32)]), np.append(bias, np.float32(0))

    def predict_table(self, user_ids: Any, item_ids: Any, timestamps: Any = None) -> pd.DataFrame:
        """Predictions with what they rest on: user_id, item_id, predicted, known_user, known_item (bool)."""
        users, items = self._codes(user_ids, item_ids)
        counts = np.append(self._people.sums["count"], 0), np.append(self._films.sums["count"], 0)
        return pd.DataFrame(
            {
                "user_id": np.asarray(user_ids),
                "item_id": np.asarray(item_ids),
                "predicted": self.predict(user_ids, item_ids, timestamps),
                "known_user": counts[0][users] > 0,
                "known_item": counts[1][items] > 0,
            }
        )

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        matrix, side, codes = self._widened(histories, users)
        person, films, pair = self._dense_grid(matrix, side)
        total = np.zeros((matrix.shape[0], self.train.n_items), np.float32)
        for state in self.states:
            vectors, bias = self._vectors(state, matrix, side.gaps, codes)
            grid = rating_grid(state, vectors, state["films"][self._columns], person, films, pair)
            total += grid + bias[:, None] + state["item_bias"][self._columns]
        return self._mean + total / len(self.states)

    def _widened(self, histories: Histories, users: np.ndarray | None) -> tuple[csr_matrix, Side, np.ndarray]:
        """Histories with the columns of ``item_ids_``, their sums, and who they are."""
        from recsys_lib.interactions import codes_of

        matrix = histories.matrix
        shape = (matrix.shape[0], len(self.item_ids_))
        wide = csr_matrix((matrix.data, self._columns[matrix.indices].astype(np.int32), matrix.indptr), shape=shape)
        codes = np.full(shape[0], -1) if users is None else codes_of(users, self.user_ids_)
        times = None if self.train.timestamps is None else histories.timestamps
        if times is None and self.train.timestamps is not None:
            times = np.full(matrix.nnz, self.train.timestamps.max())
        return wide, self._side(wide, times), codes

    def _dense_grid(self, matrix: csr_matrix, side: Side) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Dense features of people, of films, and of all pairs: (n, f1), (n_items, f2), list of (n, n_items)."""
        rows = np.arange(matrix.shape[0])
        person = side.features(rows, None, None)
        moment = np.zeros((len(rows), 1), np.float32)
        if self.train.timestamps is not None:
            moment = self._time(np.full(len(rows), self.train.timestamps.max()))
        some = (side.sums["count"] > 0)[:, None]
        films = self._films.features(self._columns, None, None)
        pair = []
        for taste, flags in zip(
            self._affinities(matrix, side.gaps),
            [flags for flags in (self.genres_, self.decades_) if flags.shape[1]],
            strict=True,
        ):
            share = flags / np.maximum(flags.sum(axis=1, keepdims=True), 1)
            known = (self._films.sums["count"] > 0)[:, None]
            pair.append((some * taste.deviations(person[:, 0]) @ (share * known)[self._columns].T).astype(np.float32))
        return np.concatenate([person, moment], axis=1) * some, films, pair

    def _item_vectors(self) -> np.ndarray:
        """Vectors of the films, those of all nets side by side."""
        return np.concatenate([state["films"][self._columns] for state in self.states], axis=1)

    # ---- on disk ---------------------------------------------------------------------------------------------

    def _save_more(self, folder: Path) -> None:
        write_states(folder / "model.safetensors", self.states)
        names = {"film_names": self.film_names, "people_names": self.people_names}
        write_json(folder / "training.json", {"log": self.log, **names})

    def _load_more(self, folder: Path) -> None:
        self.states = read_states(folder / "model.safetensors")
        stored = read_json(folder / "training.json")
        self.log, self.film_names, self.people_names = stored["log"], stored["film_names"], stored["people_names"]
        self._prepare()
