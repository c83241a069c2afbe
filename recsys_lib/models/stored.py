"""Arrays of saved models: checked against their hashes when they are read, and held once where they are equal.

Models of one run have much in common: they were fitted on the same interactions, and the members of a blend also stand
beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
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
    """Read the arrays of a saved model, read-only; an array that another model has loaded already is shared with it.

    ValueError if an array is missing, or differs from the one that was saved.
    """
    try:
        stored = read_arrays(path)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is damaged: its header cannot be read") from error
    if set(stored) != set(hashes):
        raise ValueError(f"{path} is damaged: it holds other arrays than the config.json beside it lists")
    arrays = {}
    for name, saved in hashes.items():
        array = stored[name]
        if array_hash(array) != saved:
            raise ValueError(f"{path} is damaged: its array {name!r} is not what was saved")
        held = _held.get(saved)
        if held is None:
            held = _held[saved] = array.copy()  # else one array would keep the whole content of the file
            held.flags.writeable = False
        arrays[name] = held[...]  # a view: sparse matrices keep views, each of which keeps the array held alive
    return arrays


def arrays_of(train: Interactions) -> dict[str, np.ndarray]:
    """Arrays of interactions by name: of the matrix, of the ids and, where known, the timestamps."""
    arrays = {name: getattr(train.matrix, name) for name in ("data", "indices", "indptr")}
    arrays |= {"user_ids": train.user_ids, "item_ids": train.item_ids}
    when = "timestamps" if train.dated else "positions"
    return arrays if train.timestamps is None else {**arrays, when: train.timestamps}


def interactions_of(stored: Mapping[str, np.ndarray]) -> Interactions:
    """Make interactions from what :func:`arrays_of` gave: one object for the same arrays."""
    key = tuple(id(stored[name].base) for name in sorted(stored))
    known = _interactions.get(key)
    if known is None:
        shape = (len(stored["user_ids"]), len(stored["item_ids"]))
        matrix = csr_matrix((stored["data"], stored["indices"], stored["indptr"]), shape=shape)
        times, dated = stored.get("timestamps", stored.get("positions")), "positions" not in stored
        known = Interactions(matrix, stored["user_ids"], stored["item_ids"], times, dated)
        if matrix.data.base is stored["data"].base and matrix.indices.base is stored["indices"].base:
            _interactions[key] = known  # it keeps its arrays alive, so that nothing else can have their identities
    return known


def pack(value: Any, key: str, arrays: dict[str, np.ndarray]) -> Any:
    """Turn what was learnt into JSON that names its arrays, which are added to ``arrays``, each once.

    >>> arrays = {}
    >>> pack({"weights": np.ones(2), "names": ["a", "b"]}, "learnt", arrays)
    {'weights': {'$array': 'learnt.weights'}, 'names': ['a', 'b']}
    >>> arrays
    {'learnt.weights': array([1., 1.])}
    """
    if isinstance(value, np.ndarray):
        name = next((name for name, array in arrays.items() if array is value), key)
        arrays[name] = value
        return {"$array": name}
    if isinstance(value, csr_matrix):
        parts = {"data": value.data, "indices": value.indices, "indptr": value.indptr}
        return {"$csr": pack(parts, key, arrays), "shape": list(value.shape)}
    if isinstance(value, Mapping):
        return {name: pack(part, f"{key}.{name}", arrays) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [pack(part, f"{key}.{number}", arrays) for number, part in enumerate(value)]
    return value


def unpack(packed: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Turn back what :func:`pack` gave."""
    if isinstance(packed, list):
        return [unpack(part, arrays) for part in packed]
    if not isinstance(packed, dict):
        return packed
    if "$array" in packed:
        return arrays[packed["$array"]]
    if "$csr" in packed:
        return csr_matrix(tuple(unpack(packed["$csr"], arrays).values()), shape=packed["shape"])
    return {name: unpack(part, arrays) for name, part in packed.items()}
