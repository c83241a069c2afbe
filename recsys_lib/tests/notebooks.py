"""Run every notebook, in its order, through nbmake: on made data and the parameters of notebooks/params/test.yaml.

``python -m recsys_lib.tests.notebooks`` does it for two made data sets side by side: one that has all that
MovieLens 100K has, and one with nothing but pairs of ids. Each has a home of its own, so that no result of a real
run is touched.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml

from recsys_lib.paths import REPOSITORY
from recsys_lib.run.parameters import COMMON, VARIABLE
from recsys_lib.tests.made import made_tables, write_ml_100k

NOTEBOOKS = REPOSITORY / "notebooks"


def everything(home: Path) -> Path:
    """A folder with the files of ml-100k: ratings, films with genres, people, histories of 20 films or more."""
    return write_ml_100k(home / "made" / "ml-made", n_users=150, n_items=90, per_user=40)


def only_pairs(home: Path) -> Path:
    """A table of pairs alone: ids are texts, no ratings, no times, no films' or people's table."""
    interactions, _, _ = made_tables(n_users=150, n_items=90, seed=1)
    liked = interactions[interactions["rating"] >= 4]
    pairs = {"user_id": "u" + liked["user_id"].astype(str), "item_id": "film " + liked["item_id"].astype(str)}
    home.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(pairs).to_csv(home / "pairs.csv", index=False)
    return home / "pairs.csv"


def start(name: str, data: Path, home: Path, notebooks: list[Path]) -> subprocess.Popen:
    """Start pytest --nbmake on the notebooks, with a home and parameters of their own."""
    parameters = yaml.safe_load((NOTEBOOKS / "params" / "test.yaml").read_text(encoding="utf-8"))
    parameters.setdefault(COMMON, {})["dataset"] = str(data)
    file = home / "params.yaml"
    file.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    given = {"RECSYS_HOME": str(home), VARIABLE: str(file), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    given["MLFLOW_TRACKING_URI"] = "none"
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=-ra", "-p", "no:cacheprovider", "--nbmake"]
    command += ["--nbmake-timeout=300", "--nbmake-kernel=python3", "--durations=12", *map(str, notebooks)]
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
            running[home] = start(make.__name__, data, home, given.notebooks or notebooks)
        for home, process in running.items():
            failed += process.wait() != 0
            print(f"\n--- {home.name}\n{(home / 'pytest.log').read_text()}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
