"""The choices of one session as traits: setting one, in a cell or by a control, changes what is shown."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlencode

import numpy as np
from traitlets import Any as AnyTrait
from traitlets import Bool, CInt, Dict, HasTraits, TraitError, Tuple, Unicode, validate

from recsys_lib.app.lab import Lab, NotPossibleError

MOST_MODELS = 4  # side by side
MOST_LIKED = 1000  # films that a new user can name
LONGEST = 40_000  # characters of a link, which that many ratings fit in


class App(HasTraits):
    """The choices of one session: ``app = App(Lab(Run("ml-100k")))``, then ``app.user = 405``."""

    tab = Unicode("For you", help="title of the open tab")
    user = AnyTrait(help="id of a user")
    model = Unicode(help="name of the model whose list is shown")
    models = Tuple(help="names of the models side by side")
    k = CInt(10, min=5, max=50, help="films in a list").tag(label="Films")
    hide_rated = Bool(True, help="leave out the films that the user has rated").tag(label="Leave out rated films")
    genre = Unicode(help='genre that films must have; "" for all')
    years = Tuple(help="first and last year that films may be of")
    diversity = CInt(0, min=0, max=100, help="per cent of the score that give way to diversity")
    diversity.tag(label="Diversity %", step=5)
    diversify = Unicode("mmr", help="kind of diversity").tag(label="Diversity by")
    film = AnyTrait(help="id of the film whose details are open; None for none")
    similar_to = AnyTrait(help="id of the film of the tab Similar films")
    liked = Dict(help="ratings of the new user by item id, oldest first")
    who = Unicode("user", help="for whom models are compared").tag(label="For the")
    metric = Unicode(help="metric of the leaderboard")
    against = Unicode(help="second metric of the trade-offs")
    column = Unicode(help="column of the items table shown in the history")
    order = Unicode("latest", help="order of the history")
    notice = Unicode(help="what could not be done, in one sentence")

    def __init__(self, lab: Lab) -> None:
        """Begin with a user of middling activity and the model that serves."""
        self.lab = lab
        names, metrics = list(lab.models), list(lab.offered["metric"])
        first = "ndcg@10" if "ndcg@10" in metrics else metrics[0]
        super().__init__(
            user=lab.known.user_ids[np.argsort(lab.lengths, kind="stable")[lab.known.n_users // 2]].item(),
            model=names[0],
            models=tuple(dict.fromkeys([names[0], *lab.explored["similar"]]))[:3],
            years=lab.year_range,
            similar_to=next(iter(lab.film_labels.values())),
            column=next(name for name in ("year", "mean") if name in lab.offered["column"]),
            metric=first,
            against=next((name for name in metrics if name.startswith("novelty")), first),
        )
        self._start = {name: getattr(self, name) for name in self.trait_names() if name != "notice"}

    @validate("user", "film", "similar_to", "liked")
    def _known(self, proposal: Any) -> Any:
        """The data set's own ids for ids that may be given as text, and ratings on its scale."""
        name, value = proposal.trait.name, proposal.value
        if name != "liked":
            return None if name == "film" and value in (None, "") else self._id(value, name)
        if len(value) > MOST_LIKED:
            raise NotPossibleError(f"{MOST_LIKED} films are enough to know a taste.")
        return {self._id(item): float(np.clip(rating, *self.lab.scale)) for item, rating in value.items()}

    def _id(self, value: Any, name: str = "film") -> Any:
        known = self.lab.known
        ids, codes = (known.user_ids, known.user_codes) if name == "user" else (known.item_ids, known.item_codes)
        value = value.strip() if isinstance(value, str) else value
        code = codes([value])[0] if isinstance(value, int | str | np.generic) else -1
        if code < 0:
            refusal = "Nobody here has the id" if name == "user" else "There is no film"
            raise NotPossibleError(f"{refusal} “{str(value):.40}”.")
        return ids[code].item()

    @validate("model", "models", "genre", "metric", "against", "column", "order", "who", "diversify")
    def _offered(self, proposal: Any) -> Any:
        name, several = proposal.trait.name, isinstance(proposal.value, tuple)
        what = {"models": "model", "against": "metric"}.get(name, name)
        values = dict.fromkeys(proposal.value if several else [proposal.value])
        for value in values:
            if value not in self.lab.offered[what]:
                raise NotPossibleError(f"There is no {what} “{str(value):.40}” here.")
        if len(values) > MOST_MODELS:
            raise NotPossibleError(f"At most {MOST_MODELS} models fit side by side: take one away first.")
        return tuple(values) if several else proposal.value

    @validate("years")
    def _years(self, proposal: Any) -> tuple[int, int]:
        years = np.clip(sorted(map(int, proposal.value)), *self.lab.year_range)
        return int(years[0]), int(years[-1])  # crossed years are a range, too

    @property
    def link(self) -> str:
        """The choices that differ from the first ones, as parameters of an address."""
        chosen = {name: getattr(self, name) for name in self._start if getattr(self, name) != self._start[name]}
        if "liked" in chosen:
            chosen["liked"] = [f"{item}:{rating:g}" for item, rating in self.liked.items()]
        return urlencode(chosen | {"hide_rated": 0} if "hide_rated" in chosen else chosen, doseq=True, safe=":")

    def follow(self, link: str) -> None:
        """Take over the choices of a link; what is not possible is left out, and the notice says so."""
        given = parse_qs(link.lstrip("?")[:LONGEST], keep_blank_values=True)
        refused = []
        for name, start in self._start.items():
            try:
                setattr(self, name, _read(start, given[name]) if name in given else start)
            except NotPossibleError as error:
                refused.append(str(error))
            except (TraitError, ValueError, OverflowError, IndexError):
                refused.append(f"The link has no usable value for “{name}”.")
        self.notice = " ".join(refused)

    def do(self, verb: str, value: str = "") -> None:
        """Do what a button inside a list asks for, such as ``do("like", "50")``, or say in the notice why not."""
        self.notice = ""
        try:
            match verb:
                case "user":
                    self.user = value
                case "step":  # to the user so many places on, or to any other
                    known = self.lab.known
                    step = np.random.default_rng().integers(1, max(2, known.n_users)) if value == "any" else int(value)
                    self.user = known.user_ids[(known.user_codes([self.user])[0] + step) % known.n_users].item()
                case "open":
                    self.film = None if str(self.film) == value else value
                case "similar_to":
                    self.similar_to, self.tab = value, "Similar films"
                case "model":
                    others = tuple(name for name in self.models if name != value)
                    self.models = (others or self.models) if value in self.models else (*others, value)
                case "like":  # one film, or a group
                    self.liked = {**self.liked, **dict.fromkeys(value.split("\n"), self.lab.scale[1])}
                case "rate":
                    self.liked = {**self.liked, **_read({}, value.split("\n"))}
                case "remove":  # one film, or all
                    self.liked = {item: rating for item, rating in self.liked.items() if value not in ("", str(item))}
                case _:
                    raise NotPossibleError("That button does not exist on this page.")
        except NotPossibleError as error:
            self.notice = str(error)
        except (ValueError, OverflowError):
            self.notice = "That is not possible."


def _read(start: Any, values: list[str]) -> Any:
    """A value of a link, in the type of the first value of its trait."""
    if isinstance(start, dict):
        return {item: float(rating) for item, _, rating in (value.rpartition(":") for value in values)}
    return values[-1] == "1" if isinstance(start, bool) else tuple(values) if isinstance(start, tuple) else values[-1]
