"""Plans: what each rule decides from which data, the budget, and the experiment that comes out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from kplab.data.traits import Traits
from kplab.errors import ConfigError
from kplab.tasks import compose
from kplab.tasks.planning import command, plan, rules
from kplab.tasks.planning.draft import PADDED, Choice, Draft
from kplab.tasks.planning.families import CELLS, FAMILIES, SNAP
from kplab.tasks.planning.stopwatch import Timing, measure
from kplab.tasks.training.train import train
from kplab.tasks.wiring.datasets import training_data
from kplab.tasks.wiring.models import build_model, check_flip_test
from kplab.tasks.wiring.training import optimizer_factory

NAN = float("nan")
#: One subject of 120 px in images of 640x480 from a fixed camera.
TRAITS = Traits(
    images=100, subjects=100, keypoints=8, most=1, usual=1.0, width=640.0, height=480.0, one_size=True, side=120.0,
    side_low=100.0, side_high=140.0, share=120 / 640, aspect=1.0, nearest=12.0, covered=1.0, overlap=0.0, labelled=1.0, distinct=90,
    turned=20.0, mirrored=1.0, sides=True, colour=True, light=5.0, still=0.95, groups=1,
)  # fmt: skip
#: 20 views a second.
TIMING = Timing(view=0.05, validation=0.02, epoch=0.1, memory=900.0, views=100, validated=20)


def draft(asked: str = "auto", validated: bool = False, **changes: Any) -> Draft:
    """The choices of all rules that need the data alone."""
    made = Draft(replace(TRAITS, **changes), asked, validated)
    rules.decide(made)
    return made


def test_family_follows_the_number_of_subjects() -> None:
    assert draft().groups["head"] == "heatmap"
    assert (draft(most=3, usual=2.0).groups["model"], draft(most=3).groups["head"]) == ("cascade", "heatmap")
    assert draft(most=100, usual=60.0).groups["head"] == "centernet"
    assert draft(most=40, usual=3.0).groups["model"] == "cascade"  # a few crowded images decide nothing
    assert [draft(most=m, usual=m).value("detector.head.max_poses") for m in (2, 10)] == [12, 40]
    assert [draft(most=2, labelled=share).value("rescore") for share in (0.95, 0.6)] == [0.0, 0.2]
    overlaps = {0.0: 0.5, 0.28: 0.5, 0.4: 0.6, 0.85: 0.9}
    assert {o: draft(most=2, overlap=o).value("model.nms_threshold") for o in overlaps} == overlaps
    assert "at most 12 boxes are read" in next(c.reason for c in draft(most=2).choices if c.rule == "view")
    varied = {"side_low": 50.0, "subjects": 300}
    alone = draft(**varied)
    assert (alone.groups["model"], alone.value("model.keep"), alone.value("model.passes")) == ("cascade", 1, 3)
    assert all(draft(**(varied | c)).groups["model"] == "pose" for c in ({"subjects": 40}, {"share": 0.8}))
    alone.short = True
    rules.decide(alone)
    assert alone.groups["model"] == "pose"
    assert draft("yolo", most=2).groups["neck"] == "fpn"
    with pytest.raises(ConfigError, match=r"predicts one subject of an image, and images have up to 3\. Use topdown"):
        draft("heatmap", most=3)
    with pytest.raises(ConfigError, match="family is 'hourglass'"):
        draft("hourglass")


@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("side", [3.0, 10.0, 60.0, 480.0, 2000.0])
@pytest.mark.parametrize("width", [64.0, 250.0, 640.0, 4000.0])
@pytest.mark.parametrize("aspect", [0.4, 0.75, 0.94])
def test_views_show_subjects_of_any_size(side: float, width: float, most: int, aspect: float) -> None:
    """Sides are multiples of 32 within limits, and a subject is neither lost nor larger than its window."""
    side = min(side, width)
    made = draft(
        side=side, side_low=side, side_high=side, width=width, height=aspect * width, share=side / width, nearest=side / 20,
        most=most,
    )  # fmt: skip
    size = made.value("size")
    small = made.value("detector.size") if most > 1 else size
    assert all(s % 32 == 0 and 64 <= s <= rules.LARGEST for s in small)
    shown = side * size[0] / width
    assert shown >= min(20.0, side) or size[0] == rules.LARGEST
    window = made.value("window")
    assert window is None or (window[0] < min(size) and window[0] >= shown)
    if most > 1:
        assert made.value("model.crop")[0] <= 1.3 * rules.SUBJECT[1]
        # a cascade resizes the view for its detector
        assert small[0] * size[1] == small[1] * size[0]
        assert small[0] <= size[0] <= 1.25 * rules.LARGEST


def test_close_keypoints_want_larger_views() -> None:
    """Four pixels between the closest ones, if the image has them."""
    assert draft(side=400.0, side_high=420.0, share=0.6, nearest=40.0).value("size")[0] < 300
    assert draft(side=400.0, side_high=420.0, share=0.6, nearest=8.0).value("size")[0] > 300


def test_crops_keep_close_keypoints_apart() -> None:
    """Six pixels between the closest ones, beyond the pixels of the image if need be, but no crop is larger than 320 px."""
    shown = {near: draft(most=2, side=94.0, nearest=near).value("model.crop")[0] / PADDED for near in (20.0, 4.7, 1.0)}
    assert shown[20.0] <= 94
    assert 6.0 * 94 / 4.7 - rules.MULTIPLE / PADDED < shown[4.7] <= 6.0 * 94 / 4.7
    assert shown[1.0] * PADDED == 320


def test_heatmaps_have_narrow_gaussians() -> None:
    """Of one subject and in crops; heads with other targets keep their own."""
    for made in (draft(), draft(most=2)):
        assert (made.value("head.sigma"), made.value("head.blur")) == (1.5, 9)
    assert not any(
        key.startswith("head.sigma") for f in ("yolo", "simcc", "rle") for c in draft(f).choices for key in c.values
    )


def test_a_transformer_reads_the_finest_map_with_few_cells() -> None:
    for made in (draft("query"), draft("query", width=4000.0, height=3000.0, side=3900.0), draft("poseted", most=2)):
        width, height = made.value("model.crop") if made.cascade else made.value("size")
        fine, coarse = made.value("neck.levels")
        assert fine == 4  # of the auxiliary heatmaps
        assert width * height / coarse**2 <= CELLS
        assert coarse == 8 or width * height / (coarse / 2) ** 2 > CELLS


def test_regressed_keypoints_snap_within_a_part_of_the_subject() -> None:
    for family in ("query", "poseted"):
        made = draft(family)
        auxiliary = made.value("model.auxiliary")
        assert auxiliary["snap"] == pytest.approx(SNAP * made.shown.side, abs=0.05)
        assert (made.shown.side, made.shown.scale * 120.0) == (pytest.approx(120.0, rel=0.2),) * 2
    assert draft("yolo").value("model.auxiliary").get("snap") is None
    assert not any("model.auxiliary" in c.values for c in draft("topdown").choices)


def test_anchors_are_as_large_as_the_subjects() -> None:
    """The padded hull of 120 x 60 px has 1.2 times these sides, here shown with the pixels of the image."""
    made = draft("rcnn", most=2, aspect=0.5, nearest=3.0, side=120.0, side_low=90.0, side_high=160.0)
    scale = made.shown.scale
    (low,), (middle,), (high,) = made.value("head.anchor_sizes")
    assert low <= 1.2 * 90 * scale * math.sqrt(0.5) < middle < 1.2 * 160 * scale * math.sqrt(0.5) <= high
    assert made.value("head.rpn_after") == [100, 50]
    assert draft("rcnn", most=60).value("head.rpn_after") == [480, 240]


def test_rotation_follows_the_orientations() -> None:
    assert draft(turned=4.0).value("augment.rotate") == 10
    assert draft(turned=40.0).value("augment.rotate") == 30
    assert draft(turned=180.0, still=0.2).value("augment.rotate") == 45
    # a small subject before a fixed camera, of which few poses are known
    assert draft(turned=5.0, distinct=4, share=0.1).value("augment.rotate") == 180
    assert draft(turned=5.0, distinct=90, share=0.1).value("augment.rotate") == 10


def test_predictions_turn_views_by_angles_that_are_trained_on() -> None:
    freely = {"turned": 5.0, "distinct": 4, "share": 0.1}
    assert draft(**freely).value("model.turns") == draft(most=2, **freely).value("model.turns") == rules.EIGHTHS
    assert draft(turned=180.0, still=0.2).value("model.turns") == [-22, 22]
    assert draft(most=2, **freely).value("model.turned") == "last"
    for made in (draft(turned=20.0), draft("simcc", **freely)):
        assert not any("turns" in key for c in made.choices for key in c.values)


def test_boxes_are_hulls_where_these_cover_them() -> None:
    """Annotated boxes of rotated views are loose."""
    cascade, alone = draft(most=2), draft()
    assert (cascade.value("detector.head.boxes"), cascade.value("model.hull")) == ("keypoints", "keypoints")
    assert cascade.value("model.passes") == 2
    assert draft(most=2, covered=0.65).value("model.hull") == "keypoints"
    loose = draft(most=2, covered=0.5)
    assert loose.value("model.hull") == loose.value("detector.head.boxes") == "annotated"
    assert not any("model.passes" in c.values for c in loose.choices)
    assert draft("yolo", most=2).value("head.boxes") == draft("centernet").value("head.boxes") == "keypoints"
    assert not any("box" in key or "hull" in key for c in alone.choices for key in c.values)


@pytest.mark.parametrize(
    ("flip", "ratio", "changes"),  # sides; with many directions, or too few distinct poses to tell; no sides
    [(0.5, 4, {}), (0.5, NAN, {}), (0.0, 6, {}), (0.5, 6, {"turned": 80.0}), (0.5, 40, {"distinct": 5}),
     *((flip, ratio, {"sides": False}) for flip, ratio in ((0.5, 1.1), (0.0, 9), (0.0, NAN)))],
)  # fmt: skip
def test_mirroring_needs_sides_or_mirrored_poses(flip: float, ratio: float, changes: dict[str, Any]) -> None:
    made = draft(mirrored=ratio, **changes)
    assert (made.value("augment.flip"), made.value("flip_test")) == (flip, bool(flip))


def test_colour_changes_as_the_data_do() -> None:
    grey = draft(colour=False).value("augment.transforms")[0]
    assert (grey["saturation"], grey["hue"]) == ([1.0, 1.0], [0.0, 0.0])
    assert draft(still=0.1).value("augment.transforms")[0]["hue"] != [0.0, 0.0]
    assert draft(light=60.0).value("augment.transforms")[0]["brightness"] == [0.65, 1.35]
    made = draft()
    assert len(made.value("augment.transforms")) == 4
    made.short = True
    rules.decide(made)
    assert [t["_target_"] for t in made.value("augment.transforms")] == ["albumentations.ColorJitter"]


def test_holes_hide_parts_of_a_subject() -> None:
    """In a window around it, and in the view of a cascade, where it is small; never all of it."""
    for made in (draft(), draft(most=2, width=1600.0, height=1200.0)):
        sides, t = made.value("window") or made.value("size"), made.traits
        (cutout,) = [c for c in made.value("augment.transforms") if c["_target_"].endswith("CoarseDropout")]
        shown = t.side * made.value("size")[0] / t.width
        for side, key in zip(sides, ("hole_width_range", "hole_height_range"), strict=True):
            assert [side * h for h in cutout[key]] == pytest.approx([0.1 * shown, 0.3 * shown], rel=0.02)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400)])
def test_budgets(text: str, seconds: float) -> None:
    assert plan.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["20", "m", "-5m", "0s", "5 days"])
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"Write a number with s, m or h"):
        plan.seconds_of(text)


@pytest.mark.parametrize("validated", [False, True])
def test_epochs_and_validations_fill_the_budget(validated: bool) -> None:
    """By the measured times, with all that follows an epoch; a validation closes the training."""
    made = draft(validated=validated)
    made.choices.append(Choice("n", "", "", {}, {"backbone": "b"}))
    made.timing = TIMING
    for budget in (30.0, 600.0, 7200.0):
        choice = plan.length(made, budget, published=False)
        assert choice.values["duration"] == budget
        epochs, every = choice.values["trainer.max_epochs"], choice.values["validate_every"]
        batches = math.ceil(TIMING.views / made.value("batch_size"))
        used = choice.values.get("trainer.limit_train_batches", batches)
        assert isinstance(used, int)  # Lightning takes a float as a share, of which few batches leave none
        assert (used < batches) == (budget == 30.0)
        part = used / batches
        validations = math.ceil(epochs / every)
        once = 0.02 * choice.values.get("validate_images", TIMING.validated)
        took = epochs * (part * 5.0 + 0.1) + (once * validations if validated else 0)
        assert 0.85 * budget <= took <= 1.01 * budget
        assert epochs >= 0.8 * plan.EPOCHS
        assert 0.9 <= choice.values["ema"] <= 0.9995
        if validated:
            assert once * validations <= 0.1 * budget
            assert 1 < validations <= plan.VALIDATIONS
    with pytest.raises(ConfigError, match=r"a budget of 4 s is too small: one epoch of 100 views takes 5 s"):
        plan.length(made, 4.0, published=False)
    many = replace(TIMING, validated=5000)
    for budget, images in ((600.0, 600), (60.0, 60), (6.0, plan.VALIDATED)):  # a fiftieth, or as few as tell something
        made.timing = many
        choice = plan.length(made, budget, published=False)
        assert choice.values.get("validate_images") == (images if validated else None)
        # the best of few images is often not the best
        assert choice.values["monitor"] == ("val/mean_px" if validated and images >= plan.CERTAIN else None)
        assert ("fewer than 100 images" in choice.reason) == (validated and images < plan.CERTAIN)
    made.timing = replace(TIMING, views=2 * made.value("batch_size"))
    assert plan.length(made, 2.0, published=False).values["trainer.limit_train_batches"] == 1
    fixed = plan.length(made, 2.0, published=False, by_clock=False).values
    assert fixed["duration"] is None
    assert "trainer.limit_train_batches" not in fixed


def test_the_learning_rate_falls_with_the_root_of_the_steps() -> None:
    assert [plan.rate(steps, "resnet18", False) for steps in (10, 400, 1600, 10**6)] == [3e-3, 3e-3, 1.5e-3, 1e-3]
    assert [plan.rate(steps, "efficientnet_lite0", True) for steps in (400, 1600)] == [6.5e-3, 3.25e-3]
    assert [plan.rate(steps, plan.SMALL, False) for steps in (10, 1600)] == [4e-3, 2e-3]


def test_little_time_shows_smaller_subjects(workspace: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """First there are fewer changes of images, then smaller subjects, then a small network."""
    monkeypatch.setattr(plan, "traits", lambda _: TRAITS)

    def by_pixels(composition: str, config: DictConfig, seconds: float) -> Timing:
        w, h = config.window or config.size
        factor = 3.0 if config.backbone.pretrained else 1.0
        return replace(TIMING, view=factor * w * h / 1e6, views=8)

    def planned(budget: str) -> tuple[list[int], int, str]:
        made = plan.make_plan("dots", budget, "auto", workspace, "p", by_pixels)
        values = {k: v for c in made.choices for k, v in c.values.items()}
        backbone = {k: v for c in made.choices for k, v in c.groups.items()}["backbone"]
        return values["window"] or values["size"], len(values["augment.transforms"]), backbone

    (size, transforms, published) = planned("1h")
    view = by_pixels("", OmegaConf.create({"backbone": {"pretrained": True}, "window": None, "size": size}), 0.0).view
    wanted = plan.VIEWS * view / 60
    assert planned(f"{0.9 * plan.SHORT * wanted:.3f}m") == (size, 1, published)  # no blur, but all pixels
    assert transforms > 1
    smaller = planned(f"{0.5 * plan.SMALLER * wanted:.3f}m")
    assert smaller[0][0] < size[0]
    assert smaller[1:] == (1, published)
    tiny = planned("5s")
    assert tiny[0][0] <= smaller[0][0]
    assert tiny[2] == "resnet10_half"


@pytest.fixture
def workspace(overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides that name the dataset ``dots``; experiments and plans are written to the test's folder."""
    (tmp_path / "conf" / "experiment").mkdir()
    monkeypatch.setattr(plan, "conf_dir", lambda: tmp_path / "conf")
    monkeypatch.setattr(plan, "workspace", lambda: tmp_path)
    return [o for o in overrides if o.startswith("hydra.")]


