"""The addresses of the service. What they answer with comes from the models and the tables; here it gets its form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import anyio.to_thread
import numpy as np
import pandas as pd
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import PlainTextResponse, Response

from recsys_lib.api import problems, schemas
from recsys_lib.api.guard import Guard, Limits
from recsys_lib.api.observed import Measures, Observed
from recsys_lib.api.problems import ProblemError, documented
from recsys_lib.api.serving import Served, Service, Snapshot
from recsys_lib.app.lab import label
from recsys_lib.files import read_json
from recsys_lib.paths import Paths

THREADS = 4  # requests computed at once; more only wait for each other
ALWAYS = (401, 413, 421, 422, 429, 500, 503)

router = APIRouter(responses=documented(*ALWAYS))


@dataclass(frozen=True)
class Settings:
    """What a service serves, and to whom.

    Attributes
    ----------
    dataset
        Name or path of the data set.
    key, hosts, limits
        As in :class:`recsys_lib.api.guard.Guard`.
    poll_seconds
        How often the run's files are looked at.
    """

    dataset: str = "ml-100k"
    key: str | None = None
    hosts: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    poll_seconds: float = 1.0


async def _ready(request: Request) -> Snapshot:
    return request.app.state.service.ready()


Ready = Annotated[Snapshot, Depends(_ready)]


# ---- lists ---------------------------------------------------------------------------------------------------


def _name(served: Served) -> schemas.ModelName:
    return schemas.ModelName(name=served.source.name, version=served.source.version)


def _items(snapshot: Snapshot, movies: list, scores: list[float]) -> list[schemas.Recommendation]:
    """Films of a list, in its order, with their titles."""
    return [
        schemas.Recommendation(**snapshot.film(movie), score=score, rank=rank)
        for rank, (movie, score) in enumerate(zip(movies, scores, strict=True), 1)
    ]


async def _served(snapshot: Snapshot, name: str | None) -> Served:
    return snapshot.at_hand(name) or await run_in_threadpool(snapshot.served, name)


async def _computed(quick: bool, what: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Compute at once what is quick; what is not, in another thread, so that others need not wait for it."""
    return what(*given, **named) if quick else await run_in_threadpool(what, *given, **named)


def _listed(
    request: Request, snapshot: Snapshot, served: Served, user: Any, items: list, scores: list, fallback: bool
) -> schemas.Recommendations:
    if fallback:
        request.app.state.measures.fallbacks.inc()
    return schemas.Recommendations(
        user_id=user, model=_name(served), fallback=fallback, items=_items(snapshot, items, scores)
    )


@router.get("/recommend/{user_id}", tags=["lists"], responses=documented(404))
async def recommend(
    request: Request, snapshot: Ready, user_id: schemas.PathId, asked: Annotated[schemas.RecommendChoice, Query()]
) -> schemas.Recommendations:
    """List films for somebody; popular ones, flagged, for whom nobody knows."""
    served = await _served(snapshot, asked.model)
    user = snapshot.user(user_id) if asked.unknown == "popular" else snapshot.known_user(user_id)
    wanted = {"exclude_seen": asked.exclude_seen, "candidates": snapshot.candidates(asked.genre)}
    codes, scores, fallback = await _computed(served.at_once(user), served.list_for, user, asked.k, **wanted)
    there = codes[0] >= 0
    movies = served.model.train.item_ids[codes[0, there]].tolist()
    return _listed(request, snapshot, served, user, movies, scores[0, there].tolist(), bool(fallback[0]))


@router.post("/recommend", tags=["lists"], responses=documented(400, 404))
async def recommend_new(request: Request, snapshot: Ready, newcomer: schemas.Newcomer) -> schemas.Recommendations:
    """List films for somebody no model has met, from a few films they like; popular ones, flagged, from none."""
    served = await _served(snapshot, newcomer.model)
    liked = {snapshot.movie(each.movie_id): snapshot.rating(each.rating) for each in newcomer.liked}
    if len(liked) < len(newcomer.liked):
        raise ProblemError(422, "A film is named more than once.", kind="invalid-request")
    wanted = {"exclude_seen": newcomer.exclude_seen, "candidates": snapshot.candidates(newcomer.genre)}
    table = await _computed(served.quick, served.model.recommend_new, liked, newcomer.k, **wanted)
    movies, scores = table["item_id"].tolist(), table["score"].tolist()
    return _listed(request, snapshot, served, None, movies, scores, bool(table["fallback"].any()))


