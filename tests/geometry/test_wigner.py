"""Coupling tensors and representation matrices: published numbers, e3nn as oracle, group laws."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from equivox.errors import ConfigError, GeometryError
from equivox.geometry.irreps import Irreps
from equivox.geometry.rotations import random_rotations
from equivox.geometry.wigner import coupling_tensor, irreps_matrix, wigner_matrix

TRIPLES = [t for t in itertools.product(range(6), repeat=3) if abs(t[0] - t[1]) <= t[2] <= t[0] + t[1]]


@pytest.mark.parametrize("name", ["steerable/wigner_3j.npz", "e3pose/02_sh_w3j.npz"])
def test_coupling_tensors_are_the_published_numbers_with_their_signs(
    name: str, fixture_path: Callable[[str], Path]
) -> None:
    data = np.load(fixture_path(name))
    keys = [key for key in data.files if key.startswith("w3j_")]
    assert len(keys) >= 30
    for key in keys:
        own = coupling_tensor(*map(int, key.split("_")[1:])).numpy()
        np.testing.assert_allclose(own, data[key], atol=1e-12, rtol=0, err_msg=key)


def test_first_couplings_are_what_physics_calls_them() -> None:
    levi_civita = torch.zeros(3, 3, 3, dtype=torch.float64)
    for i, j, k in itertools.permutations(range(3)):
        levi_civita[i, j, k] = torch.linalg.det(torch.eye(3, dtype=torch.float64)[[i, j, k]])
    assert_close(coupling_tensor(1, 1, 1), levi_civita / 6**0.5, atol=1e-15, rtol=0)
    assert_close(coupling_tensor(2, 2, 0)[..., 0], torch.eye(5, dtype=torch.float64) / 5**0.5, atol=1e-15, rtol=0)


@pytest.mark.parametrize("degrees", TRIPLES)
def test_coupling_tensors_are_invariant_and_of_unit_norm(
    degrees: tuple[int, int, int], generator: torch.Generator
) -> None:
    tensor = coupling_tensor(*degrees)
    rotation = random_rotations(1, generator=generator)[0]
    first, second, third = (wigner_matrix(degree, rotation) for degree in degrees)
    turned = torch.einsum("ia,jb,kc,abc->ijk", first, second, third, tensor)
    assert_close(turned, tensor, atol=1e-12, rtol=0)
    assert float(tensor.norm()) == pytest.approx(1.0, abs=1e-13)


def test_degrees_that_do_not_couple_are_refused() -> None:
    with pytest.raises(ConfigError, match="do not couple"):
        coupling_tensor(1, 1, 3)


@given(seed=st.integers(0, 2**31), degree=st.integers(0, 7))
def test_wigner_matrix_is_an_orthogonal_homomorphism(seed: int, degree: int) -> None:
    first, second = random_rotations(2, generator=torch.Generator().manual_seed(seed))
    product = wigner_matrix(degree, first @ second)
    assert_close(product, wigner_matrix(degree, first) @ wigner_matrix(degree, second), atol=1e-11, rtol=0)
    assert_close(product @ product.mT, torch.eye(2 * degree + 1, dtype=torch.float64), atol=1e-11, rtol=0)


def test_wigner_matrices_are_the_published_numbers(fixture_path: Callable[[str], Path]) -> None:
    data = np.load(fixture_path("steerable/wigner_d.npz"))
    harmonics = np.load(fixture_path("steerable/spherical_harmonics.npz"))
    rotation = torch.from_numpy(data["matrix"])
    for degree in range(5):
        own = wigner_matrix(degree, rotation).numpy()
        np.testing.assert_allclose(own, data[f"e3nn_D_l{degree}"], atol=1e-12, rtol=0)
        change = harmonics[f"se3cnn_from_e3nn_integral_l{degree}"]
        np.testing.assert_allclose(change @ own @ change.T, data[f"se3cnn_D_l{degree}"], atol=1e-12, rtol=0)


def test_representation_of_a_layout_multiplies_and_knows_inversion(generator: torch.Generator) -> None:
    layout = Irreps("2x0e+1x0o+2x1o+1x1e+1x2o")
    first, second = random_rotations(2, generator=generator)
    first = -first
    product = irreps_matrix(layout, first @ second)
    assert_close(product, irreps_matrix(layout, first) @ irreps_matrix(layout, second), atol=1e-12, rtol=0)
    signs = irreps_matrix(layout, -torch.eye(3, dtype=torch.float64)).diagonal()
    assert signs.round(decimals=12).tolist() == [1.0] * 2 + [-1.0] + [-1.0] * 6 + [1.0] * 3 + [-1.0] * 5
    assert_close(irreps_matrix("1x1o", first), first, atol=1e-13, rtol=0)


def test_reflections_need_parity_and_matrices_must_be_orthogonal() -> None:
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    with pytest.raises(GeometryError, match="have no reflections"):
        irreps_matrix("1x0+1x1", mirror)
    with pytest.raises(GeometryError, match="reflection"):
        wigner_matrix(1, mirror)
    with pytest.raises(GeometryError, match="not orthogonal"):
        irreps_matrix("1x1o", 2 * mirror)


def test_e3nn_agrees(generator: torch.Generator) -> None:
    o3 = pytest.importorskip("e3nn.o3")
    rotation = random_rotations(3, generator=generator)
    layout = "2x0e+1x1o+1x2e+1x3o+1x1e"
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for degree in range(7):
            assert_close(
                wigner_matrix(degree, rotation), o3.Irrep(degree, 1).D_from_matrix(rotation), atol=1e-10, rtol=0
            )
        expected = o3.Irreps(layout).D_from_matrix(-rotation)
    finally:
        torch.set_default_dtype(default)
    assert_close(irreps_matrix(layout, -rotation), expected, atol=1e-10, rtol=0)
    for triple in TRIPLES:
        assert_close(coupling_tensor(*triple), o3.wigner_3j(*triple, dtype=torch.float64), atol=1e-12, rtol=0)
