"""The steps of a run: what each needs, reads and writes.

The one description of the sequence. The Makefile includes the rules that ``python recsys_lib/steps.py`` prints,
``make dag`` shows them, and a missing file is traced to the step that makes it. Standard library only, because it
runs before anything is installed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One notebook of the sequence.

    Attributes
    ----------
    name
        Stem of the notebook.
    needs
        Names of the steps that must have run before.
    reads, writes
        Files below ``data``, ``outputs`` and ``reports``; ``{name}`` stands for the data set's folder.
    """

    name: str
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        """The two digits in front."""
        return self.name[:2]


_RAW = "data/raw/{name}/*"
_PREPARED = "data/processed/{name}/*"
_TABLES = ("train", "valid", "items", "users")
_TRAIN = tuple(f"data/processed/{{name}}/{table}.parquet" for table in _TABLES)


def _training(name: str, *models: str) -> Step:
    """A step that fits models and reports on it."""
    writes = tuple(f"outputs/{{name}}/models/{model}/*" for model in models)
    return Step(name, ("02_preprocessing",), _TRAIN, (*writes, f"outputs/{{name}}/metrics/training/{name}.json"))


STEPS: tuple[Step, ...] = (
    Step("00_environment", (), (), (_RAW,)),
    Step("01_exploration", ("00_environment",), (_RAW,), ("reports/{name}/exploration_report.json",)),
    Step(
        "02_preprocessing",
        ("00_environment",),
        (_RAW,),
        (_PREPARED, "reports/{name}/preprocessing_report.json"),
    ),
    _training("03_popularity", "popularity*", "genre_popularity"),
    _training("04_als", "als*"),
    _training("05_item_models", "item_knn*", "ease*"),
    _training("06_neural_hybrid", "neural_*"),
    Step(
        "07_evaluation",
        ("03_popularity", "04_als", "05_item_models", "06_neural_hybrid"),
        (_PREPARED, "outputs/{name}/models/*"),
        (
            "outputs/{name}/metrics/leaderboard.json",
            "outputs/{name}/metrics/per_user/*",
            "reports/{name}/training_report.json",
            "reports/{name}/evaluation_report.json",
        ),
    ),
    Step(
        "08_recommendations",
        ("07_evaluation",),
        (_PREPARED, "outputs/{name}/models/*", "outputs/{name}/metrics/leaderboard.json"),
        ("outputs/{name}/recommendations/*", "reports/{name}/recommendation_report.json"),
    ),
    Step(
        "09_demo",
        ("07_evaluation", "08_recommendations"),
        (_PREPARED, "outputs/{name}/models/*", "outputs/{name}/metrics/*"),
        (),
    ),
)


def step_that_writes(path: Path | str) -> Step | None:
    """Find the step that makes a file, from the end of its path.

    >>> step_that_writes("/x/outputs/ml-100k/models/als_tuned/config.json").name
    '04_als'
    >>> step_that_writes("/x/data/processed/ml-100k/manifest.json").name
    '02_preprocessing'
    """
    text = Path(path).as_posix()
    for step in STEPS:
        if any(fnmatch(f"{text}/", f"*/{pattern.format(name='*')}*") for pattern in step.writes):
            return step
    return None


def makefile_rules() -> str:
    """Rules for Make: each executed notebook needs the executed notebooks before it."""
    lines = ["# made by recsys_lib/steps.py"]
    for step in STEPS:
        needs = "".join(f" $(DONE)/{name}.ipynb" for name in step.needs)
        lines.append(f"$(DONE)/{step.name}.ipynb:{needs}")
        lines.append(f".PHONY: {step.number}\n{step.number}: $(DONE)/{step.name}.ipynb")
    lines.append("EXECUTED := " + " ".join(f"$(DONE)/{step.name}.ipynb" for step in STEPS))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(makefile_rules())