@router.get("/similar/{movie_id}", tags=["lists"], responses=documented(404))
def similar(
    snapshot: Ready, movie_id: schemas.PathId, asked: Annotated[schemas.ListChoice, Query()]
) -> schemas.Similar:
    """List films like one film."""
    served, movie = snapshot.served(asked.model), snapshot.movie(movie_id)
    table = served.model.similar_items([movie], asked.k)
    items = _items(snapshot, table["similar_item_id"].tolist(), table["score"].tolist())
    return schemas.Similar(movie=schemas.Movie(**snapshot.film(movie)), model=_name(served), items=items)


@router.get("/explain/{user_id}/{movie_id}", tags=["lists"], responses=documented(404))
def explain(
    snapshot: Ready,
    user_id: schemas.PathId,
    movie_id: schemas.PathId,
    asked: Annotated[schemas.ExplainChoice, Query()],
) -> schemas.Explanation:
    """Say what speaks for a film, and by how much."""
    served, user, movie = snapshot.served(asked.model), snapshot.known_user(user_id), snapshot.movie(movie_id)
    table = served.model.explain(user, movie, asked.k)
    reasons = [
        schemas.Reason(
            reason=reason, movie=None if pd.isna(item) else schemas.Movie(**snapshot.film(item)), contribution=part
        )
        for reason, item, part in table[["reason", "item_id", "contribution"]].itertuples(index=False)
    ]
    return schemas.Explanation(
        user_id=user,
        movie=schemas.Movie(**snapshot.film(movie)),
        model=_name(served),
        score=float(table["contribution"].sum()),
        reasons=reasons,
    )


# ---- people and films ----------------------------------------------------------------------------------------


@router.get("/users", tags=["people and films"])
def users(snapshot: Ready, page: Annotated[schemas.Page, Query()]) -> schemas.Users:
    """People in the order of their ids."""
    ids = snapshot.lab.history.user_ids
    items = [schemas.User(**_user(snapshot, user)) for user in ids[page.offset : page.offset + page.limit].tolist()]
    return schemas.Users(total=len(ids), limit=page.limit, offset=page.offset, items=items)


def _user(snapshot: Snapshot, user: Any) -> dict[str, Any]:
    lab, text = snapshot.lab, str(user)
    count = int(lab.n_ratings[lab.person_code(text)])
    return {"user_id": user, "n_ratings": count, "facts": lab.facts_of(text)}


@router.get("/users/{user_id}", tags=["people and films"], responses=documented(404))
def user(snapshot: Ready, user_id: schemas.PathId, page: Annotated[schemas.Page, Query()]) -> schemas.UserHistory:
    """Somebody, and a part of their history, the latest first."""
    known, lab = snapshot.known_user(user_id), snapshot.lab
    history = lab.history_of(user_id)
    shown = history.iloc[page.offset : page.offset + page.limit]
    ratings = shown["rating"].tolist() if lab.has_ratings else [None] * len(shown)
    times = shown["timestamp"].tolist() if "timestamp" in shown else [None] * len(shown)
    rated = [
        schemas.Rated(**snapshot.film(movie), rating=rating, timestamp=time)
        for movie, rating, time in zip(shown["item_id"].tolist(), ratings, times, strict=True)
    ]
    mean = float(history["rating"].mean()) if lab.has_ratings else None
    return schemas.UserHistory(
        **_user(snapshot, known), mean_rating=mean, limit=page.limit, offset=page.offset, history=rated
    )


