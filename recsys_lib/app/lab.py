"""What the demo shows: the prepared tables, the leaderboard, and the models, read when they are first asked for."""

from __future__ import annotations

import logging
import re
import unicodedata
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.app.tables import read_tables
from recsys_lib.data.interactions import Interactions, codes_of
from recsys_lib.files import read_json
from recsys_lib.models.base import Recommender
from recsys_lib.paths import Paths
from recsys_lib.run import artifacts
from recsys_lib.run.artifacts import MissingArtifactError
from recsys_lib.run.steps import step_that_writes

ACRONYMS = {"als": "ALS", "knn": "kNN", "ease": "EASE", "bpr": "BPR", "svd": "SVD"}
LOWER_IS_BETTER = ("rmse", "mae", "gini", "miscalibration")
SMALL_WORDS = {"the", "a", "an", "of", "in", "and", "on", "to", "for", "s"}
ARTICLE = re.compile(r"^(.*), (The|A|An|Les|Le|La|L'|Il|El|Das|Der|Die)$")
HUES = {
    "Action": 8, "Adventure": 28, "Animation": 45, "Children": 52, "Children's": 52, "Comedy": 38, "Crime": 350,
    "Documentary": 160, "Drama": 225, "Fantasy": 275, "Film-Noir": 250, "Horror": 340, "Musical": 310,
    "Mystery": 262, "Romance": 330, "Sci-Fi": 195, "Thriller": 212, "War": 95, "Western": 20, "IMAX": 180,
}  # fmt: skip
KINDS = {  # what models of a class do, for people
    "Popularity": "What most people have watched: the same list for everybody.",
    "Trending": "What others were watching when the person was last here.",
    "GenrePopularity": "Well known films of the genres that the person watches.",
    "ALS": "Finds the tastes behind who watched what, and films that fit the person’s.",
    "BPR": "Learns tastes by putting films that were watched before films that were not.",
    "ItemKNN": "Films that the audiences of the films watched have watched, too.",
    "SequenceKNN": "Films that others watched soon after the films watched last.",
    "EASE": "Learns how much each film watched speaks for every other film.",
    "Blend": "A weighted vote of several models.",
    "Reranker": "The best films of other models, put in order anew by genres, age and what was watched last.",
    "NeuralHybrid": "A neural net that predicts ratings; it was not taught to make lists.",
    "NeuralRanker": "A neural net that reads what was watched and predicts what comes next.",
}

log = logging.getLogger(__name__)


class NotPossibleError(ValueError):
    """A choice that the lab cannot follow; its text is shown to the person as it is."""


class OtherDataError(ValueError):
    """An artefact was made from other data than the tables beside it."""


@dataclass(frozen=True)
class Film:
    """One film, as the pages show it.

    Attributes
    ----------
    id
        As text; what the page sends back.
    title, year, genres
        As in the items table; year is 0 where it is not known.
    hues
        Two angles on the colour circle, from the genres, or from the title where there are none.
    """

    id: str
    title: str
    year: int
    genres: tuple[str, ...]
    hues: tuple[int, int]

    @property
    def turn(self) -> int:
        """0 to 7, from the title."""
        return sum(map(ord, self.title)) % 8

    @property
    def initials(self) -> str:
        """One or two letters for the poster."""
        words = [word for word in re.findall(r"\w+", self.title) if word.lower() not in SMALL_WORDS]
        return "".join(word[0] for word in words[:2]).upper() or "?"


def label(name: str) -> str:
    """A model's name, for people.

    >>> label("als_tuned"), label("item_knn"), label("popularity")
    ('ALS tuned', 'Item kNN', 'Popularity')
    """
    words = [ACRONYMS.get(word, word) for word in name.split("_") if word]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def plain(text: str) -> str:
    """Lower case without accents, to search in.

    >>> plain("Amélie")
    'amelie'
    """
    decomposed = unicodedata.normalize("NFKD", str(text).lower())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def readable_title(title: str) -> str:
    """A title with its article in front.

    >>> readable_title("Usual Suspects, The")
    'The Usual Suspects'
    """
    found = ARTICLE.match(title)
    return f"{found[2]} {found[1]}" if found else title


