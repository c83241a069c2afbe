"""Serve what a training job left, as a hosted endpoint: ``python -m recsys_lib.api.serve``.

It is the service on port 8080 for all who reach it, asked at ``/ping`` and ``/invocations``; see
:mod:`recsys_lib.scale.train`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from recsys_lib.api import server
from recsys_lib.files import read_json


def main(root: str = "/opt/ml") -> None:
    """Serve the model below ``root`` until a signal ends it."""
    model = Path(root) / "model"
    if not (model / "dataset.json").is_file():
        sys.exit(f"{model}/dataset.json is missing: recsys_lib.scale.train makes it")
    os.environ["RECSYS_HOME"] = str(model)
    port = os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080")
    server.main([read_json(model / "dataset.json"), "--host", "0.0.0.0", "--port", port])


if __name__ == "__main__":
    main(*sys.argv[1:])
