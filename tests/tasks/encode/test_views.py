"""Views are made from what is kept between them, and are what a fresh reading would give."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from equivox.geometry.rotations import random_rotations
from equivox.tasks.encode.data import BrainSource, open_brain
from equivox.tasks.encode.photometric import Degradation, DegradationRange
from equivox.tasks.encode.straight_grid import StraightGrid
from equivox.tasks.encode.train_samples import ScanSet, ScanStore
from equivox.tasks.encode.views import ScanViews

SIDE, VOXEL_MM = 24, 8.8


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_axis_by_axis_is_what_scipy_gives(order: tuple[int, ...], generator: torch.Generator) -> None:
    coefficients = torch.randn(7, 9, 8, dtype=torch.float64, generator=generator).numpy()
    places = [torch.linspace(-1.0, 7.0, 11), torch.linspace(0.0, 8.0, 9), torch.linspace(7.4, -0.3, 6)]
    places = [one.double() for one in places]
    shape = [len(places[order.index(axis)]) for axis in range(3)]
    indices = np.indices(shape)
    where = [one.numpy()[indices[column]] for one, column in zip(places, order, strict=True)]
    expected = ndimage.map_coordinates(coefficients, where, order=3, mode="constant", prefilter=False)
    found = StraightGrid(tuple(places), order).values(coefficients)
    assert np.abs(found.numpy() - expected).max() < 1e-12
    assert found[:, :, 0].abs().max() > 0 or found.abs().max() > 0


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_an_upright_brain_is_the_brain_turned_by_nothing(
    flip: tuple[int, int, int],
    brain_values: Callable[..., np.ndarray],
    save: Callable[..., Path],
    tmp_path: Path,
) -> None:
    values = brain_values((30, 26, 22), 6.0, 1).transpose(1, 2, 0)
    affine = np.zeros((4, 4))
    for column, row in enumerate((1, 2, 0)):
        affine[row, column] = 6.0 * flip[column]
    affine[:3, 3], affine[3, 3] = (-20.0, 11.0, 7.0), 1.0
    source = open_brain(save(tmp_path / "turned.nii.gz", values, affine), voxel_size_mm=VOXEL_MM)
    fast, slow = source.sample(side=SIDE), source.sample(side=SIDE, turn=torch.eye(3))
    torch.testing.assert_close(fast.volume, slow.volume, atol=2e-6, rtol=0)
    torch.testing.assert_close(fast.mask, slow.mask, atol=2e-6, rtol=0)
    assert float(fast.mask.max()) == 1.0


def test_an_oblique_scan_is_sampled_point_by_point(
    brain_values: Callable[..., np.ndarray], save: Callable[..., Path], tmp_path: Path, generator: torch.Generator
) -> None:
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, :3] = random_rotations(1, generator=generator)[0].numpy() @ affine[:3, :3]
    source = open_brain(save(tmp_path / "oblique.nii.gz", brain_values((30, 26, 22), 6.0, 1), affine))
    assert source.frame.along_axes(torch.arange(3.0).double(), source.centroid_mm) is None
    plain, turned = source.sample(side=16), source.sample(side=16, turn=torch.eye(3))
    assert torch.equal(plain.volume, turned.volume)


def test_views_do_not_hear_of_views_before(brain_file: Path, generator: torch.Generator) -> None:
    turn = random_rotations(1, generator=generator)[0]
    change = DegradationRange().draw(generator=generator)
    kept = ScanViews.open(brain_file, voxel_size_mm=VOXEL_MM)
    upright = kept.view(side=SIDE)
    assert kept.view(side=SIDE) is upright
    seeded = [torch.Generator().manual_seed(3) for _ in range(2)]
    after = kept.view(side=SIDE, turn=turn, degradation=change, generator=seeded[0])
    fresh = ScanViews.open(brain_file, voxel_size_mm=VOXEL_MM)
    before = fresh.view(side=SIDE, turn=turn, degradation=change, generator=seeded[1])
    assert torch.equal(after.volume, before.volume)
    assert torch.equal(after.mask, before.mask)
    assert torch.equal(fresh.view(side=SIDE).volume, upright.volume)
    moved = Degradation(centroid_mm=(3.0, 0.0, -2.0))
    assert not moved.touches_intensities
    assert not torch.equal(kept.view(side=SIDE, degradation=moved).volume, upright.volume)
    assert kept.view(side=SIDE) is upright
    alone = BrainSource(kept.volume, kept.brain, voxel_size_mm=VOXEL_MM).sample(side=SIDE, turn=turn)
    assert torch.equal(kept.view(side=SIDE, turn=turn).volume, alone.volume)


def test_a_store_keeps_what_fits(
    brain_values: Callable[..., np.ndarray], save: Callable[..., Path], tmp_path: Path
) -> None:
    from equivox.formats.subjects import Subject

    paths = [
        save(tmp_path / f"b{n}.nii.gz", brain_values((22, 26, 22), 8.0, n), np.diag([8.0, 8.0, 8.0, 1.0]))
        for n in range(4)
    ]
    scans = ScanSet(tuple(Subject(id=path.name, path=path) for path in paths))
    opened = ScanStore(scans, VOXEL_MM)[0]
    bare = opened.nbytes
    opened.view(side=SIDE)
    assert opened.nbytes >= bare + 8 * SIDE**3
    store = ScanStore(scans, VOXEL_MM, kept_bytes=int(2.5 * bare))
    first = store[0]
    store[1]
    assert store[0] is first
    store[2]  # scan 1 waited longest
    assert store[0] is first
    assert list(store._opened) == [2, 0]
    small = ScanStore(scans, VOXEL_MM, kept_bytes=1)
    assert small[3] is small[3]
