"""Reproduction of a run from its folder: the same training again, and how far both agree."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig

from kplab import config as configs
from kplab.errors import ConfigError, DataError, RunError, printable
from kplab.metrics.compare import EXEMPT
from kplab.models.weights import read_checkpoint
from kplab.runs import provenance
from kplab.runs.environment import AGREES, DIFFERS, UNKNOWN, Check, checks
from kplab.runs.records import list_artefacts, read_record, write_record
from kplab.runs.run import Run
from kplab.structures.predictions import card_path
from kplab.structures.predictor import Model
from kplab.tasks import compose
from kplab.tasks.evaluation import reproduction
from kplab.tasks.evaluation.files import check_current, read_curves, read_predictions, score_files
from kplab.tasks.evaluation.reproduction import DIFFERENT, IDENTICAL, SKIPPED, WITHIN, Part, Tolerances
from kplab.tasks.inference.assembly import set_name
from kplab.tasks.inference.loading import check_checkpoint, checkpoint_hashes
from kplab.tasks.training.checkpoints import BEST, LAST
from kplab.tasks.training.duration import repeated
from kplab.tasks.training.resume import with_missing_keys
from kplab.tasks.training.train import manifest_of, train
from kplab.tasks.wiring.data_hashes import DataHashes, changed_since, read_hashes
from kplab.tasks.wiring.datasets import TrainingData, detections_of, skeleton_of
from kplab.tasks.wiring.models import backbone_weights
from kplab.tasks.wiring.nodes import load_config
from kplab.tasks.wiring.training import global_rank, resolve_precision

#: Name of the result in the folder of the new run.
FILE = "reproduction.json"
#: Keys that may differ from the run's config: where data and parents are, and how they are loaded.
OVERRIDES = ("dataset", "detector_run", "weights", "workers")


def reproduce(config: DictConfig) -> int:
    """Check what a run was made with, train it again beside it, compare both, and write ``reproduction.json``.

    Args:
        config: of ``kplab reproduce``.

    Returns:
        the exit status: 1 where the runs are different, else 0.

    Raises:
        RunError: the run can't be reproduced; or, with ``strict``, something of the environment differs.
        DataError: the data are not those of the run; names the files.
    """
    run = Run.find(config.run, Path(config.runs_dir))
    check_run(run)
    training = config_of(run, [str(o) for o in config.overrides])
    stop_after = int(run.record["epochs"]) if run.cut else None
    tolerances = Tolerances(**{key: float(value) for key, value in configs.plain(config.tolerances).items()})
    threads = torch.get_num_threads()
    if isinstance(wanted := run.record.get("threads"), int) and wanted > 0:
        torch.set_num_threads(wanted)
    try:
        if global_rank() != 0:
            train(training, stop_after=stop_after)
            return 0
        check_outputs(run, training)
        found = [*checks(run.record, present(training)), *parents(run)]
        print(printable("\n".join([f"reproducing {run.folder}", *(f"  {check}" for check in found)])), flush=True)
        other = [check for check in found if check.state == DIFFERS]
        if any(check.what in ("commit", "changes") for check in other):
            print(printable(code_of(run)), flush=True)
        if other and config.strict:
            raise RunError(
                f"{run.name}: strict=true, but these differ: {', '.join(check.what for check in other)}. Restore them, or "
                "leave strict=true out."
            )
        data: list[Check] = []
        new = train(
            training, lambda *now: data.append(check_inputs(run, training, *now)), stop_after, reproduces=run.name
        )
    finally:
        torch.set_num_threads(threads)
    assert new is not None, "only further processes of a distributed training have no run"
    found = [*checks(run.record, new.record), *parents(run), *data]
    parts = compare(run, new, tolerances)
    path = write(run, new, found, parts, tolerances)
    print(printable(report(run, new, found, parts, tolerances) + f"\nreproduction: {path}"), flush=True)
    return int(reproduction.verdict(parts) == DIFFERENT)


def check_run(run: Run) -> None:
    """Refuse runs that are no whole training of their config.

    Raises:
        RunError: says what to do instead.
    """
    if run.status != "finished":
        raise RunError(
            f"{run.name}: is {run.status}, and only finished runs are reproduced. Finish it: kplab train resume={run.name}"
        )
    if changed := run.record.get("changed_on_resume"):
        raise RunError(
            f"{run.name}: was resumed with other values of {', '.join(map(str, changed))}, so its first epochs were trained by "
            f"another schedule than its config describes. Reproduce the run that it continues ({run.record.get('parent')}), or "
            "train anew with the longer schedule."
        )
    config = run.folder / "config.yaml"
    if not config.is_file() or provenance.file_sha256(config) != run.record.get("config_sha256"):
        raise RunError(f"{config}: is not the config that the run was trained with. Restore it.")
    epochs = run.record.get("epochs")
    if run.cut and not (isinstance(epochs, int) and epochs > 0):
        raise RunError(
            f"{run.name}: was cut in its first epoch, and a part of an epoch can't be repeated. Train it longer."
        )
    checkpoints = run.folder / "checkpoints"
    if not (checkpoints / LAST).is_file():
        raise RunError(f"{checkpoints / LAST} is missing: there is nothing to compare a reproduction with. Restore it.")
    for name in (BEST, LAST):
        if (checkpoints / name).is_file():
            check_checkpoint(run, checkpoints / name)
        elif name in checkpoint_hashes(run):
            raise RunError(f"{checkpoints / name} is missing, which the run had. Restore it.")


def config_of(run: Run, overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a run, to be trained from the start beside it, with the same precision and on the same kind of device.

    Args:
        overrides: of ``OVERRIDES`` only.

    Raises:
        ConfigError: another override, or one that the config does not have.
    """
    odd = [o for o in overrides if o.partition("=")[0].split(".")[0].lstrip("+~") not in OVERRIDES]
    if odd:
        raise ConfigError(
            f"overrides={odd}: a reproduction trains what the run did. It may override {', '.join(OVERRIDES)} only: where the "
            "files are now."
        )
    config = with_missing_keys(load_config(run))
    config.runs_dir = str(run.folder.parent)
    config.resume = config.parent = None
    config.logger = {}  # its curves are in curves.csv
    repeated(config, run.record)  # a run that was cut is repeated up to its last complete epoch
    detector = config.detector_run and Path(str(config.detector_run))
    if detector and not detector.exists() and (run.folder.parent / detector.name).is_dir():
        config.detector_run = str(run.folder.parent / detector.name)  # both were moved
    if run.record.get("device") == "cpu":
        config.trainer.accelerator = "cpu"
    precision = run.record.get("precision")
    accelerator = str(config.trainer.get("accelerator", "auto"))
    if precision and precision != resolve_precision(str(config.trainer.get("precision", "auto")), accelerator):
        config.trainer.precision = str(precision)  # what "auto" means depends on the machine
    return compose("train", list(overrides), base=config)


