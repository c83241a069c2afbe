"""Ask the service from a notebook: needs nothing that the lab lacks, and never fails because of what it finds."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote

import httpx

from recsys_lib.paths import run_name

ADDRESS = "RECSYS_API"  # environment variable: where the service is
USUAL = "http://127.0.0.1:8000"


def list_for(dataset: str, user_id: Any, *, k: int = 10) -> tuple[dict[str, Any] | None, str]:
    """The service's list for somebody, if it runs and serves this data set.

    Parameters
    ----------
    dataset
        Name or path.
    user_id
        The data's own id.
    k
        Length of the list; the service gives 100 at most.

    Returns
    -------
    dict or None
        What ``/recommend/{user_id}`` answers.
    str
        Who answers, or why nobody does and what can be done, in one sentence.
    """
    address = os.environ.get(ADDRESS) or USUAL
    key = os.environ.get("RECSYS_API_KEY", "").encode()
    try:
        with httpx.Client(base_url=address, headers={"X-API-Key": key} if key else None, timeout=5) as client:
            health = client.get("/health").json()
            answer = client.get(f"/recommend/{quote(str(user_id), safe='')}", params={"k": min(k, 100)})
            content = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None, f"No service answers at {address}; `{start(dataset)}` starts it."
    if not isinstance(health, dict) or health.get("dataset") != run_name(dataset):
        return None, f"What answers at {address} does not serve {run_name(dataset)}; `{start(dataset)}` does."
    if answer.is_error:
        return None, f"The service at {address} refuses: {content.get('detail')}"
    return content, f"{content['model']['name']} ({content['model']['version']}) answers at {address}."


def start(dataset: str) -> str:
    """The command that starts the service.

    >>> start("ml-100k"), start("plays.csv")
    ('make api', 'make api DATASET=plays.csv')
    """
    return "make api" if dataset == "ml-100k" else f"make api DATASET={dataset}"