@router.get("/movies", tags=["people and films"])
def movies(snapshot: Ready, page: Annotated[schemas.MoviePage, Query()]) -> schemas.Movies:
    """Films whose title holds every word of the query, the best known first."""
    ids = snapshot.lab.film_ids(page.query)
    shown = ids[page.offset : page.offset + page.limit].tolist()
    items = [schemas.Movie(**snapshot.film(movie)) for movie in shown]
    return schemas.Movies(total=len(ids), limit=page.limit, offset=page.offset, items=items)


@router.get("/movies/{movie_id}", tags=["people and films"], responses=documented(404))
def movie(snapshot: Ready, movie_id: schemas.PathId) -> schemas.MovieFacts:
    """A film, and what the history says of it."""
    known, history = snapshot.movie(movie_id), snapshot.lab.history
    column = int(history.item_codes([known])[0])
    mean = float(snapshot.mean_ratings[column]) if snapshot.lab.has_ratings else np.nan
    return schemas.MovieFacts(
        **snapshot.film(known),
        n_ratings=int(history.item_counts[column]),
        mean_rating=None if np.isnan(mean) else mean,
    )


# ---- the service itself --------------------------------------------------------------------------------------


@router.get("/models", tags=["service"])
def models(snapshot: Ready) -> schemas.Models:
    """The models that can be asked, the champion first."""
    board = {entry["name"]: entry["metrics"] for entry in (snapshot.lab.board or {}).get("models", [])}
    champion = snapshot.champion.source
    items = []
    for source in sorted(snapshot.sources.values(), key=lambda source: source != champion):
        config = read_json(source.folder / "config.json")
        means = {name: (value or {}).get("mean") for name, value in board.get(source.name, {}).items()}
        items.append(
            schemas.Model(
                name=source.name,
                version=source.version,
                label=label(source.name),
                champion=source == champion,
                kind=config["model"],
                params=config["params"],
                metrics={name: mean for name, mean in means.items() if mean is not None},
            )
        )
    return schemas.Models(items=items)


@router.get("/health", tags=["service"])
async def health(snapshot: Ready) -> schemas.Health:
    """Whether a model is loaded: 200, or 503."""
    return schemas.Health(
        status="ok",
        dataset=snapshot.lab.paths.name,
        model=_name(snapshot.champion),
        loaded_at=snapshot.loaded_at,
    )


@router.get("/metrics", tags=["service"], response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Measures as Prometheus reads them."""
    return Response(generate_latest(request.app.state.measures.registry), media_type=CONTENT_TYPE_LATEST)


# ---- the application -----------------------------------------------------------------------------------------


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load in the background while the server runs: until it is done, `/health` says so."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    app.state.service.start()
    yield
    app.state.service.stop()


def create_app(settings: Settings) -> FastAPI:
    """The application, ready for a server.

    Parameters
    ----------
    settings
        What to serve, and to whom.
    """
    app = FastAPIOffline(
        redoc_url=None,
        title="recsys-lab",
        version="1",
        description="Recommendations of the model that the evaluation put first, with titles and reasons.",
        lifespan=_lifespan,
        redirect_slashes=False,
        swagger_ui_parameters={"validatorUrl": None},
    )
    measures = Measures()
    app.state.measures = measures
    app.state.service = Service(Paths(settings.dataset), measures, poll_seconds=settings.poll_seconds)
    app.include_router(router)
    problems.install(app)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.limits.body)  # also without Content-Length
    app.add_middleware(Guard, key=settings.key, hosts=settings.hosts, limits=settings.limits)
    app.add_middleware(Observed, measures=measures)
    app.openapi = lambda: _described(app, bool(settings.key))
    return app


def _described(app: FastAPI, key: bool) -> dict[str, Any]:
    """The OpenAPI of the addresses, with the form of problems and, where one is asked for, the key."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        problem = schemas.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        parts = found["components"]["schemas"]
        parts |= problem.pop("$defs", {})
        parts["Problem"] = problem
        for unused in ("HTTPValidationError", "ValidationError"):
            parts.pop(unused, None)
        if key:
            scheme = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
            found["components"]["securitySchemes"] = {"key": scheme}
            found["security"] = [{"key": []}]
            found["paths"]["/health"]["get"]["security"] = []
        app.openapi_schema = found
    return app.openapi_schema
