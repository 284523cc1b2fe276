"""One micrograph with its truth: particles among decoys, broken parts, dirt, carbon and gold, through a microscope.

Order of things: projections and the ice's structure are added up, the CTF is applied to their sum, contrast is
inverted (protein is dark, as recorded), then noise of a stated variance and uneven brightness are added. What is too
thick for that picture of weak scatterers (dirt, gold, the carbon film's own darkness) is added after the CTF.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.simulate.ctf import Microscope, apply_transfer, ctf, delocalisation_angstrom
from equivox.simulate.micrograph_config import MicrographSimulation
from equivox.simulate.orientations import draw_rotations
from equivox.simulate.scenery import (
    carbon_cover,
    coloured_noise,
    disc,
    paste,
    place,
    ragged_patch,
    smooth_gradient,
)
from equivox.simulate.specimen import Specimen, blob_cloud

BOX_PER_DIAMETER = 1.5
"""Edge of the squares in which the variance of the signal is taken."""
AT_ONCE = 16
"""Particles projected together."""
CARBON_NOISE = 5.0
"""Structural noise on carbon over that of the ice."""
CARBON_DARK, GOLD_DARK, DIRT_DARK = 2.0, 14.0, (2.0, 6.0)
"""Darkness in standard deviations of the noise."""
GOLD_RADIUS_ANGSTROM = (40.0, 80.0)


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedMicrograph:
    """An image and what is in it.

    Parameters
    ----------
    image
        [y, x], float32; noise has a standard deviation of 1, particles are dark.
    clean
        The noise-free part of particles, decoys and parts alone, after the CTF.
    positions_px, rotations
        Centre (x, y) as a 0-based pixel centre, and pose, of every whole particle.
    decoys_px
        Centres of decoys and broken parts, which are no particles.
    carbon
        Share of the image that carbon covers.
    """

    image: Float[Tensor, "y x"]
    clean: Float[Tensor, "y x"]
    positions_px: Float[Tensor, "particle 2"]
    rotations: Float[Tensor, "particle 3 3"]
    decoys_px: Float[Tensor, "decoy 2"]
    defocus_u_angstrom: float
    defocus_v_angstrom: float
    defocus_angle_deg: float
    snr: float
    carbon: float


def simulate_micrograph(
    specimen: Specimen,
    config: MicrographSimulation,
    microscope: Microscope,
    *,
    generator: torch.Generator,
    view_histogram: Float[Tensor, "theta phi"] | None = None,
) -> SimulatedMicrograph:
    """Draw one micrograph.

    Raises
    ------
    ConfigError
        If a particle is larger than a third of the micrograph, or measured views are asked for without a histogram.
    """
    pixel, (rows, columns) = config.pixel_size_angstrom, config.size_px
    diameter = 2.0 * specimen.radius_angstrom / pixel
    if diameter > min(rows, columns) / 3:
        raise ConfigError(
            f"{specimen.name} is {diameter:.0f} pixels across, the micrograph {columns} x {rows}; take larger pixels "
            f"or a larger micrograph."
        )
    cover = torch.zeros(rows, columns)
    if float(torch.rand((), generator=generator)) < config.carbon:
        cover = carbon_cover((rows, columns), generator=generator, edge_px=max(24.0 / pixel, 1.0))
    free = cover < 0.05
    spots = place(
        config.particles, (rows, columns), config.spacing * diameter, generator=generator, free=free,
        touching=config.touching, margin_px=0.5 * diameter,
    )  # fmt: skip
    rotations = draw_rotations(
        len(spots), config.orientations, generator=generator, view_spread_deg=config.view_spread_deg,
        preferred_view=config.preferred_view, view_histogram=view_histogram,
    )  # fmt: skip
    side = 2 * math.ceil(0.5 * BOX_PER_DIAMETER * diameter) + 2
    sum_of_all = torch.zeros(rows, columns)
    for start in range(0, len(spots), AT_ONCE):
        _add(sum_of_all, specimen, spots[start : start + AT_ONCE], rotations[start : start + AT_ONCE], side, pixel)
    typical = _typical_deviation(sum_of_all, spots, side)
    others = _add_others(sum_of_all, specimen, config, spots, free, side, generator)
    u, v, angle = _defocus(config, generator)
    ice = coloured_noise((rows, columns), pixel_size_angstrom=pixel, scale_angstrom=60.0, generator=generator)
    ice = ice * typical * config.structural_noise * (1.0 + (CARBON_NOISE - 1.0) * cover)
    clean, seen = _through(torch.stack([sum_of_all, sum_of_all + ice]), config, microscope, u, v, angle, pixel)
    variance = _typical_deviation(clean, spots, side) ** 2
    gain = math.sqrt(config.snr / variance) if variance > 0 else 1.0
    scale = config.noise_scale_angstrom if config.noise == "coloured" else 0.0
    image = coloured_noise((rows, columns), pixel_size_angstrom=pixel, scale_angstrom=scale, generator=generator)
    image = image + gain * seen
    if config.ice_gradient > 0:
        image = image + config.ice_gradient * smooth_gradient((rows, columns), generator=generator)
    image = image - CARBON_DARK * cover
    _add_dirt(image, config, pixel, generator)
    return SimulatedMicrograph(
        image, gain * clean, spots, rotations, others, u, v, angle, config.snr, float((cover > 0.5).float().mean())
    )


def _add(image: Tensor, specimen: Specimen, spots: Tensor, rotations: Tensor, side: int, pixel: float) -> None:
    """Project particles at their places, the parts of a pixel included."""
    whole = spots.round()
    patches = specimen.images(rotations, side=side, pixel_size_angstrom=pixel, shifts_px=(spots - whole).float())
    for patch, (x, y) in zip(patches, whole.long().tolist(), strict=True):
        paste(image, patch, x, y)


def _add_others(
    image: Tensor,
    specimen: Specimen,
    config: MicrographSimulation,
    spots: Tensor,
    free: Tensor,
    side: int,
    generator: torch.Generator,
) -> Tensor:
    """Decoys and broken particles where there is room; returns their places."""
    pixel = config.pixel_size_angstrom
    distance = config.spacing * 2.0 * specimen.radius_angstrom / pixel
    decoys, broken = round(config.decoys * len(spots)), round(config.broken * len(spots))
    places = place(
        decoys + broken, config.size_px, distance, generator=generator, free=free, taken=spots, margin_px=0.5 * distance
    )
    turns = draw_rotations(len(places), "uniform", generator=generator)
    for index in range(len(places)):
        one = blob_cloud(specimen, generator=generator) if index < decoys else specimen.broken(generator=generator)
        _add(image, one, places[index : index + 1], turns[index : index + 1], side, pixel)
    return places


def _defocus(config: MicrographSimulation, generator: torch.Generator) -> tuple[float, float, float]:
    """Defocus along and across the astigmatism's axis, and its angle."""
    draw = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    low, high = config.defocus_angstrom
    mean, difference = low + (high - low) * draw[0], config.astigmatism_angstrom * draw[1]
    return mean + 0.5 * difference, mean - 0.5 * difference, 180.0 * draw[2] - 90.0


