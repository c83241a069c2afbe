"""The kernel of a session, smaller than a notebook's: ``python -m recsys_lib.app.kernel -f <connection file>``.

Voilà finds it as ``share/kernels/python3``; JupyterLab has its own.
"""

from __future__ import annotations

import sys
from types import ModuleType

# Some 55 MB: the debugger of notebooks; Arrow, which pandas would hold texts in (`prepared` does without it); and
# OpenSSL, for a kernel that speaks to its own server alone, on this machine.
LEFT_OUT = ("debugpy", "pyarrow", "ssl", "_ssl", "_hashlib")
# Another 5: compiling Fortran, and testing. SciPy looks at all that NumPy has, and finds these empty.
EMPTY = ("f2py", "testing")


def leave_out() -> None:
    """Make importing what is left out raise ``ModuleNotFoundError``, and put empty modules in the place of others."""
    sys.modules.update(dict.fromkeys(LEFT_OUT))
    import numpy as np

    for name in EMPTY:
        setattr(np, name, ModuleType(f"numpy.{name}"))


def main() -> None:
    """Run a kernel without what is left out."""
    leave_out()
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


if __name__ == "__main__":
    main()
