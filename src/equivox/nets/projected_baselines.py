"""What the published tables compare with: linear, plain convolutions, a residual network (projection2d.md 2.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LinearClassifier(nn.Module):
    """One weight per pixel and class.

    Parameters
    ----------
    channels_in, classes
        Channels of the image; logits.
    size
        Side of the image [px].
    """

    def __init__(self, channels_in: int = 1, classes: int = 1, size: int = 45) -> None:
        super().__init__()
        self.channels_in, self.classes, self.receptive_field_px, self.step_px = channels_in, classes, size, 1
        self.head = nn.Conv2d(channels_in, classes, size)

    def score_map(self, image: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch classes y_out x_out"]:
        """Logits at every place."""
        scores: Tensor = self.head(image)
        return scores

    def forward(self, image: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch classes"]:
        """Logits of crops."""
        return _only_place(self.score_map(image), self.receptive_field_px)


class PlainClassifier(nn.Module):
    """Four layers without padding, the first with stride 2, batch norm after every one, ReLU between.

    Parameters
    ----------
    channels_in, classes
        Channels of the image; logits.
    channels
        Of the layers before the last.
    kernel_sizes
        Of all layers.
    last_norm
        Batch norm on the logits, as the published counts prove. It pins their variance, so probabilities cannot become
        confident; without it the last layer has a bias.
    """

    def __init__(
        self,
        channels_in: int = 1,
        classes: int = 1,
        channels: Sequence[int] = (12, 24, 48),
        kernel_sizes: Sequence[int] = (9, 7, 7, 7),
        last_norm: bool = True,
    ) -> None:
        super().__init__()
        self.channels_in, self.classes, self.step_px = channels_in, classes, 2
        self.receptive_field_px = kernel_sizes[0] + 2 * sum(size - 1 for size in kernel_sizes[1:])
        widths = (channels_in, *channels, classes)
        layers: list[nn.Module] = []
        for number, size in enumerate(kernel_sizes):
            last = number == len(kernel_sizes) - 1
            layers.append(
                nn.Conv2d(
                    widths[number], widths[number + 1], size, stride=1 if number else 2, bias=last and not last_norm
                )
            )
            if not last or last_norm:
                layers.append(nn.BatchNorm2d(widths[number + 1]))
            if not last:
                layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)

    def score_map(self, image: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch classes y_out x_out"]:
        """Logits at every second pixel."""
        scores: Tensor = self.layers(image)
        return scores

    def forward(self, image: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch classes"]:
        """Logits of crops."""
        return _only_place(self.score_map(image), self.receptive_field_px)


class ResidualClassifier(nn.Module):
    """Our residual network of about the published size: the published one could not be recovered from its counts.

    A stem with stride 2, two convolutions with skips (centre-cropped, through 1x1), a last convolution.

    Parameters
    ----------
    channels_in, classes
        Channels of the image; logits.
    width
        Channels of all layers.
    kernel_sizes
        Stem, two residual layers, last layer.
    """

    def __init__(
        self, channels_in: int = 1, classes: int = 1, width: int = 26, kernel_sizes: Sequence[int] = (9, 7, 7, 7)
    ) -> None:
        super().__init__()
        self.channels_in, self.classes, self.step_px = channels_in, classes, 2
        self.receptive_field_px = kernel_sizes[0] + 2 * sum(size - 1 for size in kernel_sizes[1:])
        self.stem = nn.Sequential(
            nn.Conv2d(channels_in, width, kernel_sizes[0], stride=2, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.inside = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, size, bias=False), nn.BatchNorm2d(width))
            for size in kernel_sizes[1:-1]
        )
        self.around = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for _ in kernel_sizes[1:-1])
        self.head = nn.Conv2d(width, classes, kernel_sizes[-1])

    def score_map(self, image: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch classes y_out x_out"]:
        """Logits at every second pixel."""
        field = self.stem(image)
        for inside, around in zip(self.inside, self.around, strict=True):
            after = inside(field)
            margin = (field.shape[-1] - after.shape[-1]) // 2
            field = torch.relu(after + around(field[..., margin:-margin, margin:-margin]))
        scores: Tensor = self.head(field)
        return scores

    def forward(self, image: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch classes"]:
        """Logits of crops."""
        return _only_place(self.score_map(image), self.receptive_field_px)


def _only_place(scores: Tensor, side: int) -> Tensor:
    """Logits of the one place of a crop."""
    if scores.shape[-2:] != (1, 1):
        raise ValueError(f"expected crops of {side} pixels a side, got {tuple(scores.shape[-2:])} places; crop them.")
    return scores[..., 0, 0]
