"""What the service refuses, with which status, and that it goes on afterwards."""

from __future__ import annotations

import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest

from kplab.apps.serve.service import Limits

from .conftest import LIMITS, Centroids, Client, dots, encoded, known, multipart, points_of, served, until

GOOD = encoded(dots((20, 20), (40, 44)))
POINTS = [(20, 20), (40, 44)]


@pytest.fixture(autouse=True)
def goes_on(client: Client, model: Centroids) -> Iterator[None]:
    """After each of these tests the service has all places free, and answers."""
    yield
    model.gate.set()
    until(lambda: client.service.places.taken == 0)
    np.testing.assert_allclose(points_of(client.post(GOOD).json), POINTS, atol=0.1)


def png_of(width: int, height: int) -> bytes:
    """A complete PNG file with a header of this size, and hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "kind", "status", "text"),
    [
        (GOOD, "text/plain", 415, "the body is 'text/plain'"),
        (GOOD, "", 415, "the body is 'of no type'"),
        (b"", "image/png", 415, "not a JPEG, PNG, BMP, TIFF or WebP image"),
        (b"GIF89a" + GOOD, "image/gif", 415, "not a JPEG"),
        (b"<svg onload='x'>", "image/svg+xml", 415, "not a JPEG"),
        (GOOD[:-30], "image/png", 422, "the PNG is truncated"),
        (encoded(dots((1, 1), (2, 2)), ".jpg")[:-20], "image/jpeg", 422, "truncated"),
        (b"RIFF1234WEBP", "image/webp", 422, "no image header"),
        (png_of(0, 0), "image/png", 422, "image: "),
        (png_of(1001, 1000), "image/png", 413, "1001 x 1000 pixels, but 1000000 are allowed"),
        (png_of(60_000, 60_000), "image/png", 413, "too large"),
        (png_of(900, 900), "image/png", 422, "image: "),
        (b"no border", "multipart/form-data; boundary=border", 400, "the form can't be read"),
        (b"x", "multipart/form-data", 400, "boundary"),
        (multipart((), {}), "multipart/form-data; boundary=border", 422, "the request has no image"),
    ],
)
def test_bodies_that_are_refused(client: Client, data: bytes, kind: str, status: int, text: str) -> None:
    answer = client.post(data, kind)
    assert (answer.status, text in answer.json["error"]) == (status, True), answer.body


def test_a_damaged_file_is_named_and_no_other_is_answered(client: Client) -> None:
    answer = client.form(("good.png", GOOD), ("bad <b>.png", GOOD[:-30]))
    assert answer.status == 422
    assert answer.json["error"].startswith("bad <b>.png: the PNG is truncated")


@pytest.mark.parametrize(
    ("boxes", "text"),
    [
        ("no json", "boxes: "),
        ("[[[0, 0, 9]]]", "boxes: "),
        ("[[0, 0, 9, 9]]", "boxes: "),
        ('[[[0, 0, 9, "9"]]]', "boxes: "),
        ("[" * 50_000, "boxes: "),
        ("[]", "boxes has 0 entries, but there are 1 images"),
        ("[[[0, 0, 0, 9]]]", "a box is empty"),
        ("[[[0, 0, 1e300, 9]]]", "no finite corners"),
        ("[[[0, 0, NaN, 9]]]", "boxes: "),
        ("[[[64, 0, 70, 9]]]", "lies outside the image of 64 x 64 pixels"),
        ("[[[-9, 0, 0, 9]]]", "lies outside"),
    ],
)
def test_boxes_that_are_refused(client: Client, boxes: str, text: str) -> None:
    answer = client.form(("a.png", GOOD), boxes=boxes)
    assert answer.status == 422
    assert text in answer.json["error"]


def test_fields_that_are_unknown_are_not_dropped(client: Client) -> None:
    assert "field 'image'" in client.form(("a.png", GOOD), field="image").json["error"]
    assert "field 'box'" in client.form(("a.png", GOOD), box="[]").json["error"]


def test_a_long_body_is_refused_by_its_header(client: Client) -> None:
    """Before any of it is read: it is never sent here."""
    host, port = urlsplit(client.url).netloc.split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(
            f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\nContent-Length: 3000000\r\n\r\n".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_long_body_is_refused_while_it_is_read(client: Client) -> None:
    """A body of unknown length, which would never end."""
    host, port = urlsplit(client.url).netloc.split(":")
    part = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    sent, answered = 0, threading.Event()
    with socket.create_connection((host, int(port)), 20) as connection:

        def receive() -> None:
            nonlocal answer
            answer = connection.recv(1000)
            answered.set()

        answer = b""
        reader = threading.Thread(target=receive)
        reader.start()
        head = (
            f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(head.encode())
        while not answered.is_set() and sent < 50 * LIMITS.bytes:
            try:
                connection.sendall(part)
            except OSError:  # the server has closed the connection
                break
            sent += 0x10000
        reader.join(20)
    assert answer.startswith(b"HTTP/1.1 413 ")
    # what the system buffers on the way comes on top
    assert LIMITS.bytes < sent < 10 * LIMITS.bytes


def test_more_images_than_the_queue_holds_are_refused(client: Client) -> None:
    files = [(f"{i}.png", GOOD) for i in range(LIMITS.queue + 1)]
    assert client.form(*files[:-1]).status == 200
    assert client.form(*files).status == 413
    boxes = str([[[0, 0, 9, 9]] * (LIMITS.queue + 1)])
    answer = client.form(("a.png", GOOD), boxes=boxes)
    assert (answer.status, "Send fewer" in answer.json["error"]) == (413, True)


def test_a_full_queue_refuses_and_loses_nothing(client: Client, model: Centroids) -> None:
    """Each accepted request is answered with its own points, and each other one with 429, at once."""
    model.gate.clear()
    truth = [[(8 + 3 * i, 10), (32, 28 + 2 * i)] for i in range(LIMITS.queue)]
    with ThreadPoolExecutor(LIMITS.queue) as pool:
        accepted = [pool.submit(client.post, encoded(dots(*t))) for t in truth]
        until(lambda: client.service.places.taken == LIMITS.queue)
        for _ in range(5):
            refused = client.post(GOOD)
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert "16 of 16 places" in refused.json["error"]
        assert client.get("/health").status == 200
        model.gate.set()
        for future, t in zip(accepted, truth, strict=True):
            np.testing.assert_allclose(points_of(future.result().json), t, atol=0.1)


def test_a_failure_of_the_model_fails_its_requests_alone(client: Client, model: Centroids) -> None:
    model.broken = True
    answer = client.post(GOOD)
    model.broken = False
    assert answer.status == 500
    assert answer.json == {"error": "the server failed: RuntimeError. Its terminal shows where."}
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_requests_that_take_too_long_end() -> None:
    """One whose body does not come, and one that the network does not reach in time, which is then not computed."""
    model = Centroids()
    with served(known(model), Limits(1000_000, 1000_000, 4, 0.3)) as client:
        model.batches.clear()
        model.gate.clear()
        with ThreadPoolExecutor(2) as pool:
            blocked = pool.submit(client.post, GOOD)
            until(lambda: model.batches == [1])
            answer = client.post(GOOD)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert blocked.result().status == 503
        model.gate.set()
        assert client.post(GOOD).status == 200
        assert model.batches == [1, 1], "the second request was given up before its turn"
        host, port = urlsplit(client.url).netloc.split(":")
        with socket.create_connection((host, int(port)), 20) as connection:
            connection.sendall(
                f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\nContent-Length: 900\r\n\r\nabc".encode()
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        until(lambda: client.service.places.taken == 0)


def test_clients_that_disconnect_free_their_place(client: Client) -> None:
    host, port = urlsplit(client.url).netloc.split(":")
    connection = socket.create_connection((host, int(port)), 20)
    connection.sendall(
        f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\nContent-Length: 900\r\n\r\nabc".encode()
    )
    until(lambda: client.service.places.taken == 1)
    connection.close()
    until(lambda: client.service.places.taken == 0)
