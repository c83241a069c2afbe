"""What answers: the tables and the champion, taken up whole and replaced whole when the files change."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recsys_lib.api.observed import Measures
from recsys_lib.api.problems import ProblemError
from recsys_lib.app.lab import Lab, MissingArtifactError, OtherDataError
from recsys_lib.files import read_json
from recsys_lib.models.base import Recommender, load_model
from recsys_lib.paths import Paths
from recsys_lib.run import artifacts, registry

RETRY = 10.0  # seconds until files that could not be taken up are tried again as they are
KEPT = 4  # models in memory beside the champion
QUICK = 0.002  # seconds of computing: 200 such lists a second leave the thread that answers half its time
SCORED = 64 * 2**20  # bytes of scores that are worked out before anybody asks
TOGETHER = 16  # people scored at once meanwhile: requests wait no longer than for these
UNREGISTERED = "unregistered"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where a model can be had.

    Attributes
    ----------
    name, version
        As in the registry; ``unregistered`` for what training saved and nothing has evaluated yet.
    folder
        A saved model.
    """

    name: str
    version: str
    folder: Path


@dataclass(frozen=True)
class Served:
    """A model that answers.

    Attributes
    ----------
    source, model
        Where it came from, and itself.
    quick
        Whether a list takes it so little time that handing the work to another thread costs more than waiting for it.
    known : tuple or None
        Scores of everybody the model knows, (n_users, n_items) float32, and whether they are a stranger's.
    """

    source: Source
    model: Recommender
    quick: bool
    known: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def load(cls, source: Source, *, beforehand: bool = False) -> Served:
        """Read a model and ask it for some lists: what is made at the first call is made, and the others are timed.

        Parameters
        ----------
        beforehand
            Score everybody the model knows now, if it is slow and the scores take at most ``SCORED`` bytes.
        """
        model = load_model(source.folder)
        taken = []
        for user in model.train.user_ids[np.linspace(0, model.train.n_users - 1, 5).astype(int)]:
            began = time.thread_time()
            model.recommend_codes([user])
            taken.append(time.thread_time() - began)
        quick = sorted(taken)[len(taken) // 2] < QUICK
        room = 4 * model.train.n_users * model.train.n_items <= SCORED
        return cls(source, model, quick, _scores(model) if beforehand and room and not quick else None)

    def at_once(self, user: Any) -> bool:
        """Whether a list for this person is quick."""
        return self.quick or (self.known is not None and self._row(user) >= 0)

    def list_for(self, user: Any, k: int, **wanted: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As :meth:`Recommender.recommend_codes`, for one person."""
        row = -1 if self.known is None else self._row(user)
        scored = None if row < 0 else tuple(part[row : row + 1] for part in self.known)
        return self.model.recommend_codes([user], k, scored=scored, **wanted)

    def _row(self, user: Any) -> int:
        return int(self.model.train.user_codes([user])[0])


def _scores(model: Recommender) -> tuple[np.ndarray, np.ndarray]:
    """What the model says of everybody it knows, some people at a time."""
    train, blocks = model.train, []
    for start in range(0, train.n_users, TOGETHER):
        people = np.arange(start, min(start + TOGETHER, train.n_users))
        blocks.append(model.scores_to_list(train.rows(people), train.user_ids[people]))
    scores, strangers = zip(*blocks, strict=True)
    return np.concatenate(scores), np.concatenate(strangers)


@dataclass(frozen=True)
class Snapshot:
    """Everything that one request needs; never changed, so that an answer is of one piece.

    Attributes
    ----------
    lab : Lab
        The tables. The test part of the data is not read.
    sources : dict
        The models that can be asked, by name, the best of the leaderboard first.
    champion : Served
        Who answers unless another model is asked for.
    films : dict
        What is said of each film, by id: movie_id, title, year, genres.
    loaded_at : float
        UNIX seconds.
    """

    lab: Lab
    sources: dict[str, Source]
    champion: Served
    films: dict[Any, dict[str, Any]]
    loaded_at: float = field(default_factory=time.time)
    _loaded: OrderedDict[str, Served] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, paths: Paths, before: Snapshot | None = None) -> Snapshot:
        """Read the tables and the champion.

        Parameters
        ----------
        before
            A snapshot whose tables are still right: they are not read again.

        Raises
        ------
        MissingArtifactError
            If a file is missing; the text names the command that makes it.
        OtherDataError
            If all models were made from other data than the tables.
        """
        lab = before.lab if before else _lab(paths)
        sources = _sources(lab)
        champion = Served.load(_champion(lab, sources), beforehand=True)
        sources = sources | {champion.source.name: champion.source}
        return cls(lab, sources, champion, before.films if before else _films(lab))

    def at_hand(self, name: str | None) -> Served | None:
        """The model of this name, or the champion; None where it would have to be read."""
        return self.champion if name in (None, self.champion.source.name) else self._loaded.get(name)

    def served(self, name: str | None) -> Served:
        """The model of this name, or the champion; read if it has to be."""
        if name in (None, self.champion.source.name):
            return self.champion
        if name not in self.sources:
            known = ", ".join(self.sources)
            raise ProblemError(404, f"There is no model {name!r}; there are {known}.", kind="unknown-model")
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(self.sources[name])
                while len(self._loaded) > KEPT:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(name)
            return self._loaded[name]

    def _load(self, source: Source) -> Served:
        try:
            return Served.load(source)
        except Exception as error:
            log.exception("the model %s could not be read", source.name)
            detail = f"The model {source.name!r} cannot be read; the log says why."
            raise ProblemError(503, detail, kind="model-not-available") from error

    # ---- ids from outside ------------------------------------------------------------------------------------

    def user(self, text: str) -> Any:
        """The data's own id of a person, or the text where nobody is known by it."""
        code = self.lab.person_code(text)
        return _plain(self.lab.history.user_ids[code]) if code >= 0 else text

    def known_user(self, text: str) -> Any:
        """The data's own id of a person."""
        code = self.lab.person_code(text)
        if code < 0:
            raise ProblemError(404, f"There is no user {text!r}.", kind="unknown-user")
        return _plain(self.lab.history.user_ids[code])

    def movie(self, movie: str | int) -> Any:
        """The data's own id of a film."""
        text = str(movie)
        if not self.lab.knows_film(text):
            raise ProblemError(404, f"There is no film {text!r}.", kind="unknown-movie")
        return _plain(self.lab.film_id(text))

    def film(self, movie: Any) -> dict[str, Any]:
        """What is said of a film."""
        return self.films.get(movie) or {"movie_id": movie, "title": None, "year": None, "genres": []}

    def candidates(self, genre: str | None) -> np.ndarray | None:
        """Ids of the films of a genre; None for all."""
        if genre is None:
            return None
        if genre not in self.lab.genres:
            known = f"there are {', '.join(self.lab.genres)}" if self.lab.genres else "the data knows none"
            raise ProblemError(404, f"There is no genre {genre!r}; {known}.", kind="unknown-genre")
        return self.lab.candidates(genre, 0, 0)

    def rating(self, given: float | None) -> float:
        """A rating from outside, on the data's scale; the best there is where none is given."""
        best = self.champion.model.train.best_rating
        if given is None:
            return best
        low, high = self.lab.scale if self.lab.has_ratings else (0.0, best)
        if not low <= given <= high:
            raise ProblemError(422, f"A rating is from {low:g} to {high:g}, not {given:g}.", kind="invalid-request")
        return given

    @cached_property
    def mean_ratings(self) -> np.ndarray:
        """Mean rating of each film of the history, (n_items,) float64; NaN without a rating."""
        matrix = self.lab.history.matrix
        total = np.bincount(matrix.indices, matrix.data, minlength=matrix.shape[1])
        return total / np.where(self.lab.history.item_counts > 0, self.lab.history.item_counts, np.nan)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _lab(paths: Paths) -> Lab:
    board = paths.metrics / "leaderboard.json"
    return Lab(paths, artifacts.read_prepared(paths), read_json(board) if board.is_file() else None)


def _fits(lab: Lab, folder: Path) -> bool:
    """Whether a saved model was made from the data, and the split, of the tables."""
    made_from, ours = read_json(folder / "config.json")["data"], lab.prepared.identity
    return all(made_from.get(key) == ours[key] for key in ours)


def _sources(lab: Lab) -> dict[str, Source]:
    """The newest registered version of each model, or what was saved where there is none."""
    paths = lab.paths
    saved = [Source(path.parent.name, UNREGISTERED, path.parent) for path in paths.models.glob("*/config.json")]
    registered = [Source(each.name, each.version, each.folder) for each in registry.versions(paths)]
    found = {each.name: each for each in (*saved, *registered) if _fits(lab, each.folder)}
    if not found and not (saved or registered):
        artifacts.load_models(paths)  # says what is missing
    if not found:
        raise OtherDataError(f"The models were made from other data than the tables: `{lab.command(paths.models)}`")
    place = {model["name"]: number for number, model in enumerate(lab.ranking("ndcg@10"))}
    return {name: found[name] for name in sorted(found, key=lambda name: (place.get(name, len(place)), name))}


def _champion(lab: Lab, sources: dict[str, Source]) -> Source:
    """The registry's champion; without one that fits the tables, the first of the leaderboard."""
    first = next(iter(sources.values()))
    if registry.stamp(lab.paths) == (0, 0):
        return first
    named = registry.champion(lab.paths)
    if _fits(lab, named.folder):
        return Source(named.name, named.version, named.folder)
    log.warning("the champion %s was made from other data than the tables; %s answers", named, first.name)
    return first


def _films(lab: Lab) -> dict[Any, dict[str, Any]]:
    ids = lab.film_ids()
    return {
        _plain(movie): {
            "movie_id": _plain(movie),
            "title": film.title,
            "year": film.year or None,
            "genres": list(film.genres),
        }
        for movie, film in zip(ids, lab.films(ids), strict=True)
    }


class Service:
    """Keeps a snapshot, and takes up a new one in the background when the files of a run change.

    A request takes the snapshot that is there when it begins and keeps it to its end. What cannot be read (a run is
    under way, say) is logged and tried again; until then the old snapshot answers.

    Parameters
    ----------
    paths
        The run to serve.
    poll_seconds
        How often its files are looked at.
    measures
        Where attempts are counted.
    """

    def __init__(self, paths: Paths, measures: Measures, *, poll_seconds: float = 1.0) -> None:
        self.paths = paths
        self.poll_seconds = poll_seconds
        self.snapshot: Snapshot | None = None
        self.failure = "The service is loading its model."
        self._measures = measures
        self._seen: tuple = ()
        self._tables: tuple = ()
        self._tried = float("-inf")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to load, and to look at the files, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """End that."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def ready(self) -> Snapshot:
        """The snapshot that answers now."""
        snapshot = self.snapshot
        if snapshot is None:
            raise ProblemError(503, self.failure, kind="no-model", headers={"Retry-After": "2"})
        return snapshot

    def refresh(self) -> bool:
        """Take up what changed since the last look, and say whether something was."""
        tables, models = self._state_of_files()
        again = self.failure != "" and time.monotonic() - self._tried > RETRY
        if (tables, models) == self._seen and not again:
            return False
        self._seen, self._tried = (tables, models), time.monotonic()
        try:
            snapshot = Snapshot.open(self.paths, self.snapshot if tables == self._tables else None)
        except Exception as error:  # whatever it is, the old snapshot goes on answering
            expected = isinstance(error, MissingArtifactError | OtherDataError)
            self.failure = str(error) if expected else "The run cannot be read; the log says why."
            log.warning("the run could not be taken up: %s", error, exc_info=not expected)
            self._measures.not_loaded()
            return False
        self.snapshot, self._tables, self.failure = snapshot, tables, ""
        source = snapshot.champion.source
        log.info("%s %s answers, on %s", source.name, source.version, self.paths.name)
        self._measures.loaded(source.name, source.version)
        return True

    def _watch(self) -> None:
        self.refresh()
        while not self._stopping.wait(self.poll_seconds):
            self.refresh()

    def _state_of_files(self) -> tuple[tuple, tuple]:
        """When the tables were written, and when the models."""
        tables = _written(self.paths.processed / "manifest.json"), _written(self.paths.metrics / "leaderboard.json")
        return tables, (registry.stamp(self.paths), _written(self.paths.models))


def _written(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino
