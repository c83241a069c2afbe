"""``python -m recsys_lib.api``: see :mod:`recsys_lib.api.server`."""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before numpy is imported: a request computes on one thread

from recsys_lib.api.server import main  # noqa: E402

main()
