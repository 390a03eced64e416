"""A process for jobs: it starts at the first one, takes one at a time, and ends when there has been none for a while."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from kplab.errors import KplabError, describe

#: Seconds without a job after which the process ends, so that its memory is free.
IDLE = 90.0


class JobError(KplabError):
    """A job that could not be done; the message is for the user."""


class Worker:
    """Calls functions in another process; may be used from any thread.

    Args:
        idle: seconds without a job after which the process ends.
        jobs: the module of the functions; its ``JOBS`` has them by name.
    """

    def __init__(self, idle: float = IDLE, jobs: str = "kplab.apps.dashboard.jobs") -> None:
        self.idle, self.jobs = idle, jobs
        self.lock = threading.Lock()
        self.process: subprocess.Popen[str] | None = None
        self.used = 0.0
        self.timer: threading.Timer | None = None

    def call(self, job: str, **arguments: Any) -> dict[str, Any]:
        """The result of a job.

        Raises:
            JobError: it failed, or its process ended.
        """
        with self.lock:
            self.used = time.monotonic()
            process = self.process
            if process is None or process.poll() is not None:
                process = self.process = self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps({"job": job, "arguments": arguments}) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:
                line = ""
            self.used = time.monotonic()
            self._end_later()
            if not line:
                raise JobError(f"the process of '{job}' ended early (killed, or out of memory). Try again.")
            answer = json.loads(line)
            if "error" in answer:
                raise JobError(answer["error"])
            return dict(answer["result"])

    def _start(self) -> subprocess.Popen[str]:
        # the same copy of the code, wherever it lies
        own = str(Path(__file__).parents[3])
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([own, os.environ.get("PYTHONPATH", "")]),
            "MPLBACKEND": "Agg",
        }
        command = [sys.executable, "-m", "kplab.apps.dashboard.worker", self.jobs]
        # in a session of its own: Ctrl-C is for the server, which ends it
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, start_new_session=True
        )

    def _end_later(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = threading.Timer(self.idle, self._end_if_idle)
        self.timer.daemon = True
        self.timer.start()

    def _end_if_idle(self) -> None:
        if self.lock.acquire(blocking=False):
            try:
                if time.monotonic() - self.used >= self.idle:
                    self._stop()
            finally:
                self.lock.release()

    def _stop(self) -> None:
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
            self.process = None

    def close(self) -> None:
        """End the process."""
        if self.timer is not None:
            self.timer.cancel()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def main() -> None:
    """Answer each line of the standard input, a job as JSON, by a line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    jobs = import_module(sys.argv[1]).JOBS

    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"result": jobs[asked["job"]](**asked["arguments"])}
        except Exception as error:  # the process goes on with the next job
            if not isinstance(error, KplabError | OSError):
                import traceback

                traceback.print_exc()
            answer = {"error": describe(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
