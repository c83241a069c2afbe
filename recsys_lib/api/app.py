"""The addresses of the service: what each takes and gives."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio.to_thread
import pandas as pd
from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import PlainTextResponse
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_fastapi_instrumentator import Instrumentator
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys_lib.api import problems, schemas
from recsys_lib.api.problems import ProblemError, documented
from recsys_lib.api.service import Served, Service, Snapshot

THREADS = 4  # requests computed at once; more only wait for each other
MAX_BODY = 32 * 1024  # bytes
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # edges of the histogram of durations
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = logging.getLogger(__name__)

health_router = APIRouter(tags=["service"], responses=documented(421, 503))
router = APIRouter(responses=documented(401, 421, 422, 500, 503))


async def _ready(request: Request) -> Snapshot:
    return request.app.state.service.ready()


Ready = Annotated[Snapshot, Depends(_ready)]


# ---- lists ---------------------------------------------------------------------------------------------------


def _listed(snapshot: Snapshot, movies: list, scores: list[float]) -> list[schemas.Recommendation]:
    return [
        schemas.Recommendation(**snapshot.films.of(movie), score=score, rank=rank)
        for rank, (movie, score) in enumerate(zip(movies, scores, strict=True), 1)
    ]


async def _served(snapshot: Snapshot, name: str | None) -> Served:
    return snapshot.champion if name is None else await run_in_threadpool(snapshot.served, name)


@router.get("/recommend/{user_id}", tags=["lists"], responses=documented(404))
async def recommend(
    request: Request, snapshot: Ready, user_id: schemas.PathId, asked: Annotated[schemas.RecommendChoice, Query()]
) -> schemas.Recommendations:
    """List films for a user; popular films, flagged, for an unknown id."""
    served = await _served(snapshot, asked.model)
    known = asked.unknown == "raise" or snapshot.run.known.user_codes([user_id])[0] >= 0
    user, candidates = snapshot.user_id(user_id) if known else user_id, snapshot.candidates(asked.genre)
    movies, scores, fallback = await served.recommend(user, asked.k, asked.exclude_seen, asked.genre, candidates)
    request.app.state.service.fallbacks.inc(fallback)
    items = _listed(snapshot, movies, scores)
    return schemas.Recommendations(user_id=user, model=served.described, fallback=fallback, items=items)


@router.post("/recommend", tags=["lists"], responses=documented(400, 404, 413))
def recommend_new(request: Request, snapshot: Ready, asked: schemas.NewUser) -> schemas.Recommendations:
    """List films for a new user, from a few films they like; popular films, flagged, from none."""
    served = snapshot.served(asked.model)
    liked = {snapshot.movie_id(each.movie_id): snapshot.rating(each.rating) for each in asked.liked}
    if len(liked) < len(asked.liked):
        raise ProblemError(422, "invalid-request", "A film is named more than once.")
    candidates = snapshot.candidates(asked.genre)
    table = served.model.recommend_new(liked, asked.k, exclude_seen=asked.exclude_seen, candidates=candidates)
    fallback = bool(table["fallback"].any())
    request.app.state.service.fallbacks.inc(fallback)
    items = _listed(snapshot, table["item_id"].tolist(), table["score"].tolist())
    return schemas.Recommendations(user_id=None, model=served.described, fallback=fallback, items=items)


@router.get("/similar/{movie_id}", tags=["lists"], responses=documented(404))
def similar(
    snapshot: Ready, movie_id: schemas.PathId, asked: Annotated[schemas.ListChoice, Query()]
) -> schemas.Similar:
    """List films similar to one film."""
    served, movie = snapshot.served(asked.model), snapshot.movie_id(movie_id)
    table = served.model.similar_items([movie], asked.k)
    items = _listed(snapshot, table["similar_item_id"].tolist(), table["score"].tolist())
    return schemas.Similar(movie=snapshot.films.of(movie), model=served.described, items=items)


@router.get("/explain/{user_id}/{movie_id}", tags=["lists"], responses=documented(404))
def explain(
    snapshot: Ready,
    user_id: schemas.PathId,
    movie_id: schemas.PathId,
    asked: Annotated[schemas.ExplainChoice, Query()],
) -> schemas.Explanation:
    """Say what speaks for a film, and by how much."""
    served, user, movie = snapshot.served(asked.model), snapshot.user_id(user_id), snapshot.movie_id(movie_id)
    table = served.model.explain(user, movie, asked.k)
    reasons = [
        schemas.Reason(reason=reason, movie=None if pd.isna(item) else snapshot.films.of(item), contribution=part)
        for reason, item, part in table[["reason", "item_id", "contribution"]].itertuples(index=False)
    ]
    return schemas.Explanation(
        user_id=user,
        movie=snapshot.films.of(movie),
        model=served.described,
        score=float(table["contribution"].sum()),
        reasons=reasons,
    )


# ---- users and films -----------------------------------------------------------------------------------------


def _user(snapshot: Snapshot, code: int) -> dict[str, Any]:
    users = snapshot.users
    return {"user_id": users.ids[code].item(), "n_ratings": users.n_ratings[code], "facts": users.facts(code)}


@router.get("/users", tags=["users and films"])
def users(snapshot: Ready, page: Annotated[schemas.Page, Query()]) -> schemas.Users:
    """Users in the order of their ids."""
    total = len(snapshot.users.ids)
    codes = range(total)[page.offset : page.offset + page.limit]
    items = [schemas.User(**_user(snapshot, code)) for code in codes]
    return schemas.Users(total=total, limit=page.limit, offset=page.offset, items=items)


@router.get("/users/{user_id}", tags=["users and films"], responses=documented(404))
def user(snapshot: Ready, user_id: schemas.PathId, page: Annotated[schemas.Page, Query()]) -> schemas.UserHistory:
    """Show a user, and a part of their history, the latest first."""
    code, has_ratings = snapshot.user_code(user_id), snapshot.run.tables.rating_scale is not None
    history = snapshot.users.history(code)
    shown = history.iloc[page.offset : page.offset + page.limit]
    ratings = shown["rating"].tolist() if has_ratings else [None] * len(shown)
    times = shown["timestamp"].tolist() if "timestamp" in shown else [None] * len(shown)
    rated = [
        schemas.Rated(**snapshot.films.of(movie), rating=rating, timestamp=when)
        for movie, rating, when in zip(shown["item_id"].tolist(), ratings, times, strict=True)
    ]
    mean = float(history["rating"].mean()) if has_ratings else None
    page_of = {"limit": page.limit, "offset": page.offset, "history": rated}
    return schemas.UserHistory(**_user(snapshot, code), mean_rating=mean, **page_of)


@router.get("/movies", tags=["users and films"])
def movies(snapshot: Ready, page: Annotated[schemas.MoviePage, Query()]) -> schemas.Movies:
    """Films whose title holds every word of the query, the best known first."""
    columns = snapshot.films.search(page.query)
    items = [snapshot.films.facts[column] for column in columns[page.offset : page.offset + page.limit]]
    return schemas.Movies(total=len(columns), limit=page.limit, offset=page.offset, items=items)


@router.get("/movies/{movie_id}", tags=["users and films"], responses=documented(404))
def movie(snapshot: Ready, movie_id: schemas.PathId) -> schemas.MovieFacts:
    """Show a film, and what the history says of it."""
    column = snapshot.movie_code(movie_id)
    films, has_ratings = snapshot.films, snapshot.run.tables.rating_scale is not None
    mean = float(films.mean_ratings[column]) if has_ratings else None
    return schemas.MovieFacts(**films.facts[column], n_ratings=int(films.n_ratings[column]), mean_rating=mean)


# ---- the service itself --------------------------------------------------------------------------------------


@router.get("/models", tags=["service"])
def models(snapshot: Ready) -> schemas.Models:
    """Models that can be asked, the champion first."""
    items = []
    for name in snapshot.names:
        try:
            items.append(schemas.Model(**snapshot.describe(name)))
        except (OSError, ValueError, KeyError):  # being written, or damaged
            log.exception("the model %s cannot be read", name)
    return schemas.Models(items=items)


@health_router.get("/health")
async def health(request: Request, snapshot: Ready) -> schemas.Health:
    """Whether the champion of the run is loaded: 200, or 503 with what is wrong."""
    service = request.app.state.service
    if service.failure:
        raise service.not_healthy()
    champion = snapshot.champion.described
    return schemas.Health(status="ok", dataset=snapshot.run.name, model=champion, loaded_at=snapshot.loaded_at)


# ---- the application -----------------------------------------------------------------------------------------


class Incoming:
    """ASGI middleware that gives requests one form, and limits their bodies.

    Paths are matched as they were sent, because an id may hold a slash. HEAD is answered as GET; the server leaves out
    the body. Methods of the client's own invention are one to the metrics.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, size = scope["method"], 0
        if method not in METHODS:
            method = "GET" if method == "HEAD" else "OTHER"

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY:
                raise ProblemError(413, "", f"A request may have {MAX_BODY:,} bytes.")
            return message

        path = scope["raw_path"].decode("ascii", "replace")
        await self.app({**scope, "method": method, "path": path}, limited, send)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load in the background while the server runs: until it is done, `/health` says so."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    app.state.service.start()
    yield
    app.state.service.stop()


