"""The application: one widget that holds a state, shows the parts that depend on it, and follows what is done.

The widget is the page itself. Its traits are the HTML of the parts; a part is made again only when the page it is on
is open and a choice that it depends on has changed, so a change costs one part and not the whole page.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
from traitlets import Dict, Unicode

from recsys_lib.app import pages, people, rendering, results, side_by_side
from recsys_lib.app.lab import Lab, NotPossibleError, OtherDataError, label, make_command
from recsys_lib.app.state import State, from_query, with_choice
from recsys_lib.models.stored import release_memory
from recsys_lib.paths import Paths
from recsys_lib.run.artifacts import MissingArtifactError

HERE = Path(__file__).parent
QUIET = 5.0  # seconds without a question after which the kernel works ahead
BREATH = 0.05  # seconds between two pieces of that work, for questions that have come
SORRY = "Something went wrong with that. It is written down in the log; the rest of the page still works."
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One part of the page.

    Attributes
    ----------
    tab
        The page it is on.
    depends
        Names of the choices that it shows.
    view
        Makes its HTML from the lab and the state.
    """

    tab: str
    depends: tuple[str, ...]
    view: Callable[[Lab, State], str]


PARTS = {
    "person_card": Part("you", ("person",), people.person_card),
    "person_list": Part(
        "you",
        ("person", "model", "k", "unseen", "genre", "since", "until", "diversity", "variety"),
        people.person_list,
    ),
    "person_history": Part("you", ("person",), people.person_history),
    "new_picks": Part("new", ("liked",), people.new_picks),
    "new_list": Part("new", ("liked", "model", "k", "diversity", "variety"), people.new_list),
    "similar_lists": Part("similar", ("film", "models", "k"), side_by_side.similar_lists),
    "compare_lists": Part("compare", ("person", "models", "k"), side_by_side.compare_lists),
    "results_data": Part("results", (), results.results_data),
    "results_board": Part("results", ("metric",), results.results_board),
}
SEARCHES = {
    "person": (pages.person_options, "person"),
    "someone": (pages.person_options, "person"),
    "pick": (pages.film_options, "liked"),
    "film": (pages.film_options, "film"),
}


def _html() -> Unicode:
    return Unicode("").tag(sync=True)


