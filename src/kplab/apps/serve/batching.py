"""Batches of the views that arrive together: one call of the network for the views of several requests."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from kplab.structures.poses import Poses
from kplab.structures.predictor import Predictor
from kplab.structures.sample import Batch, Sample
from kplab.tasks.inference.assembly import Assembly


@dataclass(frozen=True, eq=False)
class Step:
    """A model, and how its poses become those of images.

    Args:
        model: for regions of one kind.
        assembly: from views to images.
        flip_test: average with the mirrored views.
    """

    model: Predictor
    assembly: Assembly
    flip_test: bool = False

    def predict(self, samples: Sequence[Sample]) -> list[Poses]:
        """One Poses a view, source pixels."""
        return self.assembly.predict(self.model, Batch.collate(list(samples)), self.flip_test)


@dataclass(frozen=True, eq=False)
class Waiting:
    """A view whose poses are asked for.

    Args:
        step: that predicts them.
        sample: the view.
        result: receives its Poses, or the error.
        arrived: seconds of the monotonic clock.
    """

    step: Step
    sample: Sample
    result: Future[Poses] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """Predicts views in a thread of its own, as many at a time as wait, up to a limit; may be used from any thread.

    Args:
        batch_size: views at a time, at most.
        wait: seconds that a view waits for others, at most; while the network computes, the next batch gathers anyway.
        measured: called with the number of views and the seconds of each batch.
    """

    def __init__(self, batch_size: int, wait: float, measured: Callable[[int, float], None]) -> None:
        self.batch_size, self.wait, self.measured = batch_size, wait, measured
        self.waiting: deque[Waiting] = deque()
        self.changed = threading.Condition()
        self.closing = False
        self.thread = threading.Thread(target=self._work, name="kplab-network", daemon=True)
        self.thread.start()

    def __len__(self) -> int:
        """Views that wait."""
        return len(self.waiting)

    def submit(self, step: Step, samples: Sequence[Sample]) -> list[Future[Poses]]:
        """The future poses of views, source pixels; those that are cancelled before their turn are not computed."""
        added = [Waiting(step, sample) for sample in samples]
        with self.changed:
            if self.closing:
                raise RuntimeError("the batcher is closed")
            self.waiting.extend(added)
            self.changed.notify()
        return [w.result for w in added]

    def close(self) -> None:
        """Predict what waits, and end the thread."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.thread.join()

    def _work(self) -> None:
        while batch := self._take():
            begun = time.perf_counter()
            try:
                found = batch[0].step.predict([w.sample for w in batch])
            except Exception as error:  # of this batch alone: the requests report it, and the thread goes on
                for w in batch:
                    w.result.set_exception(error)
                continue
            self.measured(len(batch), time.perf_counter() - begun)
            for w, poses in zip(batch, found, strict=True):
                w.result.set_result(poses)

    def _take(self) -> list[Waiting]:
        """The next views of one step, in the order of their arrival; empty when all is done and the batcher is closed."""
        with self.changed:
            while True:
                while not self.waiting and not self.closing:
                    self.changed.wait()
                if not self.waiting:
                    return []
                first = self.waiting[0]
                left = first.arrived + self.wait - time.monotonic()
                alike = [w for w in self.waiting if w.step is first.step]
                if len(alike) < self.batch_size and left > 0 and not self.closing:
                    self.changed.wait(left)
                    continue
                taken = set(map(id, alike[: self.batch_size]))
                self.waiting = deque(w for w in self.waiting if id(w) not in taken)
                batch = [w for w in alike[: self.batch_size] if w.result.set_running_or_notify_cancel()]
                if batch:
                    return batch
