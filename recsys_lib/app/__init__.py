"""The demo: what `make demo` serves from 09_demo, and what that notebook shows in JupyterLab.

``lab`` holds the tables and the models, ``state`` the choices of one session; ``pages``, ``people``, ``side_by_side``
and ``results`` are functions that take both and return HTML; ``app`` is the one widget that shows it, ``serve`` starts
Voilà, ``kernel`` and ``tables`` keep its sessions small, and ``site`` writes what can live without a kernel.

The views return HTML, and not a tree of widgets: a list of fifty films with posters, genres and reasons would be some
hundred widgets, each with a model and a line to the kernel of its own, made anew at every change; as HTML it is one
message. And HTML can say what it is: headings, lists, tables and labels for those who listen to the page or have only
a keyboard, escaped in one place (``rendering``), and the same for Voilà, for JupyterLab and for the static site.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recsys_lib.app.serve import chosen_dataset

if TYPE_CHECKING:
    from recsys_lib.app.app import Application, application, require_open, takeaway

__all__ = ["Application", "application", "chosen_dataset", "require_open", "takeaway"]


def __getattr__(name: str) -> Any:
    if name in ("Application", "application", "require_open", "takeaway"):
        from recsys_lib.app import app

        return getattr(app, name)
    raise AttributeError(f"module 'recsys_lib.app' has no attribute {name!r}")
