"""The interface of all models: a user is a row of history."""

from __future__ import annotations

import importlib
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, dataclass_transform

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, eye, issparse
from threadpoolctl import ThreadpoolController

from recsys_lib.data.catalogue import genre_matrix, twin_groups
from recsys_lib.data.interactions import Histories, Interactions, as_ids, ids_like
from recsys_lib.files import json_hash, read_json, write_arrays, write_json
from recsys_lib.models.lists import calibrate, mmr, top_k
from recsys_lib.models.short import FEW, with_popularity
from recsys_lib.models.stored import array_hash, arrays_of, interactions_of, load_arrays, pack, unpack
from recsys_lib.paths import Paths

FORMAT = 3  # of the folders that `save` writes
USERS_PER_BLOCK = 1024  # users scored at once, at most, so that memory does not grow with their number,
SCORES_PER_BLOCK = 2**22  # and scores, so that a block of a wide catalogue stays near the processor
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
MODULES = {  # which module below recsys_lib.models holds a class; nothing is imported before it is asked for
    "Popularity": "popularity",
    "Trending": "popularity",
    "GenrePopularity": "popularity",
    "ALS": "als",
    "BPR": "bpr",
    "ItemKNN": "neighbours",
    "AttributeKNN": "neighbours",
    "SequenceKNN": "neighbours",
    "EASE": "ease",
    "Blend": "stack.blend",
    "Reranker": "stack.rerank",
    "NeuralHybrid": "neural.hybrid",
    "NeuralRanker": "neural.ranker",
    "CausalTransformer": "neural.causal",
}
_controller = cache(ThreadpoolController)


def one_blas_thread() -> AbstractContextManager:
    """Keep linear algebra on one thread: the same bits whatever the machine, and no fight with other threads."""
    return _controller().limit(limits=1, user_api="blas")


