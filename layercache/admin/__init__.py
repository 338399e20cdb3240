"""The management API and the dashboard: what is cached, is it working, make it forget this.

    app.include_router(layercache.admin.router(), prefix="/cache")  # in a FastAPI application
    app.mount("/cache", layercache.admin.app())                     # in any ASGI application

Its packages (fastapi, uvicorn) come with the extra `admin`. Nothing else in layercache imports this.
"""

from __future__ import annotations

from layercache.errors import MissingExtra

try:
    from layercache.admin.routes import app, router
except ImportError as error:
    package = (error.name or "").split(".")[0]
    if package not in {"fastapi", "starlette"}:
        raise
    raise MissingExtra("the management API", package, "admin") from error

__all__ = ["app", "router"]
