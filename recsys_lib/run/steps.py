"""The steps of a run: what each needs, reads and writes.

The one description of the sequence: the Makefile makes its rules from what ``python -m recsys_lib.run.steps words``
prints, ``make dag`` shows them, and a missing file is traced to the step that makes it. Standard library only,
because it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from recsys_lib.data.known import is_there, nothing_called
from recsys_lib.paths import Paths, home, is_remote, run_name


@dataclass(frozen=True)
class Step:
    """One notebook of the sequence: the steps before it, and the files it reads and writes.

    In files, below ``data``, ``outputs`` and ``reports``, ``{name}`` stands for the data set's folder.
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
_FITTED_ON = tuple(f"data/processed/{{name}}/{table}.parquet" for table in ("train", "valid", "items", "users"))
_TABLES = (*_FITTED_ON, "data/processed/{name}/test.parquet", "data/processed/{name}/manifest.json")
_MODELS = "outputs/{name}/models/*"
_RESULTS = (_PREPARED, _MODELS, "outputs/{name}/metrics/leaderboard.json", "outputs/{name}/champion.json")


def _training(name: str, *models: str, needs: tuple[str, ...] = ("02_preprocessing",)) -> Step:
    """A step that fits models and reports on it."""
    writes = tuple(f"outputs/{{name}}/models/{model}" for model in models)
    return Step(name, needs, _FITTED_ON, (*writes, f"outputs/{{name}}/metrics/training/{name}.json"))


STEPS: tuple[Step, ...] = (
    Step("00_environment", (), (), (_RAW,)),
    Step("01_exploration", ("00_environment",), (_RAW,), ("reports/{name}/exploration_report.json",)),
    Step(
        "02_preprocessing",
        ("00_environment",),
        (_RAW,),
        (_PREPARED, *_TABLES, "reports/{name}/preprocessing_report.json"),
    ),
    _training("03_popularity", "popularity*", "genre_popularity*"),
    _training("04_als", "als*", "bpr"),
    _training("05_item_models", "item_knn*", "sequence_knn*", "attributes*", "ease*", "blend", "reranker*"),
    _training("06_neural_hybrid", "neural_*", "causal_*", needs=("02_preprocessing", "05_item_models")),
    Step(
        "07_evaluation",
        ("03_popularity", "04_als", "05_item_models", "06_neural_hybrid"),
        (_PREPARED, _MODELS),
        (
            "outputs/{name}/metrics/leaderboard.json",
            "outputs/{name}/metrics/explored.json",
            "outputs/{name}/metrics/per_user/*",
            "outputs/{name}/metrics/lists/*",
            "outputs/{name}/metrics/champion_by/*",
            "outputs/{name}/champions/*",
            "outputs/{name}/champion.json",
            "reports/{name}/training_report.json",
            "reports/{name}/evaluation_report.json",
        ),
    ),
    Step(
        "08_recommendations",
        ("07_evaluation",),
        _RESULTS,
        ("outputs/{name}/recommendations/*", "reports/{name}/recommendation_report.json"),
    ),
    Step("09_demo", ("07_evaluation",), _RESULTS),
)


ENGINES = ("pandas", "spark")
NOT_ON_SPARK = ("05_item_models", "06_neural_hybrid")  # steps that it has nothing for


def steps_of() -> tuple[Step, ...]:
    """The steps of a run by the engine that the environment variable ``ENGINE`` names, or pandas."""
    left_out = NOT_ON_SPARK if engine_asked() == "spark" else ()
    return tuple(
        replace(step, needs=tuple(need for need in step.needs if need not in left_out))
        for step in STEPS
        if step.name not in left_out
    )


def engine_asked() -> str:
    """The value of ``ENGINE``: "pandas", or "spark" (:mod:`recsys_lib.scale.spark`); ValueError for any other."""
    engine = os.environ.get("ENGINE") or ENGINES[0]
    if engine not in ENGINES:
        raise ValueError(f"ENGINE is {engine!r}; it must be {' or '.join(ENGINES)}")
    return engine


def step_that_writes(path: Path | str) -> Step | None:
    """Find the step that makes a file, from the end of its path.

    >>> step_that_writes("/x/outputs/ml-100k/models/als_tuned/config.json").name
    '04_als'
    >>> step_that_writes("/x/data/processed/ml-100k/manifest.json").name
    '02_preprocessing'
    """
    text = Path(path).as_posix()
    for step in STEPS:
        if any(fnmatch(f"{text}/", f"*/{pattern.format(name='*').rstrip('*')}*") for pattern in step.writes):
            return step
    return None


def gone(step: Step, dataset: str) -> bool:
    """Whether something that a step makes is not there: a file, a model that its report names, the champion.

    A report or pointer that cannot be read is as good as none.
    """
    outputs = Paths(dataset).outputs
    files = [home() / pattern.format(name=run_name(dataset)) for pattern in step.writes if "*" not in pattern]
    try:
        for report in [file for file in files if file.parent.name == "training" and file.is_file()]:
            models = json.loads(report.read_text(encoding="utf-8"))["models"]
            files += [outputs / "models" / model / "config.json" for model in models]
        for pointer in [file for file in files if file.name == "champion.json" and file.is_file()]:
            files.append(outputs / json.loads(pointer.read_text(encoding="utf-8"))["folder"] / "config.json")
    except (ValueError, KeyError, TypeError):
        return True
    return not all(file.exists() for file in files)


def words(dataset: str) -> str:
    """The name of the run's folders, then each step with those it needs, for Make.

    >>> words("ml-100k").split()[:3]
    ['ml-100k', '00_environment', '01_exploration:00_environment']
    """
    return " ".join([run_name(dataset), *(":".join((step.name, *step.needs)) for step in steps_of())])


def refusal(dataset: str) -> str:
    """What is wrong with the name of a data set, in a sentence; nothing of one in S3, or that has been run here.

    >>> refusal("ml-100k"), refusal("s3://bucket/plays.csv"), refusal("nonsense")[:43]
    ('', '', "there is no data set and no file 'nonsense'")
    """
    shared = is_remote(dataset) or bool(os.environ.get("RECSYS_REMOTE"))
    known = shared or is_there(dataset) or (Paths(dataset).processed / "manifest.json").is_file()
    return "" if known else nothing_called(dataset)


def overview(dataset: str) -> str:
    """The steps as text: state, what each needs, reads and writes. Make itself is asked what is up to date."""
    folder = Paths(dataset).outputs / "notebooks"
    lines = []
    for step in steps_of():
        target = folder / f"{step.name}.ipynb"
        question = [os.environ.get("MAKE", "make"), "-q", "--no-print-directory", f"DATASET={dataset}", step.number]
        fresh = subprocess.run(question, capture_output=True, check=False).returncode == 0
        state = "up to date" if fresh else "out of date" if target.exists() else "not run yet"
        about = [("after ", ", ".join(step.needs))] if step.needs else []
        about += [("reads ", what) for what in step.reads] + [("writes", what) for what in step.writes]
        lines.append(f"{step.name:<20} {state}")
        lines += [f"    {word} {what.format(name=run_name(dataset))}" for word, what in about]
    return "\n".join(lines)


def main() -> None:
    """Print the steps or what is wrong with a name for Make, or the overview for a person."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.run.steps", description=main.__doc__)
    parser.add_argument("what", choices=["words", "refusal", "overview"])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    given = parser.parse_args()
    text = {"words": words, "refusal": refusal, "overview": overview}[given.what](given.dataset)
    sys.stdout.write(text.rstrip() + "\n")


if __name__ == "__main__":
    main()
