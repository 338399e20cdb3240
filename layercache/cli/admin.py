"""`layercache admin`: the management API and the dashboard, in a process of their own."""

from __future__ import annotations

import logging
import sys
from ipaddress import ip_address
from typing import Annotated

import typer

from layercache.cli.printing import print_json
from layercache.cli.world import AsJson, Environment, SettingsFile, world
from layercache.errors import CacheError, MissingExtra

__all__ = ["admin"]

Host = Annotated[str, typer.Option(help="The address to listen on.")]
PortNumber = Annotated[
    int, typer.Option("--port", "-p", min=0, max=65535, help="The port; 0: any that is free.")
]


def admin(
    host: Host = "127.0.0.1",
    port: PortNumber = 8790,
    settings: SettingsFile = None,
    environment: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Serve the management API and, at /dashboard, the dashboard, until Ctrl-C.

    Stores are looked at and changed from here; what it counts, is what this process itself does. On another address
    than one of loopback it needs tokens in [default.admin] of the settings.
    """
    with world(settings, environment, as_json) as caches:
        tokens = caches.settings.admin
        if tokens.read_token is None and tokens.write_token is None and not _is_loopback(host):
            raise typer.BadParameter(
                f"without a token in [default.admin] only loopback is served, not {host}", param_hint="--host"
            )
        try:
            import uvicorn

            from layercache.admin import app
        except ImportError as error:
            missing = (
                error if isinstance(error, MissingExtra) else MissingExtra("this", error.name or "", "admin")
            )
            raise missing from None
        for name in caches:
            try:
                caches[name]
            except (CacheError, ImportError) as error:
                typer.echo(f"{name} cannot be opened: {error}", err=True)
        logging.basicConfig(format="%(asctime)s %(name)s %(message)s", level=logging.WARNING)
        logging.getLogger("layercache.admin").setLevel(logging.INFO)
        # who asks is who connects: what a request says of where it comes from is not believed
        config = uvicorn.Config(
            app(caches), host=host, port=port, proxy_headers=False, server_header=False, log_level="warning"
        )
        server = uvicorn.Server(config)
        sock = config.bind_socket()
        bound = sock.getsockname()[1]
        named = f"[{host}]" if ":" in host else host
        url = f"http://{named}:{bound}"
        if as_json:
            print_json({"url": url, "dashboard": f"{url}/dashboard"})
        else:
            typer.echo(f"{url}/dashboard")
        sys.stdout.flush()  # who started it may wait for this, and gets nothing more
        server.run(sockets=[sock])


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
