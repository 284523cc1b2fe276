"""The rings against escnn's own kernels and outputs, through the change of basis and of axes."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.kernels.basis3d import pair_basis
from equivox.kernels.rings import RingShells
from equivox.kernels.taps import TapGrid
from equivox.nn import SteerableConv3d


def second_degree_basis(data: np.lib.npyio.NpzFile, grid: TapGrid, rings: RingShells) -> np.ndarray:
    """Orthogonal matrix from our components of degree 2 to escnn's, read off its kernel from a scalar to degree 2."""
    own = pair_basis(0, 2, (2,), grid, rings, True).elements[:, :, 0].numpy()
    own = own / np.linalg.norm(own, axis=(1, 2), keepdims=True)
    stored = data["kernel"][4:9, 0].reshape(5, -1).astype(np.float64)
    info = ast.literal_eval(str(data["basis_info"]))
    used = [e["id"] for e in info if e["in_irreps_position"] == 0 and e["out_irreps_position"] == 2]
    combined = np.einsum("e,emt->mt", np.sqrt(5) * data["weights"][used].astype(np.float64), own)
    return stored @ np.linalg.pinv(combined)


@pytest.mark.parametrize("name", ["escnn_conv_a", "escnn_conv_b"])
def test_rings_give_escnn_s_kernels_and_outputs(name: str, fixture_path: Callable[[str], Path]) -> None:
    data = np.load(fixture_path(f"steerable/{name}.npz"))
    grid = TapGrid.for_size(int(data["size"]))
    rings = RingShells.for_kernel(int(data["size"]))
    # its axes are (-z, -y, x) of its points, its vectors (y, z, x): in ours, (-u_y, -u_x, u_z)
    change = {0: np.eye(1), 1: np.array([[0.0, -1, 0], [-1, 0, 0], [0, 0, 1]])}
    if name.endswith("a"):
        change[2] = second_degree_basis(data, grid, rings)
        np.testing.assert_allclose(change[2] @ change[2].T, np.eye(5), atol=1e-5)
    fields = [[int(degree) for degree in data[key]] for key in ("irreps_in", "irreps_out")]
    layout_in, layout_out = ("+".join(f"1x{degree}" for degree in side) for side in fields)
    layer = SteerableConv3d(layout_in, layout_out, grid.taps[0], radial=rings, dtype=torch.float64)
    info = ast.literal_eval(str(data["basis_info"]))
    assert layer.weight.shape == data["weights"].shape
    into, out = (np.concatenate([[0], np.cumsum([2 * degree + 1 for degree in side])]) for side in fields)
    weight = torch.zeros_like(layer.weight)
    signs: dict[tuple[int, int, int], float] = {}
    for term in layer.plan.pairs:
        a, b = term.block_in, term.block_out
        basis = pair_basis(fields[0][a], fields[1][b], term.degrees, grid, rings, True)
        entries = [e for e in info if (e["in_irreps_position"], e["out_irreps_position"]) == (a, b)]
        block = data["kernel"][out[b] : out[b + 1], into[a] : into[a + 1]].reshape(2 * fields[1][b] + 1, -1, grid.count)
        block = np.einsum("ab,acx,cd->bdx", change[fields[1][b]], block.astype(np.float64), change[fields[0][a]])
        flat = basis.elements.flatten(1).numpy()
        flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        found = np.linalg.lstsq(flat.T, block.ravel(), rcond=None)[0] / np.sqrt(2 * fields[1][b] + 1)
        for row, (degree, ring) in enumerate(basis.labels):
            matching = [e for e in entries if (e["irrep:frequency"], e["radius"]) == (degree, float(ring))]
            assert len(matching) == 1
            given = float(data["weights"][matching[0]["id"]])
            sign = signs.setdefault((fields[0][a], fields[1][b], degree), float(np.sign(found[row] * given)))
            assert found[row] == pytest.approx(sign * given, abs=1e-5)  # one sign for all rings of a coupling
            scale = np.sqrt(2 * fields[1][b] + 1) / term.scale
            weight[term.weight_slices[0]].view(-1, term.elements)[0, row] = sign * given * scale
    with torch.no_grad():
        layer.weight.copy_(weight)
    sides = [torch.block_diag(*[torch.from_numpy(change[degree]) for degree in side]) for side in fields]
    kernel = torch.einsum("ab,bcxyz,dc->adxyz", sides[1], layer.kernel().detach(), sides[0])
    np.testing.assert_allclose(kernel.numpy(), data["kernel"], atol=1e-5)
    result = torch.nn.functional.conv3d(
        torch.from_numpy(data["x"]).double(), kernel, torch.from_numpy(data["expanded_bias"]).double(),
        padding=(data["x"].shape[-1] - data["y"].shape[-1] + grid.taps[0] - 1) // 2,
    )  # fmt: skip
    np.testing.assert_allclose(result.numpy(), data["y"], atol=1e-5)
