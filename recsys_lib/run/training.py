"""The steps of a training notebook: judge models on held-out data, fit them again on the history, save, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from tqdm.auto import tqdm

from recsys_lib.data.catalogue import MOST_GENRES, readable_title
from recsys_lib.data.interactions import Interactions, codes_of
from recsys_lib.data.splits import ASKED, asking_some, held_out_split
from recsys_lib.evaluation.inference import LEAST_USERS, intervals
from recsys_lib.evaluation.metrics.ranking import judge, ndcg
from recsys_lib.evaluation.task import Task, check_fitted_on, rank_all
from recsys_lib.files import write_json
from recsys_lib.models.base import Recommender
from recsys_lib.models.lists import top_k
from recsys_lib.models.stack.blend import HeldOut
from recsys_lib.models.stack.rerank import Reranker
from recsys_lib.run import tracking
from recsys_lib.run.run import Run

LISTED = 10
SAMPLED = 2000  # users whose lists the cost of diversity is measured on


class Training:
    """Models of one notebook, judged on held-out data within train and validation; the test part is never read.

    - ``tables``, Tables: what 02_preprocessing wrote.
    - ``train``: what models are fitted on to be judged: see :func:`recsys_lib.data.splits.held_out_split`.
    - ``history``: train and validation together: what the models that are kept are fitted on.
    """

    def __init__(self, run: Run, notebook: str) -> None:
        self.run, self.notebook, self.tables, self.started = run, notebook, run.tables, time.time()
        self.held_out = held_out_split(self.tables.split)
        self.train = Interactions.from_frame(self.held_out.train)
        self._kept: dict[str, dict[str, Any]] = {}
        self._noted: dict[str, Any] = {}
        self._judged: WeakKeyDictionary[Recommender, pd.Series] = WeakKeyDictionary()  # forgets what nobody holds

    @cached_property
    def history(self) -> Interactions:
        """Train and validation together."""
        return Interactions.from_frame(self.tables.split.history)

    @cached_property
    def task(self) -> Task | None:
        """The validation as a task; None where nothing was held out, or nothing in it is relevant."""
        asked, from_ = asking_some(self.held_out), self.tables.relevant_from
        usable = from_ <= 0 or "rating" not in asked.test or (asked.test["rating"] >= from_).any()
        return Task.from_split(asked, from_) if usable and len(asked.test) else None

    @property
    def evidence(self) -> str:
        """How many users the validation judges by; under 100, that it is no evidence."""
        if self.task is None:
            return f"Validation has no user with something relevant: no model is judged, and NDCG@{LISTED} stays 0."
        n_users = len(self.task.users)
        few = f": fewer than {LEAST_USERS}, so no order of models below is evidence" if n_users < LEAST_USERS else ""
        drawn = " of those drawn by chance" if self.held_out.test["user_id"].nunique() > ASKED else ""
        return f"Validation has {n_users:,} users with something relevant{drawn}{few}."

    @property
    def positive_from(self) -> float:
        """Ratings from here on are what models take for liking: the same as count as relevant."""
        return self.tables.relevant_from

    @property
    def has_time(self) -> bool:
        """Whether the interactions say when."""
        return self.train.seconds is not None

    @property
    def has_order(self) -> bool:
        """Whether a user's interactions have an order, by timestamps or by positions."""
        return self.train.timestamps is not None

    @property
    def holdout(self) -> str:
        """How a :class:`recsys_lib.models.Blend` should hold items out: as the split does."""
        return "recent" if self.tables.split.name.startswith(("temporal", "leave")) else "random"

    @property
    def held_share(self) -> float:
        """How much of each history a blend should hold out: as much as the split does; 0 is one item."""
        return 0.0 if self.tables.split.name == "leave_one_out" else 0.25

    @property
    def has_genres(self) -> bool:
        """Whether items have genres: a few kinds."""
        return 0 < self._genres <= MOST_GENRES

    @property
    def has_attributes(self) -> bool:
        """Whether items have attributes, such as brands and categories: more kinds than there are genres."""
        return self._genres > MOST_GENRES

    @cached_property
    def _genres(self) -> int:
        return self.tables.items["genres"].explode().nunique()

    @property
    def titles(self) -> pd.Series:
        """Titles by item id, as people write them."""
        return self.tables.items.set_index("item_id")["title"].map(readable_title, na_action="ignore")

    def fit(self, model: Recommender, on: Interactions | None = None) -> float:
        """Fit on ``train``, or on what is given, with the tables; return CPU seconds, the same on a busy machine."""
        start = time.process_time()
        model.fit(self.train if on is None else on, items=self.tables.items, users=self.tables.users)
        return time.process_time() - start

    def judge(self, model: Recommender) -> float:
        """NDCG@10 of a model fitted on train, on what was held out; 0 where that is nothing (see :attr:`evidence`)."""
        if self.task is None:
            return 0.0
        check_fitted_on(model, self.task)
        codes = rank_all(model, self.task, LISTED, whole=False).codes
        return self._judge(model, codes, self.task.relevant, self.task.users)

    def _judge(self, model: Recommender, codes: np.ndarray, relevant: csr_matrix, users: np.ndarray) -> float:
        values = pd.Series(ndcg(judge(codes, relevant), LISTED), users)
        self._judged[model] = values
        return float(values.mean())

    def per_user(self, model: Recommender) -> pd.Series:
        """NDCG@10 of each user by id, as :meth:`judge` or :meth:`judge_crosswise` measured it last."""
        return self._judged[model]

    def held_out_scores(self, models: Mapping[str, Recommender]) -> HeldOut | None:
        """Score the users of ``train`` of whom something relevant was held out: what blends and re-rankers learn from.

        Models not fitted on ``train`` are fitted first. None where there are not two such users, one to learn from and
        one to judge.
        """
        if self.task is None:
            return None
        known = np.flatnonzero(self.task.codes >= 0)
        shape = (self.train.n_users, len(self.task.users))
        rows = csr_matrix((np.ones(len(known)), (self.task.codes[known], known)), shape)
        relevant = rows @ self.task.relevant[:, : self.train.n_items]
        if (relevant.getnnz(axis=1) > 0).sum() < 2:
            return None
        return HeldOut.of(models, self.train, relevant, items=self.tables.items, users=self.tables.users)

    def judge_each(self, model: Reranker, held_out: Sequence[HeldOut]) -> pd.DataFrame:
        """NDCG@10 of all models on several parts held out: index user_id (a user's mean), a column a model.

        The re-ranker's, "re-ranked", is as learnt from other users alone; its blend must be fitted.
        """
        parts = []
        for part, again in zip(held_out, model.learnt_by_others(held_out, self.tables.items), strict=True):
            values = {}
            for name, scores in {**part.scores, "re-ranked": again}.items():
                codes, _ = top_k(scores, LISTED, exclude=part.histories.matrix)
                values[name] = ndcg(judge(codes, part.relevant), LISTED)
            parts.append(pd.DataFrame(values, index=pd.Index(part.users, name="user_id")))
        return pd.concat(parts).groupby(level=0).mean()

    def judge_crosswise(self, model: Reranker, held_out: HeldOut) -> float:
        """NDCG@10 on held-out data that the model learns from: of each user, as learnt from others alone."""
        (scores,) = model.learnt_by_others([held_out], self.tables.items)
        codes, _ = top_k(scores, LISTED, exclude=held_out.histories.matrix)
        return self._judge(model, codes, self.task.relevant[codes_of(held_out.users, self.task.users)], held_out.users)

    def _measured(self, model: Recommender) -> dict[str, float | None]:
        """Mean and 95% interval of a model's NDCG@10 on what was held out, as :meth:`judge` measured it."""
        name = f"valid_ndcg@{LISTED}"
        if model not in self._judged:
            return {name: None}
        row = intervals(pd.DataFrame({name: self._judged[model]})).loc[name]
        return {name: float(row["mean"]), f"{name}_low": float(row["low"]), f"{name}_high": float(row["high"])}

    def compare(self, models: Mapping[Any, Recommender]) -> pd.DataFrame:
        """Fit models on train and judge them on what was held out, in the order given.

        Returns a table: model, ndcg@10, fit_seconds; 95% intervals over users (bootstrap): ndcg@10_low and
        ndcg@10_high of the mean, difference, difference_low and difference_high of the paired difference to the best of
        these; whether that lies below 0 (distinct). NaN where nothing was held out.
        """
        rows, values = [], {}
        for place, (name, model) in enumerate(tqdm(models.items(), desc="models", leave=False)):
            seconds = self.fit(model)
            rows.append({"model": name, f"ndcg@{LISTED}": self.judge(model), "fit_seconds": seconds})
            values[place] = self.per_user(model) if self.task is not None else pd.Series(dtype=float)
        table = pd.DataFrame(rows, columns=["model", f"ndcg@{LISTED}", "fit_seconds"])
        return table.join(_spread(pd.DataFrame(values)))

    def keep(
        self,
        name: str,
        model: Recommender,
        *,
        judged: Recommender | None = None,
        after: str = "",
        spent: float = 0.0,
        **facts: Any,
    ) -> Recommender:
        """Fit a model of the same parameters on the history and save it.

        - ``name``: of the model's folder, and of the model in the leaderboard.
        - ``judged``: the model that was judged in its place, where that is another one; one that never was leaves no
          value. A model that was not judged, and has no such other, is fitted on train and judged first.
        - ``after``: a model kept before whose fit this one builds on: its seconds are added.
        - ``spent``: CPU seconds spent before on what the model learns from.
        - ``facts``: such as ``trials``: how many sets of parameters were tried.
        """
        if judged is None and model not in self._judged and self.task is not None:
            self.fit(model)
            self.judge(model)
        chosen = model.fresh() if model.train is not None else model
        seconds = self.fit(chosen, self.history) + spent + (self._kept[after]["fit_seconds"] if after else 0)
        facts = {**self._measured(judged or model), "fit_seconds": seconds, **facts}
        self.run.save_model(name, chosen, **facts)
        self._kept[name] = {"class": type(chosen).__name__, "params": chosen.params(), **facts}
        return chosen

    def cost_of_diversity(self, model: Recommender, methods: Sequence[str], amounts: Sequence[float]) -> pd.DataFrame:
        """Lists of growing diversity of a model fitted on train, for up to 2,000 users drawn by chance.

        Returns a table: diversify, diversity, films shown (different ones), ndcg@10 (NaN where nothing was held out)
        and the intervals that :meth:`compare` gives.
        """
        users = self.train.user_ids if self.task is None else self.task.users
        some = np.sort(np.random.default_rng(0).permutation(len(users))[:SAMPLED])  # the first may be unlike the others
        users = users[some]
        scored = model.scores_to_list(self.train.rows(self.train.user_codes(users)), users)  # once for all
        rows, values = [], {}
        for how, amount in product(methods, amounts):
            codes, *_ = model.recommend_codes(users, LISTED, scored=scored, diversify=how, diversity=amount)
            worth = np.empty(0) if self.task is None else ndcg(judge(codes, self.task.relevant[some]), LISTED)
            listed, values[len(rows)] = len(np.unique(codes[codes >= 0])), worth
            mean = float(worth.mean()) if len(worth) else np.nan
            rows.append({"diversify": how, "diversity": amount, "films shown": listed, f"ndcg@{LISTED}": mean})
        return pd.DataFrame(rows).join(_spread(pd.DataFrame(values)))

    def note(self, name: str, table: pd.DataFrame | float | str | dict) -> None:
        """Add a table or a value to the notebook's report."""
        self._noted[name] = table.to_dict("records") if isinstance(table, pd.DataFrame) else table

    def report(self) -> dict[str, Any]:
        """Write ``metrics/training/<notebook>.json``: the data, the models kept, what was noted; and track the run."""
        judged_on = {"part": repr(self.held_out), "metric": f"ndcg@{LISTED}"}
        content = {"notebook": self.notebook, "data": self.tables.identity, "judged_on": judged_on}
        content |= {"models": self._kept, **self._noted}
        file = write_json(self.run.paths.metrics / "training" / f"{self.notebook}.json", content)
        tracking.log(self.run, self.notebook, file, self.started)
        return content


def _spread(values: pd.DataFrame) -> pd.DataFrame:
    """Intervals of the columns' means (a row a user) and of their paired differences to the highest, one a column."""
    metric = f"ndcg@{LISTED}"
    names = [f"{metric}_low", f"{metric}_high", "difference", "difference_low", "difference_high"]
    if values.empty:
        return pd.DataFrame(np.nan, index=values.columns, columns=names).assign(distinct=False)
    apart = intervals(values.sub(values[values.mean().idxmax()], axis=0)).add_prefix("difference_")
    apart = apart.rename(columns={"difference_mean": "difference"})
    table = intervals(values).add_prefix(f"{metric}_").join(apart)[names]
    return table.assign(distinct=table["difference_high"] < 0)
