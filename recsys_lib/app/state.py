"""The choices of one session as traits: setting one, in a cell or by a control, changes what is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode

import numpy as np
from traitlets import Any as AnyTrait
from traitlets import Bool, CaselessStrEnum, Dict, HasTraits, Int, TraitError, Tuple, Unicode, validate

from recsys_lib.app.lab import Lab, NotPossibleError, label

SHORTEST, LONGEST = 5, 50  # films in a list
MOST_MODELS = 4  # side by side
MOST_LIKED = 1000  # films that a new user can name
IN_LINK = ("tab", "user", "model", "models", "k", "hide_rated", "genre", "years", "diversity", "diversify", "film",
           "similar_to", "liked", "who", "metric", "against", "column", "order")  # fmt: skip


class App(HasTraits):
    """The choices of one session and the data they are about.

    Parameters
    ----------
    lab : Lab
        What is shown.

    Examples
    --------
    ``app = App(Lab(Run("ml-100k")))``, then ``app.user = 405`` or ``app.model = "ease"``.
    """

    tab = Unicode("For you", help="title of the open tab")
    user = AnyTrait(help="id of a user")
    model = Unicode(help="name of the model whose list is shown")
    models = Tuple(help="names of the models side by side")
    k = Int(10, min=SHORTEST, max=LONGEST, help="films in a list")
    hide_rated = Bool(True, help="leave out the films that the user has rated")
    genre = Unicode(help='genre that films must have; "" for all')
    years = Tuple(help="first and last year that films may be of")
    diversity = Int(0, min=0, max=100, help="how much of the score gives way to diversity, in per cent")
    diversify = CaselessStrEnum(["mmr", "calibration"], "mmr", help="kind of diversity")
    film = AnyTrait(help="id of the film whose details are open; None for none")
    similar_to = AnyTrait(help="id of the film of the tab Similar films")
    liked = Dict(help="ratings of the new user by item id, oldest first")
    who = CaselessStrEnum(["user", "new user"], "user", help="for whom models are compared")
    metric = Unicode(help="metric of the leaderboard")
    against = Unicode(help="second metric of the trade-offs")
    column = Unicode("year", help="column of the items table shown in the history")
    order = CaselessStrEnum(["latest", "rating", "title", "column"], "latest", help="order of the history")
    notice = Unicode(help="what could not be done, in one sentence")

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        lengths = np.diff(lab.known.matrix.indptr)
        middle = np.argsort(lengths, kind="stable")[len(lengths) // 2]
        names, metrics = list(lab.models), lab.metrics
        first = "ndcg@10" if "ndcg@10" in metrics else (metrics or [""])[0]
        super().__init__(
            user=lab.known.user_ids[middle].item(),
            model=names[0],
            models=tuple(dict.fromkeys([names[0], *lab.computed["similar"]]))[:3],
            years=lab.year_range,
            similar_to=next(iter(lab.film_labels.values())),
            metric=first,
            against=next((name for name in metrics if name.startswith("novelty")), first),
        )
        self._start = {name: getattr(self, name) for name in IN_LINK}

    # ---- what values are possible ----------------------------------------------------------------------------

    @validate("user")
    def _user(self, proposal: Any) -> Any:
        return _known(proposal.value, self.lab.known.user_ids, "Nobody here has the id")

    @validate("film", "similar_to")
    def _film(self, proposal: Any) -> Any:
        return None if proposal.value is None else _known(proposal.value, self.lab.known.item_ids, "There is no film")

    @validate("model")
    def _model(self, proposal: Any) -> str:
        return _one_of(proposal.value, self.lab.models, "model")

    @validate("models")
    def _models(self, proposal: Any) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(_one_of(name, self.lab.models, "model") for name in proposal.value))
        if len(names) > MOST_MODELS:
            raise NotPossibleError(f"At most {MOST_MODELS} models fit side by side: take one away first.")
        return names

    @validate("genre")
    def _genre(self, proposal: Any) -> str:
        return _one_of(proposal.value, ["", *self.lab.genres], "genre")

    @validate("metric", "against")
    def _metric(self, proposal: Any) -> str:
        return _one_of(proposal.value, ["", *self.lab.metrics], "metric")

    @validate("column")
    def _column(self, proposal: Any) -> str:
        return _one_of(proposal.value, [*self.lab.items.columns, "mean", "ratings"], "column")

    @validate("years")
    def _years(self, proposal: Any) -> tuple[int, int]:
        first, last = sorted(int(year) for year in proposal.value)  # crossed years are a range, too
        low, high = self.lab.year_range
        return min(max(first, low), high), min(max(last, low), high)

    @validate("liked")
    def _liked(self, proposal: Any) -> dict[Any, float]:
        if len(proposal.value) > MOST_LIKED:
            raise NotPossibleError(f"{MOST_LIKED} films are enough to know a taste.")
        low, high = self.lab.scale
        ids = self.lab.known.item_ids
        return {
            _known(item, ids, "There is no film"): min(max(float(rating), low), high)
            for item, rating in proposal.value.items()
        }

    # ---- the link --------------------------------------------------------------------------------------------

    @property
    def link(self) -> str:
        """The choices that differ from the first ones, as parameters of an address."""
        pairs: list[tuple[str, Any]] = []
        for name in IN_LINK:
            value = getattr(self, name)
            if value == self._start[name]:
                continue
            if name == "liked":
                pairs += [("liked", f"{item}:{rating:g}") for item, rating in list(value.items())[:100]]
            else:
                several = value if isinstance(value, tuple) else [int(value) if isinstance(value, bool) else value]
                pairs += [(name, "" if each is None else each) for each in several]
        return urlencode(pairs)

    def follow(self, link: str) -> None:
        """Take over the choices of a link; what is not possible is left out, and the notice says so."""
        given = parse_qs(link.lstrip("?")[:8000], max_num_fields=300, keep_blank_values=True)
        refused = []
        for name in IN_LINK:
            try:
                setattr(self, name, _read(name, given[name]) if name in given else self._start[name])
            except NotPossibleError as error:
                refused.append(str(error))
            except (TraitError, ValueError, OverflowError):
                refused.append(f"The link has no usable value for “{name}”.")
        self.notice = " ".join(refused)

    # ---- what buttons inside lists do ------------------------------------------------------------------------

    def act(self, verb: str, value: str = "") -> None:
        """Do what a button inside a list asks for, such as ``act("like", "50")``.

        Raises
        ------
        NotPossibleError
            If it cannot be done.
        """
        if verb not in ACTIONS:
            raise NotPossibleError("That button does not exist on this page.")
        ACTIONS[verb](self, value)

    def do(self, verb: str, value: str = "") -> None:
        """As :meth:`act`; what cannot be done is said in the notice."""
        self._try(lambda: self.act(verb, value))

    def set(self, name: str, value: Any) -> None:
        """Set a trait; what is not possible is said in the notice."""
        self._try(lambda: setattr(self, name, value))

    def _try(self, step: Callable[[], None]) -> None:
        self.notice = ""
        try:
            step()
        except NotPossibleError as error:
            self.notice = str(error)
        except (ValueError, OverflowError):
            self.notice = "That is not possible."

    def rate(self, item: Any, rating: float | None) -> None:
        """Give the new user's rating of a film; None takes it back."""
        item = _known(item, self.lab.known.item_ids, "There is no film")
        others = {each: stars for each, stars in self.liked.items() if each != item or rating is not None}
        self.liked = others if rating is None else {**others, item: rating}

    def step(self, by: int) -> None:
        """Go on to another user, in the order of the ids."""
        ids = self.lab.known.user_ids
        self.user = ids[(int(self.lab.known.user_codes([self.user])[0]) + by) % len(ids)].item()

    def _toggle_film(self, item: str) -> None:
        self.film = None if str(self.film) == item else item

    def _toggle_model(self, name: str) -> None:
        self.models = (
            tuple(each for each in self.models if each != name) or self.models
            if name in self.models
            else (*self.models, name)
        )

    def _like_group(self, items: str) -> None:
        self.liked = {**self.liked, **dict.fromkeys(items.split(","), self.lab.scale[1])}

    def _open_similar(self, item: str) -> None:
        self.similar_to, self.tab = item, "Similar films"

    @property
    def said(self) -> str:
        """What the open tab shows, in one sentence for those who listen to the page."""
        listed = f"{self.k} films by {label(self.model)}"
        whom = f"for user {self.user}" if self.who == "user" else "for the new user"
        similar = "" if self.similar_to is None else f"films similar to {self.lab.film(self.similar_to).title}"
        about = {"For you": f"{listed} for user {self.user}", "New user": f"{listed} for {len(self.liked)} ratings"}
        about |= {"Similar films": similar, "Compare models": f"{len(self.models)} models side by side {whom}"}
        return f"{self.tab}: {about.get(self.tab, label(self.metric))}"


