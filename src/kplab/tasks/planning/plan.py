"""A plan: the choices of all rules, written as an ordinary experiment and as a page with the reasons."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kplab.config import conf_dir, workspace
from kplab.data.traits import Traits, traits
from kplab.errors import ConfigError, DataError
from kplab.models.published import PACKAGED, installed
from kplab.runs.files import replacing_text
from kplab.runs.records import make_folder
from kplab.tasks import compose
from kplab.tasks.planning.draft import Choice, Draft
from kplab.tasks.planning.rules import decide
from kplab.tasks.planning.stopwatch import Timing, time_training
from kplab.tasks.wiring.datasets import check_content, read_splits

#: First line of the body of an experiment that a plan has written, and that a later plan may replace.
MARK = "# Planned by kplab plan"
#: Passes over the data, and views of a subject, that a training should have.
PASSES, VIEWS = 12, 4000
#: Share of these below which the time is short, that below which subjects are shown smaller, and that below which a small network
#: is better than one with published weights.
SHORT, SMALLER, FEWEST = 0.8, 0.33, 0.2
#: Learning rate of few steps; of more it falls with the root of their number. With a backbone that has published weights it is
#: higher, and a part of it is the backbone's; the small network with random weights has its own.
RATE, RATE_PUBLISHED, RATE_SMALL, FEW_STEPS = 3.0e-3, 6.5e-3, 4.0e-3, 400
PUBLISHED_PART = 0.2
#: Share of the cores from which on other processes are worth a warning.
BUSY = 0.15
#: Share of the budget for which a composition that comes into question is measured.
MEASURED = 0.01
#: Fewest epochs of a training: of many images, an epoch is a part.
EPOCHS = 15
PRECISIONS = ("32-true", "bf16-mixed")
#: The network with random weights for very little time.
SMALL = "resnet10_half"
#: What EfficientNet-Lite0 keeps of its weights: all norms, and the layers up to stride 4. A step takes half the time.
FROZEN = {"backbone.frozen_norm": True, "backbone.frozen": ["conv_stem", "bn1", "blocks.0", "blocks.1"]}
#: Share of the budget that validations may take, their largest number, and that below which they have a part of the images: of the
#: first ones a training learns what a validation takes.
VALIDATING, VALIDATIONS, SEVERAL = 0.08, 25, 4
#: Fewest images of a validation, and those from which on it tells which checkpoint is the best.
VALIDATED, CERTAIN = 10, 100

Measure = Callable[[str, DictConfig, float], Timing]


@dataclass(frozen=True)
class Plan:
    """A plan.

    Args:
        name: of the experiment.
        dataset: name of the dataset config.
        budget: seconds.
        traits: of the training split.
        choices: of all rules.
        timings: what was measured, by composition.
    """

    name: str
    dataset: str
    budget: float
    traits: Traits
    choices: list[Choice]
    timings: dict[str, Timing]

    def experiment(self) -> str:
        """The experiment, as YAML."""
        groups = {"dataset": self.dataset} | {k: v for c in self.choices for k, v in c.groups.items()}
        # the model comes first: it brings defaults of the other groups
        order = sorted(groups, key=lambda g: (g != "dataset", g != "model", g))
        lines = [
            "# @package _global_",
            f"{MARK} dataset={self.dataset} budget={self.budget:.0f}s; the reasons: plan.md",
        ]
        lines += ["defaults:", *(f"  - override /{g}: {groups[g]}" for g in order), ""]
        values = OmegaConf.create({})
        for choice in self.choices:
            for key, value in choice.values.items():
                OmegaConf.update(values, key, value, force_add=True)
        return "\n".join(lines) + "\n" + OmegaConf.to_yaml(values)

    @property
    def warning(self) -> str:
        """That the speed was measured beside other processes; "" if it was not."""
        others = max((t.others for t in self.timings.values()), default=0.0)
        if others < BUSY:
            return ""
        return (
            f"Other processes took {others:.0%} of the cores while the speed was measured, so the plan is for a slower machine. "
            "Plan anew when they have ended."
        )

    def page(self) -> str:
        """The reasons, as Markdown."""
        lines = [f"# {self.name}", "", f"`kplab train experiment={self.name}`, planned for {self.budget:.0f} s.", ""]
        lines += ["| rule | measured | choice | reason |", "|---|---|---|---|"]
        for c in self.choices:
            made = [f"{k}={v}" for k, v in c.groups.items()]
            made += [f"{k}={short(v)}" for k, v in c.values.items()]
            lines.append(f"| {c.rule} | {c.figure} | `{' '.join(made)}` | {c.reason} |")
        lines += ["", "## Traits of the training split", "", "| trait | value |", "|---|---|"]
        lines += [f"| {k} | {v} |" for k, v in self.traits.record().items()]
        lines += ["", "## Measured on this machine", ""]
        lines += [self.warning, ""] if self.warning else []
        lines += [
            "| composition | views/s | validation views/s | after an epoch, s | memory, MB |",
            "|---|---|---|---|---|",
        ]
        for name, t in self.timings.items():
            validation = f"{1 / t.validation:.1f}" if t.validation else "–"
            lines.append(f"| {name} | {1 / t.view:.1f} | {validation} | {t.epoch:.2f} | {t.memory:.0f} |")
        return "\n".join(lines) + "\n"


def short(value: Any) -> str:
    """A value in a table; long lists by their length."""
    text = json.dumps(value)
    return text if len(text) < 40 else f"[{len(value)} entries]"


def seconds_of(budget: str) -> float:
    """Seconds of a budget such as ``90s``, ``20m`` or ``1.5h``.

    Raises:
        ConfigError: it is none.

    >>> seconds_of("1.5h")
    5400.0
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|h)", str(budget).strip())
    if not found or float(found[1]) <= 0:
        raise ConfigError(f"budget is '{budget}'. Write a number with s, m or h, such as budget=20m.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def make_plan(
    dataset: str, budget: str, family: str, given: list[str], name: str, measure: Measure | None = None
) -> Plan:
    """Plan a training.

    Args:
        dataset: name of the dataset config.
        budget: time of the training with its validations, e.g. ``20m``.
        family: one of ``families.FAMILIES``, or "auto".
        given: overrides of the user, which the measured compositions have as well.
        name: of the experiment.
        measure: measures a composition of a name; None is the stopwatch.

    Raises:
        KplabError: the dataset, or the budget, is not sufficient for a training.
    """
    seconds = seconds_of(budget)
    base = compose("data", [f"dataset={dataset}", *(o for o in given if o.startswith(("dataset.", "hydra.")))])
    splits = read_splits(base.dataset)
    if "train" not in splits:
        raise DataError(f"dataset '{dataset}' has no split 'train', but: {', '.join(splits)}.")
    check_content(splits["train"], "train", dataset)
    measured: dict[str, Timing] = {}
    stopwatch = measure or (lambda _, config, duration: time_training(config, duration))

    def timed(composition: str, config: DictConfig) -> Timing:
        measured[composition] = stopwatch(composition, config, min(60.0, max(4.0, MEASURED * seconds)))
        return measured[composition]

    draft = Draft(traits(splits["train"]), family, "val" in splits)
    decide(draft)
    chosen = network(draft, dataset, seconds, given, timed)  # may decide the others anew
    draft.choices.append(chosen)
    backbone = compose("train", [*overrides_of(draft.choices, dataset), *given]).backbone
    published = bool(backbone.get("pretrained") or backbone.get("checkpoint"))
    by_clock = not any(o.startswith("trainer.max_epochs=") for o in given)
    draft.choices.append(length(draft, seconds, published, by_clock))
    return Plan(name, dataset, seconds, draft.traits, draft.choices, measured)


