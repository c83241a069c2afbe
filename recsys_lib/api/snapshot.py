"""A run as one request sees it: its films, its users, its models."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import numpy as np
import pandas as pd
from starlette.concurrency import run_in_threadpool

from recsys_lib.api.problems import ProblemError
from recsys_lib.data.catalogue import genre_matrix, label, plain, readable_title
from recsys_lib.files import read_json
from recsys_lib.models.base import Recommender
from recsys_lib.run.champion import version_of
from recsys_lib.run.run import Run

BATCH = 16  # lists computed together at most
KEPT = 4096  # lists

log = logging.getLogger(__name__)


class Served:
    """A model that answers, under its name and version.

    While one batch of lists is computed, requests for the next one gather: sixteen lists of a re-ranker take four
    times as long as one, so batches bear a load that lists one by one would not. The latest lists are kept.
    """

    def __init__(self, name: str, version: str, model: Recommender) -> None:
        self.name, self.version, self.model = name, version, model
        self._lists: dict[tuple, tuple[list, list[float], bool]] = {}
        self._waiting: dict[tuple, list] = {}
        self._computing = asyncio.Lock()

    async def recommend(
        self, user: Any, k: int, exclude_seen: bool, genre: str | None, candidates: np.ndarray | None
    ) -> tuple[list, list[float], bool]:
        """List films for a user: item ids and scores, best first, and whether popular films stand in.

        ``user`` is the data's own id, or an unknown one, as text; ``candidates`` are the ids of the films of the genre.
        """
        how = k, exclude_seen, genre
        if (user, *how) not in self._lists:
            waiting = self._waiting.setdefault((type(user), *how), [])  # ids of two types would not make one array
            waiting.append(user)
            async with self._computing:
                if (user, *how) not in self._lists:  # nor in the batches of those who waited before
                    users = list(dict.fromkeys([user, *waiting]))[:BATCH]
                    waiting[:] = [each for each in waiting if each not in users]
                    codes, scores, fallback = await run_in_threadpool(
                        self.model.recommend_codes, users, k, exclude_seen=exclude_seen, candidates=candidates
                    )
                    for row, each in enumerate(users):
                        best = codes[row][codes[row] >= 0]
                        items, values = self.model.train.item_ids[best].tolist(), scores[row, : len(best)].tolist()
                        self._lists[each, *how] = items, values, bool(fallback[row])
                    for old in list(self._lists)[:-KEPT]:
                        del self._lists[old]
        return self._lists[user, *how]


class Snapshot:
    """A run as it is now; it never changes, so that an answer is of one piece.

    ``run``: a fresh one. Its items table may lack a film: that one has no title, no year, no genres.

    - ``champion``, Served: answers unless another model is asked for.
    - ``board``: entries of the leaderboard by the model's name, best first; empty where there is none.
    - ``has_ratings``: whether the data says how much a film was liked.
    - ``films``: fields of :class:`recsys_lib.api.schemas.MovieFacts` by id, in the order of the columns of the history.
    - ``loaded_at``: UNIX seconds.

    MissingArtifactError if a file is missing; the sentence names the command that makes it. OtherDataError if the
    champion or the leaderboard was made from other data than the tables.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.known, champion = run, run.known, run.champion
        self._config = read_json(champion.folder / "config.json")
        run.check_identity(f"the champion {champion}", self._config["data"], champion.folder)
        has_board = (run.paths.metrics / "leaderboard.json").is_file()
        self.board = {entry["name"]: entry for entry in run.results.leaderboard["models"]} if has_board else {}
        self.champion = Served(champion.name, champion.version, champion.model)
        self._served = {champion.name: self.champion}
        champion.model.recommend_codes(champion.model.train.user_ids[:1])  # what the first call makes is made now
        self.has_ratings = run.tables.rating_scale is not None
        self._has_genre, self._genres = genre_matrix(run.tables.items, self.known.item_ids)
        self._users = run.tables.users.set_index("user_id")
        self.films = self._read_films()
        self._titles = np.array([plain(film["title"] or "") for film in self.films.values()])
        self.loaded_at = time.time()

    def _read_films(self) -> dict[Any, dict[str, Any]]:
        films = self.run.tables.items.set_index("item_id")[["title", "year", "genres"]].reindex(self.known.item_ids)
        films["title"] = films["title"].map(readable_title, na_action="ignore")
        films["genres"] = [[] if isinstance(genres, float) else list(genres) for genres in films["genres"]]
        films["n_ratings"] = counts = self.known.item_counts
        films["mean_rating"] = np.bincount(self.known.matrix.indices, self.known.matrix.data) / counts
        if not self.has_ratings:
            films["mean_rating"] = None
        films["movie_id"] = films.index
        rows = films.astype(object).where(films.notna(), None).to_dict("records")
        return {film["movie_id"]: film for film in rows}

    # ---- models ----------------------------------------------------------------------------------------------

    def served(self, name: str | None) -> Served:
        """The model of this name, or the champion; read at the first call."""
        name = name or self.champion.name
        if name not in self._served:
            if name not in self.run.models:
                there = ", ".join(self.names)
                raise ProblemError(404, "unknown-model", f"There is no model {name!r}; there are {there}.")
            try:
                self._served[name] = Served(name, version_of(self.run, name), self.run.models[name])
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.exception("the model %s cannot be read", name)
                raise ProblemError(503, "model-not-available", str(error)) from error
        return self._served[name]

    @property
    def names(self) -> list[str]:
        """Names of the models: the champion, then the others in the order of the leaderboard."""
        order = dict.fromkeys([self.champion.name, *self.board, *self.run.models])
        return [name for name in order if name == self.champion.name or name in self.run.models]

    def described(self) -> list[dict[str, Any]]:
        """Fields of :class:`recsys_lib.api.schemas.Model` of each model that can be read."""
        models = []
        for name in self.names:
            champion, metrics = name == self.champion.name, self.board.get(name, {}).get("metrics", {})
            try:
                config = self._config if champion else self.run.model_config(name)
                facts = {"name": name, "version": self.champion.version if champion else version_of(self.run, name)}
                facts |= {"label": label(name), "champion": champion, "kind": config["model"]}
            except (OSError, ValueError, KeyError):  # being written, or damaged
                log.exception("the model %s cannot be read", name)
                continue
            means = {metric: value["mean"] for metric, value in metrics.items() if value}
            models.append(facts | {"params": config["params"], "metrics": means})
        return models

    # ---- users -----------------------------------------------------------------------------------------------

    def user_id(self, user: str) -> Any:
        """The data's own id of a user."""
        code = self.known.user_codes([user])[0]
        if code < 0:
            raise ProblemError(404, "unknown-user", f"There is no user {user!r}.")
        return self.known.user_ids[code].item()

    def user(self, user: Any) -> dict[str, Any]:
        """Fields of :class:`recsys_lib.api.schemas.User`."""
        facts = self._users.loc[user].dropna() if user in self._users.index else {}
        n_ratings = np.diff(self.known.matrix.indptr)[self.known.user_codes([user])[0]]
        named = {str(name).replace("_", " "): str(value) for name, value in facts.items()}
        return {"user_id": user, "n_ratings": n_ratings, "facts": named}

    def history(self, user: Any) -> pd.DataFrame:
        """item_id, rating, timestamp of a user's interactions, the latest first; what is not known is None."""
        frame = self.known.only(self.known.user_codes([user])).to_frame()
        order = [name for name in ("timestamp", "position") if name in frame]
        unknown = {"timestamp"}.difference(order) | (set() if self.has_ratings else {"rating"})
        return frame.sort_values(order, ascending=False, kind="stable").assign(**dict.fromkeys(unknown))

    # ---- films -----------------------------------------------------------------------------------------------

    def movie_id(self, movie: str | int) -> Any:
        """The data's own id of a film."""
        code = self.known.item_codes([movie])[0]
        if code < 0:
            raise ProblemError(404, "unknown-movie", f"There is no film {str(movie)!r}.")
        return self.known.item_ids[code].item()

    def search(self, text: str) -> list[Any]:
        """Ids of the films whose title holds every word: those that begin with the text, then the best known."""
        words = plain(text).split()
        holds = np.ones(len(self._titles), dtype=bool)
        for word in words:
            holds &= np.char.find(self._titles, word) >= 0
        order = np.lexsort((-self.known.item_counts, ~np.char.startswith(self._titles, " ".join(words))))
        return self.known.item_ids[order[holds[order]]].tolist()

    def candidates(self, genre: str | None) -> np.ndarray | None:
        """Ids of the films of a genre; None for all films."""
        if genre is None:
            return None
        if genre not in self._genres:
            there = f"there are {', '.join(self._genres)}" if self._genres else "the data knows none"
            raise ProblemError(404, "unknown-genre", f"There is no genre {genre!r}; {there}.")
        return self.known.item_ids[self._has_genre[:, self._genres.index(genre)] > 0]

    def rating(self, given: float | None) -> float:
        """A rating on the data's scale; the best one where none is given."""
        best = self.champion.model.train.best_rating
        low, high = self.run.tables.rating_scale or (0.0, best)
        if given is not None and not low <= given <= high:
            raise ProblemError(422, "invalid-request", f"A rating is from {low:g} to {high:g}, not {given:g}.")
        return best if given is None else given

    def listed(self, movies: list, scores: list[float]) -> list[dict[str, Any]]:
        """Fields of :class:`recsys_lib.api.schemas.Recommendation` of each film."""
        pairs = enumerate(zip(movies, scores, strict=True), 1)
        return [{**self.films[movie], "score": score, "rank": rank} for rank, (movie, score) in pairs]
