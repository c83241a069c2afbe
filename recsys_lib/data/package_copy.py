"""The copy of MovieLens 100K that the RecBole package on PyPI carries, for machines that GroupLens is out of reach of.

The wheel is downloaded with pip and read as the zip archive that it is; nothing in it is installed or imported.
Its rows are those of ``u.data``, in the same order. Source: W. X. Zhao et al., "RecBole: Towards a Unified,
Comprehensive and Efficient Framework for Recommendation Algorithms", 2021.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from recsys_lib.data.archives import BadArchiveError, unpacked
from recsys_lib.data.delimited import read_lines, read_typed
from recsys_lib.data.tables import RawTables
from recsys_lib.data.titles import split_genres, split_year
from recsys_lib.files import replacing, sha256

REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_STEM = "recbole/dataset_example/ml-100k/ml-100k"
_SECONDS = 120


def is_wheel(path: Path) -> bool:
    """Whether the file is the wheel, to the last bit."""
    return path.is_file() and sha256(path) == WHEEL_SHA256


def download(folder: Path) -> Path:
    """Have pip download the wheel, check it, and keep it in the folder.

    Raises
    ------
    OSError
        If pip cannot get it.
    BadArchiveError
        If what came is another file.
    """
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries=1"]
        command += ["--no-deps", "--only-binary=:all:", "--dest", temporary, REQUIREMENT]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or ["no message"])[-1]
            raise OSError(f"pip could not download {REQUIREMENT} ({last})") from error
        except subprocess.TimeoutExpired as error:
            raise OSError(f"pip did not get {REQUIREMENT} in {_SECONDS} seconds") from error
        wheel = Path(temporary) / WHEEL
        if not is_wheel(wheel):
            raise BadArchiveError(
                f"the file that PyPI gave for {REQUIREMENT} is not the one with SHA-256 {WHEEL_SHA256}"
            )
        with replacing(folder / WHEEL) as target:
            target.write_bytes(wheel.read_bytes())
    return folder / WHEEL


def read(wheel: Path, below: Path) -> RawTables:
    """Read the three tables from the wheel, so that they equal those of GroupLens's own archive."""
    folder = unpacked(wheel, below, only=tuple(f"{_STEM}.{end}" for end in ("inter", "item", "user")))
    files = {name: folder / f"{_STEM}.{end}" for name, end in
             (("interactions", "inter"), ("items", "item"), ("users", "user"))}  # fmt: skip
    types = dict.fromkeys(("user_id:token", "item_id:token", "timestamp:float"), pa.int64())
    types["rating:float"] = pa.float32()
    ratings = _plain_names(read_typed(files["interactions"], types, delimiter="\t", quoted=False))
    people = _plain_names(_text_table(files["users"])).astype({"user_id": np.int64, "age": np.int64})
    return RawTables(ratings, _items(_text_table(files["items"])), people, files=files, first_line=2, whole_ids=True)


def _text_table(path: Path) -> pd.DataFrame:
    """Read a tab-separated file with a header line, all columns as text."""
    parts = read_lines(path).str.split("\t", expand=True)
    return parts.iloc[1:].set_axis(parts.iloc[0].tolist(), axis=1).reset_index(drop=True)


def _plain_names(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns=lambda name: name.split(":")[0])


def _items(films: pd.DataFrame) -> pd.DataFrame:
    """Films with the titles that GroupLens gives them.

    The package splits "Toy Story (1995)" at the last bracket. Putting the two together again and splitting them
    as everywhere gives the same title and year for the one film with a bracket after the year. The film that is
    called "unknown" (267) is misspelt there.
    """
    films = _plain_names(films).astype({"item_id": np.int64})
    unknown = films["movie_title"].eq("unkonwn")
    whole = films["movie_title"] + " (" + films["release_year"] + ")"
    titles = split_year(whole.mask(unknown, "unknown"))
    return pd.concat([films["item_id"], titles, split_genres(films["class"], " ").rename("genres")], axis=1)
