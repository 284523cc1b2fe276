"""Weights and input by formula, as the fixtures' README gives them for file 22."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor


def _weights(number: int, shape: Sequence[int]) -> Tensor:
    index = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    z = torch.sin(12.9898 * index + 78.233 * (number + 1)) * 43758.5453
    return ((2 * (z - z.floor()) - 1) * math.sqrt(3)).reshape(list(shape))


def _input(side: int) -> Tensor:
    i, j, k = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 3, indexing="ij")
    c, s = (side - 1) / 2, side
    r2 = ((i - c) / (0.30 * s)) ** 2 + ((j - c - 1) / (0.36 * s)) ** 2 + ((k - c + 0.5) / (0.26 * s)) ** 2
    spot = ((i - 0.6 * s) ** 2 + (j - 0.7 * s) ** 2 + (k - 0.35 * s) ** 2) / (2 * (0.06 * s) ** 2)
    f = torch.exp(-r2) + 0.3 * torch.exp(-spot) + 0.05 * torch.sin(0.7 * i + 0.3 * j) * torch.cos(0.5 * k)
    return ((f - f.min()) / (f.max() - f.min())).float()[None, None]


@pytest.fixture(scope="session")
def formula_weights() -> Callable[[int, Sequence[int]], Tensor]:
    """``h`` of parameter ``number``, float64, of unit variance."""
    return _weights


@pytest.fixture(scope="session")
def formula_input() -> Callable[[int], Tensor]:
    """The blob of a side in voxels, (1, 1, side, side, side) in [0, 1]."""
    return _input