def check_outputs(run: Run, config: DictConfig) -> None:
    """Check that what is compared is as the training left it.

    Raises:
        RunError: a file can't be read, has changed, or was made again in another way; says how to make it.
    """
    whole_curves(run)
    best = (run.folder / "checkpoints" / BEST).is_file()
    turned = [float(degrees) for degrees in config.model.get("turns") or ()]
    expected = {"checkpoint": BEST if best else LAST, "flip_test": bool(config.flip_test), "turns": turned}
    own = [set_name(config, config.dataset, str(split)) for split in config.test_on]
    names = {*own, *(f"{name}-annotated" for name in own)}
    for path in list_artefacts(run.folder / "predictions"):
        if path.stem not in names:
            continue
        record = read_record(path)
        try:
            card = dict(json.loads(card_path(path).read_text()))
        except (ValueError, OSError, RecursionError) as error:
            raise RunError(f"{card_path(path)}: can't be read as a card ({error}). Predict again.") from None
        odd = [f"{key} {card[key]}" for key, value in expected.items() if card.get(key, value) != value]
        if odd:
            raise RunError(
                f"{path}: was predicted again with {', '.join(odd)}, and a reproduction predicts as the training did. Run: "
                f"kplab predict run={run.name} split={record.get('split')} && kplab evaluate run={run.name}"
            )
    for name in names.intersection(score_files(run)):
        check_current(run, name)


def present(config: DictConfig) -> dict[str, Any]:
    """What ``run.json`` would record now of code, packages, machine, device, precision and threads."""
    trainer = config.trainer
    accelerator, devices = str(trainer.get("accelerator", "auto")), trainer.get("devices", 1)
    gpu = accelerator != "cpu" and torch.cuda.is_available()
    number = devices if isinstance(devices, int) else torch.cuda.device_count() if gpu else 1
    return {
        "code": provenance.code(configs.workspace())[0],
        "lock_sha256": provenance.lock_hash(configs.workspace()),
        "packages": provenance.packages(),
        "hardware": provenance.hardware(),
        "device": "cuda:0" if gpu else "cpu",
        "precision": resolve_precision(str(trainer.get("precision", "auto")), accelerator),
        "threads": torch.get_num_threads(),
        "processes": number * int(trainer.get("num_nodes", 1)),
    }