def create_app(dataset: str, *, key: str | None = None, hosts: tuple[str, ...] = ()) -> FastAPI:
    """The service of one data set, ready for a server.

    Parameters
    ----------
    dataset
        Name or path.
    key
        What a client must show as ``X-API-Key`` or ``Authorization: Bearer``; none: everybody may ask.
    hosts
        Names by which the service may be called, so that no web page whose name was given this machine's address
        reads it from a browser (DNS rebinding); none: any.
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
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    app.state.service = Service(dataset, registry)
    named = [Depends(_host_check(hosts))] if hosts else []
    keyed = [*named, Depends(_key_check(key))] if key else named
    app.include_router(health_router, dependencies=named)
    app.include_router(router, dependencies=keyed)
    instrumentator = Instrumentator(should_group_status_codes=False, registry=registry)
    instrumentator.instrument(app, metric_namespace="recsys", latency_highr_buckets=SECONDS)
    instrumentator.expose(
        app,
        tags=["service"],
        dependencies=keyed,
        response_class=PlainTextResponse,
        responses=documented(401, 421),
        summary="Metrics in the format of Prometheus.",
    )
    problems.install(app)
    app.add_middleware(Incoming)
    app.add_middleware(CorrelationIdMiddleware, validator=lambda given: bool(REQUEST_ID.fullmatch(given)))
    described = app.openapi
    app.openapi = lambda: _with_problem(described())
    return app


def _with_problem(openapi: dict[str, Any]) -> dict[str, Any]:
    openapi["components"]["schemas"]["Problem"] = schemas.Problem.model_json_schema()
    return openapi


def _host_check(hosts: tuple[str, ...]) -> Any:
    """A dependency that refuses requests under other names."""

    async def called_by_name(request: Request) -> None:
        # The name without the port; an IPv6 address stands in brackets.
        if re.sub(r":\d*$", "", request.headers.get("host", "")).strip("[]").lower() not in hosts:
            raise ProblemError(421, "", f"This service is called {' or '.join(hosts)}.")

    return called_by_name


def _key_check(key: str) -> Any:
    """A dependency that refuses requests without the key; it describes itself in the OpenAPI."""

    async def has_key(
        plain: Annotated[str | None, Depends(APIKeyHeader(name="X-API-Key", auto_error=False))],
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    ) -> None:
        given = plain or (bearer.credentials if bearer else "")
        if not hmac.compare_digest(given.encode("latin-1"), key.encode()):
            raise ProblemError(401, "", "A key is needed, in the header X-API-Key.", {"WWW-Authenticate": "Bearer"})

    return has_key
