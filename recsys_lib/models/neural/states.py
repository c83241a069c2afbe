"""States of trained nets on disk: safetensors through numpy, no torch, no pickle."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from recsys_lib.data.interactions import Interactions

State = dict[str, np.ndarray]


def write_states(path: Path, states: list[State]) -> None:
    """Write the states of several nets into one file, the net's number before each name."""
    arrays = {f"{number}.{name}": value for number, state in enumerate(states) for name, value in state.items()}
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, path)


def read_states(path: Path) -> list[State]:
    """Read what :func:`write_states` wrote."""
    states: dict[int, State] = {}
    for name, value in load_file(path).items():
        number, _, rest = name.partition(".")
        states.setdefault(int(number), {})[rest] = value
    return [states[number] for number in sorted(states)]


def fingerprint(train: Interactions) -> str:
    """Checksum of interactions, 16 hexadecimal digits, so that a checkpoint of other data is noticed."""
    digest = hashlib.sha256()
    for part in (train.matrix.data, train.matrix.indices, train.matrix.indptr, train.user_ids, train.item_ids):
        digest.update(np.ascontiguousarray(part).tobytes())
    if train.timestamps is not None:
        digest.update(np.ascontiguousarray(train.timestamps).tobytes())
    return digest.hexdigest()[:16]