def network(
    draft: Draft, dataset: str, budget: float, given: list[str], timed: Callable[[str, DictConfig], Timing]
) -> Choice:
    """Backbone, precision and resolution, by their speed on this machine.

    Weights of ImageNet come first. Where the time allows too few views to learn from, images are changed less and a single
    subject is not cropped; then subjects are shown smaller; where that does not suffice either, a small network with random
    weights is faster.
    """
    fixed = next((o.partition("=")[2] for o in given if o.startswith("backbone=")), None)
    pretrained = fixed is None and installed(PACKAGED["tf_efficientnet_lite0"]) is not None
    backbone = fixed or ("efficientnet_lite0" if pretrained else SMALL)

    def measure(backbone: str, pretrained: bool, precision: str) -> Timing:
        chosen = choose(backbone, pretrained, draft)
        overrides = [*overrides_of([*draft.choices, chosen], dataset), f"trainer.precision={precision}", *given]
        size = "x".join(map(str, draft.value("window") or draft.value("size")))
        return timed(f"{backbone} {size} {precision}", compose("train", overrides))

    def fastest(backbone: str, pretrained: bool, precisions: tuple[str, ...]) -> tuple[str, Timing]:
        found = {precision: measure(backbone, pretrained, precision) for precision in precisions}
        best = min(found, key=lambda p: found[p].view)
        return best, found[best]

    def share() -> float:
        return budget / found.view / max(wanted, PASSES * found.views)

    # a view of a cascade shows each of its subjects in a crop
    wanted = VIEWS / (draft.traits.usual if draft.cascade else 1.0)
    precision, found = fastest(backbone, pretrained, PRECISIONS)
    figures = [f"{backbone} in {precision}: {1 / found.view:.1f} views a second"]
    if share() < SHORT:
        draft.short = True
        family = draft.kind
        decide(draft)
        if draft.kind is not family:  # without a detector
            precision, found = fastest(backbone, pretrained, (precision,))
            figures.append(f"without a detector {1 / found.view:.1f}")
    if share() < SMALLER:
        draft.shrink = math.sqrt(share() / SMALLER)
        decide(draft)
        precision, found = fastest(backbone, pretrained, (precision,))
        figures.append(f"with smaller subjects {1 / found.view:.1f}")
    if pretrained and budget / found.view < FEWEST * wanted:
        backbone, pretrained = SMALL, False
        precision, found = fastest(backbone, pretrained, PRECISIONS)
        figures.append(f"{backbone} in {precision}: {1 / found.view:.1f}")
    chosen = choose(backbone, pretrained, draft)
    fit = budget / found.view
    reason = f"the faster precision; {fit:.0f} views fit, {fit / share():.0f} are wanted"
    reason += "; weights of ImageNet" if pretrained else ""
    draft.timing = found
    return Choice(
        "network", "; ".join(figures), reason, {**chosen.values, "trainer.precision": precision}, chosen.groups
    )


