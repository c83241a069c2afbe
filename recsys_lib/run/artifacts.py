"""What one notebook leaves on disk for the next: prepared tables, models, results. No pickle anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from recsys_lib.data.splits import Split
from recsys_lib.files import read_json, sha256, write_json, write_parquet
from recsys_lib.models.base import Recommender, load_model
from recsys_lib.paths import Paths, home
from recsys_lib.run.steps import step_that_writes

PARTS = ("train", "valid", "test")


class MissingArtifactError(FileNotFoundError):
    """A file that an earlier step makes is not there."""


def require(path: Path) -> Path:
    """Return the path if it exists; else say which step makes it.

    Raises
    ------
    MissingArtifactError
        With the ``make`` command that makes the file.
    """
    if not path.exists():
        raise MissingArtifactError(f"{_shown(path)} is missing: `{_command(path)}` makes it")
    return path


def _shown(path: Path) -> str:
    return path.relative_to(home()).as_posix() if path.is_relative_to(home()) else str(path)


def _command(path: Path) -> str:
    parts = Path(_shown(path)).parts
    dataset = parts[2] if parts[:2] == ("data", "processed") else parts[1] if len(parts) > 1 else "ml-100k"
    step = step_that_writes(path)
    chosen = "" if dataset == "ml-100k" else f" DATASET={dataset}"
    return f"make {step.number if step else 'run'}{chosen}"


@dataclass(frozen=True)
class Prepared:
    """The tables that 02_preprocessing wrote.

    Attributes
    ----------
    split : Split
        Its test part is empty unless it was asked for: only 07_evaluation and what comes after read it.
    items, users : DataFrame
        As in :class:`recsys_lib.data.Dataset`.
    manifest : dict
        "data" (name, sha256, rating_scale, source), "split" (name, params), "relevant_from", "files" (rows, sha256).
    """

    split: Split
    items: pd.DataFrame
    users: pd.DataFrame
    manifest: dict[str, Any]

    @property
    def relevant_from(self) -> float:
        """Ratings from here on count as relevant; 0 for implicit feedback, where everything does."""
        return float(self.manifest["relevant_from"])

    @property
    def rating_scale(self) -> tuple[float, float] | None:
        """Lowest and highest rating, or None for implicit feedback."""
        scale = self.manifest["data"]["rating_scale"]
        return None if scale is None else (float(scale[0]), float(scale[1]))

    @property
    def identity(self) -> dict[str, Any]:
        """What two results must share to be comparable: the data and the split."""
        return {
            "name": self.manifest["data"]["name"],
            "sha256": self.manifest["data"]["sha256"],
            "split": self.manifest["split"],
        }


def write_prepared(
    paths: Paths,
    split: Split,
    items: pd.DataFrame,
    users: pd.DataFrame,
    *,
    data: dict[str, Any],
    relevant_from: float,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the tables of a split and, last, the manifest that makes them valid.

    Parameters
    ----------
    data
        "name", "sha256", "rating_scale", "source" of the data set.
    more
        Further entries of the manifest.

    Returns
    -------
    dict
        The manifest.
    """
    tables = {"train": split.train, "valid": split.valid, "test": split.test, "items": items, "users": users}
    manifest_path = paths.processed / "manifest.json"
    manifest_path.unlink(missing_ok=True)
    files = {}
    for name, table in tables.items():
        path = write_parquet(paths.processed / f"{name}.parquet", table)
        files[path.name] = {"rows": len(table), "sha256": sha256(path)}
    manifest = {"data": data, "split": {"name": split.name, "params": split.params}, "relevant_from": relevant_from}
    manifest |= {**(more or {}), "files": files}
    write_json(manifest_path, manifest)
    return manifest


def read_prepared(paths: Paths, *, test: bool = False) -> Prepared:
    """Read what 02_preprocessing wrote; the test part only where it is asked for.

    Raises
    ------
    MissingArtifactError
        If a file is not there.
    """
    manifest = read_json(require(paths.processed / "manifest.json"))
    tables = {}
    for name in (*PARTS, "items", "users"):
        path = require(paths.processed / f"{name}.parquet")
        if name != "test" or test:
            tables[name] = pd.read_parquet(path)
    tables.setdefault("test", tables["train"].iloc[:0])
    split = Split(*(tables[part] for part in PARTS), **manifest["split"])
    return Prepared(split, tables["items"], tables["users"], manifest)


def save_model(paths: Paths, name: str, model: Recommender, prepared: Prepared, **facts: Any) -> Path:
    """Save a model fitted on the history, with the identity of its data and facts such as ``fit_seconds``.

    Parameters
    ----------
    name
        Name of the folder, and of the model in the leaderboard.
    facts
        ``fit_seconds``, ``trials`` and whatever else the leaderboard should show.
    """
    return model.save(paths.models / name, data={**prepared.identity, **facts})


def load_models(paths: Paths, names: list[str] | None = None) -> dict[str, Recommender]:
    """Load saved models by name, all of them by default, in the order of their names.

    Raises
    ------
    MissingArtifactError
        If there is none, or one that is named is not there.
    """
    found = sorted(config.parent.name for config in paths.models.glob("*/config.json"))
    if not found and names is None:
        raise MissingArtifactError(f"{_shown(paths.models)} holds no model: `{_command(paths.models)}` makes them")
    return {name: load_model(require(paths.models / name)) for name in (names or found)}


def model_facts(paths: Paths, name: str) -> dict[str, Any]:
    """What ``config.json`` says of a saved model: class, params, data, facts."""
    return read_json(require(paths.models / name / "config.json"))
