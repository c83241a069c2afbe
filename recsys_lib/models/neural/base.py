"""What both neural models share: nets of several seeds, a validation curve, and states that numpy serves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import Interactions
from recsys_lib.models.base import Recommender

if TYPE_CHECKING:
    from recsys_lib.models.neural.training import Plan, Task

State = dict[str, np.ndarray]


@dataclass(kw_only=True, eq=False, repr=False)
class NeuralModel(Recommender):
    """An average of ``n_models`` nets. Sub-classes prepare the data, say what to train, and serve the states.

    Attributes
    ----------
    states : list of dict of ndarray
        What serving needs of each trained net.
    log : list of dict
        model, epoch, loss, lr, valid, seconds: a line an epoch of each net.
    """

    n_models: int = 1
    seed: int = 0
    device: str = "auto"

    def fit(
        self,
        train: Interactions,
        *,
        items: pd.DataFrame | None = None,
        users: pd.DataFrame | None = None,
        validate: Callable[[Self], float] | None = None,
        progress: bool = False,
    ) -> Self:
        """Train the nets.

        Parameters
        ----------
        validate
            Called with a model that serves the present weights after every epoch, smaller is better; kept in ``log``.
        progress
            Show a progress bar.

        Raises
        ------
        ValueError
            If the interactions hold nothing that the model could learn.
        """
        self._options = validate, progress
        try:
            return super().fit(train, items=items, users=users)
        finally:
            del self._options

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        from recsys_lib.models.neural.training import train as run  # torch: what serves does without

        self._prepare(train, items, users)
        self.states: list[State] = []
        self.log: list[dict] = []
        validate, progress = self._options
        for number in range(self.n_models):
            task, plan = self._task(self.seed + 1000 * number)
            if validate is not None:
                task.validate = lambda net: validate(self._with([*self.states, self._state(net)]))
            name = f"{type(self).__name__} {number + 1}/{self.n_models}"
            log = run(task, plan, progress=name if progress else None)
            self.states.append(self._state(task.module))
            self.log += [{"model": number, **row} for row in log]

    @abstractmethod
    def _prepare(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        """Make everything that the nets of all seeds are trained on."""

    @abstractmethod
    def _task(self, seed: int) -> tuple[Task, Plan]:
        """A net with fresh weights and its batches, and how to train it."""

    @abstractmethod
    def _state(self, net: Any) -> State:
        """What serving needs of a net, as numpy arrays."""

    @property
    def by_seed(self) -> list[Self]:
        """The nets one by one, each a model of one seed."""
        return [self._with([state]) for state in self.states]

    def _with(self, states: list[State]) -> Self:
        """A copy of this model that serves with these states."""
        copy = type(self)(**self.params())
        vars(copy).update(vars(self))
        copy._set_train(self.train)  # what was made from all states is not that of some
        copy.states = states
        return copy

    def _learnt(self) -> dict[str, Any]:
        return {**super()._learnt(), "states": self.states, "log": self.log}

    def _parts_table(self, rows: list[tuple[str, str, Any, float]]) -> pd.DataFrame:
        """A table of contributions: part, reason, item_id, contribution, the largest first."""
        table = pd.DataFrame(rows, columns=["part", "reason", "item_id", "contribution"])
        return table.sort_values("contribution", key=np.abs, ascending=False, kind="stable", ignore_index=True)


def numpy_weights(net: Any) -> State:
    """Copies of a net's parameters and buffers."""
    return {name: value.detach().cpu().numpy().copy() for name, value in net.state_dict().items()}
