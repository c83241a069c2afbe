"""``python -m recsys_lib.api``: see :mod:`recsys_lib.api.server`."""

import os
import sys
from importlib.util import find_spec

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before numpy is imported: a request computes on one thread

if find_spec("fastapi") is None or find_spec("uvicorn") is None:
    sys.exit("The service needs packages of its own: `make api` installs them, or pip install -e '.[api]' does.")

from recsys_lib.api.server import main  # noqa: E402

main()
