"""Where the files of a known data set come from: a folder of one's own, an earlier download, GroupLens, PyPI."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recsys_lib.data import package_copy
from recsys_lib.data.archives import BadArchiveError, unpacked
from recsys_lib.data.catalogue import KnownDataset
from recsys_lib.data.download import UnreachableError, check_md5, fetch, fetch_md5, kept_md5
from recsys_lib.data.grouplens import find_root, read_folder
from recsys_lib.data.tables import RawTables
from recsys_lib.paths import REPOSITORY, Paths

FOLDER_VARIABLE = "MOVIELENS_DIR"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where the files of a data set are, and how to read them.

    Attributes
    ----------
    read
        Gives the tables.
    words
        In words, for reports.
    path
        The archive, the file or the folder.
    """

    read: Callable[[], RawTables]
    words: str
    path: Path


def resolve(path: Path) -> Path | None:
    """The path as given, or below the repository; None where neither exists."""
    path = path.expanduser()
    return next((place.resolve() for place in (path, REPOSITORY / path) if place.exists()), None)


def archive_source(archive: Path, below: Path, words: str) -> Source:
    """An archive in GroupLens's form, unpacked below a folder.

    Raises
    ------
    BadArchiveError
        If it cannot be unpacked, or not safely.
    """
    folder = unpacked(archive, below)
    return Source(lambda: read_folder(folder), words, archive)


def folder_source(folder: Path, words: str) -> Source:
    """An unpacked folder in GroupLens's form."""
    return Source(lambda: read_folder(folder), words, folder)


def _wheel_source(wheel: Path, raw: Path, words: str) -> Source:
    """The package on PyPI that carries ml-100k."""
    return Source(lambda: package_copy.read(wheel, raw), words, wheel)


def find_known(known: KnownDataset) -> Source:
    """Find a known data set: in ``MOVIELENS_DIR``, in ``data/raw``, at GroupLens, and ml-100k at last on PyPI.

    Raises
    ------
    FileNotFoundError
        If it can be had nowhere, with the file to put and the place to put it.
    """
    raw = Paths(known.name).raw
    return _in_own_folder(known, raw) or _in_raw(known, raw) or _from_afar(known, raw)


def _in_own_folder(known: KnownDataset, raw: Path) -> Source | None:
    """Look into the folder that the environment names; its files are its owner's, and are never removed."""
    given = os.environ.get(FOLDER_VARIABLE)
    folder = resolve(Path(given)) if given else None
    if folder is None:
        if given:
            _log.warning("%s names %s, which does not exist", FOLDER_VARIABLE, given)
        return None
    archive = folder / known.archive
    if archive.is_file():
        try:
            return archive_source(archive, raw, f"{archive.name} in {FOLDER_VARIABLE}{_differs(archive, known.md5)}")
        except BadArchiveError as error:
            _log.warning("%s; it is left alone, and the data is looked for elsewhere", error)
    itself = [folder] if folder.name in known.folders else []
    for place in (*(folder / name for name in known.folders), *itself):
        if place.is_dir() and find_root(place):
            return folder_source(place, f"the folder {place.name} in {FOLDER_VARIABLE}")
    return _kept_wheel(known, folder, raw, f"{package_copy.WHEEL} in {FOLDER_VARIABLE}")


def _differs(archive: Path, md5: str | None) -> str:
    """Words for an archive that a person gave and that is sound, but not the published one."""
    try:
        check_md5(archive, md5)
    except BadArchiveError:
        _log.warning("%s is not the archive that GroupLens publishes (its MD5 differs); it is read as it is", archive)
        return ", not the published archive"
    return ""


def _in_raw(known: KnownDataset, raw: Path) -> Source | None:
    """Look at what was downloaded earlier; a damaged archive is removed."""
    archive = raw / known.archive
    if archive.is_file():
        try:
            check_md5(archive, known.md5 or kept_md5(archive))
            return archive_source(archive, raw, f"GroupLens ({known.url})")
        except BadArchiveError as error:
            _log.warning("%s; it is removed and fetched again", error)
            archive.unlink()
    for name in known.folders:
        if (raw / name).is_dir() and find_root(raw / name):
            return folder_source(raw / name, f"the folder {name} in data/raw/{known.name}")
    return _kept_wheel(known, raw, raw, f"PyPI ({package_copy.REQUIREMENT})")


def _kept_wheel(known: KnownDataset, folder: Path, raw: Path, words: str) -> Source | None:
    wheel = folder / package_copy.WHEEL
    return _wheel_source(wheel, raw, words) if known.name == "ml-100k" and package_copy.is_wheel(wheel) else None


def _from_afar(known: KnownDataset, raw: Path) -> Source:
    """Download from GroupLens, once more if what came is damaged; ml-100k from PyPI if GroupLens is out of reach."""
    archive = raw / known.archive
    for last in (False, True):
        try:
            fetch(known.url, archive)
            check_md5(archive, known.md5 or fetch_md5(known.url, archive))
            return archive_source(archive, raw, f"GroupLens ({known.url})")
        except UnreachableError as error:
            return _second_source(known, raw, error)
        except BadArchiveError as error:
            archive.unlink()
            _log.warning("%s; it is removed%s", error, "" if last else " and fetched again")
            damage = error
    return _second_source(known, raw, damage)


def _second_source(known: KnownDataset, raw: Path, error: Exception) -> Source:
    """ml-100k from PyPI; for all others say which file to put where."""
    place = f"put {known.archive} into {raw}, or into a folder that {FOLDER_VARIABLE} names"
    if known.name != "ml-100k":
        raise FileNotFoundError(f"{known.name} cannot be had: {error}; {place}") from error
    try:
        wheel = package_copy.download(raw)
    except (OSError, BadArchiveError) as second:
        raise FileNotFoundError(f"ml-100k cannot be had: {error}; {second}; {place}") from second
    copy = f"the copy in {package_copy.REQUIREMENT} on PyPI, checksum verified"
    _log.warning("ml-100k comes from %s, because %s", copy, error)
    return _wheel_source(wheel, raw, f"PyPI ({package_copy.REQUIREMENT})")
