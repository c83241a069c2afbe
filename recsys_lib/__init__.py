"""Helper package of the film-recommendation lab.

Its public names are looked up when they are first asked for, so that ``import recsys_lib`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = {
    "load_dataset": "recsys_lib.data",
    "Interactions": "recsys_lib.data.interactions",
    "evaluate": "recsys_lib.evaluation.task",
    "compare": "recsys_lib.evaluation.task",
}
_MODULES = {"splits": "recsys_lib.data.splits", "leaks": "recsys_lib.data.leaks"}

__all__ = ["Interactions", "compare", "evaluate", "leaks", "load_dataset", "splits"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'recsys_lib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
