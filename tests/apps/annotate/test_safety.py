"""What the server refuses: other sites, unknown messages, and images that are none of the project's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from kplab.apps.annotate.notebook import MODULES, STATIC, annotate, override
from kplab.apps.annotate.opening import open_project
from kplab.apps.annotate.server import application
from kplab.apps.annotate.window import Windows
from kplab.errors import DataError
from kplab.tasks import compose

BASE = "http://127.0.0.1:8000"
OWN = {"Origin": BASE}


@pytest.fixture
def windows(files) -> Iterator[Windows]:
    found = Windows(open_project(files.config("dataset=bugs")))
    yield found
    found.close()


@pytest.fixture
def client(windows: Windows) -> TestClient:
    return TestClient(application(windows), base_url=BASE)


def message(**content: object) -> str:
    return json.dumps({"view": "v", **content})


def test_other_hosts_origins_and_sites_are_refused(client: TestClient, windows: Windows) -> None:
    edit = message(kind="edit", number=1, image=0, changes=[{"key": "7", "before": None, "after": None}])
    for headers in (
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8000"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        assert client.get("/image/0", headers=headers).status_code == 403
    for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9"}):
        assert client.post("/message", content=edit, headers=headers).status_code == 403
    assert not windows.project.edits
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_another_interface_needs_the_token(windows: Windows) -> None:
    app = application(windows, "0.0.0.0", "secret-token")
    for path in ("/", "/image/0", "/static/annotator.js", "/image/0?token=wrong"):
        assert TestClient(app, base_url="http://lab:8000").get(path).status_code == 403, path
    client = TestClient(app, base_url="http://lab:8000")
    assert client.get("/?token=secret-token").status_code == 200
    assert client.get("/image/0").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/image/6",
        "/image/-1",
        "/image/..%2F..%2Fetc%2Fpasswd",
        "/image/0.png",
        "/static/../server.py",
        "/static/%2e%2e/x",
    ],
)
def test_there_are_images_by_number_and_nothing_else(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
    assert client.get("/image/5").content[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    "content",
    [
        b"no json", b"[]", b"[" * 100_000, b"\xff", b'{"kind": "open"}', b'{"kind": "delete", "view": "v"}',
        b'{"kind": "show", "view": "v", "image": "../x"}', b'{"kind": "show", "view": "v", "image": 6}',
        b'{"kind": "show", "view": "v", "image": -1}', b'{"kind": "find", "view": "v", "order": "x"}',
        b'{"kind": "find", "view": "v", "only": "x"}', b'{"kind": "show", "view": "v", "image": 0, "path": "x"}',
        b'{"kind": "edit", "view": "v", "number": 1, "image": 0, "changes": [{"key": "7"}]}',
        b'{"kind": "edit", "view": "v", "number": 1, "image": 0, "changes": [{"key": "7", "before": null, "after": {"xyv": [1e999]}}]}',
        b'{"kind": "edit", "view": "v", "number": 1, "image": 9, "changes": []}',
    ],
)  # fmt: skip
def test_what_is_no_message_is_answered_by_a_fault(client: TestClient, windows: Windows, content: bytes) -> None:
    answer = client.post("/message", content=content, headers=OWN)
    assert answer.status_code == 200
    assert answer.json()["kind"] == "fault"
    assert not windows.project.edits


def test_long_messages_are_refused(client: TestClient) -> None:
    assert client.post("/message", content=b" " * 5_000_000, headers=OWN).status_code == 413


def test_a_refused_edit_returns_the_newer_state(client: TestClient) -> None:
    shown = client.post("/message", content=message(kind="show", image=0), headers=OWN).json()
    assert shown["size"] == [160, 120]
    ((key, before),) = shown["instances"]
    edit = {"kind": "edit", "number": 5, "image": 0}
    gone = [{"key": key, "before": before, "after": None}]
    assert client.post("/message", content=message(**edit, changes=gone), headers=OWN).json()["kind"] == "accepted"
    moved = [{"key": key, "before": before, "after": {**before, "track": 3}}]
    answer = client.post("/message", content=message(**edit, changes=moved), headers=OWN).json()
    assert (answer["kind"], answer["number"], answer["instances"]) == ("refused", 5, [])
    news = client.post("/message", content=json.dumps({"kind": "news", "view": "other"}), headers=OWN).json()
    assert [item["kind"] for item in news["items"]] == ["status"], "a new view asks for images anyway"


def test_each_edit_is_followed_by_the_state_of_the_file(windows: Windows) -> None:
    """Also where the file is saved between two questions, and so nothing has changed from one to the other."""
    for k in range(2):
        windows.answer({"kind": "news", "view": "v"})
        points = (5.0, 6.0 + k, 2.0) + (0.0,) * 12
        change = {"key": f"v.{k}", "before": None, "after": {"xyv": points}}
        answer = windows.answer({"kind": "edit", "view": "v", "number": k, "image": 2, "changes": [change]})
        assert (answer["kind"], answer["unsaved"]) == ("accepted", 1)
        windows.project.save()
        (status,) = windows.answer({"kind": "news", "view": "v"})["items"]
        assert (status["unsaved"], status["labelled"]) == (0, 2)
    assert windows.answer({"kind": "news", "view": "v"})["items"] == []


def test_pages_ask_no_other_host_and_make_no_html_of_data() -> None:
    texts = {path.name: path.read_text() for path in STATIC.glob("*.*")}
    assert set(MODULES) | {"page.js"} == {name for name in texts if name.endswith(".js")}
    for name, text in texts.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )
        assert re.sub(r"http://www\.w3\.org/\S+", "", text).find("://") < 0, name


def test_options_of_a_notebook_are_those_of_the_command(files, tmp_path) -> None:
    for value in ("a b.json", "it's", "x=1,y", "{a}", "plain/path.json"):
        assert compose("annotate", ["images=x", override("out", value)]).out == value
    files.config()
    search = f"hydra.searchpath=[file://{files.labels.parent}/conf]"
    found = annotate("bugs", [search], out=tmp_path / "a b.json")
    assert len(found.project) == 6
    with pytest.raises(DataError, match="open in another process"):
        annotate("bugs", [search], out=tmp_path / "a b.json")
    found.close()
