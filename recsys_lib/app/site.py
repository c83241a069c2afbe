"""What can live without a kernel, as one folder of plain pages: ``python -m recsys_lib.app.site ml-100k``.

The results, the report, and lists for a sample of users and films. It opens from the disk: no server, no network.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from recsys_lib.app import views
from recsys_lib.app.lab import Lab
from recsys_lib.app.state import App
from recsys_lib.data.catalogue import label
from recsys_lib.files import replacing_folder
from recsys_lib.run.run import Run

MENU = {"index.html": "Data and results", "users.html": "For users", "films.html": "Similar films"}


def build(run: Run, *, users: int = 24, films: int = 36) -> Path:
    """Write the site of a run below its outputs, and give its ``index.html``; the report is taken where it is.

    ``users`` and ``films`` say how many get pages of their own. MissingArtifactError if the run lacks tables or models;
    the text names the command that makes them.
    """
    app, report, menu = App(Lab(run)), run.paths.reports / "index.html", MENU.copy()
    lab = app.lab
    with replacing_folder(run.paths.outputs / "site") as folder:
        shutil.copy(Path(__file__).with_name("app.css"), folder)
        if report.is_file():
            menu[shutil.copy(report, folder / "report.html").name] = "The report"

        def write(name: str, title: str, *parts: str, links: tuple = ()) -> None:
            """Write a page: a text or parts of HTML, and links to other pages."""
            (folder / name).parent.mkdir(exist_ok=True)
            html = views.html.page(title, run.name, "../" * name.count("/"), menu, name, parts, links)
            (folder / name).write_text(html, encoding="utf-8")

        parts = [views.data(app)]
        for metric in [name for name in ("ndcg@10", "recall@10", "rmse") if lab.ranking(name)] or [app.metric]:
            app.metric = metric
            parts.append(views.board(app))
        write("index.html", "Data and results", *parts)

        links = []
        for number, app.user in enumerate(tqdm(sample_of_users(lab, users), "users"), 1):
            name, parts = f"users/{number}.html", [views.profile(app), views.user_list(app, explained=True)]
            write(name, f"User {app.user}", *parts, views.compare_lists(app), views.history(app))
            facts = [f"{len(lab.history_of(app.user))} films", *lab.facts.get(app.user, {}).values()]
            links.append((name, f"User {app.user}", " · ".join(facts[:4])))
        text = f"From the least to the most active: what {label(app.model)} and others list, and what came next."
        write("users.html", "For users", text, links=links)

        links = []
        for number, app.similar_to in enumerate(tqdm(list(lab.film_labels.values())[:films], "films"), 1):
            film = lab.film[app.similar_to]
            write(f"films/{number}.html", film.title, views.similar_lists(app))
            links.append((f"films/{number}.html", film.title, film.year or ""))
        write("films.html", "Similar films", "The films that most users have rated.", links=links)
    return run.paths.outputs / "site" / "index.html"


def sample_of_users(lab: Lab, n: int) -> list[Any]:
    """Ids of users from the least to the most active whose next films are known, evenly spread."""
    tested = np.flatnonzero(np.isin(lab.known.user_ids, lab.test.user_ids))
    ordered = tested[np.argsort(lab.lengths[tested], kind="stable")]
    places = np.linspace(0, len(ordered) - 1, min(n, len(ordered))).round().astype(int)
    return lab.known.user_ids[ordered[places]].tolist()


def main(arguments: list[str] | None = None) -> None:
    """Build the site of a data set and print where it opens."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.app.site", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    try:
        page = build(Run(parser.parse_args(arguments).dataset))
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    sys.stdout.write(f"{page}: open it in a browser\n")


if __name__ == "__main__":
    main()
