"""Feature maps of any timm network that offers them, with the channels and strides that necks build on.

Requested weights are loaded completely, or building fails; they are never replaced by random ones.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.data import resolve_model_data_config
from timm.layers import Format
from timm.models import FeatureInfo, load_state_dict
from torch import Tensor, nn

from kplab.errors import ModelError
from kplab.models.frozen_norms import freeze_norms
from kplab.models.published import PACKAGED, Weights, hub_options, hub_weights, packaged_weights, unavailable
from kplab.runs.provenance import file_sha256


class Backbone(nn.Module):
    """A timm network without its classifier.

    Args:
        name: timm's name, e.g. ``resnet18``, ``vit_small_patch16_224.augreg_in21k``.
        pretrained: start from published weights: of an installed package, of the hub's cache, or of the network; see
            ``kplab.models.published``.
        out_indices: indices of the maps that are returned, as timm counts them; None is timm's choice.
        checkpoint: local file of weights: safetensors or a PyTorch state dict with timm's names, or a kplab checkpoint.
        size: (width, height) of the views, for networks of a fixed size, such as Swin; others accept any.
        frozen_norm: batch normalisation keeps its statistics, scales and offsets; for fine-tuning with small batches.
        norm_eps: added to the variances of batch normalisation; None is timm's choice.
        frozen: names of timm's modules, such as ``layer1`` or ``blocks.0``, whose weights are not trained.
        options: passed on to ``timm.create_model``.

    Attributes:
        channels: of each map, finest first.
        strides: of each map, pixels; equal for a ViT.
        stride_multiple: both sides of a view must be multiples of it.
        mean: (3,) subtracted from images scaled to [0, 1].
        std: (3,) by which the difference is divided.
        started_from: the file of weights that the network was filled from; None for random weights.

    Raises:
        ModelError: the network is unknown, has no feature maps, or its weights are unavailable or don't fit.

    Source: Wightman, "PyTorch Image Models" (timm), 2019.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        out_indices: list[int] | None = None,
        checkpoint: str | None = None,
        size: tuple[int, int] | None = None,
        frozen_norm: bool = False,
        norm_eps: float | None = None,
        frozen: tuple[str, ...] = (),
        **options: Any,
    ) -> None:
        super().__init__()
        if pretrained and checkpoint:
            raise ModelError(
                f"backbone '{name}' is configured with published weights and with those of {checkpoint}. "
                "Set backbone.pretrained=false to start from the file."
            )
        options = {**options, "features_only": True}
        if out_indices is not None:
            options["out_indices"] = tuple(out_indices)
        self.name = name
        from_hub = pretrained and name not in PACKAGED
        self.net = _create(name, from_hub, size, options)
        self.started_from: Weights | None = None
        if from_hub:
            self.started_from = hub_weights(name)
        elif pretrained:
            self.started_from, found = packaged_weights(name)
            fill(self.net, name, found, f"backbone.pretrained: {self.started_from.file}")
        elif checkpoint:
            self.started_from = load_weights(self.net, name, Path(checkpoint))
        if norm_eps is not None:
            for module in self.net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = norm_eps
        if frozen_norm:
            self.net = freeze_norms(self.net, size or (64, 64))
        _freeze(self.net, name, frozen)
        info = cast(FeatureInfo, self.net.feature_info)
        self.channels: list[int] = info.channels()
        self.strides: list[int] = info.reduction()
        self.stride_multiple = max(self.strides)
        # timm's own rule: some families keep channels last all the way
        self._channels_last = getattr(self.net, "output_fmt", None) == Format.NHWC
        statistics = resolve_model_data_config(self.net)
        self.mean: tuple[float, ...] = tuple(statistics["mean"])
        self.std: tuple[float, ...] = tuple(statistics["std"])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of normalised images.

        Args:
            images: (B, 3, H, W) float, normalised by ``mean`` and ``std``.

        Returns:
            one (B, C_i, H / stride_i, W / stride_i) per map, finest first.
        """
        maps = self.net(images)
        return [m.permute(0, 3, 1, 2) for m in maps] if self._channels_last else list(maps)


def _create(name: str, from_hub: bool, size: tuple[int, int] | None, options: dict[str, Any]) -> nn.Module:
    """Timm's network, with its errors as ModelError."""
    if not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.5)
        raise ModelError(
            f"backbone '{name}' is not a network of timm {timm.__version__}. "
            + (f"Did you mean {', '.join(near)}?" if near else "timm.list_models() lists them.")
        )
    if from_hub:
        options = {**options, **hub_options(name)}
    try:
        if size is not None and not options.get("dynamic_img_size"):
            try:
                return timm.create_model(name, img_size=(size[1], size[0]), **options)
            except TypeError as error:
                if "img_size" not in str(error):
                    raise
        return timm.create_model(name, **options)
    except OSError as error:
        raise unavailable(name, f"they can't be fetched ({_first_line(error)})") from error
    except IndexError as error:
        raise ModelError(
            f"backbone '{name}' has no maps {list(options['out_indices'])}. "
            "Set backbone.out_indices to some that it has, or to null for timm's choice."
        ) from error
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
        raise ModelError(
            f"backbone '{name}' can't be built with {options}: {_first_line(error)}. "
            "Correct the options, or choose a network that gives feature maps."
        ) from error


