"""The models, all behind one interface; each is imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any

from recsys_lib.models.base import MODULES, Recommender, load_model

__all__ = ["Recommender", "load_model", *MODULES]


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"recsys_lib.models has no {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"recsys_lib.models.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
