"""A transformer over the cells of a feature map: an encoder, and a decoder with one learned query per output.

N cells, Q queries, C channels, L decoder layers.

Source: Carion et al., "End-to-End Object Detection with Transformers" (DETR), 2020: layers normalise after the residual sum,
positions are added to queries and keys but not to values, and the outputs of all decoder layers are returned, normalised alike.
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
    """Self-attention over the cells, then a feed-forward network."""

    def __init__(self, channels: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.feed = _feedforward(channels, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, cells: Tensor, positions: Tensor) -> Tensor:
        """(B, N, C) and (N, C) to (B, N, C)."""
        where = cells + positions
        attended, _ = self.attention(where, where, cells, need_weights=False)
        cells = self.norms[0](cells + self.dropout(attended))
        return self.norms[1](cells + self.dropout(self.feed(cells)))


class DecoderLayer(nn.Module):
    """Self-attention over the queries, cross-attention to the cells, then a feed-forward network."""

    def __init__(self, channels: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.among = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.across = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.feed = _feedforward(channels, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, decoded: Tensor, queries: Tensor, cells: Tensor, positions: Tensor, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Apply the layer.

        Args:
            decoded: (B, Q, C) output of the layer before.
            queries: (Q, C) learned, added to ``decoded`` in the queries of both attentions.
            cells: (B, N, C) output of the encoder.
            positions: (N, C) added to the keys, not to the values.
            weights: also return the attention of each query to each cell.

        Returns:
            (B, Q, C), and (B, Q, N) means over the attention heads or None.
        """
        queried = decoded + queries
        attended, _ = self.among(queried, queried, decoded, need_weights=False)
        decoded = self.norms[0](decoded + self.dropout(attended))
        attended, attention = self.across(decoded + queries, cells + positions, cells, need_weights=weights)
        decoded = self.norms[1](decoded + self.dropout(attended))
        return self.norms[2](decoded + self.dropout(self.feed(decoded))), attention


class Transformer(nn.Module):
    """Encoder and decoder.

    Args:
        channels: C, a multiple of 4 and of ``heads``.
        heads: of every attention.
        encoder_layers, decoder_layers: numbers of layers; without encoder layers the cells are decoded as they are.
        feedforward: width of the feed-forward networks.
        dropout: in training.
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
        """The outputs of all decoder layers, and their attention.

        Args:
            cells: (B, N, C).
            positions: (N, C).
            queries: (Q, C).
            weights: also return the attention.

        Returns:
            (L, B, Q, C), and (L, B, Q, N) attention that sums to 1, or None.
        """
        return self.decode(self.encode(cells, positions), positions, queries, weights)

    def decode(
        self, cells: Tensor, positions: Tensor, queries: Tensor, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The same, from encoded cells."""
        decoded = torch.zeros(len(cells), *queries.shape, dtype=cells.dtype, device=cells.device)
        every, attention = [], []
        for layer in self.decoder:
            decoded, shares = layer(decoded, queries, cells, positions, weights)
            every.append(self.norm(decoded))
            attention.append(shares)
        return torch.stack(every), torch.stack(attention) if weights else None


def _feedforward(channels: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, channels))
