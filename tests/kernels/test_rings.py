"""Ring-shaped windows, held to the published ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from equivox.errors import ConfigError
from equivox.kernels.radial import RadialFamily
from equivox.kernels.rings import RingCutoff, RingShells


@pytest.mark.parametrize("size", [3, 5, 7])
def test_rings_agree_with_the_reference(size: int, fixture_path: Callable[[str], Path]) -> None:
    with np.load(fixture_path("steerable/radial.npz")) as stored:
        found = RingShells.for_kernel(size).values(torch.from_numpy(stored["r"]))
        assert np.abs(found.numpy().T - stored[f"escnn_rings_size{size}"]).max() < 1e-12


def test_band_limits_are_the_published_ones() -> None:
    assert [RingShells.for_kernel(size).band_limits for size in (3, 5, 7)] == [(0, 2), (0, 2, 2), (0, 2, 3, 2)]
    assert isinstance(RingShells.for_kernel(5), RadialFamily)


def test_the_other_cut_offs_are_the_published_ones() -> None:
    limits = {cutoff: RingShells.for_kernel(7, cutoff=cutoff).band_limits for cutoff in get_args(RingCutoff)}
    assert limits == {"default1": (0, 2, 3, 2), "default2": (0, 2, 3, 1), "default3": (0, 2, 2, 1)}
    assert RingShells.for_kernel(7, cutoff=1.5).band_limits == (0, 1, 3, 4)
    with pytest.raises(ConfigError, match="0 or more"):
        RingShells.for_kernel(5, cutoff=-1.0)


def test_rings_scale_with_the_voxel() -> None:
    distance = torch.tensor([0.0, 1.0, 2.2], dtype=torch.float64)
    double = RingShells.for_kernel(5, voxel_size_mm=2.0).values(2 * distance)
    torch.testing.assert_close(double, RingShells.for_kernel(5).values(distance))


def test_impossible_rings_are_refused() -> None:
    with pytest.raises(ConfigError, match="odd kernel sizes from 3"):
        RingShells.for_kernel(4)
    with pytest.raises(ConfigError, match="band limit each"):
        RingShells((0.0, 1.0), (0.5,), (0, 2))
