"""What only the query head promises: its matching, its losses, and what permuted queries change."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from kplab.errors import ModelError
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.query import NO_KEYPOINT, QueryHead
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

SIZE = (192, 256)
THREE = Skeleton("three", ("nose", "left", "right"), (), (0, 2, 1), (0.05, 0.1, 0.1), "made up")
NAN = (math.nan, math.nan)
K = 3


def head(**options: Any) -> QueryHead:
    torch.manual_seed(0)
    small = {"width": 16, "heads": 4, "encoder_layers": 1, "decoder_layers": 2, "feedforward": 24, "anchored": False}
    return QueryHead(HeadInputs([8, 12], [16, 32], SIZE, THREE), **{**small, **options}).eval()


def maps(views: int = 2) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(views, c, 256 // s, 192 // s, generator=random) for c, s in ((8, 16), (12, 32))]


def poses(*rows: Any) -> list[Poses]:
    return [Poses.make(np.array([xy]), area=np.array([900.0])) for xy in rows]


def some() -> list[Poses]:
    return poses([(10.0, 20.0), (60.0, 90.0), (120.0, 200.0)], [(150.0, 30.0), NAN, (20.0, 220.0)])


def said(layers: int, queries: int, classes: int | None = K + 1) -> dict[str, torch.Tensor]:
    """Outputs at random."""
    random = torch.Generator().manual_seed(3)
    shape = (layers, 2, queries)
    score = torch.randn(*shape, *((classes,) if classes else ()), generator=random)
    return {"uv": torch.rand(*shape, 2, generator=random) - 0.5, "score": score}


def test_each_keypoint_has_the_cheapest_partner() -> None:
    """Against every way there is to pair them."""
    h, outputs = head(queries=5), said(2, 5)
    targets = h.encode(some(), SIZE)
    partner = h.partners(outputs, targets)
    for layer, view in itertools.product(range(2), range(2)):
        labelled = np.flatnonzero(targets["weight"][view])
        sure = outputs["score"][layer, view].softmax(-1).numpy()
        uv, true = outputs["uv"][layer, view].numpy(), targets["uv"][view].numpy()

        def cost(
            order: tuple[int, ...], labelled: Any = labelled, sure: Any = sure, uv: Any = uv, true: Any = true
        ) -> float:
            return sum(5 * np.abs(uv[q] - true[k]).sum() - sure[q, k] for q, k in zip(order, labelled, strict=True))

        best = min(itertools.permutations(range(5), len(labelled)), key=cost)
        assert partner[layer, view, labelled].tolist() == list(best)


def test_a_sets_loss_is_the_formula() -> None:
    h, outputs = head(queries=5, coordinate_weight=2.0, oks_weight=3.0, score_weight=4.0), said(2, 5)
    targets = h.encode(some(), SIZE)
    partner = h.partners(outputs, targets).numpy()
    off, alike, nats, share = [], [], [], []
    for layer, view in itertools.product(range(2), range(2)):
        log = outputs["score"][layer, view].log_softmax(-1).numpy()
        uv, true = outputs["uv"][layer, view].numpy(), targets["uv"][view].numpy()
        labelled = np.flatnonzero(targets["weight"][view])
        unlabelled = [k for k in range(K) if k not in labelled]
        for k in labelled:
            q = partner[layer, view, k]
            off.append(np.abs(uv[q] - true[k]).mean())
            pixels = (uv[q] - true[k]) * SIZE
            alike.append(math.exp(-(pixels**2).sum() / (2 * 900 * (2 * THREE.sigmas[k]) ** 2)))
        for q in range(5):
            owner = [k for k in labelled if partner[layer, view, k] == q]
            # a free answer may be none or a keypoint that nobody labelled
            nats.append(-log[q, owner[0]] if owner else -np.log(np.exp(log[q, [*unlabelled, K]]).sum()))
            share.append(1.0 if owner else NO_KEYPOINT)
    losses = {name: float(value) for name, value in h.loss(outputs, targets).items()}
    assert losses["coordinate"] == pytest.approx(2 * np.mean(off), rel=1e-5)
    assert losses["oks"] == pytest.approx(3 * (1 - np.mean(alike)), rel=1e-5)
    assert losses["score"] == pytest.approx(4 * np.dot(nats, share) / np.sum(share), rel=1e-5)


def test_fixed_queries_are_told_how_right_they_are() -> None:
    h, outputs = head(), said(2, K, None)
    targets = h.encode(some(), SIZE)
    alike = h.similarity(outputs["uv"], targets)
    labelled = (targets["weight"] > 0).expand_as(alike)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(outputs["score"][labelled], alike[labelled])
    losses = h.loss(outputs, targets)
    torch.testing.assert_close(losses["score"], wanted)
    off = (outputs["uv"] - targets["uv"]).abs().mean(-1)[labelled].mean()
    torch.testing.assert_close(losses["coordinate"], 5 * off)


def test_permuted_queries_leave_a_sets_loss_alone_and_not_a_fixed_ones() -> None:
    for queries, same in ((6, True), ("keypoints", False)):
        h = head(queries=queries)
        targets = h.encode(some(), SIZE)

        def total(h: QueryHead = h, targets: Any = targets) -> torch.Tensor:
            with torch.no_grad():
                return torch.stack(list(h.loss(h(maps()), targets).values())).sum()

        before = total()
        with torch.no_grad():
            h.queries.copy_(h.queries[list(reversed(range(len(h.queries))))])
        assert torch.isclose(total(), before, atol=1e-5) == same


def test_a_permuted_truth_is_paired_back_and_costs_nothing() -> None:
    h = head(queries=5)
    targets = h.encode(some()[:1], SIZE)
    order = torch.tensor([3, 0, 4, 2, 1])
    ideal = {name: value[:, :, order] for name, value in h.ideal(targets).items()}
    # answer k of the ideal lies where order has it
    wanted = [order.tolist().index(k) for k in range(K)]
    assert h.partners(ideal, targets)[:, 0].tolist() == [wanted, wanted]
    assert all(float(value) < 1e-6 for value in h.loss(ideal, targets).values())
    (found,) = h.decode(ideal)
    assert found.xy[0] == pytest.approx(some()[0].xy[0], abs=1e-4)


def test_a_set_gives_no_answer_twice() -> None:
    """One answer is the surest for two keypoints: the less sure of the two takes another."""
    h = head(queries=3)
    score = torch.full((2, 1, 3, K + 1), -9.0)
    score[..., 0, 0], score[..., 0, 1], score[..., 1, 1], score[..., 2, 2] = 5.0, 4.9, 1.0, 5.0
    uv = torch.tensor([[-0.4, -0.4], [0.0, 0.1], [0.3, 0.3]]).expand(2, 1, 3, 2)
    (found,) = h.decode({"uv": uv, "score": score})
    assert found.xy[0] / SIZE - 0.5 == pytest.approx(uv[0, 0].numpy(), abs=1e-6)


@pytest.mark.parametrize("queries", ["keypoints", 5])
@pytest.mark.parametrize("loss", ["l1", "rle"])
def test_unlabelled_keypoints_ask_for_nothing(queries: Any, loss: str) -> None:
    h = head(queries=queries, loss=loss)
    targets = h.encode(some()[1:] + poses([NAN, NAN, NAN]), SIZE)
    outputs = {name: value.detach().requires_grad_() for name, value in h(maps()).items()}
    torch.stack(list(h.loss(outputs, targets).values())).sum().backward()
    grad = outputs["uv"].grad
    assert grad is not None
    asked = (grad != 0).any(-1)
    assert not asked[:, 1].any()
    if queries == "keypoints":
        assert asked[:, 0].all(0).tolist() == [True, False, True]
    else:
        assert (asked[:, 0].sum(-1) == 2).all()


def test_every_decoder_layer_learns() -> None:
    h = head(decoder_layers=3)
    targets = h.encode(some(), SIZE)
    outputs = {name: value.detach().requires_grad_() for name, value in h(maps()).items()}
    torch.stack(list(h.loss(outputs, targets).values())).sum().backward()
    for value in outputs.values():
        assert value.grad is not None
        assert (value.grad.abs().flatten(1).sum(1) > 0).all()
    with torch.no_grad():
        found = h.decode(outputs)[0]
    assert found.xy[0] == pytest.approx(((outputs["uv"][-1, 0] + 0.5) * torch.tensor(SIZE)).detach().numpy(), abs=1e-3)


def test_attention_lies_on_the_maps_cells() -> None:
    looked = head(level=0).attention(maps())
    assert looked.shape == (2, K, 16, 12)
    torch.testing.assert_close(looked.sum((-2, -1)), torch.ones(2, K))


def test_anchored_answers_lie_where_their_queries_look() -> None:
    """Without an offset, an answer is the mean of the cells' centres, weighed by its attention; the rest is the offset."""
    h = head(anchored=True, level=0)
    with torch.no_grad():
        h.point[-1].weight.zero_()
        h.point[-1].bias.copy_(torch.tensor([0.1, -0.2, 0.0, 0.0]))
        outputs, looked = h(maps()), h.attention(maps()).numpy()
    rows, columns = np.mgrid[:16, :12] + 0.5
    wanted = np.stack([(looked * columns).sum((-2, -1)) / 12 - 0.5, (looked * rows).sum((-2, -1)) / 16 - 0.5], -1)
    assert outputs["uv"][-1].numpy() == pytest.approx(wanted + np.array([0.1, -0.2]), abs=1e-5)


