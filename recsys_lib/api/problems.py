"""Errors as problem JSON (RFC 9457, Problem Details for HTTP APIs, 2023)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from asgi_correlation_id import correlation_id
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
SENTENCES = {
    404: "There is nothing at this address; /docs lists what there is.",
    405: "This address does not answer this method.",
}


class ProblemError(HTTPException):
    """An HTTP error with a kind, ``unknown-movie`` say, and one sentence for the person who asked."""

    def __init__(self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.kind = kind


def problem(status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """The response that is a problem; ``more`` are further members of it."""
    content = {
        "type": f"urn:recsys-lab:problem:{kind}" if kind else "about:blank",
        "title": kind.replace("-", " ").capitalize() if kind else HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": correlation_id.get() or "",
    }
    return Response(json.dumps(content | more).encode(), status, headers, MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problems that an address may answer with, for its OpenAPI."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


async def _of_http(_: Request, error: HTTPException) -> Response:
    if isinstance(error, ProblemError):
        return problem(error.status_code, error.kind, error.detail, error.headers)
    detail = SENTENCES.get(error.status_code, str(error.detail))
    return problem(error.status_code, "", detail, error.headers)


async def _of_validation(_: Request, error: RequestValidationError) -> Response:
    # What was sent is not repeated: it may be anything, and JSON cannot hold all of it.
    errors = [{"where": ".".join(map(str, each["loc"])), "what": str(each["msg"])} for each in error.errors()[:20]]
    detail = "; ".join(f"{each['where']}: {each['what']}" for each in errors[:3])
    return problem(422, "invalid-request", detail, errors=errors)


async def _of_fault(_: Request, __: Exception) -> Response:
    request_id = correlation_id.get() or ""  # this response passes by the middleware that adds it to the others
    detail = f"Something went wrong; the log says what, under {request_id}."
    return problem(500, "", detail, {"X-Request-ID": request_id})


def install(app: FastAPI) -> None:
    """Answer every error of an application as a problem."""
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(Exception, _of_fault)
