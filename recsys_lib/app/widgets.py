"""The widgets of the application: controls and views that are bound to the traits of one :class:`App`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as w
import plotly.graph_objects as go
from traitlets import Unicode, link

from recsys_lib.app import views
from recsys_lib.app.lab import NotPossibleError, label, search
from recsys_lib.app.state import LONGEST, SHORTEST, App

HERE = Path(__file__).parent
SORRY = "Something went wrong with that. It is written down in the log; the rest of the page still works."
WIDE = {"description_width": "initial"}
log = logging.getLogger(__name__)


# ---- views -----------------------------------------------------------------------------------------------------


class View(w.HTML):
    """HTML that follows traits of an application.

    Parameters
    ----------
    app : App
    make
        Makes the HTML from ``app``.
    names
        Traits of ``app`` that it depends on.

    Examples
    --------
    ``View(app, lambda app: f"<p>{len(app.liked)} ratings</p>", "liked")``
    """

    def __init__(self, app: App, make: Callable[[App], str], *names: str) -> None:
        super().__init__()
        self.follow(app, make, names)

    def follow(self, app: App, make: Callable[[App], Any], names: tuple[str, ...]) -> None:
        """Show what ``make`` returns, now and whenever one of the traits changes."""
        self.app, self.make, self.names, self.shown = app, make, names, None
        self.hidden = False  # on a tab that is not open: it waits
        app.observe(self.refresh, names or ["tab"])
        self.refresh()

    def refresh(self, _: Any = None) -> None:
        """Make it again if it shows other choices than the present ones."""
        key = repr([getattr(self.app, name) for name in self.names])
        if self.hidden or key == self.shown:
            return
        try:
            self.put(self.make(self.app))
        except NotPossibleError as error:
            self.put_text(str(error))
        except Exception:  # whatever fails in one view leaves the others alone
            log.exception("The application could not make %s", self.make.__name__)
            self.put_text(SORRY)
        self.shown = key

    def empty(self) -> None:
        """Show nothing until the tab is opened: what nobody sees costs the browser nothing."""
        self.value, self.shown = "", None

    def put(self, content: str) -> None:
        """Show HTML."""
        self.value = str(content)

    def put_text(self, text: str) -> None:
        """Show a sentence instead."""
        self.value = str(views.templates().sorry(text))


class Chart(w.Output):
    """A plotly figure that follows traits of an application; as :class:`View`, with ``make`` returning a figure."""

    follow, refresh = View.follow, View.refresh

    def __init__(self, app: App, make: Callable[[App], go.Figure], *names: str) -> None:
        super().__init__()
        self.follow(app, make, names)

    def empty(self) -> None:
        """Show nothing until the tab is opened."""
        self.outputs, self.shown = (), None

    def put(self, content: go.Figure) -> None:
        """Show a figure."""
        figure = json.loads(content.to_json()) | {"config": {"displayModeBar": False, "responsive": True}}
        self._display({"application/vnd.plotly.v1+json": figure, "text/plain": "chart"})

    def put_text(self, text: str) -> None:
        """Show a sentence instead."""
        self._display({"text/html": str(views.templates().sorry(text)), "text/plain": text})

    def _display(self, bundle: dict[str, Any]) -> None:
        self.outputs = ({"output_type": "display_data", "data": bundle, "metadata": {}},)


# ---- controls --------------------------------------------------------------------------------------------------


def bound(app: App, name: str, control: w.Widget) -> w.Widget:
    """A control whose value is a trait of the application."""
    link((app, name), (control, "value"))
    return control


def choice(app: App, name: str, text: str, options: list[tuple[str, Any]]) -> w.Dropdown:
    """A drop-down list for a trait."""
    return bound(app, name, w.Dropdown(options=options, value=getattr(app, name), description=text, style=WIDE))


def model_choice(app: App) -> w.Dropdown:
    """Which model lists the films."""
    return choice(app, "model", "Model", [(text, name) for name, text in app.lab.models.items()])


def length_choice(app: App) -> w.IntSlider:
    """How many films a list has."""
    slider = w.IntSlider(min=SHORTEST, max=LONGEST, description="Films", continuous_update=False, style=WIDE)
    return bound(app, "k", slider)


def filters(app: App, *, rated: bool = True) -> w.Accordion:
    """Genre, years, diversity and what was rated already, folded up at first."""
    controls: list[w.Widget] = []
    if rated:
        controls.append(bound(app, "hide_rated", w.Checkbox(description="Leave out rated films", indent=False)))
    if app.lab.genres:
        controls.append(choice(app, "genre", "Genre", [("All genres", ""), *((name, name) for name in app.lab.genres)]))
    first, last = app.lab.year_range
    if last > first:
        years = w.SelectionRangeSlider(
            options=list(range(first, last + 1)),
            index=(0, last - first),
            description="Years",
            continuous_update=False,
            style=WIDE,
        )
        controls.append(bound(app, "years", years))
    diversity = w.IntSlider(min=0, max=100, step=5, description="Diversity %", continuous_update=False, style=WIDE)
    controls.append(bound(app, "diversity", diversity))
    kinds = [("Other audiences", "mmr")] + ([("Own mix of genres", "calibration")] if app.lab.genres else [])
    controls.append(bound(app, "diversify", w.ToggleButtons(options=kinds, description="Diversity by", style=WIDE)))
    return w.Accordion([w.VBox(controls)], titles=["Filters and diversity"])


def picker(app: App, text: str, labels: dict[str, Any], name: str = "", verb: str = "") -> w.VBox:
    """A field to find a user or a film by words, spelling mistakes allowed.

    Parameters
    ----------
    labels
        Id of each choice by its text.
    name
        Trait that takes the id; or
    verb
        what to do with it, see :meth:`App.act`.
    """
    box = w.Combobox(options=list(labels)[:2000], description=text, placeholder="Type and press Enter", style=WIDE)
    box.continuous_update = False
    hits, shown = w.HTML(), {str(value): text for text, value in labels.items()}

    def current() -> str:
        return shown[str(getattr(app, name))] if name else ""

    def entered(change: Any) -> None:
        words = change["new"].strip()
        if words in ("", current()):
            return
        number = words.lower().removeprefix("user").strip()
        others = [] if words in labels else search(words, labels, 6)
        if words in labels or others:
            best = words if words in labels else others.pop(0)
            item = number if name == "user" and number in shown else labels[best]
            app.do(verb or name, str(item))
        else:
            app.notice = f"Nobody here has the id “{number}”." if number.isdecimal() else f"Nothing matches “{words}”."
        others = [] if number.isdecimal() else [(labels[other], other) for other in others]
        hits.value = str(views.templates().matches(verb or name, others))
        box.value = current()

    box.value = current()
    if name:
        app.observe(lambda _: setattr(box, "value", current()), name)
    box.observe(entered, "value")
    return w.VBox([box, hits])


def user_controls(app: App) -> w.VBox:
    """Who is looked at: a search field, and buttons for the user before, any other and the next."""
    steps = [w.Button(description=text, layout={"width": "auto"}) for text in ("← Previous", "Anybody", "Next →")]
    for button, (verb, value) in zip(steps, (("step", "-1"), ("any", ""), ("step", "1")), strict=True):
        button.on_click(lambda _, verb=verb, value=value: app.do(verb, value))
    return w.VBox([picker(app, "User", app.lab.user_labels, "user"), w.HBox(steps)])


def film_search(app: App, to: str) -> w.VBox:
    """A field to find a film: ``to`` is the trait that takes it, or "like" for the new user's ratings."""
    if to == "like":
        return picker(app, "Find a film", app.lab.film_labels, verb="like")
    return picker(app, "Film", app.lab.film_labels, to)


