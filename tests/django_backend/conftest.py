"""Django, set up once for the process, over worlds of layercache that change with each test."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django_worlds import shut, tables
from face import Face

import layercache
from layercache.testing import Clock

BACKEND = "layercache.integrations.django.LayerCacheBackend"


def shouting(key: str, prefix: str, version: int) -> str:
    return f"{prefix}!{version}!{key}".upper()


CACHES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": BACKEND, "LOCATION": "site"},
    "second": {"BACKEND": BACKEND, "LOCATION": "site", "VERSION": 2},
    "prefixed": {"BACKEND": BACKEND, "LOCATION": "site", "KEY_PREFIX": "mine"},
    "shouting": {"BACKEND": BACKEND, "LOCATION": "site", "KEY_FUNCTION": "django_project.shouting"},
    "named": {"BACKEND": BACKEND, "LOCATION": "site", "KEY_FUNCTION": shouting, "KEY_PREFIX": "n"},
    "minute": {"BACKEND": BACKEND, "LOCATION": "site", "TIMEOUT": 60},
    "endless": {"BACKEND": BACKEND, "LOCATION": "site", "TIMEOUT": None},
    "never": {"BACKEND": BACKEND, "LOCATION": "site", "TIMEOUT": 0},
    "json": {"BACKEND": BACKEND, "LOCATION": "json"},
}

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        CACHES=CACHES,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["django.contrib.sessions"],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        ROOT_URLCONF="django_project",
        SECRET_KEY="of the tests",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        USE_TZ=True,
    )
    django.setup()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_world(
    request: pytest.FixtureRequest, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Make a world of that kind of backend the one that `get_cache` speaks to; in memory its time is the clock's."""

    def opened(kind: str) -> None:
        if kind == "memory":
            world = layercache.Caches(tables(kind, "redis://localhost:1"), now=clock)
            layercache.close()
            monkeypatch.setattr("layercache.default._default", world)
        else:
            layercache.configure(tables(kind, request.getfixturevalue("server_url")))
        importlib.import_module("django_project").ran.clear()

    return opened


@pytest.fixture(scope="session")
def _worlds(server_url: str) -> Iterator[dict[str, layercache.Caches]]:
    worlds = {kind: layercache.Caches(tables(kind, server_url)) for kind in ("memory", "redis", "chain")}
    yield worlds
    for world in worlds.values():
        world.close()


@pytest.fixture(params=["memory", "redis", "chain"])
def world(
    request: pytest.FixtureRequest, _worlds: dict[str, layercache.Caches], monkeypatch: pytest.MonkeyPatch
) -> layercache.Caches:
    """A world that other tests have used and this one finds empty; to open one with its log takes 50 ms."""
    world: layercache.Caches = _worlds[request.param]
    for name in world:
        world[name].clear()
    monkeypatch.setattr("layercache.default.default_world", lambda: world)
    return world


@pytest.fixture(params=["memory", "redis"])
def site(request: pytest.FixtureRequest, open_world: Callable[[str], None]) -> str:
    open_world(request.param)
    kind: str = request.param
    return kind


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest, world: layercache.Caches) -> Iterator[Callable[..., Any]]:
    """Gives Django's cache of a name, its verbs called plainly or through their async twins."""
    from django.core.cache import caches

    if request.param == "sync":
        yield lambda alias="default": Face(caches[alias], None)  # type: ignore[arg-type]
        return
    with asyncio.Runner() as runner:
        yield lambda alias="default": Face(caches[alias], runner)  # type: ignore[arg-type]
        runner.run(shut(world))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[None]:
    """A database with the table of sessions, in a file: async views reach it from another thread."""
    from django.core.management import call_command
    from django.db import connections

    old = connections.databases["default"]["NAME"]
    connections["default"].close()
    connections.databases["default"]["NAME"] = connections["default"].settings_dict["NAME"] = str(
        tmp_path / "db"
    )
    call_command("migrate", verbosity=0)
    yield
    connections.close_all()
    connections.databases["default"]["NAME"] = connections["default"].settings_dict["NAME"] = old
