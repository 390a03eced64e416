"""A project: labels in memory, edits of several windows on them, and their way to the disk."""

from __future__ import annotations

import re
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kplab.apps.annotate.instances import Instance, check, instances_of, with_instances
from kplab.apps.annotate.journal import Journal
from kplab.apps.annotate.target import Target
from kplab.errors import DataError, KplabError, describe, is_refused
from kplab.structures.labels import Labels

#: Seconds between an edit and the start of its save; seconds of a pause for each second that a save takes; the longest pause.
PAUSE, TIMES, LONGEST = 0.4, 3, 10


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One instance before and after an edit; None where it does not exist."""

    key: str
    before: Instance | None
    after: Instance | None


@dataclass(frozen=True)
class Edit:
    """An edit that was accepted.

    Args:
        window: that made it.
        image: index.
        changes: of its instances.
    """

    window: str
    image: int
    changes: tuple[Change, ...]


class Conflict(KplabError):
    """An edit of an instance that has changed meanwhile."""


class Project:
    """Labels that are edited. May be used from any thread.

    An edit names the instances as its window knew them. It is accepted as a whole where they are still so, and refused as a
    whole otherwise. Edits of different instances of one image therefore never conflict, and none is overwritten unseen.

    Args:
        labels: as read; the project keeps them.
        target: where they are saved.
        journal: opened before the labels were read.
    """

    def __init__(self, labels: Labels, target: Target, journal: Journal) -> None:
        self.base, self.target, self.journal = labels, target, journal
        self.skeleton = labels.skeleton
        self.lock = threading.RLock()
        self.edits: list[Edit] = []
        self.fault: str | None = None
        self.recovered = len(journal.recovered)
        self._edited: dict[int, dict[str, Instance]] = {}
        self._ids: dict[str, int] = {}
        self._place: dict[str, int] = {}
        self._next = int(labels.instance_id.max(initial=0)) + 1
        self._count = np.bincount(labels.image_of()[labels.poses.labelled.any(1)], minlength=len(labels))
        self._saved, self._saving = 0, threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        journal.opened(target.files(labels))
        index = {int(image): i for i, image in enumerate(labels.image_id)}
        for entry in journal.recovered:
            changes = msgspec.convert(entry["changes"], tuple[Change, ...])
            self._apply(index[entry["image"]], changes, "")

    def __len__(self) -> int:
        return len(self.base)

    @property
    def unsaved(self) -> int:
        """Number of edits that are in the journal, but not yet in the label files."""
        return len(self.edits) - self._saved

    @property
    def counts(self) -> np.ndarray:
        """(I,) int64 number of instances with a labelled keypoint, of each image."""
        return self._count

    def size(self, i: int) -> tuple[int, int]:
        """(width, height) of image i, pixels."""
        width, height = self.base.size[i].tolist()
        return width, height

    def instances(self, i: int) -> dict[str, Instance]:
        """The instances of image i by key, in their order."""
        with self.lock:
            return dict(self._edited[i]) if i in self._edited else instances_of(self.base, i)

    def edit(self, i: int, changes: Sequence[Change], window: str = "") -> bool:
        """Apply an edit of image i, after it was written to the journal.

        Returns:
            False where the edit had been applied before, as when a window asks again after it lost the connection.

        Raises:
            Conflict: an instance has changed since the window received it.
            DataError: an instance is invalid, or its format can't hold it.
        """
        if not 0 <= i < len(self):
            raise DataError(f"there is no image {i}: the project has {len(self)}, from 0.")
        with self.lock:
            now = self.instances(i)
            if all(now.get(change.key) == change.after for change in changes):
                return False
            for change in changes:
                self._check_key(i, change.key)
                if now.get(change.key) != change.before:
                    raise Conflict("this instance was changed in another window; its newer state is shown.")
                if change.after is not None:
                    check(change.after, len(self.skeleton), self.size(i))
                    self._check_format(change)
            self.journal.add({"image": int(self.base.image_id[i]), "changes": msgspec.to_builtins(list(changes))})
            self._apply(i, tuple(changes), window)
        self._wake.set()
        return True

    def _check_key(self, i: int, key: str) -> None:
        """Refuse keys that could stand for two instances: numbers are ids of this image, others belong to one image."""
        known = key in instances_of(self.base, i) if key.isdecimal() else self._place.get(key, i) == i
        if not known or not re.fullmatch(r"\d{1,19}|[0-9a-z]{1,16}\.\d{1,9}", key):
            raise DataError(f"'{key[:40]}' is no key of an instance of image {i}.")

    def _check_format(self, change: Change) -> None:
        """Refuse what the target can't hold, so that nothing is lost when it is written."""
        before, after = change.before, change.after
        assert after is not None
        occluded = 1 in after.xyv[2::3] and (before is None or 1 not in before.xyv[2::3])
        drawn = after.box is not None and (before is None or before.box != after.box)
        tracked = after.track != (-1 if before is None else before.track)
        for what, found in (("occluded", occluded), ("box", drawn), ("track", tracked)):
            if found and what in self.target.lacks:
                raise DataError(
                    f"the format of {self.target.path.name} holds no '{what}'. Save a COCO file instead: out=FILE.json"
                )

    def _apply(self, i: int, changes: tuple[Change, ...], window: str) -> None:
        now = self.instances(i)
        for change in changes:
            if change.after is None:
                now.pop(change.key, None)
                continue
            if not change.key.isdecimal() and change.key not in self._ids:
                self._ids[change.key], self._place[change.key] = self._next, i
                self._next += 1
            now[change.key] = change.after
        self._edited[i] = now
        self._count[i] = sum(instance.labelled > 0 for instance in now.values())
        self.edits.append(Edit(window, i, changes))

    def labels(self) -> Labels:
        """The labels with all edits."""
        with self.lock:
            edited = {i: dict(instances) for i, instances in self._edited.items()}
        return with_instances(self.base, edited, self._ids)

    def save(self) -> None:
        """Write the labels, if there are unsaved edits.

        Raises:
            KplabError: the format can't hold them, or a file was changed by another program.
            OSError: a file can't be written.
        """
        with self._saving:
            number = len(self.edits)
            if number == self._saved:
                return
            try:
                with tempfile.TemporaryDirectory(dir=self.journal.folder) as folder:
                    self.journal.replace(self.target.stage(self.labels(), Path(folder)))
            except Exception as error:
                self.fault = describe(error)
                raise
            self._saved, self.fault = number, None

    def start_saving(self) -> None:
        """Save in a thread, soon after each edit."""
        self._thread = threading.Thread(target=self._keep_saving, daemon=True)
        self._thread.start()
        self._wake.set()

    def _keep_saving(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            self._stop.wait(PAUSE)
            begun = time.perf_counter()
            try:
                self.save()
            except Exception as error:  # shown in every window; the journal has the edits
                if not (isinstance(error, KplabError) or is_refused(error)):
                    traceback.print_exc()
            # large files are saved less often, so that edits are not held up
            self._stop.wait(min(LONGEST, TIMES * (time.perf_counter() - begun)))

    def close(self) -> None:
        """Save, and let other processes open the target. Edits that can't be saved stay in the journal.

        Raises:
            KplabError: as ``save``.
        """
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(60)
        finished = False
        try:
            self.save()
            finished = True
        finally:
            self.journal.close(finished)


def outline(project: Project) -> dict[str, Any]:
    """What a page shows of a project before it shows an image."""
    skeleton = project.skeleton
    return {
        "keypoints": list(skeleton.keypoints),
        "edges": [list(edge) for edge in skeleton.edges],
        "flip": list(skeleton.flip),
        "images": len(project),
        "target": project.target.path.name,
        "lacks": list(project.target.lacks),
    }
