"""What the server refuses, and what it never does: run code of a run, leave the runs, or write data."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from kplab.apps.dashboard.server import STATIC, Service, application
from kplab.apps.listening import listen
from kplab.apps.security import is_loopback

BASE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def client(service: Service) -> TestClient:
    return TestClient(application(service), base_url=BASE)


@pytest.fixture
def copied(made, tmp_path: Path):
    """A service of a folder with one run, which a test may change."""
    runs_dir = tmp_path / "runs"
    shutil.copytree(made.runs_dir / made.a, runs_dir / made.a)
    service = Service(runs_dir)
    yield service
    service.close()


def test_loopback_is_the_default() -> None:
    text = (STATIC.parent / "dashboard.yaml").read_text()
    host = re.search(r"^host: (\S+)", text, flags=re.MULTILINE)
    assert host is not None
    assert is_loopback(host[1])
    made = listen(host[1], 0)
    assert made.getsockname()[0] == "127.0.0.1"
    made.close()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "169.254.1.1", ""])
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    """A name that was pointed to this address, as in DNS rebinding."""
    assert client.get("/api/runs", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_the_own_host_is_not(client: TestClient, host: str) -> None:
    assert client.get("/api/runs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:9999", "null", "https://localhost"])
def test_another_origin_is_refused(client: TestClient, made, origin: str) -> None:
    assert client.get("/api/runs", headers={"Origin": origin}).status_code == 403
    note = {"name": made.b, "tags": ["x"], "note": "from elsewhere"}
    assert client.post("/api/notes", json=note, headers={"Origin": origin}).status_code == 403
    assert client.post("/api/notes", json=note).status_code == 403, "a request that writes needs an origin"
    assert not (made.runs_dir / made.b / "notes.json").exists()


def test_another_site_may_link_to_a_page_and_no_more(client: TestClient) -> None:
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/api/runs", headers={**cross, "Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert client.get("/", headers={**cross, "Sec-Fetch-Mode": "navigate"}).status_code == 200


def test_an_address_for_others_needs_the_token(service: Service) -> None:
    app = application(service, "0.0.0.0", "secret-token")
    for path in ("/", "/api/runs", "/static/app.js", "/api/runs?token=wrong", "/api/runs?token="):
        assert TestClient(app, base_url="http://lab:8000").get(path).status_code == 403, path
    client = TestClient(app, base_url="http://lab:8000")
    answer = client.get("/?token=secret-token", follow_redirects=False)
    assert answer.status_code == 303
    assert "token" not in answer.headers["location"]
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert client.get("/api/runs").status_code == 200
    assert client.get("/api/runs", headers={"Origin": "http://evil.example"}).status_code == 403


def test_every_answer_has_a_strict_policy(client: TestClient) -> None:
    for path in ("/", "/static/app.js", "/api/runs", "/api/run?name=nothing", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "data:" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "name",
    [
        "../outside_run",
        "..",
        ".",
        "",
        "/etc",
        "a/../../outside_run",
        ".dashboard",
        "link_out",
        "%2e%2e",
        "x\0y",
        "..\\x",
    ],
)
def test_no_name_leads_out_of_the_runs(copied: Service, made, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside_run"
    shutil.copytree(made.runs_dir / made.b, outside, ignore=shutil.ignore_patterns("notes.json"))
    (copied.runs_dir / "link_out").symlink_to(outside)
    client = TestClient(application(copied), base_url=BASE)
    origin = {"Origin": BASE}
    for path in ("run", "curves", "analysis", "intervals", "compare", "images"):
        answer = client.get(f"/api/{path}", params={"name": name, "runs": name, "set": "dots-test"})
        assert answer.status_code == 400, (path, answer.text)
    for path in ("/image", "/heatmap", "/figure"):
        parameters = {"run": name, "runs": name, "set": "dots-test", "id": "1", "plot": "pck"}
        assert client.get(path, params=parameters).status_code == 400, path
    answer = client.post("/api/notes", json={"name": name, "tags": [], "note": "x"}, headers=origin)
    assert answer.status_code == 400
    assert not (outside / "notes.json").exists()


@pytest.mark.parametrize("name", ["../../outside", "../scores/dots-test", "/etc/passwd", "..", "linked"])
def test_no_set_leads_out_of_its_run(copied: Service, made, tmp_path: Path, name: str) -> None:
    run = copied.runs_dir / made.a
    (run / "scores" / "linked.record.json").symlink_to(made.runs_dir / made.b / "scores" / "dots-test.record.json")
    client = TestClient(application(copied), base_url=BASE)
    for path, more in (("/api/analysis", {}), ("/api/images", {}), ("/image", {"run": made.a, "id": "1"})):
        answer = client.get(path, params={"runs": made.a, "set": name, **more})
        assert answer.status_code == 400, (path, answer.text)


@pytest.mark.parametrize(
    "path", ["/static/../server.py", "/static/%2e%2e/server.py", "/static//etc/passwd", "/static/"]
)
def test_static_files_are_those_of_the_pages(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_an_image_is_named_by_run_set_and_number_only(client: TestClient, made) -> None:
    """There is no parameter for a path; numbers of other splits and texts are refused."""
    good = {"run": made.a, "set": "dots-test"}
    first = client.get("/api/images", params={"runs": made.a}).json()["items"][0]["id"]
    answer = client.get("/image", params={**good, "id": first})
    assert answer.status_code == 200
    assert answer.content[:2] == b"\xff\xd8"
    assert "immutable" in answer.headers["cache-control"]
    for wrong in ("-1", "999999", "../1", "1;2", "/etc/passwd"):
        assert client.get("/image", params={**good, "id": wrong}).status_code == 400, wrong


def rewrite(folder: Path, old: str, new: str) -> None:
    path = folder / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    "target",
    ["os.system", "subprocess.Popen", "builtins.exec", "kplab.runs.notes.write", "kplab.data.formats.coco.open"],
)
def test_nothing_of_a_run_is_executed(copied: Service, made, tmp_path: Path, target: str) -> None:
    """A run from elsewhere may name any function in its config: it is refused before it is imported."""
    run = copied.runs_dir / made.a
    proof = tmp_path / "proof"
    rewrite(
        run,
        "_target_: kplab.data.formats.coco.read",
        f"_target_: {target}\n      command: touch {proof}\n      args: touch {proof}",
    )
    client = TestClient(application(copied), base_url=BASE)
    for path in ("run", "compare", "analysis", "images", "curves"):
        client.get(f"/api/{path}", params={"name": made.a, "runs": made.a})
    answer = client.get("/api/images", params={"runs": made.a}).json()
    assert "the images can't be shown" in answer["trouble"]
    first = answer["items"][0]["id"]
    assert client.get("/image", params={"run": made.a, "set": "dots-test", "id": first}).status_code == 400
    assert not proof.exists()


def test_opening_a_dataset_writes_nothing(copied: Service, made, tmp_path: Path) -> None:
    """Neither a split nor generated data nor frames of a video, wherever the config of a run points to."""
    run = copied.runs_dir / made.a
    rewrite(run, f"manifest: {made.data}/split.json", f"manifest: {tmp_path}/planted/split.json")
    answer = TestClient(application(copied), base_url=BASE).get("/api/images", params={"runs": made.a}).json()
    assert "is not made here" in answer["trouble"]
    assert not (tmp_path / "planted").exists()


def test_an_environment_variable_that_a_config_names_is_not_shown(
    copied: Service, made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "opensesame")
    rewrite(copied.runs_dir / made.a, "name: dots\n", "name: dots\n  note: ${oc.env:A_SECRET}\n")
    client = TestClient(application(copied), base_url=BASE)
    for path in ("runs", "run", "compare", "keys"):
        assert "opensesame" not in client.get(f"/api/{path}", params={"name": made.a, "runs": made.a}).text


def test_notes_are_written_into_the_run_and_change_no_hash(copied: Service, made) -> None:
    run = copied.runs_dir / made.a
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    client = TestClient(application(copied), base_url=BASE)
    given = {"name": made.a, "tags": ["keep", "b c"], "note": "<b>bold</b>"}
    answer = client.post("/api/notes", json=given, headers={"Origin": BASE})
    assert answer.json() == {"tags": ["b-c", "keep"], "note": "<b>bold</b>"}
    assert json.loads((run / "notes.json").read_text()) == answer.json()
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "notes.json"} == before
    for wrong in ("no json", "[]", '{"name": 1}', '{"name": "x", "tags": [1], "note": ""}', "[" * 5000):
        assert client.post("/api/notes", content=wrong, headers={"Origin": BASE}).status_code == 400
    long = json.dumps({**given, "note": "x" * 300_000})
    assert client.post("/api/notes", content=long, headers={"Origin": BASE}).status_code == 413


def test_pages_ask_no_other_host_and_make_no_html_of_data() -> None:
    """In the sources of the pages; the browser tests watch the requests."""
    for path in STATIC.glob("*"):
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )
        for address in re.findall(r"https?://[^\s\"'`)]+", text):
            assert address.startswith("http://www.w3.org/"), (path, address)
        assert len(text.splitlines()) <= 400, path
