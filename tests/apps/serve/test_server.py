"""The command, its token and its end; the description of the service, and its measurements."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from kplab.apps.security import is_loopback
from kplab.apps.serve import main
from kplab.apps.serve.answers import Answer, Fault, ModelAnswer
from kplab.apps.serve.server import STATIC, application
from kplab.errors import ConfigError
from kplab.runs.run import Run

from .conftest import Centroids, Client, dots, encoded, known, points_of, served, until
from .test_predict import RUNS

GOOD = encoded(dots((20, 20), (40, 44)))
TOKEN = "a-token-of-some-length"


def test_the_command_serves_and_answers_what_it_has_accepted(
    untrained: Callable[..., Run], runs_dir: Path, tmp_path: Path
) -> None:
    """SIGTERM arrives while forty requests are open: those that were accepted are answered, and the process ends."""
    run = untrained("heatmap", *RUNS["heatmap"])
    command = [
        sys.executable,
        "-m",
        "kplab.cli",
        "serve",
        f"run={run.name}",
        f"runs_dir={runs_dir}",
        "port=0",
        "device=cpu",
    ]
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
    assert found is not None, (tmp_path / "errors").read_text()
    client = Client(found[0], None)  # type: ignore[arg-type]
    assert client.get("/health").json == {"status": "ready", "run": run.name, "device": "cpu"}
    wanted = client.post(GOOD).json
    begun, statuses = threading.Event(), []

    def ask(_: int) -> None:
        try:
            answer = client.post(GOOD)
        except OSError:  # refused, or closed before anything was accepted
            return
        statuses.append(answer.status)
        assert len(answer.json["images"]) == len(wanted["images"])
        begun.set()

    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(ask, i) for i in range(40)]
        begun.wait(20)
        process.send_signal(signal.SIGTERM)
        for future in asked:
            future.result()
    process.wait(20)
    assert statuses
    assert set(statuses) == {200}
    assert "Traceback" not in (tmp_path / "errors").read_text()


def test_an_accepted_request_is_answered_after_the_server_was_asked_to_stop() -> None:
    model = Centroids()
    with served(known(model)) as client, ThreadPoolExecutor(1) as pool:
        model.batches.clear()
        model.gate.clear()
        answer = pool.submit(client.post, GOOD)
        until(lambda: model.batches == [1])
        threading.Timer(0.3, model.gate.set).start()
    np.testing.assert_allclose(points_of(answer.result().json), [(20, 20), (40, 44)], atol=0.1)


def test_loopback_is_the_default() -> None:
    host = re.search(r"^host: (\S+)", (STATIC.parent / "serve.yaml").read_text(), flags=re.MULTILINE)
    assert host is not None
    assert is_loopback(host[1])


def test_a_token_is_asked_for_everything(model: Centroids) -> None:
    with served(known(model), token=TOKEN) as client:
        for path in ("/", "/health", "/metrics", "/openapi.json", "/model", "/static/serve.js", "/health?token=wrong"):
            assert client.get(path).status == 403, path
        assert client.post(GOOD, query=f"?token={TOKEN}").status == 403, "an address is written to logs"
        for wrong in ("Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer ü"):
            assert client.post(GOOD, Authorization=wrong).status == 403, wrong
        assert client.get("/health").json["error"].startswith("This server needs its token")
        assert client.post(GOOD, Authorization=f"Bearer {TOKEN}").status == 200
        page = client.get(f"/?token={TOKEN}")
        assert (page.status, page.headers["location"]) == (303, "/")
        cookie = page.headers["set-cookie"].split(";")[0]
        assert client.get("/", Cookie=cookie).status == 200
        assert client.post(GOOD, Cookie=cookie, Origin="http://evil.example").status == 403


def test_other_sites_may_not_ask(client: Client) -> None:
    """A program sends no Origin; a page of another site does."""
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        assert client.post(GOOD, **headers).status == 403, headers
    assert client.post(GOOD, Origin=client.url.rstrip("/")).status == 200


def test_every_answer_has_a_strict_policy(client: Client) -> None:
    for path in ("/", "/health", "/openapi.json", "/nothing", "/docs", "/static/serve.js", "/common/pose_view.js"):
        answer = client.get(path)
        assert answer.status == (404 if path in ("/nothing", "/docs") else 200), path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/nothing").json == {"error": "Not Found"}
    assert client.get("/predict").status == 405


def resolved(document: dict, node: dict) -> dict:
    """A schema that is named elsewhere in the document."""
    return document["components"]["schemas"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def test_the_description_is_that_of_the_answers(client: Client) -> None:
    """Each documented status, and the types of the answers, are those that are returned."""
    document = client.get("/openapi.json").json
    assert document["openapi"].startswith("3.")
    assert "pixel indices, the centre of the first pixel is (0, 0)" in document["info"]["description"]
    assert set(document["paths"]) == {"/predict", "/health", "/model", "/metrics"}
    predict = document["paths"]["/predict"]["post"]
    assert {"multipart/form-data", "image/jpeg", "image/png"} <= set(predict["requestBody"]["content"])
    assert set(predict["responses"]) >= {"200", "400", "403", "408", "413", "415", "422", "429", "503"}

    def check(kind: type[BaseModel], answer: bytes, node: dict) -> None:
        assert set(resolved(document, node)["properties"]) == set(json.loads(answer))
        kind.model_validate_json(answer, strict=True)

    schema = {s: r["content"]["application/json"]["schema"] for s, r in predict["responses"].items()}
    check(Answer, client.post(GOOD).body, schema["200"])
    check(Fault, client.post(b"").body, schema["415"])
    model = document["paths"]["/model"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    check(ModelAnswer, client.get("/model").body, model)


def sample(text: str, name: str) -> float:
    """A value of Prometheus' text format; 0 where it is not there."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, flags=re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_what_is_measured_is_what_happened(model: Centroids) -> None:
    with served(known(model)) as client:
        model.batches.clear()
        for _ in range(3):
            client.post(GOOD)
        client.form(*((f"{i}.png", GOOD) for i in range(5)))
        client.post(b"no image")
        client.get("/secret-address")
        client.get("/health", Host="evil.example")
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = answer.body.decode()
        assert sample(text, 'kplab_requests_total{path="/predict",status="200"}') == 4
        assert sample(text, 'kplab_requests_total{path="/predict",status="415"}') == 1
        assert sample(text, 'kplab_requests_total{path="other",status="404"}') == 1
        assert sample(text, 'kplab_requests_total{path="/health",status="403"}') == 1
        assert "secret-address" not in text
        assert sample(text, "kplab_images_total") == sample(text, "kplab_poses_total") == 8
        assert sample(text, "kplab_batch_size_sum") == sum(model.batches) == 8
        assert sample(text, "kplab_batch_size_count") == len(model.batches)
        assert sample(text, 'kplab_request_seconds_count{path="/predict"}') == 5
        assert sample(text, "kplab_queue_places") == sample(text, "kplab_queue_views") == 0
        # while one waits in the network, and another one for it
        model.gate.clear()
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(client.post, GOOD)]
            until(lambda: len(model.batches) > sample(text, "kplab_batch_size_count"))
            asked.append(pool.submit(client.post, GOOD))
            until(lambda: len(client.service.batcher) == 1)
            text = client.get("/metrics").body.decode()
            model.gate.set()
            assert [f.result().status for f in asked] == [200, 200]
        assert (sample(text, "kplab_queue_places"), sample(text, "kplab_queue_views")) == (2, 1)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ["port=70000", "queue=0", "max_mb=-1", "wait_ms=5000"],
            "(?s)max_mb is -1.*queue is 0.*wait_ms.*port is 70000",
        ),
        (["max_megapixels=1000"], "kplab reads 179 at most"),
        (["token=short"], "token has fewer than 16 characters"),
        (["run=nothing"], "has no runs yet"),
    ],
)
def test_wrong_options_are_named(overrides: list[str], text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=text):
        main(["run=x", f"runs_dir={tmp_path}", *overrides])


def test_a_device_that_does_not_exist_is_named(untrained: Callable[..., Run], runs_dir: Path) -> None:
    run = untrained("heatmap", *RUNS["heatmap"])
    with pytest.raises(ConfigError, match="device=cuda:77"):
        main([f"run={run.name}", f"runs_dir={runs_dir}", "port=0", "device=cuda:77"])


def test_the_application_needs_no_network_to_describe_itself(client: Client) -> None:
    """FastAPI's own pages would load scripts from elsewhere; sources of the page name no other host."""
    assert application(client.service) is not None
    for path in STATIC.glob("*"):
        text = path.read_text()
        assert not re.search(r"https?://", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )


def test_views_wait_for_others_for_a_moment_only(model: Centroids) -> None:
    """A request alone is answered after the wait, and not after the time limit."""
    with served(known(model), wait=0.2) as client:
        begun = time.perf_counter()
        assert client.post(GOOD).status == 200
        assert 0.2 <= time.perf_counter() - begun < 10
