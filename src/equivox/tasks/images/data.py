"""From pictures to the fields that a network sees: the same in training, evaluation and prediction.

The central square is taken; it stays as it is if it has the field's side, or one pixel less (then a row and a column of
the mean colour are added at the right and the bottom: 32 pixels of CIFAR in 33), and is resized otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from jaxtyping import Float, UInt8
from torch import Tensor

from equivox.errors import InputError
from equivox.tasks.images.config import InputConfig

SMALLEST_SIDE = 8
"""A picture with fewer pixels along an axis is not enlarged to a field."""


def central_square(
    picture: UInt8[Tensor, "channel y x"], config: InputConfig, *, where: str = "the picture"
) -> UInt8[Tensor, "channel_out side side"]:
    """Crop, convert between grey and colour, and resize where needed; the result has the field's side, or one less.

    Raises
    ------
    InputError
        If the picture is smaller than 8 pixels.
    """
    height, width = picture.shape[1:]
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(f"{where} has {width} x {height} pixels; at least {SMALLEST_SIDE} each way are needed.")
    side = min(height, width, config.crop or max(height, width))
    top, left = (height - side) // 2, (width - side) // 2
    square = as_channels(picture[:, top : top + side, left : left + side], config.channels)
    if config.side - 1 <= side <= config.side:
        return square.contiguous()
    resized = functional.interpolate(
        square[None].float(), size=(config.side, config.side), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0].round().clamp(0, 255).to(torch.uint8)


def as_channels(picture: UInt8[Tensor, "channel y x"], channels: int) -> UInt8[Tensor, "channel_out y x"]:
    """Grey as three equal colours, colours as their luma (ITU-R 601)."""
    if picture.shape[0] == channels:
        return picture
    if channels == 3:
        return picture[:1].expand(3, -1, -1)
    shares = torch.tensor([0.299, 0.587, 0.114])
    return torch.einsum("c,cyx->yx", shares, picture[:3].float()).round().to(torch.uint8)[None]


def channel_statistics(squares: Sequence[UInt8[Tensor, "channel y x"]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over many pictures, 0 to 1; a constant channel has deviation 1."""
    channels = squares[0].shape[0]
    total, second = torch.zeros(2, channels, dtype=torch.float64)
    count = 0
    for square in squares:
        values = square.double().flatten(1) / 255.0
        count += values.shape[1]
        total += values.sum(dim=1)
        second += values.square().sum(dim=1)
    mean = total / count
    spread = (second / count - mean.square()).clamp_min(0).sqrt()
    spread = torch.where(spread > 1e-6, spread, torch.ones_like(spread))
    return tuple(round(float(one), 6) for one in mean), tuple(round(float(one), 6) for one in spread)


def make_field(
    squares: UInt8[Tensor, "batch channel y x"], config: InputConfig
) -> Float[Tensor, "batch channel side side"]:
    """Normalised by the training part's mean and deviation; missing pixels are 0, the mean."""
    mean = torch.tensor(config.mean or (0.5,) * config.channels, device=squares.device)
    deviation = torch.tensor(config.deviation or (0.25,) * config.channels, device=squares.device)
    field = (squares.float() / 255.0 - mean[:, None, None]) / deviation[:, None, None]
    return functional.pad(field, (0, config.side - field.shape[3], 0, config.side - field.shape[2]))


def turn_field(
    field: Float[Tensor, "batch channel side side"], angle_deg: float, *, mirror: bool = False
) -> Float[Tensor, "batch channel side side"]:
    """Turn fields about their centre, +x towards +y, after swapping left and right if asked.

    Quarter turns move pixels and are exact; others resample bicubically, and what comes from outside is 0.
    """
    if mirror:
        field = field.flip(-1)
    quarters, rest = divmod(angle_deg, 90.0)
    if rest == 0.0:
        return field.rot90(-int(quarters), (-2, -1)).contiguous()
    angle = torch.deg2rad(torch.tensor(angle_deg, dtype=torch.float64))
    cosine, sine = float(angle.cos()), float(angle.sin())
    back = torch.tensor([[cosine, sine, 0.0], [-sine, cosine, 0.0]], dtype=field.dtype, device=field.device)
    places = functional.affine_grid(back.expand(len(field), 2, 3), list(field.shape), align_corners=True)
    return functional.grid_sample(field, places, mode="bicubic", padding_mode="zeros", align_corners=True)
