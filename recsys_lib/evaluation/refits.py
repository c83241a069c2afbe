"""The same models fitted again: on other interactions, without some users."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import Interactions
from recsys_lib.evaluation.task import Task
from recsys_lib.models.base import Recommender


def fitted_again(
    model: Recommender, on: Interactions, tables: Mapping[str, pd.DataFrame], *, shift: int = 0, nets: int | None = 1
) -> Recommender:
    """A fresh copy of a model, fitted on other interactions.

    - ``tables``: the ``items`` and ``users`` of ``fit``.
    - ``shift``: is added to the seed of the model and of its members, all the way down.
    - ``nets``: a model that averages several nets is fitted as so many, to save time; None leaves their number.
    """
    fresh = model.fresh()
    parts = [fresh]
    for part in parts:
        parts += part.members.values()
        changes = {"progress": False, "n_models": nets, "seed": (part.params().get("seed") or 0) + shift}
        for name, value in changes.items():
            if value is not None and part.params().get(name) is not None:
                setattr(part, name, value)
    return fresh.fit(on, **tables)


def fitted_without(
    models: Mapping[str, Recommender], task: Task, tables: Mapping[str, pd.DataFrame]
) -> dict[str, Recommender]:
    """The models, fitted without the users of the task; the catalogue stays the same."""
    rest = task.known.only(np.setdiff1d(np.arange(task.known.n_users), task.codes))
    return {name: fitted_again(model, rest, tables) for name, model in models.items()}
