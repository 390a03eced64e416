"""The annotator as a page, on Starlette."""

from __future__ import annotations

import contextlib
import webbrowser
from pathlib import Path
from secrets import token_hex, token_urlsafe
from threading import Timer

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route

from kplab.apps.annotate.window import Windows
from kplab.apps.listening import Static, address_of, listen
from kplab.apps.security import Guard, is_loopback
from kplab.errors import KplabError

STATIC = Path(__file__).with_name("static")
#: Longest message, bytes: 100 subjects of 133 keypoints, before and after.
LONGEST = 4_000_000


class Json(Response):
    """JSON."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """The bytes of the body."""
        return msgspec.json.encode(content)


def application(windows: Windows, host: str = "127.0.0.1", token: str | None = None) -> Starlette:
    """The application of a project.

    Args:
        host: that it is served on.
        token: that requests must have; None for none.
    """
    version = token_hex(4)  # another project on this port has other images

    def index(request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    async def message(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LONGEST:
                return Json({"kind": "fault", "view": "", "text": "the message is too long."}, 413)
        answer = await run_in_threadpool(windows.answer, body)
        if answer["kind"] == "image":
            answer["picture"] = f"image/{answer['image']}?v={version}"
        return Json(answer)

    def picture(request: Request) -> Response:
        try:
            data = windows.picture(int(request.path_params["image"]))
        except (KplabError, OSError) as error:
            return Json({"text": str(error)}, 404)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    routes = [
        Route("/", index),
        Route("/message", message, methods=["POST"]),
        Route("/image/{image:int}", picture),
        Mount("/static", Static(directory=STATIC)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, name="annotate", host=host, token=token)])


def serve(windows: Windows, host: str, port: int, open_browser: bool) -> None:
    """Serve until Ctrl-C; prints the address.

    Raises:
        ConfigError: the port is taken.
    """
    listening = listen(host, port)
    token = None if is_loopback(host) else token_urlsafe(24)
    address = address_of(listening, host, token)
    print(f"annotator: {address}   (Ctrl-C ends it)", flush=True)
    if open_browser:
        Timer(0.5, webbrowser.open, [address]).start()
    options = uvicorn.Config(
        application(windows, host, token),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(options).run(sockets=[listening])
