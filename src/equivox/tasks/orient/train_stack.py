"""Training from particles whose poses a refinement has found."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from equivox.errors import InputError
from equivox.run.sampling import Samples
from equivox.run.seeds import generator_for
from equivox.tasks.orient.config import OrientTraining
from equivox.tasks.orient.picture import Contrast
from equivox.tasks.orient.prepare import prepare_stack
from equivox.tasks.orient.samples import StackPictures
from equivox.tasks.orient.stacks import open_stack

VALIDATION_SHARE = 0.1
FEWEST = 20
"""Particles that a training needs."""
PORTION = 256


@dataclass(frozen=True, kw_only=True)
class StackChoice:
    """How a particle table is read."""

    project: str | None = None
    """Folder that image paths are relative to."""
    own_pixel_angstrom: float | None = None
    """Pixel size of the images, over what table and stack say."""
    contrast: Contrast | Literal["auto"] = "auto"
    """Whether particles are light or dark."""
    passthrough: tuple[str, ...] = ()
    """Of a ``.cs`` table."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return {**asdict(self), "passthrough": list(self.passthrough)}


def stack_samples(
    path: Path, choice: StackChoice, settings: OrientTraining, *, seed: int
) -> tuple[str, Samples, Samples, list[str]]:
    """Particles with poses, split by micrograph: nine parts to train, one to judge on.

    Raises
    ------
    InputError
        If the table has no poses, too few particles, or cannot be used.
    """
    stack = open_stack(
        path,
        project=None if choice.project is None else Path(choice.project),
        pixel_size_angstrom=choice.own_pixel_angstrom,
        passthrough=choice.passthrough,
    )
    rotations = stack.particles.require_rotations()
    if len(stack) < FEWEST:
        raise InputError(f"{path} has {len(stack)} particles; at least {FEWEST} with poses are needed to learn from.")
    preparation = prepare_stack(stack, settings.picture, contrast=choice.contrast)
    parts, good = [], []
    for start in range(0, len(stack), PORTION):
        pictures, usable = preparation.pictures(range(start, min(start + PORTION, len(stack))))
        parts.append(pictures)
        good.append(usable)
    usable = torch.cat(good)
    warnings = [*stack.warnings, *preparation.notes]
    if not bool(usable.all()):
        warnings.append(f"{int((~usable).sum())} particles with blank or broken images are left out.")
    origin = stack.particles.origin_angstrom
    shifts = torch.zeros(len(stack), 2, dtype=torch.float64) if origin is None else -torch.from_numpy(origin)
    shifts = shifts / settings.picture.pixel_size_angstrom
    training, validation = _split(stack.particles.micrograph, torch.nonzero(usable)[:, 0].tolist(), seed)
    whole = torch.cat(parts)
    samples = [
        StackPictures(whole, rotations, shifts, chosen, seed=seed, training=kind)
        for chosen, kind in ((training, True), (validation, False))
    ]
    return f"{path.name}, {len(stack)} particles", samples[0], samples[1], warnings


def _split(micrographs: tuple[str, ...] | None, usable: list[int], seed: int) -> tuple[list[int], list[int]]:
    """By micrograph where at least five are named, since particles of one share its noise; else by particle."""
    groups: dict[object, list[int]] = defaultdict(list)
    for index in usable:
        groups[index if micrographs is None else micrographs[index]].append(index)
    if len(groups) < 5:
        groups = {index: [index] for index in usable}
    names = list(groups)
    order = torch.randperm(len(names), generator=generator_for(seed, "split")).tolist()
    wanted = max(1, int(np.ceil(VALIDATION_SHARE * len(usable))))
    validation: list[int] = []
    for place in order:
        if len(validation) >= wanted:
            break
        validation += groups[names[place]]
    kept = set(validation)
    return [index for index in usable if index not in kept], sorted(validation)