def choose(backbone: str, pretrained: bool, draft: Draft) -> Choice:
    """The groups and values of a backbone; with published weights it is the detector's as well."""
    values: dict[str, Any] = {"backbone.pretrained": True, **FROZEN} if pretrained else {}
    groups = {"backbone": backbone}
    if draft.cascade and pretrained:
        values |= {f"detector.{key}": value for key, value in values.items()}
        groups["backbone@detector.backbone"] = backbone
    return Choice("network", "", "", values, groups)


def length(draft: Draft, budget: float, published: bool, by_clock: bool = True) -> Choice:
    """Epochs, and what depends on their number: validations, learning rates, averaging of weights.

    Args:
        published: whether the backbone starts from published weights.
        by_clock: whether the number of epochs follows from the budget; else the user has given it.

    Raises:
        ConfigError: the budget is too small for one epoch.
    """
    timing = draft.timing
    whole = timing.seconds(1.0, None)
    if whole > budget:
        raise ConfigError(
            f"a budget of {budget:.0f} s is too small: one epoch of {timing.views} views takes {whole:.0f} s on this machine. "
            f"Give {math.ceil(whole * 10 / 60)}m or more, or a smaller dataset."
        )
    # the number of epochs is set anew after each one, which needs some of them
    batches = math.ceil(timing.views / draft.value("batch_size"))
    used = min(batches, max(1, int(batches * budget / whole / EPOCHS))) if by_clock else batches
    part = used / batches
    every = 1
    if draft.validated:
        fit = int(VALIDATING * budget / max(timing.validation, 1e-6))  # views
        timing = replace(timing, validated=min(timing.validated, max(VALIDATED, fit // SEVERAL)))
        number = max(1, min(VALIDATIONS, fit // max(1, timing.validated)))
        every = math.ceil(budget / timing.seconds(part, None) / number)
    took = timing.seconds(part, every if draft.validated else None)
    epochs = max(1, int(budget / took))
    every = min(every, epochs)
    certain = draft.validated and timing.validated >= CERTAIN
    steps = epochs * used
    rates = draft.kind.rates | ({"backbone": PUBLISHED_PART} if published else {})
    ema = round(min(0.9995, max(0.9, 1 - 20 / steps)), 5)
    values: dict[str, Any] = {
        "duration": budget if by_clock else None,
        "trainer.max_epochs": epochs,
        **({"trainer.limit_train_batches": used} if used < batches else {}),
        "optimizer.lr": rate(steps, draft.groups["backbone"], published),
        **({"optimizer.rates": rates} if rates else {}),
        "optimizer.warmup": max(1, steps // 20),
        "ema": ema,
        "validate_every": every,
        **({"validate_images": timing.validated} if timing.validated < draft.timing.validated else {}),
        "monitor": None if not certain else "val/AP" if draft.traits.most > 1 else "val/mean_px",
    }
    reason = "the learning rate falls in the last two fifths, up to the end of the budget; weights are averaged over "
    reason += "about the last twentieth of the steps"
    reason += f"; the backbone learns {PUBLISHED_PART} times as fast, to keep what it knows" if published else ""
    reason += (
        f"; validations of {timing.validated} images take {timing.validation * timing.validated / every / took:.0%} of the time"
        if draft.validated
        else "; there is no validation split: all labels are trained on"
    )
    reason += ", and the best one's weights are used" if certain else ", and the last weights are used"
    reason += (
        f", as fewer than {CERTAIN} images hardly tell which are the best" if draft.validated and not certain else ""
    )
    figure = f"about {epochs} epochs of {took:.1f} s, {steps} steps"
    if part < 1:
        figure += f"; an epoch is {part:.0%} of the images, drawn anew each time"
    return Choice("length", figure, reason, values, {"optimizer": "adamw_trapezoid"})


def rate(steps: int, backbone: str, published: bool) -> float:
    """The peak learning rate of a number of steps: that of few steps, falling to a third of it.

    Args:
        published: whether the backbone starts from published weights.
    """
    most = RATE_PUBLISHED if published else RATE_SMALL if backbone == SMALL else RATE
    return round(max(most / 3, most * min(1.0, math.sqrt(FEW_STEPS / steps))), 5)


def overrides_of(choices: list[Choice], dataset: str) -> list[str]:
    """Choices as overrides of ``kplab train``."""
    groups = {"dataset": dataset} | {k: v for c in choices for k, v in c.groups.items()}
    values = {k: v for c in choices for k, v in c.values.items()}
    return [*(f"{k}={v}" for k, v in groups.items()), *(f"{k}={hydra(v)}" for k, v in values.items())]


def hydra(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{hydra(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(hydra, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def read_timings(path: Path) -> Measure:
    """Timings of an earlier plan, in place of the stopwatch.

    Raises:
        ConfigError: the file does not have them, or a composition is not among them.
    """
    try:
        known = {k: Timing(**v) for k, v in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"timings={path}: {error}. Name the timings.json of an earlier plan.") from None

    def measure(composition: str, config: DictConfig, seconds: float) -> Timing:
        if composition not in known:
            raise ConfigError(
                f"{path}: has no '{composition}', but: {', '.join(known)}. Leave timings out to measure it."
            )
        return known[composition]

    return measure


def write_plan(plan: Plan) -> Path:
    """Write the experiment, ``plan.md`` and ``timings.json``.

    Returns:
        the file of the experiment.

    Raises:
        ConfigError: there is an experiment of that name that no plan has written.
    """
    path = conf_dir() / "experiment" / f"{plan.name}.yaml"
    if path.is_file() and MARK not in path.read_text():
        raise ConfigError(f"{path}: is not a plan, and is not replaced. Give another name=…")
    folder = make_folder(workspace() / "plans" / plan.name)
    timings = json.dumps({k: asdict(v) for k, v in plan.timings.items()}, indent=1)
    for file, text in (
        (path, plan.experiment()),
        (folder / "plan.md", plan.page()),
        (folder / "timings.json", timings),
    ):
        with replacing_text(file) as stream:
            stream.write(text)
    return path
