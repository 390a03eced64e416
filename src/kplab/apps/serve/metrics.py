"""Measurements of a service, as Prometheus reads them."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Type of the text that ``Metrics.text`` returns.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters and histograms of one service.

    Args:
        waiting: views that wait for the network.
        places: images and boxes of the requests that are not answered yet.
    """

    def __init__(self, waiting: Callable[[], int], places: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "kplab_requests", "Requests that were answered.", ["path", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "kplab_request_seconds", "Time from a request to its answer.", ["path"], buckets=SECONDS, registry=self.registry
        )  # fmt: skip
        self.images = Counter("kplab_images", "Images whose poses were returned.", registry=self.registry)
        self.poses = Counter("kplab_poses", "Poses that were returned.", registry=self.registry)
        self.sizes = Histogram("kplab_batch_size", "Views of a batch.", buckets=SIZES, registry=self.registry)
        self.network = Histogram(
            "kplab_batch_seconds", "Time of the network for a batch.", buckets=SECONDS, registry=self.registry
        )
        for name, text, value in (
            ("kplab_queue_views", "Views that wait for the network.", waiting),
            ("kplab_queue_places", "Images and boxes of requests that are not answered yet.", places),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)

    def batch(self, views: int, seconds: float) -> None:
        """Count a batch."""
        self.sizes.observe(views)
        self.network.observe(seconds)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)


class Measure:
    """Middleware: counts requests by path and status, and their time.

    Args:
        app: what it measures.
        metrics: where they are counted.
        paths: that are counted by name; all others are counted together.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self.paths else "other"
        begun, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.latency.labels(path).observe(time.perf_counter() - begun)
