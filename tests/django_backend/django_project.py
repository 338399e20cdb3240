"""A small Django project: its views say how often they ran."""

from __future__ import annotations

import pickle
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import engines
from django.urls import path
from django.views.decorators.cache import cache_control, cache_page
from django.views.decorators.vary import vary_on_headers

ran: Counter[str] = Counter()


def shouting(key: str, prefix: str, version: int) -> str:
    return f"{prefix}!{version}!{key}".upper()


def counted(name: str) -> int:
    ran[name] += 1
    return ran[name]


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"page {counted('page')}")


@vary_on_headers("X-Shop")
def varied(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.headers.get('X-Shop')} {counted('varied')}")


@cache_control(private=True)
def private(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"private {counted('private')}")


@cache_control(max_age=7)
def brief(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"brief {counted('brief')}")


@cache_page(60, key_prefix="site")
def decorated(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"decorated {counted('decorated')}")


def visit(request: HttpRequest) -> HttpResponse:
    visits = request.session.get("visits", [])
    # more than JSON carries
    request.session["visits"] = [*visits, (datetime(2026, 1, 1, tzinfo=UTC), {1, 2})]
    return HttpResponse(str(len(visits) + 1))


async def avisit(request: HttpRequest) -> HttpResponse:
    count = await request.session.aget("count", 0)
    await request.session.aset("count", count + 1)
    return HttpResponse(str(count + 1))


def rotate(request: HttpRequest) -> HttpResponse:
    request.session.cycle_key()
    return HttpResponse("rotated")


def leave(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return HttpResponse("left")


FRAGMENT = """\
{% load cache %}{% cache 500 sidebar user %}<b>{{ user }} {{ count }} {{ text }}</b>{% endcache %} {{ outside }}"""


def fragment(request: HttpRequest) -> HttpResponse:
    class Count:
        def __str__(self) -> str:
            return str(counted("fragment"))

    parts: dict[str, Any] = {
        "user": request.GET["user"],
        "count": Count(),
        "text": "<i>",
        "outside": counted("outside"),
    }
    return HttpResponse(engines["django"].from_string(FRAGMENT).render(parts, request))


def empty(request: HttpRequest) -> JsonResponse:
    return JsonResponse({})


urlpatterns = [
    path(f"{view.__name__}/", view)
    for view in (page, varied, private, brief, decorated, visit, avisit, rotate, leave, fragment, empty)
]


class PickleSerializer:
    """For sessions in the database, of values that JSON does not carry."""

    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)
