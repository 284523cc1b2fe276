"""Data of a training, addressed by epoch and position, so that any process can make any sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

Sample = Mapping[str, Tensor]
"""What one item of data is: tensors by name, without a batch axis."""
Group = dict[str, Tensor]
"""Samples of equal shapes, stacked along a first axis."""


@runtime_checkable
class Samples(Protocol):
    """Data that can be drawn in any order: the same epoch and position always give the same sample."""

    def __len__(self) -> int:
        """Samples per epoch."""
        ...

    def sample(self, epoch: int, position: int) -> Sample:
        """The sample at ``position`` (0 .. len - 1) of an epoch."""
        ...


class Drawn(Dataset[Sample]):
    """Samples addressed by (epoch, position), so that any process can make any of them."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: tuple[int, int]) -> Sample:
        return self.samples.sample(*place)


class Places(Sampler[tuple[int, int]]):
    """(epoch, 0), (epoch, 1), ...: Lightning calls ``set_epoch`` before each epoch; validation stays at epoch 0."""

    def __init__(self, count: int, *, follows: bool) -> None:
        self.count, self.follows, self.epoch = count, follows, 0

    def set_epoch(self, epoch: int) -> None:
        """Move on."""
        self.epoch = epoch if self.follows else 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, position) for position in range(self.count)])


def group_samples(samples: list[Sample]) -> list[Group]:
    """Stack samples of equal shapes; a batch of crops that differ in size becomes several groups, in order."""
    groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[Sample]] = {}
    for sample in samples:
        shape = tuple((name, tuple(tensor.shape)) for name, tensor in sorted(sample.items()))
        groups.setdefault(shape, []).append(sample)
    return [{name: torch.stack([item[name] for item in group]) for name in group[0]} for group in groups.values()]