def parents(run: Run) -> list[Check]:
    """For a resumed run, whether the runs that it continues were made in the same environment."""
    found, names = [], []
    for parent in ancestors(run):
        names.append(parent.name)
        found += [
            f"{check.what} of {parent.name}: {check.text.replace(' now', ' there')}"
            for check in checks(run.record, parent.record)
            if check.state == DIFFERS
        ]
    if found:
        return [Check("resumed", DIFFERS, "; ".join(found))]
    if run.record.get("parent") and not names:
        return [Check("resumed", UNKNOWN, f"the run that it continues, {run.record['parent']}, is not there")]
    return [Check("resumed", AGREES, f"from {', '.join(names)}")] if names else []


def ancestors(run: Run) -> list[Run]:
    """The runs that a run continues, the newest first, as far as they are beside it."""
    found: list[Run] = []
    while (name := (found[-1] if found else run).record.get("parent")) and isinstance(name, str):
        if "/" in name or name in (run.name, *(parent.name for parent in found)):
            break
        try:
            found.append(Run.open(run.folder.parent / name))
        except RunError:
            break
    return found


def check_inputs(run: Run, config: DictConfig, model: Model, data: TrainingData, now: DataHashes) -> Check:
    """Compare the data, and the weights to start from, with those of a run.

    Raises:
        DataError: names the files that have changed.
    """
    then = read_hashes(run)
    lines = changed_since(run, data.splits, manifest_of(config), now)
    weights = run.record.get("weights")
    if isinstance(weights, dict) and provenance.file_sha256(Path(str(config.weights))) != weights.get("sha256"):
        lines.append(f"{config.weights}: other weights than the training started from")
    weights_now = backbone_weights(model)
    for part, then_from in (run.record.get("backbone_weights") or {}).items():
        now_from = weights_now.get(part) or {}
        if now_from.get("sha256") != then_from.get("sha256"):
            lines.append(
                f"{part}: the training started from {_file_of(then_from)}, and would now from {_file_of(now_from)}"
            )
    detections = detections_of(config, data.splits) or {}
    for split, digest in (run.record.get("detections") or {}).items():
        if detections.get(split) != digest:
            lines.append(f"{config.detector_run}: other predicted boxes of split {split}")
    if lines:
        raise DataError(
            f"{run.name} was trained on other data than the files hold now, so it can't be reproduced:\n"
            + "\n".join(f"  {line}" for line in lines)
            + "\nRestore them. Nothing has been trained."
        )
    images = sum(len(labels) for labels in data.splits.values())
    if then is None:
        check = Check("data", UNKNOWN, f"images are not recorded by an older kplab; labels of {images} images agree")
    else:
        files = len(then.label_files)
        check = Check("data", AGREES, f"{images} images, {files} label file{'' if files == 1 else 's'}")
    print(printable(f"  {check}"), flush=True)
    return check


def _file_of(weights: Mapping[str, Any]) -> str:
    """An entry of ``backbone_weights`` as text."""
    if not weights:
        return "random weights"
    return f"{weights.get('source')} ({weights.get('file')}, SHA-256 {str(weights.get('sha256'))[:12]}…)"


def code_of(run: Run) -> str:
    """The commands by which a user can get the code of a run. Nothing of it is executed here."""
    code = run.record.get("code")
    commit = str(code.get("commit")) if isinstance(code, dict) else ""
    if not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        return "The code differs, and the commit of the run's code is not recorded."
    here = configs.workspace()
    there = shlex.quote(f"{here}-{commit[:8]}")
    lines = [f"git -C {shlex.quote(str(here))} worktree add --detach {there} {commit}"]
    patch = run.folder / "git.patch"
    if patch.is_file():
        lines.append(f"git -C {there} apply {shlex.quote(str(patch.absolute()))}   # read it first: it is code")
    lines.append(f"cd {there} && make setup && ./kplab reproduce run={shlex.quote(str(run.folder.absolute()))}")
    return "\n".join(
        ["The code differs; the present code is used. To use the code of the run:", *(f"  {x}" for x in lines)]
    )


