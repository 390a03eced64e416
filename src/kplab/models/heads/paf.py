"""OpenPose: confidence maps and part affinity fields, refined in stages and parsed into any number of poses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kplab.errors import ModelError
from kplab.models.heads.base import Head, HeadInputs
from kplab.models.heads.multi import boxes_of
from kplab.models.heads.paf_stages import JointStages, PafFirstStages, conv
from kplab.ops import paf, paf_parsing
from kplab.ops.paf import Limb
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

#: Smallest distance in cells at which two keypoints of one kind don't disturb each other's peaks.
CLEAR = 5.2


@dataclass(frozen=True)
class Parts:
    """The parts, each with a confidence map, and the limbs, each with a field.

    Args:
        names: of the P parts: the skeleton's K keypoints, then the virtual ones.
        sources: for each virtual part the keypoints whose mean it is.
        limbs: pairs of parts, in the order in which they are parsed.
        redundant: for each limb, whether its ends are already connected by those before it.
        flip: for each part its counterpart in a mirror image.
        mirror: for each limb its counterpart, and 1, or -1 where the counterpart runs the other way.
    """

    names: tuple[str, ...]
    sources: tuple[tuple[int, ...], ...]
    limbs: tuple[Limb, ...]
    redundant: tuple[bool, ...]
    flip: tuple[int, ...]
    mirror: tuple[tuple[int, int], ...]

    @classmethod
    def of(
        cls,
        skeleton: Skeleton,
        limbs: Sequence[Sequence[str]] | None = None,
        virtual: Mapping[str, Sequence[str]] | None = None,
    ) -> Parts:
        """Parts of a skeleton.

        Args:
            limbs: pairs of names, in the order of parsing; None derives them from the skeleton's edges: a spanning tree,
                breadth first from the best connected keypoint, then the edges that close cycles.
            virtual: name to the keypoints whose mean it is, such as a neck between both shoulders.

        Raises:
            ModelError: a name is unknown; limbs leave a part unconnected; limbs or virtual parts have no mirror image.
        """
        virtual = virtual or {}
        names = (*skeleton.keypoints, *virtual)
        if len(set(names)) != len(names):
            raise _wrong(skeleton, f"has a keypoint that 'virtual' names again: {', '.join(virtual)}", "Rename it.")
        index = {name: i for i, name in enumerate(names)}

        def find(name: str, among: int, option: str) -> int:
            if index.get(name, len(names)) >= among:
                raise _wrong(
                    skeleton, f"has no '{name}', which head.{option} names", f"Known: {', '.join(names[:among])}."
                )
            return index[name]

        sources = tuple(tuple(find(n, len(skeleton), "virtual") for n in of) for of in virtual.values())
        mirrored = [{skeleton.flip[s] for s in own} for own in sources]
        flip = list(skeleton.flip)
        for name, wanted in zip(virtual, mirrored, strict=True):
            twins = [i for i, own in enumerate(sources) if set(own) == wanted]
            if not twins or not wanted:
                raise _wrong(skeleton, f"gives virtual '{name}' no mirror image", "Average both sides, or name both.")
            flip.append(len(skeleton) + twins[0])

        if limbs is None:
            edges = [*skeleton.edges, *((len(skeleton) + v, s) for v, own in enumerate(sources) for s in own)]
            chosen = paf.limbs_of(edges, len(names))
        else:
            pairs = [(find(str(a), len(names), "limbs"), find(str(b), len(names), "limbs")) for a, b in limbs]
            chosen = [pair for pair in pairs if pair[0] != pair[1]]
        piece, redundant = paf.pieces(chosen, len(names))
        if len(set(piece)) > 1:
            groups = ["+".join(n for n, p in zip(names, piece, strict=True) if p == one) for one in sorted(set(piece))]
            raise _wrong(
                skeleton,
                f"falls into {len(groups)} pieces that no limb connects: {', '.join(groups[:4])}"
                + (", ..." if len(groups) > 4 else ""),
                "Name limbs that connect all keypoints, head.limbs=[[a,b],...], or add edges to the skeleton.",
            )
        return cls(
            names, sources, tuple(chosen), tuple(redundant), tuple(flip), _mirror_images(skeleton, names, chosen, flip)
        )

    def locate(self, xy: np.ndarray) -> np.ndarray:
        """(N, K, 2) keypoints to (N, P, 2) parts; a virtual one is NaN unless all of its keypoints are labelled."""
        virtual = [xy[:, list(own)].mean(1, keepdims=True) for own in self.sources]
        return np.concatenate([xy, *virtual], axis=1)


def _mirror_images(
    skeleton: Skeleton, names: Sequence[str], limbs: Sequence[Limb], flip: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """For each limb the index of its mirror image, and 1 or -1 for its direction."""
    place = {limb: i for i, limb in enumerate(limbs)}
    out = []
    for a, b in limbs:
        ahead, back = (flip[a], flip[b]), (flip[b], flip[a])
        if ahead not in place and back not in place:
            raise _wrong(
                skeleton,
                f"has a limb {names[a]}-{names[b]} without its mirror image {names[ahead[0]]}-{names[ahead[1]]}",
                "Add that one to its edges, or to head.limbs.",
            )
        out.append((place[ahead], 1) if ahead in place else (place[back], -1))
    return tuple(out)


def _wrong(skeleton: Skeleton, what: str, remedy: str) -> ModelError:
    return ModelError(f"head 'paf': skeleton '{skeleton.name}' {what}. {remedy}")


class PafHead(Head):
    """Confidence maps of P parts and the background, and a field for each of L limbs, refined over stages.

    Targets are ``{"heat": (B, P + 1, h, w), "paf": (B, 2 L, h, w)}`` with weights 0 or 1 per cell, ``{"heat_weight":
    (B, P + 1, h, w), "paf_weight": (B, L, h, w)}``; outputs are ``{"heat": [...], "paf": [...]}``, one tensor per stage,
    without an activation. Channels 2 l and 2 l + 1 of the fields are x and y of limb l.

    The box of an ignored instance has weight 0 in all channels; the box of an instance with an unlabelled keypoint has
    weight 0 in the channels of that keypoint, of its limbs and of the background. Boxes are widened by the extent of a
    target, so that predictions in the box cost nothing.

    Args:
        layout: ``joint`` (CVPR 2017: both branches in each stage) or ``paf_first`` (TPAMI 2019: fields, then maps).
        stages: number of stages of fields and of maps; equal for ``joint``, [6, 6] in the paper; [4, 2] in the
            later paper.
        width: channels of the stages and of their shared features; 128 in both papers.
        norm: batch normalisation; the papers use none, and start from a trained network.
        level: index of the feature map; 0 is the finest. The papers use stride 8.
        sigma: of the Gaussians, cells. The published code has 7 pixels at stride 8, that is 0.875.
        limb_width: half the thickness of a limb in the fields, cells; 1 is published.
        limbs: see ``Parts.of``.
        virtual: see ``Parts.of``; they have maps and limbs, but are not part of poses.
        bridges: limbs that close a cycle also join two groups of keypoints. False, as published: they only add single
            keypoints to a person.
        peak: smallest height of a local maximum that is a candidate.
        max_peaks: largest number of candidates of a part; the highest ones.
        samples: number of samples of the field along the line between two candidates.
        min_paf: smallest component of the field along the line for a sample to be kept.
        min_kept: more than this fraction of the samples must be kept; the score is the mean of those.
        long_limb: fraction of the map's height beyond which a limb is penalised: score + min(long_limb h / length - 1, 0), as
            in the Matlab code with 0.5; None is no penalty.
        min_keypoints: smallest number of keypoints of a pose; 3 or 4 is published. At 1, a single peak is a pose of a low score.
        min_score: smallest (sum of peaks and limbs) / (number of parts) of a pose; 0.4 (C++) and 0.2 are published.
        max_poses: largest number of poses of a view; the best ones.

    Source: Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", CVPR 2017; Cao et al.,
    "OpenPose", TPAMI 2019.
    """

    after_graph = "peaks of the heatmaps, joined along the fields"
    limb_index: Tensor
    heat_flip: Tensor
    paf_flip: Tensor
    paf_sign: Tensor

    def __init__(
        self,
        inputs: HeadInputs,
        *,
        layout: str = "paf_first",
        stages: Sequence[int] = (2, 1),
        width: int = 64,
        norm: bool = True,
        level: int = 0,
        sigma: float = 1.0,
        limb_width: float = 1.0,
        limbs: Sequence[Sequence[str]] | None = None,
        virtual: Mapping[str, Sequence[str]] | None = None,
        bridges: bool = True,
        peak: float = 0.1,
        max_peaks: int = 60,
        samples: int = 10,
        min_paf: float = 0.05,
        min_kept: float = 0.8,
        long_limb: float | None = None,
        min_keypoints: int = 1,
        min_score: float = 0.2,
        max_poses: int = 100,
    ) -> None:
        super().__init__(inputs)
        _check(layout, stages, sigma, limb_width, samples, width)
        self.parts = Parts.of(self.skeleton, limbs, virtual)
        self.sigma, self.limb_width = sigma, limb_width
        self.rules = paf_parsing.Rules(peak, max_peaks, samples, min_paf, min_kept, long_limb, bridges)
        self.min_keypoints, self.min_score, self.max_poses = min_keypoints, min_score, max_poses
        self.level = inputs.level("paf", level)
        self.stride = inputs.strides[self.level]
        fields, maps = 2 * len(self.parts.limbs), len(self.parts.names) + 1
        self.project = nn.Sequential(
            conv(inputs.in_channels[self.level], 2 * width, 3, norm, nn.ReLU), conv(2 * width, width, 3, norm, nn.ReLU)
        )
        self.refine: JointStages | PafFirstStages
        if layout == "joint":
            self.refine = JointStages(width, width, fields, maps, stages[0], norm)
        else:
            self.refine = PafFirstStages(width, width, fields, maps, (stages[0], stages[1]), norm)
        mirror = np.array(self.parts.mirror, dtype=np.int64).reshape(-1, 2)
        channels = np.stack([2 * mirror[:, 0], 2 * mirror[:, 0] + 1], axis=1).ravel()
        signs = np.stack([-mirror[:, 1], mirror[:, 1]], axis=1).ravel()
        for name, values in (
            ("limb_index", np.array(self.parts.limbs, dtype=np.int64).reshape(-1, 2)),
            ("heat_flip", np.array([*self.parts.flip, maps - 1])),
            ("paf_flip", channels),
            ("paf_sign", signs.astype(np.float32)[:, None, None]),
        ):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def encode(self, poses: list[Poses], size: tuple[int, int]) -> dict[str, Tensor]:
        """Encode poses as confidence maps and fields around un-rounded positions, with weights."""
        shape = (size[0] // self.stride, size[1] // self.stride)
        views = [self._encode(view, shape) for view in poses]
        return {key: torch.stack([view[key] for view in views]) for key in views[0]}

    def _encode(self, poses: Poses, shape: tuple[int, int]) -> dict[str, Tensor]:
        located = self._cells(self.parts.locate(poses.xy))
        uv = located[torch.from_numpy(~poses.ignore).to(self.device)]
        heat = paf.confidence_maps(uv, self.sigma, shape)
        heat = torch.cat([heat, 1 - heat.amax(0, keepdim=True)])
        fields = paf.affinity_fields(uv, self.limb_index, self.limb_width, shape).flatten(0, 1)

        # slightly wider, so that no cell of a target is left uncovered by rounding
        reach = max(paf.REACH * self.sigma, self.limb_width) + 0.01
        boxes = paf.cover(self._cells(boxes_of(poses)), reach, shape).float()
        ignored = torch.from_numpy(poses.ignore).to(self.device)[:, None]
        unknown = located.isnan().any(-1) | ignored
        open_limb = unknown[:, self.limb_index].any(-1)
        unknown = torch.cat([unknown, unknown.any(1, keepdim=True)], dim=1)

        def weight(of: Tensor) -> Tensor:
            return (torch.einsum("nc,nhw->chw", of.float(), boxes) == 0).float()

        return {"heat": heat, "paf": fields, "heat_weight": weight(unknown), "paf_weight": weight(open_limb)}

    def _cells(self, xy: np.ndarray) -> Tensor:
        """View pixels to cells, on the head's device."""
        return torch.from_numpy(xy / self.stride).to(self.device, torch.float32)

    def forward(self, maps: list[Tensor], targets: Any | None = None) -> dict[str, list[Tensor]]:
        """Fields and maps of every stage."""
        fields, heat = self.refine(self.project(maps[self.level]))
        return {"heat": heat, "paf": fields}

    def loss(self, outputs: dict[str, list[Tensor]], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Squared error of every stage of both branches, divided by the energy of the targets.

        sum_cells w (p - t)**2 / max(sum_cells w t**2, floor), the sums over the batch, and t**2 without the background

        Fields of zeros cost 1, and so do maps of zeros apart from the background, for any size of the map, sigma and number
        of people. The floor is the energy of one complete subject with limbs as long as they are thick, so that the loss
        of views without subjects is finite. (The papers sum over cells, with the same weight for both branches.)
        """
        heat, field = targets["heat"], targets["paf"]
        weight, field_weight = targets["heat_weight"], targets["paf_weight"].repeat_interleave(2, dim=1)
        energy = (weight * heat**2)[:, :-1].sum().clamp_min(math.pi * self.sigma**2 * len(self.parts.names))
        field_energy = (field_weight * field**2).sum().clamp_min(4 * self.limb_width**2 * max(len(self.parts.limbs), 1))
        losses = {
            f"paf_{stage + 1}": (field_weight * (out - field) ** 2).sum() / field_energy
            for stage, out in enumerate(outputs["paf"])
        }
        for stage, out in enumerate(outputs["heat"]):
            losses[f"heat_{stage + 1}"] = (weight * (out - heat) ** 2).sum() / energy
        return losses

    def decode_tensors(self, outputs: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        """The last stage: ``heatmaps`` (B, P, h, w) of the parts, and ``fields`` (B, L, 2, h, w) of the limbs."""
        return {"heatmaps": outputs["heat"][-1][:, :-1], "fields": outputs["paf"][-1].unflatten(1, (-1, 2))}

    def make_poses(self, decoded: dict[str, Tensor]) -> list[Poses]:
        """Parse maps and fields into poses.

        The score of a pose is the sum of its peaks and of the limbs that join them, over the number of both in a complete
        subject (2 P - 1). The papers rank by the same sum, and COCO submissions also multiply it by the number of
        keypoints.
        """
        return [self._parse(*view) for view in zip(decoded["heatmaps"], decoded["fields"], strict=True)]

    def _parse(self, heat: Tensor, fields: Tensor) -> Poses:
        part, uv, height = paf_parsing.find_peaks(heat, self.rules.peak, self.rules.max_peaks)
        limb, pair, value = paf_parsing.connect(fields, self.limb_index, part, uv, self.rules)
        parts = part.cpu().numpy()
        owner, evidence = paf_parsing.assemble(
            parts.tolist(), limb.tolist(), pair.tolist(), value.clamp(0, 1).tolist(), self.parts.redundant, self.rules.bridges
        )  # fmt: skip
        people, row = np.unique(np.array(owner, dtype=np.int64), return_inverse=True)
        peaks = height.double().clamp(0, 1).cpu().numpy()
        points = np.full((len(people), len(self.parts.names), 2), np.nan)
        scores = np.zeros(points.shape[:2])
        points[row, parts] = uv.double().cpu().numpy() * self.stride
        scores[row, parts] = peaks
        total = np.bincount(row, peaks, len(people)) + np.array(evidence)[people]
        count = np.bincount(row, minlength=len(people))
        keypoints = np.isfinite(points[:, : len(self.skeleton), 0]).sum(1)
        good = (keypoints >= max(self.min_keypoints, 1)) & (total >= self.min_score * count)
        best = np.flatnonzero(good)[np.argsort(-total[good], kind="stable")][: self.max_poses]
        whole = 2 * len(self.parts.names) - 1
        return Poses.make(
            points[best, : len(self.skeleton)],
            score=total[best] / whole,
            keypoint_score=scores[best, : len(self.skeleton)],
        )

    def ideal(self, targets: dict[str, Tensor]) -> dict[str, list[Tensor]]:
        """The maps of the targets, in every stage."""
        return {
            "heat": [targets["heat"]] * len(self.refine.heat),
            "paf": [targets["paf"]] * len(self.refine.paf),
        }

    def unflip(self, outputs: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
        """Maps mirrored, parts permuted; the x of fields is negated, and the whole field of a limb stored the other way."""
        return {
            "heat": [heat.flip(-1)[:, self.heat_flip] for heat in outputs["heat"]],
            "paf": [fields.flip(-1)[:, self.paf_flip] * self.paf_sign for fields in outputs["paf"]],
        }

    def representable(self, poses: Poses, size: tuple[int, int]) -> np.ndarray:
        """Which instances are decoded in one piece and separately from the others.

        An instance whose labelled keypoints are not all connected by limbs is decoded as several. Keypoints of one type
        within 3 sigma (or ``CLEAR`` cells) of each other merge; the field is averaged where the same limbs of two
        instances meet, and connections may be swapped where the ends of limbs meet.
        """
        uv = self._cells(self.parts.locate(poses.xy)).double()
        limbs = self.parts.limbs
        whole = np.zeros(len(poses), dtype=bool)
        for n, there in enumerate((~uv.isnan().any(-1)).tolist()):
            number = np.cumsum(there) - 1
            found = [i for i, (a, b) in enumerate(limbs) if there[a] and there[b]]
            owner, _ = paf_parsing.assemble(
                np.flatnonzero(there).tolist(),
                found,
                [(int(number[limbs[i][0]]), int(number[limbs[i][1]])) for i in found],
                [1.0] * len(found),
                self.parts.redundant,
                self.rules.bridges,
            )
            keypoints = sum(there[: len(self.skeleton)])
            whole[n] = len(set(owner)) == 1 and keypoints >= self.min_keypoints
        apart = (uv[:, None] - uv[None]).norm(dim=-1)
        start, end = uv[:, self.limb_index[:, 0]], uv[:, self.limb_index[:, 1]]
        start, end = torch.where(start.isnan(), end, start), torch.where(end.isnan(), start, end)
        between = paf.segment_distance(start[:, None], end[:, None], start[None], end[None])
        near = (apart < max(3 * self.sigma, CLEAR)).any(-1) | (between < 2 * self.limb_width + 2).any(-1)
        near.fill_diagonal_(False)
        return whole & ~near.any(1).cpu().numpy()


def _check(layout: str, stages: Sequence[int], sigma: float, limb_width: float, samples: int, width: int) -> None:
    """Check the options."""
    if layout not in ("joint", "paf_first"):
        raise ModelError(f"head 'paf' has the layouts joint and paf_first, but got '{layout}'. Change head.layout.")
    if len(stages) != 2 or min(stages) < 1 or (layout == "joint" and stages[0] != stages[1]):
        wanted = (
            "two equal numbers, e.g. [2,2]" if layout == "joint" else "numbers of fields' and maps' stages, e.g. [2,1]"
        )
        raise ModelError(f"head 'paf' with layout {layout} needs {wanted}, but got {list(stages)}. Change head.stages.")
    for name, value, least in (("sigma", sigma, 0.5), ("limb_width", limb_width, 0.5)):
        if value < least:
            raise ModelError(
                f"head 'paf' needs head.{name} >= {least}, in cells of the map, but got {value}: "
                "narrower ones fall between the cells. 1 is usual."
            )
    if samples < 2 or width < 4:
        raise ModelError(
            f"head 'paf' needs samples >= 2 and width >= 4, but got {samples} and {width}. 10 and 64 are usual."
        )
