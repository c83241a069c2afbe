"""The data and the models of one run as the application shows them."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from traitlets import TraitError

from recsys_lib.app.prepared import read_prepared
from recsys_lib.data.catalogue import LOWER_IS_BETTER, about, genre_matrix, label, plain, readable_title
from recsys_lib.data.interactions import Interactions, order_column
from recsys_lib.files import read_json
from recsys_lib.models.base import Recommender
from recsys_lib.run.run import MissingArtifactError, Run


class NotPossibleError(TraitError):
    """A choice that cannot be followed; its text is shown to the visitor as it is."""


class Lab:
    """What a run left, for reading only: what is ``known`` to models, the ``test`` part, ``explored``, ``offered``.

    ``explored`` is what 07 found for this page (``notebooks/explored.py``; empty before it ran); ``offered`` the labels
    of what can be chosen for a trait, by value; ``models`` those of the models, the champion first, then as on the
    leaderboard.
    MissingArtifactError if the tables or all models are missing, OtherDataError if models were made from other data.
    """

    def __init__(self, run: Run) -> None:
        self.known, self.test = read_prepared(run).values()
        self.run, self.tables, explored = run, run.tables, run.paths.metrics / "explored.json"
        self.explored = read_json(explored) if explored.is_file() else {"p": {}, "segments": {}, "similar": {}}
        self.has_ratings, self.scale = self.tables.rating_scale is not None, self.tables.rating_scale or (1.0, 1.0)
        step = 1.0 if self.scale[0] == 1 and self.scale[1] <= 6 else 0.5
        self.stars = np.arange(self.scale[0], self.scale[1] + 0.01, step).tolist()
        self.lengths = np.diff(self.known.matrix.indptr)  # of histories
        self.best_known = np.argsort(-self.known.item_counts, kind="stable")  # columns of films, the most rated first
        self.configs = {name: run.model_config(name) for name in run.models}
        if not self.configs:
            raise MissingArtifactError(f"There is no model yet: `{run.command()}` makes them")
        for name, config in self.configs.items():
            run.check_identity(f"the model {name}", config["data"], run.paths.models / name / "config.json")
        board, champion = run.paths.metrics / "leaderboard.json", run.paths.outputs / "champion.json"
        self.board: list[dict[str, Any]] = run.results.leaderboard["models"] if board.is_file() else []
        names = [read_json(champion)["model"]] if champion.is_file() else []
        names += [*(entry["name"] for entry in self.board), *sorted(self.configs)]
        self.models = {name: label(name) for name in dict.fromkeys(names) if name in self.configs}
        items = self.tables.items.drop_duplicates("item_id").set_index("item_id").reindex(self.known.item_ids)
        counts, sums = self.known.item_counts.astype(int), np.asarray(self.known.matrix.sum(axis=0)).ravel()
        self.items = items.assign(mean=(sums / counts).round(2), ratings=counts)
        self.has_genre, self.genres = genre_matrix(self.tables.items, self.known.item_ids)
        titles = self.tables.items.reindex(columns=["title", "item_id"]).dropna().astype(str)
        ids = [*self.known.item_ids, *self.known.user_ids, *self.genres]  # a word in them is no word of ours
        self.are_films = (titles["title"] != titles["item_id"]).any() or any(
            "film" in str(name).lower() for name in ids
        )
        years = self.films["year"][self.films["year"] > 0]
        self.year_range = (int(years.min()), int(years.max())) if len(years) else (0, 0)  # where no year is known
        metrics = dict.fromkeys(name for entry in self.board for name in entry["metrics"])
        means = {
            entry["name"]: {name: metric["mean"] for name, metric in entry["metrics"].items() if metric}
            for entry in self.board
        }
        self.segments = {"all users": means} | self.explored["segments"]
        self.offered = {
            "model": self.models,
            "genre": {"": "All genres", **{name: name for name in self.genres}},
            "metric": {metric: label(metric) for metric in metrics} or {"": "no leaderboard yet"},
            "column": {column: label(column) for column in self.items.columns if column != "title"},
            "order": {
                "latest": "Latest first",
                "rating": "Best rated first",
                "title": "By title",
                "column": "By column",
            },
            "diversify": {"mmr": "Other audiences"} | ({"calibration": "Own mix of genres"} if self.genres else {}),
            "who": {"user": "user", "new user": "new user"},
        }

    def words(self, text: str) -> str:
        """A text about films, or what HTML says of them, as one about items, where the data knows no titles."""
        if self.are_films:
            return text
        return re.sub(
            r"\b([Ff])ilm(s?)\b(?![^<>]*>)", lambda word: {"F": "I", "f": "i"}[word[1]] + "tem" + word[2], text
        )

    def model(self, name: str) -> Recommender:
        """A model, read when it is first asked for; NotPossibleError if it cannot be, with the command that helps."""
        try:
            return self.run.models[name]
        except (OSError, ValueError, KeyError) as error:
            again = self.run.command_for(self.run.paths.models / name / "config.json")
            raise NotPossibleError(f"{label(name)} could not be read; `{again}` makes it again.") from error

    def about(self, name: str) -> str:
        """What a model does, in one sentence."""
        return about(name).replace("item", "film").replace("Item", "Film")

    def ranking(self, metric: str) -> list[dict[str, Any]]:
        """Models that have a metric, best first: name, label, seconds, mean, low, high, n_users (None if not known)."""
        unknown, rows = dict.fromkeys(("mean", "low", "high", "n_users")), []
        for entry in self.board:
            row = {"name": entry["name"], "label": label(entry["name"]), "seconds": entry.get("fit_seconds")}
            rows.append(row | unknown | (entry["metrics"].get(metric) or {}))
        rows = [row for row in rows if row["mean"] is not None]
        return sorted(rows, key=lambda row: row["mean"], reverse=metric.split("@")[0] not in LOWER_IS_BETTER)

    @cached_property
    def facts(self) -> dict[Any, dict[str, str]]:
        """Demographics that are known, by user."""
        table = self.tables.users.rename(columns=lambda name: name.replace("_", " ")).astype(object)
        rows = table.drop(columns="user id").to_dict("records")
        known = [{name: str(value) for name, value in row.items() if pd.notna(value)} for row in rows]
        return dict(zip(table["user id"], known, strict=True))

    @cached_property
    def user_labels(self) -> dict[str, Any]:
        """Id of each user by a label that can be searched: number of films, demographics, favourite genre."""
        counts = (self.known.matrix > 0).astype(float) @ self.has_genre
        usual = counts.sum(0) / max(counts.sum(), 1)
        favourites = (counts + 5 * usual) / (counts.sum(1, keepdims=True) + 5) / np.maximum(usual, 1e-9)
        labels = {}
        for code, (user, n) in enumerate(zip(self.known.user_ids.tolist(), self.lengths, strict=True)):
            facts = list(self.facts.get(user, {}).items())[:3]
            facts = [f"{name} {value}" if value.isdigit() else value for name, value in facts]
            genre = [self.genres[favourites[code].argmax()]] if self.genres else []
            labels[self.words(" · ".join([f"User {user}", f"{n} films", *facts, *genre]))] = user
        return labels

    def rated_next(self, user: Any) -> dict[Any, float]:
        """The test part of a user: rating by item id."""
        return self.history_of(user, self.test).set_index("item_id")["rating"].to_dict()

    def history_of(self, user: Any, part: Interactions | None = None) -> pd.DataFrame:
        """item_id, rating, timestamp (where known) of a user, the latest first, in what is known or another part."""
        part = part or self.known
        frame = part.only(part.user_codes([user])).to_frame()
        frame = frame.sort_values([*filter(None, [order_column(frame)])], ascending=False, kind="stable")
        return frame.drop(columns=["user_id", "position"], errors="ignore")

    @cached_property
    def films(self) -> pd.DataFrame:
        """The films that models can list, by id.

        Columns: id, title (article in front), year (0 where it is not known), genres, ratings (how many), mean
        (rating), label (title and year), page (its address where the data set has pages of its own); for a poster
        initials and hue (angle on the colour circle, by genre).
        """
        films = self.items.reindex(columns=["title", "year", "genres", "ratings", "mean"])
        titles = films["title"].items()
        films["title"] = [
            readable_title(title) if isinstance(title, str) else self.words(f"Film {item}") for item, title in titles
        ]
        films["year"] = films["year"].astype("Float64").fillna(0).astype(int)
        films["genres"] = [genres if isinstance(genres, list) else [] for genres in films["genres"]]
        films["label"] = films["title"] + films["year"].map(lambda year: f" ({year})" if year else "")
        site = "https://movielens.org/movies/" if self.tables.identity["name"].startswith("ml-latest") else ""
        films["page"] = [f"{site}{item}" if site else "" for item in films.index]
        words = films["title"].str.findall(r"\b(?:[^\W\d_][^\W_]{3}|[A-Z0-9])").str[:2]
        films["initials"] = ["".join(word[0] for word in each).upper() or "?" for each in words]
        rarest = np.where(self.has_genre > 0, self.has_genre.sum(0), np.inf).argmin(1) if self.genres else 0
        return films.assign(hue=137 * rarest % 360, id=films.index)

    @cached_property
    def film(self) -> dict[Any, Any]:
        """A film by its id, with the columns of :attr:`films` as attributes."""
        return {film.id: film for film in self.films.itertuples(index=False, name="Film")}

    @cached_property
    def film_labels(self) -> dict[str, Any]:
        """Id of each film by title and year, the best known first."""
        ordered = self.films.iloc[self.best_known].drop_duplicates("label")
        return dict(zip(ordered["label"], ordered.index.tolist(), strict=True))

    def allowed(self, genre: str, years: tuple[int, int]) -> np.ndarray | None:
        """Ids of the films of a genre ("" for all) and of these years; None when nothing is left out."""
        inside = self.films["year"].between(*years).to_numpy() | (years == self.year_range)
        if genre:
            inside &= self.has_genre[:, self.genres.index(genre)] > 0
        return None if inside.all() else self.known.item_ids[inside]

    def alike(self, codes: np.ndarray) -> np.ndarray:
        """Correlation between the audiences of the films of these columns, (n, n)."""
        rated = (self.known.matrix[:, codes] > 0).astype(np.float32).toarray()
        rated -= rated.mean(axis=1, keepdims=True)  # how active a user is says nothing of taste
        rated /= np.maximum(np.linalg.norm(rated, axis=0), 1e-9)
        return rated.T @ rated

    def _near(self, picked: list[Any], size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Well-known films that were not picked: ids, how alike their audiences are, nearness to what was picked."""
        codes = self.known.item_codes(picked)
        pool = self.best_known[:size][~np.isin(self.best_known[:size], codes)]
        alike = self.alike(np.append(pool, codes))
        return self.known.item_ids[pool], alike[: len(pool), : len(pool)], alike[: len(pool), len(pool) :].sum(axis=1)

    def groups(self, picked: list[Any], n: int = 3, size: int = 4) -> list[list[Any]]:
        """Groups of well-known films, liked by the same users within each, to begin with or near to those picked."""
        ids, alike, near = self._near(picked, 150)
        left = np.sort(
            np.argsort(near, kind="stable")[int(0.6 * len(ids)) if picked else 0 :]
        )  # the others are too far
        groups: list[np.ndarray] = []
        while len(groups) < n and len(left) >= size:
            before = np.concatenate([left[:0], *groups])
            first = left[np.argmin(alike[np.ix_(left, before)].max(axis=1, initial=-1))]  # least like the groups before
            groups.append(left[np.argsort(-alike[first, left], kind="stable")[:size]])
            left = np.setdiff1d(left, groups[-1])
        return [ids[group].tolist() for group in groups]

    def suggestions(self, picked: list[Any], n: int = 8) -> list[Any]:
        """Well-known films to add: near to those that were picked, or the best known where none was."""
        ids, _, near = self._near(picked, 300)
        return ids[np.argsort(-near, kind="stable")[:n]].tolist()


def search(text: str, labels: dict[str, Any], limit: int = 8) -> list[str]:
    """Labels that hold every word of a text, else those that are nearest to it in spelling, best first.

    >>> labels = {"The Usual Suspects (1995)": 1, "Usual Business": 2, "Alien (1979)": 3}
    >>> search("suspects usual", labels), search("ussual suspcts", labels, 1), search("zzzzzz", labels)
    (['The Usual Suspects (1995)'], ['The Usual Suspects (1995)'], [])
    """
    text, names = plain(text).strip(), {name: plain(name) for name in labels}
    holding = [name for name, words in names.items() if all(word in words for word in text.split())]
    if not holding:
        from rapidfuzz import fuzz, process  # 2.5 MB, for those alone who mistype

        return [name for *_, name in process.extract(text, names, scorer=fuzz.WRatio, limit=limit, score_cutoff=72)]
    exact = re.compile(rf"(^|\W){re.escape(text)}($|\W)")
    return sorted(holding, key=lambda name: exact.search(names[name]) is None)[:limit]
