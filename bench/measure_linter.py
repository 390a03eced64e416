"""Recall and precision of the linter for planted faults, and the share of clean subjects that it reports.

    python bench/measure_linter.py calibrate      findings in the datasets that limits were chosen on
    python bench/measure_linter.py develop        faults planted in these, at 1 % and 5 %
    python bench/measure_linter.py clean          findings in the datasets that the linter is measured on
    python bench/measure_linter.py measure        faults planted in the other datasets, at 1 % and 5 %
    python bench/measure_linter.py export FOLDER  the same faults as arrays, for bench/sleap_qc.py

Datasets are those of bench/linter_data.py, in the folder that KPLAB_DATA names. Seeds are fixed.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from label_faults import FAULTS, Fault
from linter_data import CALIBRATION, MEASURED

from kplab.data.check import Dataset, Report, check_dataset
from kplab.structures.labels import Labels

GROUPS = ("geometry", "limbs", "identity", "tracks", "schema")
SHARES = (0.01, 0.05)

#: At least this many faults of each kind, dataset and share are planted, in as many rounds as it takes, at most ROUNDS.
PLANTED, ROUNDS = 20, 20


def flagged(report: Report, rules: tuple[str, ...] | None = None, unit: str = "instance") -> set[tuple[str, int]]:
    """Places of findings that are no information: (split, index)."""
    chosen = [f for f in report.findings if f.level != "info" and (rules is None or f.rule in rules)]
    return {(f.split, at) for f in chosen if (at := getattr(f, unit)) is not None}


def clean(datasets: Mapping[str, Callable[[], dict[str, Labels]]]) -> None:
    """Print the findings of each dataset as it is."""
    for name, load in datasets.items():
        begun = time.perf_counter()
        splits = load()
        dataset = Dataset(splits, deep=False)
        report = check_dataset(dataset, GROUPS)
        counted = sum(int(s.counted.sum()) for s in dataset.splits.values())
        kinds: dict[str, set[tuple[str, int]]] = defaultdict(set)
        for f in report.findings:
            if f.level != "info" and f.instance is not None:
                kinds[f.rule].add((f.split, f.instance))
        every = set().union(*kinds.values()) if kinds else set()
        listed = ", ".join(f"{rule} {len(found)}" for rule, found in sorted(kinds.items()))
        print(
            f"{name}: {len(every)} of {counted} subjects ({len(every) / counted:.1%}): {listed or 'none'} "
            f"[{time.perf_counter() - begun:.1f} s]",
            flush=True,
        )


def planted(splits: dict[str, Labels], fault: Fault, share: float, seed: int) -> tuple[dict[str, Labels], set] | None:
    """The dataset with faults in each of its splits, and their places."""
    rng = np.random.default_rng(seed)
    out, places = dict(splits), set()
    for split, labels in splits.items():
        made = fault.plant(labels, rng, share)
        if made is not None:
            out[split], found = made
            places |= {(split, i) for i in found}
    if fault.unit == "keypoint" and places:  # one skeleton for all splits
        first = next(iter(splits))
        out = {split: labels if split == first else splits[split] for split, labels in out.items()}
        places = {(split, i) for split, i in places if split == first}
    return (out, places) if places else None


def measure(
    datasets: Mapping[str, Callable[[], dict[str, Labels]]], path: Path | None = None, kinds: tuple[str, ...] = ()
) -> list[dict]:
    """Plant every kind of fault in every dataset, and print what is found."""
    rows = []
    for name, load in datasets.items():
        splits = load()
        before = check_dataset(Dataset(splits, deep=False), GROUPS)
        for kind, fault in FAULTS.items():
            if kinds and kind not in kinds:
                continue
            already = {unit: flagged(before, fault.rules, unit) for unit in ("instance", "keypoint")}[fault.unit]
            for share in SHARES:
                total = hits = false = 0
                for round_ in range(ROUNDS):
                    seed = zlib.crc32(f"{name} {kind} {share} {round_}".encode())
                    made = planted(splits, fault, share, seed)
                    if made is None:
                        continue
                    damaged, places = made
                    found = flagged(check_dataset(Dataset(damaged, deep=False), fault.rules), fault.rules, fault.unit)
                    if fault.unit == "keypoint":
                        # the finding of a pair names one of its keypoints
                        flip = next(iter(splits.values())).skeleton.flip
                        found |= {(s, flip[k]) for s, k in found if (s, flip[k]) in places}
                    total, hits, false = total + len(places), hits + len(places & found), false + len(found - places)
                    if total >= PLANTED:
                        break
                if total:
                    row = {
                        "dataset": name, "kind": kind, "share": share, "planted": total, "found": hits, "other": false,
                        "already": len(already), "rounds": round_ + 1,
                    }  # fmt: skip
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    if path is not None:
        path.write_text(json.dumps(rows))
    return rows


#: Kinds that SLEAP's label QC looks for too.
SHARED = (
    "keypoint 1 to 2 diagonals off", "two keypoints at one position", "all keypoints in one place",
    "left and right exchanged", "one pair exchanged", "keypoints in random order", "subject labelled twice",
)  # fmt: skip


def export(folder: Path, rounds: int = 4) -> None:
    """Write labels with faults as arrays, for bench/sleap_qc.py, and print what kplab finds in them by any rule."""
    folder.mkdir(parents=True)
    for name, load in MEASURED.items():
        splits = load()
        for kind in SHARED:
            for share in SHARES:
                total = hits = other = clean = 0
                for round_ in range(rounds):
                    made = planted(splits, FAULTS[kind], share, zlib.crc32(f"{name} {kind} {share} {round_}".encode()))
                    if made is None:
                        continue
                    damaged, places = made
                    report = check_dataset(Dataset(damaged, deep=False), ("geometry", "limbs", "identity"))
                    found = flagged(report)
                    columns: list[tuple[np.ndarray, np.ndarray]] = []
                    rows, images = [], 0
                    for split, labels in damaged.items():
                        counted = np.flatnonzero(labels.poses.labelled.any(1) & ~labels.poses.ignore)
                        before = sum(len(c[0]) for c in columns)
                        columns.append((labels.poses.xy[counted], labels.image_of()[counted] + images))
                        rows += [before + r for r, i in enumerate(counted) if (str(split), int(i)) in places]
                        images += len(labels)
                    skeleton = next(iter(splits.values())).skeleton
                    xy, image = (np.concatenate(c) for c in zip(*columns, strict=True))
                    np.savez(
                        folder / f"{name}-{kind.replace(' ', '_')}-{share}-{round_}.npz",
                        xy=xy, image=image, planted=rows, names=list(skeleton.keypoints), flip=skeleton.flip,
                        edges=np.array(skeleton.edges).reshape(-1, 2), dataset=name, kind=kind, share=share,
                    )  # fmt: skip
                    total, hits = total + len(places), hits + len(places & found)
                    other, clean = other + len(found - places), clean + len(xy) - len(places)
                if total:
                    row = {"dataset": name, "kind": kind, "share": share, "planted": total, "found": hits}
                    print(json.dumps({**row, "flagged_others": round(other / clean, 4)}), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["calibrate"]:
            clean(CALIBRATION)
        case ["clean"]:
            clean(MEASURED)
        case ["measure", *target]:
            measure(MEASURED, Path(target[0]) if target else None)
        case ["develop", *target]:
            measure(CALIBRATION, Path(target[0]) if target else None)
        case ["export", target]:
            export(Path(target))
        case _:
            print(__doc__)
