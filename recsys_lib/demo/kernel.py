"""The kernel of a session, smaller than a notebook's: ``python -m recsys_lib.demo.kernel -f <connection file>``.

Voilà finds it as ``share/kernels/python3``; JupyterLab has its own.
"""

from __future__ import annotations

import sys

# Some 50 MB: the debugger of notebooks, and Arrow, which pandas would hold texts in. `tables` does without it.
LEFT_OUT = ("debugpy", "pyarrow")


def main() -> None:
    """Run a kernel in which importing what is left out raises ``ModuleNotFoundError``."""
    sys.modules.update(dict.fromkeys(LEFT_OUT))
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


if __name__ == "__main__":
    main()