class Application(anywidget.AnyWidget):
    """The page of one session.

    Parameters
    ----------
    lab : Lab or None
        What is shown; None for a page that only says why there is nothing.
    problem
        Why there is nothing, in one sentence.
    """

    _esm = "\n".join((HERE / "static" / name).read_text("utf-8") for name in ("tables.js", "app.js"))
    _css = (HERE / "static" / "app.css").read_text("utf-8")

    page = _html()
    values = Dict().tag(sync=True)
    link = _html()
    notice = _html()
    said = _html()
    person_card = _html()
    person_list = _html()
    person_history = _html()
    new_picks = _html()
    new_list = _html()
    similar_lists = _html()
    compare_lists = _html()
    results_data = _html()
    results_board = _html()
    person_options = _html()
    someone_options = _html()
    pick_options = _html()
    film_options = _html()

    def __init__(self, lab: Lab | None, problem: str = "") -> None:
        super().__init__()
        self.lab = lab
        self.problem = problem
        self._made: dict[str, tuple] = {}
        self._timer: asyncio.TimerHandle | None = None
        if lab is None:
            self.page = pages.stopped(problem)
            return
        self.start = self.state = first_state(lab)
        self._unread = iter(lab.models)
        self.page = pages.page(lab, self.state)
        self._show()
        self.on_msg(self._follow)
        self._when_quiet(QUIET)

    # ---- what is done on the page ----------------------------------------------------------------------------

    def _follow(self, _: Any, content: Any, __: Any) -> None:
        """Follow one message of the page; what cannot be followed is told there, and what fails is logged too."""
        number = content.get("number") if isinstance(content, dict) else None
        try:
            self._act(content)
        except NotPossibleError as error:
            self._tell(str(error))
            self._show_values()
        except Exception:
            log.exception("The demo could not follow %.300r", content)
            self._tell(SORRY)
        self.send({"done": number})
        release_memory()  # or all that was ever looked at would stay in memory; it comes back in a few milliseconds
        self._when_quiet(QUIET)

    def _act(self, content: dict[str, Any]) -> None:
        event, name, value = (content.get(key, "") for key in ("event", "name", "value"))
        if event == "search":
            view, _ = SEARCHES[name]
            setattr(self, f"{name}_options", view(self.lab, name, str(value)[:80]))
        elif event == "why":
            self.send({"why": self._why(name, str(value)), "scope": name, "film": str(value)})
        else:
            self._tell("")
            self._become(self._after(event, name, value, content))

    def _after(self, event: str, name: str, value: Any, content: dict[str, Any]) -> State:
        """Return the state after an event."""
        lab, state = self.lab, self.state
        if event == "set":
            return with_choice(state, lab, name, value)
        if event in ("choose", "typed"):
            return self._chosen(name, self._best_match(name, str(value)) if event == "typed" else str(value))
        if event == "restore":
            state, told = from_query(self.start, lab, str(value)[:8000])
            self._tell(" ".join(told))
            return state
        if event in ("previous", "next", "random"):
            return replace(state, person=self._neighbour(event))
        if event in ("add", "remove", "rate", "clear"):
            return with_choice(state, lab, "liked", self._liked(event, str(value), content.get("rating")))
        raise NotPossibleError("That button does not exist on this page.")

    def _chosen(self, name: str, value: str) -> State:
        _, target = SEARCHES[name]
        if target == "liked":
            return with_choice(self.state, self.lab, "liked", self._liked("add", value, None))
        return with_choice(self.state, self.lab, target, value)

    def _best_match(self, name: str, text: str) -> str:
        """The id meant by a text that was typed and sent off without a choice from the list."""
        if SEARCHES[name][1] == "person":
            return text
        found = self.lab.find_films(text, 1)
        if not found:
            raise NotPossibleError(f"No title has the words “{text.strip()[:40]}”.")
        return found[0].id

    def _neighbour(self, event: str) -> str:
        ids = self.lab.history.user_ids
        at = self.lab.person_code(self.state.person)
        step = {"previous": -1, "next": 1}.get(event) or int(np.random.default_rng().integers(1, max(2, len(ids))))
        return str(ids[(at + step) % len(ids)])

    def _liked(self, event: str, film: str, rating: Any) -> list[tuple[str, float]]:
        liked = dict(self.state.liked)
        if event == "clear":
            return []
        if event == "remove":
            liked.pop(film, None)
        elif event == "rate":
            try:
                liked[film] = float(rating)
            except (TypeError, ValueError):
                raise NotPossibleError("That is no rating.") from None
        else:
            liked.setdefault(film, self.lab.scale[1])
        return list(liked.items())

    def _why(self, scope: str, film: str) -> str:
        if not self.lab.knows_film(film):
            raise NotPossibleError("That film is not in the catalogue.")
        return people.why(self.lab, self.state, scope, film)

    # ---- what is done while nothing is asked -------------------------------------------------------------------

    def _when_quiet(self, seconds: float) -> None:
        """Work ahead once nothing has been asked for so long; not at all where no event loop runs."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._work_ahead)
        except RuntimeError:
            self._timer = None

    def _work_ahead(self) -> None:
        """Use one model for the first time, so that nobody waits for that."""
        name = next(self._unread, None)
        if name is None:
            return
        try:
            use(self.lab, name, self.state.person)
        except NotPossibleError as error:
            log.info("%s", error)  # is told to whoever asks for the model
        except Exception:
            log.exception("The demo could not use %s ahead of time", name)
        release_memory()
        self._when_quiet(BREATH)

    # ---- what is shown ---------------------------------------------------------------------------------------

    def _become(self, state: State) -> None:
        self.state = state
        self._show()

    def _show(self) -> None:
        """Make the parts of the open page that no longer show the state."""
        self._show_values()
        for name, part in PARTS.items():
            key = tuple(getattr(self.state, field) for field in part.depends)
            if part.tab == self.state.tab and self._made.get(name) != key:
                self._made.pop(name, None)
                html, whole = self._view(name, part)
                setattr(self, name, html)
                if whole:
                    self._made[name] = key
        self.link = self.state.query(self.start)

    def _view(self, name: str, part: Part) -> tuple[str, bool]:
        """HTML of a part, and whether it is what was asked for: a part that fails leaves the others alone."""
        try:
            return part.view(self.lab, self.state), True
        except NotPossibleError as error:
            return rendering.render("sorry", text=str(error)), False
        except Exception:
            log.exception("The demo could not make %s of %r", name, self.state)
            return rendering.render("sorry", text=SORRY), False

    def _show_values(self) -> None:
        film = self.lab.films([self.lab.film_id(self.state.film)])[0].title if self.state.film else ""
        texts = {"person": self.state.person, "someone": self.state.person, "film": film}
        values = {**self.state.values(), "texts": texts}
        if values == self.values:  # the page may show what was refused
            self.send_state("values")
        self.values = values
        self.said = f"Person {self.state.person}, {label(self.state.model)}, {self.state.k} films"

    def _tell(self, text: str) -> None:
        self.notice = rendering.render("notice", text=text) if text else ""


def first_state(lab: Lab) -> State:
    """What a session begins with: a person of middling activity, the best model, and it beside two weaker ones."""
    order = np.argsort(lab.n_ratings, kind="stable")
    person = lab.history.user_ids[order[len(order) // 2]]
    names = list(lab.models)
    metric = "ndcg@10" if "ndcg@10" in lab.metrics else ""
    film = lab.well_known(1)[0].id
    models = tuple(names[:: max(1, len(names) // 3)][:3])
    return State(person=str(person), film=film, model=names[0], models=models, metric=metric)


def keep_log(paths: Paths) -> None:
    """Write what goes wrong to ``outputs/<data set>/logs/demo.log``; the file appears with the first line."""
    file = paths.logs / "demo.log"
    package = logging.getLogger("recsys_lib.app")
    if any(getattr(handler, "baseFilename", None) == str(file) for handler in package.handlers):
        return
    if os.access(paths.logs, os.W_OK):
        handler = logging.FileHandler(file, delay=True, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        package.addHandler(handler)


def application(paths: Paths) -> Application:
    """The application of one data set, or a page that says what is missing and which command makes it."""
    keep_log(paths)
    try:
        opened = Application(Lab.open(paths))
        use(opened.lab, opened.state.model, opened.state.person)
        return opened
    except (MissingArtifactError, OtherDataError) as error:
        return Application(None, str(error))
    except Exception:
        log.exception("The demo could not open %s", paths.name)
        return Application(
            None, f"The results of {paths.name} cannot be read: `{make_command(paths)}` makes them again"
        )


def use(lab: Lab, name: str, person: str) -> None:
    """Do with a model what is slow the first time: read it, and make a list and a varied one."""
    lab.model(name).recommend([lab.person_id(person)], 5, diversity=0.5)


def require_open(application: Application) -> None:
    """Fail where the application could not open, unless Voilà shows its page to a person.

    Raises
    ------
    RuntimeError
        With the sentence that the page shows.
    """
    if application.problem and "VOILA_PREHEAT" not in os.environ:
        raise RuntimeError(application.problem)


def takeaway(application: Application) -> str:
    """What can be asked, in one sentence computed from what was found; the problem where nothing can."""
    lab = application.lab
    if lab is None:
        return application.problem
    best = lab.ranking("ndcg@10")
    first = (
        f"; {label(best[0]['name'])} comes first, as in the leaderboard" if best else "; there is no leaderboard yet"
    )
    return (
        f"**{len(lab.models)} models can be asked about {lab.history.n_users:,} people and "
        f"{lab.history.n_items:,} films, or about anybody who names a few of them{first}.**"
    )
