"""What a person has chosen in the demo, and the link that brings it back.

Everything that arrives here (a click, typed text, a link) is data from outside: it is checked against what the lab
holds, and what does not fit is refused with one sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from recsys_lib.app.lab import Lab, NotPossibleError

TABS = {
    "you": "For you",
    "new": "New here?",
    "similar": "Similar films",
    "compare": "Compare models",
    "results": "The data and the results",
}
SHORTEST, LONGEST = 5, 50  # films in a list
VARIETIES = {"mmr": "films with other audiences", "calibration": "one’s own mix of genres"}
MOST_MODELS = 4  # side by side
MOST_LIKED = 60  # films a newcomer can name


@dataclass(frozen=True)
class State:
    """All choices of one session.

    Attributes
    ----------
    tab
        Key of :data:`TABS`.
    person, film
        Ids as text.
    model
        Name of the model whose list is shown.
    models
        Names of those shown side by side.
    k
        Length of the lists.
    unseen
        Whether films the person has rated are left out.
    genre, since, until
        What may be listed: a genre ("" for all) and the years, inclusive (0 for no limit).
    diversity
        0 to 100: how much of the score gives way to variety.
    variety
        Key of :data:`VARIETIES`: what that is.
    liked
        What a newcomer has picked: (film's id as text, rating), oldest first.
    metric
        Which column of the leaderboard is drawn.
    """

    tab: str = "you"
    person: str = ""
    film: str = ""
    model: str = ""
    models: tuple[str, ...] = ()
    k: int = 10
    unseen: bool = True
    genre: str = ""
    since: int = 0
    until: int = 0
    diversity: int = 0
    variety: str = "mmr"
    liked: tuple[tuple[str, float], ...] = ()
    metric: str = ""

    def values(self) -> dict[str, Any]:
        """What the controls of the page show."""
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "liked"}
        return {**plain, "models": list(self.models), "since": self.since or "", "until": self.until or ""}

    def query(self, start: State) -> str:
        """The link's parameters: what differs from ``start``, so that links stay short.

        >>> State(tab="new", liked=(("50", 5.0),)).query(State())
        'tab=new&liked=50%3A5'
        """
        pairs: list[tuple[str, str]] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value == getattr(start, field.name):
                continue
            if field.name == "liked":
                pairs += [("liked", f"{film}:{rating:g}") for film, rating in value]
            elif field.name == "models":
                pairs += [("models", name) for name in value]
            else:
                pairs.append((field.name, str(int(value)) if isinstance(value, bool) else str(value)))
        return urlencode(pairs)


def with_choice(state: State, lab: Lab, name: str, value: Any) -> State:
    """Return the state after one choice.

    Raises
    ------
    NotPossibleError
        If the value is nothing the lab can follow.
    """
    check = _CHECKS.get(name)
    if check is None:
        raise NotPossibleError("That control does not exist on this page.")
    return replace(state, **{name: check(lab, value)})


def from_query(start: State, lab: Lab, query: str) -> tuple[State, list[str]]:
    """Read a link's parameters over ``start``; what does not fit is left out and told.

    Returns
    -------
    State
        With everything that could be followed.
    list of str
        One sentence for each parameter that could not.
    """
    state, told = start, []
    for name, values in parse_qs(query.lstrip("?"), max_num_fields=200).items():
        if name not in _CHECKS:
            continue
        value: Any = values[-1]
        if name == "models":
            value = values
        try:
            if name == "liked":
                known = [pair for pair in map(_pair, values) if lab.knows_film(pair[0])]
                if len(known) < len(values):
                    told.append("The link names a film that this data does not have; it was left out.")
                value = known
            state = with_choice(state, lab, name, value)
        except NotPossibleError as error:
            told.append(str(error))
    return state, told


def _pair(text: str) -> tuple[str, float]:
    film, _, rating = text.rpartition(":")
    try:
        return film, float(rating)
    except ValueError:
        return "", 0.0


def _shown(value: Any) -> str:
    """Something typed, short enough to be shown again."""
    text = str(value).strip()
    return text if len(text) <= 40 else text[:40] + "…"


def _one_of(options: Any, what: str, value: Any) -> str:
    if str(value) not in options:
        raise NotPossibleError(f"There is no {what} “{_shown(value)}” here.")
    return str(value)


def _whole(value: Any, low: int, high: int, what: str) -> int:
    try:
        return min(max(round(float(value)), low), high)
    except (TypeError, ValueError, OverflowError):
        raise NotPossibleError(f"“{_shown(value)}” is no {what}.") from None


def _year(lab: Lab, value: Any) -> int:
    return 0 if value in ("", None, 0, "0") else _whole(value, 1850, 2100, "year")


def _models(lab: Lab, value: Any) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(_one_of(lab.models, "model", name) for name in value))
    if len(names) > MOST_MODELS:
        raise NotPossibleError(f"At most {MOST_MODELS} models fit side by side: take one away first.")
    return names


def _person(lab: Lab, value: Any) -> str:
    person = str(value).strip()
    if not lab.knows_person(person):
        raise NotPossibleError(f"Nobody here has the id “{_shown(value)}”.")
    return str(lab.person_id(person))  # 007 is 7


def _film(lab: Lab, value: Any) -> str:
    if not lab.knows_film(str(value)):
        raise NotPossibleError(f"There is no film “{_shown(value)}” here.")
    return str(lab.film_id(str(value)))


def _liked(lab: Lab, value: Any) -> tuple[tuple[str, float], ...]:
    low, high = lab.scale
    pairs = {_film(lab, film): min(max(float(rating), low), high) for film, rating in value}
    if len(pairs) > MOST_LIKED:
        raise NotPossibleError(f"{MOST_LIKED} films are enough to know a taste: take one away first.")
    return tuple(pairs.items())


_CHECKS = {
    "tab": lambda lab, value: _one_of(TABS, "page", value),
    "person": _person,
    "film": _film,
    "model": lambda lab, value: _one_of(lab.models, "model", value),
    "models": _models,
    "k": lambda lab, value: _whole(value, SHORTEST, LONGEST, "length of a list"),
    "unseen": lambda lab, value: str(value).lower() in ("1", "true"),
    "genre": lambda lab, value: _one_of(["", *lab.genres], "genre", value),
    "since": _year,
    "until": _year,
    "diversity": lambda lab, value: _whole(value, 0, 100, "share"),
    "variety": lambda lab, value: _one_of(VARIETIES if lab.genres else ["mmr"], "kind of variety", value),
    "liked": _liked,
    "metric": lambda lab, value: _one_of(["", *lab.metrics], "measure", value),
}