def _rated(value: str) -> tuple[str, float]:
    item, _, rating = value.rpartition(":")
    return item, float(rating)


ACTIONS: dict[str, Callable[[App, str], None]] = {
    "film": App._toggle_film,
    "similar": App._open_similar,
    "model": App._toggle_model,
    "like": lambda app, item: app.rate(item, app.lab.scale[1]),
    "dislike": lambda app, item: app.rate(item, app.lab.scale[0]),
    "rate": lambda app, value: app.rate(*_rated(value)),
    "remove": lambda app, item: app.rate(item, None),
    "clear": lambda app, _: setattr(app, "liked", {}),
    "group": App._like_group,
    "user": lambda app, user: setattr(app, "user", user),
    "step": lambda app, by: app.step(int(by)),
    "any": lambda app, _: app.step(int(np.random.default_rng().integers(1, max(2, app.lab.known.n_users)))),
    "similar_to": lambda app, item: setattr(app, "similar_to", item),
}


def _short(value: Any) -> str:
    text = str(value).strip()
    return text if len(text) <= 40 else text[:40] + "…"


def _known(value: Any, ids: np.ndarray, refusal: str) -> Any:
    """The data set's own id for an id that may be given as text."""
    found = ids[ids == value] if not isinstance(value, str) or ids.dtype.kind == "U" else ids[:0]
    if isinstance(value, str) and ids.dtype.kind in "iu" and value.strip().lstrip("-").isdecimal() and len(value) < 19:
        found = ids[ids == int(value)]
    if not len(found):
        raise NotPossibleError(f"{refusal} “{_short(value)}”.")
    return found[0].item()


def _one_of(value: Any, options: Any, what: str) -> str:
    if value not in options:
        raise NotPossibleError(f"There is no {what} “{_short(value)}” here.")
    return value


def _read(name: str, values: list[str]) -> Any:
    """A value of a link in the type of its trait."""
    if name == "liked":
        return dict(_rated(value) for value in values)
    if name == "models":
        return tuple(values)
    if name == "years":
        return tuple(map(int, values[:2])) if len(values) > 1 else (int(values[0]), int(values[0]))
    if name == "k":
        return min(max(int(values[-1]), SHORTEST), LONGEST)
    if name == "diversity":
        return min(max(int(values[-1]), 0), 100)
    if name == "hide_rated":
        return values[-1] == "1"
    return None if name == "film" and not values[-1] else values[-1]
