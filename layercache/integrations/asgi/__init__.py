"""HTTP responses in a cache: a middleware for every ASGI application, Starlette, FastAPI and Django among them.

    app.add_middleware(ResponseCache, cache="pages")

It is a shared cache as RFC 9111 means it, that lives where the application does. What may be stored and for how long
is in `rules`, what a stored response is in `pages`, one run of the application in `exchange`, the way of a request
in `middleware`.
"""

from layercache.integrations.asgi.middleware import ResponseCache, tag_response

__all__ = ["ResponseCache", "tag_response"]
