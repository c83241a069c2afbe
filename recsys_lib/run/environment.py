"""The commit of the code that a result was made by."""

from __future__ import annotations

import shutil
import subprocess

from recsys_lib.paths import REPOSITORY


def commit() -> str:
    """The commit that the code stands at, with "+" behind it where files were changed since; "unknown" without git."""
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        return "unknown"
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"]
    described = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return described.stdout.strip() or "unknown"
