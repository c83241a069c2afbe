"""Opening the application of a run, or saying why that cannot be."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from IPython.display import HTML, display

from recsys_lib.app.lab import Lab, label
from recsys_lib.app.state import App
from recsys_lib.app.views import templates
from recsys_lib.paths import Paths
from recsys_lib.run.run import MissingArtifactError, OtherDataError, Run

DATASET = "RECSYS_DATASET"
log = logging.getLogger(__name__)


def open_app(dataset: str = "ml-100k") -> App | None:
    """The choices of a new session about one data set; where it cannot be opened, a page says which command helps.

    Parameters
    ----------
    dataset
        Name or path; ``make demo DATASET=...`` goes before it.

    Raises
    ------
    SystemExit
        If a step has not run, or its results do not belong together.
    """
    run = Run(os.environ.get(DATASET) or dataset)
    _keep_log(run.paths)
    try:
        return App(Lab(run))
    except (MissingArtifactError, OtherDataError) as error:
        title, text = "The lab has not been run yet", str(error)
        if isinstance(error, OtherDataError):
            title = "These results do not belong together"
    except (OSError, ValueError, KeyError):
        log.exception("The application could not open %s", run.name)
        title, text = (
            "The lab could not be opened",
            f"The results of {run.name} cannot be read: `{run.command()}` makes them again",
        )
    sentence, _, command = text.partition("`")
    page = templates().stopped(title, sentence.strip(" :"), command.partition("`")[0])
    style = (Path(__file__).parent / "app.css").read_text("utf-8")
    display(HTML(f"<style>{style}</style><div class='film-lab'>{page}</div>"))
    if "VOILA_PREHEAT" not in os.environ:  # Voilà would show its own words in the place of these
        raise SystemExit(text)
    return None


def takeaway(app: App) -> str:
    """What can be asked, in one sentence computed from what is there."""
    best = app.lab.ranking("ndcg@10")
    first = f"; {label(best[0]['name'])} comes first on the leaderboard" if best else "; there is no leaderboard yet"
    users, films = app.lab.known.n_users, app.lab.known.n_items
    return f"{len(app.lab.models)} models can be asked about {users:,} users, {films:,} films, or a new user{first}."


def _keep_log(paths: Paths) -> None:
    """Write what goes wrong to ``outputs/<data set>/logs/demo.log``; the file appears with the first line."""
    package = logging.getLogger("recsys_lib.app")
    if not package.handlers and os.access(paths.logs, os.W_OK):
        handler = logging.FileHandler(paths.logs / "demo.log", delay=True, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        package.addHandler(handler)
