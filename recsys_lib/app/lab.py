"""The data and the models of one run as the application shows them: users, films, model names."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from rapidfuzz import fuzz, process
from traitlets import TraitError

from recsys_lib.app.prepared import read_prepared
from recsys_lib.data.interactions import Interactions, codes_of
from recsys_lib.models.base import Recommender
from recsys_lib.run.run import MissingArtifactError, Run

ACRONYMS = {"als": "ALS", "knn": "kNN", "ease": "EASE", "bpr": "BPR", "svd": "SVD"}
ACRONYMS |= {"ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "auc": "AUC", "rmse": "RMSE", "mae": "MAE"}
LOWER_IS_BETTER = ("rmse", "mae", "gini", "miscalibration")
ARTICLE = re.compile(r"^(.*), (The|A|An|Les|Le|La|L'|Il|El|Das|Der|Die)$")
KINDS = {  # what models of a class do, in words for visitors
    "Popularity": "The films that most users have rated: the same list for everybody.",
    "Trending": "What others were rating when the user was last here.",
    "GenrePopularity": "Well-known films of the genres that the user watches.",
    "ALS": "Matrix factorisation: tastes behind who rated what, and the films that fit them.",
    "BPR": "Matrix factorisation that learns to rank rated films above the others.",
    "ItemKNN": "Films rated by the same users as the films of the history.",
    "SequenceKNN": "Films that others rated soon after the latest films of the history.",
    "EASE": "A linear model: how much each film of the history speaks for every other.",
    "Blend": "A weighted sum of several models.",
    "Reranker": "Candidates of other models, re-ranked by genres, age and recency.",
    "NeuralHybrid": "A neural network that predicts ratings; it was not trained to rank.",
    "NeuralRanker": "A neural network that reads the history and predicts what comes next.",
}


class NotPossibleError(TraitError):
    """A choice that cannot be followed; its text is shown to the visitor as it is."""


@dataclass(frozen=True)
class Film:
    """One film, as the pages show it.

    Attributes
    ----------
    id
        The data set's own.
    year
        0 where it is not known.
    mean, n
        Mean rating and number of ratings in the history.
    hue
        Angle on the colour circle, from the rarest genre.
    """

    id: Any
    title: str
    year: int
    genres: tuple[str, ...]
    mean: float
    n: int
    hue: int

    @property
    def initials(self) -> str:
        """One or two letters for the poster."""
        words = [word for word in re.findall(r"\w+", self.title) if len(word) > 3 or word[0].isupper()]
        return "".join(word[0] for word in words[:2]).upper() or "?"


def label(name: str) -> str:
    """Name of a model or a metric as people write it.

    >>> label("als_tuned"), label("item_knn"), label("ndcg@10"), label("hit_rate@5")
    ('ALS tuned', 'Item kNN', 'NDCG@10', 'Hit rate@5')
    """
    words = [ACRONYMS.get(word, word) for word in re.split(r"_|(?=@)", name) if word]
    text = " ".join(words).replace(" @", "@")
    return text[:1].upper() + text[1:]


def plain(text: str) -> str:
    """Lower case without accents, to search in.

    >>> plain("Amélie")
    'amelie'
    """
    letters = unicodedata.normalize("NFKD", str(text).lower())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def readable_title(title: str) -> str:
    """A title with its article in front.

    >>> readable_title("Usual Suspects, The")
    'The Usual Suspects'
    """
    parts = ARTICLE.match(title)
    return f"{parts[2]} {parts[1]}" if parts else title


class Lab:
    """What a run left, for reading only.

    Parameters
    ----------
    run : Run
        Its tables (test part included: the application shows what users rated next), models and leaderboard.

    Raises
    ------
    MissingArtifactError
        If the tables or all models are missing; the text names the command that makes them.
    OtherDataError
        If models were made from other data; likewise.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tables, self.computed = read_prepared(run)
        run.tables = self.tables  # the rest of the run needs no Arrow then
        self.known = Interactions.from_frame(self.tables.history)
        self.configs = {name: run.model_config(name) for name in run.models}
        if not self.configs:
            raise MissingArtifactError(f"There is no model yet: `{run.command()}` makes them")
        for name, config in self.configs.items():
            run.check_identity(f"the model {name}", config["data"], run.paths.models / name / "config.json")
        leaderboard = run.paths.metrics / "leaderboard.json"
        self.board: list[dict[str, Any]] = run.results.leaderboard["models"] if leaderboard.is_file() else []
        place = {entry["name"]: number for number, entry in enumerate(self.board)}
        self.models = {
            name: label(name) for name in sorted(self.configs, key=lambda name: (place.get(name, 999), name))
        }
        self.metrics = list(dict.fromkeys(name for entry in self.board for name in entry["metrics"]))

    # ---- models and results ----------------------------------------------------------------------------------

    def model(self, name: str) -> Recommender:
        """A model, read when it is first asked for.

        Raises
        ------
        NotPossibleError
            If it cannot be read; the text names the command that makes it again.
        """
        try:
            return self.run.models[name]
        except (OSError, ValueError, KeyError) as error:
            again = self.run.command_for(self.run.paths.models / name / "config.json")
            raise NotPossibleError(f"{label(name)} could not be read; `{again}` makes it again.") from error

    def about(self, name: str) -> str:
        """What a model does, in one sentence; models of one class also say in which parameters they differ."""
        config = self.configs.get(name)
        if config is None:
            return "On the leaderboard, but not among the saved models."
        alike = [other for other in self.configs.values() if other["model"] == config["model"]]
        differs = [
            f"{key.replace('_', ' ')} {value:g}" if isinstance(value, float) else f"{key.replace('_', ' ')} {value}"
            for key, value in config["params"].items()
            if any(other["params"].get(key) != value for other in alike) and isinstance(value, int | float | str)
        ]
        members = ", ".join(label(member) for member in config.get("members", {}))
        more = f" Here: {members}." if members else f" Here: {', '.join(differs[:3])}." if differs else ""
        return KINDS.get(config["model"], "") + more

    def ranking(self, metric: str) -> list[dict[str, Any]]:
        """Entries of the leaderboard that have a metric, best first."""
        entries = [entry for entry in self.board if (entry["metrics"].get(metric) or {}).get("mean") is not None]
        sign = 1 if metric.split("@")[0] in LOWER_IS_BETTER else -1
        return sorted(entries, key=lambda entry: sign * entry["metrics"][metric]["mean"])

    # ---- users -----------------------------------------------------------------------------------------------

    @property
    def has_ratings(self) -> bool:
        """Whether the data says how much a film was liked."""
        return self.tables.rating_scale is not None

    @property
    def scale(self) -> tuple[float, float]:
        """Lowest and highest rating; (1, 1) for implicit feedback."""
        return self.tables.rating_scale or (1.0, 1.0)

    @cached_property
    def facts(self) -> pd.DataFrame:
        """The users table by id, without what is empty."""
        return self.tables.users.drop_duplicates("user_id").set_index("user_id")

    def facts_of(self, user: Any) -> dict[str, str]:
        """Demographics of a user that are known."""
        row = self.facts.loc[user] if user in self.facts.index else pd.Series(dtype=object)
        return {str(name).replace("_", " "): f"{value}" for name, value in row.items() if not pd.isna(value)}

    @cached_property
    def user_labels(self) -> dict[str, Any]:
        """Id of each user by a label that can be searched: number of films, demographics, favourite genre."""
        taste = self.history_genres
        labels = {}
        for code, user in enumerate(self.known.user_ids.tolist()):
            facts = [f"{name} {value}" if value.isdigit() else value for name, value in self.facts_of(user).items()]
            n = self.known.matrix.indptr[code + 1] - self.known.matrix.indptr[code]
            labels[" · ".join([f"User {user}", f"{n} films", *facts[:3], taste[code]]).strip(" ·")] = user
        return labels

    @cached_property
    def history_genres(self) -> list[str]:
        """The genre that each user rates more often than others do, (n_users,)."""
        if not self.genres:
            return [""] * self.known.n_users
        counts = (self.known.matrix > 0).astype(float) @ self.genre_matrix
        lift = (
            (counts + 5 * counts.sum(0) / counts.sum())
            / (counts.sum(1, keepdims=True) + 5)
            / (counts.sum(0) / counts.sum())
        )
        return [self.genres[code] for code in lift.argmax(1)]

    def history_of(self, user: Any) -> pd.DataFrame:
        """item_id, rating, timestamp (where known) of a user, the latest first."""
        row = self.known.rows(self.known.user_codes([user]))
        frame = pd.DataFrame({"item_id": self.known.item_ids[row.matrix.indices], "rating": row.matrix.data})
        if self.known.seconds is None:
            return frame
        return frame.assign(timestamp=row.timestamps).sort_values("timestamp", ascending=False, kind="stable")

    def rated_next(self, user: Any) -> dict[Any, float]:
        """The test part of a user: rating by item id."""
        rows = self.tables.split.test[self.tables.split.test["user_id"] == user]
        return dict(zip(rows["item_id"], rows.get("rating", pd.Series(0.0, rows.index)), strict=True))

    # ---- films -----------------------------------------------------------------------------------------------

    @cached_property
    def items(self) -> pd.DataFrame:
        """The films that the models can list, a row each, in the order of the columns of ``known``."""
        return self.tables.items.drop_duplicates("item_id").set_index("item_id").reindex(self.known.item_ids)

    @cached_property
    def genres(self) -> list[str]:
        """All genres, in alphabetical order."""
        return sorted({genre for genres in self._genres for genre in genres})

    @cached_property
    def _genres(self) -> list[tuple[str, ...]]:
        return [
            tuple(genres) if isinstance(genres, list) else ()
            for genres in self.items.get("genres", [()] * len(self.items))
        ]

    @cached_property
    def genre_matrix(self) -> np.ndarray:
        """Which film has which genre, (n_items, n_genres) float."""
        return np.array([[genre in genres for genre in self.genres] for genres in self._genres], dtype=float)

    @cached_property
    def years(self) -> np.ndarray:
        """Year of each film, (n_items,) int; 0 where it is not known."""
        return self.items["year"].astype("Float64").fillna(0).to_numpy(int)

    @cached_property
    def counts(self) -> np.ndarray:
        """How many users rated each film, (n_items,)."""
        return self.known.matrix.getnnz(axis=0)

    @cached_property
    def means(self) -> np.ndarray:
        """Mean rating of each film, (n_items,)."""
        return np.asarray(self.known.matrix.sum(axis=0)).ravel() / np.maximum(self.counts, 1)

    @cached_property
    def titles(self) -> np.ndarray:
        """Readable title of each film, (n_items,)."""
        ids = self.items.index
        return np.array(
            [
                readable_title(str(title)) if isinstance(title, str) else f"Film {item}"
                for item, title in zip(ids, self.items["title"], strict=True)
            ]
        )

    def film(self, item: Any) -> Film | None:
        """A film by its id; None for one that the models do not know."""
        code = int(codes_of([item], self.known.item_ids)[0])
        if code < 0:
            return None
        genres, frequent = self._genres[code], self.genre_matrix.sum(0) if self.genres else ()
        rare = min(genres, key=lambda genre: frequent[self.genres.index(genre)], default="")
        hue = 137 * self.genres.index(rare) % 360 if rare else int(item) % 360 if str(item).isdigit() else 205
        title, year = self.titles[code], int(self.years[code])
        return Film(item, str(title), year, genres, float(self.means[code]), int(self.counts[code]), hue)

    @cached_property
    def film_labels(self) -> dict[str, Any]:
        """Id of each film by title and year, the best known first."""
        order, ids = np.argsort(-self.counts, kind="stable"), self.known.item_ids.tolist()
        labels: dict[str, Any] = {}
        for code in order:
            text = f"{self.titles[code]} ({self.years[code]})" if self.years[code] else str(self.titles[code])
            labels.setdefault(text, ids[code])
        return labels

    def allowed(self, genre: str, years: tuple[int, int]) -> np.ndarray | None:
        """Ids of the films of a genre ("" for all) and of these years; None when nothing is left out."""
        inside = np.ones(len(self.years), dtype=bool)
        if genre:
            inside &= self.genre_matrix[:, self.genres.index(genre)] > 0
        if years != self.year_range:
            inside &= (self.years >= years[0]) & (self.years <= years[1])
        return None if inside.all() else self.known.item_ids[inside]

    @cached_property
    def year_range(self) -> tuple[int, int]:
        """The earliest and the latest year of a film; (0, 0) where no year is known."""
        known = self.years[self.years > 0]
        return (int(known.min()), int(known.max())) if len(known) else (0, 0)

    def groups(self, picked: list[Any], n: int = 3, size: int = 4) -> list[list[Any]]:
        """Groups of well-known films that differ from each other, to begin with: liked by the same users within each.

        Parameters
        ----------
        picked
            Item ids chosen so far: the groups then are of films near to these.
        """
        pool = np.argsort(-self.counts, kind="stable")[:150]
        vectors = (self.known.matrix[:, pool] > 0).astype(float).toarray()
        vectors -= vectors.mean(axis=1, keepdims=True)  # how active a user is says nothing of taste
        vectors /= np.maximum(np.linalg.norm(vectors, axis=0), 1e-9)
        alike = vectors.T @ vectors
        taken = np.isin(self.known.item_ids[pool], picked)
        near = alike[taken].sum(axis=0) if taken.any() else np.zeros(len(pool))
        free = ~taken & (near >= np.quantile(near[~taken], 0.6)) if taken.any() else ~taken
        groups: list[list[Any]] = []
        chosen = np.zeros(len(pool), dtype=bool)
        for _ in range(n):
            left = np.flatnonzero(free & ~chosen)
            if len(left) < size:
                break
            seed = left[np.argmin(alike[left][:, chosen].max(axis=1))] if chosen.any() else left[0]
            group = left[np.argsort(-alike[seed, left], kind="stable")[:size]]
            chosen[group] = True
            groups.append(self.known.item_ids[pool[group]].tolist())
        return groups

    def suggestions(self, picked: list[Any], n: int = 8) -> list[Any]:
        """Well-known films to add: near to those that were picked, or the best known where none was."""
        order = np.argsort(-self.counts, kind="stable")
        codes = self.known.item_codes(picked)
        if len(codes):
            rated = (self.known.matrix > 0).astype(float)
            together = np.asarray(rated.T @ rated[:, codes].sum(axis=1)).ravel()
            order = np.argsort(-together / np.sqrt(self.counts + 20.0), kind="stable")
        order = order[~np.isin(order, codes)]
        return self.known.item_ids[order[:n]].tolist()


def search(text: str, labels: dict[str, Any], limit: int = 8) -> list[str]:
    """Labels that hold every word of a text, else those that are nearest to it in spelling, best first.

    >>> labels = {"The Usual Suspects (1995)": 1, "Usual Business": 2, "Alien (1979)": 3}
    >>> search("suspects usual", labels), search("ussual suspcts", labels, 1), search("zzzzzz", labels)
    (['The Usual Suspects (1995)'], ['The Usual Suspects (1995)'], [])
    """
    words = plain(text).split()
    if not words:
        return list(labels)[:limit]
    holding = [name for name in labels if all(word in plain(name) for word in words)]
    if holding:
        exact = re.compile(rf"(^|\W){re.escape(plain(text).strip())}($|\W)")
        return sorted(holding, key=lambda name: exact.search(plain(name)) is None)[:limit]
    near = process.extract(
        plain(text), {name: plain(name) for name in labels}, scorer=fuzz.WRatio, limit=limit, score_cutoff=72
    )
    return [name for _, _, name in near]
