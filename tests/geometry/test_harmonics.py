"""Real spherical harmonics against published numbers and their own laws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from equivox.geometry.harmonics import spherical_harmonics
from equivox.geometry.rotations import random_rotations
from equivox.geometry.wigner import wigner_matrix


@pytest.mark.parametrize("degree", range(7))
def test_harmonics_of_every_normalisation_are_the_published_numbers(
    degree: int, fixture_path: Callable[[str], Path]
) -> None:
    data = np.load(fixture_path("steerable/spherical_harmonics.npz"))
    points = torch.from_numpy(data["points"])
    for kind in ("component", "norm", "integral"):
        own = spherical_harmonics(degree, points, normalization=kind).numpy()
        np.testing.assert_allclose(own, data[f"e3nn_{kind}_l{degree}"], atol=1e-12, rtol=0)
    raw = spherical_harmonics(degree, points, normalize=False).numpy()
    np.testing.assert_allclose(raw, data[f"e3nn_component_unnormalized_l{degree}"], atol=1e-12, rtol=1e-12)
    if degree <= 4:  # the other library's basis is a fixed turn of ours
        turned = (
            spherical_harmonics(degree, points, normalization="integral").numpy()
            @ data[f"se3cnn_from_e3nn_integral_l{degree}"].T
        )
        np.testing.assert_allclose(turned, data[f"se3cnn_l{degree}"], atol=1e-12, rtol=0)


def test_harmonics_at_the_origin_and_on_the_axes(fixture_path: Callable[[str], Path]) -> None:
    data = np.load(fixture_path("e3pose/02_sh_w3j.npz"))
    points = torch.from_numpy(data["xyz"])
    own = spherical_harmonics(range(7), points).numpy()
    np.testing.assert_allclose(own, data["Y_l0to6_component_normalized"], atol=1e-12, rtol=0)
    raw = spherical_harmonics(range(5), points, normalize=False).numpy()
    np.testing.assert_allclose(raw, data["Y_l0to4_component_not_normalized"], atol=1e-12, rtol=1e-12)
    origin = spherical_harmonics([0, 1, 2], torch.zeros(1, 3))
    assert origin.tolist() == [[1.0] + [0.0] * 8]


def test_degree_one_is_the_vector_itself() -> None:
    points = torch.tensor([[0.0, 0.6, 0.8], [1.0, 0.0, 0.0]], dtype=torch.float64)
    assert_close(spherical_harmonics(1, points, normalization="norm"), points, atol=1e-15, rtol=0)


@given(seed=st.integers(0, 2**31), degree=st.integers(0, 8))
def test_harmonics_rotate_with_wigner_and_have_constant_length(seed: int, degree: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    points = torch.randn(8, 3, generator=draw, dtype=torch.float64)
    rotation = random_rotations(1, generator=draw)[0]
    plain = spherical_harmonics(degree, points)
    turned = spherical_harmonics(degree, points @ rotation.mT)
    assert_close(turned, plain @ wigner_matrix(degree, rotation).mT, atol=1e-12, rtol=0)
    assert_close(plain.square().sum(-1), torch.full((8,), 2.0 * degree + 1, dtype=torch.float64), atol=1e-11, rtol=0)
    assert_close(spherical_harmonics(degree, -points), (-1) ** degree * plain, atol=1e-12, rtol=0)


def test_gradients_are_finite_away_from_and_at_the_origin() -> None:
    points = torch.tensor([[0.0, 0.0, 0.0], [0.3, -0.2, 0.5]], dtype=torch.float64, requires_grad=True)
    spherical_harmonics([1, 2, 3], points, normalize=False).sum().backward()
    assert points.grad is not None
    assert bool(torch.isfinite(points.grad).all())
