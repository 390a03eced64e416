"""Reads HDF5 and MATLAB files in a process of its own.

The libraries that read these formats can crash the interpreter, run forever or take all memory when a file is damaged. Here
this ends the other process, and becomes a DataError.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import select
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import IO

import numpy as np

from kplab.errors import DataError

SECONDS, SECONDS_PER_MB = 30.0, 1.0
"""Time that a file may take: at least, and for each megabyte of it."""

MEMORY, MEMORY_FACTOR = 4 << 30, 100
"""Address space of the process, bytes: at least, and for each byte of the file, which may be compressed."""

IDLE_SECONDS = 20.0
"""After this time without a file the process ends; the next file starts another."""


def read_apart(function: str, path: Path) -> dict[str, np.ndarray]:
    """The arrays that a function reads from a file, in another process.

    Args:
        function: ``module:name`` of ``f(path) -> dict[str, np.ndarray]``; the arrays hold no Python objects.
        path: of the file.

    Raises:
        DataError: the function raised an exception, crashed, or did not end in time.
    """
    with _WORKER.lock:
        return _WORKER.read(function, Path(path))


class _Worker:
    """The process, which is started when it is needed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.owner, self.lock = 0, threading.Lock()

    def read(self, function: str, path: Path) -> dict[str, np.ndarray]:
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}). Check its path.") from error
        request = json.dumps([function, os.fsencode(path.absolute()).hex(), MEMORY + MEMORY_FACTOR * size]).encode()
        limit = SECONDS + SECONDS_PER_MB * size / 1e6
        for _ in range(2):
            process = self.started()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(request + b"\n")
                process.stdin.flush()
                head = _receive(process.stdout, 8, time.monotonic() + limit)
                answer = _receive(process.stdout, int.from_bytes(head, "little"), time.monotonic() + limit)
                break
            except TimeoutError:
                self.stop()
                raise DataError(
                    f"{path}: not read within {limit:.0f} s: the file is damaged. Fetch it again."
                ) from None
            except (EOFError, BrokenPipeError):
                self.stop(5.0)
                if process.returncode:
                    raise DataError(
                        f"{path}: the library that reads it crashed (exit status {process.returncode}): the file is "
                        "damaged. Fetch it again."
                    ) from None
        else:
            raise DataError(f"{path}: the process that reads it does not start. Check {sys.executable}.")
        with np.load(io.BytesIO(answer), allow_pickle=False) as arrays:
            found = dict(arrays)
        if "error" in found:
            raise DataError(f"{path}: {found['error']}")
        return found

    def started(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
            # not multiprocessing: a spawned process would run the user's script again
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            command = [sys.executable, "-c", f"from {__name__} import _serve; _serve()"]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
            )
            self.owner = os.getpid()
        return self.process

    def stop(self, seconds: float = 0.1) -> None:
        """End the process, if this process started it; it is killed after some seconds."""
        if self.process is not None and self.owner == os.getpid():
            for stream in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None


def _receive(stream: IO[bytes], count: int, until: float) -> bytes:
    parts = []
    while count:
        if not select.select([stream], [], [], max(0.0, until - time.monotonic()))[0]:
            raise TimeoutError
        part = os.read(stream.fileno(), min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


_WORKER = _Worker()
atexit.register(_WORKER.stop)


def _serve() -> None:
    """What the other process does: answer requests until there are none."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    while select.select([0], [], [], IDLE_SECONDS)[0]:
        line = sys.stdin.buffer.readline()
        if not line:
            return
        function, path, memory = json.loads(line)
        _limit_memory(memory)
        module, name = function.split(":")
        try:
            found = getattr(import_module(module), name)(Path(os.fsdecode(bytes.fromhex(path))))
            content = _packed(found)
        except Exception as error:
            # whatever a library raises about a damaged file becomes a DataError in the other process
            content = _packed({"error": np.array(_text(error))})
        for data in (len(content).to_bytes(8, "little"), content):
            while data:
                data = data[os.write(answers, data) :]


def _text(error: Exception) -> str:
    message = str(error) if isinstance(error, DataError) else f"it cannot be read ({type(error).__name__}: {error})"
    return message.replace("\x00", "?").encode("utf-8", "replace").decode()


def _packed(arrays: dict[str, np.ndarray]) -> bytes:
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return out.getvalue()


def _limit_memory(limit: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no limits
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
