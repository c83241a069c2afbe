"""Paths of one data set and one run.

The home of a run holds ``data/``, ``outputs/`` and ``reports/``. It is the repository's root, or the folder
that the environment variable ``RECSYS_HOME`` names (tests use this to keep away from real results).
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def home() -> Path:
    """Folder that holds ``data/``, ``outputs/`` and ``reports/``; NotADirectoryError if it is to be at s3://."""
    given = os.environ.get("RECSYS_HOME") or REPOSITORY
    if is_remote(str(given)):
        raise NotADirectoryError(f"RECSYS_HOME={given} is not a folder of this machine; RECSYS_REMOTE may be in S3")
    return Path(given).resolve()


def is_remote(dataset: str) -> bool:
    """Whether this is the address of an object, or of a folder, in S3."""
    return dataset.startswith("s3://")


def run_name(dataset: str) -> str:
    """Name of the folders that belong to a data set: its own name, or the stem of its path and a hash of the path.

    Of an address in S3 likewise. The hash keeps two tables of one file name apart.

    >>> run_name("ml-100k"), run_name("/tmp/My plays.csv"), run_name("/data/电影.csv"), run_name("s3://bucket/plays.csv")
    ('ml-100k', 'My-plays-2df731', '电影-c70370', 'plays-6887cf')
    """
    name = table_name(dataset)
    return name if _is_name(dataset) else f"{name}-{hashlib.sha256(in_full(dataset).encode()).hexdigest()[:6]}"


def in_full(dataset: str) -> str:
    """A name, or an address in S3, as it is; a path as the absolute one: below the repository where it is only there.

    >>> in_full("ml-100k"), in_full("/tmp/../tmp/plays.csv"), in_full("s3://bucket/plays/")
    ('ml-100k', '/tmp/plays.csv', 's3://bucket/plays')
    """
    if is_remote(dataset):
        return dataset.rstrip("/")
    if _is_name(dataset):
        return dataset
    path = Path(dataset).expanduser()
    return str(next((place for place in (path, REPOSITORY / path) if place.exists()), path).resolve())


def table_name(dataset: str) -> str:
    """A data set's own name, or the stem of its path, of letters, digits, dots, underscores and hyphens.

    >>> table_name("ml-100k"), table_name("/tmp/My plays.csv")
    ('ml-100k', 'My-plays')
    """
    return re.sub(r"[^\w.-]+", "-", _stem(Path(str(dataset).rstrip("/")))).strip("-.") or "data"


def _is_name(dataset: str) -> bool:
    """Whether this is a name, not a path: also where a folder is called so."""
    return dataset == _stem(Path(dataset))


def _stem(path: Path) -> str:
    return re.sub(r"\.(csv|tsv|txt|dat|data|inter|json|jsonl|parquet|zip|gz|bz2)$", "", path.name)


def shown(path: Path) -> str:
    """A path as a message shows it: below the home of the run where it is there."""
    return path.relative_to(home()).as_posix() if path.is_relative_to(home()) else str(path)


@dataclass(frozen=True)
class Paths:
    """Folders of one data set.

    ``dataset``: a known data set's name, or the path, or s3:// address, of a table or an archive.

    >>> Paths("ml-100k").models.relative_to(home()).as_posix()
    'outputs/ml-100k/models'
    """

    dataset: str

    @property
    def name(self) -> str:
        """Name of the run's folders."""
        return run_name(self.dataset)

    @property
    def raw(self) -> Path:
        """Files as they were downloaded; never changed."""
        return home() / "data" / "raw" / self.name

    @property
    def processed(self) -> Path:
        """Tables that 02_preprocessing writes."""
        return home() / "data" / "processed" / self.name

    @property
    def outputs(self) -> Path:
        """Everything else that a run makes."""
        return home() / "outputs" / self.name

    @property
    def given_params(self) -> Path:
        """Where the path of the parameter file stands that ``make`` was given last (PARAMS)."""
        return self.outputs / "params" / "given"

    @property
    def models(self) -> Path:
        """One folder a model."""
        return self.outputs / "models"

    @property
    def metrics(self) -> Path:
        """The leaderboard and the per-user results."""
        return self.outputs / "metrics"

    @property
    def logs(self) -> Path:
        """One log a step."""
        return self.outputs / "logs"

    @property
    def reports(self) -> Path:
        """Folder of the reports, for people to read."""
        return home() / "reports" / self.name

    @property
    def figures(self) -> Path:
        """PNG figures of the notebooks; the report takes up some of them."""
        return self.outputs / "figures"
