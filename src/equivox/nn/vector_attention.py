"""Attention between tokens that hold vectors: invariant weights, equivariant output."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.nn.vector_neurons import VectorLinear


class VectorAttention(nn.Module):
    """Multi-head attention: ``A_ts = softmax_s(<Q_t, K_s> / sqrt(3 C_head))``, ``O_t = sum_s A_ts V_s``, no bias.

    Parameters
    ----------
    channels
        Vectors per token; the head is the slow index of the channel axis.
    heads
        A divisor of ``channels``.
    generator
        Source of the first weights.

    Raises
    ------
    ConfigError
        If heads do not divide channels.

    References
    ----------
    .. [1] Assaad et al., "VN-Transformer: Rotation-Equivariant Attention for Vector Neurons", TMLR 2023.
    """

    def __init__(self, channels: int, *, heads: int = 1, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ConfigError(f"{heads} heads do not divide {channels} vectors; choose a divisor.")
        self.heads = heads
        self.query = VectorLinear(channels, channels, generator=generator)
        self.key = VectorLinear(channels, channels, generator=generator)
        self.value = VectorLinear(channels, channels, generator=generator)
        self.out = VectorLinear(channels, channels, generator=generator)

    def weights(self, tokens: Float[Tensor, "batch token channel 3"]) -> Float[Tensor, "batch head token token2"]:
        """How much every token takes of every other; rows sum to 1."""
        query, key = (self._split(layer, tokens) for layer in (self.query, self.key))
        products = torch.einsum("bthcx,bshcx->bhts", query, key)
        return (products / (3 * query.shape[3]) ** 0.5).softmax(-1)

    def forward(self, tokens: Float[Tensor, "batch token channel 3"]) -> Float[Tensor, "batch token channel 3"]:
        """Mix tokens."""
        value = self._split(self.value, tokens)
        mixed = torch.einsum("bhts,bshcx->bthcx", self.weights(tokens), value).flatten(2, 3)
        return self.out(mixed.flatten(0, 1)).unflatten(0, tokens.shape[:2])

    def _split(self, layer: nn.Module, tokens: Tensor) -> Tensor:
        """(batch, token, head, channel, 3) after a layer."""
        mapped: Tensor = layer(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        return mapped.unflatten(2, (self.heads, -1))
