"""Arrays of saved models: checked against their hashes, mapped from their file, and held once where they are equal.

What is not looked at takes no memory, and processes that serve the same model share what is. Models of one run have
much in common: they were fitted on the same interactions, and the members of a blend also stand beside it.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Interactions
from recsys_lib.files import read_arrays

_held: WeakValueDictionary[str, np.ndarray] = WeakValueDictionary()  # by hash
_interactions: WeakValueDictionary[tuple[int, ...], Interactions] = WeakValueDictionary()  # by the arrays' identities


def array_hash(array: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and values, 64 hexadecimal digits."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()


def load_arrays(path: Path, hashes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Map the arrays of a saved model, read-only; an array that another model has loaded already is shared with it.

    Raises
    ------
    ValueError
        If an array is missing, or differs from the one that was saved.
    """
    try:
        stored = read_arrays(path)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is damaged: its header cannot be read") from error
    if set(stored) != set(hashes):
        raise ValueError(f"{path} is damaged: it holds other arrays than the config.json beside it lists")
    return {name: _shared(path, name, stored[name], saved) for name, saved in hashes.items()}


def _shared(path: Path, name: str, array: np.ndarray, saved: str) -> np.ndarray:
    if array_hash(array) != saved:
        raise ValueError(f"{path} is damaged: its array {name!r} is not what was saved")
    _release(array)  # what was read to be hashed comes back when it is wanted
    return _held.setdefault(saved, array)[...]  # a view: sparse matrices keep views, each of which keeps it alive


def interactions_of(stored: Mapping[str, np.ndarray]) -> Interactions:
    """Make interactions from the arrays of their matrix, ids and timestamps: one object for the same arrays.

    Parameters
    ----------
    stored
        "matrix", "indices", "indptr", "user_ids", "item_ids" and, where known, "timestamps"; from :func:`load_arrays`.
    """
    names = ("matrix", "indices", "indptr", "user_ids", "item_ids", "timestamps")
    key = tuple(id(stored[name].base) for name in names if name in stored)
    known = _interactions.get(key)
    if known is None:
        shape = (len(stored["user_ids"]), len(stored["item_ids"]))
        matrix = csr_matrix((stored["matrix"], stored["indices"], stored["indptr"]), shape=shape)
        known = Interactions(matrix, stored["user_ids"], stored["item_ids"], stored.get("timestamps"))
        if matrix.data.base is stored["matrix"].base and matrix.indices.base is stored["indices"].base:
            _interactions[key] = known  # it keeps its arrays alive, so that nothing else can have their identities
    return known


def release_memory() -> None:
    """Give back the memory of all mapped arrays; what is looked at again comes back from the system's cache."""
    for array in list(_held.values()):
        _release(array)


def _release(array: np.ndarray) -> None:
    if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        array.base.madvise(mmap.MADV_DONTNEED)
