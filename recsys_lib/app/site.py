"""What can live without a kernel, as one folder of plain pages: ``python -m recsys_lib.app.site ml-100k``.

The results, the figures (the interactive ones of the executed notebooks with plotly saved beside them), the report,
and lists for a sample of people and films. The folder opens from the disk: no server, no network.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from recsys_lib.app import people as people_views
from recsys_lib.app import rendering, results, side_by_side
from recsys_lib.app.app import HERE, first_state
from recsys_lib.app.lab import Lab, label
from recsys_lib.app.state import State
from recsys_lib.files import read_json, replacing_folder
from recsys_lib.paths import Paths

PLOTLY = "application/vnd.plotly.v1+json"
LAYOUT = {  # of interactive figures, so that they fill their frame and leave room on a telephone
    "autosize": True,
    "margin": {"l": 52, "r": 16, "t": 44, "b": 48},
    "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
}
BOARDS = ("ndcg@10", "recall@10", "rmse")


@dataclass(frozen=True)
class Site:
    """A site in the making.

    Attributes
    ----------
    lab : Lab
        What is shown.
    folder
        Where the pages go.
    menu
        The pages that every page links to, file by text.
    """

    lab: Lab
    folder: Path
    menu: dict[str, str]

    def write(self, name: str, title: str, *parts: str, here: str = "") -> None:
        """Write one page; ``here`` is the entry of the menu that it belongs to."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        history = self.lab.history
        html = rendering.render(
            "site",
            title=title,
            subtitle=f"{self.lab.paths.name} · {history.n_users:,} people · {history.n_items:,} films",
            root="../" * name.count("/"),
            pages=self.menu,
            here=here or name,
            parts=[Markup(part) for part in parts],
        )
        path.write_text(html, encoding="utf-8")


def build(paths: Paths, *, people: int = 24, films: int = 36) -> Path:
    """Write the site of a run below its outputs.

    Parameters
    ----------
    paths
        The run; its tables, models and leaderboard are needed, report and figures are taken where they are.
    people, films
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
    lab = Lab.open(paths)
    report, groups = paths.reports / "index.html", []
    with replacing_folder(paths.outputs / "site") as folder:
        groups = figures(paths, folder)
        menu = {"index.html": "The data and the results", "people.html": "For people", "films.html": "Similar films"}
        menu |= {"figures.html": "Figures"} if groups else {}
        menu |= {"report.html": "The report"} if report.is_file() else {}
        site, state = Site(lab, folder, menu), first_state(lab)
        _assets(folder)
        _results(site, state)
        _people(site, state, sample_of_people(lab, people))
        _films(site, state, films)
        if groups:
            lead = "The figures of the notebooks. Those that react to the mouse can be zoomed and read point by point."
            site.write("figures.html", "Figures", rendering.render("figures", groups=groups, lead=lead))
        if report.is_file():
            shutil.copy(report, folder / "report.html")
    return paths.outputs / "site" / "index.html"


def sample_of_people(lab: Lab, n: int) -> list[str]:
    """People from the least to the most active whose next films are known, evenly spread.

    Returns
    -------
    list of str
        Ids as text, in the order of the ids.
    """
    tested = np.isin(lab.history.user_ids, lab.prepared.split.test["user_id"].to_numpy())
    codes = np.flatnonzero(tested) if tested.any() else np.arange(lab.history.n_users)
    ordered = codes[np.argsort(lab.n_ratings[codes], kind="stable")]
    chosen = ordered[np.unique(np.linspace(0, len(ordered) - 1, min(n, len(ordered))).round().astype(int))]
    return [str(user) for user in lab.history.user_ids[np.sort(chosen)]]


def _assets(folder: Path) -> None:
    """Style and scripts, the same as the application's."""
    static = HERE / "static"
    styles = [(static / name).read_text("utf-8") for name in ("app.css", "site.css")]
    (folder / "site.css").write_text("\n".join(styles), encoding="utf-8")
    for name in ("tables.js", "site.js"):
        shutil.copy(static / name, folder / name)


def _results(site: Site, state: State) -> None:
    boards = [metric for metric in BOARDS if site.lab.ranking(metric)] or site.lab.metrics[:1]
    parts = [results.results_board(site.lab, replace(state, metric=metric), live=False) for metric in boards]
    data = results.results_data(site.lab, state)
    site.write(
        "index.html", "The data and the results", data, _heading("Which model is best, and is it certain?"), *parts
    )


def _heading(text: str, *, hidden: bool = False) -> str:
    """A heading between the parts of a page; ``hidden``: for those alone who have the page read to them."""
    return Markup('<h2 class="{}">{}</h2>').format("rl-sr" if hidden else "rl-h2", text)


