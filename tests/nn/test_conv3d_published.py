"""The convolution against published numbers: outputs, kernels and gradients of three implementations."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from equivox.geometry.wigner import coupling_tensor
from equivox.kernels.basis3d import pair_basis
from equivox.kernels.radial import BandMode, GaussianShells, SmoothFinite
from equivox.nn import SteerableConv3d

FixturePath = Callable[[str], Path]


def relative(own: Tensor, expected: np.ndarray) -> float:
    return float(np.abs(own.detach().numpy() - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    "name",
    ["a_conv_scalar_in", "b_conv_mixed", "c_conv_anisotropic", "d_conv_k3_lmax2_cutoff", "e_conv_k4_even"]
    + ["f_conv_readout_steps1", "g_conv_level2_steps2"],
)
def test_e3pose_convolutions_and_their_gradients(name: str, fixture_path: FixturePath) -> None:
    data = np.load(fixture_path(f"e3pose/03{name}.npz"))
    meta = json.loads(str(data["meta"]))
    layer = SteerableConv3d(
        meta["irreps_in"],
        meta["irreps_out"],
        data["kernel"].shape[2:],
        voxel_size_mm=meta["steps"],
        radial=SmoothFinite(meta["num_radial_basis"], 0.0, meta["diameter"] / 2, meta["cutoff"]),
        lmax=len(meta["irreps_sh"].split("+")) - 1,
    )
    weights = {"weight": torch.from_numpy(data["weight"]), "self_connection": torch.from_numpy(data["sc_weight"])}
    layer.load_state_dict(weights)
    field = torch.from_numpy(data["x"]).requires_grad_()
    result = layer(field)
    result.backward(torch.from_numpy(data["grad_y"]))
    assert layer.weight.grad is not None
    assert layer.self_connection is not None
    assert layer.self_connection.grad is not None
    assert field.grad is not None
    assert relative(result, data["y"]) <= 1e-5
    assert relative(field.grad, data["grad_x"]) <= 5e-5
    assert relative(layer.weight.grad, data["grad_weight"]) <= 5e-5
    assert relative(layer.self_connection.grad, data["grad_sc_weight"]) <= 5e-5
    with torch.no_grad():
        layer.self_connection.zero_()
        assert relative(layer.kernel(), data["kernel"]) <= 1e-5
        assert relative(layer.eval()(field) + torch.from_numpy(data["sc"]), data["y"]) <= 1e-5
    assert layer.padding == tuple(meta["padding"])


@pytest.mark.parametrize("name", ["e3nn_v2104_a", "e3nn_v2104_b_aniso", "e3nn_v2103_a"])
def test_e3nn_voxel_convolutions_in_double_precision(name: str, fixture_path: FixturePath) -> None:
    data = np.load(fixture_path(f"steerable/{name}.npz"))
    count = data["weight"].shape[0]
    old = "2103" in name
    diameter, steps = {"e3nn_v2104_a": (5.0, 1.0), "e3nn_v2104_b_aniso": (6.0, (1.0, 1.0, 2.0))}.get(name, (2.0, 0.5))
    layouts = [str(data["irreps_in"]), str(data["irreps_out"])]
    if "aniso" in name:  # every irrep and every harmonic is even there: that is SO(3)
        layouts = [layout.replace("e", "") for layout in layouts]
    layer = SteerableConv3d(
        *layouts,
        data["kernel"].shape[2:],
        voxel_size_mm=steps,
        radial=SmoothFinite(count, 0.0, diameter / 2, True),
        lmax=2,
        dtype=torch.float64,
    )
    weights = {"weight": torch.from_numpy(data["weight"]), "self_connection": torch.from_numpy(data["sc_weight"])}
    layer.load_state_dict(weights)
    field = torch.from_numpy(data["x"])
    with torch.no_grad():
        result = layer(field)
        kernel_with_center = layer.kernel()
        assert layer.self_connection is not None
        layer.self_connection.zero_()
        kernel = layer.kernel()
    if old:  # 2103 divides by the root of the tap count and multiplies by 0.1
        factor = 0.1 * layer.grid.count**0.5
        np.testing.assert_allclose(kernel.numpy() * factor, data["kernel"], atol=1e-12, rtol=0)
        full = kernel * factor + (kernel_with_center - kernel)
        result = torch.nn.functional.conv3d(field, full, padding=2)
        np.testing.assert_allclose(result.numpy(), data["y"], atol=1e-10, rtol=0)
    else:
        np.testing.assert_allclose(kernel.numpy(), data["kernel"], atol=1e-12, rtol=0)
        np.testing.assert_allclose(result.numpy(), data["y"], atol=1e-10, rtol=0)
    grid = layer.grid
    np.testing.assert_allclose(
        layer.radial.values(grid.positions_mm().norm(dim=-1)).T.unflatten(0, grid.taps).numpy(), data["emb"], atol=1e-12
    )
    paths = ast.literal_eval(str(data["instructions"]))
    assert data["weight"].shape[1] == sum(int(np.prod(path[3])) for path in paths)


def se3cnn_sign(coupling: Any, out: int, inner: int, degree: int, changes: dict[int, np.ndarray]) -> float:
    """+1 or -1: our coupling tensor in the other library's basis, against the tensor stored from it."""
    ours = np.einsum(
        "ijk,ai,bj,ck->cab", coupling_tensor(inner, degree, out).numpy(), changes[inner], changes[degree], changes[out]
    )
    stored = coupling.reshape(2 * out + 1, 2 * inner + 1, 2 * degree + 1)
    overlap = float((ours * stored).sum()) / float(np.linalg.norm(ours) * np.linalg.norm(stored))
    assert abs(abs(overlap) - 1) < 1e-10
    return float(np.sign(overlap))


