"""Vector neurons: layers whose channels are three-dimensional vectors and that commute with every rotation of them.

A tensor of vectors is (batch, channel, 3, sample, ...): the channel axis is 1, the vector axis 2, any number of sample
axes follows. Nothing here has a bias, so every layer also commutes with reflections. Any batch size and dtype.

References
----------
.. [1] Deng et al., "Vector Neurons: A General Framework for SO(3)-Equivariant Networks", ICCV 2021, arXiv 2104.12229.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from equivox.errors import ConfigError

EPS = 1e-6


def require_vectors(vectors: Tensor, channels: int | None, layer: str) -> None:
    """Raise :class:`ValueError` unless ``vectors`` is (batch, channels, 3, ...)."""
    if vectors.ndim < 3 or vectors.shape[2] != 3 or (channels is not None and vectors.shape[1] != channels):
        expected = "channel" if channels is None else str(channels)
        hint = ": a plain matrix holds scalars, which no vector layer mixes" if vectors.ndim == 2 else ""
        raise ValueError(f"{layer} expects vectors (batch, {expected}, 3, ...), got {tuple(vectors.shape)}{hint}.")


def mix_vectors(
    vectors: Float[Tensor, "batch channel_in 3 *sample"], weight: Float[Tensor, "channel_out channel_in"]
) -> Float[Tensor, "batch channel_out 3 *sample"]:
    """``y_o = sum_c W_oc x_c``: the only linear map between vectors that commutes with rotations."""
    require_vectors(vectors, weight.shape[1], "a mixing of vectors")
    return torch.einsum("oc,bc...->bo...", weight, vectors)


def leaky_half_space(
    vectors: Float[Tensor, "batch channel 3 *sample"],
    direction: Float[Tensor, "batch #channel 3 *sample"],
    *,
    slope: float = 0.2,
    eps: float = EPS,
) -> Float[Tensor, "batch channel 3 *sample"]:
    """Keep what points along ``direction``; of what points against it remove all but ``slope``.

    ``y = x - (1 - slope) min(<x, d>, 0) / (|d|^2 + eps) d``.
    """
    along = (vectors * direction).sum(2, keepdim=True)
    share = (1.0 - slope) * along.clamp(max=0.0) / (direction.square().sum(2, keepdim=True) + eps)
    return vectors - share * direction


def vector_rms_norm(
    vectors: Float[Tensor, "batch channel 3 *sample"],
    weight: Float[Tensor, " channel"] | None = None,
    *,
    eps: float = EPS,
) -> Float[Tensor, "batch channel 3 *sample"]:
    """``y_c = g_c x_c / sqrt(mean_c |x_c|^2 + eps)``: one scale for all channels, so relative lengths stay."""
    size = vectors.square().sum(2, keepdim=True).mean(1, keepdim=True)
    result = vectors * torch.rsqrt(size + eps)
    return result if weight is None else result * _per_channel(weight, result)


def vector_layer_norm(
    vectors: Float[Tensor, "batch channel 3 *sample"], *, eps: float = 1e-5
) -> Float[Tensor, "batch channel 3 *sample"]:
    """Directions times their lengths after layer norm over channels; lengths below the mean reverse a vector."""
    length = vectors.norm(dim=2, keepdim=True) + EPS
    centered = length - length.mean(1, keepdim=True)
    normal = centered * torch.rsqrt(centered.square().mean(1, keepdim=True) + eps)
    return vectors / length * normal


class VectorLinear(nn.Module):
    """Mix channels of vectors by a learned matrix, without bias.

    Parameters
    ----------
    channels_in, channels_out
        Vectors before and after.
    generator
        Source of the first weights, uniform in +-1/sqrt(channels_in); default: torch's own.
    dtype, device
        Of the weights.

    Attributes
    ----------
    weight
        (channels_out, channels_in).

    Raises
    ------
    ConfigError
        If a number of channels is below 1.
    ValueError
        In ``forward``, for anything but (batch, channels_in, 3, ...): the published layer takes a matrix and silently
        becomes an ordinary linear map of its scalars.

    Examples
    --------
    >>> VectorLinear(6, 8)(torch.zeros(2, 6, 3, 5)).shape
    torch.Size([2, 8, 3, 5])
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if min(channels_in, channels_out) < 1:
            raise ConfigError(f"a map from {channels_in} to {channels_out} vectors does not exist; give at least 1.")
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in, dtype=dtype, device=device))
        with torch.no_grad():
            bound = channels_in**-0.5
            self.weight.uniform_(-bound, bound, generator=generator)

    def forward(
        self, vectors: Float[Tensor, "batch channel_in 3 *sample"]
    ) -> Float[Tensor, "batch channel_out 3 *sample"]:
        """Mix."""
        return mix_vectors(vectors, self.weight)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}"


