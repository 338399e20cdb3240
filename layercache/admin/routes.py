"""The routes, and what stands before each: who asks is admitted, what goes wrong is a problem, what changes something
is written to the log `layercache.admin`.

Rule: nobody is let near a route, or has a body read, before `access` has admitted them; only the page of the dashboard,
in which there is nothing of ours, and the description of the API are for everybody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.types import Receive, Send
from starlette.types import Scope as Connection

from layercache import __version__
from layercache.admin import dashboard
from layercache.admin.access import Caller, Scope, admitted
from layercache.admin.endpoints import Endpoints, World
from layercache.admin.models import Health
from layercache.admin.problems import Refused, documented, problem_of, refuse, respond
from layercache.caches import Caches
from layercache.default import default_world
from layercache.errors import CacheError

__all__ = ["app", "router"]


class _Key(PathConvertor):
    """A key in a path: whatever follows, with slashes and line breaks, which `path` does not take."""

    regex = "(?s:.*)"


register_url_convertor("layercache_key", _Key())

audit: Final = logging.getLogger("layercache.admin")

_MOST_BYTES: Final = 1 << 16

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def router(caches: Caches | None = None) -> APIRouter:
    """Return the management API and the dashboard, for `include_router` of a FastAPI application.

    Args:
        caches: the world that it is about; None: the one behind `get_cache`, as it is at each request.

    Who may do what, `[default.admin]` of the settings says; see docs/admin.md.
    """
    world: World = default_world if caches is None else lambda: caches
    made = APIRouter(route_class=_guarded(world), dependencies=[Security(_BEARER)], tags=["caches"])
    _add_routes(made, Endpoints(world))
    return made


def app(caches: Caches | None = None) -> FastAPI:
    """Return the management API and the dashboard as an application, to be run or mounted; see `router`."""
    made = FastAPI(
        title="layercache",
        version=__version__,
        summary="What is cached, is it working, make it forget this.",
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
    )
    made.include_router(router(caches))
    for kind in (HTTPException, RequestValidationError, CacheError, Refused):
        made.add_exception_handler(kind, _answer_problem)
    return made


_BEARER: Final = HTTPBearer(
    auto_error=False, scheme_name="token", description="A token of `[default.admin]` in the settings."
)


async def _answer_problem(_: Request, error: Exception) -> Response:
    response = respond(problem_of(error))
    response.headers.update(_HEADERS)
    return response


def _add_routes(to: APIRouter, of: Endpoints) -> None:
    read = documented(401, 403, 422)
    one = documented(401, 403, 404, 422, 503)
    write = one | documented(411, 413)
    down: dict[int | str, dict[str, Any]] = {
        503: {"model": Health, "description": "A cache cannot be used; the body says which."}
    }
    key = "/caches/{name}/keys/{key:layercache_key}"
    to.get("/caches", responses=read)(of.caches)
    to.get("/advice", responses=read)(of.advice)
    to.get("/caches/{name}/stats", responses=one)(of.stats)
    to.get("/caches/{name}/keys", responses=one)(of.keys)
    to.get("/caches/{name}/prefixes", responses=one)(of.prefixes)
    to.get(key, responses=one)(of.explain)
    to.delete(key, responses=one)(of.delete)
    to.post("/caches/{name}/invalidate", responses=write)(of.invalidate)
    to.post("/caches/{name}/clear", responses=write)(of.clear)
    to.post("/caches/{name}/warm", responses=write | documented(409))(of.warm)
    to.get("/health", responses=read | down)(of.health)
    to.get("/metrics", responses=read, response_class=Response, include_in_schema=False)(of.metrics)
    to.get("/dashboard", name=_PAGE, response_class=Response, include_in_schema=False)(dashboard.page)


_PAGE: Final = "layercache_dashboard"


def _guarded(world: World) -> type[APIRoute]:
    """Return the class of routes that admit who may ask, answer problems, and write to the log what was changed."""

    class Guarded(APIRoute):
        routes: Final[list[Guarded]] = []

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.routes.append(self)

        def get_route_handler(self) -> _Handler:
            return _guard(super().get_route_handler(), world, is_public=self.name == _PAGE)

        async def handle(self, scope: Connection, receive: Receive, send: Send) -> None:
            allowed = {
                method
                for each in self.routes
                if each.path_regex == self.path_regex
                for method in each.methods or ()
            }
            if scope["method"] in allowed:
                await super().handle(scope, receive, send)
                return
            headers = {"Allow": ", ".join(sorted(allowed))}
            response = await _answer_problem(Request(scope), HTTPException(405, headers=headers))
            await response(scope, receive, send)

    return Guarded


def _guard(handler: _Handler, world: World, *, is_public: bool) -> _Handler:
    async def guarded(request: Request) -> Response:
        wanted: Scope = "read" if request.method in {"GET", "HEAD"} else "write"
        caller: Caller | None = None
        try:
            try:
                if not is_public:
                    caller = admitted(request, world().settings.admin, wanted)
                    _check_length(request)
                response = await handler(request)
            except Exception as error:
                refused = problem_of(error)
                response = respond(refused)
                request.state.outcome = refused.problem.detail
        except BaseException as error:
            if wanted == "write":
                _log(request, caller, f"failed: {type(error).__name__}")
            raise
        if wanted == "write":
            _log(request, caller, _outcome(request, response))
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return guarded


def _check_length(request: Request) -> None:
    """Refuse a long body before it is read; what takes no body gets none read."""
    length = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers:
        refuse("length-wanted", "send a body with Content-Length, not in chunks")
    if not length.isdecimal() or int(length) > _MOST_BYTES:
        refuse("too-long", f"a body has {_MOST_BYTES:,} bytes at most")


def _outcome(request: Request, response: Response) -> str:
    said = getattr(request.state, "outcome", "")
    word = "done" if response.status_code < 400 else "refused" if response.status_code < 500 else "failed"
    return f"{word} ({response.status_code})" + (f": {said}" if said else "")


def _log(request: Request, caller: Caller | None, outcome: str) -> None:
    """Write down who did what, when and what came of it; never a token, a value, or a line break of somebody's."""
    who = "nobody admitted" if caller is None else caller.id
    address = request.client.host if request.client is not None else "unknown"
    what: dict[str, str] = {
        name: request.path_params[name] for name in ("name", "key") if name in request.path_params
    }
    action = "delete" if "key" in what else request.url.path.rpartition("/")[2]
    about: dict[str, str] = {"who": who, "address": address, "action": action, **what, "outcome": outcome}
    audit.info(
        "%s",
        " ".join(f"{name}={value!r}" for name, value in about.items()),
        extra={"layercache_admin": about},
    )
