"""What a micrograph shows besides particles: where things lie, noise, uneven ice, carbon, gold and dirt.

Images are ``[y, x]``, positions (x, y) in pixels.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

ATTEMPTS = 30
"""Draws for each thing to be placed before the field counts as full."""


def place(
    count: int,
    size_px: tuple[int, int],
    distance_px: float,
    *,
    generator: torch.Generator,
    free: Tensor | None = None,
    taken: Float[Tensor, "thing 2"] | None = None,
    touching: float = 0.0,
    margin_px: float = 0.0,
) -> Float[Tensor, "placed 2"]:
    """Positions (x, y), no two nearer than a distance; fewer than asked for if there is no room.

    Parameters
    ----------
    count, size_px, distance_px
        How many, rows and columns, least distance.
    generator
        Of random numbers.
    free
        Boolean image; a position must lie on True.
    taken
        Positions to keep the distance from, too.
    touching
        Share of positions drawn next to one that is there, at 1 to 1.2 distances.
    margin_px
        Least distance from the border.
    """
    rows, columns = size_px
    found = torch.zeros(0, 2, dtype=torch.float64) if taken is None else taken.double()
    before = len(found)
    low = torch.tensor([margin_px, margin_px], dtype=torch.float64)
    span = torch.tensor([columns - 1.0, rows - 1.0], dtype=torch.float64) - 2.0 * low
    if bool((span <= 0).any()):
        return found[:0]
    for _ in range(ATTEMPTS * count):
        if len(found) - before >= count:
            break
        draw = torch.rand(4, generator=generator, dtype=torch.float64)
        spot = low + span * draw[:2]
        if len(found) > before and float(draw[2]) < touching:
            neighbour = found[before + int(torch.randint(len(found) - before, (), generator=generator))]
            angle, reach = 2.0 * math.pi * float(draw[3]), distance_px * (1.0 + 0.2 * float(draw[0]))
            spot = neighbour + reach * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
            if bool(((spot < low) | (spot > low + span)).any()):
                continue
        if free is not None and not bool(free[round(float(spot[1])), round(float(spot[0]))]):
            continue
        if len(found) == 0 or float((found - spot).square().sum(1).min()) >= distance_px**2:
            found = torch.cat([found, spot[None]])
    return found[before:]


def paste(image: Float[Tensor, "y x"], patch: Float[Tensor, "side side"], x: int, y: int) -> None:
    """Add a patch whose middle pixel ``side // 2`` comes to (x, y); what lies outside the image is cut off."""
    side = patch.shape[0]
    rows, columns = image.shape
    top, left = y - side // 2, x - side // 2
    y0, y1 = max(top, 0), min(top + side, rows)
    x0, x1 = max(left, 0), min(left + side, columns)
    if y0 < y1 and x0 < x1:
        image[y0:y1, x0:x1] += patch[y0 - top : y1 - top, x0 - left : x1 - left]


def coloured_noise(
    size_px: tuple[int, int], *, pixel_size_angstrom: float, scale_angstrom: float, generator: torch.Generator
) -> Float[Tensor, "y x"]:
    """Noise of standard deviation 1 whose amplitude falls with the frequency s as ``1 / sqrt(1 + (s scale)²)``.

    A scale of 0 gives white noise.
    """
    white = torch.randn(size_px, generator=generator)
    if scale_angstrom <= 0:
        return white
    y = torch.fft.fftfreq(size_px[0], pixel_size_angstrom)[:, None]
    x = torch.fft.rfftfreq(size_px[1], pixel_size_angstrom)[None, :]
    envelope = (1.0 + (x * x + y * y) * scale_angstrom**2).rsqrt()
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * envelope, s=size_px)
    return noise / noise.std().clamp_min(1e-12)


def smooth_gradient(size_px: tuple[int, int], *, generator: torch.Generator) -> Float[Tensor, "y x"]:
    """A random polynomial of second order over the image, mean 0 and standard deviation 1: uneven ice."""
    y = torch.linspace(-1.0, 1.0, size_px[0])[:, None]
    x = torch.linspace(-1.0, 1.0, size_px[1])[None, :]
    c = torch.randn(5, generator=generator)
    field = c[0] * x + c[1] * y + 0.6 * (c[2] * x * x + c[3] * y * y + c[4] * x * y)
    field = field - field.mean()
    return field / field.std().clamp_min(1e-12)


def carbon_cover(size_px: tuple[int, int], *, generator: torch.Generator, edge_px: float = 4.0) -> Float[Tensor, "y x"]:
    """A carbon film over one side: 1 on it, 0 in the hole; its edge is a wide arc, as that of a hole in the film."""
    rows, columns = size_px
    draw = torch.rand(3, generator=generator)
    angle = 2.0 * math.pi * float(draw[0])
    radius = (0.8 + 0.8 * float(draw[1])) * max(size_px)
    share = 0.15 + 0.3 * float(draw[2])  # of the way across that is covered
    reach = 0.5 * (abs(math.cos(angle)) * columns + abs(math.sin(angle)) * rows)
    offset = radius - reach * (1.0 - 2.0 * share)
    center = (0.5 * columns - math.cos(angle) * offset, 0.5 * rows - math.sin(angle) * offset)
    y = torch.arange(rows, dtype=torch.float32)[:, None] - center[1]
    x = torch.arange(columns, dtype=torch.float32)[None, :] - center[0]
    return torch.sigmoid(((x * x + y * y).sqrt() - radius) / edge_px)


def ragged_patch(radius_px: float, *, generator: torch.Generator, lobes: int = 7) -> Float[Tensor, "side side"]:
    """A blob with an uneven outline, 1 inside: a crystal of ice or dirt."""
    side = 2 * math.ceil(1.9 * radius_px) + 1
    axis = torch.arange(side, dtype=torch.float32) - side // 2
    angle = torch.atan2(axis[:, None], axis[None, :])
    distance = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
    amplitude = 0.16 * torch.randn(lobes, 2, generator=generator)
    outline = torch.ones_like(angle)
    for order in range(lobes):
        wave = (order + 1) * angle
        outline = outline + (amplitude[order, 0] * wave.cos() + amplitude[order, 1] * wave.sin()) / (order + 1) ** 0.5
    return torch.sigmoid((radius_px * outline.clamp(0.3, 1.8) - distance) / max(0.06 * radius_px, 0.7))


def disc(radius_px: float, *, edge_px: float = 0.7) -> Float[Tensor, "side side"]:
    """A round bead, 1 inside."""
    side = 2 * math.ceil(radius_px + 4 * edge_px) + 1
    axis = torch.arange(side, dtype=torch.float32) - side // 2
    return torch.sigmoid((radius_px - (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()) / edge_px)
