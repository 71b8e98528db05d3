"""Parley behind sockets for which the kernel takes next to nothing: `python -m tests.faults.narrow`.

Who reads nothing is felt soon then; with what a kernel takes by itself that takes the traffic of a minute.
"""

from __future__ import annotations

import socket
import sys

from aiohttp import web

SEND_BYTES = 16_384
_start = web.TCPSite.start


async def _start_narrow(site: web.TCPSite) -> None:
    await _start(site)
    for listening in site._server.sockets:  # type: ignore[union-attr]
        with socket.fromfd(listening.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)  # which connections inherit


if __name__ == "__main__":
    web.TCPSite.start = _start_narrow  # type: ignore[method-assign]
    import handlers  # noqa: F401  (declares the commands, before the command line is set up)
    from server.cli.main import main

    sys.argv[1:] = ["serve"]
    main()
