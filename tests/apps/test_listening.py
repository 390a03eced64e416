"""The socket of a server."""

from __future__ import annotations

import asyncio
import socket

import pytest

from kplab.apps.listening import address_of, listen
from kplab.errors import ConfigError


def test_answers_are_sent_without_delay() -> None:
    """Nagle's algorithm is off in the connections that asyncio accepts from the socket."""
    found: list[int] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def connect() -> None:
        listening = listen("127.0.0.1", 0)
        server = await asyncio.start_server(accept, sock=listening)
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        assert await reader.read() == b""
        writer.close()
        server.close()

    asyncio.run(connect())
    assert found
    assert found[0] != 0


def test_a_port_that_is_taken_is_named() -> None:
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    assert address_of(listening, "127.0.0.1", None) == f"http://127.0.0.1:{port}/"
    assert address_of(listening, "::1", "secret") == f"http://[::1]:{port}/?token=secret"
    with pytest.raises(ConfigError, match=f"can't listen on 127.0.0.1:{port}"):
        listen("127.0.0.1", port)
    listening.close()
