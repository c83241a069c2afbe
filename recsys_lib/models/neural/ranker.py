"""The net that ranks: a person is their history and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models.base import Recommender
from recsys_lib.models.neural.serving import (
    State,
    event_weights,
    pooled_history,
    ranking_scores,
    ranking_slopes,
)
from recsys_lib.models.neural.side import item_features, user_features
from recsys_lib.models.neural.states import fingerprint

MONTH = 30.44 * 86_400  # seconds
MOST_MONTHS = 120


class NeuralRanker(Recommender):
    """Rank what comes next from what a person has seen, by a net trained on histories cut at random places.

    Each example is the part of a history before a random moment; the targets are the next events, found by a full
    softmax over the films not seen yet. The history is pooled by several heads that forget at different speeds (learnt)
    and weigh each rating as they learnt to, goes through a small net, and meets each film in a dot product. There is no
    embedding of the person: a newcomer is served by the same forward pass. Serving needs numpy alone, training torch.

    Parameters
    ----------
    embedding_dim, heads, hidden
        Width of a film's embedding, number of pooling heads, width of the hidden layer.
    epochs, batch_size, lr, weight_decay
        AdamW; a batch is so many people; decay falls on the embeddings.
    dropout, event_dropout, context_dropout
        Share of hidden units, of events, and of people's demographics that is hidden in training.
    window
        Length of the future to predict, as a share of the history before it (never under 5 events).
    relevant_from, low_weight
        Ratings from here on are targets of weight 1, lower ones of ``low_weight``.
    average
        Decay of the moving average of the weights; 0 takes the last ones.
    n_models
        Nets with seeds of their own whose scores are averaged.
    seed, device
        Start of all randomness; "auto", "cpu", "cuda", "mps".
    """

    def __init__(
        self,
        embedding_dim: int = 48,
        heads: int = 4,
        hidden: int = 96,
        epochs: int = 130,
        batch_size: int = 256,
        lr: float = 1.2e-3,
        weight_decay: float = 1e-2,
        dropout: float = 0.3,
        event_dropout: float = 0.2,
        context_dropout: float = 0.1,
        window: float = 0.15,
        relevant_from: float = 4.0,
        low_weight: float = 0.3,
        average: float = 0.98,
        n_models: int = 1,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.embedding_dim = embedding_dim
        self.heads = heads
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.event_dropout = event_dropout
        self.context_dropout = context_dropout
        self.window = window
        self.relevant_from = relevant_from
        self.low_weight = low_weight
        self.average = average
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
    ) -> NeuralRanker:
        """Learn from interactions.

        Parameters
        ----------
        validate : callable, optional
            ``(model) -> value``, smaller is better, called after every epoch; kept in ``log``.
        checkpoint
            Folder to resume from and to write to.
        progress
            Show a progress bar.
        """
        self._options = {"validate": validate, "checkpoint": checkpoint, "progress": progress}
        try:
            return super().fit(train, items=items, users=users)
        finally:
            del self._options

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        if not (np.diff(train.matrix.indptr) >= 2).any():
            raise ValueError("NeuralRanker needs people with at least two interactions, and there is none")
        self.levels_ = np.unique(train.matrix.data)
        self.people_, self.people_names = user_features(users, train.user_ids)
        self.months_ = _months(train.timestamps)
        features, self.film_names = item_features(items, train.item_ids)
        self.states: list[State] = []
        self.log: list[dict] = []
        for number in range(self.n_models):
            self._fit_one(train, features, number)

    def _fit_one(self, train: Interactions, features: np.ndarray, number: int) -> None:
        """Train one net and keep what serving needs of it."""
        from recsys_lib.models.neural.ranking_net import ranking_loss
        from recsys_lib.models.neural.training import Plan, Task
        from recsys_lib.models.neural.training import train as run

        seed = self.seed + 1000 * number
        net, examples = self._net(train, features, seed), self._examples(train)
        plan = Plan(self.epochs, self.lr, "constant", average=self.average, seed=seed, device=self.device)
        validate = self._options["validate"]
        task = Task(net, net.groups(self.weight_decay), examples, examples.steps, ranking_loss)
        if validate is not None:
            task.validate = lambda module: validate(self._with([*self.states, _state(module)]))
        task.identity = {"data": fingerprint(train), **{k: v for k, v in self.params().items() if k != "epochs"}}
        folder = self._options["checkpoint"]
        log = run(
            task,
            plan,
            checkpoint=None if folder is None else Path(folder) / f"{number}",
            progress=f"NeuralRanker {number + 1}/{self.n_models}" if self._options["progress"] else None,
        )
        self.states.append(_state(net))
        self.log += [{"model": number, **row} for row in log]

    def _net(self, train: Interactions, features: np.ndarray, seed: int) -> Any:
        """A net with fresh weights."""
        import torch

        from recsys_lib.models.neural.ranking_net import RankingNet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return RankingNet(
                features,
                train.matrix.getnnz(axis=0),
                self.levels_,
                context=1 + len(self.months_[2:]) + self.people_.shape[1],
                dim=self.embedding_dim,
                heads=self.heads,
                hidden=self.hidden,
                dropout=self.dropout,
            )

    def _examples(self, train: Interactions) -> Any:
        """Histories to be cut, with the weights of their events as targets."""
        from recsys_lib.models.neural.ranking_net import Prefixes
        from recsys_lib.models.neural.training import choose_device

        weights = np.where(train.matrix.data >= self.relevant_from, 1.0, self.low_weight).astype(np.float32)
        return Prefixes(
            train,
            self._codes(train.matrix.data),
            weights,
            self._context,
            batch_size=self.batch_size,
            window=self.window,
            drop=self.event_dropout,
            demographics=self.context_dropout,
            device=choose_device(self.device),
        )

    @property
    def by_seed(self) -> list[NeuralRanker]:
        """The nets one by one, each a model of one seed."""
        return [self._with([state]) for state in self.states]

    def _with(self, states: list[State]) -> NeuralRanker:
        """A copy of this model that serves with these states."""
        copy = NeuralRanker(**self.params())
        vars(copy).update(vars(self))
        copy.states = states
        return copy

    # ---- serving ---------------------------------------------------------------------------------------------

    def _codes(self, ratings: np.ndarray) -> np.ndarray:
        """Which of the known ratings is nearest, (nnz,) int64."""
        borders = (self.levels_[1:] + self.levels_[:-1]) / 2
        return np.searchsorted(borders, ratings, side="right")

    def _context(self, people: np.ndarray, lengths: np.ndarray, last: np.ndarray | None) -> np.ndarray:
        """What is known beside the events, (n, 1 + months + demographics) float32; people -1 are newcomers."""
        month = np.zeros((len(people), len(self.months_) - 2), np.float32)
        if last is not None and month.shape[1]:
            start, width = self.months_[:2]
            code = np.clip(np.floor((last - start) / width), 0, month.shape[1] - 1).astype(np.int64)
            known = lengths > 0
            month[known, code[known]] = 1
        if self.people_.shape[1]:
            who = np.where(people[:, None] >= 0, self.people_[people], 0)
        else:
            who = np.zeros((len(people), 0), np.float32)
        return np.concatenate([np.log1p(lengths)[:, None] / 5, month, who], axis=1).astype(np.float32)

    def _inputs(self, histories: Histories, users: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Codes of the ratings, (nnz,), and context, (n, c)."""
        lengths = np.diff(histories.matrix.indptr)
        people = np.full(len(lengths), -1) if users is None else self.train.user_codes(users)
        last = None
        if histories.timestamps is not None:
            last = np.zeros(len(lengths), np.int64)
            np.maximum.at(last, histories.row_of_entry, histories.timestamps)
        return self._codes(histories.matrix.data), self._context(people, lengths, last)

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        codes, context = self._inputs(histories, users)
        steps = histories.steps_back()
        scores = sum(ranking_scores(state, histories, codes, context, steps) for state in self.states)
        return scores / len(self.states)

    def item_vectors(self) -> np.ndarray:
        """What each film is ranked by, those of all nets side by side, less their mean (which popularity fills)."""
        vectors = np.concatenate([state["candidates"] for state in self.states], axis=1)
        return vectors - vectors.mean(axis=0)

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        return self._attributed(history, item, user)[0]

    def _attributed(self, history: Histories, item: int, user: Any) -> tuple[np.ndarray, np.ndarray]:
        """What each event, (nnz,), and each number of the context, (c,), adds to a film's score."""
        codes, context = self._inputs(history, None if user is None else np.array([user]))
        events, around = np.zeros(history.matrix.nnz), np.zeros(context.shape[1])
        for state in self.states:
            weights = event_weights(state, codes, history.steps_back())
            pooled, scale = pooled_history(state, history, weights)
            slopes, others = ranking_slopes(state, pooled[0], context[0], item)
            felt = state["films"][history.matrix.indices] @ slopes.reshape(weights.shape[1], -1).T  # (nnz, heads)
            events += (felt * weights * scale[0]).sum(axis=1)
            around += others * context[0]
        return events / len(self.states), around / len(self.states)

    def parts(self, user_or_history: Any, item_id: Any) -> pd.DataFrame:
        """All that moved a score, additive: part, reason, item_id, contribution, largest first.

        Parts are "history" (a line an event), "person" (length of the history, month, demographics) and "film" (what
        the film gets from somebody of whom nothing is known). The contributions sum to what ``score`` gives.
        """
        history, user, column = self._asked(user_or_history, item_id)
        events, around = self._attributed(history, column, user)
        months = [f"month {number + 1} of the data" for number in range(len(self.months_) - 2)]
        names = ["length of the history", *months, *self.people_names]
        rows = [
            ("history", "rated", self.train.item_ids[i], v) for i, v in zip(history.matrix.indices, events, strict=True)
        ]
        rows += [("person", name, None, value) for name, value in zip(names, around, strict=True) if value]
        score = float(self.score(history, None if user is None else [user])[0, column])
        rows.append(("film", "liked by everybody", item_id, score - events.sum() - around.sum()))
        table = pd.DataFrame(rows, columns=["part", "reason", "item_id", "contribution"])
        return table.sort_values("contribution", key=np.abs, ascending=False, kind="stable", ignore_index=True)

    # ---- on disk ---------------------------------------------------------------------------------------------

    def _learnt(self) -> dict[str, Any]:
        names = {"film_names": self.film_names, "people_names": self.people_names}
        return {**super()._learnt(), "states": self.states, "log": self.log, **names}


def _months(timestamps: np.ndarray | None) -> np.ndarray:
    """Start and width of the months in seconds, then one zero for each month; no month without time."""
    if timestamps is None:
        return np.zeros(2)
    start, end = float(timestamps.min()), float(timestamps.max())
    width = max(MONTH, (end - start) / MOST_MONTHS)
    return np.concatenate([[start, width], np.zeros(int((end - start) // width) + 1)])


def _state(net: Any) -> State:
    """What serving needs of a trained net, as numpy arrays."""
    films, candidates = (part.detach().cpu().numpy() for part in net.films())
    dropped = ("item_in", "item_out", "side_in", "side_out", "features")
    kept = {name: value.detach().cpu().numpy() for name, value in net.state_dict().items() if name not in dropped}
    return {"films": films.copy(), "candidates": candidates.copy(), **{k: v.copy() for k, v in kept.items()}}
