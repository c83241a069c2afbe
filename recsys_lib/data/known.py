"""The data sets that are known by name: where they are published, and how to know them again.

Standard library only, because names are checked before anything is installed or imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from recsys_lib.paths import REPOSITORY, in_full

BASE_URL = "https://files.grouplens.org/datasets/movielens/"


@dataclass(frozen=True)
class KnownDataset:
    """One MovieLens data set as GroupLens publishes it."""

    name: str  # that load_dataset takes; the archive is <name>.zip
    rating_scale: tuple[float, float]  # lowest and highest rating in stars
    md5: str | None = None  # of the archive; None where it is read from the .md5 file beside it, if there is one
    folder: str | None = None  # inside the archive, where it is not called like it

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return f"{self.name}.zip"

    @property
    def url(self) -> str:
        """Where GroupLens publishes the archive."""
        return BASE_URL + self.archive

    @property
    def folders(self) -> tuple[str, ...]:
        """Names that the unpacked folder may have."""
        return (self.name, self.folder) if self.folder else (self.name,)


_WHOLE, _HALF = (1.0, 5.0), (0.5, 5.0)

KNOWN: dict[str, KnownDataset] = {
    known.name: known
    for known in (
        KnownDataset("ml-100k", _WHOLE, "0e33842e24a9c977be4e0107933c0723"),
        KnownDataset("ml-latest-small", _HALF),
        KnownDataset("ml-latest", _HALF),
        KnownDataset("ml-1m", _WHOLE, "c4d9eecfca2ab87c1945afe126590906"),
        KnownDataset("ml-10m", _HALF, "ce571fd55effeba0271552578f2648bd", folder="ml-10M100K"),
        KnownDataset("ml-20m", _HALF, "cd245b17a1ae2cc31bb14903e1204af3"),
        KnownDataset("ml-25m", _HALF, "6b51fb2759a8657d3bfcbfc42b592ada"),
        KnownDataset("ml-32m", _HALF, "d472be332d4daa821edc399621853b57"),
    )
}


def nothing_called(dataset: str) -> str:
    """What to say of a name that is no data set and no file, with the one that was meant, if any is near.

    >>> nothing_called("ml-1mm")[:63]
    "there is no data set and no file 'ml-1mm'; did you mean ml-1m? "
    """
    near = "".join(f"; did you mean {name}?" for name in get_close_matches(dataset, KNOWN, n=1)) or "."
    return (
        f"there is no data set and no file {dataset!r}{near} Known are {', '.join(KNOWN)}, and the path of a folder, "
        "a zip archive, a CSV, TSV, JSON lines or parquet file will do too"
    )


def is_there(dataset: str) -> bool:
    """Whether this is the name of a known data set, or a path to something.

    >>> is_there("ml-100k"), is_there("ml-100kk"), is_there("")
    (True, False, False)
    """
    places = (folder / in_full(dataset) for folder in (Path(), REPOSITORY))
    return dataset in KNOWN or (bool(dataset) and any(place.exists() for place in places))