def upload(app: App) -> w.VBox:
    """Import of one's own ratings: a CSV file of Letterboxd or IMDb, matched by title and year, shown before use."""
    file = w.FileUpload(accept=".csv", description="Import ratings (CSV)", layout={"width": "auto"})
    use, shown, matched = (
        w.Button(description="Use these ratings", disabled=True, layout={"width": "auto"}),
        w.HTML(),
        {},
    )

    def read(change: Any) -> None:
        matched.clear()
        try:
            ratings, rows, missed = views.read_ratings(app.lab, bytes(change["new"][0]["content"]))
        except (NotPossibleError, ValueError) as error:
            text = str(error) if isinstance(error, NotPossibleError) else "The file is no CSV table."
            shown.value = str(views.templates().sorry(text))
        else:
            matched.update(ratings)
            shown.value = str(views.templates().imported(rows, missed, app.lab.scale[1]))
        use.disabled = not matched

    file.observe(lambda change: change["new"] and read(change), "value")
    use.on_click(lambda _: app.set("liked", {**app.liked, **matched}))
    return w.VBox([w.HBox([file, use]), shown])


def history_view(app: App) -> w.VBox:
    """Everything the user has rated, with any column of the items table, in any order."""
    names = [(label(name), name) for name in [*app.lab.items.columns, "mean", "ratings"] if name != "title"]
    orders = [
        ("Latest first", "latest"),
        ("Best rated first", "rating"),
        ("By title", "title"),
        ("By the column", "column"),
    ]
    controls = [choice(app, "column", "Column", names), choice(app, "order", "Order", orders)]
    return w.VBox([w.HTML("<h2>History</h2>"), *controls, View(app, views.history, "user", "column", "order")])