def fake(composition: str, config: DictConfig, seconds: float) -> Timing:
    """Half precision is the slower one."""
    return replace(TIMING, view=0.08, views=8) if "bf16" in composition else replace(TIMING, views=8)


def test_a_plan_is_an_ordinary_experiment(workspace: list[str], tmp_path: Path) -> None:
    """Composed by name, with every choice in it; twice the same; its timings can be given back."""
    given = [*workspace, "trainer=cpu"]
    made = plan.make_plan("dots", "60s", "auto", given, "planned_dots", fake)
    plan.write_plan(made)
    config = compose("train", [*given, "dataset=dots", "experiment=planned_dots"])
    for key, value in {k: v for c in made.choices for k, v in c.values.items()}.items():
        found: Any = OmegaConf.select(config, key)
        assert (OmegaConf.to_container(found) if OmegaConf.is_config(found) else found) == value, key
    assert config.trainer.precision == "32-true"
    assert config.name == "planned_dots"
    page = (tmp_path / "plans" / "planned_dots" / "plan.md").read_text()
    assert all(c.reason in page and c.figure in page for c in made.choices)
    timings = plan.read_timings(tmp_path / "plans" / "planned_dots" / "timings.json")
    again = plan.make_plan("dots", "60s", "auto", given, "planned_dots", timings)
    assert again.experiment() == made.experiment()
    assert again.page() == made.page()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_composes_and_is_built(workspace: list[str], family: str) -> None:
    """Neck, head, window and flip test fit each other, and a training step has finite gradients."""
    given = [*workspace, "backbone=resnet10_half", "dataset.skeleton.edges=[[red,left_green],[red,right_blue]]"]
    made = plan.make_plan("dots", "60s", family, given, "p", fake)
    config = compose("train", [*plan.overrides_of(made.choices, "dots"), *given, "workers=0"])
    model = build_model(config)
    check_flip_test(model, config.flip_test)
    losses = model.losses(next(iter(training_data(config, model.max_poses).datamodule.train_dataloader())))
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_both_stages_of_a_cascade_start_from_published_weights(workspace: list[str], tmp_path: Path) -> None:
    """By the experiment that is written, as by the overrides that are measured."""
    made = plan.make_plan("dots", "1h", "topdown", workspace, "planned_dots", fake)
    plan.write_plan(made)
    for overrides in (plan.overrides_of(made.choices, "dots"), ["dataset=dots", "experiment=planned_dots"]):
        config = compose("train", [*workspace, *overrides])
        for part in (config, config.detector):
            assert (part.backbone.name, part.backbone.pretrained) == ("tf_efficientnet_lite0", True)
            assert part.backbone.frozen_norm


