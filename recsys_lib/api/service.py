"""What answers: a run's tables and champion, taken up as a whole and replaced as a whole when the files change."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge
from starlette.concurrency import run_in_threadpool

from recsys_lib.api.lookup import Films, Users
from recsys_lib.api.problems import ProblemError
from recsys_lib.data.catalogue import label
from recsys_lib.files import read_json
from recsys_lib.models.base import Recommender
from recsys_lib.run.champion import version_of
from recsys_lib.run.run import MissingArtifactError, OtherDataError, Run

POLL = 0.5  # seconds between two looks at the run's files
RETRY = 10.0  # seconds after which files that could not be taken up are tried again as they are
BATCH = 16  # lists computed together at most
KEPT = 4096  # lists

log = logging.getLogger(__name__)


@dataclass
class Served:
    """A model that answers, under its name and version.

    While one batch of lists is computed, requests for the next one gather: sixteen lists of a re-ranker take four
    times as long as one, so batches bear a load that lists one by one would not. The lists asked for last are kept.
    """

    name: str
    version: str
    model: Recommender
    _lists: OrderedDict[tuple, tuple] = field(default_factory=OrderedDict)
    _open: dict[tuple, Batch] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def described(self) -> dict[str, str]:
        """Name and version."""
        return {"name": self.name, "version": self.version}

    async def recommend(
        self, user: Any, k: int, exclude_seen: bool, genre: str | None, candidates: np.ndarray | None
    ) -> tuple[list, list[float], bool]:
        """List films for one user, who may be unknown.

        Returns
        -------
        list, list of float
            Item ids and scores, best first.
        bool
            Whether popular items stand in.
        """
        asked = (user, k, exclude_seen, genre)
        if asked not in self._lists:
            self._lists[asked] = await self._computed(user, k, exclude_seen, genre, candidates)
            if len(self._lists) > KEPT:
                self._lists.popitem(last=False)
        self._lists.move_to_end(asked)
        return self._lists[asked]

    async def _computed(
        self, user: Any, k: int, exclude_seen: bool, genre: str | None, candidates: np.ndarray | None
    ) -> tuple[list, list[float], bool]:
        known = bool(self.model.train.user_codes([user])[0] >= 0)  # ids of two kinds would not make one array
        alike = (known, k, exclude_seen, genre)
        batch = self._open.setdefault(alike, Batch())
        row = len(batch.users)
        batch.users.append(user)
        if batch.task is None:
            batch.task = asyncio.create_task(
                self._compute(alike, batch, k, exclude_seen=exclude_seen, candidates=candidates)
            )
        if len(batch.users) == BATCH:
            del self._open[alike]
        codes, scores, fallback = await asyncio.shield(batch.task)
        listed = codes[row] >= 0
        items = self.model.train.item_ids[codes[row, listed]].tolist()
        return items, scores[row, listed].tolist(), bool(fallback[row])

    async def _compute(self, alike: tuple, batch: Batch, k: int, **how: Any) -> tuple[np.ndarray, ...]:
        async with self._lock:
            if self._open.get(alike) is batch:
                del self._open[alike]
            return await run_in_threadpool(self.model.recommend_codes, batch.users, k, **how)


@dataclass
class Batch:
    """Users whose lists are computed together, and the task that does it."""

    users: list = field(default_factory=list)
    task: asyncio.Task | None = None


class Snapshot:
    """All that one request needs of a run; it never changes, so that an answer is of one piece.

    Parameters
    ----------
    run
        A fresh one.

    Attributes
    ----------
    champion : Served
        Answers unless another model is asked for.
    folder : Path
        The champion's.
    films, users
        Of the run's history.
    board : dict
        Entries of the leaderboard by the model's name, best first; empty where there is none.
    loaded_at : float
        UNIX seconds.

    Raises
    ------
    MissingArtifactError
        If a file is missing; the sentence names the command that makes it.
    OtherDataError
        If the champion or the leaderboard was made from other data than the tables.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        champion = run.champion
        self.folder = champion.folder
        config = read_json(self.folder / "config.json")
        run.check_identity(f"the champion {champion}", config["data"], self.folder)
        self.films, self.users = Films(run), Users(run)
        has_board = (run.paths.metrics / "leaderboard.json").is_file()
        self.board = {entry["name"]: entry for entry in run.results.leaderboard["models"]} if has_board else {}
        self.champion = Served(champion.name, champion.version, champion.model)
        champion.model.recommend_codes(champion.model.train.user_ids[:1])  # what the first call makes is made now
        self.loaded_at = time.time()
        self._served: dict[str, Served] = {}

    def served(self, name: str | None) -> Served:
        """The model of this name, or the champion; read at the first call."""
        if name in (None, self.champion.name):
            return self.champion
        if name not in self.run.models:
            raise ProblemError(404, "unknown-model", f"There is no model {name!r}; there are {', '.join(self.names)}.")
        if name not in self._served:
            try:
                served = Served(name, version_of(self.run, name), self.run.models[name])
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.exception("the model %s cannot be read", name)
                raise ProblemError(503, "model-not-available", str(error)) from error
            self._served[name] = served
        return self._served[name]

    @property
    def names(self) -> list[str]:
        """Names of the models: the champion, then the others in the order of the leaderboard."""
        order = [self.champion.name, *self.board]
        names = {self.champion.name, *self.run.models}
        return [name for name in dict.fromkeys(order) if name in names] + sorted(names.difference(order))

    def describe(self, name: str) -> dict[str, Any]:
        """What there is to say of a model: name, version, label, champion, kind, params, metrics."""
        champion = name == self.champion.name
        config = read_json(self.folder / "config.json") if champion else self.run.model_config(name)
        metrics = self.board.get(name, {}).get("metrics", {})
        return {
            "name": name,
            "version": self.champion.version if champion else version_of(self.run, name),
            "label": label(name),
            "champion": champion,
            "kind": config["model"],
            "params": config["params"],
            "metrics": {metric: value["mean"] for metric, value in metrics.items() if value},
        }

    # ---- what a request names --------------------------------------------------------------------------------

    def user_code(self, user: str) -> int:
        """Row of a user."""
        code = int(self.run.known.user_codes([user])[0])
        if code < 0:
            raise ProblemError(404, "unknown-user", f"There is no user {user!r}.")
        return code

    def movie_code(self, movie: str | int) -> int:
        """Column of a film."""
        code = int(self.run.known.item_codes([movie])[0])
        if code < 0:
            raise ProblemError(404, "unknown-movie", f"There is no film {str(movie)!r}.")
        return code

    def user_id(self, user: str) -> Any:
        """The data's own id of a user."""
        return self.users.ids[self.user_code(user)].item()

    def movie_id(self, movie: str | int) -> Any:
        """The data's own id of a film."""
        return self.films.ids[self.movie_code(movie)].item()

    def candidates(self, genre: str | None) -> np.ndarray | None:
        """Ids of the films of a genre; None for all films."""
        if genre is None:
            return None
        if genre not in self.films.genres:
            known = f"there are {', '.join(self.films.genres)}" if self.films.genres else "the data knows none"
            raise ProblemError(404, "unknown-genre", f"There is no genre {genre!r}; {known}.")
        return self.films.of_genre(genre)

    def rating(self, given: float | None) -> float:
        """A rating on the data's scale; the best one where none is given."""
        best = self.champion.model.train.best_rating
        low, high = self.run.tables.rating_scale or (0.0, best)
        if given is not None and not low <= given <= high:
            raise ProblemError(422, "invalid-request", f"A rating is from {low:g} to {high:g}, not {given:g}.")
        return best if given is None else given


