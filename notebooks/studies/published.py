"""The tables of published results: the sets as their authors published them, and the order in them.

The five sequence sets are those of K. Zhou et al., "S3-Rec: Self-Supervised Learning for Sequential Recommendation with
Mutual Information Maximization", CIKM 2020: one user a line, items in their order; attributes of the items beside it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd

from recsys_lib import load_dataset, splits
from recsys_lib.data.fetch import FOLDER_VARIABLE, UnreachableError, fetch, resolve
from recsys_lib.data.interactions import distinct_ids
from recsys_lib.data.order import one_way  # noqa: F401 (the study asks for it here)
from recsys_lib.evaluation.task import Task, mean_ndcg
from recsys_lib.files import sha256
from recsys_lib.models import AttributeKNN, SequenceKNN
from recsys_lib.models.base import Recommender
from recsys_lib.paths import Paths, table_name
from recsys_lib.run.tuning import SPACES

URL = "https://raw.githubusercontent.com/aHuiWang/CIKM2020-S3Rec/master/data/"
SUMS = {  # SHA-256 of the sequences and of the attributes
    "Beauty": (
        "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
        "129e40f67486f6877eff0f5318cfa8530ee8ac23d8b0d1de04e1bb7a2ba0b2d4",
    ),
    "Toys_and_Games": (
        "176c680c688d497598c4a89a03b402c0fe78d795e5db335c2e78dd5f2d778a3f",
        "d371acd25101eedac04afc727626464b7acec770c4eda708705d51eb76eb1ad0",
    ),
    "Sports_and_Outdoors": (
        "2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2",
        "7fb10733ac4f1811384a52144cdefa7fcc7536fa80a7232c5da9bd789155c34b",
    ),
    "Yelp": (
        "724b219106b81dd2349027da997334ddb6da9fe2f152ad6e0d97a93170f7caed",
        "f25acd5e1e680e0b22fd4e3f4fb6be4b2a7461e9222610616e3e1ee6702dd58d",
    ),
    "LastFM": (
        "9ded486adb5b0fe9dc761950afa0a9a05e93ff018992e0c52bf11afec529f802",
        "a4ccd678dc9ff6d43fe5073f491db5c9b02eb98dfa4f8c0382913a784be217ef",
    ),
}
TEST, VALID = 0.25, 0.25  # of each user's ratings, and of the rest


@dataclass(frozen=True)
class Table:
    """A data set as a published table asks of it.

    Attributes
    ----------
    name
        As in ``published_tables.csv``.
    interactions, items
        As :func:`load_dataset` gives them; of sequences with repeated items, and ids dealt out by chance.
    split
        Leave-one-out of sequences; of ratings, each user's ratings dealt out 75 to 25.
    sequences
        Which of the two it is. Sequences are ranked strictly: fitted without the validation item, served with it.
    sha256
        Of the file, or of the ratings.
    """

    name: str
    interactions: pd.DataFrame
    items: pd.DataFrame
    split: splits.Split
    sequences: bool
    sha256: str

    @property
    def relevant_from(self) -> float | None:
        """Every item of a test part is relevant: the lowest rating; None for sequences."""
        return None if self.sequences else float(self.interactions["rating"].min())

    def task(self, split: splits.Split, *, strict: bool = True) -> Task:
        """The task of a split."""
        return Task.from_split(split, self.relevant_from, items=self.items, strict=strict and self.sequences)

    def validation(self, most: int, seed: int) -> Task:
        """The split that is searched on: the validation part of at most so many users, drawn by chance."""
        users = pd.Series(self.split.valid["user_id"].unique())
        asked = users.sample(min(most, len(users)), random_state=seed)
        valid = self.split.valid[self.split.valid["user_id"].isin(asked)]
        return self.task(replace(self.split, valid=valid).for_validation())


def load(dataset: str) -> Table:
    """Load one of the five sets by its name or the path of its file; any other data set as ratings.

    A set is sought beside the path, in the folder that ``MOVIELENS_DIR`` names, in ``sequences`` below it and among
    earlier downloads, and downloaded at last.

    Raises
    ------
    FileNotFoundError
        If a set can be had nowhere.
    ValueError
        If a file is not the published one, a line has no items, or the attributes are not those of the items.
    """
    name = table_name(dataset)
    if name in SUMS:
        files = [f"{name}.txt", f"{name}_item2attributes.json"]
        paths = [_find(file, expected, Path(dataset).parent) for file, expected in zip(files, SUMS[name], strict=True)]
        interactions, items = read(*paths)
        return Table(name, interactions, items, splits.leave_one_out(interactions), True, SUMS[name][0])
    data = load_dataset(dataset)
    return Table(name, data.interactions, data.items, stratified(data.interactions), False, data.sha256)


def _find(file: str, expected: str, beside: Path) -> Path:
    """Find or fetch a published file, and check that it is the one."""
    own, raw = resolve(Path(os.environ.get(FOLDER_VARIABLE) or ".")) or Path(), Paths("sequences").raw
    places = [folder / file for folder in (beside, own, own / "sequences", raw)]
    path = next((place for place in places if place.is_file()), None)
    try:
        path = path or fetch(URL + file, raw / file)
    except UnreachableError as error:
        raise FileNotFoundError(
            f"{error}; put {file} into {raw}, or into a folder that {FOLDER_VARIABLE} names"
        ) from error
    if sha256(path) != expected:
        raise ValueError(f"{path} is not the published file: its SHA-256 does not begin {expected[:12]}; remove it")
    return path


def read(sequences: Path, attributes: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read one user a line, items in order, and the attributes of the items: interactions, and items with genres.

    New ids are dealt out to the items by chance, and the title is the old one. The files number items in the order in
    which they first occur, so that an item's neighbours in number are its neighbours in a sequence: with such ids, a
    model that cannot tell two items apart would be right more often than by chance, as the lower number goes first.
    """
    data = load_dataset(sequences, items=attributes)
    table, known = data.interactions, data.items.set_index(data.items["item_id"].astype("str"))["genres"]
    table["title"] = table["item_id"].astype("str")
    titles = distinct_ids(table["title"])
    items = pd.DataFrame({"item_id": np.random.default_rng(0).permutation(len(titles)), "title": titles})
    items["genres"] = known.reindex(titles).tolist()
    table["item_id"] = table["title"].map(items.set_index("title")["item_id"])
    return table[["user_id", "item_id", "position"]], items.sort_values("item_id", ignore_index=True)


