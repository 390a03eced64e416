"""Speed and memory of a training on this machine, measured for a few seconds in a process of its own.

``python -m kplab.tasks.planning.stopwatch CONFIG SECONDS`` measures the training config in a YAML file and prints JSON.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kplab.errors import RunError

#: Steps that are not counted: libraries prepare themselves in the first ones.
UNCOUNTED = 3
#: Fewest steps that are counted.
STEPS = 6
#: Share of the cores' time without work below which a machine is full.
FULL = 0.1


@dataclass(frozen=True)
class Timing:
    """What a training takes on this machine.

    Args:
        view: seconds of a view of a training, loading included.
        validation: seconds of a view of a validation.
        epoch: seconds of what follows each epoch: its checkpoint, and a check of the weights.
        memory: peak of the main process, MB; on a GPU that of its memory.
        views: views of an epoch.
        validated: views of a validation.
        others: share of the cores' time that other processes took, of a machine without a free core; else 0.
    """

    view: float
    validation: float
    epoch: float
    memory: float
    views: int
    validated: int
    others: float = 0.0

    def seconds(self, part: float, validate_every: int | None) -> float:
        """Seconds of an epoch.

        Args:
            part: share of the views that an epoch has.
            validate_every: epochs from one validation to the next; None: there is none.
        """
        return self.view * self.views * part + self.epoch + self.validation * self.validated / (validate_every or 10**9)


def time_training(config: DictConfig, seconds: float) -> Timing:
    """Measure a training in a process of its own, so that its memory and threads are those of a training.

    Args:
        config: of ``kplab train``.
        seconds: for which steps are counted, about.

    Raises:
        RunError: that process has failed; with its last lines.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(OmegaConf.to_yaml(config, resolve=True))
        before = core_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "kplab.tasks.planning.stopwatch", str(path), str(seconds)],
            capture_output=True,
            text=True,
        )
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise RunError(f"the speed of a training can't be measured (exit status {done.returncode}):\n{last}")
    timing = Timing(**json.loads(done.stdout.strip().splitlines()[-1]))
    return replace(timing, others=taken_by_others(before, core_seconds()))


def core_seconds() -> tuple[float, float, float] | None:
    """Seconds that the cores which this process may use were busy, those without work, and those of its finished children.

    None where the system does not tell, which only Linux does.
    """
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        cores = {f"cpu{i}" for i in os.sched_getaffinity(0)}
    except (OSError, AttributeError):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    # user, nice, system, idle, iowait, irq, softirq, steal
    rows = [[int(v) / ticks for v in fields[1:9]] for fields in map(str.split, lines) if fields and fields[0] in cores]
    free = sum(row[3] + row[4] for row in rows)
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(map(sum, rows)) - free, free, own.ru_utime + own.ru_stime


def taken_by_others(before: tuple[float, float, float] | None, after: tuple[float, float, float] | None) -> float:
    """Share of the cores' time that other processes took between two ``core_seconds``; 0 if cores were free.

    >>> taken_by_others((0.0, 0.0, 0.0), (20.0, 0.0, 9.0)), taken_by_others((0.0, 0.0, 0.0), (20.0, 10.0, 9.0))
    (0.55, 0.0)
    """
    if before is None or after is None:
        return 0.0
    busy, free, own = (b - a for a, b in zip(before, after, strict=True))
    total = busy + free
    return 0.0 if total <= 0 or free > FULL * total else round(max(0.0, busy - own) / total, 3)


def measure(config: DictConfig, seconds: float) -> Timing:
    """Measure a training in this process, see ``time_training``."""
    import lightning.pytorch as pl
    import torch

    from kplab.tasks.inference.assembly import Assembly
    from kplab.tasks.training import callbacks
    from kplab.tasks.training.checkpoints import save
    from kplab.tasks.wiring.datasets import training_data
    from kplab.tasks.wiring.models import build_model
    from kplab.tasks.wiring.training import optimizer_factory, resolve_precision

    callbacks.quiet()
    pl.seed_everything(config.seed, workers=False, verbose=False)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    precision = resolve_precision(str(config.trainer.precision), str(config.trainer.accelerator))
    cuda = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    reduced: Any = torch.autocast(device.type, torch.bfloat16) if "bf16" in precision else nullcontext()
    model = build_model(config).to(device)
    data = training_data(config, model.max_poses)
    optimizer, _ = optimizer_factory(config, model)(model, 1000)
    loader = data.datamodule.train_dataloader()
    model.train()

    def step(batch: Any) -> None:
        with reduced:
            total = torch.stack(list(model.losses(batch).values())).sum()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()

    done, begun, epoch, views = 0, time.perf_counter(), 0, 0
    while done < UNCOUNTED + STEPS or time.perf_counter() - begun < seconds:
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        epoch += 1
        for batch in loader:
            step(batch.to(device))
            done += 1
            views += len(batch)
            if done == UNCOUNTED:
                begun, views = time.perf_counter(), 0
            if done >= UNCOUNTED + STEPS and time.perf_counter() - begun >= seconds:
                break
    view = (time.perf_counter() - begun) / views
    last = batch
    begun = time.perf_counter()
    with torch.no_grad(), reduced:
        model.losses(last.to(device))
    with tempfile.TemporaryDirectory() as folder:
        # the weights, their average, and two moments of the optimiser
        save({str(i): model.state_dict() for i in range(4)}, Path(folder) / "last.ckpt")
    after = time.perf_counter() - begun
    validation, validated = 0.0, 0
    if data.val is not None:
        model.eval()
        assembly, validated = Assembly.of(config), len(data.val)
        validating = data.datamodule.val_dataloader()
        first: Any = next(iter(validating))
        for _ in range(2):  # the first one prepares
            begun = time.perf_counter()
            with torch.no_grad(), reduced:
                model.losses(first.to(device))
                assembly.predict(model, first.to(device))
            validation = (time.perf_counter() - begun) / len(first)
    memory = (
        torch.cuda.max_memory_allocated() / 1e6 if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    )
    return Timing(view, validation, after, memory, len(data.train), validated)


if __name__ == "__main__":
    from kplab.tasks.wiring.allocator import keep_freed_memory

    keep_freed_memory()
    print(json.dumps(asdict(measure(OmegaConf.load(sys.argv[1]), float(sys.argv[2])))))  # type: ignore[arg-type]
