"""What is said when it does not work: problem details for HTTP APIs (RFC 9457, 2023), for every error there is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
REFERENCE = {"schema": {"$ref": "#/components/schemas/Problem"}}


class ProblemError(Exception):
    """An answer that is a problem.

    Parameters
    ----------
    status
        The HTTP status.
    detail
        One sentence for the person who asked.
    kind
        What kind of problem it is, ``unknown-movie`` say; none: the status says it all.
    headers
        Headers of the answer, such as ``Retry-After``.
    """

    def __init__(self, status: int, detail: str, *, kind: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.headers = dict(headers or {})


def problem_response(scope: Mapping[str, Any], problem: ProblemError, **more: Any) -> Response:
    """The answer to a request that is a problem; ``more`` are further members of it."""
    phrase = HTTPStatus(problem.status).phrase
    content = {
        "type": f"urn:recsys-lab:problem:{problem.kind}" if problem.kind else "about:blank",
        "title": problem.kind.replace("-", " ").capitalize() if problem.kind else phrase,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": scope.get("state", {}).get("request_id", ""),
        **more,
    }
    body = json.dumps(content, ensure_ascii=True).encode()
    return Response(body, problem.status, problem.headers, MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problems that an address may answer with, for its OpenAPI."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: REFERENCE}} for status in statuses
    }


async def _of_problem(request: Request, error: ProblemError) -> Response:
    return problem_response(request.scope, error)


async def _of_http(request: Request, error: HTTPException) -> Response:
    own = {
        404: "There is nothing at this address; /docs lists what there is.",
        405: f"This address does not answer {request.method[:20]}.",
        413: "The request's body is too large.",
    }
    detail = own.get(error.status_code, str(error.detail))
    return problem_response(request.scope, ProblemError(error.status_code, detail, headers=error.headers))


async def _of_validation(request: Request, error: RequestValidationError) -> Response:
    # What was sent is not repeated: it may be anything, and JSON does not hold all of it.
    errors = [{"where": ".".join(map(str, each["loc"])), "what": str(each["msg"])} for each in error.errors()[:20]]
    detail = "; ".join(f"{each['where']}: {each['what']}" for each in errors[:3])
    return problem_response(request.scope, ProblemError(422, detail, kind="invalid-request"), errors=errors)


def install(app: FastAPI) -> None:
    """Let every error of an application be answered as a problem."""
    app.add_exception_handler(ProblemError, _of_problem)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
