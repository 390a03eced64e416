"""A browser for the tests of pages, and JupyterLab for those of widgets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a browser."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        message = "needs a browser: install the package chromium"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture
def jupyterlab(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """From the source of a cell to the address of a notebook with this cell, in a JupyterLab without any other state."""
    servers: list[subprocess.Popen[bytes]] = []

    def open_notebook(source: str) -> str:
        cell = {
            "cell_type": "code",
            "id": "a",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        book = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": [cell]}
        (tmp_path / "test.ipynb").write_text(json.dumps(book))
        states = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
        settings = {"root_dir": tmp_path, "token": "test", "allow_root": True, "port": 0, "open_browser": False}
        options = [f"--ServerApp.{key}={value}" for key, value in settings.items()]
        command = [sys.executable, "-m", "jupyter", "lab", "--LabApp.news_url=None", *options]
        with (tmp_path / "log").open("w") as log:
            servers.append(
                subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **states}, cwd=tmp_path)
            )
        return f"{_address(tmp_path)}lab/tree/test.ipynb?token=test&reset"

    yield open_notebook
    for server in servers:
        server.terminate()
        server.wait(30)


def _address(folder: Path) -> str:
    """The address that the server writes into its runtime folder."""
    for _ in range(600):
        for path in (folder / "JUPYTER_RUNTIME_DIR").glob("jpserver-*.json"):
            try:
                return str(json.loads(path.read_text())["url"])
            except ValueError:
                pass
        time.sleep(0.1)
    raise AssertionError((folder / "log").read_text())
