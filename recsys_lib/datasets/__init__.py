"""Data sets: the known MovieLens ones by name, any other table or GroupLens archive by its path."""

from recsys_lib.datasets.catalogue import KNOWN, KnownDataset
from recsys_lib.datasets.checks import BadTableError
from recsys_lib.datasets.loading import load_dataset
from recsys_lib.datasets.tables import Dataset, identity

__all__ = ["KNOWN", "BadTableError", "Dataset", "KnownDataset", "identity", "load_dataset"]
