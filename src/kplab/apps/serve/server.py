"""The server: routes, their errors, and its start and end."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from secrets import token_urlsafe

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from kplab.apps import dashboard
from kplab.apps.listening import Static, address_of, listen
from kplab.apps.security import Guard, is_loopback
from kplab.apps.serve.answers import (
    BODY,
    DESCRIPTION,
    FAULTS,
    Answer,
    Health,
    ModelAnswer,
    health_answer,
    image_answer,
    model_answer,
)
from kplab.apps.serve.metrics import CONTENT_TYPE, Measure
from kplab.apps.serve.service import Limits, QueueFull, RequestTooLarge, Result, Service, UnknownFormat, Upload
from kplab.apps.serve.uploads import BadRequest, read_uploads
from kplab.data.images import ImageTooLarge
from kplab.errors import DataError, KplabError
from kplab.runs.run import Run
from kplab.tasks.inference.loading import LoadedRun

STATIC = Path(__file__).with_name("static")
#: Modules and styles that the pages of both servers use.
COMMON = Path(dashboard.__file__).with_name("static")
PATHS = frozenset({"/", "/predict", "/health", "/model", "/metrics", "/openapi.json"})
#: Seconds after which a client may try again.
RETRY = {"Retry-After": "1"}


class TooSlow(KplabError):
    """A request that did not arrive in time."""


class Overloaded(KplabError):
    """An answer that took too long."""


#: Status of each error; the first kind that fits.
STATUS: tuple[tuple[type[KplabError], int, dict[str, str]], ...] = (
    (UnknownFormat, 415, {}),
    (ImageTooLarge, 413, {}),
    (RequestTooLarge, 413, {}),
    (QueueFull, 429, RETRY),
    (Overloaded, 503, RETRY),
    (TooSlow, 408, {}),
    (BadRequest, 400, {}),
    (DataError, 422, {}),
)


def application(service: Service, host: str = "127.0.0.1", token: str | None = None) -> ASGIApp:
    """The application of a service.

    Args:
        host: that it is served on.
        token: that requests must have; None for none.
    """
    skeleton, limits = service.loaded.skeleton, service.limits

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="kplab serve",
        version=version("kplab"),
        description=DESCRIPTION,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )

    @app.post("/predict", responses=FAULTS, openapi_extra=BODY)
    async def predict(request: Request) -> Answer:
        """Predict the poses of one image, or of several."""
        with service.places.request() as hold:
            try:
                async with asyncio.timeout(limits.seconds):
                    uploads = await read_uploads(request, limits)
            except TimeoutError:
                raise TooSlow(f"the request did not arrive within {limits.seconds:g} s.") from None
            hold(sum(upload.places for upload in uploads))
            try:
                async with asyncio.timeout(limits.seconds):
                    results = await all_of(service, uploads)
            except TimeoutError:
                raise Overloaded(f"no answer within {limits.seconds:g} s. Try again later.") from None
        images = [image_answer(result, skeleton) for result in results]
        service.metrics.images.inc(len(images))
        service.metrics.poses.inc(sum(len(image.poses) for image in images))
        return Answer(run=service.loaded.run.name, images=images)

    @app.get("/health")
    async def health() -> Health:
        """Whether the service answers."""
        return health_answer(service)

    @app.get("/model")
    async def model() -> ModelAnswer:
        """The run, its keypoints, and the limits of requests."""
        return model_answer(service)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {CONTENT_TYPE: {}}}})
    async def metrics() -> Response:
        """Measurements in Prometheus' text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    @app.exception_handler(KplabError)
    async def refused(request: Request, error: KplabError) -> JSONResponse:
        status, headers = next((s, h) for kind, s, h in STATUS if isinstance(error, kind))
        return JSONResponse({"error": str(error)}, status, headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # no client is left to read it

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        text = f"the server failed: {type(error).__name__}. Its terminal shows where."
        return JSONResponse({"error": text}, 500)

    app.mount("/static", Static(directory=STATIC))
    app.mount("/common", Static(directory=COMMON))
    # around the whole of it, so that answers to a failure of the server are counted and have the headers, too
    return Measure(Guard(app, "serve", host, token, programs=True), service.metrics, PATHS)


async def all_of(service: Service, uploads: list[Upload]) -> list[Result]:
    """The results of all images of a request, whose views share batches; the first error if one fails."""
    found = await asyncio.gather(*map(service.predict, uploads), return_exceptions=True)
    results: list[Result] = []
    for result in found:
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results


def serve(
    run: Run,
    limits: Limits,
    *,
    batch_size: int,
    wait: float,
    host: str,
    port: int,
    token: str | None = None,
    checkpoint: str = "auto",
    device: str = "auto",
    flip_test: bool | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM, then answer what was accepted; prints the address once requests are answered.

    Args:
        run: that predicts.
        limits: of requests.
        batch_size: views at a time.
        wait: seconds that a view waits for others of its batch.
        host: to listen on.
        port: 0 takes a free one.
        token: that requests must have; None: a random one, or none if the host is this machine's own.
        checkpoint: see ``load_model``.
        device: auto, cpu, cuda, …
        flip_test: None is as trained.

    Raises:
        ConfigError: the port is taken, or there is no such device.
        RunError: the run has no such checkpoint.
    """
    listening = listen(host, port)
    service = Service(LoadedRun.load(run, checkpoint, device, flip_test), limits, batch_size, wait)
    service.warm()
    token = token or (None if is_loopback(host) else token_urlsafe(24))
    print(f"{run.name} on {service.loaded.model.device}", file=sys.stderr, flush=True)
    print(f"serve: {address_of(listening, host, token)}   (Ctrl-C ends it)", flush=True)
    options = uvicorn.Config(
        application(service, host, token),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(limits.seconds) + 5,
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(options).run(sockets=[listening])
