"""The base of the neural models: nets of several seeds, a validation curve, and states that numpy serves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import Histories
from recsys_lib.models.base import Recommender
from recsys_lib.models.neural.serving import State

if TYPE_CHECKING:
    from recsys_lib.models.neural.training import Plan

WHOLE = "n_models", "embedding_dim", "heads", "blocks", "max_length", "epochs", "batch_size"
MINIMUM = {**dict.fromkeys(WHOLE, 1), "negatives": 2}  # what a parameter must be at least
PLAN_PARAMETERS = "epochs", "lr", "schedule", "clip", "average", "patience", "device"  # of a plan, from the model


class NeuralModel(Recommender):
    """An average of ``n_models`` nets with seeds of their own. Sub-classes say what to train, and serve the states.

    ``seed`` is the start of all randomness; ``device`` is "auto", "cpu", "cuda" or "mps". ``states`` holds what serving
    needs of each trained net, ``log`` a line an epoch of each: model, epoch, loss, lr, valid, seconds.

    ``fit`` also takes ``validate``, which is called with a model that serves the present weights after every epoch
    (smaller is better), and ``progress``: whether to show a bar.
    """

    n_models: int = 1
    seed: int = 0
    device: str = "auto"
    clip: ClassVar[float] = 5.0  # largest norm of the gradient
    rest: ClassVar[tuple[str, str]]  # part and reason of what no input explains

    def __post_init__(self) -> None:
        for name, least in MINIMUM.items():
            value = getattr(self, name, None)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; it must be {least} or more")

    def _train_nets(self, validate: Callable[[Self], float] | None = None, progress: bool = False) -> None:
        """Train the nets of all seeds; what ``_fit`` ends with."""
        from recsys_lib.models.neural.training import train  # torch: what serves does without

        self.states: list[State] = []
        self.log: list[dict] = []
        for number in range(self.n_models):
            plan = self._plan(self.seed + 1000 * number)
            judge = validate and (lambda net: validate(self._with([*self.states, self._state(net)])))
            name = f"{type(self).__name__} {number + 1}/{self.n_models}" if progress else None
            self.log += [{"model": number, **row} for row in train(plan, validate=judge, progress=name)]
            self.states.append(self._state(plan.module))

    def _plan(self, seed: int) -> Plan:
        """A net with fresh weights, its batches, and how to train it."""
        import torch

        from recsys_lib.models.neural.training import Plan, choose_device

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net, groups, batches, loss = self._learning(choose_device(self.device))
        how = {name: getattr(self, name) for name in PLAN_PARAMETERS if hasattr(self, name)}
        return Plan(net, groups, batches, batches.steps, loss, seed=seed, **how)

    @abstractmethod
    def _learning(self, device: Any) -> tuple[Any, list[dict], Any, Callable]:
        """A net with fresh weights, its groups of parameters, its batches (with ``steps``, their number), its loss."""

    @abstractmethod
    def _state(self, net: Any) -> State:
        """Take from a net what serving needs, as numpy arrays."""

    @abstractmethod
    def _attributed(self, state: State, history: Histories, item: int, user: Any) -> dict[str, np.ndarray]:
        """Divide the score of column ``item`` under one net among its inputs: "history", (nnz,), and other parts."""

    def _reasons(self, parts: dict[str, np.ndarray], item_id: Any) -> list[tuple[str, str, Any, float]]:
        """Part, reason, item_id and contribution of everything attributed but the history."""
        return []

    @property
    def by_seed(self) -> list[Self]:
        """The nets one by one, each a model of one seed."""
        return [self._with([state]) for state in self.states]

    def _with(self, states: list[State]) -> Self:
        """A copy of this model that serves with these states."""
        model = copy(self)
        model.states = states
        vars(model).pop("_unit_vectors", None)  # those of other states
        return model

    def _mean_parts(self, history: Histories, item: int, user: Any) -> dict[str, np.ndarray]:
        parts = [self._attributed(state, history, item, user) for state in self.states]
        return {name: np.mean([each[name] for each in parts], axis=0) for name in parts[0]}

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        return self._mean_parts(history, item, user)["history"]

    def parts(self, user_or_history: Any, item_id: Any) -> pd.DataFrame:
        """All that moved a score, additive: part, reason, item_id, contribution, largest first.

        Parts are "history" (a line an item), "user" (ID, demographics, length of the history, month), "item",
        "features" (a line a dense feature) and "start" (the mean, and what the net makes of zeros), as far as the model
        has them. They sum to the score; of a predicted rating, to what it is before it is clipped to the scale.
        """
        history, user, column = self._asked(user_or_history, item_id)
        parts = self._mean_parts(history, column, user)
        ids = self.train.item_ids[history.matrix.indices]
        rows = [("history", "rated", i, value) for i, value in zip(ids, parts["history"], strict=True)]
        rows += self._reasons(parts, item_id)
        score = float(self.score(history, None if user is None else [user])[0, column])
        rows.append((*self.rest, item_id if self.rest[0] == "item" else None, score - sum(row[3] for row in rows)))
        table = pd.DataFrame(rows, columns=["part", "reason", "item_id", "contribution"])
        return table.sort_values("contribution", key=np.abs, ascending=False, kind="stable", ignore_index=True)


def numpy_weights(net: Any) -> State:
    """Copies of a net's parameters and buffers."""
    return {name: value.detach().cpu().numpy().copy() for name, value in net.state_dict().items()}