class VectorLeakyReLU(nn.Module):
    """:func:`leaky_half_space` with directions that are learned mixtures of the input.

    Parameters
    ----------
    channels
        Vectors.
    slope
        What is left of the part that points against the direction.
    shared
        One direction for all channels.
    generator
        Source of the first weights.
    """

    def __init__(
        self, channels: int, *, slope: float = 0.2, shared: bool = False, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.slope = slope
        self.direction = VectorLinear(channels, 1 if shared else channels, generator=generator)

    def forward(self, vectors: Float[Tensor, "batch channel 3 *sample"]) -> Float[Tensor, "batch channel 3 *sample"]:
        """Apply."""
        return leaky_half_space(vectors, self.direction(vectors), slope=self.slope)


class VectorBatchNorm(nn.Module):
    """The published batch norm, for parity: directions times the batch-normalised lengths ``|x| + eps``.

    A normalised length is negative for about half of all vectors, which are reversed. Equivariant, but no
    normalisation of length: new networks take :class:`VectorRMSNorm`.

    Parameters
    ----------
    channels
        Vectors.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, vectors: Float[Tensor, "batch channel 3 *sample"]) -> Float[Tensor, "batch channel 3 *sample"]:
        """Normalise; in training by the batch, else by the running statistics."""
        require_vectors(vectors, self.weight.shape[0], "VectorBatchNorm")
        length = vectors.square().sum(2).clamp_min(EPS**4).sqrt() + EPS  # a zero vector keeps a finite gradient
        normal = nn.functional.batch_norm(
            length, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )
        return vectors * (normal / length).unsqueeze(2)


class VectorRMSNorm(nn.Module):
    """:func:`vector_rms_norm` with a learned factor per channel, 1 at first.

    Parameters
    ----------
    channels
        Vectors.
    """

    def __init__(self, channels: int, *, eps: float = EPS) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, vectors: Float[Tensor, "batch channel 3 *sample"]) -> Float[Tensor, "batch channel 3 *sample"]:
        """Normalise."""
        require_vectors(vectors, self.weight.shape[0], "VectorRMSNorm")
        return vector_rms_norm(vectors, self.weight, eps=self.eps)


class VectorLinearLeakyReLU(nn.Module):
    """Linear map, norm, and half-space with a direction that is a mixture of the input (not of the mapped vectors).

    Parameters
    ----------
    channels_in, channels_out
        Vectors before and after.
    slope, shared
        As for :class:`VectorLeakyReLU`.
    norm
        ``"rms"`` (default), ``"batch"`` as published, or ``"none"``.
    generator
        Source of the first weights.

    Raises
    ------
    ConfigError
        If the norm is unknown.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        slope: float = 0.2,
        shared: bool = False,
        norm: str = "rms",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if norm not in ("rms", "batch", "none"):
            raise ConfigError(f"norm is 'rms', 'batch' or 'none', got {norm!r}.")
        self.slope = slope
        self.linear = VectorLinear(channels_in, channels_out, generator=generator)
        self.direction = VectorLinear(channels_in, 1 if shared else channels_out, generator=generator)
        self.norm: nn.Module = nn.Identity()
        if norm != "none":
            self.norm = VectorRMSNorm(channels_out) if norm == "rms" else VectorBatchNorm(channels_out)

    def forward(
        self, vectors: Float[Tensor, "batch channel_in 3 *sample"]
    ) -> Float[Tensor, "batch channel_out 3 *sample"]:
        """Apply."""
        return leaky_half_space(self.norm(self.linear(vectors)), self.direction(vectors), slope=self.slope)


class VectorMaxPool(nn.Module):
    """Over the last axis keep, channel by channel, the vector that reaches farthest along its learned direction.

    Parameters
    ----------
    channels
        Vectors.
    generator
        Source of the first weights.
    """

    def __init__(self, channels: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.direction = VectorLinear(channels, channels, generator=generator)

    def chosen(self, vectors: Float[Tensor, "batch channel 3 *sample last"]) -> Int[Tensor, "batch channel *sample"]:
        """Positions along the last axis, the first one on ties."""
        return (vectors * self.direction(vectors)).sum(2).argmax(-1)

    def forward(
        self, vectors: Float[Tensor, "batch channel 3 *sample last"]
    ) -> Float[Tensor, "batch channel 3 *sample"]:
        """Pool."""
        return vectors.take_along_dim(self.chosen(vectors).unsqueeze(2).unsqueeze(-1), dim=-1).squeeze(-1)


def mean_pool_vectors(
    vectors: Float[Tensor, "batch channel 3 *sample last"],
) -> Float[Tensor, "batch channel 3 *sample"]:
    """Mean over the last axis."""
    return vectors.mean(-1)


def _per_channel(weight: Tensor, like: Tensor) -> Tensor:
    """(channel,) as (1, channel, 1, ...)."""
    return weight.view(1, -1, *[1] * (like.ndim - 2))
