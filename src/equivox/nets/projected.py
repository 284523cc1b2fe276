"""Networks for images of objects in space: every filter is a projection, every rotation has its own maps.

Layers have no padding, so that one network scores a crop of its receptive field, at 1x1, and a whole micrograph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.so3_grids import RotationGrid, rotation_grid
from equivox.kernels.projected import Richness
from equivox.nn.aggregation import Aggregation, aggregate, aggregate_parts
from equivox.nn.blur2d import BlurSubsample2d
from equivox.nn.projected_conv2d import ProjectedConv2d, WeightKind
from equivox.nn.rotation_norm import RotationBatchNorm2d, RotationLayerNorm2d

Subsampling = Literal["blur", "plain", "none"]
NormKind = Literal["batch", "layer", "none"]
HEAD_GAIN = 0.1
"""Of the last layer's first weights, beside the He variance."""


class ProjectedBlock(nn.Module):
    """Projected convolution, norm, ReLU, and perhaps blur with subsampling.

    Parameters
    ----------
    conv
        The convolution.
    norm
        ``"batch"``, ``"layer"`` or ``"none"``.
    blur
        Taps of the binomial filter that stands before subsampling by 2, or 0.
    """

    fold_chain = ("conv", "norm")

    def __init__(self, conv: ProjectedConv2d, norm: NormKind = "batch", blur: int = 0) -> None:
        super().__init__()
        self.conv = conv
        width = conv.channels_out
        self.norm: nn.Module = nn.Identity()
        if norm == "batch":
            self.norm = RotationBatchNorm2d(width, len(conv.grid))
        elif norm == "layer":
            self.norm = RotationLayerNorm2d(width)
        self.blur = BlurSubsample2d(blur) if blur else None
        self.step_px = conv.stride * (2 if blur else 1)

    def forward(
        self,
        field: Float[Tensor, "batch channel y x"],
        rotations: slice | None = None,
        dilation: int = 1,
        dense: bool = False,
    ) -> Float[Tensor, "batch channel_out y_out x_out"]:
        """Apply; ``dense`` leaves out the subsampling, which later layers make good by their dilation."""
        if rotations is None and dilation == 1 and not dense:
            field = self.conv(field)
        else:
            field = self.conv(field, rotations=rotations, dilation=dilation, stride=1 if dense else None)
        field = torch.relu(self.norm(field))
        if self.blur is None:
            return field
        return self.blur(field, stride=1 if dense else None)