def _freeze(net: nn.Module, name: str, frozen: tuple[str, ...]) -> None:
    """Disable the gradient of the weights of some modules."""
    for part in frozen:
        try:
            net.get_submodule(part).requires_grad_(False)
        except AttributeError:
            raise ModelError(
                f"backbone '{name}' has no module '{part}' to freeze. Choose backbone.frozen among "
                f"{', '.join(n for n, _ in net.named_children())}, or parts of these such as 'blocks.0'."
            ) from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def load_weights(net: nn.Module, name: str, path: Path) -> Weights:
    """Fill a feature network from a file, see ``fill``.

    Raises:
        ModelError: the file can't be read, or doesn't fit.
    """
    if not path.is_file():
        raise ModelError(f"backbone.checkpoint: there is no file {path}. Give the path of a file of weights.")
    try:
        found = load_state_dict(str(path), use_ema=False, device="cpu", weights_only=True)
    except Exception as error:  # readers of three formats raise as they like
        raise ModelError(
            f"backbone.checkpoint: {path} can't be read as weights: {_first_line(error)}. "
            "Give a safetensors file or a PyTorch state dict."
        ) from error
    inside = "backbone.net."
    if any(inside in key for key in found):
        found = {key.split(inside, 1)[1]: value for key, value in found.items() if inside in key}
    fill(net, name, found, f"backbone.checkpoint: {path}")
    return Weights("file", path, file_sha256(path))


def fill(net: nn.Module, name: str, found: Mapping[str, Any], source: str) -> None:
    """Fill a feature network: every tensor must be found, and fit; further tensors are ignored.

    Names are compared without their dots, because timm's feature wrappers flatten ``stages.0`` to ``stages_0``.

    Args:
        found: tensors by timm's names.
        source: option and file, for messages.

    Raises:
        ModelError: tensors are missing or of another shape.
    """
    by_name = {_plain(key): value for key, value in found.items() if isinstance(value, Tensor)}
    wanted = net.state_dict()
    missing = [k for k in wanted if _plain(k) not in by_name and not k.endswith("num_batches_tracked")]
    if missing:
        raise ModelError(
            f"{source} lacks {len(missing)} of the {len(wanted)} tensors of '{name}', "
            f"e.g. {', '.join(missing[:3])}; it holds e.g. {', '.join(list(found)[:3]) or 'nothing'}. "
            "Give weights of this very network."
        )
    fitting = {k: by_name[_plain(k)] for k in wanted if _plain(k) in by_name}
    odd = [k for k, value in fitting.items() if value.shape != wanted[k].shape]
    if odd:
        k = odd[0]
        raise ModelError(
            f"{source}: {len(odd)} of its tensors have another shape than in '{name}', e.g. {k}: "
            f"{tuple(fitting[k].shape)} instead of {tuple(wanted[k].shape)}. Give weights of this very network."
        )
    with torch.no_grad():
        for key, value in fitting.items():
            wanted[key].copy_(value)


def _plain(key: str) -> str:
    """A tensor's name without dots and without the wrapper of timm's feature getter."""
    return key.removeprefix("model.").replace(".", "_")
