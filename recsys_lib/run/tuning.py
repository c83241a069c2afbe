"""Searches for parameters: the same number of trials for every model, never a look at the test part.

``python -m recsys_lib.run.tuning ml-100k --trials 40`` searches for all models, goes on where an earlier search
stopped, and writes what it chose to ``notebooks/params/<dataset>.yaml``.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import optuna
import pandas as pd
import yaml
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator
from optuna.visualization.matplotlib import plot_param_importances
from tqdm.auto import tqdm

from recsys_lib.data.catalogue import MOST_GENRES
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.splits import Split, asking_some, held_out_split
from recsys_lib.evaluation.task import Task, mean_ndcg
from recsys_lib.files import replacing
from recsys_lib.models import (
    ALS,
    BPR,
    EASE,
    AttributeKNN,
    GenrePopularity,
    ItemKNN,
    Popularity,
    Recommender,
    SequenceKNN,
)
from recsys_lib.plots.style import save_figure
from recsys_lib.run.parameters import NOTEBOOKS
from recsys_lib.run.run import Run
from recsys_lib.run.sizing import sized_for

LISTED = 10
TRIALS = 40  # of each model


# ---- what is searched --------------------------------------------------------------------------------------------


class Range(NamedTuple):
    """A number between two others, drawn evenly or on a logarithmic scale, and rounded."""

    low: float
    high: float
    digits: int
    log: bool = True


@dataclass(frozen=True)
class Space:
    """The space that is searched for one model.

    - ``build``: from the parameters to a model.
    - ``values``: by parameter: what it is chosen from.
    - ``places``: where the choice goes to: notebooks, each with the name of its parameter, which is a mapping; None:
      the parameters themselves are the notebook's.
    - ``needs``: "timestamps", "order", "genres" or "attributes", where the model cannot be without.
    """

    build: Callable[..., Recommender]
    values: dict[str, list | Range]
    places: tuple[tuple[str, str | None], ...]
    needs: tuple[str, ...] = ()

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Parameters that a trial proposes."""
        given = {}
        for name, values in self.values.items():
            if isinstance(values, Range):
                given[name] = round(trial.suggest_float(name, values.low, values.high, log=values.log), values.digits)
            else:
                given[name] = trial.suggest_categorical(name, values)
        if "genre_weight" in given:
            given["popularity_weight"] = round(1 - given["genre_weight"], 2)
        return given


_LOW = {"low_weight": [0.0, 0.15, 0.3, 0.5, 1.0]}
_RECENT = {"half_life": [1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 25.0, 50.0, None]}
_SHRINKAGE = {"shrinkage": Range(0.5, 200, 1)}
_ALS = {
    "factors": [32, 64, 128, 256],
    "regularization": Range(1, 100, 2),
    "iterations": [10, 15, 25],
    "alpha": Range(1, 40, 2),
    **_LOW,
}
_BPR = {
    "factors": [32, 64, 128],
    "learning_rate": Range(0.005, 0.1, 4),
    "regularization": Range(0.001, 0.1, 4),
    "iterations": [50, 100, 200],
    "fold_in": Range(0.1, 20, 2),
    "background": Range(0.001, 0.3, 4),
    **_RECENT,
}
_ITEM_KNN = {"neighbours": [50, 100, 200, 500, 1000], "weighting": ["cosine", "tfidf", "bm25"]}
_SEQUENCE_KNN = {
    "window": [5, 10, 20, 40, 80],
    "neighbours": [100, 200, 500, 1000],
    "shrinkage": [0.0, 1.0, 3.0, 10.0, 30.0],
    "decay": Range(0, 1, 2, log=False),
    "backward": Range(0, 1, 2, log=False),
    "power": Range(0.1, 0.7, 2, log=False),
    "next_power": Range(0, 0.7, 2, log=False),
    "half_life": Range(0.7, 50, 1),
}
_ATTRIBUTES = {"weighting": ["cosine", "tfidf"], "neighbours": [200, 500, 1000], "half_life": Range(0.7, 15, 1)}
_EASE = {"regularization": Range(10, 2000, 1), "item_power": Range(-0.5, 0.1, 2, log=False)}
SPACES: dict[str, Space] = {
    "popularity_decayed": Space(
        partial(Popularity, kind="decayed"),
        {"half_life_days": Range(3, 2000, 1)},
        (("03_popularity", None),),
        ("timestamps",),
    ),
    "genre_popularity": Space(
        GenrePopularity,
        {"genre_weight": Range(0, 1, 2, log=False), **_LOW, **_RECENT},
        (("03_popularity", "genre_tuned"),),
        ("genres",),
    ),
    "als": Space(ALS, _ALS, (("04_als", None), ("05_item_models", "als_plain"))),
    "als_recent": Space(ALS, _ALS | _RECENT, (("04_als", "recent"), ("05_item_models", "als")), ("order",)),
    "bpr": Space(BPR, _BPR, (("04_als", "bpr"), ("05_item_models", "bpr"))),
    "item_knn": Space(ItemKNN, _ITEM_KNN | _SHRINKAGE | _LOW | _RECENT, (("05_item_models", "item_knn"),)),
    "sequence_knn": Space(
        SequenceKNN,
        _SEQUENCE_KNN | _LOW,
        (("05_item_models", "sequence_knn"),),
        ("order",),
    ),
    "attributes": Space(AttributeKNN, _ATTRIBUTES | _LOW, (("05_item_models", "attributes"),), ("attributes",)),
    "ease": Space(EASE, _EASE | _LOW | _RECENT, (("05_item_models", "ease"),)),
}