@dataclass_transform(kw_only_default=True)
class Recommender(ABC):
    """The interface of a model and the work that all share; sub-classes write ``_fit`` and ``_score``.

    A sub-class is a dataclass whose fields are its hyper-parameters, given by keyword and kept under their own names.

    - ``predicts_ratings``, ``updatable``: whether the model has :meth:`predict` and :meth:`update`.
    - ``needs_history``: whether an empty history cannot be scored.
    - ``made_of``: the parameter that holds other models; "" where none does.
    - ``train``, Interactions or None: what the model was fitted on, so that it can serve a known user by id.
    - ``genres``, (n_items, n_genres) uint8, or None: of each column, where ``fit`` was given a table of items with
      genres.
    - ``years``, (n_items,) float32, or None: of each column, NaN where it is not known.
    - ``twins``, (n_items,) int64, or None: of each column, the first one of the same title and year, where any two
      columns have the same.
    """

    predicts_ratings: ClassVar[bool] = False
    updatable: ClassVar[bool] = False
    needs_history: ClassVar[bool] = False
    made_of: ClassVar[str] = ""
    train: Interactions | None = None
    genres: np.ndarray | None = None
    years: np.ndarray | None = None
    twins: np.ndarray | None = None
    _classes: ClassVar[dict[str, type[Recommender]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Recommender._classes[cls.__name__] = dataclass(cls, kw_only=True, eq=False, repr=False)

    # ---- to be written by each model -------------------------------------------------------------------------

    @abstractmethod
    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        """Learn from ``train``.

        What is learnt becomes attributes, which are saved: arrays, sparse matrices, what JSON can hold, and lists and
        dicts of such. Names that begin with an underscore are not saved, nor are cached properties.
        """

    @abstractmethod
    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        """Scores of all items, (n, n_items); NaN where the model cannot tell."""

    def _similarity(self, codes: np.ndarray) -> np.ndarray:
        """How alike all items are to those of some columns, (n, n_items); NaN where unrelated."""
        rows = self._unit_vectors[codes] @ self._unit_vectors.T
        return rows.toarray() if issparse(rows) else rows

    def _renew(self, train: Interactions) -> None:
        """Take up the longer histories of :meth:`update`; by default by a new fit, for what is cheap to fit."""
        self._set_train(train)
        with one_blas_thread():
            self._fit(train, None, None)

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        """How much each stored entry of a one-row history adds to the score of column ``item``, (nnz,)."""
        return np.zeros(history.matrix.nnz)

    # ---- the interface ---------------------------------------------------------------------------------------

    @property
    def members(self) -> dict[str, Recommender]:
        """The models that this one is made of, by name."""
        models = getattr(self, self.made_of) if self.made_of else None
        return {self.made_of: models} if isinstance(models, Recommender) else models or {}

    @property
    def by_seed(self) -> list[Recommender]:
        """The models that this one averages, alike but for their seed, each on its own; empty where it does not."""
        return []

    def item_vectors(self) -> np.ndarray | csr_matrix:
        """Vectors whose cosine says how alike two items are, (n_items, d); by default, which users had them."""
        return self.train.matrix.astype(bool).astype(np.float32).T.tocsr()

    @cached_property
    def _unit_vectors(self) -> np.ndarray | csr_matrix:
        vectors = self.item_vectors()
        if not issparse(vectors):
            return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        lengths = np.sqrt(vectors.multiply(vectors).sum(axis=1))
        return vectors.multiply(1 / np.maximum(lengths, np.float32(1e-12))).tocsr()

    def predict(self, user_ids: Iterable, item_ids: Iterable, timestamps: Iterable | None = None) -> np.ndarray:
        """Predict the rating of each pair, on the data's own scale, (n,) float64; ``timestamps`` are UNIX seconds.

        TypeError by models that rank items and predict no ratings; ``predicts_ratings`` says which do.
        """
        raise TypeError(f"{type(self).__name__} ranks items; it does not predict ratings")

    def params(self) -> dict[str, Any]:
        """Hyper-parameters by name, as given to ``__init__``; the models of :attr:`members` are none."""
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names if name != self.made_of}

    def fresh(self) -> Self:
        """A model of the same hyper-parameters that has learnt nothing yet, of fresh members."""
        return self._build(self.params(), {name: part.fresh() for name, part in self.members.items()})

    @classmethod
    def _build(cls, params: Mapping[str, Any], members: dict[str, Recommender]) -> Self:
        """A model of these parameters and members, not fitted."""
        if members:
            params = {**params, cls.made_of: members[cls.made_of] if list(members) == [cls.made_of] else members}
        return cls(**params)

    def fit(
        self,
        train: Interactions | pd.DataFrame,
        *,
        items: pd.DataFrame | None = None,
        users: pd.DataFrame | None = None,
        **how: Any,
    ) -> Self:
        """Learn from interactions; ``items`` and ``users`` are the tables, for models that use content.

        A table of interactions is read as :meth:`Interactions.from_frame` does; ValueError if there are none, or none
        that the model could learn from. ``how`` is for neural models: see :class:`.neural.base.NeuralModel`.
        """
        train = train if isinstance(train, Interactions) else Interactions.from_frame(train)
        if train.matrix.nnz == 0:
            raise ValueError(f"{type(self).__name__} cannot be fitted: there is not one interaction")
        self._set_train(train)
        self.genres, self.years, self.twins = genres_of(items, train), years_of(items, train), twins_of(items, train)
        with one_blas_thread():
            self._fit(train, items, users, **how)
        return self

    def update(self, interactions: Interactions | pd.DataFrame) -> Self:
        """Take up new interactions, of known users or new ones, without a new fit.

        Models of popularity and of neighbours count them in; models that fold users in serve the longer histories, and
        leave the items as they are. A pair that is known already gets its new rating.

        TypeError by models that would have to be fitted anew, KeyError if an item is not in the catalogue, ValueError
        if there are no times, and the known interactions have them.
        """
        known = self._known
        if not self.updatable:
            raise TypeError(f"{type(self).__name__} cannot take up new interactions: fit it anew on all of them")
        new = interactions if isinstance(interactions, Interactions) else Interactions.from_frame(interactions)
        unknown = new.item_ids[known.item_codes(new.item_ids) < 0]
        if len(unknown):
            raise KeyError(f"{_unknown('item', unknown[0], known.item_ids)}: fit {type(self).__name__} anew")
        known, new = known.to_frame(), new.to_frame()
        missing = [column for column in known if column not in new]
        if missing:
            raise ValueError(f"the new interactions have no {missing[0]}s, and those that the model knows have")
        frame = pd.concat([known, new[known.columns]]).drop_duplicates(["user_id", "item_id"], keep="last")
        self._renew(Interactions.from_frame(frame, item_ids=self.train.item_ids))
        return self

    @property
    def _known(self) -> Interactions:
        """The interactions that the model was fitted on; ValueError if it was not."""
        if self.train is None:
            raise ValueError(f"{type(self).__name__} is not fitted yet: call fit first")
        return self.train

    def _set_train(self, train: Interactions) -> None:
        """Stand on other interactions, and drop what was cached for the earlier ones."""
        for name in self._cached():
            delattr(self, name)
        self.train = train

    def _cached(self) -> list[str]:
        return [name for name in vars(self) if isinstance(getattr(type(self), name, None), cached_property)]

    def score(self, histories: csr_matrix | Histories, users: Iterable | None = None) -> np.ndarray:
        """Score the whole catalogue for each history.

        - ``histories``, (n, n_items): what is known of each user. A bare matrix has no time: all its entries count as
          equally recent.
        - ``users``, (n,): ids, for models that know more of a user than the history.

        Returns (n, n_items) float32: higher is better; comparable within a row only. NaN: cannot be scored.
        """
        n_items = self._known.n_items
        histories = histories if isinstance(histories, Histories) else Histories(csr_matrix(histories))
        if histories.matrix.shape[1] != n_items:
            raise ValueError(
                f"histories have {histories.matrix.shape[1]} columns, "
                f"but {type(self).__name__} was fitted on {n_items} items"
            )
        with one_blas_thread():
            scores = np.asarray(self._score(histories, None if users is None else as_ids(users)), dtype=np.float32)
        if self.needs_history:
            scores[np.diff(histories.matrix.indptr) == 0] = np.nan
        return scores

    def scores_to_list(
        self, histories: csr_matrix | Histories, users: Iterable | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores as :meth:`recommend` lists them, (n, n_items) float32, and who cannot be scored at all, (n,) bool.

        Their rows hold the counts of the interactions fitted on: they get popularity. Histories of fewer than
        :attr:`few` items are listed as :func:`recsys_lib.models.short.with_popularity` says.
        """
        histories = histories if isinstance(histories, Histories) else Histories(csr_matrix(histories))
        scores = np.array(self.score(histories, users))
        fallback = np.isnan(scores).all(axis=1)
        scores[fallback] = self.train.item_counts
        short = np.flatnonzero((np.diff(histories.matrix.indptr) < self.few) & ~fallback)
        if len(short):
            given = histories.matrix[short], self.few, self.train.relevant_from, self._liked_by, self._traits
            with one_blas_thread():
                scores[short] = with_popularity(scores[short], *given)
        return scores, fallback

    @cached_property
    def few(self) -> int:
        """Items from which on a history is listed by the model's scores alone: 12, or what 95% of users have.

        Where a model needs no history it is 0.
        """
        return int(min(FEW, np.quantile(np.diff(self.train.matrix.indptr), 0.05))) if self.needs_history else 0

    @cached_property
    def _liked_by(self) -> np.ndarray:
        """How many users like each item, (n_items,) float32."""
        matrix = self.train.matrix
        liked = matrix.data >= self.train.relevant_from
        return np.bincount(matrix.indices[liked], minlength=matrix.shape[1]).astype(np.float32)

    @cached_property
    def _traits(self) -> np.ndarray:
        """Genres and decades of the items as zeros and ones, (n_items, n_traits) float32."""
        decade = np.full(self.train.n_items, np.nan) if self.years is None else self.years // 10
        decades = decade[:, None] == np.unique(decade[np.isfinite(decade)])
        return np.hstack([decades, decades[:, :0] if self.genres is None else self.genres]).astype(np.float32)

    def recommend(
        self,
        users: Iterable,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: Iterable | None = None,
        unknown: str = "popular",
        diversity: float = 0.0,
        diversify: str = "mmr",
        merge_twins: bool = True,
    ) -> pd.DataFrame:
        """List the k best items for each user.

        - ``k``: length of the lists; shorter where there is no more to list.
        - ``exclude_seen``: leave out what is in the user's history.
        - ``candidates``: item ids that may be listed; by default the whole catalogue.
        - ``unknown`` ("popular" | "raise"): what an unknown user id gets: the most popular items, flagged ``fallback``,
          or a ``KeyError``. Users that the model knows and cannot score get the popular items, too, flagged likewise.
        - ``diversity``: from 0 (the best scores) to 1: how much of the score gives way to diversity, among the best
          ``max(50, 5 k)``. The column score stays the model's own, so it need not fall along such a list.
        - ``diversify`` ("mmr" | "calibration"): what diversity is: unlikeness within the list
          (:func:`recsys_lib.models.lists.mmr`, by who watched what), or genres in the shares of the user's history
          (:func:`recsys_lib.models.lists.calibrate`).
        - ``merge_twins``: take items of the same title and year for one: no list holds both, nor what the user has seen
          under the other id.

        Columns: user_id, item_id, score (float32), rank (from 1), fallback (bool).
        """
        users = ids_like(users, self._known.user_ids)
        options = {"exclude_seen": exclude_seen, "candidates": candidates, "unknown": unknown}
        options |= {"diversity": diversity, "diversify": diversify, "merge_twins": merge_twins}
        return self._table(users, *self.recommend_codes(users, k, **options))

    def recommend_codes(
        self,
        users: Iterable,
        k: int = 10,
        *,
        candidates: Iterable | None = None,
        unknown: str = "popular",
        scored: tuple[np.ndarray, np.ndarray] | None = None,
        **options: Any,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As :meth:`recommend`, in arrays: for one user at a time a table takes as long as the scores.

        ``scored`` is what :meth:`scores_to_list` gave for these users, where it is known already. Returned are columns
        of the items, (n, k) int64, -1 where there is no more to list; scores, (n, k) float32; fallback, (n,) bool.
        """
        users = ids_like(users, self._known.user_ids)
        codes = self.train.user_codes(users)
        if unknown not in ("popular", "raise"):
            raise ValueError(f"unknown is {unknown!r}; it must be 'popular' or 'raise'")
        if unknown == "raise" and (codes < 0).any():
            raise KeyError(_unknown("user", users[codes < 0][0], self.train.user_ids))
        size, candidates = self.block_size, None if candidates is None else as_ids(candidates)

        def listed(start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            block = slice(start, start + size)
            histories, new = self.train.rows(codes[block]), codes[block] < 0
            if scored is None:
                scores, fallback = self.scores_to_list(histories, users[block])
            else:
                scores, fallback = scored[0][block].copy(), scored[1][block]
            scores[new] = self.train.item_counts
            return *self._lists(scores, histories, k, candidates=candidates, **options), fallback | new

        starts = range(0, max(1, len(users)), size)  # one empty block for nobody, so that there are columns
        if len(starts) == 1:
            return listed(0)
        # Blocks are the same however many threads there are, and so are the lists, bit by bit.
        with one_blas_thread(), ThreadPoolExecutor(THREADS) as pool:
            return tuple(map(np.concatenate, zip(*pool.map(listed, starts), strict=True)))

    def recommend_new(self, liked: Mapping | Iterable, k: int = 10, **options: Any) -> pd.DataFrame:
        """List the k best items for a new user: item_id, score, rank, fallback.

        ``liked`` is what :meth:`history_of` takes; nothing at all gives the popular items. The options are those of
        :meth:`recommend`, ``unknown`` apart.
        """
        history = self.history_of(liked)
        scores, fallback = self.scores_to_list(history)
        lists = self._lists(scores, history, k, **options)
        return self._table(np.array([""]), *lists, fallback | (history.matrix.nnz == 0)).drop(columns="user_id")

    def history_of(self, liked: Mapping | Iterable) -> Histories:
        """Turn ``{item_id: rating}`` or item ids into one row of history.

        Ids, oldest first, count as the best rating in the data; one outside the catalogue raises ``KeyError``.
        """
        ratings = dict(liked) if isinstance(liked, Mapping) else dict.fromkeys(liked, self._known.best_rating)
        columns = self._columns(list(ratings))
        order = np.argsort(columns)
        data = np.array(list(ratings.values()), dtype=np.float32)[order]
        parts = data, columns[order].astype(np.int32), np.array([0, len(columns)])
        matrix = csr_matrix(parts, shape=(1, self.train.n_items))
        if self.train.timestamps is None:
            return Histories(matrix)
        # One second apart, right after the last thing the model saw: a new user is here now.
        return Histories(matrix, (int(self.train.timestamps.max()) + 1 + np.arange(len(columns)))[order])

    def similar_items(self, items: Iterable, k: int = 10) -> pd.DataFrame:
        """List the k items most alike to each, by what the model learnt of them; KeyError for an unknown one.

        Columns: item_id, similar_item_id, score (float32; on a scale of the model's own), rank (from 1).
        """
        items = ids_like(items, self._known.item_ids)
        codes, size, lists = self._columns(items), self.block_size, []
        itself = eye(self.train.n_items, format="csr")
        for start in range(0, max(1, len(codes)), size):
            block = codes[start : start + size]
            lists.append(top_k(self._similarity(block), k, exclude=itself[block], twins=self.twins))
        best, values = map(np.concatenate, zip(*lists, strict=True))
        table = self._table(items, best, values, np.zeros(len(items), bool)).drop(columns="fallback")
        return table.rename(columns={"user_id": "item_id", "item_id": "similar_item_id"})

    def explain(self, user_or_history: Any, item_id: Any, k: int = 5) -> pd.DataFrame:
        """Explain an item's score for a user, by id, or for a history as :meth:`history_of` takes it.

        Columns: reason (text), item_id (missing where the reason is no item of the history), contribution. The
        contributions add up to the score that ``score`` gives: the k largest, and the sum of the rest.
        """
        history, user, column = self._asked(user_or_history, item_id)
        score = float(np.nan_to_num(self.score(history, None if user is None else [user])[0, column]))
        parts = np.asarray(self._contributions(history, column, user), dtype=np.float64)
        named = np.lexsort((history.matrix.indices, -np.abs(parts)))[:k]
        named = named[parts[named] != 0]
        rows = [("history", self.train.item_ids[history.matrix.indices[i]], parts[i]) for i in named]
        rest = [
            ("other items of the history", None, parts.sum() - parts[named].sum()),
            ("the item itself", None, score - parts.sum()),
        ]
        rounding = 1e-5 * (abs(score) + np.abs(parts).sum())  # scores are float32
        rows += [row for row in rest if abs(row[2]) > rounding]
        return pd.DataFrame(rows, columns=["reason", "item_id", "contribution"])

    def _asked(self, user_or_history: Any, item_id: Any) -> tuple[Histories, Any, int]:
        """One row of history, the user's id (None for a new one) and the item's column of an explanation."""
        column = int(self._columns([item_id])[0])
        if isinstance(user_or_history, Mapping | list | tuple | set | np.ndarray):
            return self.history_of(user_or_history), None, column
        code = self.train.user_codes([user_or_history])
        if code[0] < 0:
            raise KeyError(_unknown("user", user_or_history, self.train.user_ids))
        return self.train.rows(code), self.train.user_ids[code[0]], column

    # ---- on disk ---------------------------------------------------------------------------------------------

    def save(self, folder: Path | str, *, data: Mapping[str, Any] | None = None) -> Path:
        """Write ``config.json`` and, beside it, ``arrays-<hash>.safetensors``.

        The arrays are written first, under a name of their own; then ``config.json``, which names them, is replaced.
        So a reader meanwhile, or after a stop half way, finds the old model or the new one. ``data`` tells what the
        model was fitted on (name, sha256, ...).
        """
        folder, arrays = Path(folder), {}
        config = self._config("", arrays)
        hashes = {name: array_hash(value) for name, value in arrays.items()}
        file = folder / f"arrays-{json_hash(hashes)[:16]}.safetensors"
        write_arrays(file, arrays)
        config |= {"format": FORMAT, "arrays": {"file": file.name, "hashes": hashes}, "data": dict(data or {})}
        write_json(folder / "config.json", config)
        for old in folder.glob("arrays-*.safetensors"):
            if old != file:
                old.unlink(missing_ok=True)
        return folder

    def _config(self, prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        """The model as JSON can hold it; it names the arrays, which are added to ``arrays``, each once."""
        others = {"train", self.made_of, *self.params(), *self._cached()}
        learnt = {name: value for name, value in vars(self).items() if name[0] != "_" and name not in others}
        return {
            "model": type(self).__name__,
            "params": self.params(),
            "train": pack(arrays_of(self._known), f"{prefix}train", arrays),
            "learnt": {name: pack(value, f"{prefix}{name}", arrays) for name, value in learnt.items()},
            "members": {name: part._config(f"{prefix}{name}/", arrays) for name, part in self.members.items()},
        }

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read what :meth:`save` wrote; FileNotFoundError if the folder holds no saved model.

        ValueError if it holds a model of another class, format or parameters, or a damaged one.
        """
        config = _read_config(folder)
        if config.get("format") != FORMAT:
            raise ValueError(f"{folder} was saved by another version of the lab: fit and save it anew")
        try:
            arrays = load_arrays(Path(folder) / config["arrays"]["file"], config["arrays"]["hashes"])
        except FileNotFoundError:
            if _read_config(folder) == config:
                raise
            return cls.load(folder)  # it was saved anew between the two reads
        try:
            return cls._from_config(config, arrays)
        except TypeError as error:
            raise ValueError(f"{folder}: {error}: fit and save it anew") from error
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error

    @classmethod
    def _from_config(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        name = config["model"]
        if name in MODULES:
            importlib.import_module(f"recsys_lib.models.{MODULES[name]}")
        kind = Recommender._classes.get(name)
        if kind is None or not issubclass(kind, cls):
            raise ValueError(f"it holds a model of class {name}, not {cls.__name__}")
        members = {name: Recommender._from_config(part, arrays) for name, part in config["members"].items()}
        model = kind._build(config["params"], members)
        model.train = interactions_of(unpack(config["train"], arrays))
        vars(model).update(unpack(config["learnt"], arrays))
        return model

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.params().items())
        return f"{type(self).__name__}({given})"

    # ---- shared pieces ---------------------------------------------------------------------------------------

    @property
    def block_size(self) -> int:
        """How many rows of scores are made at once."""
        return int(np.clip(SCORES_PER_BLOCK // self.train.n_items, 32, USERS_PER_BLOCK))

    def _columns(self, items: Iterable) -> np.ndarray:
        """Columns of items, all of which must be known."""
        items = as_ids(items)
        codes = self._known.item_codes(items)
        if (codes < 0).any():
            raise KeyError(_unknown("item", items[codes < 0][0], self.train.item_ids))
        return codes

    def _lists(
        self,
        scores: np.ndarray,
        histories: Histories,
        k: int,
        *,
        exclude_seen: bool = True,
        candidates: Iterable | None = None,
        diversity: float = 0.0,
        diversify: str = "mmr",
        merge_twins: bool = True,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Make lists of scores: columns, (n, k) with -1 behind a list's end, and their scores."""
        if diversify not in ("mmr", "calibration"):
            raise ValueError(f"diversify is {diversify!r}; it must be 'mmr' or 'calibration'")
        if not 0 <= diversity <= 1:
            raise ValueError(f"diversity is {diversity}; it must be from 0 (none) to 1")
        if candidates is not None:
            allowed = np.isin(np.arange(self.train.n_items), self.train.item_codes(candidates))
            scores = np.where(allowed, scores, np.nan)
        left_out = {"exclude": histories.matrix if exclude_seen else None, "twins": self.twins if merge_twins else None}
        if diversity == 0:
            return top_k(scores, k, **left_out)
        codes, best = top_k(scores, max(50, 5 * k), **left_out)
        if diversify == "mmr":
            places = mmr(best, self.train.audience[codes], k, diversity)
        elif self.genres is None:
            raise ValueError(f"calibration needs genres: fit {type(self).__name__} with items=, a table with genres")
        else:
            shares = self.genres / np.maximum(self.genres.sum(axis=1, keepdims=True), 1)
            target = histories.matrix.astype(bool).astype(np.float64) @ shares
            target /= np.maximum(target.sum(axis=1, keepdims=True), 1e-12)
            places = calibrate(best, shares[codes], target, k, diversity)
        codes, best = (np.take_along_axis(table, places, axis=1) for table in (codes, best))
        return np.where(places >= 0, codes, -1), np.where(places >= 0, best, np.float32(np.nan))

    def _table(self, users: np.ndarray, codes: np.ndarray, best: np.ndarray, fallback: np.ndarray) -> pd.DataFrame:
        """The table of recommendations."""
        rows, places = np.nonzero(codes >= 0)
        return pd.DataFrame(
            {
                "user_id": users[rows],
                "item_id": self.train.item_ids[codes[rows, places]],
                "score": best[rows, places],
                "rank": places + 1,
                "fallback": fallback[rows],
            }
        )


def genres_of(items: pd.DataFrame | None, train: Interactions) -> np.ndarray | None:
    """Genres of each column as zeros and ones, (n_items, n_genres) uint8; None where there are none."""
    genres, names = genre_matrix(items, train.item_ids)
    return genres.astype(np.uint8) if names else None


def years_of(items: pd.DataFrame | None, train: Interactions) -> np.ndarray:
    """Year of release of each column, (n_items,) float32; NaN where it is not known."""
    if items is None or "year" not in items:
        return np.full(train.n_items, np.nan, dtype=np.float32)
    return items.set_index("item_id")["year"].reindex(train.item_ids).to_numpy(np.float32, na_value=np.nan)


def twins_of(items: pd.DataFrame | None, train: Interactions) -> np.ndarray | None:
    """Of each column the first one of the same title and year, (n_items,) int64; None where no two have the same."""
    if items is None:
        return None
    codes = pd.Series(train.item_codes(items["item_id"]))
    first = codes[codes >= 0].groupby(twin_groups(items).to_numpy()[codes >= 0]).transform("min")
    twins = np.arange(train.n_items)
    twins[codes[codes >= 0]] = first
    return twins if (twins < np.arange(train.n_items)).any() else None


def _unknown(what: str, asked: Any, known: np.ndarray) -> str:
    """Name an id that is not known, and the kind that ids are of if it is of another."""
    where = f"among the {len(known):,} users known" if what == "user" else "in the catalogue"
    if ids_like([asked], known).dtype.kind != known.dtype.kind:
        where += f"; ids here are {'text' if known.dtype.kind == 'U' else 'whole numbers'}"
    return f"{what} {asked} is not {where}"


def load_model(folder: Path | str, dataset: str = "ml-100k") -> Recommender:
    """Read any saved model from its folder; the class is named in its ``config.json``.

    The word ``"champion"`` is the model that ``outputs/<dataset>/champion.json`` points to, for the name or path of a
    data set. (A folder of that name is ``"./champion"``.) FileNotFoundError if there is no such folder or champion.
    """
    if folder != "champion":
        return Recommender.load(folder)
    outputs = Paths(dataset).outputs
    if not (outputs / "champion.json").is_file():
        raise FileNotFoundError(f"{dataset} has no champion yet: `make run DATASET={dataset}` chooses one")
    return Recommender.load(outputs / read_json(outputs / "champion.json")["folder"])


def content_hash(folder: Path | str) -> str:
    """SHA-256 of what a saved model learnt, its class and parameters: two equal fits have the same."""

    def definition(config: Mapping[str, Any]) -> list[Any]:
        return [config["model"], config["params"], {name: definition(part) for name, part in config["members"].items()}]

    config = _read_config(folder)
    return json_hash([definition(config), config["arrays"]["hashes"]])


def _read_config(folder: Path | str) -> dict[str, Any]:
    if not (Path(folder) / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no saved model: config.json is missing")
    try:
        return read_json(Path(folder) / "config.json")
    except ValueError as error:
        raise ValueError(f"{folder} is damaged: its config.json is not what was saved") from error