def who_choice(app: App) -> w.ToggleButtons:
    """Whether models are compared for a user of the data or for the new user."""
    return bound(app, "who", w.ToggleButtons(options=["user", "new user"], description="For the", style=WIDE))


def metric_choice(app: App, name: str = "metric") -> w.Dropdown:
    """Which metric is shown, or (``"against"``) which one it is compared with."""
    names = [(label(metric), metric) for metric in app.lab.metrics] or [("no leaderboard yet", "")]
    return choice(app, name, "Metric" if name == "metric" else "Against", names)


def columns(*parts: w.Widget) -> w.Box:
    """Widgets beside each other where there is room, below each other on a phone."""
    box = w.Box(list(parts))
    box.add_class("fl-columns")
    return box


# ---- the page --------------------------------------------------------------------------------------------------


class Browser(anywidget.AnyWidget):
    """What no widget serves: the address bar, the theme, buttons inside HTML, a kernel that is gone."""

    _esm = (HERE / "browser.js").read_text("utf-8")
    _css = (HERE / "app.css").read_text("utf-8")
    html = Unicode().tag(sync=True)
    link = Unicode().tag(sync=True)
    notice = Unicode().tag(sync=True)
    said = Unicode().tag(sync=True)

    def __init__(self, app: App, head: str) -> None:
        super().__init__(html=head)
        self.app = app
        app.observe(self._changed)
        self.on_msg(self._follow)

    def _changed(self, change: Any) -> None:
        if change["name"] == "notice":
            self.notice = change["new"]
        else:
            self.link, self.said = self.app.link, self.app.said

    def _follow(self, _: Any, content: Any, __: Any) -> None:
        if "link" in content:
            self.app.follow(str(content["link"]))
        elif "do" in content:
            verb, _, value = str(content["do"]).partition(" ")
            self.app.do(verb, value)
        self.send({"done": content.get("number", "")})


class Page(w.VBox):
    """The application: a head and tabs.

    Parameters
    ----------
    app : App
    tabs
        Widgets by the title of their tab.

    Examples
    --------
    ``Page(app, {"For you": for_you(app), "My view": View(app, my_view, "user")})``
    """

    def __init__(self, app: App, tabs: dict[str, w.Widget]) -> None:
        lab = app.lab
        counts = f"{lab.known.n_users:,} users · {lab.known.n_items:,} films"
        self.app, self.tabs = app, w.Tab()
        self.browser = Browser(app, str(views.templates().head(lab.run.name, counts)))
        super().__init__([self.browser, self.tabs])
        self.add_class("film-lab")
        for title, widget in tabs.items():
            self.add(title, widget)
        self.tabs.observe(self._opened, "selected_index")
        app.observe(self._chosen, "tab")
        self._chosen()

    def add(self, title: str, widget: w.Widget) -> None:
        """Add a tab."""
        self.tabs.children = [*self.tabs.children, widget]
        self.tabs.set_title(len(self.tabs.children) - 1, title)
        self._chosen()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live widgets, and a picture of the open tab for whoever reads the executed notebook without a kernel."""
        shown = [view.value for view in _views(self.tabs) if isinstance(view, View) and view.value]
        style = (HERE / "app.css").read_text("utf-8")
        html = f"<style>{style}</style><div class='film-lab'>{self.browser.html}{''.join(shown)}</div>"
        return {**super()._repr_mimebundle_(**kwargs), "text/html": html}

    def _opened(self, _: Any = None) -> None:
        index = self.tabs.selected_index
        self.app.tab = self.tabs.titles[0 if index is None else index]

    def _chosen(self, _: Any = None) -> None:
        titles = list(self.tabs.titles)
        if self.app.tab not in titles:
            self.app.tab = titles[0]
        self.tabs.selected_index = titles.index(self.app.tab)
        for title, child in zip(titles, self.tabs.children, strict=True):
            for view in _views(child):
                view.hidden = title != self.app.tab
                if view.hidden:
                    view.empty()
                view.refresh()


def _views(widget: w.Widget) -> Iterator[View | Chart]:
    """All views inside a widget."""
    if isinstance(widget, View | Chart):
        yield widget
    for child in getattr(widget, "children", ()):
        yield from _views(child)