@pytest.mark.parametrize(
    ("given", "slower"),
    [
        ([], True),
        (["backbone=efficientnet_lite0", "backbone.pretrained=true"], True),
        (["backbone=resnet10_half"], False),
        (["backbone.pretrained=false"], False),
    ],
)
def test_backbones_with_published_weights_learn_slower(workspace: list[str], given: list[str], slower: bool) -> None:
    """Whoever has chosen the weights; and in training, by parameters of the model."""
    made = plan.make_plan("dots", "1h", "topdown", [*workspace, *given], "planned_dots", fake)
    config = compose("train", [*plan.overrides_of(made.choices, "dots"), *workspace, *given])
    model = build_model(config)
    optimizer, _ = optimizer_factory(config, model)(model, steps=100)
    rates = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    for part in (model.subject, model.detector):
        ratio = rates[id(next(p for p in part.backbone.parameters() if p.requires_grad))] / config.optimizer.lr
        assert ratio == pytest.approx(plan.PUBLISHED_PART if slower else 1.0)
        assert rates[id(next(part.head.parameters()))] == pytest.approx(config.optimizer.lr)


def test_a_plan_of_a_busy_machine_has_a_warning(workspace: list[str]) -> None:
    quiet = plan.make_plan("dots", "60s", "auto", workspace, "p", fake)
    busy = replace(quiet, timings={k: replace(t, others=0.4) for k, t in quiet.timings.items()})
    assert (quiet.warning, quiet.page().count("Other processes")) == ("", 0)
    assert "Other processes took 40% of the cores" in busy.warning
    assert busy.warning in busy.page()


