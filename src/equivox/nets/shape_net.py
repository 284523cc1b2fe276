"""Our own classifier of volumes, and the plain network that it is compared with.

Both turn a field on a cube into one logit per class. The steerable one commutes with rotations up to the last linear
layer, so that its logits do not change when the object turns: exactly for the turns of the cube, closely for all
others, because its kernels are moment-matched, what enters is smooth, and no layer subsamples without a low-pass.
Fields of SO(3) are used throughout: a mirror image is a different object.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.kernels.matched import MatchedShells
from equivox.nn.conv3d import SteerableConv3d
from equivox.nn.gate import Gate
from equivox.nn.lowpass import BlurPool3d, LowPass3d
from equivox.nn.norm import FieldBatchNorm

Pooling = Literal["blur", "stride"]
Fields = Sequence[Sequence[int]]

SMALL: Fields = ((2, 2, 1), (8, 3, 2))
"""Multiplicities of degree 0, 1, 2 per block at the defaults; with gates 16 and 32 channels, which CPUs like."""


class ShapeNet(nn.Module):
    """Steerable classifier with matched kernels.

    Blocks of convolution, batch norm, gate and low-passed subsampling; a last convolution to scalars, their mean over
    space, batch norm, dropout, one or two linear layers.

    Parameters
    ----------
    channels_in
        Scalar input channels.
    classes
        Logits.
    fields
        Per block the multiplicities of degree 0, 1, 2.
    kernel_sizes
        Per block 3, 5 or 7; degree-3 filters are used where the size carries them (5 and 7).
    strides
        Per block 1 or 2.
    features
        Scalars of the last convolution (size 3).
    lowpass
        Scale of the low-pass at entry, 1 for none: for volumes with sharp edges.
    pooling
        ``"blur"`` subsamples through a low-pass; ``"stride"`` takes every second voxel as it is, which breaks the
        invariance and is here to show that.
    dropout
        Of the features, in training.
    hidden
        Width of a layer between features and logits; 0 for none. What is scalar stays scalar, whatever acts on it.
    shells
        Take the mean over so many Gaussian shells about the centre, each by itself, so that the head knows how far from
        the centre a feature lies; 0 for one mean over everything. For inputs that are centred on what they are about.
    generator
        Source of the initial weights.

    Raises
    ------
    ConfigError
        If the lists differ in length or an entry is out of range; in ``forward`` if a side is not 1 more than a
        multiple of all strides (the sampling lattice would not be centred, and quarter turns would not be exact).

    Notes
    -----
    After every gate the field is multiplied by a soft ball, so that the domain itself has no corners.

    Examples
    --------
    >>> ShapeNet(1, 8).eval()(torch.zeros(2, 1, 13, 13, 13)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        channels_in: int = 1,
        classes: int = 8,
        *,
        fields: Fields = SMALL,
        kernel_sizes: Sequence[int] = (5, 5),
        strides: Sequence[int] = (2, 1),
        features: int = 32,
        lowpass: float = 3.0,
        pooling: Pooling = "blur",
        dropout: float = 0.0,
        hidden: int = 0,
        shells: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _require_sizes(fields, kernel_sizes, strides, pooling)
        self.shells = shells
        self.divisor = _product(strides)
        self.channels_in = channels_in
        self.entry = LowPass3d(lowpass)
        before = f"{channels_in}x0"
        blocks: list[nn.Module] = []
        for multiplicities, size, stride in zip(fields, kernel_sizes, strides, strict=True):
            block = _SteerableBlock(before, multiplicities, size, stride, pooling, generator)
            before = str(block.gate.irreps_out)
            blocks.append(block)
        blocks.append(_SteerableBlock(before, (features,), 3, 1, pooling, generator))
        self.blocks = nn.ModuleList(blocks)
        pooled = features * max(shells, 1)
        self.scale = nn.BatchNorm1d(pooled)
        self.dropout = nn.Dropout(dropout)
        self.head = _make_head(pooled, hidden, classes, generator)

    def features(self, volume: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch feature"]:
        """What the head reads: scalars that do not change when the volume turns."""
        _require_input(volume, self.channels_in, self.divisor, "ShapeNet")
        field = self.entry(volume)
        for block in self.blocks:
            field = block(field)
        return pooled_over(field, self.shells)

    def forward(self, volume: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch class"]:
        """Logits."""
        return self.head(self.dropout(self.scale(self.features(volume))))


class PlainShapeNet(nn.Module):
    """The plain network of the same layout: as many channels, taps and strides, so the same cost; free kernels.

    Parameters
    ----------
    channels_in, classes, fields, kernel_sizes, strides, features, lowpass, pooling, dropout, hidden, shells, generator
        As for :class:`ShapeNet`; a block has the channels that the steerable convolution of the same fields has, gates
        included.

    Examples
    --------
    >>> PlainShapeNet(1, 8).eval()(torch.zeros(2, 1, 13, 13, 13)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        channels_in: int = 1,
        classes: int = 8,
        *,
        fields: Fields = SMALL,
        kernel_sizes: Sequence[int] = (5, 5),
        strides: Sequence[int] = (2, 1),
        features: int = 32,
        lowpass: float = 3.0,
        pooling: Pooling = "blur",
        dropout: float = 0.0,
        hidden: int = 0,
        shells: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _require_sizes(fields, kernel_sizes, strides, pooling)
        self.shells = shells
        self.divisor = _product(strides)
        self.channels_in = before = channels_in
        self.entry = LowPass3d(lowpass)
        blocks: list[nn.Module] = []
        for multiplicities, size, stride in zip(fields, kernel_sizes, strides, strict=True):
            width = _make_gate(multiplicities).irreps_in.dimension
            blocks.append(_PlainBlock(before, width, size, stride, pooling, generator))
            before = width
        blocks.append(_PlainBlock(before, features, 3, 1, pooling, generator))
        self.blocks = nn.ModuleList(blocks)
        pooled = features * max(shells, 1)
        self.scale = nn.BatchNorm1d(pooled)
        self.dropout = nn.Dropout(dropout)
        self.head = _make_head(pooled, hidden, classes, generator)

    def forward(self, volume: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch class"]:
        """Logits."""
        _require_input(volume, self.channels_in, self.divisor, "PlainShapeNet")
        field = self.entry(volume)
        for block in self.blocks:
            field = block(field)
        return self.head(self.dropout(self.scale(pooled_over(field, self.shells))))


class _SteerableBlock(nn.Module):
    """Convolution, batch norm, gate, ball, subsampling."""

    fold_chain = ("conv", "norm")

    def __init__(
        self,
        before: str,
        multiplicities: Sequence[int],
        size: int,
        stride: int,
        pooling: Pooling,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.gate = _make_gate(multiplicities)
        strided = stride if pooling == "stride" else 1
        self.conv = SteerableConv3d(
            before,
            self.gate.irreps_in,
            size,
            radial=MatchedShells.for_kernel(size, highest_degree=2 if size == 3 else 3),
            lmax=2 if size == 3 else 3,
            stride=strided,
            normalization="unit",
            generator=generator,
        )
        self.norm = FieldBatchNorm(self.gate.irreps_in)
        self.pool = BlurPool3d(stride) if stride > 1 and pooling == "blur" else nn.Identity()

    def forward(self, field: Tensor) -> Tensor:
        """Apply."""
        field = self.gate(self.norm(self.conv(field)))
        return self.pool(field * soft_ball(field.shape[-1]).to(field))


class _PlainBlock(nn.Module):
    """Convolution, batch norm, SiLU, subsampling."""

    fold_chain = ("conv", "norm")

    def __init__(
        self,
        before: int,
        width: int,
        size: int,
        stride: int,
        pooling: Pooling,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        strided = stride if pooling == "stride" else 1
        self.conv = nn.Conv3d(before, width, size, stride=strided, padding=size // 2, bias=False)
        with torch.no_grad():
            self.conv.weight.normal_(std=(2.0 / (before * size**3)) ** 0.5, generator=generator)
        self.norm = nn.BatchNorm3d(width)
        self.pool = BlurPool3d(stride) if stride > 1 and pooling == "blur" else nn.Identity()

    def forward(self, field: Tensor) -> Tensor:
        """Apply."""
        return self.pool(nn.functional.silu(self.norm(self.conv(field))))


def settle_norms(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of all batch norms by plain means over batches, under the present weights.

    While weights move, running statistics lag behind them; a classifier that reads small differences between means
    feels that. The network ends in evaluation mode.
    """
    kinds = FieldBatchNorm | nn.BatchNorm1d | nn.BatchNorm3d
    norms = [module for module in network.modules() if isinstance(module, kinds)]
    kept = [norm.momentum for norm in norms]
    network.train()
    with torch.no_grad():
        for count, batch in enumerate(batches, start=1):
            for norm in norms:
                norm.momentum = 1.0 / count
            network(batch)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    network.eval()


def soft_ball(side: int) -> Float[Tensor, "x y z"]:
    """1 inside a ball, falling smoothly to 0 over the outer fifth of its radius; the ball touches the cube's faces.

    A cube of 5 voxels or less is left as it is: its corners are nearer than its voxels are fine.
    """
    if side <= 5:
        return torch.ones(side, side, side)
    axis = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / (side / 2)
    radius = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).sqrt()
    inward = ((1.0 - radius) / 0.2).clamp(0.0, 1.0)
    return inward.square() * (3.0 - 2.0 * inward)


def pooled_over(field: Float[Tensor, "batch channel x y z"], shells: int) -> Float[Tensor, "batch feature"]:
    """Mean of every channel over space, or over each of some Gaussian shells about the centre (channel-major).

    The shells' radii run from 0 to nine tenths of half the side; neighbours cross at 0.7 of their height.
    """
    if not shells:
        return field.mean(dim=(2, 3, 4))
    side = field.shape[-1]
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    radius = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).sqrt()
    spacing = 0.9 * (side - 1) / 2 / max(shells - 1, 1)
    centers = spacing * torch.arange(shells, dtype=torch.float64)
    weights = torch.exp(-0.5 * ((radius - centers[:, None, None, None]) / (0.6 * spacing)) ** 2)
    weights = (weights / weights.sum((1, 2, 3), keepdim=True)).to(field)
    return torch.einsum("ncxyz,sxyz->ncs", field, weights).flatten(1)


def _make_gate(multiplicities: Sequence[int]) -> Gate:
    """SiLU on scalars, sigmoid gates on the rest."""
    gated = [f"{count}x{degree}" for degree, count in enumerate(multiplicities) if degree and count]
    return Gate(f"{multiplicities[0]}x0", "+".join(gated), even="silu")


def _make_head(features: int, hidden: int, classes: int, generator: torch.Generator | None) -> nn.Module:
    """Linear, or linear, SiLU, linear; weights of variance 1 / inputs."""
    widths = [features, hidden, classes] if hidden else [features, classes]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        linear = nn.Linear(before, after)
        with torch.no_grad():
            linear.weight.normal_(std=before**-0.5, generator=generator)
            linear.bias.zero_()
        layers += [linear, nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def _product(strides: Sequence[int]) -> int:
    """By how much the grid becomes coarser."""
    product = 1
    for stride in strides:
        product *= stride
    return product


def _require_sizes(fields: Fields, kernel_sizes: Sequence[int], strides: Sequence[int], pooling: str) -> None:
    """Refuse a layout that cannot be built, with what is wrong."""
    if not fields or not len(fields) == len(kernel_sizes) == len(strides):
        raise ConfigError(
            f"fields, kernel_sizes and strides name one entry per block; got {len(fields)}, {len(kernel_sizes)} and "
            f"{len(strides)} entries."
        )
    for multiplicities in fields:
        if not 1 <= len(multiplicities) <= 3 or multiplicities[0] < 1 or min(multiplicities) < 0:
            raise ConfigError(
                f"a block's fields are 1 to 3 multiplicities of degree 0, 1, 2, at least one scalar; got "
                f"{list(multiplicities)}."
            )
    if any(size not in (3, 5, 7) for size in kernel_sizes) or any(stride not in (1, 2) for stride in strides):
        raise ConfigError(
            f"kernel sizes are 3, 5 or 7 and strides 1 or 2; got {list(kernel_sizes)} and {list(strides)}."
        )
    if pooling not in ("blur", "stride"):
        raise ConfigError(f"pooling is 'blur' or 'stride', got {pooling!r}.")


def _require_input(volume: Tensor, channels: int, divisor: int, name: str) -> None:
    """Refuse a wrong number of channels, or sides that strides do not meet symmetrically."""
    if volume.shape[1] != channels:
        raise ValueError(f"{name} expects {channels} channels, got {volume.shape[1]}: shape {tuple(volume.shape)}.")
    if any((side - 1) % divisor for side in volume.shape[2:]):
        raise ConfigError(
            f"a volume of sides {tuple(volume.shape[2:])} is subsampled off centre by a factor of {divisor}: every "
            f"side must be a multiple of {divisor} plus 1 (for example {divisor * (volume.shape[2] // divisor) + 1})."
        )
