"""What the server refuses: other hosts and origins, requests without the token, and names that lead out of the runs."""

from __future__ import annotations

import ipaddress
import secrets
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kplab.errors import RunError
from kplab.runs.records import plain_file
from kplab.runs.run import Run

#: Scripts, styles, images and data come from this server alone, and no text of a page is run as a script.
POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' blob:", "connect-src 'self'",
        "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    )
)  # fmt: skip
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
COOKIE = "kplab_dashboard"


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own and can't be reached from others.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Middleware: checks Host, Origin and token of each request, and adds the headers.

    Args:
        app: what it protects.
        host: that the server listens on.
        token: that each request must have, as a cookie or, once, as ``?token=``; None asks for none.
    """

    def __init__(self, app: ASGIApp, host: str, token: str | None) -> None:
        self.app, self.host, self.token = app, host, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        fault = self.fault(headers, scope["method"])
        if fault is not None:
            await PlainTextResponse(fault, 403)(scope, receive, with_headers)
            return
        if self.token is not None and not self._has_cookie(headers):
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            if not secrets.compare_digest(given.encode(), self.token.encode()):
                text = "This dashboard needs its token. Open the address that `kplab dashboard` has printed."
                await PlainTextResponse(text, 403)(scope, receive, with_headers)
                return
            answer = RedirectResponse(scope["path"], 303)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            await answer(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)

    def fault(self, headers: Headers, method: str) -> str | None:
        """Why a request is refused whatever it asks for: a page elsewhere made it, or a name was pointed to this address."""
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname or ""
        # an address of any interface has no name of its own: there the token protects
        allowed = is_loopback(name) if is_loopback(self.host) else self.token is not None
        if not allowed:
            return f"Host '{host}' is not this dashboard's. Open the address that `kplab dashboard` has printed."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return f"Origin '{origin}' may not use this dashboard."
        if method not in ("GET", "HEAD") and origin is None:
            return "A request that writes needs an Origin."
        followed = method == "GET" and headers.get("sec-fetch-mode") == "navigate"  # a link in a message to this page
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not followed:
            return "Another site may not use this dashboard."
        return None

    def _has_cookie(self, headers: Headers) -> bool:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        return cookie is not None and secrets.compare_digest(cookie.value.encode(), str(self.token).encode())


def find_run(runs_dir: Path, name: str) -> Run:
    """The run of a folder's name.

    Raises:
        RunError: it is no name of a folder inside ``runs_dir``, or no run.
    """
    try:
        folder = plain_file(runs_dir / "x", name)
    except ValueError:
        raise RunError(f"'{name}' is no name of a run.") from None
    if name.startswith(".") or not folder.resolve().is_relative_to(runs_dir.resolve()):
        raise RunError(f"'{name}' is no run of {runs_dir}.")
    return Run.open(folder)


def file_of(run: Run, folder: str, name: str) -> Path:
    """A file of a run by its plain name.

    Raises:
        RunError: the name, or a link, leads out of the run's folder.
    """
    try:
        path = plain_file(run.folder / folder / "x", name)
    except ValueError:
        raise RunError(f"'{name}' is no name of a file.") from None
    if not path.resolve().is_relative_to(run.folder.resolve()):
        raise RunError(f"{path}: leads out of {run.folder}.")
    return path
