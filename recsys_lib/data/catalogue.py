"""What items, models, metrics and features are called, and what is known of them."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

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
    "als_public": "ALS (public parameters)",
    "reranker_return": "Re-ranker (return visits)",
    "r_precision": "R-precision",
}
NAMES |= {"half_life_days": "Half-life, days", "half_life": "Half-life, items", "regularization": "Regularisation"}
MODELS = {  # what each model of the sequence is, for readers of the report and visitors of the application
    "popularity": "The items that most users have rated: the same list for everybody.",
    "popularity_decayed": "Popularity in which old ratings count less, by a half-life in days.",
    "genre_popularity": "Well-known items of the genres in the history, with weights copied from a public project.",
    "genre_popularity_tuned": "Well-known items of the genres in the history, with tuned weights.",
    "als_public": "Matrix factorisation for implicit feedback (ALS), with the parameters of a public project.",
    "als_tuned": "Matrix factorisation (ALS) with tuned parameters: tastes behind who rated what.",
    "als_recent": "Matrix factorisation (ALS) in which recent ratings count more.",
    "bpr": "Matrix factorisation that learns, pair by pair, to rank rated items above the others.",
    "item_knn": "Items rated by the same users as those of the history.",
    "sequence_knn": "Items that others rated soon before or after those of the history.",
    "attributes": "Items with the brands, categories and the like of those in the history, where many are known.",
    "ease": "One ridge regression from all items to all: how much each of the history speaks for every other.",
    "blend": "A weighted sum of neighbours, matrix factorisation and popularity.",
    "reranker": "A second stage on the blend: orders its best items anew, by genres, years, recency and more.",
    "reranker_return": "A second stage on models that forget nothing, learnt from later visits alone.",
    "neural_ranker": "A neural network that pools the history and is trained to rank what comes next.",
    "causal_transformer": "A transformer that reads the history in its order and predicts what comes next (as SASRec).",
    "neural_two_stage": "A second stage on the neural ranker.",
    "neural_reranker": "A second stage on a blend that the neural ranker has joined.",
    "neural_hybrid": "A neural network that predicts ratings from histories, IDs and features; not trained to rank.",
}
METRICS = {  # what they say, by how their names begin
    "ndcg": "how near the top the relevant items stand; 1 is a perfect list",
    "precision": "share of the list that is relevant",
    "recall": "share of the relevant items that is in the list",
    "hit_rate": "share of users with at least one relevant item in the list",
    "mrr": "how early the first relevant item comes",
    "map": "how early the relevant items come, on the whole",
    "r_precision": "precision of a list as long as there are relevant items",
    "auc": "chance that a relevant item stands above one that was not rated",
    "rmse": "typical error of a predicted rating, in stars; lower is better",
    "mae": "mean error of a predicted rating, in stars; lower is better",
    "coverage": "share of the catalogue that anybody is shown",
    "gini": "how unevenly the items are shown; lower is more even",
    "novelty": "how little known the items shown are",
    "diversity": "how unlike each other the items of one list are",
    "serendipity": "relevant items that popularity alone would not have shown",
    "popularity_lift": "how much better known the items shown are than those of the history",
    "personalisation": "how unlike each other the lists of different users are",
    "miscalibration": "how far the genres of the list are from the user's own; lower is nearer",
}
LOWER_IS_BETTER = ("rmse", "mae", "gini", "miscalibration")  # of metrics, without @k
ARTICLE = re.compile(r"^(.*), (The|A|An|Les|Le|La|L'|Il|El|Das|Der|Die)( \(.+\))?$")


def label(name: str) -> str:
    """Name of a model, a metric or a column as people write it.

    >>> label("als_tuned"), label("item_knn"), label("ndcg@10"), label("neural_two_stage")
    ('ALS tuned', 'Item kNN', 'NDCG@10', 'Neural two-stage')
    """
    if name in NAMES:
        return NAMES[name]
    text = re.sub(r"[a-z]+", lambda word: ACRONYMS.get(word[0], word[0]), name.replace("_", " ").strip())
    return text[:1].upper() + text[1:]


def about(model: str) -> str:
    """What a model is, in one sentence.

    >>> about("neural_two_stage"), about("my_model")[:29]
    ('A second stage on the neural ranker.', 'Not a model of the sequence: ')
    """
    return MODELS.get(model, "Not a model of the sequence: its config.json says what it is made of.")


def meaning(metric: str) -> str:
    """What a metric says, in one line; "" for one that is not known.

    >>> meaning("hit_rate@10")
    'share of users with at least one relevant item in the list'
    """
    return next((text for begin, text in METRICS.items() if metric.startswith(begin)), "")


def feature_label(name: str, users: pd.DataFrame | None = None) -> str:
    """What a feature of a user or an item says; a fifth of what ``users`` have as numbers, by where it begins and ends.

    >>> users = pd.DataFrame({"age": range(20, 40), "gender": "F"})
    >>> [feature_label(name, users) for name in ("age 1", "gender F", "zip_code 8", "decade 1990")]
    ['age 24 to 27', 'gender F', 'ZIP code begins with 8', '1990s']
    """
    column, _, value = name.rpartition(" ")
    if "zip" in column and len(value) == 1:
        return f"ZIP code begins with {value}"
    if users is not None and column in users and is_numeric_dtype(users[column]) and users[column].nunique() > 10:
        fifth = users.loc[pd.qcut(users[column], 5, labels=False, duplicates="drop") == int(value), column]
        name = f"{column} {fifth.min():g} to {fifth.max():g}"
    return f"{value}s" if column == "decade" else name.replace("_", " ")


def readable_title(title: str) -> str:
    """A title with its article in front.

    >>> readable_title("Usual Suspects, The"), readable_title("City of Lost Children, The (1995)")
    ('The Usual Suspects', 'The City of Lost Children (1995)')
    """
    return ARTICLE.sub(r"\2 \1\3", title)


def plain(text: str) -> str:
    """Lower case without accents, to search in.

    >>> plain("Amélie")
    'amelie'
    """
    letters = unicodedata.normalize("NFKD", text.lower())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))