def stratified(interactions: pd.DataFrame, seed: int = 42) -> splits.Split:
    """Deal out each user's rows by chance: a quarter is test, a quarter of the rest validation.

    The split of Microsoft's Recommenders (``python_stratified_split``, 75 to 25), but for the draw.

    >>> parts = stratified(pd.DataFrame({"user_id": 1, "item_id": range(16)}))
    >>> len(parts.train), len(parts.valid), len(parts.test)
    (9, 3, 4)
    """
    order = pd.Series(np.random.default_rng(seed).random(len(interactions)), index=interactions.index)
    place = order.groupby(interactions["user_id"]).rank(method="first") - 1
    known = (place.groupby(interactions["user_id"]).transform("size") * (1 - TEST)).round()
    part = np.select([place >= known, place >= (known * (1 - VALID)).round()], ["test", "valid"], "train")
    parts = {name: interactions[part == name].reset_index(drop=True) for name in ("train", "valid", "test")}
    return splits.Split(**parts, name="stratified", params={"test": TEST, "valid": VALID, "seed": seed})


def directed(trial: optuna.Trial) -> SequenceKNN:
    """A directed kNN: the same few ranges for every set."""
    return SequenceKNN(
        window=20,
        neighbours=1000,
        shrinkage=0,
        decay=trial.suggest_float("decay", 0.2, 1.0),
        backward=trial.suggest_float("backward", 0.0, 0.6),
        power=trial.suggest_float("power", 0.1, 0.7),
        next_power=trial.suggest_float("next_power", 0.0, 0.5),
        half_life=trial.suggest_float("half_life", 0.7, 7, log=True),
    )


def attributes(trial: optuna.Trial) -> AttributeKNN:
    """Likeness to the last items by brand, category or genre."""
    return AttributeKNN(
        weighting=trial.suggest_categorical("weighting", ["cosine", "tfidf"]),
        neighbours=trial.suggest_categorical("neighbours", [200, 1000]),
        half_life=trial.suggest_float("half_life", 0.7, 15, log=True),
    )


def _of_the_lab(name: str) -> Callable[[optuna.Trial], Recommender]:
    """The space that `make tune` searches, over ratings as they are."""
    return lambda trial: SPACES[name].build(**SPACES[name].suggest(trial))


def spaces(table: Table) -> dict[str, Callable[[optuna.Trial], Recommender]]:
    """The spaces that are searched for a table, by the model's name."""
    if table.sequences:
        chosen = {"sequence_knn": directed, "als": _of_the_lab("als_recent")}
    else:
        chosen = {name: _of_the_lab(name) for name in ("als", "ease", "item_knn")}
    return chosen | ({"attributes": attributes} if table.items["genres"].map(len).any() else {})


def search(space: Callable[[optuna.Trial], Recommender], task: Task, trials: int, seed: int) -> optuna.Study:
    """Search for the highest NDCG@10 on a task; the best trial's ``user_attrs["params"]`` are a model's."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))

    def judge(trial: optuna.Trial) -> float:
        model = space(trial)
        trial.set_user_attr("params", model.params())
        return mean_ndcg(model.fit(task.known, items=task.content), task)

    study.optimize(judge, n_trials=trials)
    return study


def cpu_seconds(work: Callable[[], Any]) -> tuple[Any, float]:
    """Call a function; return its result and the CPU seconds of this process that it took."""
    start = time.process_time()
    return work(), time.process_time() - start
