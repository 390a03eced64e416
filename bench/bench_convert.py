"""CPU time and memory of reading, converting, checking and splitting the annotations of 10,000 and of 100,000 images.

    python bench/bench_convert.py [SIZE SIZE]

Each step runs in a process of its own, on a COCO file with 1.5 subjects an image that is made in a temporary folder. The last
column is how many times as long ten times as many images take; 10 is linear. pycocotools and sleap-io read the same content. The
exit status is 1 if a step takes more than 15 times as long, or kplab reads in more than twice their time.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_check import people

SIZES = (10_000, 100_000)
LIMIT, SLOWER = 15.0, 2.0
GROUPS = ("schema", "geometry", "identity", "limbs", "tracks", "balance")
#: Our reading of a format, and that of another library on the same file.
PAIRS = (("read coco", "pycocotools.COCO"), ("read slp", "sleap_io.load_slp"), ("read coco", "sleap_io.load_coco"))


def labels_of(folder: Path) -> Any:
    """The labels of the COCO file."""
    from kplab.data.formats import coco

    return coco.read(folder / "labels.json", folder / "images", people(1).skeleton)


def make(folder: Path, count: int) -> None:
    """Write the COCO file, and images of one colour that end with their number: no step reads pixels, but some headers."""
    from PIL import Image

    from kplab.data.formats import coco

    image = io.BytesIO()
    Image.new("L", (640, 480)).save(image, "png")
    coco.write(people(count), folder / "labels.json")
    (folder / "images").mkdir()
    for i in range(count):
        (folder / "images" / f"{i:06d}.jpg").write_bytes(image.getvalue() + f"{i:06d}".encode())


def converting(format_to: str, target: str) -> Callable[[Path], Callable[[], object]]:
    """A conversion of the COCO file."""

    def prepare(folder: Path) -> Callable[[], object]:
        from kplab.tasks.wiring.conversion import convert

        source, images = str(folder / "labels.json"), {"images": str(folder / "images")}
        return lambda: convert(source, str(folder / target), "coco", format_to, read=images)

    return prepare


def read_coco(folder: Path) -> Callable[[], object]:
    """As ``labels_of``."""
    from kplab.data.formats import coco  # noqa: F401  # imported before the time is taken

    return lambda: labels_of(folder)


def read_slp(folder: Path) -> Callable[[], object]:
    """Reading what was converted."""
    from kplab.data.formats import sleap

    return lambda: sleap.read(folder / "labels.slp", people(1).skeleton, folder / "frames", images=folder / "images")


def check(folder: Path) -> Callable[[], object]:
    """The rules that read no pixels."""
    from kplab.data.check import Dataset, check_dataset

    labels = labels_of(folder)
    return lambda: check_dataset(Dataset({"all": labels}, deep=False), GROUPS)


def split(folder: Path) -> Callable[[], object]:
    """A split by image, which looks for copies."""
    from kplab.data.split import make_split

    labels = labels_of(folder)
    return lambda: make_split(labels, {"train": 0.8, "test": 0.2}, "image")


def pycocotools(folder: Path) -> Callable[[], object]:
    """The index of pycocotools."""
    from pycocotools.coco import COCO

    return lambda: COCO(str(folder / "labels.json"))


def sleap_slp(folder: Path) -> Callable[[], object]:
    """The same file by sleap-io."""
    import sleap_io

    return lambda: sleap_io.load_slp(str(folder / "labels.slp"), open_videos=False)


def sleap_coco(folder: Path) -> Callable[[], object]:
    """The same file by sleap-io."""
    import sleap_io

    return lambda: sleap_io.load_coco(str(folder / "labels.json"), dataset_root=str(folder / "images"))


STEPS: dict[str, Callable[[Path], Callable[[], object]]] = {
    "read coco": read_coco,
    "pycocotools.COCO": pycocotools,
    "sleap_io.load_coco": sleap_coco,
    "coco to yolo": converting("yolo", "yolo"),
    "coco to plain_csv": converting("plain_csv", "labels.csv"),
    "coco to sleap": converting("sleap", "labels.slp"),
    "read slp": read_slp,
    "sleap_io.load_slp": sleap_slp,
    "check": check,
    "split": split,
}


def run(step: str, folder: Path) -> None:
    """Print the CPU seconds, seconds and peak MiB of a step."""
    work = STEPS[step](folder)
    begun, cpu = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        work()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    print(json.dumps([cpu, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def child(*arguments: str) -> Any:
    """What a process of its own prints."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout) if done.stdout else None


def main(sizes: tuple[int, ...]) -> int:
    """Print a table of all steps; returns the exit status."""
    found: dict[int, dict[str, list[float]]] = {}
    for count in sizes:
        with tempfile.TemporaryDirectory() as name:
            child("make", name, str(count))
            found[count] = {step: child("run", name, step) for step in STEPS}
    few, many = sizes
    print(f"{'CPU s (MiB)':<20} {f'{few:,} images':>18} {f'{many:,} images':>18} {'times':>6}")
    fault = False
    for step in STEPS:
        (a, _, low), (b, _, high) = found[few][step], found[many][step]
        own = "." not in step and step != "pycocotools.COCO"
        times = b / a
        fault |= own and times > LIMIT * many / few / 10
        print(f"{step:<20} {f'{a:.2f} ({low:.0f})':>18} {f'{b:.2f} ({high:.0f})':>18} {times:6.1f}")
    for ours, theirs in PAIRS:
        ratio = found[many][ours][0] / found[many][theirs][0]
        fault |= ratio > SLOWER
        print(f"{ours} takes {ratio:.2f} of the CPU time of {theirs}")
    return int(fault)


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] == ["run"]:
        run(sys.argv[3], Path(sys.argv[2]))
    else:
        sys.exit(main(tuple(int(a) for a in sys.argv[1:]) or SIZES))
