"""Pictures in the order of training: addressed by epoch and position (`run/sampling.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equivox.run.sampling import Sample
from equivox.run.seeds import draw_chance, draw_uniform, generator_for
from equivox.tasks.images.config import ImageTraining
from equivox.tasks.images.data import turn_field
from equivox.tasks.images.sources import ImageSource


class ImageSamples:
    """The pictures of one part (:class:`equivox.run.sampling.Samples`).

    Parameters
    ----------
    source
        All pictures.
    chosen
        Positions of those that take part.
    settings
        Augmentation.
    training
        Shuffled and augmented; validation is in order, as it is.
    seed
        Of order and augmentation.
    """

    def __init__(
        self, source: ImageSource, chosen: Sequence[int], settings: ImageTraining, *, training: bool, seed: int
    ) -> None:
        self.source, self.chosen, self.settings = source, list(chosen), settings
        self.training, self.seed = training, seed
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return len(self.chosen)

    def sample(self, epoch: int, position: int) -> Sample:
        """Pixels of one picture, and its label."""
        index = self.order(epoch)[position]
        square = self.source.squares[index]
        if self.training and self.settings.augment != "none":
            square = self._augmented(square, epoch, index)
        return {"picture": square, "label": torch.tensor(self.source.entries[index].label)}

    def order(self, epoch: int) -> list[int]:
        """Positions in the source, as an epoch goes through them."""
        if not self.training:
            return self.chosen
        if self._order[0] != epoch:
            draw = generator_for(self.seed, "order", epoch)
            self._order = (epoch, [self.chosen[at] for at in torch.randperm(len(self.chosen), generator=draw).tolist()])
        return self._order[1]

    def _augmented(self, square: Tensor, epoch: int, index: int) -> Tensor:
        """The picture as this access shows it."""
        draw = generator_for(self.seed, "augment", epoch, index)
        if draw_chance(0.5, generator=draw):
            square = square.flip(-1)
        if self.settings.augment == "square":
            return square.rot90(int(torch.randint(4, (), generator=draw)), (1, 2)).contiguous()
        if self.settings.augment == "turn":
            turned = turn_field(square[None].float(), draw_uniform(0.0, 360.0, generator=draw))[0]
            return turned.round().clamp(0, 255).to(torch.uint8)
        return square.contiguous()
