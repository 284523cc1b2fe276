"""Layers of e3nn and se3cnn, imported: their kernels, their outputs, and what is refused."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.harmonics import spherical_harmonics
from equivox.geometry.irreps import Irreps
from equivox.geometry.wigner import coupling_tensor
from equivox.kernels.radial import BandMode, GaussianShells, SmoothFinite
from equivox.kernels.taps import TapGrid
from equivox.weights.voxel_imports import Couplings, from_e3nn, from_se3cnn, se3cnn_basis, se3cnn_variance

FixturePath = Callable[[str], Path]
E3NN = {
    "e3nn_v2104_a": (5.0, 5, 1.0, "2104"),
    "e3nn_v2104_b_aniso": (6.0, 4, (1.0, 1.0, 2.0), "2104"),
    "e3nn_v2103_a": (5.0, 5, 1.0, "2103"),
}


@pytest.mark.parametrize("name", list(E3NN))
def test_e3nn_layers_give_their_outputs(name: str, fixture_path: FixturePath) -> None:
    data = np.load(fixture_path(f"steerable/{name}.npz"))
    diameter, count, steps, version = E3NN[name]
    state = {"weight": torch.from_numpy(data["weight"]), "sc.weight": torch.from_numpy(data["sc_weight"])}
    layer = from_e3nn(
        state, str(data["irreps_in"]), str(data["irreps_out"]), str(data["irreps_sh"]), diameter, count, steps,
        version=version,  # type: ignore[arg-type]
    )  # fmt: skip
    result = layer.eval()(torch.from_numpy(data["x"])).detach().numpy()
    np.testing.assert_allclose(result, data["y"], atol=1e-10, rtol=0)
    assert layer.self_connection is not None
    with torch.no_grad():
        layer.self_connection.zero_()
    np.testing.assert_allclose(layer.kernel().detach().numpy(), data["kernel"], atol=1e-12, rtol=0)


def test_e3nn_weights_that_cannot_be_are_refused(fixture_path: FixturePath) -> None:
    data = np.load(fixture_path("steerable/e3nn_v2104_a.npz"))
    layouts = [str(data["irreps_in"]), str(data["irreps_out"])]
    state = {"weight": torch.from_numpy(data["weight"]), "sc.weight": torch.from_numpy(data["sc_weight"])}
    with pytest.raises(ConfigError, match=r"parities that e3nn's never have together"):
        from_e3nn(state, layouts[0], layouts[1], "0e+1e+1x2o", 5.0, 5)
    with pytest.raises(ConfigError, match="one of each degree"):
        from_e3nn(state, layouts[0], layouts[1], "2x0e+1o", 5.0, 5)
    with pytest.raises(ConfigError, match=r"which has \(5, 8\)"):
        from_e3nn(state, layouts[0], layouts[1], "0e+2e", 5.0, 5)
    with pytest.raises(ConfigError, match="some have parities and some none"):
        from_e3nn(state, "2x0+1x1", layouts[1], "0e+1o+2e", 5.0, 5)
    with pytest.raises(ConfigError, match="do not fit"):
        from_e3nn(state, layouts[0], layouts[1], "0e+1o+2e", 5.0, 4)
    with pytest.raises(ConfigError, match=r"lacks 'sc.weight'; it has weight"):
        from_e3nn({"weight": state["weight"]}, layouts[0], layouts[1], "0e+1o+2e", 5.0, 5)


def kernel_by_formula(
    weight: Tensor, irreps_in: str, irreps_out: str, harmonics: str, diameter: float, count: int
) -> Tensor:
    """The kernel of steerable.md 1.7 written out path by path, from harmonics, coupling tensors and bumps alone."""
    layouts = [Irreps(irreps_in), Irreps(irreps_out), Irreps(harmonics)]
    taps = TapGrid.for_size(2 * int(diameter / 2) + 1)
    points = taps.positions_mm()
    bumps = SmoothFinite(count, 0.0, diameter / 2, True).values(points.norm(dim=-1))  # (radial, tap)
    paths = [
        (a, h, b)
        for a, (_, ia) in enumerate(layouts[0])
        for h, (_, ih) in enumerate(layouts[2])
        for b, (_, ib) in enumerate(layouts[1])
        if abs(ia.degree - ih.degree) <= ib.degree <= ia.degree + ih.degree and ia.parity * ih.parity == ib.parity
    ]
    total = [sum(layouts[0][a][0] for a, _, other in paths if other == b) for b in range(len(layouts[1]))]
    found = torch.zeros(layouts[1].dimension, layouts[0].dimension, len(points), dtype=torch.float64)
    starts = [[0], [0]]
    for side in (0, 1):
        for copies, irrep in layouts[side]:
            starts[side].append(starts[side][-1] + copies * irrep.dimension)
    place = 0
    for a, h, b in paths:
        (u, ia), (w, ib), degree = layouts[0][a], layouts[1][b], layouts[2][h][1].degree
        radial = torch.einsum("nt,nuw->tuw", bumps, weight[:, place : place + u * w].reshape(-1, u, w)) / len(points)
        place += u * w
        angular = spherical_harmonics(degree, points, normalization="component")
        block = torch.einsum("tuw,tj,ijk->wkuit", radial, angular, coupling_tensor(ia.degree, degree, ib.degree))
        rows, columns = slice(*starts[1][b : b + 2]), slice(*starts[0][a : a + 2])
        found[rows, columns] += (ib.dimension / total[b]) ** 0.5 * block.flatten(2, 3).flatten(0, 1)
    assert place == weight.shape[1]
    return found


@pytest.mark.parametrize(
    ("irreps_in", "irreps_out", "harmonics", "columns", "mixed"),
    [
        ("2x0e+1x1e", "1x0e+2x1e+1x2e", "0e+1e+2e", 17, False),
        ("2x0e+1x1e", "1x0e+2x1e+1x2e", "0e+1o+2e", 9, False),
        ("2x0e+1x1o+1x0o", "1x0o+2x1o+1x2o+1x2e+1x0e", "0e+1e+2e", 17, True),
        ("2x0e+1x1o", "1x0e+1x1o", "2e+0e", 4, False),
    ],
)
def test_any_parities_that_e3nn_has(
    irreps_in: str, irreps_out: str, harmonics: str, columns: int, mixed: bool, generator: torch.Generator
) -> None:
    weight = torch.randn(3, columns, dtype=torch.float64, generator=generator)
    inner, out = Irreps(irreps_in), Irreps(irreps_out)
    pairs = [(a, b) for a in inner for b in out if a[1] == b[1]]
    mixing = torch.randn(sum(a[0] * b[0] for a, b in pairs), dtype=torch.float64, generator=generator)
    layer = from_e3nn({"weight": weight, "sc.weight": mixing}, irreps_in, irreps_out, harmonics, 3.0, 3).eval()
    x = torch.randn(1, inner.dimension, 5, 4, 5, dtype=torch.float64, generator=generator)
    found = layer(x)
    expected = torch.nn.functional.conv3d(
        x, kernel_by_formula(weight, irreps_in, irreps_out, harmonics, 3.0, 3).unflatten(2, (3, 3, 3)), padding=1
    )
    place, begin = 0, 0
    starts = [sum(c * i.dimension for c, i in list(out)[:b]) for b in range(len(out))]
    for copies, irrep in inner:  # the self-connection, irrep by irrep
        own = x[:, begin : begin + copies * irrep.dimension].unflatten(1, (copies, irrep.dimension))
        begin += copies * irrep.dimension
        for b, (many, other) in enumerate(out):
            if other == irrep:
                matrix = mixing[place : place + copies * many].reshape(copies, many) / inner.count(irrep) ** 0.5
                place += copies * many
                own_out = torch.einsum("buixyz,uw->bwixyz", own, matrix).flatten(1, 2)
                expected[:, starts[b] : starts[b] + many * irrep.dimension] += own_out
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=0)
    assert layer.irreps_in.is_so3 == (harmonics == "0e+1e+2e")
    if mixed:
        assert bool((layer.weight == 0).any()), "paths between the parities are there, with weight 0"


def couplings_of(fixture_path: FixturePath) -> Couplings:
    stored = np.load(fixture_path("steerable/wigner_3j.npz"))
    found: dict[tuple[int, int, int], Tensor] = {}
    for key in stored.files:
        if key.startswith("se3cnn_Q_"):
            out, inner, degree = (int("".join(filter(str.isdigit, part))) for part in key.split("_")[2:])
            found[out, inner, degree] = torch.from_numpy(stored[key])
    return found


def coupling_of_element(element: np.ndarray, size: int, degree: int) -> Tensor:
    """The coupling tensor of an element of the outermost shell, whose harmonics and window are known."""
    positions = TapGrid.for_size(size).positions_mm()
    window = GaussianShells.for_kernel(size, ball=False).values(positions.norm(dim=-1))[-1]
    angular = spherical_harmonics(degree, positions) @ se3cnn_basis(f"1x{degree}").mT * window[:, None]
    flat = torch.from_numpy(element).flatten(2).flatten(0, 1)
    solved = torch.linalg.lstsq(angular, flat.mT).solution.mT
    return solved / solved.norm()


@pytest.mark.parametrize("name", ["se3cnn_conv_a", "se3cnn_conv_b", "se3cnn_conv_c"])
def test_se3cnn_layers_give_their_kernels_and_outputs(name: str, fixture_path: FixturePath) -> None:
    data = np.load(fixture_path(f"steerable/{name}.npz"))
    sides = [[(int(count), int(degree)) for count, degree in data[key]] for key in ("Rs_in", "Rs_out")]
    mode: BandMode = str(data["mode"])  # type: ignore[assignment]
    couplings = dict(couplings_of(fixture_path))
    if name.endswith("b"):  # its only element to degree 3 is not among the stored tensors
        couplings[3, 1, 2] = coupling_of_element(data["basis_2_1"][0], int(data["size"]), 2)
    layer = from_se3cnn(
        torch.from_numpy(data["weight"]), *sides, int(data["size"]), mode=mode, couplings=couplings,
        padding=int(data["padding"]),
    )  # fmt: skip
    into, out = se3cnn_basis(layer.irreps_in), se3cnn_basis(layer.irreps_out)
    kernel = torch.einsum("ab,bcxyz,dc->adxyz", out, layer.kernel(), into)
    np.testing.assert_allclose(kernel.detach().numpy(), data["kernel"], atol=1e-12, rtol=0)
    field = torch.einsum("ba,nbxyz->naxyz", into, torch.from_numpy(data["x"]))
    result = torch.einsum("ab,nbxyz->naxyz", out, layer.eval()(field))
    np.testing.assert_allclose(result.detach().numpy(), data["y"], atol=1e-10, rtol=0)


def test_the_change_of_components_is_the_published_one(fixture_path: FixturePath) -> None:
    data = np.load(fixture_path("steerable/spherical_harmonics.npz"))
    for degree in range(5):
        own = se3cnn_basis(Irreps(f"1x{degree}")).numpy()
        np.testing.assert_allclose(own, data[f"se3cnn_from_e3nn_integral_l{degree}"], atol=1e-12)


def test_signs_by_the_rule_of_the_last_version_where_it_says_something(fixture_path: FixturePath) -> None:
    weight = torch.randn(5, dtype=torch.float64)
    by_rule = from_se3cnn(weight, [(1, 0)], [(1, 0), (1, 1)], 5)
    positive = {
        key: tensor * torch.sign(tensor.sum()) for key, tensor in couplings_of(fixture_path).items() if tensor.any()
    }
    given = from_se3cnn(weight, [(1, 0)], [(1, 0), (1, 1)], 5, couplings=positive)
    assert torch.equal(by_rule.weight, given.weight)
    with pytest.raises(ConfigError, match=r"\(1, 1, 1\).*sum to 0; pass couplings"):
        from_se3cnn(torch.zeros(7), [(1, 1)], [(1, 1)], 5)
    with pytest.raises(ConfigError, match=r"lack the tensor of degrees \(1, 0, 1\)"):
        from_se3cnn(weight, [(1, 0)], [(1, 0), (1, 1)], 5, couplings={(0, 0, 0): torch.ones(1, 1)})
    with pytest.raises(ConfigError, match="do not fit"):
        from_se3cnn(torch.zeros(8), [(1, 1)], [(1, 1)], 5)


def test_running_variances_change_by_the_number_of_components() -> None:
    summed = torch.tensor([2.0, 3.0, 5.0])
    assert se3cnn_variance(summed, "1x0+1x1+1x2").tolist() == [2.0, 1.0, 1.0]
    assert se3cnn_variance(summed, "1x0+1x1+1x2", second_moment="norm").tolist() == summed.tolist()
    with pytest.raises(ConfigError, match="3 copies"):
        se3cnn_variance(summed[:2], "1x0+1x1+1x2")


def test_the_fixture_lists_the_paths_in_our_order(fixture_path: FixturePath) -> None:
    data = np.load(fixture_path("steerable/e3nn_v2104_a.npz"))
    paths = ast.literal_eval(str(data["instructions"]))
    assert [path[:3] for path in paths] == sorted(path[:3] for path in paths)
