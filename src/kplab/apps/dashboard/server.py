"""The server: pages, JSON, images and events, on Starlette."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import traceback
import webbrowser
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from secrets import token_urlsafe
from threading import Timer
from types import FrameType
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from kplab.apps.dashboard import query
from kplab.apps.dashboard.index import Index, Watcher, cache_folder
from kplab.apps.dashboard.results import Results
from kplab.apps.dashboard.security import find_run
from kplab.apps.listening import Static, address_of, listen
from kplab.apps.security import Guard, is_loopback
from kplab.errors import ConfigError, KplabError, describe, is_refused
from kplab.runs import notes

STATIC = Path(__file__).with_name("static")
#: Seconds between looks at the folder of runs, for pages that are open.
EVERY = 1.0
#: Longest body of a request.
LONGEST = 200_000


class Json(Response):
    """JSON; NaN is null."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        try:
            return msgspec.json.encode(content)
        except (UnicodeEncodeError, OverflowError):
            return json.dumps(encodable(content)).encode()


def encodable(value: Any) -> Any:
    """Content of a file as every reader of JSON takes it: half characters as escapes, numbers without end as null."""
    if isinstance(value, dict):
        return {encodable(str(key)): encodable(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [encodable(v) for v in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if -1e300 < value < 1e300 else None
    return value


class Service:
    """What the routes share: the index, and results that are computed once."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        cache = cache_folder(runs_dir)
        self.index = Index(runs_dir, cache / "index.sqlite")
        self.watcher = Watcher(self.index)
        self.results = Results(runs_dir, cache)
        self.stopping = False

    def close(self) -> None:
        """End worker processes and close the index."""
        self.stopping = True
        self.results.close()
        self.index.close()

    # each of these answers one address; the arguments are those of its query

    def runs(self, args: dict[str, str]) -> Any:
        """A page of the table."""
        version = self.watcher.check()
        return {**query.page(self.index, asked(args)), "version": version}

    def groups(self, args: dict[str, str]) -> Any:
        """Groups of the table."""
        self.watcher.check()
        return query.groups(self.index, asked(args), listed(args.get("by", "")))

    def keys(self, args: dict[str, str]) -> Any:
        """Keys that the table can be sorted, filtered and grouped by."""
        self.watcher.check()
        return query.keys(self.index)

    def run(self, args: dict[str, str]) -> Any:
        """One run."""
        return self.results.run(args)

    def curves(self, args: dict[str, str]) -> Any:
        """Learning curves of runs."""
        return self.results.curves(args)

    def analysis(self, args: dict[str, str]) -> Any:
        """Charts of scores."""
        return self.results.analysis(args)

    def intervals(self, args: dict[str, str]) -> Any:
        """Metrics with intervals, and differences."""
        return self.results.intervals(args)

    def compare(self, args: dict[str, str]) -> Any:
        """What a comparison shows at once: names, shared scores, differences of the configs."""
        return self.results.compare(args)

    def images(self, args: dict[str, str]) -> Any:
        """A page of images."""
        return self.results.images(args)


def asked(args: dict[str, str]) -> query.Query:
    """A query from the arguments of an address."""
    try:
        offset, limit = int(args.get("offset", 0)), int(args.get("limit", 100))
    except ValueError:
        raise ConfigError("offset and limit are whole numbers.") from None
    sort = args.get("sort") or "-started"
    return query.Query(args.get("q", ""), sort, max(0, offset), max(1, limit), listed(args.get("columns", "")))


def listed(text: str) -> list[str]:
    """The names of a list that is separated by commas."""
    return [name for name in text.split(",") if name]


def answer(make: Callable[[], Any]) -> Response:
    """A response; a mistake that the user can correct is one of status 400."""
    try:
        found = make()
        return found if isinstance(found, Response) else Json(found)
    except KplabError as error:
        return Json({"error": str(error)}, 400)
    except Exception as error:
        if is_refused(error):
            return Json({"error": describe(error)}, 400)
        traceback.print_exc()
        return Json({"error": f"the server failed: {type(error).__name__}. Its terminal shows where."}, 500)


def application(service: Service, host: str = "127.0.0.1", token: str | None = None) -> Starlette:
    """The application of a service.

    Args:
        host: that it is served on.
        token: that requests must have; None for none.
    """

    def get(name: str) -> Route:
        method = getattr(service, name)

        def endpoint(request: Request) -> Response:
            return answer(lambda: method(dict(request.query_params)))

        return Route(f"/api/{name}", endpoint)

    def index(request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    def image(request: Request) -> Response:
        return answer(lambda: service.results.image(dict(request.query_params)))

    def heatmap(request: Request) -> Response:
        return answer(lambda: service.results.heatmap(dict(request.query_params)))

    def figure(request: Request) -> Response:
        return answer(lambda: service.results.figure(dict(request.query_params)))

    async def write_notes(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LONGEST:
                return Json({"error": "the note is too long."}, 413)

        def make() -> Any:
            try:
                given = json.loads(body)
                name, tags, note = given["name"], given["tags"], given["note"]
                if not isinstance(tags, list) or not all(isinstance(t, str) for t in (name, note, *tags)):
                    raise ValueError("no text")
            except (ValueError, KeyError, TypeError, RecursionError):
                raise ConfigError("notes are name, tags and note, as JSON.") from None
            written = notes.write(find_run(service.runs_dir, name).folder, tags, note)
            service.watcher.check(force=True)
            return written

        return await run_in_threadpool(answer, make)

    async def events(request: Request) -> Response:
        return StreamingResponse(
            stream(service, request), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        service.close()

    plain = ("runs", "groups", "keys", "run", "curves", "analysis", "intervals", "compare", "images")
    routes = [
        Route("/", index),
        *(get(name) for name in plain),
        Route("/api/notes", write_notes, methods=["POST"]),
        Route("/api/events", events),
        Route("/image", image),
        Route("/heatmap", heatmap),
        Route("/figure", figure),
        Mount("/static", Static(directory=STATIC)),
    ]
    app = Starlette(
        routes=routes, middleware=[Middleware(Guard, name="dashboard", host=host, token=token)], lifespan=lifespan
    )
    app.state.service = service
    return app


async def stream(service: Service, request: Request) -> AsyncIterator[str]:
    """Server-sent events: a change of the runs, and the progress of those that run."""
    before: Any = None
    quiet = 0
    while not service.stopping and not await request.is_disconnected():
        found = await run_in_threadpool(service.results.live, service.watcher, service.index)
        if found != before:
            yield f"data: {json.dumps(found)}\n\n"
            before, quiet = found, 0
        elif (quiet := quiet + 1) % 15 == 0:
            yield ": still here\n\n"
        await asyncio.sleep(EVERY)


def serve(runs_dir: Path, host: str, port: int, open_browser: bool) -> None:
    """Serve until Ctrl-C; prints the address.

    Raises:
        ConfigError: the port is taken.
    """
    listening = listen(host, port)
    token = None if is_loopback(host) else token_urlsafe(24)
    runs_dir.mkdir(parents=True, exist_ok=True)
    print(f"reading the runs in {runs_dir} …", file=sys.stderr, flush=True)
    service = Service(runs_dir)
    service.watcher.check(force=True)
    address = address_of(listening, host, token)
    print(f"dashboard: {address}   (Ctrl-C ends it)", flush=True)
    if open_browser:
        Timer(0.5, webbrowser.open, [address]).start()
    app = application(service, host, token)
    options = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2
    )
    with contextlib.suppress(KeyboardInterrupt):
        Server(options, service).run(sockets=[listening])


class Server(uvicorn.Server):
    """Ends open event streams when it is asked to stop, as they would keep it running."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, as Ctrl-C or a signal asks for."""
        self.service.stopping = True
        super().handle_exit(sig, frame)
