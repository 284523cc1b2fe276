"""Densities equal the published field, the boxes about residues, and lose no more than leaves the grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from equivox.errors import ConfigError, GeometryError
from equivox.geometry import density
from equivox.geometry.density import gaussian_density, grid_centres

Find = Callable[[str], Path]
seeds = st.integers(0, 2**31 - 1)


def single(positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    points = torch.as_tensor(positions, dtype=torch.float64)[None]
    return points, torch.zeros(points.shape[:2], dtype=torch.int64)


@pytest.mark.parametrize("normalization", ["atom", "published"])
def test_one_domain_has_the_published_field(fixture_path: Find, normalization: density.Normalization) -> None:
    stored = np.load(fixture_path("shapes/cath/voxel.npz"))
    points, channel = single(stored["positions"])
    field = gaussian_density(points, channel, channels=1, side=50, spacing=2.0, sigma=1.0, normalization=normalization)[
        0, 0
    ]
    assert float(field.sum()) == pytest.approx(float(stored["density_50_sum"]), abs=1e-9)
    assert float(field.max()) == pytest.approx(float(stored["density_50_max"]), abs=1e-9)
    x, y, z = torch.as_tensor(stored["sample_index"], dtype=torch.int64).unbind(dim=1)
    assert_close(field[x, y, z], torch.as_tensor(stored["sample_value"]), atol=1e-9, rtol=0)


def test_the_small_grid_of_the_same_domain_is_self_normalised(fixture_path: Find) -> None:
    stored = np.load(fixture_path("shapes/cath/voxel.npz"))
    points, channel = single(stored["positions"])
    field = gaussian_density(points, channel, channels=1, side=20, spacing=2.0, sigma=1.0, normalization="published")[
        0, 0
    ]
    assert_close(field.float(), torch.as_tensor(stored["density_20"]), atol=1e-6, rtol=0)


def test_the_field_of_the_original_code(fixture_path: Find) -> None:
    stored = np.load(fixture_path("steerable/cath_density.npz"))
    points, channel = single(stored["positions"])
    field = gaussian_density(points, channel, channels=1, side=16, spacing=2.0, sigma=1.0, normalization="published")[
        0, 0
    ]
    assert_close(field, torch.as_tensor(stored["field"]), atol=1e-10, rtol=0)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_boxes_about_residues(fixture_path: Find, k: int) -> None:
    stored = np.load(fixture_path("shapes/environment/boxes.npz"))
    residue, names = stored["residue_of_atom"], stored["atom_names"][stored["atom_name"]]
    keep = (residue != stored["residue_index"][k]) | np.isin(names, [b"N", b"CA", b"C", b"O"])
    local = (stored["xyz"][keep] - stored[f"origin_{k}"]) @ stored[f"frame_{k}"].T
    element = stored["atom_elements"][stored["atom_name"]][keep]
    channel = torch.as_tensor(np.searchsorted(np.array([b"C", b"N", b"O", b"S"]), element))[None]
    box = gaussian_density(
        torch.as_tensor(local)[None], channel, channels=4, side=20, spacing=1.0, sigma=0.6, normalization="analytic"
    )[0]
    # atoms farther than 12 Å along an axis are left out of the stored box: they may reach the border layer only
    assert_close(
        box[:, 1:-1, 1:-1, 1:-1].float(), torch.as_tensor(stored[f"box_{k}"])[:, 1:-1, 1:-1, 1:-1], atol=1e-5, rtol=0
    )
    assert_close(box.float(), torch.as_tensor(stored[f"box_{k}"]), atol=1e-4, rtol=0)


@given(seed=seeds, channels=st.integers(1, 3), side=st.integers(1, 9), points=st.integers(0, 6))
def test_separable_equals_the_formula_point_by_point(seed: int, channels: int, side: int, points: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    at = torch.randn(2, points, 3, generator=draw, dtype=torch.float64) * side
    channel = torch.randint(-1, channels, (2, points), generator=draw)
    centres = grid_centres(side, 1.5)
    grid = torch.stack(torch.meshgrid(centres, centres, centres, indexing="ij"), dim=-1)
    expected = torch.zeros(2, channels, side, side, side, dtype=torch.float64)
    for b in range(2):
        for n in range(points):
            if channel[b, n] >= 0:
                square = ((grid - at[b, n]) ** 2).sum(dim=-1)
                expected[b, channel[b, n]] += torch.exp(-square / (2 * 0.9**2)) / (2 * torch.pi * 0.9**2) ** 1.5
    field = gaussian_density(
        at, channel, channels=channels, side=side, spacing=1.5, sigma=0.9, normalization="analytic"
    )
    assert_close(field, expected, atol=1e-12, rtol=1e-10)


def test_what_lies_outside_fades_in_the_mended_form_and_stays_on_the_border_in_the_published() -> None:
    for dtype in (torch.float32, torch.float64):
        for distance in (0.0, 9.0, 10.5, 14.0, 50.0, 1e4, 1e18):
            at = torch.tensor([[[distance, 0.3, -0.2]]], dtype=dtype)
            kind = torch.zeros(1, 1, dtype=torch.int64)
            mended = gaussian_density(at, kind, channels=1, side=10, spacing=2.0, sigma=1.0)
            pressed = gaussian_density(at, kind, channels=1, side=10, spacing=2.0, sigma=1.0, normalization="published")
            assert torch.isfinite(mended).all()
            assert float(pressed.sum()) == pytest.approx(1.0, abs=1e-5)
            if distance == 0.0:
                assert_close(mended, pressed)
            if 14.0 <= distance < 1e7:  # beyond, rounding cannot tell the layers apart
                assert float(mended.sum()) < 1e-3
                assert float(pressed[..., -1, :, :].sum()) == pytest.approx(1.0, abs=1e-5)


@given(seed=seeds, spacing=st.floats(0.5, 4.0), width=st.floats(0.02, 2.0))
def test_a_point_inside_counts_one_for_any_width(seed: int, spacing: float, width: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    at = (torch.rand(1, 5, 3, generator=draw) - 0.5) * spacing * 4
    kind = torch.zeros(1, 5, dtype=torch.int64)
    field = gaussian_density(at, kind, channels=1, side=32, spacing=spacing, sigma=width * spacing)
    assert float(field.sum()) == pytest.approx(5.0, rel=1e-4)


def test_batch_elements_padding_and_parts_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(5)
    at = torch.randn(3, 40, 3, generator=draw)
    channel = torch.randint(0, 2, (3, 40), generator=draw)
    channel[1, 7:] = density.PADDING
    at[1, 7:] = torch.nan

    def field(points: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        return gaussian_density(points, kinds, channels=2, side=8, spacing=1.0, sigma=0.7)

    whole = field(at, channel)
    assert_close(whole[1:2], field(at[1:2, :7], channel[1:2, :7]))
    monkeypatch.setattr(density, "PRODUCT_ELEMENTS", 8 * 8 * 11)  # eleven points at a time, one row at a time
    assert_close(whole, field(at, channel))
    monkeypatch.setattr(density, "_one_by_one", density._all_at_once)  # what other devices do
    assert_close(whole, field(at, channel))
    monkeypatch.undo()
    monkeypatch.setattr(density, "_one_by_one", density._all_at_once)
    assert_close(whole, field(at, channel))


def test_autocast_does_not_round_the_field() -> None:
    at, kind = torch.full((1, 1, 3), 0.3), torch.zeros(1, 1, dtype=torch.int64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        field = gaussian_density(at, kind, channels=1, side=6, spacing=1.0, sigma=0.8)
    assert field.dtype == torch.float32
    assert_close(field, gaussian_density(at, kind, channels=1, side=6, spacing=1.0, sigma=0.8))


def test_what_cannot_be_placed_is_said() -> None:
    at, kind = torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.int64)
    bad = at.clone()
    bad[0, 1, 2] = torch.inf
    with pytest.raises(GeometryError, match="NaN or infinite"):
        gaussian_density(bad, kind, channels=1, side=4, spacing=1.0, sigma=1.0)
    with pytest.raises(GeometryError, match="0 to 3; the field has channels 0 to 1"):
        gaussian_density(at, torch.tensor([[0, 3]]), channels=2, side=4, spacing=1.0, sigma=1.0)
    with pytest.raises(ConfigError, match="sigma of a density is 0"):
        gaussian_density(at, kind, channels=1, side=4, spacing=1.0, sigma=0.0)
