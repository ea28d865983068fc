"""A server on an address of this machine until it is stopped."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from uar.errors import UserError

log = logging.getLogger(__name__)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens. `port` 0: any free one. UserError where it cannot."""
    if not 0 <= port < 1 << 16:
        raise UserError(f"port={port}: 0 to 65535 are allowed; 0 takes any free one")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.socket(family)
    except OSError as error:
        raise UserError(f"host={host}: no address of this machine ({error.strerror}); give host=127.0.0.1") from error
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen()  # from here on who comes waits, and is not turned away
        except OSError as error:
            raise UserError(
                f"port={port}: cannot listen on {host} ({error}); give another port=, 0 for any free one"
            ) from error
        yield sock


def address(sock: socket.socket, host: str, token: str | None) -> str:
    """Of the page, as a browser takes it; of all addresses of the machine that of its name."""
    every = host in ("0.0.0.0", "::")
    name = socket.gethostname() if every else f"[{host}]" if ":" in host else host
    return f"http://{name}:{sock.getsockname()[1]}/" + (f"?token={token}" if token else "")


def serve(app: ASGIApp, sock: socket.socket, started: Callable[[uvicorn.Server], None]) -> None:
    """Answer until the server that `started` was given is told to exit, or Ctrl-C."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=3, ws="none"
    )
    server = uvicorn.Server(config)
    started(server)
    server.run(sockets=[sock])