def make_command(paths: Paths, path: Path | None = None) -> str:
    """The make command that makes a file of a run, or all of it.

    >>> paths = Paths("ml-latest-small")
    >>> make_command(paths, paths.models / "ease" / "config.json"), make_command(Paths("ml-100k"))
    ('make 05 DATASET=ml-latest-small', 'make run')
    """
    step = step_that_writes(path) if path else None
    chosen = "" if paths.name == "ml-100k" else f" DATASET={paths.dataset}"
    return f"make {step.number if step else 'run'}{chosen}"


@dataclass
class Lab:
    """Tables and models of one data set, for reading only.

    Attributes
    ----------
    paths : Paths
        Where they are.
    prepared : artifacts.Prepared
        The tables, the test part included: the demo shows what people really watched next.
    board : dict or None
        The leaderboard, or None where it has not been made.
    """

    paths: Paths
    prepared: artifacts.Prepared
    board: dict[str, Any] | None
    _loaded: dict[str, Recommender] = field(default_factory=dict)
    _unreadable: set[str] = field(default_factory=set)  # models whose failure is in the log

    @classmethod
    def open(cls, paths: Paths) -> Lab:
        """Read the tables and find the models.

        Raises
        ------
        MissingArtifactError
            If the tables or all models are missing; the text names the command that makes them.
        OtherDataError
            If models were made from other data; likewise.
        """
        prepared = read_tables(paths)
        path = paths.metrics / "leaderboard.json"
        lab = cls(paths, prepared, read_json(path) if path.is_file() else None)
        if lab.board is not None:
            lab._check_origin("The leaderboard", {**lab.board["data"], **lab.board["protocol"]}, path)
        for name, facts in lab._facts.items():
            lab._check_origin(f"The model {name}", facts["data"], paths.models / name / "config.json")
        if not lab.models:
            artifacts.load_models(paths)  # says what is missing
        return lab

    def _check_origin(self, what: str, made_from: dict[str, Any], path: Path) -> None:
        if any(made_from.get(key) != value for key, value in self.prepared.identity.items()):
            raise OtherDataError(
                f"{what} was made from other data (or another split) than the tables beside it: "
                f"`{self.command(path)}` makes it again"
            )

    # ---- models ----------------------------------------------------------------------------------------------

    @cached_property
    def models(self) -> dict[str, str]:
        """Names of the saved models and their labels, the best of the leaderboard first."""
        place = {model["name"]: number for number, model in enumerate(self.ranking("ndcg@10"))}
        return {name: label(name) for name in sorted(self._facts, key=lambda name: (place.get(name, len(place)), name))}

    @cached_property
    def _facts(self) -> dict[str, dict[str, Any]]:
        found = sorted(config.parent.name for config in self.paths.models.glob("*/config.json"))
        return {name: artifacts.model_facts(self.paths, name) for name in found}

    def about(self, name: str) -> str:
        """What a model does, in one sentence for people; nothing where that is not known."""
        return KINDS.get(self._facts.get(name, {}).get("model", ""), "")

    def command(self, path: Path) -> str:
        """The make command that makes a file of this lab."""
        return make_command(self.paths, path)

    def model(self, name: str) -> Recommender:
        """Read a model when it is first asked for, and keep it: models share the arrays that they have in common.

        Raises
        ------
        NotPossibleError
            If its files cannot be read; the text names the command that makes them again.
        """
        if name not in self._loaded:
            try:
                self._loaded[name] = artifacts.load_models(self.paths, [name])[name]
            except Exception as error:
                if name not in self._unreadable:
                    log.exception("The model %s could not be read", name)
                self._unreadable.add(name)
                again = self.command(self.paths.models / name / "config.json")
                raise NotPossibleError(f"{label(name)} could not be read; `{again}` makes it again.") from error
        return self._loaded[name]

    # ---- people ----------------------------------------------------------------------------------------------

    @cached_property
    def history(self) -> Interactions:
        """What the models know of everybody."""
        return Interactions.from_frame(self.prepared.split.history)

    @property
    def scale(self) -> tuple[float, float]:
        """Lowest and highest rating; (1, 1) for implicit feedback."""
        return self.prepared.rating_scale or (1.0, 1.0)

    @property
    def has_ratings(self) -> bool:
        """Whether the data says how much a film was liked."""
        return self.prepared.rating_scale is not None

    def person_code(self, person: str) -> int:
        """Row of a person in the history; -1 for nobody."""
        return _code(person, self.history.user_ids)

    def knows_person(self, person: str) -> bool:
        """Whether a person has a history."""
        return self.person_code(person) >= 0

    def person_id(self, person: str) -> Any:
        """The data's own id of a person."""
        return self.history.user_ids[self.person_code(person)]

    @cached_property
    def n_ratings(self) -> np.ndarray:
        """Length of each history, (n_users,) int."""
        return np.diff(self.history.matrix.indptr)

    @cached_property
    def _people_as_text(self) -> np.ndarray:
        return self.history.user_ids.astype(str)

    @cached_property
    def people(self) -> pd.DataFrame:
        """The users table by id."""
        return self.prepared.users.set_index("user_id")

    def facts_of(self, person: str) -> dict[str, str]:
        """Demographics of a person that are known, ready to be shown."""
        user = self.person_id(person)
        if user not in self.people.index:
            return {}
        row = self.people.loc[user]
        return {str(name).replace("_", " "): str(value) for name, value in row.items() if not pd.isna(value)}

    def find_people(self, text: str, limit: int = 8) -> list[str]:
        """Ids that are, begin with, or hold the text; all people can be found."""
        text, ids = text.strip().lower(), self._people_as_text
        if not text:
            return ids[:limit].tolist()
        lower = np.char.lower(ids)
        starts = np.char.startswith(lower, text)
        order = np.lexsort((np.arange(len(ids)), np.char.str_len(ids), ~starts))
        holds = np.char.find(lower, text) >= 0
        return ids[order[holds[order]]][:limit].tolist()

    def history_of(self, person: str) -> pd.DataFrame:
        """item_id, rating, timestamp (where known) of a person, the latest first."""
        row = self.history.rows(np.array([self.person_code(person)]))
        frame = pd.DataFrame({"item_id": self.history.item_ids[row.matrix.indices], "rating": row.matrix.data})
        if row.timestamps is None:
            return frame
        return frame.assign(timestamp=row.timestamps).sort_values("timestamp", ascending=False, kind="stable")

    @cached_property
    def _next(self) -> dict[Any, np.ndarray]:
        return self.prepared.split.test.groupby("user_id").indices

    def watched_next(self, person: str) -> pd.DataFrame:
        """The person's part of the test table: item_id, rating, ..."""
        rows = self._next.get(self.person_id(person), np.empty(0, dtype=int))
        return self.prepared.split.test.iloc[rows]

    # ---- films -----------------------------------------------------------------------------------------------

    @cached_property
    def _items(self) -> pd.DataFrame:
        kept = np.isin(self.prepared.items["item_id"].to_numpy(), self.history.item_ids)
        return self.prepared.items[kept].sort_values("item_id").reset_index(drop=True)

    @cached_property
    def _item_ids(self) -> np.ndarray:
        return np.asarray(self._items["item_id"].tolist())

    @cached_property
    def genres(self) -> list[str]:
        """All genres, in alphabetical order."""
        return sorted(self._genre_counts)

    @cached_property
    def _genre_counts(self) -> dict[str, int]:
        return self._items["genres"].explode().dropna().value_counts().to_dict()

    @cached_property
    def years(self) -> tuple[int, int] | None:
        """The earliest and the latest year of a film, or None where no year is known."""
        known = self._items["year"].dropna()
        return (int(known.min()), int(known.max())) if len(known) else None

    def knows_film(self, film: str) -> bool:
        """Whether a film is in the catalogue that the models were fitted on."""
        return _code(film, self._item_ids) >= 0

    def film_id(self, film: str) -> Any:
        """The data's own id of a film."""
        return self._item_ids[_code(film, self._item_ids)]

    def films(self, item_ids: Any) -> list[Film]:
        """The films of these ids, in this order."""
        codes = codes_of(item_ids, self._item_ids)
        rows = self._items.iloc[codes]
        years = rows["year"].astype("Float64").fillna(0).astype(int)
        return [
            Film(str(item_id), readable_title(str(title)), year, tuple(genres), self._hues(str(title), genres))
            for item_id, title, year, genres in zip(item_ids, rows["title"], years, rows["genres"], strict=True)
        ]

    def _hues(self, title: str, genres: Any) -> tuple[int, int]:
        """Two hues, from the rarest genres: most films are dramas or comedies, which says little."""
        rare = sorted(genres, key=lambda genre: (self._genre_counts[genre], genre))[:2]
        hues = [HUES.get(genre, 137 * self.genres.index(genre) % 360) for genre in rare]
        if not hues:
            hues = [sum(map(ord, title)) * 37 % 360]
        return hues[0], hues[1] if len(hues) > 1 else (hues[0] + 35) % 360

    @cached_property
    def _searchable(self) -> np.ndarray:
        return np.array([plain(readable_title(str(title))) for title in self._items["title"]])

    @cached_property
    def popularity(self) -> np.ndarray:
        """How many people know each film of the catalogue, (n_films,) int, in the order of the ids."""
        return self.history.matrix.getnnz(axis=0)[np.maximum(self.history.item_codes(self._item_ids), 0)]

    def film_ids(self, text: str = "") -> np.ndarray:
        """Ids of the films whose title holds every word, those that begin with the text first, then the well known.

        Without a word: all films.
        """
        words, titles = plain(text).split(), self._searchable
        holds = np.logical_and.reduce(
            [np.ones(len(titles), bool), *(np.char.find(titles, word) >= 0 for word in words)]
        )
        starts = np.char.startswith(titles, " ".join(words))
        order = np.lexsort((-self.popularity, ~starts))
        return self._item_ids[order[holds[order]]]

    def find_films(self, text: str, limit: int = 8) -> list[Film]:
        """Films of :meth:`film_ids`; none for no word."""
        return self.films(self.film_ids(text)[:limit]) if plain(text).split() else []

    def well_known(self, limit: int = 12) -> list[Film]:
        """The films that most people know."""
        return self.films(self.film_ids()[:limit])

    def candidates(self, genre: str, since: int, until: int) -> np.ndarray | None:
        """Ids of the films of a genre and of these years (0: no limit); None when nothing is left out."""
        if not (genre or since or until):
            return None
        allowed = np.ones(len(self._items), dtype=bool)
        if genre:
            allowed &= np.array([genre in genres for genres in self._items["genres"]])
        years = self._items["year"].astype("Float64").fillna(-1).to_numpy()
        if since:
            allowed &= years >= since
        if until:
            allowed &= (years <= until) & (years > 0)
        return self._item_ids[allowed]

    # ---- results ---------------------------------------------------------------------------------------------

    @cached_property
    def metrics(self) -> list[str]:
        """Names of the leaderboard's measures."""
        names = [name for model in (self.board or {}).get("models", []) for name in model["metrics"]]
        return list(dict.fromkeys(names))

    def ranking(self, metric: str) -> list[dict[str, Any]]:
        """Models of the leaderboard that have a measure, the best first."""
        models = [m for m in (self.board or {}).get("models", []) if _mean(m, metric) is not None]
        sign = 1 if metric.split("@")[0] in LOWER_IS_BETTER else -1
        return sorted(models, key=lambda model: (sign * _mean(model, metric), model["name"]))


def _mean(model: dict[str, Any], metric: str) -> float | None:
    return (model["metrics"].get(metric) or {}).get("mean")


def _code(text: str, known: np.ndarray) -> int:
    """Position of an id given as text; -1 where there is none."""
    if known.dtype.kind == "U":
        return -1 if "\0" in text else int(codes_of([text], known)[0])  # an array drops zeros at the end of a text
    if not re.fullmatch(r"-?[0-9]{1,19}", text) or not -(2**63) <= int(text) < 2**63:
        return -1
    return int(codes_of([int(text)], known)[0])


__all__ = ["Film", "Lab", "MissingArtifactError", "NotPossibleError", "OtherDataError", "label"]