def _people(site: Site, state: State, people: list[str]) -> None:
    links = []
    for number, person in enumerate(people, 1):
        chosen = replace(state, person=person)
        parts = [
            _heading("Profile and list", hidden=True),
            people_views.person_card(site.lab, chosen),
            people_views.person_list(site.lab, chosen, live=False),
            _heading("Models side by side"),
            side_by_side.compare_lists(site.lab, chosen),
            _heading("Everything rated before", hidden=True),
            people_views.person_history(site.lab, chosen),
        ]
        name = f"people/{number}.html"
        site.write(name, f"Person {person}", *parts, here="people.html")
        facts = [f"{site.lab.n_ratings[site.lab.person_code(person)]} films", *site.lab.facts_of(person).values()]
        links.append({"href": name, "text": f"Person {person}", "more": " · ".join(facts[:4]), "film": None})
    lead = (
        f"A sample of {len(people)} people, from the least to the most active: what {label(state.model)} would put "
        "before them and why, other models beside it, and what they really watched next."
    )
    site.write("people.html", "For people", rendering.render("links", lead=lead, links=links))


def _films(site: Site, state: State, n: int) -> None:
    links = []
    for number, film in enumerate(site.lab.well_known(n), 1):
        name = f"films/{number}.html"
        lists = side_by_side.similar_lists(site.lab, replace(state, film=film.id))
        site.write(name, film.title, _heading("Films alike, by model", hidden=True), lists, here="films.html")
        links.append({"href": name, "text": film.title, "more": film.year or "", "film": film})
    lead = f"The {len(links)} films that most people know, and which films the models hold to be like them."
    site.write("films.html", "Similar films", rendering.render("links", lead=lead, links=links))


# ---- figures ---------------------------------------------------------------------------------------------------


def figures(paths: Paths, folder: Path) -> list[dict[str, Any]]:
    """Write the figures of a run: the interactive ones of its notebooks, then the pictures of its notebooks.

    Returns
    -------
    list of dict
        Groups: "title", "figures" ("text", "file" relative to ``folder``, "interactive").
    """
    groups = []
    for notebook in sorted((paths.outputs / "notebooks").glob("*.ipynb")):
        found = [_interactive(figure, text, folder, notebook.stem, n) for n, (text, figure) in enumerate(_in(notebook))]
        if found:
            groups.append({"title": notebook.stem.replace("_", " "), "figures": found})
    pictures = sorted(paths.figures.glob("*.png"))
    for picture in pictures:
        (folder / "figures").mkdir(exist_ok=True)
        shutil.copy(picture, folder / "figures" / picture.name)
    if pictures:
        found = [_picture(picture) for picture in pictures]
        groups.append({"title": "Pictures of the notebooks", "figures": found})
    return groups


def _picture(path: Path) -> dict[str, Any]:
    text = re.sub(r"^\d+_", "", path.stem).replace("_", " ").capitalize()
    return {"text": text, "file": f"figures/{path.name}", "interactive": False}


def _in(notebook: Path) -> list[tuple[str, dict[str, Any]]]:
    """Plotly figures in an executed notebook, each with the heading it stands under."""
    heading, found = notebook.stem, []
    for cell in read_json(notebook)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and (lines := re.findall(r"^#+ +(.+)$", source, flags=re.M)):
            heading = lines[-1]
        for output in cell.get("outputs", []):
            if PLOTLY in output.get("data", {}):
                found.append((heading, output["data"][PLOTLY]))
    return found


def _interactive(figure: dict[str, Any], text: str, folder: Path, stem: str, number: int) -> dict[str, Any]:
    import plotly.io

    file = f"figures/{stem}-{number + 1}.html"
    (folder / "figures").mkdir(exist_ok=True)
    given = {name: value for name, value in figure["layout"].items() if name not in ("width", "height")}
    content = {"data": figure["data"], "layout": {**given, **LAYOUT}}
    plotly.io.write_html(
        content,
        folder / file,
        include_plotlyjs="directory",
        full_html=True,
        config={"displaylogo": False},
        validate=False,
    )
    return {"text": text, "file": file, "interactive": True}


def main(arguments: list[str] | None = None) -> None:
    """Build the site of a data set and print where it opens."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.app.site", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--films", type=int, default=36)
    given = parser.parse_args(arguments)
    try:
        page = build(Paths(given.dataset), people=given.people, films=given.films)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error
    size = sum(file.stat().st_size for file in page.parent.rglob("*") if file.is_file())
    sys.stdout.write(f"{page} ({size / 2**20:.1f} MB): open it in a browser\n")


if __name__ == "__main__":
    main()
