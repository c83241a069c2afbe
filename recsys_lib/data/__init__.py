"""Data sets: the known MovieLens ones by name, any other table or GroupLens archive by its path."""

from recsys_lib.data.catalogue import KNOWN, KnownDataset
from recsys_lib.data.checks import BadTableError
from recsys_lib.data.loading import load_dataset
from recsys_lib.data.tables import Dataset, identity

__all__ = ["KNOWN", "BadTableError", "Dataset", "KnownDataset", "identity", "load_dataset"]
