"""What the servers of kplab share: the socket, its address, and the files of the pages."""

from __future__ import annotations

import socket
from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from kplab.errors import ConfigError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: the port is taken, or the host is none of this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio turns Nagle's algorithm off only where the protocol is stated: with it, answers come up to 40 ms late
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)  # the address is printed before the first request is answered
        return made
    except OSError as error:
        raise ConfigError(
            f"can't listen on {host}:{port} ({error.strerror}). Choose another: port=0 takes a free one."
        ) from None


def address_of(listening: socket.socket, host: str, token: str | None) -> str:
    """The address to open in a browser.

    Args:
        listening: the socket, whose port is used.
        host: as configured; an address of any interface is shown as the name of the machine.
        token: part of the address; None for none.
    """
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")


class Static(StaticFiles):
    """Files of the pages, which a browser asks for anew: a new version of kplab has others."""

    def file_response(self, *args: Any, **more: Any) -> Response:
        """The response of one file."""
        response = super().file_response(*args, **more)
        response.headers["Cache-Control"] = "no-cache"
        return response
