"""The application: what `make demo` serves from 09_demo, and what that notebook builds.

``lab`` holds the data and models of a run, ``state`` the choices of one session as traits; ``views`` and ``charts`` are
functions of these that return HTML and figures; ``widgets`` are the controls and views bound to them. ``serve`` starts
Voilà, ``kernel`` and ``prepared`` keep its sessions small, and ``site`` writes what can live without a kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys_lib.app.opening import open_app, takeaway

__all__ = ["open_app", "takeaway"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # the server needs no widgets
        from recsys_lib.app import opening

        return getattr(opening, name)
    raise AttributeError(f"module 'recsys_lib.app' has no attribute {name!r}")
