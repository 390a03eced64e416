"""Recall and precision of the linter for planted faults, and the share of clean subjects that it reports.

    python bench/measure_linter.py calibrate      findings in the datasets that limits were chosen on
    python bench/measure_linter.py develop        faults planted in these, at 1 % and 5 %
    python bench/measure_linter.py clean          findings in the datasets that the linter is measured on, with verdicts
    python bench/measure_linter.py verdicts       the same findings as rows for bench/linter_verdicts.csv, without a verdict
    python bench/measure_linter.py measure        faults planted in the other datasets, at 1 % and 5 %
    python bench/measure_linter.py files          faults of image files, of splits, and of labels beside predictions
    python bench/measure_linter.py runs FOLDER    labels beside predictions of the runs of bench/out_of_fold.py
    python bench/measure_linter.py results DATASET FILE   labels beside predictions of another system (COCO results)
    python bench/measure_linter.py table FILE…    what measure and files printed, as a table
    python bench/measure_linter.py export FOLDER  the same faults as arrays, for bench/sleap_qc.py

Datasets are those of bench/linter_data.py, in the folder that KPLAB_DATA names. Seeds are fixed.
"""

from __future__ import annotations

import csv
import json
import math
import sys
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from file_faults import FILES, MODEL, contradicting, simulated, with_files
from label_faults import FAULTS, Fault
from linter_data import CALIBRATION, MEASURED, remembered

from kplab.data.check import Dataset, Report, check_dataset, find_rules
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.tasks.evaluation.findings import of_file, out_of_training

GROUPS = ("geometry", "limbs", "identity", "tracks", "schema")
SHARES = (0.01, 0.05)
VERDICTS = Path(__file__).with_name("linter_verdicts.csv")

#: At least this many faults of each kind, dataset and share are planted, in as many rounds as it takes, at most ROUNDS.
PLANTED, ROUNDS = 20, 20


def flagged(report: Report, rules: tuple[str, ...] | None = None, unit: str = "instance") -> set[tuple[str, int]]:
    """Places of findings that are no information: (split, index)."""
    chosen = [f for f in report.findings if f.level != "info" and (rules is None or f.rule in rules)]
    return {(f.split, at) for f in chosen if (at := getattr(f, unit)) is not None}


def verdicts() -> dict[tuple[str, str, int, str], str]:
    """(dataset, split, index of the instance, rule) to what its picture shows: wrong, right or unclear."""
    rows = csv.DictReader(VERDICTS.open())
    return {(r["dataset"], r["split"], int(r["instance"]), r["rule"]): r["verdict"] for r in rows}


