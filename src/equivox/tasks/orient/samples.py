"""Pictures of a training: simulated from a particle, or taken from a stack with refined poses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.euler_relion import matrix_from_relion
from equivox.geometry.rotations import random_rotations
from equivox.nn.pose_heads import exponential
from equivox.run.sampling import Sample
from equivox.run.seeds import generator_for
from equivox.simulate.ctf import apply_transfer, phase_flip
from equivox.simulate.point_particle import PointParticle, project_points
from equivox.tasks.orient.config import PictureConfig, SimulationConfig
from equivox.tasks.orient.picture import standardise
from equivox.tasks.orient.transfer import Imaging, spread_image, transfer_of

PORTION = 64
"""Pictures that are simulated at once: they do not depend on it."""


class SimulatedPictures:
    """Pictures of one particle in new poses in every epoch (:class:`equivox.run.sampling.Samples`).

    Parameters
    ----------
    particle
        What is seen.
    picture, simulation
        What the network looks at; poses, noise, transfer, displacement.
    seed
        Of poses and noise.
    training
        Validation has pictures of its own, the same in every epoch.
    histogram
        Counts of views (row cos(tilt) from -1, column rot from -180 degrees), for poses by histogram.
    """

    def __init__(
        self,
        particle: PointParticle,
        picture: PictureConfig,
        simulation: SimulationConfig,
        *,
        seed: int,
        training: bool,
        histogram: Float[np.ndarray, "row column"] | None = None,
    ) -> None:
        self.particle, self.picture, self.simulation = particle, picture, simulation
        self.seed, self.training = seed, training
        self.histogram = None if histogram is None else torch.from_numpy(histogram / histogram.sum())
        self._portion: tuple[tuple[int, int], dict[str, Tensor]] = ((-1, -1), {})
        self._kept: dict[int, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        return self.simulation.particles if self.training else self.simulation.validation

    def sample(self, epoch: int, position: int) -> Sample:
        """Picture (channel, y, x), rotation and shift [px] of one particle."""
        epoch = epoch if self.training and not self.simulation.fixed else 0
        start = position - position % PORTION
        if (self.training and self.simulation.fixed) or not self.training:
            if start not in self._kept:
                self._kept[start] = self._simulate(0, start)
            found = self._kept[start]
        else:
            if self._portion[0] != (epoch, start):
                self._portion = ((epoch, start), self._simulate(epoch, start))
            found = self._portion[1]
        return {name: tensor[position - start] for name, tensor in found.items()}

    def _simulate(self, epoch: int, start: int) -> dict[str, Tensor]:
        """One portion of an epoch."""
        count = min(PORTION, len(self) - start)
        purpose = "pictures" if self.training else "validation pictures"
        draw = generator_for(self.seed, purpose, epoch, start)
        rotations = self._poses(count, draw)
        return simulate_pictures(self.particle, rotations, self.picture, self.simulation, generator=draw)

    def _poses(self, count: int, draw: torch.Generator) -> Tensor:
        if self.simulation.views == "preferred":
            center = preferred_pose(self.seed)
            vectors = torch.randn(count, 3, generator=draw, dtype=torch.float64)
            return center @ exponential(self.simulation.preferred_sigma_rad * vectors)
        if self.simulation.views == "histogram" and self.histogram is not None:
            return poses_from_histogram(self.histogram, count, generator=draw)
        return random_rotations(count, generator=draw)


def preferred_pose(seed: int) -> Float[Tensor, "3 3"]:
    """The pose that preferred views lie about."""
    return random_rotations(1, generator=generator_for(seed, "preferred pose"))[0]


def poses_from_histogram(
    share: Float[Tensor, "row column"], count: int, *, generator: torch.Generator
) -> Float[Tensor, "count 3 3"]:
    """Views from bins of equal area (cos(tilt) from -1 by row, rot from -180 degrees by column), uniform in-plane."""
    rows, columns = share.shape
    bins = torch.multinomial(share.flatten(), count, replacement=True, generator=generator)
    jitter = torch.rand(3, count, generator=generator, dtype=torch.float64)
    cosine = ((bins // columns) + jitter[0]) / rows * 2.0 - 1.0
    rot = ((bins % columns) + jitter[1]) / columns * 2.0 * math.pi - math.pi

    return matrix_from_relion(torch.rad2deg(rot), torch.rad2deg(cosine.arccos()), 360.0 * jitter[2])


def simulate_pictures(
    particle: PointParticle,
    rotations: Float[Tensor, "picture 3 3"],
    picture: PictureConfig,
    simulation: SimulationConfig,
    *,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Pictures as the network sees them: projected, displaced, through the imaging, noised, phases flipped.

    Signal-to-noise is var(signal) / var(noise) over the whole picture, after the transfer. Returns ``picture``
    (picture, channel, y, x), ``rotation`` float32 and ``shift_px``.
    """
    count, pixel = len(rotations), picture.pixel_size_angstrom
    shifts = (torch.rand(count, 2, generator=generator) * 2.0 - 1.0) * (simulation.shift_angstrom / pixel)
    margin = 0 if simulation.defocus_angstrom is None else picture.side // 2  # the transfer spreads a particle widely
    side = picture.side + 2 * margin
    images = project_points(particle, rotations, side=side, pixel_size_angstrom=pixel, shifts_px=shifts)
    transfer = None
    if simulation.defocus_angstrom is not None:
        transfer = transfer_of(draw_imaging(simulation, count, generator=generator), side, pixel).float()
        images = apply_transfer(images, transfer)
    if simulation.snr is not None:
        low, high = (math.log(bound) for bound in simulation.snr)
        level = torch.exp(low + (high - low) * torch.rand(count, generator=generator))
        inner = images[:, margin : side - margin, margin : side - margin]
        sigma = (inner.flatten(1).var(1) / level).sqrt()
        images = images + sigma[:, None, None] * torch.randn(images.shape, generator=generator)
    if transfer is not None and picture.transfer == "flip":
        images = apply_transfer(images, phase_flip(transfer))
    images = images[:, margin : side - margin, margin : side - margin]
    beside = (
        None if transfer is None else spread_image(transfer, side)[:, margin : side - margin, margin : side - margin]
    )
    return {
        "picture": as_channels(images, beside, picture),
        "rotation": rotations.float(),
        "shift_px": shifts.float(),
    }


