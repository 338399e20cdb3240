"""The management API and the dashboard: what is cached, is it working, make it forget this.

    app.include_router(layercache.admin.router(), prefix="/cache")  # in a FastAPI application
    app.mount("/cache", layercache.admin.app())                     # in any ASGI application

Its packages (fastapi, uvicorn) come with the extra `admin`. What only names what it takes and gives
(`models`) needs none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layercache.errors import MissingExtra

if TYPE_CHECKING:
    from layercache.admin.routes import app, router

__all__ = ["app", "router"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from layercache.admin import routes
    except ImportError as error:
        package = (error.name or "").split(".")[0]
        if package not in {"fastapi", "starlette"}:
            raise
        raise MissingExtra("the management API", package, "admin") from error
    return getattr(routes, name)
