"""`layercache admin`: the management API and the dashboard, in a process of their own."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from layercache import admin as management
from layercache.caches import Caches
from layercache.cli.options import Call
from layercache.cli.printing import print_json
from layercache.cli.service import is_loopback
from layercache.cli.world import world
from layercache.errors import CacheError, MissingExtra

__all__ = ["admin"]

_Host = Annotated[str, typer.Option(help="The address to listen on.")]
_PortNumber = Annotated[
    int, typer.Option("--port", "-p", min=0, max=65535, help="The port; 0: any that is free.")
]


def admin(host: _Host = "127.0.0.1", port: _PortNumber = 8790, *, call: Call) -> None:
    """Serve the management API and, at /dashboard, the dashboard, until Ctrl-C.

    Stores are looked at and changed from here; what it counts, is what this process itself does. On another address
    than one of loopback it needs tokens in [default.admin] of the settings.
    """
    with world(call) as caches:
        tokens = caches.settings.admin
        if tokens.read_token is None and tokens.write_token is None and not is_loopback(host):
            raise typer.BadParameter(
                f"without a token in [default.admin] only loopback is served, not {host}", param_hint="--host"
            )
        _open_all(caches)
        _serve(caches, host, port, call)


def _open_all(caches: Caches) -> None:
    """Open the caches, so that there is something to be seen of each; one that cannot be is told of there too."""
    for name in caches:
        try:
            caches[name]
        except (CacheError, ImportError) as error:
            typer.echo(f"{name} cannot be opened: {error}", err=True)


def _serve(caches: Caches, host: str, port: int, call: Call) -> None:
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra("layercache admin", "uvicorn", "admin") from error
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s", level=logging.WARNING)
    logging.getLogger("layercache.admin").setLevel(logging.INFO)
    # who asks is who connects: what a request says of where it comes from is not believed
    config = uvicorn.Config(
        management.app(caches),
        host=host,
        port=port,
        proxy_headers=False,
        server_header=False,
        log_level="warning",
    )
    sock = config.bind_socket()
    named = f"[{host}]" if ":" in host else host
    url = f"http://{named}:{sock.getsockname()[1]}"
    if call.as_json:
        print_json({"url": url, "dashboard": f"{url}/dashboard"})
    else:
        typer.echo(f"{url}/dashboard")
    sys.stdout.flush()  # who started it may wait for this, and gets nothing more
    uvicorn.Server(config).run(sockets=[sock])