def test_files_that_no_plan_has_written_stay(workspace: list[str], tmp_path: Path) -> None:
    made = plan.make_plan("dots", "60s", "auto", workspace, "mine", fake)
    path = tmp_path / "conf" / "experiment" / "mine.yaml"
    path.write_text("# @package _global_\nseed: 3\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: is not a plan, and is not replaced"):
        plan.write_plan(made)
    (tmp_path / "timings.json").write_text(json.dumps({"resnet18 64x64 32-true": TIMING.__dict__}))
    timings = plan.read_timings(tmp_path / "timings.json")
    with pytest.raises(ConfigError, match=r"has no 'resnet10_half 160x160 32-true', but: resnet18 64x64 32-true"):
        plan.make_plan("dots", "60s", "auto", [*workspace, "backbone=resnet10_half"], "m", timings)


@pytest.mark.slow
def test_train_with_a_budget(
    workspace: list[str], tmp_path: Path, clock: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It plans, and trains the plan: the run's config is complete, and needs no stopwatch to be trained again."""
    monkeypatch.setattr(plan, "time_training", lambda config, seconds: replace(TIMING, views=8, validated=4))
    clock([2.0])  # for an epoch
    more = ["trainer=cpu", "logger=csv", "workers=0", f"runs_dir={tmp_path}/runs", "backbone=resnet10_half"]
    config = compose("train", [*workspace, "dataset=dots", "budget=20s", *more])
    assert (config.budget, config.duration, config.regions) == ("20s", 20.0, "image")
    folded = compose("train", [*workspace, "dataset=dots", "budget=20s", "folds=2", *more])
    assert (folded.folds, folded.duration) == (2, 20.0)
    run = train(config)
    assert run is not None
    assert run.record["epochs"] == 10
    stored = OmegaConf.load(run.folder / "config.yaml")
    assert (stored.duration, stored.optimizer.lr) == (20.0, 4.0e-3)
    chosen = compose("train", [*workspace, "dataset=dots", "budget=20s", "trainer.max_epochs=3", *more])
    assert (chosen.duration, chosen.trainer.max_epochs) == (None, 3)
    with pytest.raises(ConfigError, match=r"Leave experiment=… out"):
        command.planned(["dataset=dots", "budget=20s", "experiment=heatmap_mouse"])
    with pytest.raises(ConfigError, match=r"Add dataset=NAME"):
        command.planned(["budget=20s"])


@pytest.mark.slow
def test_the_stopwatch_counts_the_views_of_a_training(overrides: list[str]) -> None:
    timing = measure(compose("train", overrides), 0.1)
    assert (timing.views, timing.validated) == (8, 4)
    assert 0 < timing.view < 5
    assert (timing.validation > 0, timing.memory > 50) == (True, True)
    assert timing.seconds(0.5, 2) == pytest.approx(4 * timing.view + timing.epoch + 4 * timing.validation / 2)
