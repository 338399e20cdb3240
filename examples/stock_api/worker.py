"""One uvicorn worker on a socket that listens already: `python -m stock_api.worker MODULE:APP DESCRIPTOR`.

`uvicorn --workers` would do, but for one thing: its socket does not name its protocol, and asyncio
turns Nagle's algorithm off only for sockets that say TCP. Each answer on a kept connection would then
wait 40 ms for the client's delayed acknowledgement, which is twenty times what a hit takes (measured;
Kludex/uvicorn issue 3149).
"""

import socket
import sys

import uvicorn

# a client that measures must keep its connections: they decide which worker answers
_KEEP_ALIVE_SECONDS = 120
_SECONDS_TO_FINISH = 2


def main() -> None:
    app, descriptor = sys.argv[1:]
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=int(descriptor))
    config = uvicorn.Config(
        app,
        loop="asyncio",  # what the demo's numbers were made on; left out, it would be uvloop wherever that is installed
        log_level="warning",
        proxy_headers=False,  # nobody is in front of it, so who asks for /cache is who connects
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SECONDS_TO_FINISH,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
