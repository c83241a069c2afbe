"""States of trained nets as arrays with names."""

from __future__ import annotations

import hashlib

import numpy as np

from recsys_lib.data.interactions import Interactions

State = dict[str, np.ndarray]


def numbered(states: list[State]) -> dict[str, np.ndarray]:
    """Arrays of several nets in one dictionary: ``net.<number>.<name>``."""
    return {f"net.{number}.{name}": value for number, state in enumerate(states) for name, value in state.items()}


def by_number(arrays: dict[str, np.ndarray]) -> list[State]:
    """Take back what :func:`numbered` gave; other arrays are left alone."""
    states: dict[int, State] = {}
    for key, value in arrays.items():
        if key.startswith("net."):
            _, number, name = key.split(".", 2)
            states.setdefault(int(number), {})[name] = value
    return [states[number] for number in sorted(states)]


def fingerprint(train: Interactions) -> str:
    """Checksum of interactions, 16 hexadecimal digits, so that a checkpoint of other data is noticed."""
    digest = hashlib.sha256()
    for part in (train.matrix.data, train.matrix.indices, train.matrix.indptr, train.user_ids, train.item_ids):
        digest.update(np.ascontiguousarray(part).tobytes())
    if train.timestamps is not None:
        digest.update(np.ascontiguousarray(train.timestamps).tobytes())
    return digest.hexdigest()[:16]
