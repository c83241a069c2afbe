"""The interface of all models: a user is a row of history."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, diags_array, issparse
from threadpoolctl import ThreadpoolController

from recsys_lib.data.catalogue import genre_matrix, twin_groups
from recsys_lib.data.interactions import Histories, Interactions, as_ids, ids_like
from recsys_lib.files import read_json, write_arrays, write_json
from recsys_lib.models.lists import calibrate, mmr, top_k
from recsys_lib.models.stored import array_hash, arrays_of, interactions_of, load_arrays, pack, unpack
from recsys_lib.paths import Paths

FORMAT = 2  # of the folders that `save` writes
BLOCK = 1024  # users scored at once, at most, so that memory does not grow with their number,
SCORES = 2**22  # and scores, so that a block of a wide catalogue stays near the processor
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
MODULES = {  # which module below recsys_lib.models holds a class; nothing is imported before it is asked for
    "Popularity": "popularity",
    "Trending": "popularity",
    "GenrePopularity": "popularity",
    "ALS": "als",
    "BPR": "bpr",
    "ItemKNN": "neighbours",
    "SequenceKNN": "neighbours",
    "EASE": "ease",
    "Blend": "stack.blend",
    "Reranker": "stack.rerank",
    "NeuralHybrid": "neural.hybrid",
    "NeuralRanker": "neural.ranker",
}


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager:
    """Keep linear algebra on one thread: the same bits whatever the machine, and no fight with other threads."""
    return _controller().limit(limits=1, user_api="blas")


class Recommender(ABC):
    """What every model does. Sub-classes write ``_fit`` and ``_score``.

    Hyper-parameters are keyword arguments of ``__init__``, kept under their own names.

    Attributes
    ----------
    predicts_ratings, updatable
        Whether the model has :meth:`predict` and :meth:`update`.
    train : Interactions or None
        What the model was fitted on, so that it can serve a known user by id.
    genres : ndarray, (n_items, n_genres) uint8, or None
        Of each column, where ``fit`` was given a table of items with genres.
    twins : ndarray, (n_items,) int64, or None
        Of each column, the first one of the same title and year, where any two columns have the same.
    """

    predicts_ratings: ClassVar[bool] = False
    updatable: ClassVar[bool] = False
    train: Interactions | None = None
    genres: np.ndarray | None = None
    twins: np.ndarray | None = None
    _registry: ClassVar[dict[str, type[Recommender]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Recommender._registry[cls.__name__] = cls

    # ---- to be written by each model -------------------------------------------------------------------------

    @abstractmethod
    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        """Learn from ``train``; attributes learnt end in an underscore."""

    @abstractmethod
    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        """Scores of all items, (n, n_items); NaN where the model has nothing to say."""

    def _learnt(self) -> dict[str, Any]:
        """What ``fit`` learnt: arrays, sparse matrices, what JSON can hold, and lists and dicts of such.

        By default :attr:`genres`, :attr:`twins` and all attributes whose names end in an underscore.
        """
        return {name: value for name, value in vars(self).items() if name.endswith("_") or name in ("genres", "twins")}

    def _restore(self, learnt: dict[str, Any]) -> None:
        """Take back what :meth:`_learnt` gave; :attr:`train` and :attr:`members` are there already."""
        vars(self).update(learnt)

    def _similarity(self) -> Callable[[np.ndarray], np.ndarray]:
        """How alike items are: a function that gives the rows of some columns, (n, n_items); NaN where unrelated."""
        unit = unit_rows(self.item_vectors())
        return lambda codes: dense(unit[codes] @ unit.T)

    def _update(self) -> None:
        """Learn from the new :attr:`train` what :meth:`update` promises; by default all, for what is cheap to fit."""
        self._fit(self.train, None, None)

    def _contributions(self, history: Histories, item: int, user: Any) -> np.ndarray:
        """How much each stored entry of a one-row history adds to the score of column ``item``, (nnz,)."""
        return np.zeros(history.matrix.nnz)

    # ---- the interface ---------------------------------------------------------------------------------------

    @property
    def members(self) -> dict[str, Recommender]:
        """The models that this one is made of, by name."""
        return {}

    @members.setter
    def members(self, members: dict[str, Recommender]) -> None:
        if members:
            raise ValueError(f"{type(self).__name__} is not made of other models")

    @property
    def by_seed(self) -> list[Recommender]:
        """The models that this one averages, alike but for their seed, each on its own; empty where it does not."""
        return []

    def item_vectors(self) -> np.ndarray | csr_matrix:
        """Vectors whose cosine says how alike two items are, (n_items, d); by default, which users had them."""
        return self.train.matrix.astype(bool).astype(np.float32).T.tocsr()

    def predict(self, user_ids: Iterable, item_ids: Iterable, timestamps: Iterable | None = None) -> np.ndarray:
        """Predict the rating of each pair, on the data's own scale, (n,) float64.

        Parameters
        ----------
        timestamps : UNIX seconds, (n,), optional
            When each rating is given.

        Raises
        ------
        TypeError
            By models that rank items and predict no ratings; ``predicts_ratings`` says which do.
        """
        raise TypeError(f"{type(self).__name__} ranks items; it does not predict ratings")

    def params(self) -> dict[str, Any]:
        """Hyper-parameters by name, as given to ``__init__``."""
        known = inspect.signature(type(self).__init__).parameters.values()
        names = [
            each.name
            for each in known
            if each.name != "self" and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        ]
        return {name: getattr(self, name) for name in names}

    def fresh(self) -> Self:
        """A model of the same hyper-parameters that has learnt nothing yet."""
        return type(self)(**self.params())

    def fit(
        self,
        train: Interactions | pd.DataFrame,
        *,
        items: pd.DataFrame | None = None,
        users: pd.DataFrame | None = None,
    ) -> Self:
        """Learn from interactions; ``items`` and ``users`` are the tables, for models that use content.

        Parameters
        ----------
        train
            A table is read as :meth:`Interactions.from_frame` does.

        Raises
        ------
        ValueError
            If there is nothing to learn from.
        """
        train = train if isinstance(train, Interactions) else Interactions.from_frame(train)
        if train.matrix.nnz == 0:
            raise ValueError(f"{type(self).__name__} cannot be fitted: there is not one interaction")
        self._take(train)
        self.genres, self.twins = genres_of(items, train), twins_of(items, train)
        with one_blas_thread():
            self._fit(train, items, users)
        return self

    def update(self, interactions: Interactions | pd.DataFrame) -> Self:
        """Take up new interactions, of known users or new ones, without a new fit.

        Models of popularity and of neighbours count them in; models that fold users in serve the longer histories, and
        leave the items as they are. A pair that is known already gets its new rating.

        Raises
        ------
        TypeError
            By models that would have to be fitted anew.
        KeyError
            If an item is not in the catalogue.
        ValueError
            If they have no times, and the known ones have.
        """
        if not self.updatable:
            raise TypeError(f"{type(self).__name__} cannot take up new interactions: fit it anew on all of them")
        new = interactions if isinstance(interactions, Interactions) else Interactions.from_frame(interactions)
        unknown = new.item_ids[self.train.item_codes(new.item_ids) < 0]
        if len(unknown):
            raise KeyError(f"{_unknown('item', unknown[0], self.train.item_ids)}: fit {type(self).__name__} anew")
        if new.timestamps is None and self.train.timestamps is not None:
            raise ValueError("the new interactions have no timestamps, and those that the model knows have")
        known = self.train.to_frame()
        frame = pd.concat([known, new.to_frame()[known.columns]]).drop_duplicates(["user_id", "item_id"], keep="last")
        self._renew(Interactions.from_frame(frame, item_ids=self.train.item_ids))
        return self

    def _renew(self, train: Interactions) -> None:
        self._take(train)
        with one_blas_thread():
            self._update()

    def _take(self, train: Interactions) -> None:
        """Know other interactions, and forget what was made from the earlier ones."""
        for name in [name for name in vars(self) if isinstance(getattr(type(self), name, None), cached_property)]:
            delattr(self, name)
        self.train = train

    def score(self, histories: csr_matrix | Histories, users: Iterable | None = None) -> np.ndarray:
        """Score the whole catalogue for each history.

        Parameters
        ----------
        histories : csr_matrix or Histories, (n, n_items)
            What is known of each user. A bare matrix has no time: all its entries count as equally recent.
        users : ids, (n,), optional
            Who they are, for models that know more of a user than the history.

        Returns
        -------
        ndarray, (n, n_items) float32
            Higher is better; comparable within a row only. NaN: cannot be scored.
        """
        if self.train is None:
            raise ValueError(f"{type(self).__name__} is not fitted yet: call fit first")
        histories = histories if isinstance(histories, Histories) else Histories(csr_matrix(histories))
        if histories.matrix.shape[1] != self.train.n_items:
            raise ValueError(
                f"histories have {histories.matrix.shape[1]} columns, "
                f"but {type(self).__name__} was fitted on {self.train.n_items} items"
            )
        users = None if users is None else as_ids(users)
        with one_blas_thread():
            return np.asarray(self._score(histories, users), dtype=np.float32)

    def scores_to_list(
        self, histories: csr_matrix | Histories, users: Iterable | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores as :meth:`recommend` lists them: who cannot be scored at all gets popularity.

        Returns
        -------
        scores : ndarray, (n, n_items) float32
        fallback : ndarray, (n,) bool
            Whose row holds the counts of the interactions fitted on, because every score of the model is NaN.
        """
        scores = np.array(self.score(histories, users))
        fallback = np.isnan(scores[:, 0]) if scores.shape[1] else np.ones(len(scores), dtype=bool)
        fallback[fallback] = np.isnan(scores[fallback]).all(axis=1)  # only those can be without any score
        scores[fallback] = self.train.item_counts
        return scores, fallback

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

        Parameters
        ----------
        users
            User ids.
        k
            Length of the lists; shorter where there is no more to list.
        exclude_seen
            Leave out what the user has a history with.
        candidates
            Item ids that may be listed; by default the whole catalogue.
        unknown : {"popular", "raise"}
            What a user id nobody knows gets: the most popular items, flagged ``fallback``, or a ``KeyError``.
            Users that the model knows and cannot score get the popular items, too, flagged likewise.
        diversity
            From 0 (the best scores) to 1: how much of the score gives way to diversity, among the best
            ``max(50, 5 k)``. The column score stays the model's own, so it need not fall along such a list.
        diversify : {"mmr", "calibration"}
            What diversity is: unlikeness within the list (:func:`recsys_lib.models.lists.mmr`, by who watched what), or
            genres in the shares of the user's history (:func:`recsys_lib.models.lists.calibrate`).
        merge_twins
            Take items of the same title and year for one: no list holds both, nor what the user has seen under the
            other id.

        Returns
        -------
        DataFrame
            user_id, item_id, score (float32), rank (from 1), fallback (bool).
        """
        users = ids_like(users, self.train.user_ids)
        how = {"exclude_seen": exclude_seen, "candidates": candidates, "unknown": unknown, "merge_twins": merge_twins}
        return self._table(users, *self.recommend_codes(users, k, **how, diversity=diversity, diversify=diversify))

    def recommend_codes(
        self,
        users: Iterable,
        k: int = 10,
        *,
        unknown: str = "popular",
        scored: tuple[np.ndarray, np.ndarray] | None = None,
        **how: Any,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As :meth:`recommend`, in arrays: for one user at a time a table takes as long as the scores.

        Parameters
        ----------
        scored
            What :meth:`scores_to_list` gave for these users, where it is known already.
        how
            ``exclude_seen``, ``candidates``, ``diversity``, ``diversify``, ``merge_twins``.

        Returns
        -------
        codes : ndarray, (n, k) int64
            Columns of the items; -1 where there is no more to list.
        scores : ndarray, (n, k) float32
        fallback : ndarray, (n,) bool
        """
        users = ids_like(users, self.train.user_ids)
        codes = self.train.user_codes(users)
        if unknown not in ("popular", "raise"):
            raise ValueError(f"unknown is {unknown!r}; it must be 'popular' or 'raise'")
        if unknown == "raise" and (codes < 0).any():
            raise KeyError(_unknown("user", users[codes < 0][0], self.train.user_ids))
        make_lists = self._lister(k, **how)
        size = self._block_size()

        def listed(start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            block, ids = codes[start : start + size], users[start : start + size]
            histories = self.train.rows(block)
            if scored is None:
                scores, fallback = self.scores_to_list(histories, ids)
            else:
                scores, fallback = (part[start : start + size].copy() for part in scored)
            scores[block < 0] = self.train.item_counts
            fallback |= block < 0
            return *make_lists(scores, histories), fallback

        starts = range(0, max(1, len(users)), size)  # one empty block for nobody, so that there are columns
        if len(starts) == 1:
            return listed(0)
        # Blocks are the same however many threads there are, and so are the lists, bit by bit.
        with one_blas_thread(), ThreadPoolExecutor(THREADS) as pool:
            return tuple(map(np.concatenate, zip(*pool.map(listed, starts), strict=True)))

    def recommend_new(self, liked: Mapping | Iterable, k: int = 10, **how: Any) -> pd.DataFrame:
        """List the k best items for a user the model has never met.

        Parameters
        ----------
        liked
            ``{item_id: rating}``, or item ids, oldest first, which count as the best rating in the data.
            Ids outside the catalogue raise ``KeyError``. Nothing at all gives the popular items.
        how
            ``exclude_seen``, ``candidates``, ``diversity``, ``diversify``, ``merge_twins`` as in :meth:`recommend`.

        Returns
        -------
        DataFrame
            item_id, score, rank, fallback (True when popularity answers: the history is empty, or cannot be scored).
        """
        history = self.history_of(liked)
        scores, fallback = self.scores_to_list(history)
        fallback |= history.matrix.nnz == 0
        codes, best = self._lister(k, **how)(scores, history)
        return self._table(np.array([""]), codes, best, fallback).drop(columns="user_id")

    def history_of(self, liked: Mapping | Iterable) -> Histories:
        """Turn ``{item_id: rating}`` or item ids, oldest first, into one row of history.

        Raises
        ------
        KeyError
            If an item is not in the catalogue.
        """
        best = self.train.best_rating
        ratings = dict(liked) if isinstance(liked, Mapping) else dict.fromkeys(liked, best)
        columns = self.train.item_codes(list(ratings))
        if (columns < 0).any():
            raise KeyError(_unknown("item", list(ratings)[int(np.argmax(columns < 0))], self.train.item_ids))
        order = np.argsort(columns)
        data = np.array(list(ratings.values()), dtype=np.float32)[order]
        matrix = csr_matrix(
            (data, columns[order].astype(np.int32), np.array([0, len(columns)])),
            shape=(1, self.train.n_items),
        )
        # One second apart, right after the last thing the model saw: a new user is here now.
        now = None if self.train.timestamps is None else int(self.train.timestamps.max())
        return Histories(matrix, None if now is None else (now + 1 + np.arange(len(columns)))[order])

    def similar_items(self, items: Iterable, k: int = 10) -> pd.DataFrame:
        """List the k items most alike to each, by what the model learnt of them.

        Returns
        -------
        DataFrame
            item_id, similar_item_id, score (float32; on a scale of the model's own), rank (from 1).

        Raises
        ------
        KeyError
            If an item is not in the catalogue.
        """
        items = ids_like(items, self.train.item_ids)
        codes = self.train.item_codes(items)
        if (codes < 0).any():
            raise KeyError(_unknown("item", items[codes < 0][0], self.train.item_ids))
        rows, size, lists = self._similarity(), self._block_size(), []
        for start in range(0, max(1, len(codes)), size):
            block = codes[start : start + size]
            itself = csr_matrix((np.ones(len(block)), (np.arange(len(block)), block)), (len(block), self.train.n_items))
            lists.append(top_k(rows(block), k, exclude=itself, twins=self.twins))
        best, values = map(np.concatenate, zip(*lists, strict=True))
        table = self._table(items, best, values, np.zeros(len(items), bool)).drop(columns="fallback")
        return table.rename(columns={"user_id": "item_id", "item_id": "similar_item_id"})

    def explain(self, user_or_history: Any, item_id: Any, k: int = 5) -> pd.DataFrame:
        """Say what speaks for an item, and by how much.

        Parameters
        ----------
        user_or_history
            A user id, or ``{item_id: rating}``, or a list of item ids.
        item_id
            The item to explain.
        k
            How many reasons to name; the rest is summed up.

        Returns
        -------
        DataFrame
            reason (text), item_id (missing where the reason is no item of the history), contribution. The
            contributions add up to the score that ``score`` gives.
        """
        history, user, column = self._asked(user_or_history, item_id)
        users = None if user is None else as_ids([user])
        score = float(np.nan_to_num(self.score(history, users)[0, column]))
        parts = np.asarray(self._contributions(history, column, user), dtype=np.float64)
        named = np.lexsort((history.matrix.indices, -np.abs(parts)))[:k]
        named = named[parts[named] != 0]
        rest = parts.sum() - parts[named].sum()
        rows = [("history", self.train.item_ids[history.matrix.indices[i]], parts[i]) for i in named]
        rows.append(("other items of the history", None, rest))
        rows.append(("the item itself", None, score - parts.sum()))
        rounding = 1e-5 * (abs(score) + np.abs(parts).sum())  # scores are float32
        kept = [row for row in rows if row[0] == "history" or abs(row[2]) > rounding]
        return pd.DataFrame(kept, columns=["reason", "item_id", "contribution"])

    def _asked(self, user_or_history: Any, item_id: Any) -> tuple[Histories, Any, int]:
        """What an explanation is about: one row of history, the user's id (None for a new one), the item's column."""
        column = int(self.train.item_codes([item_id])[0])
        if column < 0:
            raise KeyError(_unknown("item", item_id, self.train.item_ids))
        if isinstance(user_or_history, Mapping | list | tuple | set | np.ndarray):
            user, history = None, self.history_of(user_or_history)
        else:
            code = self.train.user_codes([user_or_history])
            if code[0] < 0:
                raise KeyError(_unknown("user", user_or_history, self.train.user_ids))
            user, history = self.train.user_ids[code[0]], self.train.rows(code)
        return history, user, column

    # ---- on disk ---------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What a fitted model consists of: a description that JSON can hold, and arrays.

        Returns
        -------
        config : dict
            "model" (name of the class), "params", "train", "learnt" and "members" (the config of each), which name
            the arrays.
        arrays : dict of ndarray
            Those of a member have its name and a slash in front. One that stands in several places, such as the
            interactions that all members were fitted on, is there once.
        """
        arrays: dict[str, np.ndarray] = {}
        return self._config("", arrays), arrays

    def _config(self, prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        return {
            "model": type(self).__name__,
            "params": self.params(),
            "train": pack(arrays_of(self.train), f"{prefix}train", arrays),
            "learnt": {name: pack(value, f"{prefix}{name}", arrays) for name, value in self._learnt().items()},
            "members": {name: part._config(f"{prefix}{name}/", arrays) for name, part in self.members.items()},
        }

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Make a fitted model from what :meth:`state` gave.

        Raises
        ------
        ValueError
            If it is a model of another class, or of parameters that the class does not have.
        """
        if config["model"] in MODULES:
            importlib.import_module(f"recsys_lib.models.{MODULES[config['model']]}")
        known = Recommender._registry.get(config["model"])
        if known is None or not issubclass(known, cls):
            raise ValueError(f"it holds a model of class {config['model']}, not {cls.__name__}")
        unknown = set(config["params"]) - set(inspect.signature(known).parameters)
        if unknown:
            named = ", ".join(sorted(unknown))
            raise ValueError(f"{config['model']} has no parameter {named}: `make run` fits what was saved anew")
        model = known(**config["params"])
        model.train = interactions_of(unpack(config["train"], arrays))
        model.members = {name: Recommender.from_state(part, arrays) for name, part in config["members"].items()}
        model._restore(unpack(config["learnt"], arrays))
        return model

    def save(self, folder: Path | str, *, data: Mapping[str, Any] | None = None) -> Path:
        """Write ``config.json`` and, beside it, ``arrays-<hash>.safetensors``.

        The arrays are written first, under a name of their own; then ``config.json``, which names them, is replaced.
        So whoever reads meanwhile, or after a stop half way, finds the old model or the new one.

        Parameters
        ----------
        data
            What the model was fitted on (name, sha256, ...), kept in ``config.json`` under "data".
        """
        folder = Path(folder)
        config, arrays = self.state()
        hashes = {name: array_hash(value) for name, value in arrays.items()}
        content = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
        file = folder / f"arrays-{content[:16]}.safetensors"
        write_arrays(file, arrays)
        more = {"format": FORMAT, "data": dict(data or {}), "arrays": {"file": file.name, "hashes": hashes}}
        write_json(folder / "config.json", config | more)
        for old in folder.glob("arrays-*.safetensors"):
            if old != file:
                old.unlink(missing_ok=True)
        return folder

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            If the folder holds no saved model.
        ValueError
            If it holds a model of another class or format, or a damaged one.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} holds no saved model: config.json is missing")
        config = read_json(folder / "config.json")
        if config.get("format") != FORMAT:
            raise ValueError(f"{folder} was saved by another version of the lab: `make run` fits it anew")
        try:
            arrays = load_arrays(folder / config["arrays"]["file"], config["arrays"]["hashes"])
        except FileNotFoundError:
            if read_json(folder / "config.json") == config:
                raise
            return cls.load(folder)  # it was saved anew between the two reads
        try:
            return cls.from_state(config, arrays)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.params().items())
        return f"{type(self).__name__}({given})"

    # ---- shared pieces ---------------------------------------------------------------------------------------

    def _block_size(self) -> int:
        """How many rows of scores are made at once."""
        return int(np.clip(SCORES // self.train.n_items, 32, BLOCK))

    def _lister(
        self,
        k: int,
        *,
        exclude_seen: bool = True,
        candidates: Iterable | None = None,
        diversity: float = 0.0,
        diversify: str = "mmr",
        merge_twins: bool = True,
    ) -> Callable[[np.ndarray, Histories], tuple[np.ndarray, np.ndarray]]:
        """What makes lists of scores: a function that gives columns, (n, k) with -1 behind a list's end, and scores."""
        order, allowed = self._order(k, diversify, diversity), None
        if candidates is not None:
            codes = self.train.item_codes(candidates)
            allowed = np.zeros(self.train.n_items, dtype=bool)
            allowed[codes[codes >= 0]] = True
        depth, twins = k if order is None else max(50, 5 * k), self.twins if merge_twins else None

        def make_lists(scores: np.ndarray, histories: Histories) -> tuple[np.ndarray, np.ndarray]:
            scores = scores if allowed is None else np.where(allowed, scores, np.nan)
            codes, best = top_k(scores, depth, exclude=histories.matrix if exclude_seen else None, twins=twins)
            if order is not None:
                places = order(codes, best, histories)
                listed, places = places >= 0, np.maximum(places, 0)
                codes = np.where(listed, np.take_along_axis(codes, places, axis=1), -1)
                best = np.where(listed, np.take_along_axis(best, places, axis=1), np.float32(np.nan))
            return codes, best

        return make_lists

    def _order(
        self, k: int, diversify: str, diversity: float
    ) -> Callable[[np.ndarray, np.ndarray, Histories], np.ndarray] | None:
        """What orders candidates for diversity: a function of columns, scores and histories; None without diversity."""
        if diversify not in ("mmr", "calibration"):
            raise ValueError(f"diversify is {diversify!r}; it must be 'mmr' or 'calibration'")
        if not 0 <= diversity <= 1:
            raise ValueError(f"diversity is {diversity}; it must be from 0 (none) to 1")
        if diversity == 0:
            return None
        if diversify == "mmr":
            return lambda codes, best, _: mmr(best, self.train.audience[np.maximum(codes, 0)], k, diversity)
        if self.genres is None:
            raise ValueError(f"calibration needs genres: fit {type(self).__name__} with items=, a table with genres")
        shares = self.genres / np.maximum(self.genres.sum(axis=1, keepdims=True), 1)

        def order(codes: np.ndarray, best: np.ndarray, histories: Histories) -> np.ndarray:
            target = histories.matrix.astype(bool).astype(np.float64) @ shares
            target /= np.maximum(target.sum(axis=1, keepdims=True), 1e-12)
            return calibrate(best, shares[np.maximum(codes, 0)], target, k, diversity)

        return order

    def _table(self, users: np.ndarray, codes: np.ndarray, best: np.ndarray, fallback: np.ndarray) -> pd.DataFrame:
        """The table of recommendations."""
        listed = codes >= 0
        rows, places = np.nonzero(listed)
        return pd.DataFrame(
            {
                "user_id": users[rows],
                "item_id": self.train.item_ids[codes[listed]],
                "score": best[listed],
                "rank": places + 1,
                "fallback": fallback[rows],
            }
        )


def genres_of(items: pd.DataFrame | None, train: Interactions) -> np.ndarray | None:
    """Genres of each column as zeros and ones, (n_items, n_genres) uint8; None where there are none."""
    genres, names = genre_matrix(items, train.item_ids)
    return genres.astype(np.uint8) if names else None


def twins_of(items: pd.DataFrame | None, train: Interactions) -> np.ndarray | None:
    """Of each column the first one of the same title and year, (n_items,) int64; None where no two have the same."""
    if items is None:
        return None
    codes, groups = train.item_codes(items["item_id"]), twin_groups(items).to_numpy()
    codes, groups = codes[codes >= 0], groups[codes >= 0]
    first = np.full(groups.max(initial=0) + 1, train.n_items)
    np.minimum.at(first, groups, codes)
    twins = np.arange(train.n_items)
    twins[codes] = first[groups]
    return twins if (twins < np.arange(train.n_items)).any() else None


def _unknown(what: str, asked: Any, known: np.ndarray) -> str:
    """Say that an id is not known, and of which kind ids are if it is of another."""
    kind = "text" if known.dtype.kind == "U" else "whole numbers"
    other = f"; ids here are {kind}" if ids_like([asked], known).dtype.kind != known.dtype.kind else ""
    if what == "user":
        return f"user {asked} is not among the {len(known):,} users known{other}"
    return f"item {asked} is not in the catalogue{other}"


def load_model(folder: Path | str, dataset: str = "ml-100k") -> Recommender:
    """Read any saved model from its folder; the class is named in its ``config.json``.

    Parameters
    ----------
    folder
        Of a saved model; or the word ``"champion"``: the model that ``outputs/<dataset>/champion.json`` points to.
        (A folder of that name is ``"./champion"``.)
    dataset
        Name or path of the data set whose champion is meant.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or no champion yet.
    """
    if folder != "champion":
        return Recommender.load(folder)
    outputs = Paths(dataset).outputs
    if not (outputs / "champion.json").is_file():
        raise FileNotFoundError(f"{dataset} has no champion yet: `make run DATASET={dataset}` chooses one")
    return Recommender.load(outputs / read_json(outputs / "champion.json")["folder"])


def content_hash(folder: Path | str) -> str:
    """SHA-256 of what a saved model learnt, its class and parameters: two equal fits have the same.

    Raises
    ------
    FileNotFoundError
        If the folder holds no saved model.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no saved model: config.json is missing")
    config = read_json(file)
    parts = [_definition(config), config["arrays"]["hashes"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _definition(config: Mapping[str, Any]) -> list[Any]:
    """Class and parameters of a saved model and of the models inside it."""
    inside = {name: _definition(member) for name, member in config["members"].items()}
    return [config["model"], config["params"], inside]


def unit_rows(vectors: np.ndarray | csr_matrix) -> np.ndarray | csr_matrix:
    """Rows of length 1; those of zeros stay."""
    if isinstance(vectors, csr_matrix):
        lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
        scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        return (diags_array(scale) @ vectors).tocsr()
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def dense(table: np.ndarray | csr_matrix) -> np.ndarray:
    """The same table with all its zeros."""
    return table.toarray() if issparse(table) else table