def draw_imaging(simulation: SimulationConfig, count: int, *, generator: torch.Generator) -> Imaging:
    """Defocus in the range asked for, astigmatism up to 500 Å in any direction."""

    def drawn() -> Tensor:
        return torch.rand(count, generator=generator, dtype=torch.float64)

    assert simulation.defocus_angstrom is not None
    low, high = simulation.defocus_angstrom
    defocus, astigmatism = low + (high - low) * drawn(), 500.0 * drawn()
    return Imaging(
        defocus_u_angstrom=defocus + astigmatism / 2,
        defocus_v_angstrom=defocus - astigmatism / 2,
        defocus_angle_deg=180.0 * drawn(),
        phase_shift_deg=torch.zeros_like(defocus),
        voltage_kv=torch.full_like(defocus, simulation.voltage_kv),
        cs_mm=torch.full_like(defocus, simulation.cs_mm),
        amplitude_contrast=torch.full_like(defocus, simulation.amplitude_contrast),
    )


def as_channels(
    images: Float[Tensor, "picture y x"], spread: Tensor | None, picture: PictureConfig
) -> Float[Tensor, "picture channel y x"]:
    """The network's channels: the standardised picture and, if it is told the transfer, that of a point beside it."""
    found = standardise(images)[:, None]
    if picture.transfer != "channel":
        return found
    beside = torch.zeros_like(found) if spread is None else standardise(spread)[:, None].to(found)
    return torch.cat([found, beside], dim=1)


class StackPictures:
    """Prepared pictures with known poses (:class:`equivox.run.sampling.Samples`), shuffled in training.

    Nothing is turned or mirrored to have more of them: the network answers those exactly alike.

    Parameters
    ----------
    pictures, rotations, shifts_px
        Of all particles.
    chosen
        Positions of those that take part.
    seed
        Of the order.
    training
        Whether to shuffle.
    """

    def __init__(
        self,
        pictures: Float[Tensor, "particle channel y x"],
        rotations: Float[Tensor, "particle 3 3"],
        shifts_px: Float[Tensor, "particle 2"],
        chosen: Sequence[int],
        *,
        seed: int,
        training: bool,
    ) -> None:
        self.pictures, self.rotations, self.shifts_px = pictures, rotations.float(), shifts_px.float()
        self.chosen, self.seed, self.training = list(chosen), seed, training
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return len(self.chosen)

    def sample(self, epoch: int, position: int) -> Sample:
        """Picture, rotation and shift of one particle."""
        index = self._places(epoch)[position]
        return {
            "picture": self.pictures[index], "rotation": self.rotations[index], "shift_px": self.shifts_px[index],
        }  # fmt: skip

    def _places(self, epoch: int) -> list[int]:
        if not self.training:
            return self.chosen
        if self._order[0] != epoch:
            draw = generator_for(self.seed, "order", epoch)
            mixed = torch.randperm(len(self.chosen), generator=draw).tolist()
            self._order = (epoch, [self.chosen[place] for place in mixed])
        return self._order[1]