class Service:
    """Keeps a snapshot, and takes up a new one in the background when the files of the run change.

    A request keeps the snapshot with which it begins. What cannot be read is logged and tried again; until then the
    old snapshot answers, and :attr:`failure` says in one sentence what is wrong.

    Parameters
    ----------
    dataset
        Name or path.
    registry
        Where its metrics go.
    """

    def __init__(self, dataset: str, registry: CollectorRegistry) -> None:
        self.dataset = dataset
        self.snapshot: Snapshot | None = None
        self.failure = "The service is loading its model."
        self._loads = Counter("recsys_loads", "Attempts to take up a run.", ["outcome"], registry=registry)
        self._model = Gauge("recsys_model", "1 for the champion.", ["name", "version"], registry=registry)
        self.fallbacks = Counter("recsys_fallbacks", "Lists of popular films in the model's place.", registry=registry)
        self._seen: tuple = ()
        self._tried = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        """Load in the background, and watch the run's files."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def ready(self) -> Snapshot:
        """The snapshot that answers now."""
        if self.snapshot is None:
            raise self.not_healthy()
        return self.snapshot

    def not_healthy(self) -> ProblemError:
        """What is wrong."""
        return ProblemError(503, "no-model", self.failure, {"Retry-After": "2"})

    def refresh(self) -> bool:
        """Take up what has changed since the last look; say whether something was taken up."""
        paths = Run(self.dataset).paths
        watched = paths.outputs / "champion.json", paths.processed / "manifest.json", paths.metrics / "leaderboard.json"
        seen = tuple(map(_stamp, watched))
        again = bool(self.failure) and time.monotonic() - self._tried > RETRY
        if seen == self._seen and not again:
            return False
        self._seen, self._tried = seen, time.monotonic()
        try:
            snapshot = Snapshot(Run(self.dataset))
        except Exception as error:  # whatever a file holds, the old snapshot goes on answering
            expected = isinstance(error, MissingArtifactError | OtherDataError)
            before, self.failure = self.failure, str(error) if expected else f"The run cannot be read: {error}"
            if self.failure != before:
                log.warning("the run could not be taken up: %s", error, exc_info=not expected)
            self._loads.labels("failed").inc()
            return False
        self.snapshot, self.failure = snapshot, ""
        champion = snapshot.champion
        log.info("%s %s answers, on %s", champion.name, champion.version, snapshot.run.name)
        self._loads.labels("taken up").inc()
        self._model.clear()
        self._model.labels(champion.name, champion.version).set(1)
        return True

    def _watch(self) -> None:
        self.refresh()
        while not self._stopping.wait(POLL):
            self.refresh()


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes whenever a file is written anew; None without one."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino
