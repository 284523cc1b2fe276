"""Radial families against published numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from equivox.errors import ConfigError
from equivox.kernels.basis3d import TapGrid
from equivox.kernels.one_hot import OneHotKind, SoftOneHot
from equivox.kernels.radial import GaussianShells, SmoothFinite


def test_smooth_finite_bumps_are_the_published_numbers(fixture_path: Callable[[str], Path]) -> None:
    data = np.load(fixture_path("e3pose/01_radial.npz"))
    distance = torch.from_numpy(data["x"]).double()
    names = [name for name in data.files if name != "x"]
    assert len(names) == 8
    for name in names:
        match = re.fullmatch(r"smooth_finite__start(.+)_end(.+)_n(\d+)_cutoff(\w+)", name)
        assert match is not None
        cutoff = {"False": False, "True": True}.get(match[4], match[4])
        family = SmoothFinite(int(match[3]), float(match[1]), float(match[2]), cutoff)  # type: ignore[arg-type]
        np.testing.assert_allclose(family.values(distance).T.numpy(), data[name], atol=1e-6, rtol=0, err_msg=name)


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("cutoff", [False, True])
def test_smooth_finite_bumps_agree_in_double_precision(
    count: int, cutoff: bool, fixture_path: Callable[[str], Path]
) -> None:
    data = np.load(fixture_path("steerable/radial.npz"))
    own = SmoothFinite(count, 0.0, 2.5, cutoff).values(torch.from_numpy(data["r"])).T.numpy()
    np.testing.assert_allclose(own, data[f"e3nn_smooth_finite_cut{int(cutoff)}_n{count}_end2.5"], atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", get_args(OneHotKind))
def test_soft_one_hot_functions_are_the_published_numbers(
    kind: OneHotKind, fixture_path: Callable[[str], Path]
) -> None:
    data = np.load(fixture_path("steerable/radial.npz"))
    distance = torch.from_numpy(data["r_bessel" if kind == "bessel" else "r"])
    for count in (3, 5):
        for cutoff in (False, True):
            own = SoftOneHot(kind, count, 0.0, 2.5, cutoff).values(distance).T.numpy()
            stored = data[f"e3nn_{kind}_cut{int(cutoff)}_n{count}_end2.5"]
            np.testing.assert_allclose(own, stored, atol=1e-12, rtol=0)


@pytest.mark.parametrize("count", [3, 5])
def test_bessel_functions_have_their_limit_at_zero(count: int, fixture_path: Callable[[str], Path]) -> None:
    data = np.load(fixture_path("steerable/radial.npz"))
    own = SoftOneHot("bessel", count, 0.0, 2.5, cutoff=False).values(torch.from_numpy(data["r"])).T.numpy()
    np.testing.assert_allclose(own, data[f"e3nn_bessel_module_n{count}_c2.5"], atol=1e-12, rtol=0)
    assert data["r"][0] == 0
    cut = SoftOneHot("bessel", count).values(torch.tensor([0.0, 2.5, 3.0], dtype=torch.float64))
    np.testing.assert_allclose(cut[:, 0].numpy(), (2 / 2.5) ** 0.5 * np.pi * np.arange(1, count + 1) / 2.5)
    assert not cut[:, 1:].any()


@pytest.mark.parametrize("size", [3, 5, 7])
def test_gaussian_shells_are_the_published_numbers(size: int, fixture_path: Callable[[str], Path]) -> None:
    data = np.load(fixture_path("steerable/radial.npz"))
    own = GaussianShells.for_kernel(size, ball=False).values(torch.from_numpy(data["r"])).T.numpy()
    np.testing.assert_allclose(own, data[f"se3cnn_gauss_size{size}"], atol=1e-12, rtol=0)


@pytest.mark.parametrize(("size", "taps"), [(3, 27), (5, 81), (7, 251)])
def test_the_default_ball_keeps_the_taps_that_it_names(size: int, taps: int) -> None:
    distance = TapGrid.for_size(size).positions_mm().norm(dim=-1)
    assert int((GaussianShells.for_kernel(size).values(distance) != 0).any(0).sum()) == taps


def test_shells_scale_with_the_voxel() -> None:
    near, far = GaussianShells.for_kernel(5), GaussianShells.for_kernel(5, voxel_size_mm=3.0)
    distance = torch.linspace(0, 2.4, 9, dtype=torch.float64)
    torch.testing.assert_close(near.values(distance), 3.0 * far.values(3.0 * distance))
    assert near.band_limits == (0, 3, 5)


def test_impossible_families_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        SmoothFinite(1)
    with pytest.raises(ConfigError, match="0 bessel functions"):
        SoftOneHot("bessel", 0)
    with pytest.raises(ConfigError, match="at least 2 of kind"):
        SoftOneHot("cosine", 1, cutoff=False)
    with pytest.raises(ConfigError, match="one band limit per radius"):
        GaussianShells(radii=(0.0, 1.0), band_limits=(0,))
