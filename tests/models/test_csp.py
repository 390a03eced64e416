"""YOLOv8's backbone and neck: published sizes, and what they do with other networks' maps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from kplab.errors import ModelError
from kplab.models.csp import CSP, SPPF, C2f
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.yolo import YoloHead
from kplab.models.pan import PAN
from kplab.structures.skeleton import Skeleton

REPEATS = {"n": 1, "s": 1, "m": 2, "l": 3, "x": 3}


def coco17(root: Path) -> Skeleton:
    return Skeleton.from_config(yaml.safe_load((root / "conf" / "skeleton" / "coco17.yaml").read_text()))


def network(scale: str, skeleton: Skeleton) -> tuple[CSP, PAN, YoloHead]:
    backbone = CSP(scale)
    neck = PAN(backbone.channels, backbone.strides, repeats=REPEATS[scale])
    return backbone, neck, YoloHead(
        HeadInputs(neck.channels, neck.strides, (640, 640), skeleton)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scale", "millions", "gflops"),
    [("n", 3.3, 9.2), ("s", 11.6, 30.2), ("m", 26.4, 81.0), ("l", 44.4, 168.6), ("x", 69.4, 263.2)],
)
def test_published_parameters_and_operations(scale: str, millions: float, gflops: float, root: Path) -> None:
    """Published are models whose norms are folded into biases, with the 16 fixed weights that turn bins into distances.

    The table rounds 3.29, and cuts 44.47 and 69.46 off.
    """
    with FakeTensorMode():
        backbone, neck, head = parts = network(scale, coco17(root))
        modules = [m for part in parts for m in part.modules()]
        folded = sum(p.numel() for part in parts for p in part.parameters()) + 16
        folded -= sum(m.num_features for m in modules if isinstance(m, nn.BatchNorm2d))
        assert millions in (round(folded / 1e6, 1), folded // 100_000 / 10)
        if scale == "n":
            assert folded == 3_289_964
        with FlopCounterMode(display=False) as counter:
            head(neck(backbone(torch.zeros(1, 3, 640, 640))))
        assert counter.get_total_flops() / 1e9 == pytest.approx(gflops, abs=0.06)


def test_published_parameters_of_each_block() -> None:
    """Of YOLOv8n, norms not folded, as its training prints them."""
    with FakeTensorMode():
        counts = [sum(p.numel() for p in block.parameters()) for stage in CSP("n").net for block in stage]
    assert counts == [464, 4672, 7360, 18560, 49664, 73984, 197632, 295424, 460288, 164608]


def test_norms_are_yolos(root: Path) -> None:
    """Published weights would be off by percents with PyTorch's own eps of 1e-5."""
    norms = [m for part in network("n", coco17(root)) for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) > 50
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.03)}


def test_maps_are_as_told() -> None:
    for options, strides in (({}, [8, 16, 32]), ({"out_indices": [1, 3]}, [4, 16])):
        backbone = CSP("n", **options)
        assert backbone.strides == strides
        assert backbone.stride_multiple == strides[-1]
        maps = backbone(torch.zeros(1, 3, 64, 96))
        assert [tuple(m.shape) for m in maps] == [
            (1, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, strides, strict=True)
        ]
    assert CSP("n").channels == [64, 128, 256]
    assert CSP("x").channels == [320, 640, 640]


def test_block_by_hand() -> None:
    """Every link of the chain starts from the one before, and all of them reach the result."""
    torch.manual_seed(0)
    block = C2f(6, 8, repeats=2, shortcut=True).eval()
    x = torch.randn(1, 6, 5, 5)
    both = block.split(x)
    first, second = both[:, :4], both[:, 4:]
    third = second + block.chain[0].body(second)
    fourth = third + block.chain[1].body(third)
    assert torch.equal(block(x), block.join(torch.cat([first, second, third, fourth], dim=1)))
    plain = C2f(6, 8, repeats=1, shortcut=False)
    plain.load_state_dict(
        {k: v for k, v in block.state_dict().items() if "chain.1" not in k and "join" not in k}, strict=False
    )
    plain.eval()
    assert torch.equal(plain.chain[0](second), block.chain[0].body(second))


def test_pools_see_5_9_and_13_cells() -> None:
    """Light one cell: the four parts show it over 1, 5, 9 and 13 cells."""
    pool = SPPF(4).eval()
    for conv in (pool.narrow, pool.join):
        nn.init.dirac_(conv[0].weight)
    seen: list[torch.Tensor] = []
    pool.join.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    light = torch.zeros(1, 4, 21, 21)
    light[0, 0, 10, 10] = 1
    pool(light)
    lit = (seen[0][0, ::2] > 0.1).sum((-1, -2))
    assert lit.tolist() == [1, 25, 81, 169]


def test_a_checkpoint_is_loaded_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = CSP("n")
    # as a run keeps it
    state = {f"model.backbone.{k}": v for k, v in first.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "best.ckpt")
    second = CSP("n", checkpoint=str(tmp_path / "best.ckpt"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(ModelError, match="another shape than in 'csp_s'"):
        CSP("s", checkpoint=str(tmp_path / "best.ckpt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "xl"}, "n, s, m, l, x, but got 'xl'"),
        ({"pretrained": True}, "there are none for it"),
        ({"out_indices": [0, 5]}, "maps 1 to 4"),
    ],
)
def test_wrong_options_of_the_backbone(options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        CSP(**options)  # type: ignore[arg-type]
