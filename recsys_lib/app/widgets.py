"""The widgets of the application: controls and views that are bound to the traits of one :class:`App`."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as w
from IPython.display import HTML, display
from traitlets import Unicode, link

from recsys_lib.app.lab import Lab, NotPossibleError, search
from recsys_lib.app.state import App
from recsys_lib.app.views import html, read_ratings
from recsys_lib.data.catalogue import label
from recsys_lib.data.s3 import StorageError
from recsys_lib.run.run import MissingArtifactError, OtherDataError, Run

HERE = Path(__file__).parent
STYLE = (HERE / "app.css").read_text("utf-8")
SORRY = "Something went wrong with that. It is written down in the log; the rest of the page still works."
WIDE = {"description_width": "initial"}
log = logging.getLogger(__name__)


def open_app(dataset: str = "ml-100k") -> App | None:
    """The choices of a new session about a data set, by name or path; what ``make demo DATASET=...`` names goes before.

    SystemExit if a step has not run, its results do not belong together, or S3 does not answer; a page says what helps.
    """
    try:
        run = Run(os.environ.get("RECSYS_DATASET") or dataset)
    except StorageError as error:
        return _nothing(str(error))
    if not log.handlers and os.access(run.paths.logs, os.W_OK):
        log.addHandler(handler := logging.FileHandler(run.paths.logs / "demo.log", delay=True, encoding="utf-8"))
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    try:
        return App(Lab(run))
    except (MissingArtifactError, OtherDataError) as error:
        return _nothing(str(error))
    except (OSError, ValueError, KeyError):
        log.exception("The application could not open %s", run.name)
        return _nothing(f"The results of {run.name} cannot be read: `{run.command()}` makes them again")


def _nothing(text: str) -> None:
    """Show a page that says why there is nothing else, and end what follows it."""
    page = html.message(f"{text}. Then load the page again.", "stop", "Nothing to show yet")
    display(HTML(f"<style>{STYLE}</style><div class='film-lab'>{page}</div>"))
    if "VOILA_PREHEAT" not in os.environ:  # Voilà would show its own words in the place of these
        raise SystemExit(text)


class View(w.VBox):
    """What ``make`` makes of ``app``, HTML or a figure; made again when a trait of one of the ``names`` changes.

    ``View(app, lambda app: f"<p>{len(app.liked)} ratings</p>", "liked")``
    """

    def __init__(self, app: App, make: Callable[[App], Any], *names: str) -> None:
        super().__init__([w.HTML()])
        self.app, self.make, self.names, self.tab, self.shown = app, make, names, None, None
        self.refresh()
        app.observe(self.refresh, [*names, "tab"])

    def refresh(self, _: Any = None) -> None:
        """Make it again if its tab is open, and it shows other choices than the present ones."""
        choices = repr([getattr(self.app, name) for name in self.names])
        if self.tab not in (None, self.app.tab) or choices == self.shown:
            return
        self.shown = choices
        try:
            self.put(self.make(self.app))
        except NotPossibleError as error:
            self.put(html.message(str(error)))
        except Exception:  # whatever fails in one view leaves the others alone
            log.exception("The application could not make %s", self.make)
            self.put(html.message(SORRY))

    def put(self, content: Any) -> None:
        """Show HTML, or a figure of plotly or the dict of one."""
        text, *charts = self.children
        text.value, outputs = self.app.lab.words(content) if isinstance(content, str) else "", ()
        if not isinstance(content, str):
            figure = content if isinstance(content, dict) else json.loads(content.to_json())
            figure |= {"config": {"displayModeBar": False, "responsive": True}}
            data = {"application/vnd.plotly.v1+json": figure, "text/plain": "chart"}
            outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)
            self.children = (text, *(charts or [w.Output()]))
        for chart in self.children[1:]:
            chart.outputs = outputs


@cache
def control(app: App, name: str) -> w.Widget:
    """The control of a trait of ``app``, one for all tabs: whichever of the two changes, the other follows."""
    trait, offered = app.traits()[name], app.lab.offered.get(name.replace("against", "metric"))
    first, last = app.lab.year_range
    kind, options = w.IntSlider, {"continuous_update": False}
    if offered:
        kind = w.ToggleButtons if name in ("who", "diversify") else w.Dropdown
        options = {"options": [(text, value) for value, text in offered.items()]}
    elif name == "hide_rated":
        kind, options = w.Checkbox, {"indent": False}
    elif name == "years":
        kind, options["options"] = w.SelectionRangeSlider, range(first, last + 1)
    else:
        options |= {"min": trait.min, "max": trait.max, "step": trait.metadata.get("step", 1)}
    text = app.lab.words(trait.metadata.get("label", label(name)))
    made = kind(value=getattr(app, name), description=text, style=WIDE, **options)
    link((app, name), (made, "value"))
    return made


def filters(app: App, *, rated: bool = True) -> w.Accordion:
    """Genre, years, diversity and what was rated already, folded up at first."""
    names = ["hide_rated"] * rated + ["genre"] * bool(app.lab.genres)
    names += ["years"] * (len(set(app.lab.year_range)) > 1) + ["diversity", "diversify"]
    return w.Accordion([w.VBox([control(app, name) for name in names])], titles=["Filters and diversity"])


@cache
def picker(app: App, verb: str, text: str) -> w.VBox:
    """A field to find a user or a film by words, spelling mistakes allowed; ``verb`` as in :meth:`App.do`."""
    labels = app.lab.user_labels if verb == "user" else app.lab.film_labels
    shown = {str(value): name for name, value in labels.items()}
    hint, text = "Type and press Enter", app.lab.words(text)
    box = w.Combobox(
        options=list(labels)[:2000], description=text, placeholder=hint, style=WIDE, continuous_update=False
    )
    others = w.HTML()

    def current(_: Any = None) -> None:
        box.value, others.value = shown.get(str(getattr(app, verb, "")), ""), ""

    def entered(change: Any) -> None:
        words = change["new"].strip()
        number = words.lower().removeprefix("user").strip()
        if words in ("", shown.get(str(getattr(app, verb, "")))):
            return
        one = shown.get(number) if verb == "user" and number.isdecimal() else words
        hits = [one] if one in labels else search(words, labels, 6) if one else []
        if hits:
            app.do(verb, str(labels[hits[0]]))
        else:
            app.notice = f"Nothing here is called “{words}”."
        current()
        if hits[1:]:
            others.value = html.chips(verb, [(labels[hit], hit) for hit in hits[1:]], "Or did you mean")

    current()
    if app.has_trait(verb):
        app.observe(current, verb)
    box.observe(entered, "value")
    return w.VBox([box, others])


@cache
def user_controls(app: App) -> w.VBox:
    """Who is looked at: a search field, and buttons for the user before, any other and the next."""
    steps = html.chips("step", {-1: "← Previous", "any": "Anybody", 1: "Next →"}.items())
    return w.VBox([picker(app, "user", "User"), w.HTML(steps)])


def upload(app: App) -> w.VBox:
    """Import of one's own ratings: a CSV file of Letterboxd or IMDb, matched by title and year, shown before use."""
    file = w.FileUpload(accept=".csv", description="Import ratings (CSV)", layout={"width": "max-content"})
    shown = w.HTML()

    def read(change: Any) -> None:
        try:
            table = read_ratings(app.lab, bytes(change["new"][0]["content"]))
            matched = table.dropna()
            missed = table["given"].drop(matched.index).tolist()
            shown.value = html.imported(app.lab, [*matched.itertuples()], missed)
        except NotPossibleError as error:
            shown.value = html.message(str(error))
        except ValueError:
            shown.value = html.message("The file is no CSV table.")

    file.observe(lambda change: change["new"] and read(change), "value")
    return w.VBox([file, shown])