def test_hints_are_heatmaps_over_the_encoders_cells() -> None:
    """Cross entropy with Gaussians of one cell, of labelled keypoints; perfect ones cost their entropy, and mirror back."""
    h = head(heatmap_weight=2.0, level=0)
    targets = h.encode(some(), SIZE)
    outputs = h(maps())
    assert outputs["heat"].shape == (1, 2, K, 16, 12)
    rows, columns = np.mgrid[:16, :12] + 0.5
    nats, entropy = [], []
    for view, poses_ in enumerate(some()):
        for k in range(K):
            x, y = poses_.xy[0, k] / 16
            if np.isfinite(x):
                wanted = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2)
                wanted /= wanted.sum()
                nats.append(
                    -(
                        wanted * outputs["heat"][0, view, k].flatten().log_softmax(-1).view(16, 12).detach().numpy()
                    ).sum()
                )
                entropy.append(-(wanted * np.log(wanted)).sum())
    assert float(h.loss(outputs, targets)["heatmap"].detach()) == pytest.approx(2 * np.mean(nats), rel=1e-4)
    ideal = h.ideal(targets)
    assert float(h.loss(ideal, targets)["heatmap"]) == pytest.approx(2 * np.mean(entropy), rel=1e-3)
    assert torch.equal(h.unflip(h.unflip(ideal))["heat"], ideal["heat"])
    mirror = [
        p.transform(np.array([[-1.0, 0, SIZE[0]], [0, 1, 0], [0, 0, 1]])).permute_keypoints(THREE.flip_array)
        for p in some()
    ]
    back = h.unflip(h.ideal(h.encode(mirror, SIZE)))["heat"]
    labelled = targets["weight"] > 0
    torch.testing.assert_close(back[0][labelled], ideal["heat"][0][labelled], atol=1e-3, rtol=0)


def test_what_it_does_not_know_is_refused() -> None:
    for options, message in (
        ({"queries": 2}, "a number of 3 or more"),
        ({"queries": "many"}, "a number of 3 or more"),
        ({"loss": "l2"}, "loss l1 and rle"),
        ({"width": 18}, "multiple of 4"),
        ({"decoder_layers": 0}, "at least one decoder layer"),
        ({"level": 2}, r"head\.level"),
    ):
        with pytest.raises(ModelError, match=message):
            head(**options)
    with pytest.raises(ModelError, match="no flip test"):
        head(queries=5).unflip({})
