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
from recsys_lib.app.lab import Lab
from recsys_lib.app.state import App
from recsys_lib.data.catalogue import label
from recsys_lib.files import read_json, replacing_folder
from recsys_lib.run.run import Run

HERE = Path(__file__).parent
PLOTLY = "application/vnd.plotly.v1+json"
LEGEND = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"}
LAYOUT = {"autosize": True, "margin": {"l": 52, "r": 16, "t": 44, "b": 48}, "legend": LEGEND}
BOARDS = ("ndcg@10", "recall@10", "rmse")


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
    lab, pieces = app.lab, views.templates("site.html")
    menu = {"index.html": "Data and results", "users.html": "For users", "films.html": "Similar films"}
    subtitle = f"{run.name} · {lab.known.n_users:,} users · {lab.known.n_items:,} films"
    with replacing_folder(run.paths.outputs / "site") as folder:

        def write(name: str, title: str, *parts: str, here: str = "") -> None:
            root = "../" * name.count("/")
            (folder / name).parent.mkdir(exist_ok=True)
            page = pieces.page(title, subtitle, root, menu, here or name, map(Markup, parts))
            (folder / name).write_text(page, encoding="utf-8")

        styles = [(HERE / name).read_text("utf-8") for name in ("app.css", "site.css")]
        (folder / "site.css").write_text("\n".join(styles), encoding="utf-8")
        shutil.copy(HERE / "site.js", folder)
        groups = figures(run, folder)
        if groups:
            menu["figures.html"] = "Figures"
        if (run.paths.reports / "index.html").is_file():
            menu["report.html"] = "The report"
            shutil.copy(run.paths.reports / "index.html", folder / "report.html")
        if groups:
            lead = "The figures of the notebooks. Those that react to the mouse can be zoomed and read point by point."
            write("figures.html", "Figures", pieces.gallery(lead, groups))

        parts = [views.data(app)]
        for app.metric in [metric for metric in BOARDS if lab.ranking(metric)] or lab.metrics[:1]:
            parts += [pieces.heading(label(app.metric)), views.board(app)]
        write("index.html", "Data and results", *parts)

        links = []
        for number, app.user in enumerate(sample_of_users(lab, users), 1):
            parts = [views.profile(app), views.user_list(app, explained=True)]
            parts += [pieces.heading("Models side by side"), views.compare_lists(app)]
            parts += [pieces.heading("Everything rated before"), views.history(app)]
            write(f"users/{number}.html", f"User {app.user}", *parts, here="users.html")
            facts = [f"{len(lab.history_of(app.user))} films", *lab.facts_of(app.user).values()]
            links.append((f"users/{number}.html", f"User {app.user}", " · ".join(facts[:4])))
        lead = (
            f"A sample of {len(links)} users, from the least to the most active: what {label(app.model)} lists for "
            "them and why, other models beside it, and what they rated next."
        )
        write("users.html", "For users", pieces.index(lead, links))

        links = []
        for number, app.similar_to in enumerate(list(lab.film_labels.values())[:films], 1):
            film, lists = lab.film(app.similar_to), [views.film_card(app), views.similar_lists(app)]
            write(f"films/{number}.html", film.title, *lists, here="films.html")
            links.append((f"films/{number}.html", film.title, film.year or ""))
        lead = f"The {len(links)} films that most users have rated, and which films the models find similar to them."
        write("films.html", "Similar films", pieces.index(lead, links))
    return run.paths.outputs / "site" / "index.html"


def sample_of_users(lab: Lab, n: int) -> list[Any]:
    """Ids of users from the least to the most active whose next films are known, evenly spread."""
    tested = np.isin(lab.known.user_ids, lab.tables.split.test["user_id"])
    codes = np.flatnonzero(tested) if tested.any() else np.arange(lab.known.n_users)
    ordered = codes[np.argsort(lab.lengths[codes], kind="stable")]
    places = np.linspace(0, len(ordered) - 1, min(n, len(ordered))).round().astype(int)
    return lab.known.user_ids[np.sort(ordered[places])].tolist()


def figures(run: Run, folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Write the figures of a run: the interactive ones of its notebooks under their headings, then the pictures.

    Returns
    -------
    dict
        Pairs of heading and file relative to ``folder``, by title of the group.
    """
    (folder / "figures").mkdir()
    groups: dict[str, list[tuple[str, str]]] = {}
    for notebook in sorted((run.paths.outputs / "notebooks").glob("*.ipynb")):
        heading, shown = notebook.stem, groups.setdefault(notebook.stem.replace("_", " "), [])
        for cell in read_json(notebook)["cells"]:
            lines = re.findall(r"^#+ +(.+)$", "".join(cell["source"]), flags=re.M)
            heading = lines[-1] if lines and cell["cell_type"] == "markdown" else heading
            for output in cell.get("outputs", []):
                figure = output.get("data", {}).get(PLOTLY)
                if figure is None:
                    continue
                shown.append((heading, f"figures/{notebook.stem}-{len(shown) + 1}.html"))
                layout = {name: value for name, value in figure["layout"].items() if name not in ("width", "height")}
                content = {"data": figure["data"], "layout": layout | LAYOUT}
                plotly.io.write_html(content, folder / shown[-1][1], include_plotlyjs="directory", validate=False)
    pictures = groups.setdefault("Pictures of the notebooks", [])
    for picture in sorted(run.paths.figures.glob("*.png")):
        shutil.copy(picture, folder / "figures")
        pictures.append((re.sub(r"^\d+_", "", picture.stem).replace("_", " ").capitalize(), f"figures/{picture.name}"))
    return {title: shown for title, shown in groups.items() if shown}


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
