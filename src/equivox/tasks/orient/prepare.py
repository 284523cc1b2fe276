"""From a stack's images to the pictures of a network, with what had to be assumed said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from equivox.errors import InputError
from equivox.simulate.ctf import apply_transfer, phase_flip
from equivox.tasks.orient.config import PictureConfig
from equivox.tasks.orient.picture import (
    Contrast,
    Sampling,
    background_mask,
    centre_contrast,
    normalise_background,
    resample_pictures,
)
from equivox.tasks.orient.samples import as_channels
from equivox.tasks.orient.stacks import ParticleStack
from equivox.tasks.orient.transfer import Imaging, imaging_of, spread_image, transfer_of

JUDGED_ON = 200
"""Particles that decide the sign of the contrast."""
CERTAIN = 3.0
"""Standard errors of a fair coin that a verdict needs."""


@dataclass(frozen=True, slots=True, eq=False)
class Preparation:
    """How the images of one stack become pictures.

    Parameters
    ----------
    stack, picture
        From what, to what.
    sign
        -1 if particles are dark.
    imaging
        None if the transfer is left alone.
    notes
        Conventions that were found.
    """

    stack: ParticleStack
    picture: PictureConfig
    sign: int
    imaging: Imaging | None
    notes: tuple[str, ...]

    def pictures(self, chosen: Sequence[int]) -> tuple[Float[Tensor, "picture channel y x"], Bool[Tensor, "picture"]]:
        """Pictures of some particles, and which of their images can be used: finite, and not all of one value."""
        images = self.stack.images(chosen)
        whole = images.isfinite().all(dim=2).all(dim=1)
        images = torch.where(whole[:, None, None], images, torch.zeros_like(images))
        usable = whole & (images.flatten(1).amax(1) > images.flatten(1).amin(1))
        images = normalise_background(images) * self.sign
        box, pixel = self.stack.box_px, self.stack.pixel_size_angstrom
        sampling = Sampling(box, pixel, self.picture.side, self.picture.pixel_size_angstrom)
        spread = None
        if self.imaging is not None and self.picture.transfer != "none":
            transfer = transfer_of(self.imaging.select(torch.as_tensor(list(chosen))), box, pixel)
            if self.picture.transfer == "flip":
                images = apply_transfer(images, phase_flip(transfer.float()))
            else:
                spread = resample_pictures(spread_image(transfer, box).float(), sampling)
        return as_channels(resample_pictures(images, sampling), spread, self.picture), usable


def prepare_stack(
    stack: ParticleStack, picture: PictureConfig, *, contrast: Contrast | Literal["auto"] = "auto"
) -> Preparation:
    """Find the sign of the contrast and the transfer, and say what was found.

    Parameters
    ----------
    contrast
        ``light``: particles are light on dark (inverted at extraction); ``dark``: not inverted; ``auto``: looked up in
        200 of them.

    Raises
    ------
    InputError
        If the table's optics are incomplete, or no image of those looked at can be used.
    """
    notes: list[str] = []
    imaging = None if picture.transfer == "none" else imaging_of(stack.particles)
    if imaging is None and picture.transfer != "none":
        notes.append(f"{stack.particles.path} gives no defocus; the images are taken as they are.")
    step = max(1, len(stack) // JUDGED_ON)
    looked = list(range(0, len(stack), step))[:JUDGED_ON]
    images = stack.images(looked)
    images = images[images.isfinite().all(dim=2).all(dim=1)]
    images = images[images.flatten(1).amax(1) > images.flatten(1).amin(1)] if len(images) else images
    if not len(images):
        raise InputError(f"{stack.particles.path}: none of {len(looked)} images looked at can be used (NaN or blank).")
    notes += _normalisation_note(stack, images)
    if imaging is not None and len(images) == len(looked):
        transfer = transfer_of(imaging.select(torch.tensor(looked)), stack.box_px, stack.pixel_size_angstrom)
        images = apply_transfer(images, phase_flip(transfer.float()))
    sign, said = _find_sign(stack, images, contrast)
    return Preparation(stack, picture, sign, imaging, (*notes, *said))


def _find_sign(stack: ParticleStack, images: Tensor, contrast: str) -> tuple[int, list[str]]:
    """+1 for light particles, -1 for dark ones: by how many of them the middle is lighter than the background."""
    lighter = float((centre_contrast(images) > 0).double().mean())
    level = (lighter - 0.5) * 2.0 * len(images) ** 0.5
    seen = "light" if level > CERTAIN else "dark" if level < -CERTAIN else ""
    if contrast == "auto":
        if seen == "dark":
            return -1, ["Particles are dark on light, so the images are inverted (--contrast says otherwise)."]
        if not seen:
            return 1, [
                f"Whether particles are light or dark cannot be told (the middle is lighter in {lighter:.0%} of them); "
                "they are taken as light: give --contrast if they are not."
            ]
        return 1, []
    if seen and seen != contrast:
        return (1 if contrast == "light" else -1), [
            f"Particles look {seen}, but --contrast says {contrast}: where confidence is low, try the other."
        ]
    return (1 if contrast == "light" else -1), []


def _normalisation_note(stack: ParticleStack, images: Tensor) -> list[str]:
    """Whether the background has mean 0 and deviation 1, as RELION's extraction makes it; done here in any case."""
    outside = images[:, background_mask(stack.box_px)]
    mean, spread = float(outside.mean(1).abs().median()), float(outside.std(1).median())
    if mean < 0.1 and 0.8 < spread < 1.25:
        return []
    return [
        f"Images are not normalised to their background (mean {mean:.3g}, deviation {spread:.3g}); this is done here."
    ]
