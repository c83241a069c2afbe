"""The kernel of a session, smaller than a notebook's; Voilà finds it as ``share/kernels/python3``.

It runs with ``python -OO``, as the docstrings of the libraries are 12 MB that no visitor reads, gives memory back at
once, has one thread, and keeps bytecode.
"""

import sys
from types import ModuleType


def slim() -> None:
    """Leave out what a session never uses: some 60 MB of this process; nothing of it may have been imported before."""
    # Arrow (45 MB), which pandas would hold texts in (`prepared` does without it); the debugger of notebooks (7 MB);
    # OpenSSL (4 MB), for a kernel that speaks to its own server alone, on this machine; terminals, and a second form
    # of messages (1 MB).
    sys.modules.update(dict.fromkeys(("pyarrow", "debugpy", "ssl", "_ssl", "_hashlib", "curses", "msgpack")))
    import numpy as np

    # To compile Fortran (4 MB), and to test (1 MB): SciPy looks at all that NumPy has, and finds these empty.
    np.f2py, np.testing = ModuleType("numpy.f2py"), ModuleType("numpy.testing")


if __name__ == "__main__":
    slim()
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()
