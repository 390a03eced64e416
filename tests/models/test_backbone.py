"""Presets say truly what they give; weights are loaded whole or not at all."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from hydra.utils import instantiate
from safetensors.torch import save_file

from kplab.errors import ModelError
from kplab.models.backbone import Backbone
from kplab.tasks import compose

PRESETS = Path(__file__).resolve().parents[2] / "conf" / "backbone"
#: (strides, channels), by the papers; a preset that is not listed is held to its own word
WIDTHS = {
    "resnet18": ([4, 8, 16, 32], [64, 128, 256, 512]),
    "resnet50": ([4, 8, 16, 32], [256, 512, 1024, 2048]),
    "convnext_tiny": ([4, 8, 16, 32], [96, 192, 384, 768]),
    "mobilenetv4": ([4, 8, 16, 32], [32, 64, 96, 960]),
    "hrnet_w32": ([4], [32]),
    "vit_small": ([16, 16, 16], [384, 384, 384]),
}


@pytest.mark.parametrize("file", sorted(PRESETS.glob("*.yaml")), ids=lambda f: f.stem)
def test_presets_give_the_channels_and_strides_they_promise(file: Path) -> None:
    config = compose("train", [f"backbone={file.stem}"]).backbone
    assert config.pretrained is False
    backbone = instantiate(config, size=(64, 96), _convert_="all").eval()
    if file.stem in WIDTHS:
        assert (backbone.strides, backbone.channels) == WIDTHS[file.stem]
    with torch.inference_mode():
        maps = backbone(torch.randn(1, 3, 96, 64))
    for m, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert m.shape == (1, channels, 96 // stride, 64 // stride)
        assert m.std() > 0


def test_hrnet_gives_the_branch_of_stage_four() -> None:
    """Not the maps that timm widens to 128 channels for classification."""
    backbone = instantiate(compose("train", ["backbone=hrnet_w32"]).backbone, _convert_="all").eval()
    seen = []
    backbone.net.stage4.register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.inference_mode():
        (only,) = backbone(torch.randn(1, 3, 64, 64))
    assert torch.equal(only, seen[0][0])


def test_statistics_are_those_of_the_weights() -> None:
    assert Backbone("resnet18", False).mean == (0.485, 0.456, 0.406)
    assert Backbone("vit_tiny_patch16_224", False).std == (0.5, 0.5, 0.5)


def test_networks_that_keep_channels_last_are_turned() -> None:
    torch.manual_seed(0)
    backbone = Backbone("swin_tiny_patch4_window7_224", False, size=(64, 96)).eval()
    images = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        for ours, timms in zip(backbone(images), backbone.net(images), strict=True):
            assert torch.equal(ours.permute(0, 2, 3, 1), timms)
            assert ours.shape[1] == timms.shape[3]


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "vit_tiny_patch16_224", "mobilenetv4_conv_small_050"])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_file_of_weights_gives_the_features_of_the_network_it_is_from(tmp_path: Path, name: str, kind: str) -> None:
    """Timm's wrappers rename tensors (stages.0 to stages_0); the maps must be those of the plain network."""
    torch.manual_seed(1)
    whole = timm.create_model(name).eval()
    file = tmp_path / f"weights.{kind}"
    if kind == "pth":
        torch.save({"state_dict": whole.state_dict()}, file)
    else:
        save_file(whole.state_dict(), file)
    torch.manual_seed(2)
    backbone = Backbone(name, False, checkpoint=str(file)).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        wanted = whole.forward_intermediates(images, indices=1, intermediates_only=True)[-1]
        given = backbone(images)[-1]
    assert torch.allclose(given, wanted, atol=1e-5)


def test_a_kplab_checkpoint_is_a_file_of_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = Backbone("resnet10t", False)
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": {f"model.backbone.{k}": v for k, v in trained.state_dict().items()}}, file)
    loaded = Backbone("resnet10t", False, checkpoint=str(file))
    for a, b in zip(loaded.state_dict().values(), trained.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no file .*nowhere.pth"):
        Backbone("resnet10t", False, checkpoint=str(tmp_path / "nowhere.pth"))
    (tmp_path / "noise.pth").write_bytes(b"no weights at all")
    with pytest.raises(ModelError, match=r"noise.pth can't be read as weights"):
        Backbone("resnet10t", False, checkpoint=str(tmp_path / "noise.pth"))
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "ten.pth")
    with pytest.raises(ModelError, match=r"ten.pth lacks \d+ of the \d+ tensors of 'resnet18'.*this very network"):
        Backbone("resnet18", False, checkpoint=str(tmp_path / "ten.pth"))
    state = timm.create_model("resnet10t").state_dict()
    state["conv1.0.weight"] = state["conv1.0.weight"][:, :1]
    torch.save(state, tmp_path / "grey.pth")
    with pytest.raises(ModelError, match=r"another shape than in 'resnet10t'.*instead of"):
        Backbone("resnet10t", False, checkpoint=str(tmp_path / "grey.pth"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of weights, and a network that refuses at once."""

    def refuse(*args: object, **more: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_weights_that_cannot_be_had_are_an_error_at_once(no_network: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"can't be reached.*pretrained=false.*checkpoint=FILE"):
        Backbone("resnet10t", True)
    assert time.monotonic() - start < 5


def test_weights_in_the_cache_need_no_network(no_network: Path) -> None:
    card = timm.get_pretrained_cfg("resnet10t")
    snapshot = no_network / f"models--{card.hf_hub_id.replace('/', '--')}" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    torch.manual_seed(1)
    published = timm.create_model("resnet10t")
    save_file(published.state_dict(), snapshot / "model.safetensors")
    loaded = Backbone("resnet10t", True)
    assert torch.equal(loaded.net.layer4[0].conv1.weight, published.layer4[0].conv1.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet1", "pretrained": False}, r"'resnet1' is not a network of timm.*Did you mean resnet1"),
        ({"name": "resnet10t", "pretrained": False, "out_indices": [9]}, r"'resnet10t' has no maps \[9\]"),
        ({"name": "resnet10t", "pretrained": False, "colour": 1}, r"'resnet10t' can't be built with.*colour"),
        (
            {"name": "resnet10t", "pretrained": True, "checkpoint": "x.pth"},
            r"published weights and with those of x.pth",
        ),
    ],
)
def test_mistakes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Backbone(**options)  # type: ignore[arg-type]


def test_frozen_norms_keep_all_that_they_are() -> None:
    """In training as in evaluation, with the eps asked for; frozen modules take no gradient, others do."""
    torch.manual_seed(0)
    plain = Backbone("resnet18", False, [1, 2, 3, 4]).eval()
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(1e-3, 1)
            module.eps = 0.0
    backbone = Backbone("resnet18", False, [1, 2, 3, 4], frozen_norm=True, norm_eps=0.0, frozen=("conv1", "layer1"))
    backbone.load_state_dict({k: v for k, v in plain.state_dict().items() if "num_batches" not in k})
    backbone.train()
    images = torch.randn(2, 3, 64, 64)
    for ours, theirs in zip(backbone(images), plain(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.stack([m.sum() for m in backbone(images)]).sum().backward()
    learning = {name for name, p in backbone.net.named_parameters() if p.grad is not None}
    assert learning
    assert all(name.startswith(("layer2", "layer3", "layer4")) and "bn" not in name for name in learning)
    with pytest.raises(ModelError, match=r"no module .stem. to freeze. Choose backbone.frozen among conv1"):
        Backbone("resnet18", False, [1], frozen=("stem",))