class ProjectedFeatures(nn.Module):
    """A stack of projected convolutions: from an image to features of every rotation.

    Parameters
    ----------
    channels_in
        Of the image.
    channels
        Per rotation, after each layer.
    kernel_sizes
        Of each layer [px], odd.
    grid
        Sampled rotations, or the name of a grid.
    weight, richness, mixing, bias
        As for :class:`equivox.nn.ProjectedConv2d`.
    subsampling
        After the first layer, by 2: ``"blur"`` (default; a binomial filter between ReLU and subsampling), ``"plain"``
        (the convolution's stride, as published) or ``"none"``.
    norm
        ``"batch"`` (shared by all rotations), ``"layer"`` or ``"none"``.
    generator
        Source of the initial weights.

    Attributes
    ----------
    step_px
        Pixels of the image between neighbouring features.
    receptive_field_px
        Side of the part of the image that one feature sees.
    """

    def __init__(
        self,
        channels_in: int = 1,
        channels: Sequence[int] = (4, 8, 16),
        kernel_sizes: Sequence[int] = (7, 7, 7),
        grid: RotationGrid | str = "O",
        *,
        weight: WeightKind = "ball",
        richness: Richness = "exact",
        subsampling: Subsampling = "blur",
        norm: NormKind = "batch",
        mixing: Literal["none", "kernel"] = "none",
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if len(channels) != len(kernel_sizes):
            raise ConfigError(
                f"{len(channels)} widths were given for {len(kernel_sizes)} kernel sizes; one each is needed."
            )
        if subsampling not in ("blur", "plain", "none"):
            raise ConfigError(f"subsampling {subsampling!r} is unknown; known are blur, plain, none.")
        self.channels_in = channels_in
        self.grid = rotation_grid(grid) if isinstance(grid, str) else grid
        blocks = []
        before = channels_in
        for number, (width, size) in enumerate(zip(channels, kernel_sizes, strict=True)):
            first = number == 0
            conv = ProjectedConv2d(
                before, width, size, self.grid, lifting=first, weight=weight, richness=richness, padding="valid",
                stride=2 if first and subsampling == "plain" else 1, mixing=mixing, bias=bias, generator=generator,
            )  # fmt: skip
            blocks.append(ProjectedBlock(conv, norm, 3 if first and subsampling == "blur" else 0))
            before = width
        self.blocks = nn.ModuleList(blocks)
        self.channels_out = before
        self.step_px, self.receptive_field_px = geometry_of(self.blocks)

    def set_grid(self, grid: RotationGrid | str) -> None:
        """Take other rotations, after training too; norms keep their statistics."""
        self.grid = rotation_grid(grid) if isinstance(grid, str) else grid
        set_rotations(self, self.grid)

    def forward(
        self, image: Float[Tensor, "batch channel y x"], *, rotations: slice | None = None, dense: bool = False
    ) -> Float[Tensor, "batch channel_out y_out x_out"]:
        """Features with channels ``r * channels_out + c``.

        Parameters
        ----------
        image
            (batch, channels_in, y, x).
        rotations
            A contiguous range of the grid's rotations only.
        dense
            At every pixel of the image instead of every :attr:`step_px`.
        """
        dilation = 1
        for block in self.blocks:
            assert isinstance(block, ProjectedBlock)
            image = block(image, rotations, dilation, dense)
            dilation *= block.step_px if dense else 1
        return image


class ProjectedClassifier(nn.Module):
    """Logits of an image: features of every rotation, a last projected convolution, and aggregation over rotations.

    Parameters
    ----------
    channels_in, classes
        Channels of the image; logits.
    channels
        Per rotation, of the layers before the last.
    kernel_sizes
        Of all layers, the last included.
    grid, weight, richness, subsampling, norm, mixing, bias
        As for :class:`ProjectedFeatures`.
    aggregation
        ``"al1_effective"`` (default), ``"al1"`` (as published), ``"logmeanexp"``, ``"mean"`` or ``"max"``.
    effective_count
        For ``"al1_effective"``: default as many as the grid has rotations when the network is built; it then stays
        when the grid is exchanged.
    learn_effective_count
        Make it a parameter.
    generator
        Source of the initial weights.

    Attributes
    ----------
    step_px
        Pixels of the image between neighbouring scores.
    receptive_field_px
        Side of the crop that gives one score.
    """

    rotation_weights: Tensor

    def __init__(
        self,
        channels_in: int = 1,
        classes: int = 1,
        channels: Sequence[int] = (4, 8, 16),
        kernel_sizes: Sequence[int] = (7, 7, 7, 7),
        grid: RotationGrid | str = "O",
        weight: WeightKind = "ball",
        richness: Richness = "exact",
        subsampling: Subsampling = "blur",
        norm: NormKind = "batch",
        mixing: Literal["none", "kernel"] = "none",
        bias: bool = True,
        aggregation: Aggregation = "al1_effective",
        effective_count: float | None = None,
        learn_effective_count: bool = False,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if len(kernel_sizes) != len(channels) + 1:
            raise ConfigError(
                f"{len(kernel_sizes)} kernel sizes do not fit {len(channels)} hidden layers and a last one."
            )
        self.channels_in, self.classes = channels_in, classes
        self.features = ProjectedFeatures(
            channels_in, channels, kernel_sizes[:-1], grid, weight=weight, richness=richness, subsampling=subsampling,
            norm=norm, mixing=mixing, bias=bias, generator=generator,
        )  # fmt: skip
        self.head = ProjectedConv2d(
            self.features.channels_out, classes, kernel_sizes[-1], self.features.grid, lifting=not channels,
            weight=weight, richness=richness, padding="valid", bias=bias, generator=generator,
        )  # fmt: skip
        self.step_px, self.receptive_field_px = geometry_of([*self.features.blocks, self.head])
        with torch.no_grad():  # undecided at the start, however many features add up
            self.head.weight.mul_(HEAD_GAIN)
        self.aggregation: Aggregation = aggregation
        self.log_effective_count: nn.Parameter | None = None
        self.effective_count: float | None = None
        if aggregation == "al1_effective":
            self.effective_count = float(len(self.features.grid)) if effective_count is None else float(effective_count)
            if learn_effective_count:
                self.log_effective_count = nn.Parameter(torch.tensor(self.effective_count).log())
        self._take_weights()

    @property
    def grid(self) -> RotationGrid:
        """The sampled rotations."""
        return self.features.grid

    def set_grid(self, grid: RotationGrid | str) -> None:
        """Take other rotations, after training too; the effective count stays."""
        self.features.set_grid(grid)
        set_rotations(self, self.features.grid)
        self._take_weights()

    def rotation_logits(
        self, image: Float[Tensor, "batch channel y x"], *, rotations: slice | None = None, dense: bool = False
    ) -> Float[Tensor, "batch rotation classes y_out x_out"]:
        """A logit per rotation, class and place; place (i, j) is centred on pixel ``step * i + (field - 1) / 2``.

        Parameters
        ----------
        image
            Any size from :attr:`receptive_field_px` on.
        rotations
            A contiguous range of the grid's rotations only: bounds memory.
        dense
            At every pixel instead of every :attr:`step_px`.
        """
        field = self.features(image, rotations=rotations, dense=dense)
        if rotations is None and not dense:
            logits = self.head(field)
        else:
            logits = self.head(field, rotations=rotations, dilation=self.step_px if dense else 1)
        return logits.unflatten(1, (-1, self.classes))

    def aggregate(self, logits: Float[Tensor, "batch rotation *rest"]) -> Float[Tensor, "batch *rest"]:
        """One logit from those of all rotations."""
        return aggregate(logits, self.aggregation, 1, weights=self._weights(), effective_count=self._count())

    def score_map(
        self, image: Float[Tensor, "batch channel y x"], *, rotations_at_once: int | None = None, dense: bool = False
    ) -> Float[Tensor, "batch classes y_out x_out"]:
        """Aggregated logits at every place, a few rotations at a time where memory is short (the same numbers)."""
        total = len(self.grid)
        if rotations_at_once is None or rotations_at_once >= total:
            return self.aggregate(self.rotation_logits(image, dense=dense))

        def parts() -> Iterator[Tensor]:
            for start in range(0, total, rotations_at_once):
                chosen = slice(start, min(start + rotations_at_once, total))
                yield self.rotation_logits(image, rotations=chosen, dense=dense)

        return aggregate_parts(
            parts(), self.aggregation, 1, count=total, weights=self._weights(), effective_count=self._count()
        )

    def forward(self, image: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch classes"]:
        """Logits of crops of :attr:`receptive_field_px` pixels a side."""
        scores = self.aggregate(self.rotation_logits(image))
        if scores.shape[-2:] != (1, 1):
            raise ValueError(
                f"ProjectedClassifier classifies crops of {self.receptive_field_px} pixels a side, got "
                f"{tuple(image.shape[-2:])}; crop them, or take score_map for whole images."
            )
        return scores[..., 0, 0]

    def _count(self) -> float | Tensor | None:
        """Effective number of hypotheses."""
        return self.effective_count if self.log_effective_count is None else self.log_effective_count.exp()

    def _weights(self) -> Tensor | None:
        """Quadrature weights where the aggregation takes them and they differ."""
        return self.rotation_weights if len(self.rotation_weights) else None

    def _take_weights(self) -> None:
        """Find the weights of the grid now, and not while a graph is being recorded."""
        weights = torch.zeros(0, dtype=torch.float64)
        if self.aggregation not in ("max", "al1"):
            weights = self.grid.weights
            if bool((weights == weights[0]).all()):
                weights = weights[:0]
        self.register_buffer("rotation_weights", weights.to(self.head.weight), persistent=False)


def geometry_of(layers: Sequence[nn.Module] | nn.ModuleList) -> tuple[int, int]:
    """Step and receptive field [px] of blocks and convolutions, one after the other."""
    step, field = 1, 1
    for layer in layers:
        conv = layer.conv if isinstance(layer, ProjectedBlock) else layer
        assert isinstance(conv, ProjectedConv2d)
        field += step * (conv.kernel_size - 1)
        step *= conv.stride
        if isinstance(layer, ProjectedBlock) and layer.blur is not None:
            field += step * (layer.blur.taps - 1)
            step *= layer.blur.stride
    return step, field


def set_rotations(network: nn.Module, grid: RotationGrid) -> None:
    """Exchange the rotations of every layer of a network."""
    for layer in network.modules():
        if isinstance(layer, ProjectedConv2d):
            layer.set_grid(grid)
        elif isinstance(layer, RotationBatchNorm2d):
            layer.rotations = len(grid)
