"""Run every notebook, in its order, through nbmake: on made data and the parameters of notebooks/params/test.yaml.

``python -m recsys_lib.tests.notebooks`` does it for two made data sets side by side: one that has all that
MovieLens 100K has, and one with nothing but pairs of ids. Each has a home of its own, so that no result of a real
run is touched, and papermill puts the parameters into copies of the notebooks there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import papermill

from recsys_lib.paths import REPOSITORY
from recsys_lib.run.parameters import parameters_for
from recsys_lib.tests.made import made_tables, write_ml_100k

NOTEBOOKS = REPOSITORY / "notebooks"


def everything(home: Path) -> Path:
    """A folder with the files of ml-100k: ratings, films with genres, users, histories of 20 films or more."""
    return write_ml_100k(home / "made" / "ml-made", n_users=150, n_items=90, per_user=40)


def only_pairs(home: Path) -> Path:
    """A table of pairs alone: ids are texts, no ratings, no times, no tables of items or users."""
    interactions, _, _ = made_tables(n_users=150, n_items=90, seed=1)
    liked = interactions[interactions["rating"] >= 4]
    pairs = {"user_id": "u" + liked["user_id"].astype(str), "item_id": "film " + liked["item_id"].astype(str)}
    home.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(pairs).to_csv(home / "pairs.csv", index=False)
    return home / "pairs.csv"


def with_parameters(notebook: Path, folder: Path, data: Path) -> Path:
    """Write a copy of a notebook into which papermill has put the small parameters."""
    given = parameters_for(notebook, NOTEBOOKS / "params" / "test.yaml") | {"dataset": str(data)}
    target = folder / notebook.relative_to(NOTEBOOKS)
    papermill.execute_notebook(str(notebook), str(target), given, prepare_only=True, progress_bar=False)
    return target


def start(name: str, data: Path, home: Path, notebooks: list[Path]) -> subprocess.Popen:
    """Start pytest --nbmake on copies of the notebooks, with a home of their own."""
    folder = home / "notebooks"
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns("*.ipynb", "params", "__pycache__"))
    copies = [with_parameters(notebook, folder, data) for notebook in notebooks]
    given = {"RECSYS_HOME": str(home), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    given["MLFLOW_TRACKING_URI"] = "none"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-o",
        "addopts=-ra",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "--nbmake",
    ]
    command += ["--nbmake-timeout=300", "--nbmake-kernel=python3", "--durations=12", *map(str, copies)]
    log = (home / "pytest.log").open("w")
    print(f"{name}: {len(notebooks)} notebooks", flush=True)
    return subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | given, stdout=log, stderr=subprocess.STDOUT)


def main() -> int:
    """Run the notebooks, all of them by default, on both made data sets."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.tests.notebooks", description=main.__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path)
    given = parser.parse_args()
    sequence = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    studies = sorted((NOTEBOOKS / "studies").glob("*.ipynb"))
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        running = {}
        for make, notebooks in ((everything, [*sequence, *studies]), (only_pairs, sequence)):
            home = Path(folder) / make.__name__
            data = make(home)
            running[home] = start(make.__name__, data, home, [path.resolve() for path in given.notebooks] or notebooks)
        for home, process in running.items():
            failed += process.wait() != 0
            print(f"\n--- {home.name}\n{(home / 'pytest.log').read_text()}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
