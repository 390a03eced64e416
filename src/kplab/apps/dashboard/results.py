"""Results that are computed from runs: by a worker process, kept on disk by the hashes of what they were made from."""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from starlette.responses import Response

from kplab.apps.dashboard import views
from kplab.apps.dashboard.images import MOST, ImageTable, Pictures, Recent, Selection, check_alike, describe, select
from kplab.apps.dashboard.index import Index, Watcher
from kplab.apps.dashboard.security import find_run
from kplab.apps.dashboard.worker import Worker
from kplab.errors import ConfigError, KplabError, RunError
from kplab.runs.files import PART, replacing_text
from kplab.runs.provenance import sha256
from kplab.runs.run import Run
from kplab.runs.table import labels_of

#: Changes with the content of kept results.
VERSION = 1
#: Runs that can be compared at once.
MOST_RUNS = 8
MEDIA = {"svg": "image/svg+xml", "pdf": "application/pdf", "png": "image/png"}
#: Bytes of kept results at most; the oldest are deleted.
LARGEST = 2 * 2**30


class Results:
    """Computes what the views need, once for the same files.

    Args:
        runs_dir: the folder of all runs.
        cache: folder of what was computed.
    """

    def __init__(self, runs_dir: Path, cache: Path) -> None:
        self.runs_dir, self.cache = runs_dir, cache / "results"
        self.cache.mkdir(exist_ok=True)
        self.analyst, self.modeller = Worker(), Worker()
        self.tables: Recent[ImageTable] = Recent(4)
        self.pictures: Recent[Pictures] = Recent(4)
        self.locks: dict[str, Lock] = {}
        self._tidy()

    def close(self) -> None:
        """End the worker processes."""
        self.analyst.close()
        self.modeller.close()

    def _tidy(self) -> None:
        files = sorted((p for p in self.cache.iterdir() if p.is_file()), key=lambda p: p.stat().st_mtime, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > LARGEST or path.suffix == PART:
                path.unlink(missing_ok=True)

    # ------------------------------------------------------------ runs

    def runs(self, args: dict[str, str]) -> list[Run]:
        """The runs that an address names.

        Raises:
            ConfigError: none, too many, or one twice.
        """
        names = [name for name in args.get("runs", "").split(",") if name]
        if not 1 <= len(names) <= MOST_RUNS or len(set(names)) < len(names):
            raise ConfigError(f"choose 1 to {MOST_RUNS} different runs; these are {len(names)}.")
        return [find_run(self.runs_dir, name) for name in names]

    def labels(self, runs: Sequence[Run]) -> list[str]:
        """Short names of runs, as ``kplab compare`` gives them."""
        return labels_of(runs)

    def head(self, run: Run) -> dict[str, Any]:
        """What is shown of a run beside its name."""
        keys = ("experiment", "started", "seconds", "parameters", "seed")
        return {"name": run.name, "status": run.status, **{k: run.record.get(k) for k in keys}}

    def _scored(self, args: dict[str, str]) -> tuple[dict[str, str], str, list[Run], str]:
        """Label of each run to its folder, the name of the scores, the runs, and what changes with the scores."""
        runs = self.runs(args)
        name, shared = args.get("set", ""), views.shared_sets(runs)
        if not shared or (name and name not in shared):
            wanted = f"the scores '{name}'" if name else "scores"
            raise ConfigError(
                f"{', '.join(run.name for run in runs)}: {wanted} are not there for all, or outdated. "
                "Run `kplab evaluate` with the same split for each."
            )
        name = name or shared[0]
        folders = {label: str(run.folder) for label, run in zip(self.labels(runs), runs, strict=True)}
        stamp = sha256(json.dumps([VERSION, list(folders.items()), name, [views.stamp_of(run, name) for run in runs]]))
        return folders, name, runs, stamp

    def _kept(self, job: str, stamp: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A result, computed unless it is kept; two requests for the same one compute it once."""
        path = self.cache / f"{job}-{stamp[:32]}.json"
        with self.locks.setdefault(path.name, Lock()):
            try:
                found = json.loads(path.read_text())
                path.touch()
                return dict(found)
            except (OSError, ValueError):
                found = make()
                with replacing_text(path) as stream:
                    stream.write(json.dumps(found))
                return found

    def run(self, args: dict[str, str]) -> dict[str, Any]:
        """One run."""
        return views.run_view(find_run(self.runs_dir, args.get("name", "")))

    def curves(self, args: dict[str, str]) -> dict[str, Any]:
        """Learning curves of runs."""
        return views.curves_view(self.runs(args))

    def compare(self, args: dict[str, str]) -> dict[str, Any]:
        """What a comparison shows at once: names, shared scores, differences of the configs."""
        runs = self.runs(args)
        return {
            "runs": [self.head(run) for run in runs],
            "labels": self.labels(runs),
            "sets": views.shared_sets(runs),
            "config": views.differing(runs),
        }

    # ------------------------------------------------------------ charts

    def analysis(self, args: dict[str, str]) -> dict[str, Any]:
        """See ``jobs.analysis``."""
        folders, name, _, stamp = self._scored(args)
        return self._kept("analysis", stamp, lambda: self.analyst.call("analysis", folders=folders, name=name))

    def intervals(self, args: dict[str, str]) -> dict[str, Any]:
        """See ``jobs.intervals``."""
        folders, name, _, stamp = self._scored(args)
        return self._kept("intervals", stamp, lambda: self.analyst.call("intervals", folders=folders, name=name))

    def figure(self, args: dict[str, str]) -> Response:
        """A chart as a file."""
        kind, plot = args.get("format", "svg"), args.get("plot", "")
        if kind not in MEDIA:
            raise ConfigError(f"format is '{kind}'. Use one of: {', '.join(MEDIA)}.")
        try:
            width = min(20.0, max(1.0, float(args.get("width", 3.4))))
        except ValueError:
            raise ConfigError(f"width is '{args['width']}', but must be a number of inches.") from None
        runs = self.runs(args)
        folders = {label: str(run.folder) for label, run in zip(self.labels(runs), runs, strict=True)}
        name = None if plot.startswith("curves-") else self._scored(args)[1]
        with tempfile.NamedTemporaryFile(suffix=f".{kind}") as file:
            self.analyst.call("figure", folders=folders, name=name, plot=plot, kind=kind, width=width, out=file.name)
            content = Path(file.name).read_bytes()
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in f"{plot}-{'-'.join(self.labels(runs))}")[:120]
        return Response(
            content, media_type=MEDIA[kind], headers={"Content-Disposition": f'attachment; filename="{safe}.{kind}"'}
        )

    # ------------------------------------------------------------ images

    def table(self, run: Run, name: str) -> tuple[ImageTable, dict[str, Any]]:
        """Truth and predictions of a run, and the skeleton and card."""
        stamp = sha256(json.dumps([VERSION, str(run.folder), name, views.stamp_of(run, name)]))
        path = self.cache / f"images-{stamp[:32]}.npz"

        def make() -> dict[str, Any]:
            scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")
            made = self.analyst.call("image_table", folder=str(run.folder), name=name, out=str(scratch))
            scratch.replace(path)
            return made

        if not path.is_file():
            (self.cache / f"image_table-{stamp[:32]}.json").unlink(missing_ok=True)
        about = self._kept("image_table", stamp, make)
        return self.tables.get(stamp, lambda: ImageTable.read(path)), about

    def images(self, args: dict[str, str]) -> dict[str, Any]:
        """A page of images: how many fit, and each with truth and predictions of the runs."""
        _, name, runs, _ = self._scored(args)
        found = [self.table(run, name) for run in runs]
        tables, about = [t for t, _ in found], found[0][1]
        check_alike(tables)
        chosen = select(tables, selection_of(args))
        offset, limit = whole(args, "offset", 0), min(MOST, whole(args, "limit", 60))
        only = args.get("id")
        at = None
        if only is not None:
            # one image, with its place in the order, so that a page can go on from it
            (hits,) = (tables[0].image_id[chosen] == whole(args, "id", 0)).nonzero()
            if not len(hits):
                raise ConfigError(f"image {only} is not among those that the filters leave.")
            at = int(hits[0])
            offset, limit = max(0, at - 1), 3 if at else 2
        items = [describe(tables, int(i)) for i in chosen[offset : offset + limit]]
        trouble = None
        try:
            pictures = self.opened(runs[0], about["card"])
            if pictures.digest != about["card"].get("truth_hash"):
                trouble = "the dataset has changed since these scores were made: images and points may not fit."
            for item in items:
                item["size"] = pictures.size[pictures.place(item["id"])].tolist()
                item["version"] = pictures.version(item["id"])
        except (KplabError, OSError) as error:
            trouble = f"the images can't be shown: {error}"
        return {
            "total": len(chosen), "offset": offset, "at": at, "items": items, "trouble": trouble, "set": name,
            "skeleton": about["skeleton"], "labels": self.labels(runs),
            "groups": sorted({str(g) for g in tables[0].group if g})[:1000],
        }  # fmt: skip

    def opened(self, run: Run, card: dict[str, Any]) -> Pictures:
        """The images of the scores with this card."""
        dataset, split = str(card.get("dataset")), str(card.get("split"))
        key = (str(run.folder), split, int(time.monotonic() // 600))  # a dataset may change on disk

        def make() -> Pictures:
            with tempfile.NamedTemporaryFile(suffix=".npz") as file:
                asked = {"folder": str(run.folder), "dataset": dataset, "split": split}
                if self.analyst.call("pictures", **asked, out=file.name)["files"]:
                    return Pictures.read(Path(file.name))
            return Pictures.open(run, dataset, split)

        return self.pictures.get(key, make)

    def image(self, args: dict[str, str]) -> Response:
        """The pixels of one image, which the browser keeps: its address has the version of the file."""
        run = find_run(self.runs_dir, args.get("run", ""))
        _, about = self.table(run, args.get("set", ""))
        pixels = self.opened(run, about["card"]).jpeg(whole(args, "id", 0), whole(args, "w", 0), box_of(args))
        return Response(
            pixels, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=31536000, immutable"}
        )

    def heatmap(self, args: dict[str, str]) -> Response:
        """The heatmaps of a run's model on one image."""
        run = find_run(self.runs_dir, args.get("run", ""))
        _, about = self.table(run, args.get("set", ""))
        keypoint = whole(args, "keypoint", -1)
        if not any((run.folder / "checkpoints").glob("*.ckpt")):
            raise RunError(f"{run.name} has no checkpoint, so its model can't be asked.")
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            made = self.modeller.call(
                "heatmaps", folder=str(run.folder), split=str(about["card"].get("split")),
                image_id=whole(args, "id", 0), keypoint=None if keypoint < 0 else keypoint, out=file.name,
            )  # fmt: skip
            headers = {"X-Regions": str(made["regions"])}
            return Response(Path(file.name).read_bytes(), media_type="image/png", headers=headers)

    # ------------------------------------------------------------ events

    def live(self, watcher: Watcher, index: Index) -> dict[str, Any]:
        """The version of the index, and the progress of running runs."""
        version = watcher.check()
        running = []
        for (name,) in index.select("SELECT name FROM run WHERE running = 1 ORDER BY name DESC LIMIT 20"):
            try:
                found = views.progress(find_run(self.runs_dir, name))
            except KplabError:
                continue
            if found is not None:
                running.append({**found, "left": found["left"] and 5 * round(found["left"] / 5)})
        return {"version": version, "running": running}


def whole(args: dict[str, str], key: str, default: int) -> int:
    """A whole number of an address.

    Raises:
        ConfigError: it is none.
    """
    try:
        return int(args.get(key) or default)
    except ValueError:
        raise ConfigError(f"{key} is '{args[key]}', but must be a whole number.") from None


def box_of(args: dict[str, str]) -> tuple[int, int, int, int] | None:
    """The part of an image that an address names; None where it names none.

    Raises:
        ConfigError: it is not four whole numbers.
    """
    if not args.get("box"):
        return None
    try:
        x0, y0, x1, y1 = (int(v) for v in args["box"].split(","))
    except ValueError:
        raise ConfigError(f"box is '{args['box']}', but must be four whole numbers: x0,y0,x1,y1.") from None
    return x0, y0, x1, y1


def selection_of(args: dict[str, str]) -> Selection:
    """Which images an address asks for."""

    def number(key: str) -> float | None:
        try:
            return float(args[key]) if args.get(key) else None
        except ValueError:
            raise ConfigError(f"{key} is '{args[key]}', but must be a number.") from None

    keypoint = args.get("keypoint")
    return Selection(
        order=args.get("order") or "worst",
        keypoint=whole(args, "keypoint", 0) if keypoint else None,
        **{key: number(key) for key in ("min_error", "max_error", "min_size", "max_size")},
        missed=args.get("missed") == "1",
        extra=args.get("extra") == "1",
        visibility=args.get("visibility") or "any",
        group=args.get("group", ""),
        text=args.get("text", ""),
    )
