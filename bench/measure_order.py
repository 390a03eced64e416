"""Labels needed for the same error: the annotator's order `most instructive` against random order.

    python bench/measure_order.py train FOLDER DATASET…     simulate annotators; goes on where an earlier call ended
    python bench/measure_order.py report FOLDER DATASET…    tables with intervals, and FOLDER/annotation_order.png

An annotator labels some images, trains, labels further ones in one of the orders, and trains again from the same start. The
labels come from the dataset. Both orders begin with the same random images. Datasets are those of bench/order_data.py, in the
folder that KPLAB_DATA names. The results of each training stay in FOLDER/results, and are not computed again.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from order_data import DATASETS

from kplab.apps.annotate.jobs import loaded, predictions
from kplab.apps.annotate.order import confidence, disagreement, teaching_order, thumbnail
from kplab.config import conf_dir
from kplab.data.formats import coco
from kplab.metrics.compare import draw_weights
from kplab.metrics.metric import Evidence, metrics_of
from kplab.runs.run import Run
from kplab.structures.labels import Labels
from kplab.tasks import compose
from kplab.tasks.evaluation.files import read_scores
from kplab.tasks.training.train import train
from kplab.viz import look

RANDOM, TEACHES = "random", "most instructive"
ORDERS = (RANDOM, TEACHES)
SEEDS = (0, 1, 2)


def trained(name: str, work: Path, seed: int, labelled: Labels, test: Labels) -> Run:
    """A run trained on labelled images and scored on test images, as `kplab train` does it."""
    setting = DATASETS[name]
    own = ["regions=image", "trainer=cpu", "workers=0", f"seed={seed}", f"name={name}", f"runs_dir={work / 'runs'}"]
    if setting.views is not None:
        own.append(f"trainer.max_epochs={max(1, round(setting.views / len(labelled)))}")
    config = compose("train", [*setting.recipe, *own])
    sources = {}
    for part, labels in (("train", labelled), ("test", test)):
        path = labels.path(0)
        assert path is not None
        sources[part] = {
            "_target_": "kplab.data.formats.coco.read",
            "annotations": str(coco.write(labels, work / f"{part}.json")),
            "images": str(path.parents[len(Path(labels.names[0]).parts) - 1]),
        }
    config.dataset = {
        "name": name,
        "skeleton": yaml.safe_load((conf_dir() / "skeleton" / f"{setting.skeleton}.yaml").read_text()),
        "sources": sources,
        "split": None,
        "evaluation": setting.evaluation,
    }
    run = train(config)
    assert run is not None
    return run


def signals(run: Run, pool: Labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Disagreement, confidence and thumbnail of each image of the pool, as the annotator has them from a run."""
    model = loaded(str(run.folder), "auto")
    found = [predictions(model, pool.read(i)) for i in range(len(pool))]
    disagree = np.array([disagreement(variants) for variants in found])
    confident = np.array([confidence(variants[0]) for variants in found])
    return disagree, confident, np.stack([thumbnail(pool.read(i)) for i in range(len(pool))])


def key_of(name: str, seed: int, order: str, step: int) -> str:
    """Name of the results after a step; both orders share the first one."""
    return f"{name}/{seed}/{order if step else RANDOM}/{DATASETS[name].counts[step]}"


def simulate(name: str, work: Path, seed: int, order: str) -> None:
    """Train one annotator's models on a dataset, one after the other."""
    counts = DATASETS[name].counts
    pool, test = DATASETS[name].read()
    shuffled = np.random.default_rng(seed).permutation(len(pool))
    chosen = shuffled[: counts[0]]
    for k, count in enumerate(counts):
        file = work / "results" / f"{key_of(name, seed, order, k)}.json"
        if not file.is_file():
            begun = time.perf_counter()
            run = trained(name, work, seed, pool.select(np.sort(chosen)), test)
            entry = {"labelled": chosen.tolist(), "seconds": round(time.perf_counter() - begun)}
            shutil.copytree(run.folder / "scores", file.with_suffix(""), dirs_exist_ok=True)
            if k + 1 < len(counts) and (order == TEACHES or k == 0):
                known = signals(run, pool)
                labelled = np.isin(np.arange(len(pool)), chosen)
                entry["next"] = teaching_order(*known, labelled).tolist()
            file.write_text(json.dumps(entry))
            shutil.rmtree(run.folder)
        entry = json.loads(file.read_text())
        print(f"done: {file}, {entry['seconds']} s", flush=True)
        if k + 1 < len(counts):
            more = counts[k + 1]
            chosen = shuffled[:more] if order == RANDOM else np.concatenate([chosen, entry["next"][: more - count]])


