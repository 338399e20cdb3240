"""Between a cache and its server: passes everything on, and ends connections, where nobody expects it."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

__all__ = ["CuttingProxy"]


class CuttingProxy:
    """Passes everything on to the server at `port`.

    Args:
        one_in: of so many pieces that come by, one is cut anywhere and its connection ended; 0: none.

    Attributes:
        cuts: how many connections it has ended.
        swallows: end the connection of the next answer, instead of passing that on.
    """

    def __init__(self, port: int, one_in: int = 0) -> None:
        self._target, self._one_in, self._random, self.cuts = port, one_in, random.Random(7), 0
        self.swallows = False
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def _start(self, act: Callable[..., None], *args: Any) -> None:
        self._threads.append(threading.Thread(target=act, args=args))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                self._start(self._pass_on, client, server, False)
                self._start(self._pass_on, server, client, True)

    def _pass_on(self, source: socket.socket, target: socket.socket, are_answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if (
                    self.swallows and are_answers and not data.startswith(b"+OK")
                ):  # which greetings are answered with
                    self.cuts, self.swallows = self.cuts + 1, False
                    break
                if self._one_in and self._random.randrange(self._one_in) == 0:
                    self.cuts += 1
                    target.sendall(data[: self._random.randrange(len(data) + 1)])
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._sockets.append(self._listener)
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()