def compare(run: Run, new: Run, tolerances: Tolerances) -> list[Part]:
    """The agreement of two runs, in the order of a training."""
    parts = []
    curves, again = whole_curves(run), read_curves(new)
    if curves is not None:
        empty = pd.DataFrame({"epoch": [], "step": []})
        parts.append(reproduction.compare_curves(curves, empty if again is None else again, tolerances))
    elif again is not None:
        parts.append(Part("curves", SKIPPED, f"{run.name} has none"))
    for name in (BEST, LAST):
        files = [r.folder / "checkpoints" / name for r in (run, new)]
        if all(file.is_file() for file in files):
            one, other = (read_checkpoint(file) for file in files)
            parts.append(reproduction.compare_weights(name, one, other, tolerances))
        elif any(file.is_file() for file in files):
            parts.append(Part(name, DIFFERENT, "only one of the runs has it"))
    skeleton = skeleton_of(load_config(run).dataset)
    for path in list_artefacts(new.folder / "predictions"):
        old = run.folder / "predictions" / path.name
        if not old.is_file():
            parts.append(Part(f"predictions {path.stem}", SKIPPED, f"{run.name} has none"))
            continue
        one, other = (read_predictions(file, skeleton) for file in (old, path))
        parts.append(reproduction.compare_predictions(path.stem, one, other, tolerances))
    for name, path in score_files(new).items():
        parts.append(compare_score_files(run, name, path, tolerances))
    return parts


def compare_score_files(run: Run, name: str, path: Path, tolerances: Tolerances) -> Part:
    """The agreement of a run's scores with those in a file."""
    old = run.folder / "scores" / path.name
    if not old.is_file():
        return Part(f"scores {name}", SKIPPED, f"{run.name} has none")
    read_record(old)
    one, other = (json.loads(file.read_text()) for file in (old, path))
    lines = [key for key in {**one["card"], **other["card"]} if one["card"].get(key) != other["card"].get(key)]
    rules = [key for key in lines if key not in EXEMPT]
    if rules:
        return Part(f"scores {name}", SKIPPED, f"scored in another way: {', '.join(rules)}")
    return reproduction.compare_scores(name, one, other, tolerances)


def whole_curves(run: Run) -> pd.DataFrame | None:
    """The curves of the complete epochs of a run, those of the runs that it continues included."""
    frames: list[pd.DataFrame] = []
    for one in (run, *ancestors(run)):
        frame = read_curves(one)
        if frame is None:
            continue
        frame = frame.assign(epoch=frame["epoch"].bfill().ffill())
        frames.append(frame[frame["epoch"] < frames[-1]["epoch"].min()] if frames else frame)
    if not frames:
        return None
    whole = pd.concat(frames[::-1], ignore_index=True)
    epochs = run.record.get("epochs")
    return whole[whole["epoch"] <= epochs] if isinstance(epochs, int) else whole


def report(run: Run, new: Run, found: Sequence[Check], parts: Sequence[Part], tolerances: Tolerances) -> str:
    """The result as text."""
    told = {IDENTICAL: "identical, to the bit", WITHIN: f"within tolerance ({tolerances})"}
    verdict = reproduction.verdict(parts)
    lines = [f"{new.name} reproduces {run.name}:", *(f"  {part}" for part in parts)]
    skipped = [part.what for part in parts if part.state == SKIPPED]
    rest = f"; not compared: {', '.join(skipped)}" if skipped else ""
    lines.append(f"verdict: {told.get(verdict, f'different (tolerance: {tolerances})')}{rest}")
    if verdict != IDENTICAL:
        lines.append(f"first difference: {first_difference(found, parts)}")
    return "\n".join(lines)


def first_difference(found: Sequence[Check], parts: Sequence[Part]) -> str:
    """What differs first: of the environment, and then of the results."""
    environment = [f"{check.what}: {check.text}" for check in found if check.state == DIFFERS]
    results = [f"{part.what}: {part.text}" for part in parts if part.state in (WITHIN, DIFFERENT)]
    return "; then ".join([*environment[:1], *results[:1]])


def write(run: Run, new: Run, found: Sequence[Check], parts: Sequence[Part], tolerances: Tolerances) -> Path:
    """Write the result and its record into the folder of the new run; returns the path."""
    verdict = reproduction.verdict(parts)
    content = {
        "reproduces": run.name,
        "verdict": verdict,
        "first_difference": None if verdict == IDENTICAL else first_difference(found, parts),
        "tolerances": asdict(tolerances),
        "environment": [asdict(check) for check in found],
        "parts": reproduction.as_json(parts),
    }
    path = new.folder / FILE
    path.write_text(json.dumps(content, indent=1))
    compared = {"run.json": run.folder / "run.json", "checkpoint": run.folder / "checkpoints" / LAST}
    write_record(path, configs.workspace(), compared, run=new.name, reproduces=run.name)
    return path
