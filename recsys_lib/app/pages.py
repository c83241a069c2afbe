"""The frame of the page, the page that stands in for everything, and the proposals of the search fields."""

from __future__ import annotations

from recsys_lib.app.lab import Lab
from recsys_lib.app.rendering import render
from recsys_lib.app.state import LONGEST, MOST_MODELS, SHORTEST, TABS, VARIETIES, State


def page(lab: Lab, state: State) -> str:
    """The frame: tabs, controls, and an empty place for every part."""
    limits = {"shortest": SHORTEST, "longest": LONGEST, "most": MOST_MODELS, "varieties": VARIETIES}
    return render("page", lab=lab, state=state, tabs=TABS, **limits)


def stopped(problem: str) -> str:
    """The page that stands in for everything when the demo cannot open; a command between backquotes stands out."""
    text, *command = problem.split("`")[:2]
    titles = {"is missing": "The lab has not been run yet", "holds no": "The lab has not been run yet"}
    titles["cannot be read"] = "The lab could not be opened"
    title = next((t for part, t in titles.items() if part in problem), "These results do not belong together")
    return render("error", title=title, text=text.strip(" :"), command="".join(command))


def person_options(lab: Lab, name: str, text: str) -> str:
    """People whose id fits what was typed."""
    options = []
    for person in lab.find_people(text):
        facts = list(lab.facts_of(person).values())[:3]
        more = " · ".join([f"{lab.n_ratings[lab.person_code(person)]} films", *facts])
        options.append({"value": person, "text": f"Person {person}", "more": more})
    return render("options", options=options, name=name, text=text, nothing="Nobody has such an id.")


def film_options(lab: Lab, name: str, text: str) -> str:
    """Films whose title fits what was typed, or the well known ones before anything is."""
    films = lab.find_films(text) if text.strip() else lab.well_known(8)
    options = [{"value": film.id, "text": film.title, "more": film.year or ""} for film in films]
    return render("options", options=options, name=name, text=text, nothing="No title has these words.")
