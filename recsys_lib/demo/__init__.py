"""The demo: what `make demo` serves from 09_demo, and what that notebook shows in JupyterLab.

``lab`` holds the tables and the models, ``state`` the choices of one session; ``pages``, ``people``, ``side_by_side``
and ``results`` turn both into HTML; ``app`` is the widget that brings them together, ``serve`` starts Voilà, and
``site`` writes what can live without a kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recsys_lib.demo.serve import chosen_dataset

if TYPE_CHECKING:
    from recsys_lib.demo.app import Application, application, require_open, takeaway

__all__ = ["Application", "application", "chosen_dataset", "require_open", "takeaway"]


def __getattr__(name: str) -> Any:
    if name in ("Application", "application", "require_open", "takeaway"):
        from recsys_lib.demo import app

        return getattr(app, name)
    raise AttributeError(f"module 'recsys_lib.demo' has no attribute {name!r}")