# ---- the search --------------------------------------------------------------------------------------------------


class Tuner:
    """Searches on one data set.

    - ``split``: its train and validation parts are used, and nothing else: see
      :func:`recsys_lib.data.splits.held_out_split`.
    - ``relevant_from``: ratings from here on are relevant, and count as liked.
    - ``storage``: of Optuna; None keeps the search in memory.
    - ``identity``: part of the names of the searches: another data set or split is another search.
    - ``fixed``: by model: parameters that are not searched.
    """

    def __init__(
        self,
        split: Split,
        items: pd.DataFrame,
        *,
        relevant_from: float = 4.0,
        storage: str | None = None,
        identity: str = "",
        fixed: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        again = held_out_split(split)
        self.train, self.items = Interactions.from_frame(again.train), items
        self.task, self.relevant_from = Task.from_split(asking_some(again), relevant_from), relevant_from
        self.storage, self.identity, self.fixed = storage, identity, fixed or {}

    def possible(self) -> list[str]:
        """Models that this data set can be used with."""
        has = {"order"} if self.train.timestamps is not None else set()
        has |= {"timestamps"} if self.train.seconds is not None else set()
        kinds = self.items["genres"].explode().nunique()
        has |= {"genres" if kinds <= MOST_GENRES else "attributes"} if kinds else set()
        return [name for name, space in SPACES.items() if set(space.needs) <= has]

    def search(self, name: str, trials: int = TRIALS) -> optuna.Study:
        """Search until so many trials are done, those of earlier runs included."""
        space, sampler = SPACES[name], optuna.samplers.TPESampler(seed=0)
        ranges = crc32(repr(space.values).encode())  # a search in other ranges is another search
        kept = {"study_name": f"{name}-{self.identity}-{ranges:08x}", "storage": self.storage, "load_if_exists": True}
        study = optuna.create_study(**kept, sampler=sampler, direction="maximize")
        done = len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE]))

        def judge(trial: optuna.Trial) -> float:
            given = space.suggest(trial) | self.fixed.get(name, {})
            trial.set_user_attr("params", given)
            more = {} if name == "popularity_decayed" else {"positive_from": self.relevant_from}
            model = space.build(**given, **more).fit(self.train, items=self.items)
            return mean_ndcg(model, self.task, LISTED)

        with tqdm(total=trials, initial=min(done, trials), desc=name) as bar:
            study.optimize(judge, n_trials=max(0, trials - done), callbacks=[lambda *_: bar.update(1)])
        return study


def chosen(studies: dict[str, optuna.Study]) -> dict[str, dict[str, Any]]:
    """Sections of a parameters file: the best trial of each model, and how many there were."""
    sections: dict[str, dict[str, Any]] = {}
    for name, study in studies.items():
        best = study.best_trial.user_attrs["params"]
        for notebook, parameter in SPACES[name].places:
            section = sections.setdefault(notebook, {})
            section.update(best if parameter is None else {parameter: dict(best)})
            section["trials"] = max(section.get("trials", 0), len(study.trials))
    return sections


def write_chosen(file: Path, sections: dict[str, dict[str, Any]]) -> Path:
    """Put sections into a parameters file; parameters and sections of others stay as they are."""
    content = (yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None) or {}
    for notebook, section in sections.items():
        content[notebook] = {**(content.get(notebook) or {}), **section}
    head = f"# Parameters of the notebooks. `python -m recsys_lib.run.tuning {file.stem}` writes those of 03 to 05.\n"
    with replacing(file) as temporary:
        temporary.write_text(head + yaml.safe_dump(content, sort_keys=False, width=110), encoding="utf-8")
    return file


def main(arguments: list[str] | None = None) -> None:
    """Search for the parameters of all models, or of those that are named."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.run.tuning", description=main.__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--trials", type=int, default=TRIALS, help=f"of each model ({TRIALS})")
    parser.add_argument("--models", nargs="*", choices=list(SPACES), help="all, if none is named")
    parser.add_argument("--params", type=Path, help="the file to write (notebooks/params/<dataset>.yaml)")
    given = parser.parse_args(arguments)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    run = Run(given.dataset)
    prepared, paths = run.tables, run.paths
    paths.outputs.mkdir(parents=True, exist_ok=True)
    ease = sized_for(given.dataset).get("05_item_models", {}).get("ease", {})
    tuner = Tuner(
        prepared.split,
        prepared.items,
        relevant_from=prepared.relevant_from,
        storage=f"sqlite:///{paths.outputs / 'tuning.db'}",  # goes on where an earlier search stopped
        identity=f"{prepared.identity['sha256'][:8]}-{prepared.split.name}",
        fixed={"ease": {name: value for name, value in ease.items() if name == "max_items"}},
    )
    studies = {name: tuner.search(name, given.trials) for name in given.models or tuner.possible()}
    file = write_chosen(given.params or NOTEBOOKS / "params" / f"{run.name}.yaml", chosen(studies))
    warnings.filterwarnings("ignore", category=ExperimentalWarning)  # Optuna's figures have been that since 2020
    for name, study in studies.items():
        print(f"{name:<20} {len(study.trials):>4} trials, best {study.best_value:.4f}")
        if len(study.trials) > 3:
            axes = plot_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
            save_figure(axes.figure, paths.figures / f"tuning_{name}.png")
    print(f"chosen parameters: {file}")


if __name__ == "__main__":
    main()
