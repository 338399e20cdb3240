"""What goes wrong, as RFC 9457 has it: `application/problem+json`, one kind for each thing a client can do about it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NoReturn

from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from layercache.errors import (
    BackendError,
    CacheError,
    CannotList,
    InvalidKey,
    InvalidOption,
    UnknownCache,
)

__all__ = ["FieldFault", "Problem", "Refused", "documented", "problem_of", "refuse", "respond"]

_MEDIA_TYPE: Final = "application/problem+json"


class FieldFault(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(description="The part of the request.", examples=["body.tags"])
    message: str = Field(examples=["List should have at least 1 item after validation, not 0"])


class Problem(BaseModel):
    """A problem, as RFC 9457 has it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{
        "type": "urn:layercache:unknown-cache",
        "title": "There is no such cache",
        "status": 404,
        "detail": "no cache named 'stok'; did you mean 'stock'?",
    }]})  # fmt: skip

    type: str = Field(description="Names the kind of problem.")
    title: str = Field(description="The kind of problem in words, always the same for one type.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What it was this time, and what would be right.")
    faults: list[FieldFault] | None = Field(
        default=None, description="What is wrong with the request, where it is that."
    )


class Refused(Exception):
    """A request that is answered with a problem."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.problem, self.headers = problem, dict(headers or {})


_TITLES: Final[Mapping[str, tuple[int, str]]] = {
    "token-wanted": (401, "A token is wanted"),
    "not-permitted": (403, "The caller is not permitted to do this"),
    "values-hidden": (403, "Values are hidden here"),
    "not-found": (404, "There is nothing here"),
    "unknown-cache": (404, "There is no such cache"),
    "wrong-method": (405, "Nothing here takes that method"),
    "warming-already": (409, "The cache is being warmed already"),
    "length-wanted": (411, "The length of the body is wanted"),
    "too-long": (413, "The request is too long"),
    "invalid-request": (422, "The request cannot be right"),
    "cannot-list": (422, "This backend cannot list its keys"),
    "backend-failed": (503, "The store does not answer"),
    "cache-unavailable": (503, "The cache cannot be used now"),
}


def refuse(kind: str, detail: str, headers: Mapping[str, str] | None = None) -> NoReturn:
    """Answer the request with a problem of that kind."""
    raise Refused(_problem(kind, detail), headers)


def _problem(kind: str, detail: str, faults: list[FieldFault] | None = None) -> Problem:
    status, title = _TITLES[kind]
    return Problem(type=f"urn:layercache:{kind}", title=title, status=status, detail=detail, faults=faults)


def problem_of(error: Exception) -> Refused:
    """Return the problem that an error is, or raise it where it is a fault of ours."""
    match error:
        case Refused():
            return error
        case RequestValidationError():
            faults = [_fault(detail) for detail in error.errors()]
            said = "; ".join(f"{fault.where}: {fault.message}" for fault in faults)
            return Refused(_problem("invalid-request", said, faults))
        case UnknownCache():
            return Refused(_problem("unknown-cache", str(error)))
        case InvalidKey() | InvalidOption():
            return Refused(_problem("invalid-request", str(error)))
        case CannotList():
            return Refused(_problem("cannot-list", str(error)))
        case BackendError():
            return Refused(_problem("backend-failed", str(error)), {"Retry-After": "5"})
        case CacheError() | ImportError():
            return Refused(_problem("cache-unavailable", str(error)))
        case HTTPException(status_code=404):
            return Refused(_problem("not-found", "no resource of the management API has this path"))
        case HTTPException(status_code=405):
            return Refused(_problem("wrong-method", "see the header Allow for what it takes"), error.headers)
        case HTTPException():
            title = HTTPStatus(error.status_code).phrase
            about = Problem(
                type="about:blank", title=title, status=error.status_code, detail=str(error.detail)
            )
            return Refused(about, error.headers)
        case _:
            raise error


def _fault(detail: Mapping[str, Any]) -> FieldFault:
    # the input itself is left out: it may be anything, and long
    return FieldFault(where=".".join(map(str, detail["loc"])), message=str(detail["msg"]))


def respond(refused: Refused) -> JSONResponse:
    """Return the response that says what was refused."""
    content = jsonable_encoder(refused.problem, exclude_none=True)
    return JSONResponse(content, refused.problem.status, refused.headers, _MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of the problems that come with each of `statuses`."""
    schema = Problem.model_json_schema()
    schema["properties"]["faults"] = {"type": "array", "items": FieldFault.model_json_schema()}
    schema.pop("$defs")
    return {
        status: {
            "description": next(title for known, title in _TITLES.values() if known == status),
            "content": {_MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }
