"""The addresses of the service: what each takes and gives."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio.to_thread
import pandas as pd
from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_fastapi_instrumentator import Instrumentator
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys_lib.api import problems, schemas
from recsys_lib.api.problems import ProblemError, documented
from recsys_lib.api.service import Service
from recsys_lib.api.snapshot import Served, Snapshot

THREADS = 4  # requests computed at once; more only wait for each other
MAX_BODY = 32 * 1024  # bytes
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


async def _ready(request: Request) -> Snapshot:
    return request.app.state.service.ready()


Ready = Annotated[Snapshot, Depends(_ready)]
health_router = APIRouter(tags=["service"], responses=documented(421, 503))
router = APIRouter(responses=documented(401, 421, 422, 500, 503))
lists = APIRouter(tags=["lists"], responses=documented(404))


# ---- lists ---------------------------------------------------------------------------------------------------


@lists.get("/recommend/{user_id}", response_model=schemas.Recommendations)
async def recommend(
    request: Request, snapshot: Ready, user_id: schemas.PathId, asked: Annotated[schemas.RecommendChoice, Query()]
) -> dict[str, Any]:
    """List films for a user; popular films, flagged, for an unknown id."""
    served = snapshot.champion if asked.model is None else await run_in_threadpool(snapshot.served, asked.model)
    known = asked.unknown == "raise" or snapshot.known.user_codes([user_id])[0] >= 0
    user, candidates = snapshot.user_id(user_id) if known else user_id, snapshot.candidates(asked.genre)
    listed = await served.recommend(user, asked.k, asked.exclude_seen, asked.genre, candidates)
    return _recommendations(request, snapshot, served, user, *listed)


@lists.post("/recommend", responses=documented(400, 413), response_model=schemas.Recommendations)
def recommend_new(request: Request, snapshot: Ready, asked: schemas.NewUser) -> dict[str, Any]:
    """List films for a new user, from a few films they like; popular films, flagged, from none."""
    served = snapshot.served(asked.model)
    liked = {snapshot.movie_id(each.movie_id): snapshot.rating(each.rating) for each in asked.liked}
    if len(liked) < len(asked.liked):
        raise ProblemError(422, "invalid-request", "A film is named more than once.")
    candidates = snapshot.candidates(asked.genre)
    table = served.model.recommend_new(liked, asked.k, exclude_seen=asked.exclude_seen, candidates=candidates)
    return _recommendations(
        request, snapshot, served, None, table["item_id"], table["score"], bool(table["fallback"].any())
    )


def _recommendations(
    request: Request, snapshot: Snapshot, served: Served, user: Any, movies: Any, scores: Any, fallback: bool
) -> dict[str, Any]:
    request.app.state.service.fallbacks.inc(fallback)
    items = snapshot.listed(movies, scores)
    return {"user_id": user, "model": served, "fallback": fallback, "items": items}


@lists.get("/similar/{movie_id}", response_model=schemas.Similar)
def similar(snapshot: Ready, movie_id: schemas.PathId, asked: Annotated[schemas.ListChoice, Query()]) -> dict[str, Any]:
    """List films similar to one film."""
    served, movie = snapshot.served(asked.model), snapshot.movie_id(movie_id)
    table = served.model.similar_items([movie], asked.k)
    items = snapshot.listed(table["similar_item_id"], table["score"])
    return {"movie": snapshot.films[movie], "model": served, "items": items}


@lists.get("/explain/{user_id}/{movie_id}", response_model=schemas.Explanation)
def explain(
    snapshot: Ready,
    user_id: schemas.PathId,
    movie_id: schemas.PathId,
    asked: Annotated[schemas.ListChoice, Query()],
) -> dict[str, Any]:
    """Say what speaks for a film, and by how much."""
    served, user, movie = snapshot.served(asked.model), snapshot.user_id(user_id), snapshot.movie_id(movie_id)
    table = served.model.explain(user, movie, asked.k)
    reasons = table.assign(movie=table["item_id"].map(snapshot.films.get)).to_dict("records")
    score = table["contribution"].sum()
    return {"user_id": user, "movie": snapshot.films[movie], "model": served, "score": score, "reasons": reasons}


@lists.post("/invocations", responses=documented(400, 413), openapi_extra=schemas.INVOCATIONS)
async def invocations(request: Request, snapshot: Ready) -> Response:
    """List films for several users, as hosted endpoints are asked: JSON, or CSV with a line a user.

    JSON answers JSON: what `/recommend` gives for each of ``instances``, as ``predictions``. CSV (``user_id``, or
    ``user_id,k``) answers CSV: user_id, item_id, score, rank, fallback.
    """
    body, as_csv = await request.body(), request.headers.get("content-type", "").startswith("text/csv")
    try:
        asked = (schemas.Invocations.of_csv if as_csv else schemas.Invocations.model_validate_json)(body)
    except ValidationError as error:
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in error.errors()]) from error
    except ValueError as error:
        raise ProblemError(400, "", f"The body is not UTF-8 text: {error}.") from error
    answers = []
    for each in asked.instances:
        if isinstance(each, schemas.NewUser):
            answers.append(await run_in_threadpool(recommend_new, request, snapshot, each))
        else:
            answers.append(await recommend(request, snapshot, str(each.user_id), each))
    if not as_csv:
        predictions = schemas.Predictions.model_validate({"predictions": answers}, from_attributes=True)
        return JSONResponse(predictions.model_dump(mode="json"))
    columns = ["user_id", "item_id", "score", "rank", "fallback"]
    films = [{**answer, **film, "item_id": film["movie_id"]} for answer in answers for film in answer["items"]]
    return Response(pd.DataFrame(films, columns=columns).to_csv(index=False), media_type="text/csv")


router.include_router(lists)


# ---- users and films -----------------------------------------------------------------------------------------


@router.get("/users", tags=["users and films"], response_model=schemas.Listed[schemas.User])
def users(snapshot: Ready, page: Annotated[schemas.Page, Query()]) -> dict[str, Any]:
    """Users in the order of their ids."""
    return page.listed(snapshot.known.user_ids.tolist(), snapshot.user)


@router.get("/users/{user_id}", tags=["users and films"], responses=documented(404), response_model=schemas.UserHistory)
def user(snapshot: Ready, user_id: schemas.PathId, page: Annotated[schemas.Page, Query()]) -> dict[str, Any]:
    """Show a user, and a part of their history, the latest first."""
    user = snapshot.user_id(user_id)
    history = snapshot.history(user)
    mean = float(history["rating"].mean()) if snapshot.has_ratings else None
    rated = [snapshot.films[row["item_id"]] | row for row in page.of(history.to_dict("records"))]
    return {**snapshot.user(user), **dict(page), "mean_rating": mean, "history": rated}


@router.get("/movies", tags=["users and films"], response_model=schemas.Listed[schemas.Movie])
def movies(snapshot: Ready, page: Annotated[schemas.MoviePage, Query()]) -> dict[str, Any]:
    """Films whose title holds every word of the query, the best known first."""
    return page.listed(snapshot.search(page.query), snapshot.films.get)


@router.get(
    "/movies/{movie_id}", tags=["users and films"], responses=documented(404), response_model=schemas.MovieFacts
)
def movie(snapshot: Ready, movie_id: schemas.PathId) -> dict[str, Any]:
    """Show a film, and what the history says of it."""
    return snapshot.films[snapshot.movie_id(movie_id)]


# ---- the service itself --------------------------------------------------------------------------------------


@router.get("/models", tags=["service"], response_model=schemas.Listed[schemas.Model])
def models(snapshot: Ready, page: Annotated[schemas.Page, Query()]) -> dict[str, Any]:
    """Models that can be asked: the champion, then the others in the order of the leaderboard."""
    return page.listed(snapshot.described(), dict)


@health_router.get("/ping", response_model=schemas.Health)
@health_router.get("/health", response_model=schemas.Health)
async def health(request: Request, snapshot: Ready) -> dict[str, Any]:
    """Whether the champion of the run is loaded: 200, or 503 with what is wrong (`/ping`: as hosted endpoints ask)."""
    service = request.app.state.service
    if service.failure:
        raise service.not_healthy()
    names = {"dataset": snapshot.run.name, "model": snapshot.champion}
    return {"status": "ok", **names, "loaded_at": snapshot.loaded_at}


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
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY:
                raise ProblemError(413, "", f"A request may have {MAX_BODY:,} bytes.")
            return message

        if scope["type"] == "http":
            method = scope["method"]
            method = "GET" if method == "HEAD" else method if method in METHODS else "OTHER"
            scope = {**scope, "method": method, "path": scope["raw_path"].decode("ascii", "replace")}
        await self.app(scope, limited, send)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load in the background while the server runs: until it is done, `/health` says so."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    watching = asyncio.create_task(app.state.service.watch())
    yield
    watching.cancel()


async def _called_by_name(request: Request) -> None:
    """Refuse requests under other names."""
    hosts = request.app.state.hosts
    # The name without the port; an IPv6 address stands in brackets.
    if re.sub(r":\d*$", "", request.headers.get("host", "")).strip("[]").lower() not in hosts:
        raise ProblemError(421, "", f"This service answers only to the name {' or '.join(hosts)}.")


async def _has_key(
    request: Request,
    plain: Annotated[str | None, Depends(APIKeyHeader(name="X-API-Key", auto_error=False))],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> None:
    """Refuse requests without the key."""
    given = plain or (bearer.credentials if bearer else "")
    if not hmac.compare_digest(given.encode("latin-1"), request.app.state.key.encode()):
        raise ProblemError(401, "", "A key is needed, in the header X-API-Key.", {"WWW-Authenticate": "Bearer"})


def create_app(dataset: str, *, key: str | None = None, hosts: tuple[str, ...] = ()) -> FastAPI:
    """The service of one data set, ready for a server.

    - ``dataset``: name or path.
    - ``key``: what a client must show as ``X-API-Key`` or ``Authorization: Bearer``; none: everybody may ask.
    - ``hosts``: names by which the service may be called, so that no web page whose name was given this machine's
      address reads it from a browser (DNS rebinding); none: any.
    """
    app = FastAPIOffline(
        redoc_url=None,
        title="recsys-lab",
        version="1",
        description="Recommendations of the model that the evaluation put first, with titles and reasons.",
        lifespan=_lifespan,
        redirect_slashes=False,
        swagger_ui_parameters={"validatorUrl": None},
        exception_handlers=dict.fromkeys((HTTPException, RequestValidationError, Exception), problems.answer),
    )
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    app.state.service, app.state.key, app.state.hosts = Service(dataset, registry), key, hosts
    named = [Depends(_called_by_name)] if hosts else []
    keyed = [*named, Depends(_has_key)] if key else named
    app.include_router(health_router, dependencies=named)
    app.include_router(router, dependencies=keyed)
    instrumentator = Instrumentator(should_group_status_codes=False, registry=registry)
    instrumentator.instrument(app, metric_namespace="recsys")
    instrumentator.expose(
        app,
        tags=["service"],
        dependencies=keyed,
        response_class=PlainTextResponse,
        responses=documented(401, 421),
        summary="Metrics in the format of Prometheus.",
    )
    app.add_middleware(Incoming)
    app.add_middleware(CorrelationIdMiddleware, validator=lambda given: bool(REQUEST_ID.fullmatch(given)))
    described = app.openapi()["components"]["schemas"]
    for model in (schemas.Problem, schemas.Invocations, schemas.Predictions):  # which no address names to FastAPI
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        described.update(schema.pop("$defs", {}) | {model.__name__: schema})
    return app
