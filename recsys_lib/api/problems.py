"""Errors as problem JSON (RFC 9457, Problem Details for HTTP APIs, 2023)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from asgi_correlation_id import correlation_id
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
SENTENCES = {
    404: "There is nothing at this address; /docs lists what there is.",
    405: "This address does not answer this method.",
}


class ProblemError(HTTPException):
    """An HTTP error with a kind, ``unknown-movie`` say, and one sentence for the client."""

    def __init__(self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.kind = kind


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problems that an address may answer with, for its OpenAPI."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


async def answer(_: Request, error: Exception) -> Response:
    """The response to an error of any kind."""
    request_id, kind, more = correlation_id.get() or "", getattr(error, "kind", ""), {}
    headers = getattr(error, "headers", None)
    if isinstance(error, HTTPException):
        status, detail = error.status_code, error.detail
        if not isinstance(error, ProblemError):
            detail = SENTENCES.get(status, detail)
    elif isinstance(error, RequestValidationError):
        # What was sent is not repeated: it may be anything, and JSON cannot hold all of it.
        errors = [{"where": ".".join(map(str, each["loc"])), "what": str(each["msg"])} for each in error.errors()[:20]]
        status, kind, more = 422, "invalid-request", {"errors": errors}
        detail = "; ".join(f"{each['where']}: {each['what']}" for each in errors[:3])
    else:
        status, detail = 500, f"Something went wrong; the log says what, under {request_id}."
        headers = {"X-Request-ID": request_id}  # this response passes by the middleware that adds it to the others
    content = {
        "type": f"urn:recsys-lab:problem:{kind}" if kind else "about:blank",
        "title": kind.replace("-", " ").capitalize() if kind else HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }
    return Response(json.dumps(content | more), status, headers, MEDIA_TYPE)
