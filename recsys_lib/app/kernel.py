"""The kernel of a session, smaller than a notebook's; Voilà finds it as ``share/kernels/python3``.

It runs with ``python -OO``, as the docstrings of the libraries are 12 MB that no visitor reads, gives memory back at
once, has one thread, and keeps bytecode.
"""

import sys
from types import ModuleType


def slim() -> None:
    """Leave out what a session never uses: some 60 MB of this process; nothing of it may have been imported before."""
    # The debugger of notebooks; Arrow, which pandas would hold texts in (`prepared` does without it); OpenSSL, for a
    # kernel that speaks to its own server alone, on this machine; terminals; a second form of messages.
    sys.modules.update(dict.fromkeys(("debugpy", "pyarrow", "ssl", "_ssl", "_hashlib", "curses", "msgpack")))
    import numpy as np

    # Compiling Fortran, and testing. SciPy looks at all that NumPy has, and finds these empty.
    np.f2py, np.testing = ModuleType("numpy.f2py"), ModuleType("numpy.testing")


if __name__ == "__main__":
    slim()
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()