def columns(*parts: w.Widget) -> w.Box:
    """Widgets beside each other where there is room, below each other on a phone."""
    box = w.Box(parts).add_class("fl-columns")
    return box.add_class("fl-three") if len(parts) > 2 else box  # browsers look for :has at every change of the page


class Browser(anywidget.AnyWidget):
    """What no widget serves: the address bar, the theme, buttons inside HTML, a kernel that is gone."""

    _esm, _css = (HERE / "browser.js").read_text("utf-8"), STYLE
    html, link, notice = (Unicode().tag(sync=True) for _ in range(3))

    def __init__(self, app: App, head: str) -> None:
        super().__init__(html=head)
        self.app = app
        app.observe(self._changed)
        self.on_msg(self._follow)

    def _changed(self, _: Any) -> None:
        self.notice, self.link = self.app.lab.words(self.app.notice), self.app.link

    def _follow(self, _: Any, content: dict[str, Any], __: Any) -> None:
        if "link" in content:
            self.app.follow(str(content["link"]))
        elif "do" in content:
            verb, _, value = str(content["do"]).partition(" ")
            self.app.do(verb, value)
        self.send({"done": content.get("number", "")})


class Page(w.VBox):
    """The application: a head and tabs, ``Page(app, {"For you": for_you, "My view": View(app, my_view, "user")})``."""

    def __init__(self, app: App, tabs: dict[str, w.Widget]) -> None:
        counts = app.lab.words(f"{app.lab.known.n_users:,} users · {app.lab.known.n_items:,} films")
        self.app, self.tabs = app, w.Tab()
        self.browser = Browser(app, html.head(app.lab.run.name, counts))
        super().__init__([self.browser, self.tabs])
        self.add_class("film-lab")
        for title, widget in tabs.items():
            self.add(title, widget)
        self._chosen()
        self.tabs.observe(self._opened, "selected_index")
        app.observe(self._chosen, "tab")

    def add(self, title: str, widget: w.Widget) -> None:
        """Add a tab."""
        titles = (*self.tabs.titles, title)
        self.tabs.children, self.tabs.titles = (*self.tabs.children, widget), titles
        for view in _views(widget):
            view.tab = title
            if title != self.app.tab and len(view.children) == 1:  # charts stand ready: plotly takes its time
                view.shown = view.put("")

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live widgets, and a picture of the open tab for whoever reads the executed notebook without a kernel."""
        shown = "".join(view.children[0].value for view in _views(self))
        picture = f"<style>{STYLE}</style><div class='film-lab'>{self.browser.html}{shown}</div>"
        return {**super()._repr_mimebundle_(**kwargs), "text/html": picture}

    def _opened(self, _: Any) -> None:
        self.app.tab = self.tabs.titles[self.tabs.selected_index or 0]

    def _chosen(self, _: Any = None) -> None:
        if self.app.tab not in self.tabs.titles:
            self.app.tab = self.tabs.titles[0]
        self.tabs.selected_index = self.tabs.titles.index(self.app.tab)


def _views(widget: w.Widget) -> Iterator[View]:
    """The views in a widget."""
    if isinstance(widget, View):
        yield widget
    else:
        for child in getattr(widget, "children", ()):
            yield from _views(child)
