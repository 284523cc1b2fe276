"""Shares of a brain by brightness and depth: what they count, and that the lie of the axes does not matter."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from equivox.tasks.encode.tissue_depth import DEPTHS, TONES, tissue_depths


def egg(steps_mm: tuple[float, float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """A lopsided egg, 0.3 in its core and 1.2 in its shell, and which voxels it has."""
    axes = [torch.arange(-60.0, 60.0, step) + step / 2 for step in steps_mm]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    size = (x / 50) ** 2 + (y / (55 + 0.1 * x)) ** 2 + (z / 45) ** 2
    return torch.where(size < 0.2, 0.3, 1.2), size < 1.0


def shares_of(tone: torch.Tensor, inside: torch.Tensor, steps_mm: tuple[float, ...]) -> torch.Tensor:
    return tissue_depths(tone[inside], inside, steps_mm, brightest=1.5).view(TONES, DEPTHS)


def test_a_dark_core_is_counted_as_deep_and_a_bright_shell_as_shallow() -> None:
    tone, inside = egg((2.0, 2.0, 2.0))
    shares = shares_of(tone, inside, (2.0, 2.0, 2.0))
    assert_close(shares.sum(), torch.tensor(1.0, dtype=torch.float64))
    brightness = torch.linspace(0, 1.5, TONES, dtype=torch.float64)
    depth = torch.linspace(0.3, 1.0, DEPTHS, dtype=torch.float64)
    dark = shares[brightness < 0.75]
    assert float(dark.sum()) == pytest.approx(float((tone[inside] < 1).double().mean()), abs=1e-6)
    assert float((dark.sum(0) @ depth) / dark.sum()) > 0.9
    assert float((shares[brightness > 0.75].sum(0) @ depth) / shares[brightness > 0.75].sum()) < 0.75
    assert_close(brightness @ shares.sum(1), tone[inside].double().mean(), rtol=1e-6, atol=0)


def test_the_order_and_direction_of_axes_do_not_matter_and_voxel_sizes_hardly() -> None:
    steps = (2.0, 2.5, 3.0)
    tone, inside = egg(steps)
    shares = shares_of(tone, inside, steps)
    turned = [one.permute(2, 0, 1).flip(0, 2).contiguous() for one in (tone, inside)]
    assert_close(shares_of(turned[0], turned[1], (3.0, 2.0, 2.5)), shares, atol=1e-6, rtol=0)
    finer = shares_of(*egg((1.5, 1.5, 1.5)), (1.5, 1.5, 1.5))
    assert float((finer - shares).abs().sum()) < 0.04
    assert float((shares_of(turned[0], turned[1], steps) - shares).abs().sum()) > 0.04  # sizes on the wrong axes
