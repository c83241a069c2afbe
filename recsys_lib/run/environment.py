"""What a result stands on: the machine, the versions, the commit."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pandas as pd
import psutil

from recsys_lib.paths import REPOSITORY, home

# Names to import where they differ from the names to install.
_MODULES = {"scikit-learn": "sklearn", "pytest-xdist": "xdist", "pyyaml": "yaml"}


def machine() -> dict[str, Any]:
    """Facts about this machine: system, Python, cores, memory and free disk in GB, accelerator."""
    gigabyte, memory = 1e9, psutil.virtual_memory()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory.total / gigabyte, 1),
        "memory_free_gb": round(memory.available / gigabyte, 1),
        "disk_free_gb": round(shutil.disk_usage(home()).free / gigabyte, 1),
    }


def accelerator() -> str:
    """The accelerator that PyTorch would use, in words; importing PyTorch takes a second or two."""
    import torch

    if torch.cuda.is_available():
        return f"CUDA: {torch.cuda.get_device_name()}"
    if torch.backends.mps.is_available():
        return "Apple MPS"
    return "none: models are fitted on the CPU"


def packages() -> pd.DataFrame:
    """What environment.yml asks for beside what is installed: package, pinned, installed (missing where it is not)."""
    import yaml  # see parameters.read_file
    from packaging.requirements import Requirement

    content = yaml.safe_load((REPOSITORY / "environment.yml").read_text(encoding="utf-8"))
    listed = next(entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict))
    rows = []
    for asked in map(Requirement, listed):
        if asked.marker and not asked.marker.evaluate():
            continue  # not on this kind of machine
        try:
            installed = version(asked.name)
        except PackageNotFoundError:
            installed = None
        rows.append({"package": asked.name, "pinned": str(asked.specifier).strip("="), "installed": installed})
    return pd.DataFrame(rows)


def import_seconds(names: list[str]) -> pd.DataFrame:
    """Import packages one after the other and time each, in seconds; the order matters, since they share parts."""
    rows = []
    for name in names:
        start = time.perf_counter()
        importlib.import_module(_MODULES.get(name, name.replace("-", "_")))
        rows.append({"package": name, "seconds": round(time.perf_counter() - start, 2)})
    return pd.DataFrame(rows)


def commit() -> str:
    """The commit that the code stands at, with "+" behind it where files were changed since; "unknown" without git."""
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        return "unknown"
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"]
    described = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return described.stdout.strip() or "unknown"
