"""What can live without a kernel, as one folder of plain pages: ``python -m recsys_lib.app.site ml-100k``.

The results, the figures (the interactive ones of the executed notebooks with plotly beside them), the report, and lists
for a sample of users and films. The folder opens from the disk: no server, no network.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import plotly.io
from markupsafe import Markup

from recsys_lib.app import views
from recsys_lib.app.lab import Lab, label
from recsys_lib.app.state import App
from recsys_lib.files import read_json, replacing_folder
from recsys_lib.run.run import Run

HERE = Path(__file__).parent
PLOTLY = "application/vnd.plotly.v1+json"
LAYOUT = {"autosize": True, "margin": {"l": 52, "r": 16, "t": 44, "b": 48}}
LAYOUT["legend"] = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"}
BOARDS = ("ndcg@10", "recall@10", "rmse")


class Site:
    """A site in the making.

    Parameters
    ----------
    app : App
        What is shown.
    folder
        Where the pages go.
    """

    def __init__(self, app: App, folder: Path) -> None:
        self.app, self.folder = app, folder
        self.pieces = views.templates("site.html")
        self.menu = {"index.html": "Data and results", "users.html": "For users", "films.html": "Similar films"}

    def write(self, name: str, title: str, *parts: str, here: str = "") -> None:
        """Write one page; ``here`` is the entry of the menu that it belongs to."""
        path, lab = self.folder / name, self.app.lab
        path.parent.mkdir(parents=True, exist_ok=True)
        subtitle = f"{lab.run.name} · {lab.known.n_users:,} users · {lab.known.n_items:,} films"
        page = self.pieces.page(title, subtitle, "../" * name.count("/"), self.menu, here or name, map(Markup, parts))
        path.write_text(page, encoding="utf-8")


def build(run: Run, *, users: int = 24, films: int = 36) -> Path:
    """Write the site of a run below its outputs.

    Parameters
    ----------
    run
        Its tables, models and leaderboard are needed; report and figures are taken where they are.
    users, films
        How many get pages of their own.

    Returns
    -------
    Path
        ``outputs/<data set>/site/index.html``.

    Raises
    ------
    MissingArtifactError
        If the run lacks tables or models; the text names the command that makes them.
    """
    app = App(Lab(run))
    report = run.paths.reports / "index.html"
    with replacing_folder(run.paths.outputs / "site") as folder:
        site, groups = Site(app, folder), figures(run, folder)
        site.menu |= {"figures.html": "Figures"} if groups else {}
        site.menu |= {"report.html": "The report"} if report.is_file() else {}
        styles = [(HERE / name).read_text("utf-8") for name in ("app.css", "site.css")]
        (folder / "site.css").write_text("\n".join(styles), encoding="utf-8")
        shutil.copy(HERE / "site.js", folder)
        _results(site)
        _users(site, sample_of_users(app.lab, users))
        _films(site, films)
        if groups:
            lead = "The figures of the notebooks. Those that react to the mouse can be zoomed and read point by point."
            site.write("figures.html", "Figures", site.pieces.gallery(lead, groups))
        if report.is_file():
            shutil.copy(report, folder / "report.html")
    return run.paths.outputs / "site" / "index.html"


def sample_of_users(lab: Lab, n: int) -> list[Any]:
    """Ids of users from the least to the most active whose next films are known, evenly spread."""
    lengths = np.diff(lab.known.matrix.indptr)
    tested = np.isin(lab.known.user_ids, lab.tables.split.test["user_id"].to_numpy())
    codes = np.flatnonzero(tested) if tested.any() else np.arange(lab.known.n_users)
    ordered = codes[np.argsort(lengths[codes], kind="stable")]
    chosen = ordered[np.unique(np.linspace(0, len(ordered) - 1, min(n, len(ordered))).round().astype(int))]
    return lab.known.user_ids[np.sort(chosen)].tolist()


def _results(site: Site) -> None:
    app, parts = site.app, [views.data(site.app)]
    for metric in [name for name in BOARDS if app.lab.ranking(name)] or app.lab.metrics[:1]:
        app.metric = metric
        parts += [site.pieces.heading(label(metric)), views.board(app)]
    site.write("index.html", "Data and results", *parts)


def _users(site: Site, users: list[Any]) -> None:
    app, links = site.app, []
    for number, user in enumerate(users, 1):
        app.user = user
        parts = [views.profile(app), views.user_list(app, explained=True), site.pieces.heading("Models side by side")]
        parts += [views.compare_lists(app), site.pieces.heading("Everything rated before"), views.history(app)]
        name = f"users/{number}.html"
        site.write(name, f"User {user}", *parts, here="users.html")
        facts = " · ".join([f"{len(app.lab.history_of(user))} films", *app.lab.facts_of(user).values()][:4])
        links.append({"href": name, "text": f"User {user}", "more": facts})
    lead = (
        f"A sample of {len(users)} users, from the least to the most active: what {label(app.model)} lists for them "
        "and why, other models beside it, and what they rated next."
    )
    site.write("users.html", "For users", site.pieces.index(lead, links))


def _films(site: Site, n: int) -> None:
    app, links = site.app, []
    for number, item in enumerate(list(app.lab.film_labels.values())[:n], 1):
        app.similar_to, name = item, f"films/{number}.html"
        film = app.lab.film(item)
        site.write(name, film.title, views.film_card(app), views.similar_lists(app), here="films.html")
        links.append({"href": name, "text": film.title, "more": film.year or ""})
    lead = f"The {len(links)} films that most users have rated, and which films the models find similar to them."
    site.write("films.html", "Similar films", site.pieces.index(lead, links))


def figures(run: Run, folder: Path) -> list[dict[str, Any]]:
    """Write the figures of a run: the interactive ones of its notebooks, then the pictures.

    Returns
    -------
    list of dict
        Groups: "title", "figures" ("text", "file" relative to ``folder``, "interactive").
    """
    (folder / "figures").mkdir()
    groups = []
    for notebook in sorted((run.paths.outputs / "notebooks").glob("*.ipynb")):
        shown = []
        for number, (text, figure) in enumerate(_plotly_figures(notebook), 1):
            file = f"figures/{notebook.stem}-{number}.html"
            layout = {key: value for key, value in figure["layout"].items() if key not in ("width", "height")} | LAYOUT
            content = {"data": figure["data"], "layout": layout}
            plotly.io.write_html(content, folder / file, include_plotlyjs="directory", validate=False)
            shown.append({"text": text, "file": file, "interactive": True})
        groups += [{"title": notebook.stem.replace("_", " "), "figures": shown}] if shown else []
    shown = []
    for picture in sorted(run.paths.figures.glob("*.png")):
        shutil.copy(picture, folder / "figures" / picture.name)
        text = re.sub(r"^\d+_", "", picture.stem).replace("_", " ").capitalize()
        shown.append({"text": text, "file": f"figures/{picture.name}", "interactive": False})
    return groups + ([{"title": "Pictures of the notebooks", "figures": shown}] if shown else [])


def _plotly_figures(notebook: Path) -> list[tuple[str, dict[str, Any]]]:
    """Plotly figures in an executed notebook, each with the heading it stands under."""
    heading, figures = notebook.stem, []
    for cell in read_json(notebook)["cells"]:
        lines = re.findall(r"^#+ +(.+)$", "".join(cell["source"]), flags=re.M)
        heading = lines[-1] if lines and cell["cell_type"] == "markdown" else heading
        for output in cell.get("outputs", []):
            if PLOTLY in output.get("data", {}):
                figures.append((heading, output["data"][PLOTLY]))
    return figures


def main(arguments: list[str] | None = None) -> None:
    """Build the site of a data set and print where it opens."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.app.site", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("--users", type=int, default=24)
    parser.add_argument("--films", type=int, default=36)
    given = parser.parse_args(arguments)
    try:
        page = build(Run(given.dataset), users=given.users, films=given.films)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error
    size = sum(file.stat().st_size for file in page.parent.rglob("*") if file.is_file())
    sys.stdout.write(f"{page} ({size / 2**20:.1f} MB): open it in a browser\n")


if __name__ == "__main__":
    main()
