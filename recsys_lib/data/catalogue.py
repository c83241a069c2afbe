"""The data sets that are known by name, where they are published, and names and genres as people write them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import codes_of

BASE_URL = "https://files.grouplens.org/datasets/movielens/"


@dataclass(frozen=True)
class KnownDataset:
    """One MovieLens data set as GroupLens publishes it."""

    name: str  # that load_dataset takes; the archive is <name>.zip
    rating_scale: tuple[float, float]  # lowest and highest rating in stars
    md5: str | None = None  # of the archive; None where it is read from the .md5 file beside it, if there is one
    folder: str | None = None  # inside the archive, where it is not called like it

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return f"{self.name}.zip"

    @property
    def url(self) -> str:
        """Where GroupLens publishes the archive."""
        return BASE_URL + self.archive

    @property
    def folders(self) -> tuple[str, ...]:
        """Names that the unpacked folder may have."""
        return (self.name, self.folder) if self.folder else (self.name,)


_WHOLE, _HALF = (1.0, 5.0), (0.5, 5.0)

KNOWN: dict[str, KnownDataset] = {
    known.name: known
    for known in (
        KnownDataset("ml-100k", _WHOLE, "0e33842e24a9c977be4e0107933c0723"),
        KnownDataset("ml-latest-small", _HALF),
        KnownDataset("ml-latest", _HALF),
        KnownDataset("ml-1m", _WHOLE, "c4d9eecfca2ab87c1945afe126590906"),
        KnownDataset("ml-10m", _HALF, "ce571fd55effeba0271552578f2648bd", folder="ml-10M100K"),
        KnownDataset("ml-20m", _HALF, "cd245b17a1ae2cc31bb14903e1204af3"),
        KnownDataset("ml-25m", _HALF, "6b51fb2759a8657d3bfcbfc42b592ada"),
        KnownDataset("ml-32m", _HALF, "d472be332d4daa821edc399621853b57"),
    )
}


def nothing_called(dataset: str) -> str:
    """Say that a name is no data set and no file, and which is the nearest that is.

    >>> nothing_called("ml-1mm")[:63]
    "there is no data set and no file 'ml-1mm'; did you mean ml-1m? "
    """
    near = get_close_matches(dataset, KNOWN, n=1, cutoff=0)[0]
    return (
        f"there is no data set and no file {dataset!r}; did you mean {near}? Known are {', '.join(KNOWN)}, and the "
        "path of a folder, a zip archive, a CSV, TSV, JSON lines or parquet file will do too"
    )


def twin_groups(items: pd.DataFrame) -> pd.Series:
    """Number the groups of items that have the same title and year: one film under several ids.

    Returns a number for each row of ``items``; an item without a twin, a title or a year has a group of its own.

    >>> items = pd.DataFrame({"item_id": [1, 2, 3], "title": ["Ulee's Gold", "Up", "Ulee's Gold"], "year": 1997})
    >>> twin_groups(items).tolist()
    [0, 1, 0]
    """
    own = pd.Series(range(len(items)), index=items.index, dtype="int64")
    if not {"title", "year"} <= set(items.columns):
        return own
    known = items["title"].notna() & items["year"].notna()
    return own.where(~known, own.groupby([items["title"].str.casefold(), items["year"]]).transform("min")).astype(
        "int64"
    )


MOST_GENRES = 60  # more distinct values than these are attributes, such as brands and categories, and no genres


def genre_matrix(items: pd.DataFrame | None, item_ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Genres of items as zeros and ones, (n_items, n_genres) float32, with their names; no column where there are none.

    >>> items = pd.DataFrame({"item_id": [1, 2], "genres": [["Drama"], ["Action", "Drama"]]})
    >>> genre_matrix(items, np.array([1, 2, 3]))
    (array([[0., 1.],
           [1., 1.],
           [0., 0.]], dtype=float32), ['Action', 'Drama'])
    """
    if items is None or "genres" not in items:
        return np.zeros((len(item_ids), 0), np.float32), []
    table = items[["item_id", "genres"]].explode("genres").dropna()
    names = sorted(table["genres"].unique())
    rows, columns = codes_of(table["item_id"], item_ids), codes_of(table["genres"], np.array(names, dtype=str))
    flags = np.zeros((len(item_ids), len(names)), np.float32)
    kept = rows >= 0
    flags[rows[kept], columns[kept]] = 1
    return flags, names


ACRONYMS = {"als": "ALS", "knn": "kNN", "ease": "EASE", "bpr": "BPR", "svd": "SVD", "ndcg": "NDCG", "mrr": "MRR"}
ACRONYMS |= {"map": "MAP", "auc": "AUC", "rmse": "RMSE", "mae": "MAE", "mmr": "MMR", "reranker": "re-ranker"}
ACRONYMS |= {"tfidf": "TF-IDF", "bm": "BM"}
NAMES = {
    "neural_two_stage": "Neural two-stage",
    "als_public": "ALS, public parameters",
    "reranker_return": "Re-ranker, return visits",
}
NAMES |= {"half_life_days": "Half-life, days", "half_life": "Half-life, items", "regularization": "Regularisation"}
ARTICLE = re.compile(r"^(.*), (The|A|An|Les|Le|La|L'|Il|El|Das|Der|Die)$")


def label(name: str) -> str:
    """Name of a model, a metric or a column as people write it.

    >>> label("als_tuned"), label("item_knn"), label("ndcg@10"), label("neural_two_stage")
    ('ALS tuned', 'Item kNN', 'NDCG@10', 'Neural two-stage')
    """
    if name in NAMES:
        return NAMES[name]
    text = re.sub(r"[a-z]+", lambda word: ACRONYMS.get(word[0], word[0]), name.replace("_", " ").strip())
    return text[:1].upper() + text[1:]


def readable_title(title: str) -> str:
    """A title with its article in front.

    >>> readable_title("Usual Suspects, The")
    'The Usual Suspects'
    """
    return ARTICLE.sub(r"\2 \1", title)


def plain(text: str) -> str:
    """Lower case without accents, to search in.

    >>> plain("Amélie")
    'amelie'
    """
    letters = unicodedata.normalize("NFKD", text.lower())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))
