"""Users and films of a run as the service shows them, and the search for titles."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.data.catalogue import plain, readable_title
from recsys_lib.run.run import Run


class Films:
    """The films that a run's models know, by column of the run's history.

    Parameters
    ----------
    run
        Its items table may lack a film: that one has no title, no year, no genres.

    Attributes
    ----------
    ids : ndarray, (n_items,)
        Ascending.
    facts : list of dict
        movie_id, title, year, genres of each film, by column.
    n_ratings, mean_ratings : ndarray, (n_items,)
        Of the history, where every film has a rating.
    """

    def __init__(self, run: Run) -> None:
        known = run.known
        self.ids, self.n_ratings = known.item_ids, known.item_counts
        self.mean_ratings = np.bincount(known.matrix.indices, known.matrix.data) / self.n_ratings
        rows = run.tables.items.set_index("item_id").reindex(self.ids)
        columns = (self.ids.tolist(), rows["title"], rows["year"], rows["genres"])
        self.facts = [
            {
                "movie_id": item,
                "title": None if pd.isna(title) else readable_title(str(title)),
                "year": None if pd.isna(year) else int(year),
                "genres": [] if isinstance(genres, float) else list(genres),  # NaN where the film is not in the table
            }
            for item, title, year, genres in zip(*columns, strict=True)
        ]
        self._by_id = {film["movie_id"]: film for film in self.facts}

    def of(self, movie_id: Any) -> dict[str, Any]:
        """Facts of the film of an id."""
        return self._by_id[movie_id]

    @cached_property
    def genres(self) -> list[str]:
        """All genres, in alphabetical order."""
        return sorted({genre for film in self.facts for genre in film["genres"]})

    def of_genre(self, genre: str) -> np.ndarray:
        """Ids of the films of a genre."""
        return self.ids[[genre in film["genres"] for film in self.facts]]

    @cached_property
    def _titles(self) -> np.ndarray:
        return np.array([plain(film["title"] or "") for film in self.facts])

    def search(self, text: str = "") -> np.ndarray:
        """Columns of the films whose title holds every word: those that begin with the text, then the best known.

        Without a word: all films.
        """
        words = plain(text).split()
        holds = np.ones(len(self.ids), dtype=bool)
        for word in words:
            holds &= np.char.find(self._titles, word) >= 0
        starts = np.char.startswith(self._titles, " ".join(words))
        order = np.lexsort((-self.n_ratings, ~starts))
        return order[holds[order]]


class Users:
    """The users that a run's models know, by row of the run's history.

    Attributes
    ----------
    ids : ndarray, (n_users,)
        Ascending.
    n_ratings : ndarray, (n_users,) int
        Length of each history.
    """

    def __init__(self, run: Run) -> None:
        self.ids, self._known = run.known.user_ids, run.known
        self.n_ratings = np.diff(run.known.matrix.indptr)
        self._table = run.tables.users.set_index("user_id")

    def facts(self, code: int) -> dict[str, str]:
        """What the users table knows of a user, ready to be shown."""
        if self.ids[code] not in self._table.index:
            return {}
        row = self._table.loc[self.ids[code]]
        return {str(name).replace("_", " "): str(value) for name, value in row.items() if not pd.isna(value)}

    def history(self, code: int) -> pd.DataFrame:
        """item_id, rating, timestamp (where known) of a user's interactions, the latest first."""
        row = self._known.rows(np.array([code]))
        frame = pd.DataFrame({"item_id": self._known.item_ids[row.matrix.indices], "rating": row.matrix.data})
        if self._known.seconds is None:
            return frame
        return frame.assign(timestamp=row.timestamps).sort_values("timestamp", ascending=False, kind="stable")
