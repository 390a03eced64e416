"""A transformer that reads a map: an encoder over its cells and a decoder with one learned query for each thing to be said.

N cells, Q queries, C channels, L decoder layers.

Source: Carion et al., "End-to-End Object Detection with Transformers" (DETR), 2020: layers normalise after adding, positions
are added to queries and keys and never to values, and all decoder layers' outputs are given out, normalised alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sine_positions(width: int, height: int, channels: int, temperature: float = 10_000.0) -> Tensor:
    """DETR's encoding of the cells of a map, rows one after another.

    p_y = 2 pi (row + 1) / (height + 1e-6), p_x alike; of each half of the channels, y's first, channel 2i is
    sin(p / T**(2i / (C/2))) and channel 2i + 1 the cosine of the same.

    Args:
        width, height: cells.
        channels: C, a multiple of 4.
        temperature: T.

    Returns:
        (width * height, C).
    """
    half = channels // 2
    period = temperature ** (2 * torch.div(torch.arange(half), 2, rounding_mode="floor") / half)

    def axis(cells: int) -> Tensor:
        place = (torch.arange(cells) + 1) / (cells + 1e-6) * 2 * math.pi
        angle = place[:, None] / period
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1)

    y, x = axis(height), axis(width)
    return torch.cat([y[:, None].expand(-1, width, -1), x[None].expand(height, -1, -1)], dim=-1).flatten(0, 1)


class EncoderLayer(nn.Module):
    """Cells look at one another."""

    def __init__(self, channels: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.feed = _feedforward(channels, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, cells: Tensor, positions: Tensor) -> Tensor:
        """(B, N, C) and (N, C) to (B, N, C)."""
        where = cells + positions
        seen, _ = self.attention(where, where, cells, need_weights=False)
        cells = self.norms[0](cells + self.dropout(seen))
        return self.norms[1](cells + self.dropout(self.feed(cells)))


class DecoderLayer(nn.Module):
    """Queries look at one another, then at the cells."""

    def __init__(self, channels: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.among = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.across = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.feed = _feedforward(channels, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, said: Tensor, queries: Tensor, cells: Tensor, positions: Tensor, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """One round.

        Args:
            said: (B, Q, C) what the layer before said.
            queries: (Q, C) learned, added wherever ``said`` asks.
            cells: (B, N, C) the encoder's.
            positions: (N, C) added to the cells where they are asked, not to what they answer.
            weights: also give how much each query looked at each cell.

        Returns:
            (B, Q, C), and (B, Q, N) means over the attention heads or None.
        """
        asking = said + queries
        seen, _ = self.among(asking, asking, said, need_weights=False)
        said = self.norms[0](said + self.dropout(seen))
        seen, looked = self.across(said + queries, cells + positions, cells, need_weights=weights)
        said = self.norms[1](said + self.dropout(seen))
        return self.norms[2](said + self.dropout(self.feed(said))), looked


class Transformer(nn.Module):
    """Encoder and decoder.

    Args:
        channels: C, a multiple of 4 and of ``heads``.
        heads: of every attention.
        encoder_layers, decoder_layers: how many; no encoder layers leave the cells as they are.
        feedforward: width of the layers between.
        dropout: while training.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        encoder_layers: int,
        decoder_layers: int,
        feedforward: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(EncoderLayer(channels, heads, feedforward, dropout) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(channels, heads, feedforward, dropout) for _ in range(decoder_layers))
        self.norm = nn.LayerNorm(channels)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def encode(self, cells: Tensor, positions: Tensor) -> Tensor:
        """(B, N, C) and (N, C) to (B, N, C)."""
        for layer in self.encoder:
            cells = layer(cells, positions)
        return cells

    def forward(
        self, cells: Tensor, positions: Tensor, queries: Tensor, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """What each decoder layer says, and where it looked for it.

        Args:
            cells: (B, N, C).
            positions: (N, C).
            queries: (Q, C).
            weights: also give where each layer looked.

        Returns:
            (L, B, Q, C), and (L, B, Q, N) shares of attention that sum to 1, or None.
        """
        return self.decode(self.encode(cells, positions), positions, queries, weights)

    def decode(
        self, cells: Tensor, positions: Tensor, queries: Tensor, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The same, of cells that are encoded already."""
        said = torch.zeros(len(cells), *queries.shape, dtype=cells.dtype, device=cells.device)
        every, looked = [], []
        for layer in self.decoder:
            said, shares = layer(said, queries, cells, positions, weights)
            every.append(self.norm(said))
            looked.append(shares)
        return torch.stack(every), torch.stack(looked) if weights else None


def _feedforward(channels: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, channels))
