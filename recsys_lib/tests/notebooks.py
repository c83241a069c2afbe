"""Run every notebook, in its order, through nbmake: on made data and the parameters of notebooks/params/test.yaml.

``python -m recsys_lib.tests.notebooks`` does it for made data sets in the forms that people bring, two at a time: one
that has all that MovieLens 100K has, one with nothing but pairs of ids, and those of ``SHAPES``. Each has a home of its
own, so that no result of a real run is touched, and papermill puts the parameters into copies of the notebooks there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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


def filmtrust(home: Path) -> Path:
    """Blank-separated ratings from 0.5 to 4 without a header and without times; 20 users have a single, low one."""
    interactions, _, _ = made_tables(n_users=100, n_items=60, seed=2)
    rest = interactions["user_id"] <= 20
    kept = pd.concat([interactions[~rest], interactions[rest].drop_duplicates("user_id")])
    ratings = (kept["rating"] - 0.5 * (kept["item_id"] % 2)).clip(0.5, 4.0).where(kept["user_id"] > 20, 1.0)
    rows = kept.assign(rating=ratings).drop(columns="timestamp")
    rows.to_csv(_in(home, "ratings.txt"), sep=" ", header=False, index=False)
    return home / "ratings.txt"


def lastfm(home: Path) -> Path:
    """How often users listened to artists, and the artists' names, as in the files of hetrec2011-lastfm-2k."""
    interactions, items, _ = made_tables(n_users=100, n_items=60, seed=3)
    plays = interactions.assign(weight=2 ** interactions["rating"].astype(int))[["user_id", "item_id", "weight"]]
    names = ["userID", "artistID", "weight"]
    plays.set_axis(names, axis=1).to_csv(_in(home / "lastfm", "user_artists.dat"), sep="\t", index=False)
    artists = items[["item_id", "title"]].set_axis(["id", "name"], axis=1)
    artists.to_csv(home / "lastfm" / "artists.dat", sep="\t", index=False)
    return home / "lastfm"


def json_lines(home: Path) -> Path:
    """Reviews as Amazon's: one JSON object a line."""
    interactions, _, _ = made_tables(n_users=100, n_items=60, seed=4)
    ids = {"user_id": "A" + interactions["user_id"].astype(str), "item_id": "B0" + interactions["item_id"].astype(str)}
    reviews = interactions.assign(**ids, reviewText="fine")
    theirs = {"user_id": "reviewerID", "item_id": "asin", "rating": "overall", "timestamp": "unixReviewTime"}
    reviews.rename(columns=theirs).to_json(_in(home, "reviews.json"), orient="records", lines=True)
    return home / "reviews.json"


def thumbs(home: Path) -> Path:
    """Thumbs up and down, with dates as text."""
    interactions, _, _ = made_tables(n_users=100, n_items=60, seed=5)
    when = pd.to_datetime(interactions["timestamp"], unit="s").dt.strftime("%Y-%m-%d %H:%M:%S")
    votes = interactions.assign(rating=interactions["rating"] >= 4, timestamp=when)
    votes.to_csv(_in(home, "thumbs.csv"), index=False)
    return home / "thumbs.csv"


def sequences(home: Path) -> Path:
    """One user a line, then the items in their order, some of them again; and beside it more attributes than genres."""
    interactions, _, _ = made_tables(n_users=100, n_items=70, seed=6)
    rows = interactions.sort_values("timestamp").groupby("user_id")["item_id"]
    lines = [" ".join(map(str, [user, *items, *items.iloc[: int(user % 3 == 0)]])) for user, items in rows]
    _in(home, "visits.txt").write_text("\n".join(lines) + "\n")
    attributes = {str(item): [f"kind {item % 5}", f"brand {item}"] for item in interactions["item_id"].unique()[1:]}
    _in(home, "visits_item2attributes.json").write_text(json.dumps(attributes))
    return home / "visits.txt"


def one_user(home: Path) -> Path:
    """Sixteen ratings of a single user."""
    interactions, _, _ = made_tables(n_users=1, n_items=60, seed=7)
    interactions.to_csv(_in(home, "one_user.csv"), index=False)
    return home / "one_user.csv"


def alike(home: Path) -> Path:
    """Everybody rated everything, in the same order, and with the same rating."""
    rows = [(user, item, 4, 86_400 * user + item) for user in range(30) for item in range(12)]
    names = ["user_id", "item_id", "rating", "timestamp"]
    pd.DataFrame(rows, columns=names).to_csv(_in(home, "alike.csv"), index=False)
    return home / "alike.csv"


SHAPES = (filmtrust, lastfm, json_lines, thumbs, sequences, one_user, alike)


def _in(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


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
    given |= {"MLFLOW_TRACKING_URI": "none", "RECSYS_REMOTE": ""}
    options = "-q -o addopts=-ra -p no:cacheprovider -p no:randomly --durations=12"
    nbmake = "--nbmake --nbmake-timeout=300 --nbmake-kernel=python3"
    command = [sys.executable, "-m", "pytest", *options.split(), *nbmake.split(), *map(str, copies)]
    log = (home / "pytest.log").open("w")
    print(f"{name}: {len(notebooks)} notebooks", flush=True)
    return subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | given, stdout=log, stderr=subprocess.STDOUT)


def main() -> int:
    """Run the notebooks, all of them by default, on all made data sets."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.tests.notebooks", description=main.__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--data", nargs="*", help="names of made data sets; all, if none is named")
    given = parser.parse_args()
    sequence = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    studies = sorted((NOTEBOOKS / "studies").glob("*.ipynb"))
    with tempfile.TemporaryDirectory() as folder:
        makers = (everything, only_pairs, *SHAPES)
        chosen = [make for make in makers if not given.data or make.__name__ in given.data]

        def run(make: Callable[[Path], Path]) -> int:
            home = Path(folder) / make.__name__
            data = make(home)
            notebooks = [*sequence, *studies] if make is everything else sequence
            process = start(make.__name__, data, home, [path.resolve() for path in given.notebooks] or notebooks)
            status = process.wait()
            print(f"\n--- {home.name}\n{(home / 'pytest.log').read_text()}", flush=True)
            return status

        with ThreadPoolExecutor(max_workers=2) as two:
            return int(any(list(two.map(run, chosen))))


if __name__ == "__main__":
    sys.exit(main())
