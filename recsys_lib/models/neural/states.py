"""States of trained nets as arrays with names."""

from __future__ import annotations

import hashlib

import numpy as np

from recsys_lib.data.interactions import Interactions

State = dict[str, np.ndarray]


def fingerprint(train: Interactions) -> str:
    """Checksum of interactions, 16 hexadecimal digits, so that a checkpoint of other data is noticed."""
    digest = hashlib.sha256()
    for part in (train.matrix.data, train.matrix.indices, train.matrix.indptr, train.user_ids, train.item_ids):
        digest.update(np.ascontiguousarray(part).tobytes())
    if train.timestamps is not None:
        digest.update(np.ascontiguousarray(train.timestamps).tobytes())
    return digest.hexdigest()[:16]
