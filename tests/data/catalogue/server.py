"""A server on this machine that behaves badly on purpose."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file of the server, and how it is sent.

    Args:
        content: the bytes.
        cut: the connection ends after this many bytes of each answer.
        stall: as cut, but the connection stays open and nothing follows.
        corrupt: number of answers whose first byte is wrong.
        ranges: whether Range is obeyed.
        etag: validator; None for none.
        length: whether the length is stated.
        status: of the first answers, in place of the file.
        redirect: address to redirect to.
        kind: Content-Type.
        shift: bytes by which the part that is sent begins too late.
    """

    content: bytes = b""
    cut: int | None = None
    stall: int | None = None
    corrupt: int = 0
    ranges: bool = True
    etag: str | None = '"v1"'
    length: bool = True
    status: list[int] = field(default_factory=list)
    redirect: str | None = None
    kind: str = "application/octet-stream"
    shift: int = 0


class BadServer(ThreadingHTTPServer):
    """Files by path, and the requests that were made."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.answers: Counter[str] = Counter()
        self.ended = threading.Event()

    def url(self, path: str) -> str:
        """The address of a file."""
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(BaseHTTPRequestHandler):
    """Answers to GET."""

    protocol_version = "HTTP/1.1"
    server: BadServer

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        path, asked = self.path.lstrip("/"), self.headers.get("Range")
        self.server.asked.append((path, asked))
        self.server.answers[path] += 1
        self.close_connection = True
        file = self.server.files.get(path)
        if file is None or file.status:
            self._head(404 if file is None else file.status.pop(0), {"Content-Length": "0"})
            return
        if file.redirect is not None:
            self._head(302, {"Location": file.redirect, "Content-Length": "0"})
            return
        start, content = 0, file.content
        same = self.headers.get("If-Range") in (None, file.etag)
        if asked and file.ranges and same:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            if start >= len(content):
                self._head(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(content)}"})
                return
        headers = {"Content-Type": file.kind}
        if start:
            headers["Content-Range"] = f"bytes {start + file.shift}-{len(content) - 1}/{len(content)}"
        if file.etag:
            headers["ETag"] = file.etag
        body = bytearray(content[start:])
        if self.server.answers[path] <= file.corrupt:
            body[0] ^= 255
        if file.length:
            headers["Content-Length"] = str(len(body))
        self._head(206 if start else 200, headers)
        end = min(x for x in (file.cut, file.stall, len(body)) if x is not None)
        self.wfile.write(bytes(body[:end]))
        self.wfile.flush()
        if file.stall is not None and end < len(body):
            self.server.ended.wait(20)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def serving() -> Iterator[BadServer]:
    """A running server."""
    server = BadServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
        time.sleep(0)
