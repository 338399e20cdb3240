"""The pytest plugin: a clean world in memory for a test, and its outages.

It is loaded with pytest wherever layercache is installed, and does nothing until a test asks for one of its
fixtures, or the ini option `layercache_world = true` has every test have its own world. What it needs is imported
then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from layercache.caches import Caches
    from layercache.testing.clock import Clock
    from layercache.testing.worlds import WorldChaos

__all__ = [
    "chaos",
    "layercache_clock",
    "layercache_settings",
    "layercache_world",
    "pytest_addoption",
    "pytest_configure",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tell pytest of the ini option `layercache_world`."""
    parser.addini(
        "layercache_world",
        "Give every test a world of caches of its own, in memory, as the fixture layercache_world does.",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Give every test a world, where the ini option says so."""
    if config.getini("layercache_world"):
        config.pluginmanager.register(_ForEveryTest(), "layercache-for-every-test")


class _ForEveryTest:
    @pytest.fixture(autouse=True)
    def _layercache_for_every_test(self, _layercache_default: WorldChaos) -> None: ...


@pytest.fixture
def layercache_settings() -> Any:
    """The settings of the world: a mapping, or the path of a file. Override it; as it stands, those that the code
    under test would find, or gives to `configure`."""
    return None


@pytest.fixture
def layercache_clock() -> Clock:
    """The clock of the world, for tests that ask for it: it stands still until the test moves it."""
    import time

    from layercache.testing.clock import Clock

    return Clock(time.time())


@pytest.fixture
def _layercache_default(request: pytest.FixtureRequest, layercache_settings: Any) -> Iterator[WorldChaos]:
    """Have whatever asks for the default world be given a new one in memory, made when it is first asked for."""
    import time

    from layercache.default import default_made_by
    from layercache.testing.worlds import WorldChaos, world_in_memory

    chaos = WorldChaos()
    now = time.time
    if "layercache_clock" in request.fixturenames:
        now = request.getfixturevalue("layercache_clock")

    def make(settings: Any, environment: str | None) -> Caches:
        if layercache_settings is not None:
            settings = layercache_settings
        return world_in_memory(settings, environment, chaos, now)

    with default_made_by(make):
        yield chaos


@pytest.fixture
def layercache_world(_layercache_default: WorldChaos) -> Caches:
    """A clean world in memory that `get_cache`, `cache` and `@cached` speak to for the time of one test.

    It has the caches of `layercache_settings`, with every backend replaced by one in memory; no server is needed, and
    nothing is left for the next test.
    """
    from layercache.default import default_world

    return default_world()


@pytest.fixture
def chaos(_layercache_default: WorldChaos) -> WorldChaos:
    """Outages of that world: `chaos.down()`, `chaos.freeze()`, `chaos.heal()`."""
    return _layercache_default
