"""Data sets: the known MovieLens ones by name, any other table or GroupLens archive by its path."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = {  # nothing is imported before it is asked for: who serves a model reads no tables
    "KNOWN": "known",
    "BadTableError": "schema",
    "Dataset": "load",
    "KnownDataset": "known",
    "identity": "load",
    "load_dataset": "load",
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"recsys_lib.data has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"recsys_lib.data.{_NAMES[name]}"), name)
