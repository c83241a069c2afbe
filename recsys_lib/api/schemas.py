"""Requests and responses, as the service's OpenAPI describes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar
from urllib.parse import unquote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StringConstraints

MAX = 100  # films of a list, entries of a page

# NumPy drops zero bytes at the end of a text, so that one id could pass for another: such texts are refused.
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
PathId = Annotated[Text, BeforeValidator(unquote)]  # paths are matched as sent: an id may hold a slash
Id = int | str
Entry = TypeVar("Entry")
# JSON has one kind of number: 7.0 is 7.
_whole = BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Page(_Request):
    """Part of a list."""

    limit: int = Field(20, ge=1, le=MAX, description="How many entries.")
    offset: int = Field(0, ge=0, le=2**31, description="How many entries are skipped.")

    def of(self, entries: Sequence) -> Sequence:
        """The entries on the page."""
        return entries[self.offset : self.offset + self.limit]

    def listed(self, entries: Sequence, show: Callable) -> dict[str, Any]:
        """Fields of :class:`Listed`."""
        return {"total": len(entries), **dict(self), "items": [show(entry) for entry in self.of(entries)]}


class MoviePage(Page):
    """Part of the films that match."""

    query: str = Field("", max_length=200, description="Words of the title; none: all films, the best known first.")


class ListChoice(_Request):
    """Which model answers, and how many films it names; an explanation sums up the others."""

    model: Text | None = Field(None, description="A name that /models lists; none: the champion.")
    k: Annotated[int, _whole] = Field(10, ge=1, le=MAX, description="How many films.")


class FilmChoice(ListChoice):
    """Which films may be listed."""

    exclude_seen: bool = Field(True, description="Leave out what the user has rated.")
    genre: Text | None = Field(None, description="Films of this genre alone.")


class RecommendChoice(FilmChoice):
    """Which films may be listed, and for whom."""

    unknown: Literal["popular", "raise"] = Field(
        "popular", description="What an unknown id gets: popular films (`fallback` is true), or a 404."
    )


class Liked(_Request, strict=True):
    """A film that a new user has named."""

    movie_id: Annotated[StrictInt | Text, _whole]
    rating: float | None = Field(None, allow_inf_nan=False, description="On the data's scale; none: the best there is.")


class NewUser(FilmChoice, strict=True):
    """A new user and the list they ask for."""

    liked: list[Liked] = Field(
        max_length=500,
        description="Oldest first, each film once.",
        examples=[[{"movie_id": 1, "rating": 5}, {"movie_id": 2}]],
    )


class KnownUser(RecommendChoice, strict=True):
    """A user by id, and the list they ask for."""

    user_id: Annotated[StrictInt | Text, _whole]


class Invocations(_Request):
    """Lists that are asked for together."""

    instances: list[KnownUser | NewUser] = Field(min_length=1, max_length=MAX)

    @classmethod
    def of_csv(cls, body: bytes) -> Invocations:
        """Read ``user_id`` or ``user_id,k`` line by line; UnicodeDecodeError if it is not UTF-8."""
        lines = [line.rpartition(",") for line in body.decode().splitlines() if line.strip()]
        asked = [
            {"user_id": user, "k": int(k) if k.isdecimal() and len(k) < 9 else k} if user else {"user_id": k}
            for user, _, k in lines
        ]
        return cls.model_validate({"instances": asked})


INVOCATIONS = {  # of the OpenAPI: FastAPI itself knows one form of a body only
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Invocations"}},
            "text/csv": {"example": "1,10\n"},
        },
    },
    "responses": {
        "200": {
            "description": "Lists in the order of the questions",
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Predictions"}},
                "text/csv": {"example": "user_id,item_id,score,rank,fallback\n1,50,0.3,1,False\n"},
            },
        }
    },
}


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    version: str = Field(description="Two equal fits have the same.")


class Movie(BaseModel):
    """A film."""

    movie_id: Id
    title: str | None
    year: int | None
    genres: list[str]


class MovieFacts(Movie):
    """A film, and what the history says of it."""

    n_ratings: int
    mean_rating: float | None


class Recommendation(Movie):
    """A film of a list."""

    rank: int = Field(description="From 1.")
    score: float = Field(description="Higher is better; comparable within one list only.")


class Rated(Movie):
    """A film of a history."""

    rating: float | None
    timestamp: int | None = Field(description="UNIX seconds.")


class Recommendations(BaseModel):
    """A list for a user."""

    user_id: Id | None = Field(description="None for a new user.")
    model: ModelName
    fallback: bool = Field(description="True where popular films stand in for what the model cannot say.")
    items: list[Recommendation]


class Predictions(BaseModel):
    """Lists for several users, in the order in which they were asked for."""

    predictions: list[Recommendations]


class Similar(BaseModel):
    """Films similar to one film."""

    movie: Movie
    model: ModelName
    items: list[Recommendation]


class Reason(BaseModel):
    """A reason for a film, or against it."""

    reason: str
    movie: Movie | None
    contribution: float


class Explanation(BaseModel):
    """Why a model lists a film; the contributions add up to the score."""

    user_id: Id
    movie: Movie
    model: ModelName
    score: float
    reasons: list[Reason]


class User(BaseModel):
    """A user in the data."""

    user_id: Id
    n_ratings: int
    facts: dict[str, str] = Field(description="What the data knows of the user; may be empty.")


class UserHistory(User):
    """A user and their history, the latest first."""

    mean_rating: float | None
    limit: int
    offset: int
    history: list[Rated]


class Listed(BaseModel, Generic[Entry]):
    """A part of a list, and how long that is."""

    total: int
    limit: int
    offset: int
    items: list[Entry]


class Model(ModelName):
    """A model that can be asked."""

    label: str
    champion: bool
    kind: str = Field(description="Its class in the package.")
    params: dict[str, Any]
    metrics: dict[str, float] = Field(description="Means of the leaderboard, may be none.")


class Health(BaseModel):
    """The model that answers."""

    status: Literal["ok"]
    dataset: str
    model: ModelName
    loaded_at: float = Field(description="UNIX seconds at which this model was loaded.")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[dict[str, str]] | None = Field(None, description="Of an invalid request: where, what.")
