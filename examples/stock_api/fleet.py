"""Everything the example needs, as child processes: the slow market, a Valkey, the API with two workers.

`with fleet() as running:` is all there is to it; leaving the block ends every child by its own handle.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from layercache.testing.server import ValkeyServer

WORKERS = 2

_EXAMPLES = Path(__file__).resolve().parents[1]
_START_SECONDS = 30.0
_STOP_SECONDS = 8.0
_LOG_CHARACTERS = 2_000


class FleetError(RuntimeError):
    """A child process did not start; the message ends with its own log."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The running processes, as seen by a client."""

    api: str
    upstream: str
    valkey: ValkeyServer
    workers: frozenset[int]


@contextmanager
def fleet(latency: str = "2.0-3.0", market: str = "local", workers: int = WORKERS) -> Generator[Fleet]:
    """Start everything, yield it once it answers, and end it whatever happens meanwhile.

    Raises `FleetError` when something does not come up.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stock-api-")))
        valkey = ValkeyServer()
        stack.callback(_stop, valkey)  # first: an interrupt may come while it starts
        valkey.start()
        upstream = stack.enter_context(Service("upstream", folder, UPSTREAM_LATENCY=latency))
        api = stack.enter_context(host(folder, upstream.url, valkey, workers, market))
        yield Fleet(api.url, upstream.url, valkey, api.pids)


def host(
    folder: Path, upstream: str, valkey: ValkeyServer, workers: int = 1, market: str = "local"
) -> "Service":
    """Return a service of so many API workers that share a port, in front of a market and a Valkey."""
    return Service(
        "app",
        folder,
        workers=workers,
        STOCK_MARKET=market,
        STOCK_UPSTREAM=upstream,
        LAYERCACHE_ENV="production",
        REDIS_HOST="127.0.0.1",
        REDIS_PORT=str(valkey.port),
    )


class Service:
    """The `app` of one of this package's modules, served by workers that share a port.

    A context manager that starts and ends them. The workers log to one file in `folder`, and get the
    variables of `environment` besides those of this process.
    """

    def __init__(self, module: str, folder: Path, workers: int = 1, **environment: str) -> None:
        self.name = f"stock_api.{module}"
        self.url = ""
        self._workers = workers
        self._log = folder / f"{module}.log"
        self._environment = _clean_environment() | environment
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(process.pid for process in self._processes)

    def __enter__(self) -> Self:
        try:
            with _listener() as listener:
                self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                for _ in range(self._workers):
                    self._processes.append(self._start_worker(listener))
            self._await_workers()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()

    def end(self) -> None:
        """End the workers: asked first, then, if they linger, killed."""
        with _undisturbed():
            for process in self._processes:
                process.terminate()
            for process in self._processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_SECONDS)
                process.kill()  # nothing happens if it has ended
                process.wait()
            self._processes.clear()

    def _start_worker(self, listener: socket.socket) -> subprocess.Popen[bytes]:
        descriptor = listener.fileno()
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "stock_api.worker", f"{self.name}:app", str(descriptor)],
                cwd=_EXAMPLES,  # where the package is found, and from where settings.toml is looked for
                env=self._environment,
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C goes to the whole group of the terminal; the children end in our order instead
                start_new_session=True,
            )

    def _await_workers(self) -> None:
        """Block until each worker has answered; each try is a new connection, taken by whoever is free."""
        answered: set[int] = set()
        deadline = time.monotonic() + _START_SECONDS
        with httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)) as http:
            while len(answered) < self._workers:
                if self._any_ended() or time.monotonic() > deadline:
                    raise FleetError(f"{self.name} did not start:\n{self._log_tail()}")
                # the port listens from the start: a try waits for a worker, but not for ever for a dead one
                with suppress(httpx.TransportError):
                    answered.add(http.get(f"{self.url}/health", timeout=0.5).json()["worker"])

    def _any_ended(self) -> bool:
        return any(process.poll() is not None for process in self._processes)

    def _log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-_LOG_CHARACTERS:].strip() or "(it logged nothing)"


def interrupt_on_termination() -> None:
    """Let SIGTERM, and the closing of the terminal, end this process as Ctrl-C does: cleaning up."""

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def _listener() -> socket.socket:
    """Return a socket that listens on a port of loopback that the kernel chose: nobody else can take it."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    return listener


def _stop(valkey: ValkeyServer) -> None:
    with _undisturbed():
        valkey.stop()


def _clean_environment() -> dict[str, str]:
    """Return this process's environment without what would reconfigure the example's caches."""
    foreign = ("LAYERCACHE_", "REDIS_", "MEMORY_CACHE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


@contextmanager
def _undisturbed() -> Generator[None]:
    """Ignore Ctrl-C inside the block: an impatient second one would leave children behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals arrive in the main thread only
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
