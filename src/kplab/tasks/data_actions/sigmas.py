"""``kplab data sigmas``: sigmas of OKS from repeated annotation, or AP under several sigmas."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kplab.errors import ConfigError, printable
from kplab.tasks import compose

EXAMPLE = "kplab data sigmas dataset=lsp split=test predictions=runs/RUN/predictions/lsp-test.json"


@dataclass
class Options:
    """Keys of ``kplab data sigmas``."""

    dataset: dict[str, Any] = field(default_factory=dict)
    split: str | None = None
    others: list[str] = field(default_factory=list)
    predictions: str | None = None


def main(args: list[str]) -> None:
    """Print a table of the estimated sigmas, beside the skeleton's own; or of AP."""
    config = compose("data sigmas", args)
    if bool(config.others) == bool(config.predictions):
        raise ConfigError(
            "give others=[DATASET] with the same images by other annotators, or predictions=FILE for AP under several sigmas."
        )
    from pathlib import Path

    from kplab.metrics.sigmas import ap_by_sigmas, estimate_sigmas, paired, usual_sigmas
    from kplab.tasks.evaluation.files import read_predictions
    from kplab.tasks.wiring.datasets import read_split, read_splits
    from kplab.viz import tables

    def labels_of(dataset: Any) -> Any:
        if config.split:
            return read_split(dataset, config.split)
        splits = read_splits(dataset)
        if len(splits) > 1:
            raise ConfigError(
                f"dataset '{dataset.name}' has several splits: choose one with split=, of {', '.join(splits)}."
            )
        return next(iter(splits.values()))

    labels = labels_of(config.dataset)
    own = labels.skeleton.sigmas
    if config.predictions:
        predictions = read_predictions(Path(config.predictions), labels.skeleton, recorded=False)
        print(printable(f"sigmas of {labels.skeleton.name}: {labels.skeleton.sigma_source}"))
        print(printable(tables.text(ap_by_sigmas(labels, predictions, usual_sigmas(own)))))
        return
    others = [labels_of(compose("data sigmas", [f"dataset={name}"]).dataset) for name in config.others]
    xy, area, alone = paired([labels, *others])
    found = estimate_sigmas(xy, area)
    print(printable(f"{len(area)} instances with {len(xy)} annotations; {alone} of the first have no counterpart"))
    rows = [
        {
            "keypoint": name,
            "instances": int(found.number[k]),
            "sigma": round(float(found.sigmas[k]), 4),
            "95 % interval": f"{found.low[k]:.4f} to {found.high[k]:.4f}",
            "robust": round(float(found.robust[k]), 4),
            "own": own[k],
        }
        for k, name in enumerate(labels.skeleton.keypoints)
    ]
    print(printable(tables.text(rows)))
