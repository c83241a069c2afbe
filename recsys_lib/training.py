"""What a training notebook does with its models: judge on a rehearsal, fit again on the history, save, report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from recsys_lib import tracking
from recsys_lib.artifacts import Prepared, read_prepared, save_model
from recsys_lib.evaluation import Task, check_fitted_on, rank_all
from recsys_lib.files import write_json
from recsys_lib.inference import intervals
from recsys_lib.interactions import Interactions, codes_of
from recsys_lib.metrics.ranking import judge, ndcg
from recsys_lib.models.base import Recommender
from recsys_lib.paths import Paths
from recsys_lib.splits import rehearsal

LISTED = 10


class Training:
    """Models of one notebook, judged on a rehearsal within train and validation; the test part is never read.

    Parameters
    ----------
    paths
        Of the data set.
    notebook
        Stem of the notebook: the report's name.

    Attributes
    ----------
    prepared : Prepared
        What 02_preprocessing wrote.
    train : Interactions
        What models are fitted on to be judged: see :func:`recsys_lib.splits.rehearsal`.
    history : Interactions
        Train and validation together: what the models that are kept are fitted on.
    """

    def __init__(self, paths: Paths, notebook: str) -> None:
        self.paths = paths
        self.notebook = notebook
        self.started = time.time()
        self.prepared: Prepared = read_prepared(paths)
        self.rehearsal = rehearsal(self.prepared.split)
        self.train = Interactions.from_frame(self.rehearsal.train)
        self._kept: dict[str, dict[str, Any]] = {}
        self._models: dict[str, Recommender] = {}
        self._tables: dict[str, Any] = {}
        self._judged: dict[float, np.ndarray] = {}

    @cached_property
    def history(self) -> Interactions:
        """Train and validation together."""
        return Interactions.from_frame(self.prepared.split.history)

    @cached_property
    def task(self) -> Task | None:
        """The rehearsal as a task; None where nothing was held back, or nothing in it is relevant."""
        held, from_ = self.rehearsal.test, self.prepared.relevant_from
        usable = len(held) and ("rating" not in held or (held["rating"] >= from_).any() or from_ <= 0)
        return Task.from_split(self.rehearsal, from_) if usable else None

    @property
    def positive_from(self) -> float:
        """Ratings from here on are what models take for liking: the same as count as relevant."""
        return self.prepared.relevant_from

    @property
    def has_time(self) -> bool:
        """Whether the interactions say when."""
        return self.train.timestamps is not None

    @property
    def holdout(self) -> str:
        """How a :class:`recsys_lib.models.Blend` should hold films back: as the split does."""
        return "recent" if self.prepared.split.name.startswith(("temporal", "leave")) else "random"

    @property
    def has_genres(self) -> bool:
        """Whether any item has a genre."""
        return bool(self.prepared.items["genres"].map(len).gt(0).any())

    @property
    def titles(self) -> pd.Series:
        """Titles by item id."""
        return self.prepared.items.set_index("item_id")["title"]

    def fit(self, model: Recommender, on: Interactions | None = None) -> float:
        """Fit on ``train``, or on what is given, with the tables; return seconds."""
        start = time.perf_counter()
        model.fit(self.train if on is None else on, items=self.prepared.items, users=self.prepared.users)
        return time.perf_counter() - start

    def judge(self, model: Recommender) -> float:
        """NDCG@10 of a model fitted on train, on what the rehearsal held back; NaN without such."""
        if self.task is None:
            return float("nan")
        check_fitted_on(model, self.task)
        ranked = rank_all(model, self.task, LISTED, whole=False)
        values = ndcg(judge(ranked.codes, self.task.relevant), LISTED)
        mean = float(values.mean())
        self._judged[mean] = values
        return mean

    def _spread(self, mean: float) -> dict[str, float]:
        """The 95 % interval of a mean that :meth:`judge` has given; nothing for other numbers."""
        if mean not in self._judged:
            return {}
        name = f"rehearsal_ndcg@{LISTED}"
        row = intervals(pd.DataFrame({name: self._judged[mean]})).loc[name]
        return {f"{name}_low": float(row["low"]), f"{name}_high": float(row["high"])}

    def compare(self, models: Mapping[str, Recommender], *, quiet: bool = False) -> pd.DataFrame:
        """Fit each model on train and judge it on what was held back.

        Returns
        -------
        DataFrame
            model, ndcg@10 (on the rehearsal), fit_seconds; in the order given.
        """
        rows = []
        for name, model in tqdm(models.items(), desc="models", disable=quiet, leave=False):
            seconds = self.fit(model)
            rows.append({"model": name, f"ndcg@{LISTED}": self.judge(model), "fit_seconds": seconds})
        return pd.DataFrame(rows)

    def keep(
        self, name: str, model: Recommender, *, valid: float | None = None, after: str = "", **facts: Any
    ) -> Recommender:
        """Fit a model of the same parameters on the history and save it.

        Parameters
        ----------
        name
            Of the model's folder, and of the model in the leaderboard.
        valid
            Its NDCG@10 on the rehearsal, where it is known already; else it is fitted on train and judged first.
        after
            A model kept before whose fit this one builds on: its seconds are added.
        facts
            Such as ``trials``: how many sets of parameters were tried.
        """
        if valid is None:
            self.fit(model)
            valid = self.judge(model)
        chosen = model.fresh() if hasattr(model, "train") else model
        seconds = self.fit(chosen, self.history) + (self._kept[after]["fit_seconds"] if after else 0)
        judged = {f"rehearsal_ndcg@{LISTED}": valid if np.isfinite(valid) else None, **self._spread(valid)}
        facts = {**judged, "fit_seconds": seconds, **facts}
        save_model(self.paths, name, chosen, self.prepared, **facts)
        self._models[name] = chosen
        self._kept[name] = {"class": type(chosen).__name__, "params": chosen.params(), **facts}
        return chosen

    def model(self, name: str) -> Recommender:
        """A model that was kept, fitted on the history."""
        return self._models[name]

    def price_of_variety(self, model: Recommender, diversify: str, diversity: float) -> dict[str, Any]:
        """What a list with more variety is worth: NDCG@10 of a model fitted on train, and how many films are shown."""
        people = self.train.user_ids if self.task is None else self.task.users
        lists = model.recommend(people, LISTED, diversify=diversify, diversity=diversity)
        row = {"diversify": diversify, "diversity": diversity, "films shown": lists["item_id"].nunique()}
        codes = np.full((len(people), LISTED), -1)
        codes[codes_of(lists["user_id"], people), lists["rank"].to_numpy() - 1] = self.train.item_codes(
            lists["item_id"]
        )
        worth = np.nan if self.task is None else float(ndcg(judge(codes, self.task.relevant), LISTED).mean())
        return {**row, f"ndcg@{LISTED}": worth}

    def note(self, name: str, table: pd.DataFrame | float | str | dict) -> None:
        """Add a table or a value to the notebook's report."""
        self._tables[name] = table.to_dict("records") if isinstance(table, pd.DataFrame) else table

    def report(self, **more: Any) -> dict[str, Any]:
        """Write ``metrics/training/<notebook>.json``: the data, the models kept, what was noted; and track the run."""
        content = {
            "notebook": self.notebook,
            "data": self.prepared.identity,
            "judged_on": {"part": repr(self.rehearsal), "metric": f"ndcg@{LISTED}"},
            "models": self._kept,
            **self._tables,
            **more,
        }
        write_json(self.paths.metrics / "training" / f"{self.notebook}.json", content)
        tracking.log_training(self.paths, content, self.started)
        return content
