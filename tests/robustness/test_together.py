"""Processes that write the same files at once (``probe_places.py`` tries whole verbs; docs/robustness.md)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from kplab.data.formats import coco
from kplab.structures.skeleton import Skeleton
from kplab.synthetic import generate

#: Starts together with the other processes, when the file ``go`` appears.
TOGETHER = """
import sys, time
from pathlib import Path
from kplab.runs.files import replacing
from kplab.synthetic import generate
folder, number = Path(sys.argv[1]), sys.argv[2]
(folder / f"ready{number}").touch()
while not (folder / "go").exists():
    time.sleep(0.005)
generate(folder / "data", "arm", 6, size=(64, 64), seed=0, max_subjects=1)
for i in range(200):
    with replacing(folder / "record.json") as stream:
        stream.write(f'{{"by": {number}, "text": "{number * 5000}"}}'.encode())
"""


def test_processes_that_write_the_same_files_leave_one_of_them_complete(tmp_path: Path, root: Path) -> None:
    """Generated data are those of one process alone; of records that are replaced, one is whole at every moment."""
    numbers = ["1", "2", "3"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = [
        subprocess.Popen([sys.executable, "-c", TOGETHER, str(tmp_path), n], env=environment, stderr=subprocess.PIPE)
        for n in numbers
    ]
    while not all((tmp_path / f"ready{n}").exists() for n in numbers):
        assert all(p.poll() is None for p in started)
    (tmp_path / "go").touch()
    seen = 0
    while any(p.poll() is None for p in started):
        if (tmp_path / "record.json").exists():
            record = json.loads((tmp_path / "record.json").read_text())
            assert record["text"] == str(record["by"]) * 5000
            seen += 1
    assert [(p.communicate()[1], p.returncode) for p in started] == [(b"", 0)] * 3
    assert seen > 10
    arm = Skeleton.from_config(yaml.safe_load((root / "conf" / "skeleton" / "arm6.yaml").read_text()))
    alone = generate(tmp_path / "alone", "arm", 6, size=(64, 64), seed=0, max_subjects=1)
    one, other = (coco.read(f / "annotations.json", f, arm) for f in (alone, tmp_path / "data"))
    assert one.digest() == other.digest()
    names = sorted(str(p.relative_to(alone)) for p in alone.rglob("*"))
    assert names == sorted(str(p.relative_to(tmp_path / "data")) for p in (tmp_path / "data").rglob("*"))
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
