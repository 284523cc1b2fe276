"""The read-out of nine numbers: fixture 07, properness always, what confidence means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equivox.geometry.rotations import random_rotations
from equivox.nets.readout import axis_spread_deg, pool_axes, read_out

FIXTURES = Path(__file__).parents[1] / "fixtures" / "e3pose"


@pytest.fixture(scope="module")
def numbers() -> dict[str, np.ndarray]:
    with np.load(FIXTURES / "07_readout.npz") as file:
        return {name: file[name] for name in file.files}


def test_the_batch_gives_the_rotations_of_the_original(numbers: dict[str, np.ndarray]) -> None:
    result = read_out(torch.from_numpy(numbers["nine_vectors"]))
    singular = numbers["singular_values"]
    sound = (singular[:, 1] + singular[:, 2] > 0.05) & (np.abs(numbers["det_before"]) > 1e-3)
    assert sound.sum() > 240
    np.testing.assert_allclose(result.rotation.numpy()[sound], numbers["rotation"][sound], atol=1e-5)
    np.testing.assert_allclose(result.singular_values.numpy(), singular, atol=1e-5)
    np.testing.assert_allclose(result.confidence.numpy(), np.abs(numbers["det_before"]), atol=1e-5)


def test_degenerate_input_gives_a_proper_rotation_and_says_so(numbers: dict[str, np.ndarray]) -> None:
    result = read_out(torch.from_numpy(numbers["degenerate_vectors"]).double())
    torch.testing.assert_close(torch.linalg.det(result.rotation), torch.ones(7, dtype=torch.float64))
    assert result.low_confidence.all()


@given(seed=st.integers(0, 2**31), flat=st.sampled_from([1.0, 1e-3, 1e-9, 0.0]))
def test_the_determinant_is_plus_one_even_for_axes_in_a_plane(seed: int, flat: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    axes = torch.randn(16, 3, 3, generator=draw, dtype=torch.float64)
    axes[..., 2] *= flat
    turn = random_rotations(1, generator=draw)[0]
    result = read_out((axes @ turn.mT).flatten(1))
    identity = torch.eye(3, dtype=torch.float64).expand(16, 3, 3)
    torch.testing.assert_close(result.rotation.mT @ result.rotation, identity, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.linalg.det(result.rotation), torch.ones(16, dtype=torch.float64))
    assert ((result.confidence >= 0) & (result.confidence <= 1)).all()


def test_a_turned_triple_gives_a_turned_rotation_and_the_pseudovector_has_no_sign() -> None:
    draw = torch.Generator().manual_seed(1)
    axes = torch.randn(20, 3, 3, generator=draw, dtype=torch.float64)
    turn = random_rotations(1, generator=draw)[0]
    before = read_out(axes.flatten(1))
    after = read_out((axes @ turn.mT).flatten(1))
    torch.testing.assert_close(after.rotation, turn @ before.rotation)
    axes[:, 0] *= -1
    torch.testing.assert_close(read_out(axes.flatten(1)).rotation, before.rotation)


def test_orthogonal_axes_have_confidence_one_and_nan_is_refused() -> None:
    rotation = random_rotations(3, generator=torch.Generator().manual_seed(2))
    result = read_out(rotation.mT.flatten(1) * 5)
    torch.testing.assert_close(result.rotation, rotation)
    torch.testing.assert_close(result.confidence, torch.ones(3, dtype=torch.float64))
    assert not result.low_confidence.any()
    with pytest.raises(ValueError, match="NaN"):
        read_out(torch.full((9,), float("nan")))


def test_f1_spatial_pooling_of_a_batch_equals_its_items() -> None:
    field = torch.randn(3, 9, 4, 3, 5, generator=torch.Generator().manual_seed(4))
    together = pool_axes(field)
    for item in range(3):
        assert torch.equal(together[item], pool_axes(field[item : item + 1])[0])
    assert (together[0] - together[1]).abs().max() > 0.1


def test_spread_is_zero_for_agreeing_voxels_and_large_for_noise() -> None:
    draw = torch.Generator().manual_seed(4)
    agree = torch.randn(1, 9, 1, 1, 1, generator=draw, dtype=torch.float64).expand(1, 9, 3, 3, 3)
    assert float(axis_spread_deg(agree)) < 1e-4
    assert float(axis_spread_deg(torch.randn(1, 9, 4, 4, 4, generator=draw))) > 45
