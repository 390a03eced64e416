"""``kplab evaluate``: score predictions against truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from kplab import config as configs
from kplab.errors import ConfigError, printable
from kplab.tasks import compose

EXAMPLE = "kplab evaluate run=latest split=test"


@dataclass
class Options:
    """Keys of ``kplab evaluate``."""

    run: str | None = None
    predictions: str | None = None
    split: str | None = None
    regions: str | None = None
    backend: str = "torch"
    dataset: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    pictures: int = 0
    out: str | None = None
    runs_dir: str = MISSING


def main(args: list[str]) -> None:
    """Score a run's predictions, or a results file of any system. No model is loaded."""
    from kplab.runs.records import make_folder
    from kplab.runs.run import Run
    from kplab.tasks.evaluation.pictures import see_predictions
    from kplab.tasks.evaluation.scoring import evaluate_file, evaluate_run, write_scores
    from kplab.tasks.wiring.datasets import read_split
    from kplab.tasks.wiring.nodes import load_config

    config = compose("evaluate", args)
    settings = {key: value for key, value in configs.plain(config.settings).items() if value is not None}
    # keys of the other form of the command would be ignored silently
    beside = ("predictions", "out") if config.run is not None else ("regions", "pictures", "backend")
    ignored = [key for key in beside if config[key] and config[key] != "torch"]
    if ignored:
        way = "run=RUN" if config.run is not None else "predictions=FILE"
        raise ConfigError(f"{ignored[0]}=… has no meaning with {way}. Leave it out.")
    if config.pictures and config.backend != "torch":
        raise ConfigError("pictures=… shows the predictions of backend=torch. Leave one of them out.")
    if config.run is not None:
        run = Run.find(config.run, Path(config.runs_dir))
        own = load_config(run)
        dataset = config.dataset or own.dataset
        splits = [config.split] if config.split else list(own.test_on)
        for split in splits:
            evaluate_run(run, split, dataset=dataset, settings=settings, regions=config.regions, backend=config.backend)
            if config.pictures:
                for path in see_predictions(run, split, run.folder / "pictures", config.pictures, dataset):
                    print(printable(f"pictures: {path}"))
        return
    if config.predictions is None or config.dataset is None or config.split is None:
        raise ConfigError("kplab evaluate needs run=RUN, or predictions=FILE dataset=NAME split=NAME.")
    path = Path(config.predictions)
    if not path.is_file():
        raise ConfigError(f"{path}: no such predictions file. `kplab predict` writes one.")
    out = make_folder(Path(config.out)) if config.out else path.parent
    labels = read_split(config.dataset, config.split)
    scores = evaluate_file(path, labels, config.dataset, config.split, settings)
    written = write_scores(scores, out, f"{path.stem}.scores", path, split=config.split)
    print(printable(scores.text(written) + f"\nscores: {written}"))
