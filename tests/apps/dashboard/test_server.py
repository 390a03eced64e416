"""The command: it prints its address, serves, sends events, and ends by Ctrl-C; and its files are part of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from kplab.apps.dashboard import query
from kplab.apps.dashboard.server import Service
from kplab.cli import main as cli


def start(*more: str) -> tuple[subprocess.Popen[str], str]:
    """The command, and the address that it prints."""
    command = [sys.executable, "-m", "kplab.cli", "dashboard", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    assert found is not None, line
    return process, found[0]


@pytest.fixture
def runs_dir(made, tmp_path: Path) -> Path:
    shutil.copytree(made.runs_dir / made.running, tmp_path / "runs" / made.running)
    return tmp_path / "runs"


def test_the_command_serves_and_ends_by_ctrl_c_while_a_page_listens(runs_dir: Path, made) -> None:
    process, address = start(f"runs_dir={runs_dir}")
    try:
        assert address.startswith("http://127.0.0.1:")
        with urlopen(address, timeout=20) as answer:
            assert b'<script type="module"' in answer.read()
        with urlopen(f"{address}api/events", timeout=20) as events:
            first = json.loads(events.readline().decode().removeprefix("data: "))
            assert first["running"][0]["run"] == made.running
            assert first["running"][0]["epoch"] == 6
            assert events.readline() == b"\n"
            with (runs_dir / made.running / "curves.csv").open("a") as stream:
                stream.write("6,0.001,60,0.125,0.6,3\n")
            second = json.loads(events.readline().decode().removeprefix("data: "))
            assert (second["running"][0]["epoch"], second["running"][0]["loss"]) == (7, 0.125)
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert time.monotonic() - begun < 8
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()


def test_another_host_gets_a_token(runs_dir: Path) -> None:
    process, address = start(f"runs_dir={runs_dir}", "host=0.0.0.0")
    try:
        token = re.search(r"\?token=(\S+)$", address)
        assert token is not None
        assert len(token[1]) >= 24
        port = re.search(r":(\d+)/", address)
        assert port is not None
        local = f"http://127.0.0.1:{port[1]}/"
        for path, cookie, status in (("api/runs", "", 403), ("api/runs", f"kplab_dashboard={token[1]}", 200)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("no_proxy", "*")
                try:
                    with urlopen(Request(local + path, headers={"Cookie": cookie}), timeout=20) as answer:
                        found = answer.status
                except OSError as error:
                    found = getattr(error, "code", None)
            assert found == status
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    for options, message in (
        ([f"port={port}"], "port=0 takes a free one"),
        (["port=70000"], "between 0 and 65535"),
        (["host=nowhere.invalid"], "can't listen on nowhere.invalid"),
        ([f"runs_dir={__file__}"], "is no folder"),
    ):
        assert cli(["dashboard", f"runs_dir={tmp_path}", *options]) == 2
        assert message in capsys.readouterr().err
    taken.close()


def test_an_empty_and_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    service = Service(tmp_path / "runs")
    assert service.runs({}) == {"total": 0, "all": 0, "rows": [], "version": 0}
    assert service.runs({"q": "AP>1", "sort": "-started"})["rows"] == []
    assert query.keys(service.index) == []
    service.close()
    process, address = start(f"runs_dir={tmp_path}/new")
    with urlopen(f"{address}api/runs", timeout=20) as answer:
        assert json.loads(answer.read())["all"] == 0
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_the_pages_are_part_of_the_package(root: Path, tmp_path: Path) -> None:
    """All that git has below apps/ is in the wheel."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tmp_path)
    shutil.copytree(root / "conf", tmp_path / "conf")
    shutil.copytree(root / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": ""})
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = {p.relative_to(root / "src").as_posix() for p in (root / "src/kplab/apps").rglob("*") if p.is_file()}
    expected = {name for name in expected if "__pycache__" not in name}
    assert len([name for name in expected if name.endswith(".js")]) >= 8
    assert expected <= packed