@pytest.mark.parametrize("name", ["se3cnn_conv_a", "se3cnn_conv_b", "se3cnn_conv_c"])
def test_se3cnn_convolutions_through_the_change_of_basis(name: str, fixture_path: FixturePath) -> None:
    data = np.load(fixture_path(f"steerable/{name}.npz"))
    harmonics = np.load(fixture_path("steerable/spherical_harmonics.npz"))
    couplings = np.load(fixture_path("steerable/wigner_3j.npz"))
    changes = {degree: harmonics[f"se3cnn_from_e3nn_integral_l{degree}"] for degree in range(5)}
    size = int(data["size"])
    mode: BandMode = str(data["mode"])  # type: ignore[assignment]
    layouts = ["+".join(f"{mul}x{degree}" for mul, degree in data[key]) for key in ("Rs_in", "Rs_out")]
    radial = GaussianShells.for_kernel(size, mode=mode, ball=False)
    layer = SteerableConv3d(*layouts, size, radial=radial, dtype=torch.float64)
    assert layer.weight.shape == data["weight"].shape

    signs = np.ones_like(data["weight"])
    for term in layer.plan.pairs:
        inner, out = int(data["Rs_in"][term.block_in, 1]), int(data["Rs_out"][term.block_out, 1])
        basis = pair_basis(inner, out, term.degrees, layer.grid, radial, True)
        key = f"basis_{term.block_out}_{term.block_in}"
        for element, (degree, _) in enumerate(basis.labels):
            own = basis.elements[element].numpy()
            own = np.einsum("ab,bct,dc->adt", changes[out], own, changes[inner])
            if key in data.files:  # the stored element carries its normalisation; ours gets the layer's
                stored = data[key][element].reshape(own.shape)
                own = own / np.linalg.norm(own) * term.scale
                sign = float(np.sign((own * stored).sum()))
                np.testing.assert_allclose(sign * own, stored, atol=1e-12, rtol=0)
            else:
                sign = se3cnn_sign(couplings[f"se3cnn_Q_out{out}_in{inner}_J{degree}"], out, inner, degree, changes)
            signs[term.weight_slices[0]].reshape(-1, term.elements)[:, element] = sign
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(data["weight"] * signs))
    to_ours = [
        torch.block_diag(*[torch.from_numpy(changes[int(degree)]) for mul, degree in data[key] for _ in range(mul)])
        for key in ("Rs_in", "Rs_out")
    ]
    kernel = torch.einsum("ab,bcxyz,dc->adxyz", to_ours[1], layer.kernel(), to_ours[0])
    np.testing.assert_allclose(kernel.detach().numpy(), data["kernel"], atol=1e-12, rtol=0)
    assert layer.padding == (int(data["padding"]),) * 3
    field = torch.einsum("ba,nbxyz->naxyz", to_ours[0], torch.from_numpy(data["x"]))
    result = torch.einsum("ab,nbxyz->naxyz", to_ours[1], layer.eval()(field))
    np.testing.assert_allclose(result.detach().numpy(), data["y"], atol=1e-10, rtol=0)