def curves(name: str, work: Path, metric: str, resamples: int = 2000) -> dict[str, np.ndarray]:
    """Order to (1 + resamples, counts): a metric, mean over seeds; first of what was measured, then resampled.

    A resample draws seeds, and groups of test images (a person, two seconds of a video), the same ones for both orders.
    """
    setting = DATASETS[name]
    scores = {
        (order, seed, k): read_scores(work / "results" / key_of(name, seed, order, k) / f"{name}-test.json")
        for order in ORDERS
        for seed in SEEDS
        for k in range(len(setting.counts))
    }
    first = next(iter(scores.values()))
    images = np.sort(first.per_image["image_id"].to_numpy())
    group = first.per_image.set_index("image_id")["file"].loc[images].map(setting.group).to_numpy()
    rng, n = np.random.default_rng(0), len(SEEDS)
    weights = np.vstack([np.ones(len(images), dtype=np.int64), draw_weights(len(images), resamples, rng, group)])
    seeds = np.vstack([np.full(n, 1 / n), rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n])
    (row,) = [m for m in metrics_of(first.card) if m.name == metric]
    values = {at: row.computed_for(Evidence.of(s.keypoints, images, s.matches), weights) for at, s in scores.items()}
    return {
        order: np.stack(
            [
                sum(seeds[:, i] * values[order, seed, k] for i, seed in enumerate(SEEDS))
                for k in range(len(setting.counts))
            ],
            axis=1,
        )
        for order in ORDERS
    }


def labels_needed(counts: tuple[int, ...], errors: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """(R,) labels after which a curve first has the error ``goal``, between two counts by interpolation over the logarithm.

    Args:
        counts: (C,) numbers of labels.
        errors: (R, C).
        goal: (R,).

    Returns:
        infinity where it is not reached.

    >>> labels_needed((10, 20, 40), np.array([[4.0, 3.0, 1.0], [4.0, 3.0, 3.0]]), np.array([2.0, 2.0])).round(1)
    array([28.3,  inf])
    """
    place = np.log(counts)
    found = np.full(len(errors), np.inf)
    for r, (row, aim) in enumerate(zip(errors, goal, strict=True)):
        reached = np.flatnonzero(row <= aim)
        if not len(reached):
            continue
        k = reached[0]
        share = 1.0 if k == 0 else (row[k - 1] - aim) / (row[k - 1] - row[k])
        found[r] = np.exp(place[0] if k == 0 else place[k - 1] + share * (place[k] - place[k - 1]))
    return found


def span(samples: np.ndarray, digits: int) -> str:
    """The first value, and the 2.5th to 97.5th percentile of the others; an end that is infinite is not reached."""
    low, high = np.percentile(samples[1:], [2.5, 97.5], method="nearest")
    return f"{samples[0]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def report(names: Sequence[str], work: Path) -> None:
    """Print the curves, their differences and the labels needed; draw the curves of the mean pixel error."""
    figure, panels = look.figure(1, len(names), (3.6 * len(names), 2.9))
    for name, panel in zip(names, panels, strict=True):
        setting = DATASETS[name]
        for metric, digits in setting.metrics.items():
            found = curves(name, work, metric)
            sign = 1 if metric.endswith("px") else -1
            print(
                f"{name}: {metric}, mean of {len(SEEDS)} seeds [95 % interval]; labels of the second order for the same"
            )
            print("labels " + " ".join(f"{title:>24}" for title in (*ORDERS, "difference", "labels for the same")))
            for k, count in enumerate(setting.counts):
                random, teaches = (found[order][:, k] for order in ORDERS)
                needed = labels_needed(setting.counts, sign * found[TEACHES], sign * random)
                cells = [span(random, digits), span(teaches, digits), span(teaches - random, digits), span(needed, 0)]
                print(f"{count:6d} " + " ".join(f"{cell:>24}" for cell in cells[: 4 if k else 1]))
            if metric == "mean_px":
                for order, colour in zip(ORDERS, (look.GREY, look.BLUE), strict=True):
                    low, high = np.percentile(found[order][1:], [2.5, 97.5], axis=0)
                    panel.fill_between(setting.counts, low, high, color=colour, alpha=0.15, linewidth=0)
                    panel.plot(setting.counts, found[order][0], color=colour, marker="o", markersize=3, label=order)
        panel.set_xscale("log")
        panel.set_xticks(setting.counts, [str(count) for count in setting.counts])
        panel.minorticks_off()
        look.label(panel, name, "labelled images", "mean error, pixels", "y")
    look.legend(panels[0])
    print(look.write_png(work / "annotation_order.png", figure))


if __name__ == "__main__":
    verb, folder, *names = sys.argv[1:]
    if verb == "report":
        report(names or list(DATASETS), Path(folder))
    else:
        for name in names or list(DATASETS):
            for seed in SEEDS:
                for order in (TEACHES, RANDOM):
                    simulate(name, Path(folder), seed, order)