def _through(
    images: Tensor, config: MicrographSimulation, microscope: Microscope, u: float, v: float, angle: float, pixel: float
) -> Tensor:
    """Minus the CTF applied, over a field padded by mirroring so that nothing reaches around."""
    rows, columns = images.shape[-2:]
    spread = delocalisation_angstrom(max(abs(u), abs(v)), microscope, resolution_angstrom=2.0 * pixel) / pixel
    pad = min(math.ceil(spread) + 8, rows // 2, columns // 2)
    padded = functional.pad(images[None], (pad, pad, pad, pad), mode="reflect")[0]
    numbers = torch.tensor([u, v, angle, config.phase_shift_deg], dtype=torch.float64)
    transfer = ctf(
        (padded.shape[-2], padded.shape[-1]), pixel, microscope,
        defocus_u_angstrom=numbers[0], defocus_v_angstrom=numbers[1], defocus_angle_deg=numbers[2],
        phase_shift_deg=numbers[3], b_factor=config.b_factor,
    )  # fmt: skip
    seen = apply_transfer(padded, -transfer.to(padded.dtype))
    return seen[:, pad : pad + rows, pad : pad + columns]


def _typical_deviation(image: Tensor, spots: Tensor, side: int) -> float:
    """Root of the mean variance in squares about the particles that lie inside; 0 without particles."""
    rows, columns = image.shape
    found = []
    for x, y in spots.round().long().tolist():
        top, left = y - side // 2, x - side // 2
        patch = image[max(top, 0) : min(top + side, rows), max(left, 0) : min(left + side, columns)]
        found.append(float(patch.var()))
    return math.sqrt(sum(found) / len(found)) if found else 0.0


def _add_dirt(image: Tensor, config: MicrographSimulation, pixel: float, generator: torch.Generator) -> None:
    """Patches of ice and dirt, and gold beads."""
    rows, columns = image.shape
    count = int(torch.poisson(torch.tensor(config.contaminants), generator=generator))
    for _ in range(count):
        draw = torch.rand(4, generator=generator).tolist()
        patch = ragged_patch((60.0 + 240.0 * draw[0] ** 2) / pixel, generator=generator)
        darkness = DIRT_DARK[0] + (DIRT_DARK[1] - DIRT_DARK[0]) * draw[1]
        paste(image, -darkness * patch, int(draw[2] * columns), int(draw[3] * rows))
    if float(torch.rand((), generator=generator)) < config.gold:
        beads = 2 + int(torch.randint(6, (), generator=generator))
        for _ in range(beads):
            draw = torch.rand(3, generator=generator).tolist()
            radius = GOLD_RADIUS_ANGSTROM[0] + (GOLD_RADIUS_ANGSTROM[1] - GOLD_RADIUS_ANGSTROM[0]) * draw[0]
            paste(image, -GOLD_DARK * disc(radius / pixel), int(draw[1] * columns), int(draw[2] * rows))