def clean(datasets: Mapping[str, Callable[[], dict[str, Labels]]], template: bool = False) -> None:
    """Print the findings of each dataset as it is; false ones are those whose label is not wrong by its picture."""
    known = verdicts()
    for name, load in datasets.items():
        dataset = Dataset(load())
        report = check_dataset(dataset, GROUPS)
        counted = sum(int(s.counted.sum()) for s in dataset.splits.values())
        kinds: dict[str, set[tuple[str, int]]] = defaultdict(set)
        for f in report.findings:
            if f.level != "info" and f.instance is not None:
                kinds[f.rule].add((f.split, f.instance))
        every = set().union(*kinds.values()) if kinds else set()
        if template:
            for rule, places in kinds.items():
                for split, i in sorted(places):
                    print(f"{name},{split},{i},{rule},{known.get((name, split, i, rule), '')}")
            continue
        found = {(rule, *place): known.get((name, *place, rule), "") for rule, at in kinds.items() for place in at}
        wrong = {key[1:] for key, verdict in found.items() if verdict == "wrong"}
        unseen = sum(not verdict for verdict in found.values())
        listed = ", ".join(f"{rule} {len(places)}" for rule, places in sorted(kinds.items()))
        print(
            f"{name}: flagged {len(every)} of {counted} ({len(every) / counted:.1%}), of these not wrong "
            f"{len(every - wrong)} ({len(every - wrong) / counted:.1%}): {listed or 'none'}"
            + (f"; {unseen} findings without a verdict" if unseen else ""),
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
        splits = remembered(load()) if not kinds or any(_deep(FAULTS[kind]) for kind in kinds) else load()
        before = check_dataset(Dataset(splits), GROUPS)
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
                    found = flagged(check_dataset(Dataset(damaged, _deep(fault)), fault.rules), fault.rules, fault.unit)
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


def table(paths: list[Path]) -> None:
    """Print a table of recall and precision by kind, share and dataset, from the lines that ``measure`` printed."""
    rows = [json.loads(line) for path in paths for line in path.read_text().splitlines() if line.startswith("{")]
    names = list(MEASURED)
    print(f"| fault | share | {' | '.join(name.split('_')[0] for name in names)} | all | precision |")
    print("|" + "---|" * (len(names) + 4))
    for kind, share in dict.fromkeys((row["kind"], row["share"]) for row in rows):
        chosen = [row for row in rows if (row["kind"], row["share"]) == (kind, share)]
        found, planted, other = (sum(row[key] for row in chosen) for key in ("found", "planted", "other"))
        cells = []
        for name in names:
            own = [row for row in chosen if row["dataset"] == name and row["planted"]]
            cells.append(f"{sum(r['found'] for r in own) / sum(r['planted'] for r in own):.2f}" if own else "–")
        precision = f"{found / (found + other):.2f}" if found + other else "–"
        print(f"| {kind} | {share:.0%} | {' | '.join(cells)} | **{found / planted:.2f}** | {precision} |")


def _deep(fault: Fault) -> bool:
    """Whether a rule about the fault reads images."""
    return any(find_rules()[name].pixels for name in fault.rules)


def measure_files(
    datasets: Mapping[str, Callable[[], dict[str, Labels]]], rounds: int = 2, share: float = 0.05
) -> None:
    """Damage files of images, share images among splits, and contradict predictions; print what is found."""
    for name, load in datasets.items():
        splits = load()
        for kind, fault in FILES.items():
            total = hits = false = 0
            for round_ in range(rounds):
                rng = np.random.default_rng(zlib.crc32(f"{name} {kind} {round_}".encode()))
                with tempfile.TemporaryDirectory() as folder:
                    labels = with_files(splits, Path(folder), rng)
                    chosen = rng.permutation(len(labels))
                    damaged = chosen[: max(1, round(share * len(labels)))]
                    others = chosen[len(chosen) // 2 :][: len(damaged)]
                    parts = {"all": labels}
                    if fault.splits:
                        second = chosen[: len(chosen) // 2]
                        parts = {"first": labels.select(np.setdiff1d(chosen, second)), "second": labels.select(second)}
                    places = set()
                    for i, other in zip(damaged, others, strict=True):
                        path, second_path = labels.path(int(i)), labels.path(int(other))
                        assert path is not None
                        assert second_path is not None
                        if fault.plant(path, second_path, rng):
                            pair = {str(labels.names[i]), str(labels.names[other])}
                            places.add(
                                frozenset(pair if kind.startswith("image copied within") else [str(labels.names[i])])
                            )
                    report = check_dataset(Dataset(parts), fault.rules)
                    found = {str(report.labels[f.split].names[f.image]) for f in report.findings}
                hit = {place for place in places if place & found}
                total, hits = total + len(places), hits + len(hit)
                false += len(found - set().union(*places)) if places else len(found)
            row = {"dataset": name, "kind": kind, "share": share, "planted": total, "found": hits, "other": false}
            print(json.dumps(row), flush=True)
        labels = max(splits.values(), key=len)
        measure_model(name, labels, lambda rng, labels=labels: simulated(labels, rng), rounds, share)  # type: ignore[misc]


def measure_model(
    name: str,
    labels: Labels,
    predictions: Callable[[np.random.Generator], dict[int, Poses]],
    rounds: int,
    share: float,
    by: str = "a run",
) -> None:
    """Let labels contradict predictions, and print what is found.

    Args:
        name: of the dataset.
        labels: as they are.
        predictions: of a model that was not trained on these labels, by image id.
        rounds: of faults, each with another seed.
        share: of the subjects.
        by: whose predictions they are, in the output.
    """
    for kind, (rules, unit, _) in MODEL.items():
        total = hits = false = 0
        for round_ in range(rounds):
            rng = np.random.default_rng(zlib.crc32(f"{name} {kind} {round_}".encode()))
            found = predictions(rng)
            changed, planted_at = contradicting(labels, kind, share, rng)
            report = check_dataset(Dataset({"all": changed}, False, None, {"all": found}), rules)
            seen = {at for f in report.findings if (at := getattr(f, unit)) is not None}
            total += len(planted_at)
            hits += len(planted_at & seen)
            false += len(seen - planted_at)
        row = {
            "dataset": name,
            "kind": kind.replace("a run", by),
            "share": share,
            "planted": total,
            "found": hits,
            "other": false,
        }
        print(json.dumps(row), flush=True)


def measure_runs(folder: Path, share: float = 0.05) -> None:
    """The same with the predictions of the runs that bench/out_of_fold.py has trained, until ``PLANTED`` faults are planted."""
    for name in MEASURED:
        runs = sorted({path.parents[1] for path in (folder / "runs").glob(f"*_{name}_[01]_*/scores/*.json")})
        labels = max(MEASURED[name]().values(), key=len)
        found = out_of_training([run.name for run in runs], folder / "runs", name, {"all": labels})["all"]
        rounds = math.ceil(PLANTED / max(1, round(share * labels.poses.labelled.any(1).sum())))
        measure_model(name, labels, lambda _, found=found: found, rounds, share, "a run trained here")  # type: ignore[misc]


def measure_results(name: str, path: Path, share: float = 0.05) -> None:
    """The same with the predictions of another system, in the split whose image ids a results file names."""
    splits = MEASURED[name]()
    found = of_file(path, splits)
    split = max(found, key=lambda s: len(found[s]))
    rounds = math.ceil(PLANTED / max(1, round(share * splits[split].poses.labelled.any(1).sum())))
    measure_model(name, splits[split], lambda _: found[split], rounds, share, f"the results of {path.stem}")


#: Kinds that SLEAP's label QC looks for too.
SHARED = (
    "keypoint 1 to 2 diagonals off", "two keypoints at one position", "all keypoints in one place",
    "left and right exchanged", "one pair exchanged", "keypoints in random order", "subject labelled twice",
)  # fmt: skip


def export(folder: Path, rounds: int = 4) -> None:
    """Write labels with faults as arrays, for bench/sleap_qc.py, and print what kplab finds in them by any rule."""
    folder.mkdir(parents=True)
    for name, load in MEASURED.items():
        splits = remembered(load())
        for kind in SHARED:
            for share in SHARES:
                total = hits = other = clean = 0
                for round_ in range(rounds):
                    made = planted(splits, FAULTS[kind], share, zlib.crc32(f"{name} {kind} {share} {round_}".encode()))
                    if made is None:
                        continue
                    damaged, places = made
                    report = check_dataset(Dataset(damaged, _deep(FAULTS[kind])), ("geometry", "limbs", "identity"))
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
        case ["verdicts"]:
            clean(MEASURED, template=True)
        case ["table", *paths]:
            table([Path(path) for path in paths])
        case ["files"]:
            measure_files(MEASURED)
        case ["runs", folder]:
            measure_runs(Path(folder))
        case ["results", name, path]:
            measure_results(name, Path(path))
        case ["measure", *target]:
            measure(MEASURED, Path(target[0]) if target else None)
        case ["develop", *target]:
            measure(CALIBRATION, Path(target[0]) if target else None)
        case ["export", target]:
            export(Path(target))
        case _:
            print(__doc__)
