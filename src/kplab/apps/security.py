"""What a server of kplab refuses: other hosts and origins, and requests without the token."""

from __future__ import annotations

import ipaddress
import secrets
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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

    The token is given as ``Authorization: Bearer TOKEN``, as a cookie, or once as ``?token=``, which sets the cookie.

    Args:
        app: what it protects.
        name: of the verb: part of the messages and of the name of the cookie.
        host: that the server listens on.
        token: that each request must have; None asks for none.
        programs: whether requests without an Origin may write, as those of programs other than browsers.
    """

    def __init__(self, app: ASGIApp, name: str, host: str, token: str | None, programs: bool = False) -> None:
        self.app, self.name, self.host, self.token, self.programs = app, name, host, token, programs
        self.cookie = f"kplab_{name}"

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
        answer: ASGIApp = self.app
        fault = self.fault(headers, scope["method"])
        if fault is not None:
            answer = refusal(headers, fault)
        elif self.token is not None and not self._has_token(headers):
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            if self._is_token(given) and scope["method"] in ("GET", "HEAD"):
                answer = redirect = RedirectResponse(scope["path"], 303)
                redirect.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
            else:
                answer = refusal(
                    headers, f"This server needs its token. Open the address that `kplab {self.name}` has printed."
                )
        await answer(scope, receive, with_headers)

    def fault(self, headers: Headers, method: str) -> str | None:
        """Why a request is refused whatever it asks for: a page elsewhere made it, or a name was pointed to this address."""
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname or ""
        # an address of any interface has no name of its own: there the token protects
        allowed = is_loopback(name) if is_loopback(self.host) else self.token is not None
        if not allowed:
            return f"Host '{host}' is not this server's. Open the address that `kplab {self.name}` has printed."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return f"Origin '{origin}' may not use this server."
        if method not in ("GET", "HEAD") and origin is None and not self.programs:
            return "A request that writes needs an Origin."
        followed = method == "GET" and headers.get("sec-fetch-mode") == "navigate"  # a link in a message to this page
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not followed:
            return "Another site may not use this server."
        return None

    def _has_token(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        cookie = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        return (scheme.lower() == "bearer" and self._is_token(given.strip())) or (
            cookie is not None and self._is_token(cookie.value)
        )

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), str(self.token).encode())


def refusal(headers: Headers, text: str) -> Response:
    """A response of status 403: plain text for a page, JSON for a program."""
    if "text/html" in headers.get("accept", ""):
        return PlainTextResponse(text, 403)
    return JSONResponse({"error": text}, 403)
