"""Whatever a client sends, as the API's own description has it or not: nothing of it is answered with 5xx, and every
answer is as described."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import redis
from asking import WRITE, bearer
from hypothesis import HealthCheck, Phase

import layercache.admin
from layercache import Caches

OPERATIONS = [
    "GET /caches",
    "GET /advice",
    "GET /caches/{name}/stats",
    "GET /caches/{name}/prefixes",
    "GET /caches/{name}/keys",
    "GET /caches/{name}/keys/{key}",
    "DELETE /caches/{name}/keys/{key}",
    "POST /caches/{name}/invalidate",
    "POST /caches/{name}/clear",
    "POST /caches/{name}/warm",
    "GET /health",
]


@pytest.fixture(scope="module")
def schema(server: redis.Redis, server_url: str) -> Any:
    import schemathesis

    backends = {
        "local": {"type": "memory"},
        "far": {"type": "redis", "url": server_url, "prefix": "fuzz", "timeout": "5s"},
        "chain": {"type": "chain", "layers": ["local", "far"]},
    }
    caches = {"stock": {"backend": "chain"}, "default": {"backend": "local"}}
    admin = {"write_token": WRITE, "show_values": True}
    with Caches({"backends": backends, "caches": caches, "admin": admin}) as world:
        for cache in caches:
            world[cache].set_many({"k": 1, "0": {"a": [1]}}, tags=["t"])
        yield schemathesis.openapi.from_asgi("/openapi.json", layercache.admin.app(world))
        world["stock"].clear()


def test_all_operations_are_tried(schema: Any) -> None:
    assert sorted(operation.ok().label for operation in schema.get_all_operations()) == sorted(OPERATIONS)


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_is_answered_with_a_fault_of_ours(schema: Any, label: str) -> None:
    from schemathesis.checks import positive_data_acceptance

    operation = next(found.ok() for found in schema.get_all_operations() if found.ok().label == label)
    names = hypothesis.strategies.sampled_from(["stock", "stock", "default", None])

    @hypothesis.settings(
        max_examples=15,
        deadline=None,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(), name=names)
    def ask(case: Any, name: str | None) -> None:
        if name is not None and "name" in (case.path_parameters or {}):
            case.path_parameters["name"] = name  # by chance it would hardly ever be one that there is
        answer = case.call(headers=bearer(WRITE))
        # a cursor that is none and a key that is too long are refused, which no schema says
        assert answer.status_code < 500
        case.validate_response(answer, excluded_checks=[positive_data_acceptance])

    ask()
