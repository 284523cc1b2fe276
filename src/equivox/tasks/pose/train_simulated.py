"""Stacks simulated while training: new ones in every epoch, the same ones whenever a seed is used again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.formats.fetal_templates import read_templates
from equivox.geometry.space import Volume
from equivox.run.sampling import Samples
from equivox.run.seeds import generator_for, seed_for
from equivox.simulate.stack import SimulatedStack, simulate_stacks
from equivox.simulate.stack_config import StackSimulation
from equivox.simulate.templates import HeadTemplates, prepare_templates
from equivox.tasks.pose.augment_intensity import rescale
from equivox.tasks.pose.augment_monai import augment_rotate, augment_segment
from equivox.tasks.pose.loader import Labelled, epoch_order, on_working_grid, require_object
from equivox.tasks.pose.published_grid import centered_cube, crop_or_pad
from equivox.tasks.pose.train_config import RotateTraining, SegmentTraining

SMALLEST_OBJECT = 64
"""A stack whose brain has fewer voxels (cut away by the field of view) is drawn anew."""
VALIDATION_SHARE = 5
"""Without validation folders, one simulated stack for so many of training."""


@dataclass(frozen=True, kw_only=True)
class SimulatedData:
    """What is simulated while training."""

    count: int
    """Stacks per epoch."""
    templates: Path | None = None
    """Folder of templates; None: those of the package."""
    config: StackSimulation = field(default_factory=StackSimulation)
    """Ranges."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"--simulate is {self.count}; give the number of stacks per epoch, 1 or more.")

    @property
    def validation_count(self) -> int:
        """Stacks that stand in for missing validation folders."""
        return max(self.count // VALIDATION_SHARE, 2)

    def described(self) -> list[str]:
        """For the record of a run, and to refuse to go on with other data."""
        place = "package" if self.templates is None else str(self.templates)
        return [f"{self.count} per epoch", f"templates: {place}", f"ranges: {sorted(self.config.as_dict().items())}"]


@lru_cache(maxsize=1)
def open_templates(folder: Path | None) -> HeadTemplates:
    """Templates, once per process."""
    files = read_templates(folder)
    return prepare_templates(files.atlases, files.epi)


class SimulatedSamples:
    """Simulated stacks prepared as :class:`SegmentSamples` and :class:`RotateSamples` prepare files (recipe equivox).

    Parameters
    ----------
    data
        How many and from what.
    settings
        Decides which network they are for.
    training
        New stacks in every epoch, augmented; or fixed ones as they are.
    seed
        Of everything random.

    Raises
    ------
    ConfigError
        If the settings are of the published recipe.
    """

    def __init__(
        self, data: SimulatedData, settings: SegmentTraining | RotateTraining, *, training: bool, seed: int
    ) -> None:
        if settings.preset != "equivox":
            raise ConfigError(f"--simulate goes with --preset equivox, not {settings.preset}; leave one of them out.")
        self.data, self.settings, self.training, self.seed = data, settings, training, seed
        self.kept: dict[int, Mapping[str, Tensor]] = {}

    def __len__(self) -> int:
        return self.data.count if self.training else self.data.validation_count

    def sample(self, epoch: int, position: int) -> Mapping[str, Tensor]:
        """As the samples from files: ``image`` with ``labels`` or ``head_from_image``."""
        if not self.training:
            if position not in self.kept:
                self.kept[position] = self._prepared("simulate-validation", 0, position)
            return self.kept[position]
        return self._prepared("simulate", epoch, position)

    def _prepared(self, purpose: str, epoch: int, position: int) -> Mapping[str, Tensor]:
        stack = self._stack(purpose, epoch, position)
        labels = stack.labels.long()
        labelled = Labelled(stack.image, labels, stack.image.name)
        labelled = on_working_grid(labelled, self.settings.voxel_size_mm)
        generator = generator_for(self.seed, f"{purpose}-augment", epoch, position)
        if isinstance(self.settings, RotateTraining):
            return self._rotate(labelled, head_from_ras_of(stack), self.settings, generator=generator)
        return self._segment(labelled, self.settings, generator=generator)

    def _stack(self, purpose: str, epoch: int, position: int) -> SimulatedStack:
        """The stack of a place; the next draw where hardly any brain is in the field of view."""
        heads = open_templates(self.data.templates)
        attempt = 0
        while True:
            seed = seed_for(self.seed, purpose, epoch, position, attempt)
            (stack,) = simulate_stacks([seed], templates=heads, config=self.data.config)
            if int((stack.labels == 1).sum()) >= SMALLEST_OBJECT:
                return stack
            attempt += 1

    def _rotate(
        self,
        labelled: Labelled,
        rotation: Float[Tensor, "3 3"],
        settings: RotateTraining,
        *,
        generator: torch.Generator,
    ) -> Mapping[str, Tensor]:
        mask = require_object(labelled.labels, labelled.label_name)
        image = labelled.image.data
        if self.training:
            image, rotation = augment_rotate(image, mask, rotation, settings, generator=generator)
        else:
            imaged = mask.new_ones(mask.shape)
            image = centered_cube(image[0], mask, imaged, size=settings.image_size_voxels)[None]
        return {"image": image.contiguous(), "head_from_image": rotation.float()}

    def _segment(
        self, labelled: Labelled, settings: SegmentTraining, *, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        labels = labelled.labels.clamp_max(settings.n_output_channels - 1).short()
        if self.training:
            image, labels = augment_segment(labelled.image.data, labels, settings, generator=generator)
            return {"image": image.contiguous(), "labels": labels.contiguous()}
        shape, place = [settings.crop_size_voxels] * 3, labelled.image.affine
        image = crop_or_pad(labelled.image, shape).data
        labels = crop_or_pad(Volume(labels[None].float(), place), shape).data[0].short()
        return {"image": rescale(image), "labels": labels}


class MixedSamples:
    """Files and simulated stacks in one random order per epoch."""

    def __init__(self, first: Samples, second: Samples, *, seed: int) -> None:
        self.parts, self.seed = (first, second), seed

    def __len__(self) -> int:
        return len(self.parts[0]) + len(self.parts[1])

    def sample(self, epoch: int, position: int) -> Mapping[str, Tensor]:
        """Of one part or the other."""
        place = epoch_order(self.seed, epoch, len(self))[position]
        before = len(self.parts[0])
        return self.parts[0].sample(epoch, place) if place < before else self.parts[1].sample(epoch, place - before)


def head_from_ras_of(stack: SimulatedStack) -> Float[Tensor, "3 3"]:
    """Rotation from the axes of the stack reoriented to RAS to the head's axes."""
    return stack.world_from_head.mT.double() @ stack.image.reorient("RAS").direction
