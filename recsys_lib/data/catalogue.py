"""What items, models, metrics and features are called, and what is known of them."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import codes_of


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
