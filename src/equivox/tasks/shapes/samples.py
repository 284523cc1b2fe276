"""Objects in the order and orientation of training: addressed by epoch and position (`run/sampling.py`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotations import cube_group, random_rotations, rotation_about
from equivox.run.sampling import Sample
from equivox.run.seeds import draw_uniform, generator_for
from equivox.tasks.shapes.config import ShapeTraining
from equivox.tasks.shapes.data import ShapeSource, as_sample


class ShapeSamples:
    """The objects of one split (:class:`equivox.run.sampling.Samples`).

    Parameters
    ----------
    source
        All objects.
    chosen
        Positions of those that take part.
    settings
        Order, orientation, portions.
    training
        Shuffled, and turned as the recipe says. Validation is in order; each object has one turn of the same kind.
    seed
        Of order and orientation.
    """

    def __init__(
        self, source: ShapeSource, chosen: Sequence[int], settings: ShapeTraining, *, training: bool, seed: int
    ) -> None:
        self.source, self.chosen, self.settings = source, list(chosen), settings
        self.training, self.seed = training, seed
        self._by_class: dict[int, list[int]] = defaultdict(list)
        for index in self.chosen:
            self._by_class[source.shapes[index].label].append(index)
        self._order: tuple[int, list[int]] = (-1, [])
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        count = len(self.chosen)
        if self.training and self.settings.balanced:
            count = len(self._by_class) * min(map(len, self._by_class.values()), default=0)
        if self.training and self.settings.drop_last and count >= self.settings.batch_size:
            count -= count % self.settings.batch_size
        return count

    def sample(self, epoch: int, position: int) -> Sample:
        """Volume or points of one object, and its label."""
        index = self.order(epoch)[position]
        if index in self._kept:
            return self._kept[index]
        content = as_sample(
            self.source.content(index),
            self.settings.input,
            capacity=self.source.capacity,
            rotation=self._rotation(epoch, index),
        )
        found = {**content, "label": torch.tensor(self.source.shapes[index].label)}
        if "volume" in found and self.settings.orientation == "fixed":  # resampled once, not in every epoch
            self._kept[index] = found
        return found

    def order(self, epoch: int) -> list[int]:
        """Positions in the source, as an epoch goes through them."""
        if not self.training:
            return self.chosen
        if self._order[0] != epoch:
            draw = generator_for(self.seed, "order", epoch)
            if self.settings.balanced:
                smallest = min(map(len, self._by_class.values()))
                rows = [
                    [members[place] for place in torch.randperm(len(members), generator=draw).tolist()[:smallest]]
                    for _, members in sorted(self._by_class.items())
                ]
                mixed = [index for column in zip(*rows, strict=True) for index in column]
            else:
                mixed = [self.chosen[place] for place in torch.randperm(len(self.chosen), generator=draw).tolist()]
            self._order = (epoch, mixed)
        return self._order[1]

    def _rotation(self, epoch: int, index: int) -> Float[Tensor, "3 3"] | None:
        """How an object is turned at this access."""
        kind = self.settings.orientation
        if kind == "none":
            return None
        if kind == "fixed":  # of Tetris also in validation: there is nothing else to look at but what was trained on
            place = self.source.shapes[index].label if self.source.name == "tetris" else index
            draw = generator_for(self.seed, "orientation", place)
        elif self.training:
            draw = generator_for(self.seed, "turn", epoch, index)
        else:
            draw = generator_for(self.seed, "validation turn", index)
        if kind == "cube":
            group = cube_group()
            return group[int(torch.randint(len(group), (), generator=draw))]
        if kind == "upright":
            return rotation_about(self.settings.input.up, draw_uniform(0.0, 360.0, generator=draw))
        return random_rotations(1, generator=draw)[0]


def reduced(source: ShapeSource, chosen: Sequence[int], reduction: int, *, seed: int) -> list[int]:
    """One in ``reduction`` of the objects of every class, at least one, drawn by the seed; in their order."""
    if reduction == 1:
        return list(chosen)
    by_class: dict[int, list[int]] = defaultdict(list)
    for index in chosen:
        by_class[source.shapes[index].label].append(index)
    kept: list[int] = []
    for label, members in sorted(by_class.items()):
        order = torch.randperm(len(members), generator=generator_for(seed, "reduction", label)).tolist()
        kept += [members[place] for place in order[: max(1, round(len(members) / reduction))]]
    return sorted(kept)
