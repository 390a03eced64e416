"""The transformer against torch's own layers, its positions against their formula, and what permutations must leave alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kplab.models.transformer import DecoderLayer, EncoderLayer, Transformer, sine_positions

C, HEADS, WIDE = 16, 4, 24


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def transformer() -> Transformer:
    torch.manual_seed(0)
    return Transformer(C, HEADS, 2, 3, WIDE).eval()


def test_positions_are_detrs() -> None:
    """As a cumulative sum over a mask of ones, normalised to 2 pi, a channel at a time."""
    width, height, channels = 5, 3, 12
    half = channels // 2
    wanted = np.zeros((height, width, channels))
    rows = np.cumsum(np.ones((height, width)), axis=0)
    columns = np.cumsum(np.ones((height, width)), axis=1)
    for start, place, cells in ((0, rows, height), (half, columns, width)):
        angle = place / (cells + 1e-6) * 2 * math.pi
        for channel in range(half):
            at = angle / 10_000 ** (2 * (channel // 2) / half)
            wanted[..., start + channel] = np.cos(at) if channel % 2 else np.sin(at)
    assert sine_positions(width, height, channels).numpy() == pytest.approx(wanted.reshape(-1, channels), abs=1e-5)


def copied(theirs: nn.Module, ours: nn.Module, names: dict[str, str]) -> None:
    """Copy the weights of submodules, theirs by our name."""
    for own, other in names.items():
        ours.get_submodule(own).load_state_dict(theirs.get_submodule(other).state_dict())


def test_layers_without_positions_are_torchs() -> None:
    torch.manual_seed(1)
    options = {"dim_feedforward": WIDE, "dropout": 0.0, "batch_first": True}
    encoder, decoder = nn.TransformerEncoderLayer(C, HEADS, **options), nn.TransformerDecoderLayer(C, HEADS, **options)  # type: ignore[arg-type]
    ours = EncoderLayer(C, HEADS, WIDE, 0.0)
    feed = {"feed.0": "linear1", "feed.3": "linear2", "norms.0": "norm1", "norms.1": "norm2"}
    copied(encoder, ours, {"attention": "self_attn", **feed})
    cells, said = random(2, 7, C), random(2, 5, C, seed=1)
    nowhere = torch.zeros(7, C)
    torch.testing.assert_close(ours(cells, nowhere), encoder(cells), atol=1e-5, rtol=0)
    other = DecoderLayer(C, HEADS, WIDE, 0.0)
    copied(decoder, other, {"among": "self_attn", "across": "multihead_attn", "norms.2": "norm3", **feed})
    torch.testing.assert_close(
        other(said, torch.zeros(5, C), cells, nowhere)[0], decoder(said, cells), atol=1e-5, rtol=0
    )


def test_positions_never_are_what_is_answered() -> None:
    """They are added where cells are asked and not to what they answer: of equal cells nothing but their value comes back."""
    layer = DecoderLayer(C, HEADS, WIDE, 0.0).eval()
    cells = random(1, 1, C).expand(1, 9, C)
    one, two = (layer(random(1, 4, C, seed=2), random(4, C, seed=3), cells, random(9, C, seed=s))[0] for s in (4, 5))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


def test_cells_have_no_order_but_their_positions() -> None:
    net, cells, positions, queries = transformer(), random(2, 12, C), sine_positions(4, 3, C), random(5, C, seed=1)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    encoded = net.encode(cells, positions)
    torch.testing.assert_close(net.encode(cells[:, order], positions[order]), encoded[:, order], atol=1e-5, rtol=0)
    said = net(cells, positions, queries)[0]
    torch.testing.assert_close(net(cells[:, order], positions[order], queries)[0], said, atol=1e-5, rtol=0)
    # without positions the order of cells can't be told at all; with them it can
    nowhere = torch.zeros_like(positions)
    torch.testing.assert_close(
        net(cells[:, order], nowhere, queries)[0], net(cells, nowhere, queries)[0], atol=1e-5, rtol=0
    )
    assert (net(cells[:, order], positions, queries)[0] - said).abs().max() > 1e-2


def test_permuted_queries_give_permuted_answers() -> None:
    net, cells, positions, queries = transformer(), random(2, 12, C), sine_positions(4, 3, C), random(5, C, seed=1)
    order = [3, 1, 4, 0, 2]
    said = net(cells, positions, queries)[0]
    assert said.shape == (3, 2, 5, C)
    torch.testing.assert_close(net(cells, positions, queries[order])[0], said[:, :, order], atol=1e-5, rtol=0)


def test_where_queries_look_is_shared_out() -> None:
    net, cells, positions = transformer(), random(2, 12, C), sine_positions(4, 3, C)
    said, looked = net(cells, positions, random(5, C, seed=1), weights=True)
    assert looked is not None
    assert looked.min() >= 0
    torch.testing.assert_close(looked.sum(-1), torch.ones(3, 2, 5))
    torch.testing.assert_close(said, net(cells, positions, random(5, C, seed=1))[0], atol=1e-5, rtol=0)
    # a query whose every key but one is far away looks at that one
    layer = DecoderLayer(C, 1, WIDE, 0.0)
    with torch.no_grad():
        layer.across.in_proj_weight.copy_(torch.eye(C).repeat(3, 1))
        layer.norms[0].weight.zero_()
    query = 30 * torch.eye(C)[:1]
    keys = torch.zeros(1, 6, C)
    keys[0, 4] = 30 * torch.eye(C)[0]
    assert layer(torch.zeros(1, 1, C), query, keys, torch.zeros(6, C), weights=True)[1][0, 0, 4] > 0.99
