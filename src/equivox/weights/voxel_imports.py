"""Single layers of two other libraries as ours: e3nn's voxel convolution and se3cnn's convolution.

What carries over exactly, and what has to be said:

* e3nn: channel order and components are ours. Harmonics of their own parity (``0e+1o+2e...``) give a layer of O(3). Any
  others, above all even ones, give a layer of SO(3): parities are dropped from its layouts, and a path that e3nn's
  parities forbid is there with weight 0, as is one whose degree the harmonics lack. Its older form divides by the root
  of the tap count and multiplies by 0.1; weights are scaled.
* se3cnn: components are in another order, ``field_theirs = se3cnn_basis(irreps) field_ours``; nothing to do where a
  network begins and ends with scalars. The sign of each coupling tensor was left to a linear algebra library in the
  version of the article, so weights of a vector network need the tensors that they were trained with; the last
  version fixed it by the sign of the sum, which says nothing where the sum vanishes (1 x 1 to 1).
* Running variances of se3cnn sum over components, ours and e3nn's average by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irrep, Irreps, IrrepsLike
from equivox.geometry.wigner import coupling_tensor, wigner_matrix
from equivox.kernels.basis3d import pair_basis
from equivox.kernels.one_hot import SoftOneHot
from equivox.kernels.plan import KernelPlan
from equivox.kernels.radial import BandMode, GaussianShells, SmoothFinite
from equivox.nn.conv3d import SteerableConv3d

Couplings = Mapping[tuple[int, int, int], Tensor]
E3nnVersion = Literal["2104", "2103"]
AMBIGUOUS = 1e-6
"""A sum of a coupling tensor's entries below it has no sign to speak of."""


def from_e3nn(
    state: Mapping[str, Tensor],
    irreps_in: IrrepsLike,
    irreps_out: IrrepsLike,
    irreps_sh: IrrepsLike,
    diameter: float,
    num_radial_basis: int,
    steps: float | Sequence[float] = 1.0,
    *,
    radial: SmoothFinite | SoftOneHot | None = None,
    version: E3nnVersion = "2104",
) -> SteerableConv3d:
    """A layer with the weights of e3nn's ``voxel_convolution.Convolution``, self-connection included.

    Parameters
    ----------
    state
        Its state dict: ``weight`` (radial functions, n) and ``sc.weight``; other entries are not needed.
    irreps_in, irreps_out, irreps_sh
        As it was made; harmonics one of a degree at most, in any order.
    diameter, num_radial_basis, steps
        As it was made (mm). For version 2103: ``diameter`` is the number of taps along an axis, steps are equal.
    radial
        Another family than its smooth-finite bumps with cutoff.
    version
        ``"2103"``: the older form, with 0.1 before the convolution.

    Returns
    -------
    Has the numbers of e3nn's layer in inference. Trained on, weights of paths that e3nn did not have may leave 0.

    Raises
    ------
    ConfigError
        If harmonics are repeated, some layouts have parity and others none, or weights do not fit.
    """
    theirs = [Irreps(irreps_in), Irreps(irreps_out), Irreps(irreps_sh)]
    harmonics = theirs[2]
    _require_plain(theirs)
    layouts = theirs[:2]
    if not all(irrep.parity == (-1) ** irrep.degree for _, irrep in harmonics):
        layouts = [Irreps([(count, Irrep(irrep.degree, 0)) for count, irrep in layout]) for layout in layouts]
    if version == "2103":
        taps: int | tuple[int, ...] = int(diameter)
        end, steps = (diameter - 1) / 2, 1.0
    else:
        edges = [float(steps)] * 3 if isinstance(steps, (int, float)) else [float(step) for step in steps]
        taps = tuple(2 * int(diameter / 2 / step + 1e-9) + 1 for step in edges)
        end = diameter / 2
    layer = SteerableConv3d(
        *(layouts[0], layouts[1], taps),
        voxel_size_mm=steps,
        radial=SmoothFinite(num_radial_basis, 0.0, end, True) if radial is None else radial,
        lmax=max(irrep.degree for _, irrep in harmonics),
        self_connection=True,
        dtype=state["weight"].dtype if "weight" in state else None,
    )
    weight, mixing = _entry(state, "weight"), _entry(state, "sc.weight").reshape(-1)
    assert layer.self_connection is not None
    columns, factors = _radial_places(theirs, layer.plan)
    places, mixing_factors = _self_places(theirs, layer.plan)
    wanted = (layer.weight.shape[0], len(columns))
    if tuple(weight.shape) != wanted or len(mixing) != len(places):
        raise ConfigError(
            f"e3nn weights {tuple(weight.shape)} and {tuple(mixing.shape)} do not fit {theirs[0]} -> {theirs[1]} "
            f"by harmonics {harmonics} with {num_radial_basis} radial functions, which has {wanted} and "
            f"{(len(places),)}; check irreps, harmonics and num_radial_basis."
        )
    with torch.no_grad():
        layer.weight.zero_()
        layer.self_connection.zero_()
        scale = 0.1 * layer.grid.count**0.5 if version == "2103" else 1.0
        layer.weight[:, columns] = weight * (scale * factors).to(weight)
        layer.self_connection[places] = mixing * mixing_factors.to(mixing)
    return layer


def _require_plain(theirs: Sequence[Irreps]) -> None:
    """ConfigError unless harmonics are one of each kind and all layouts speak of the same group."""
    harmonics = theirs[2]
    degrees = {irrep.degree for _, irrep in harmonics}
    if not degrees or len(degrees) < len(harmonics) or any(count != 1 for count, _ in harmonics):
        raise ConfigError(f"harmonics {harmonics} are not one of each degree at most; only such can be imported.")
    own = [irrep.parity == (-1) ** irrep.degree for _, irrep in harmonics]
    if not (all(own) or harmonics.is_so3 or all(irrep.parity == 1 for _, irrep in harmonics)):
        raise ConfigError(
            f"harmonics {harmonics} have parities that e3nn's never have together: they are 0e+1o+2e... or all even."
        )
    groups = {layout.is_so3 for layout in theirs if len(layout)}
    if len(groups) > 1:
        raise ConfigError(
            f"{theirs[0]} -> {theirs[1]} by harmonics {harmonics}: some have parities and some none; write them "
            f"as e3nn has them."
        )


def _radial_places(
    theirs: Sequence[Irreps], plan: KernelPlan
) -> tuple[Int[Tensor, " weight"], Float[Tensor, " weight"]]:
    """Where each of e3nn's path weights lies among ours, and what it is multiplied by: ours count more paths."""
    layout_in, layout_out, harmonics = theirs
    terms = {(term.block_in, term.block_out): term for term in plan.pairs}
    paths = [
        (a, irrep.degree, b)
        for a, (_, irrep_in) in enumerate(layout_in)
        for _, irrep in harmonics
        for b, (_, irrep_out) in enumerate(layout_out)
        if abs(irrep_in.degree - irrep.degree) <= irrep_out.degree <= irrep_in.degree + irrep.degree
        and irrep_in.parity * irrep.parity == irrep_out.parity
    ]
    fans, ours = [0] * len(layout_out), [0] * len(layout_out)
    for a, _, b in paths:
        fans[b] += layout_in[a][0]
    for term in plan.pairs:
        ours[term.block_out] += layout_in[term.block_in][0] * len(term.degrees)
    columns: list[int] = []
    factors: list[float] = []
    for a, degree, b in paths:
        term = terms[a, b]
        place = term.weight_slices[term.degrees.index(degree)]
        columns += range(place.start, place.stop)
        factors += [(ours[b] / fans[b]) ** 0.5] * (place.stop - place.start)
    return torch.tensor(columns, dtype=torch.int64), torch.tensor(factors, dtype=torch.float64)


def _self_places(theirs: Sequence[Irreps], plan: KernelPlan) -> tuple[Int[Tensor, " weight"], Float[Tensor, " weight"]]:
    """The same for the self-connection, which e3nn has between blocks of equal irrep."""
    layout_in, layout_out, _ = theirs
    fans, ours = [0] * len(layout_out), [0] * len(layout_out)
    for term in plan.self_terms:
        count, irrep = layout_in[term.block_in]
        ours[term.block_out] += count
        fans[term.block_out] += count if irrep == layout_out[term.block_out][1] else 0
    columns: list[int] = []
    factors: list[float] = []
    for term in plan.self_terms:
        b = term.block_out
        if layout_in[term.block_in][1] == layout_out[b][1]:
            columns += range(term.weights.start, term.weights.stop)
            factors += [(ours[b] / fans[b]) ** 0.5] * (term.weights.stop - term.weights.start)
    return torch.tensor(columns, dtype=torch.int64), torch.tensor(factors, dtype=torch.float64)


def from_se3cnn(
    weight: Float[Tensor, " weight"],
    representations_in: Sequence[tuple[int, int]],
    representations_out: Sequence[tuple[int, int]],
    size: int,
    *,
    mode: BandMode = "compromise",
    couplings: Couplings | None = None,
    stride: int = 1,
    padding: Literal["same"] | int = "same",
) -> SteerableConv3d:
    """A layer with the weights of se3cnn's convolution, acting on fields in our component order.

    Parameters
    ----------
    weight
        Flat, as stored.
    representations_in, representations_out
        ``(multiplicity, degree)`` of each block.
    size
        Taps along an axis.
    mode
        Band limits of its shells.
    couplings
        By (degree out, degree in, filter degree) its tensors ((2 out + 1)(2 in + 1), 2 filter + 1), of which only the
        sign is read. Without them the rule of its last version is taken: the sum of a tensor's entries is positive.
    stride, padding
        As it was made.

    Raises
    ------
    ConfigError
        If the number of weights does not fit, or a sign is needed that neither rule nor couplings give.
    """
    layer = SteerableConv3d(
        Irreps([(count, Irrep(degree, 0)) for count, degree in representations_in]),
        Irreps([(count, Irrep(degree, 0)) for count, degree in representations_out]),
        size,
        radial=GaussianShells.for_kernel(size, mode=mode, ball=False),
        normalization="published",
        stride=stride,
        padding=padding,
        dtype=weight.dtype,
    )
    if weight.shape != layer.weight.shape:
        raise ConfigError(
            f"se3cnn weights {tuple(weight.shape)} do not fit {layer.irreps_in} -> {layer.irreps_out} of size {size} "
            f"and mode {mode}, which has {tuple(layer.weight.shape)}; check representations, size and mode."
        )
    signs = torch.ones_like(weight)
    for term in layer.plan.pairs:
        inner, out = representations_in[term.block_in][1], representations_out[term.block_out][1]
        labels = pair_basis(inner, out, term.degrees, layer.grid, layer.radial, True).labels
        row = [_sign(out, inner, degree, couplings) for degree, _ in labels]
        signs[term.weight_slices[0]].view(-1, term.elements)[:] = torch.tensor(row, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight * signs)
    return layer


def se3cnn_basis(irreps: IrrepsLike) -> Float[Tensor, "channel channel"]:
    """Orthogonal matrix ``M`` with ``field_se3cnn = M field_ours`` (``K_se3cnn = M_out K_ours M_in^T``); float64."""
    blocks = [_degree_basis(irrep.degree) for irrep in Irreps(irreps).copies()]
    return torch.block_diag(*blocks)


def se3cnn_variance(
    variance: Float[Tensor, " copy"], irreps: IrrepsLike, *, second_moment: Literal["component", "norm"] = "component"
) -> Float[Tensor, " copy"]:
    """Running variances of se3cnn's batch norm for a norm of ours: divided by ``2 l + 1``, unless it sums as well."""
    copies = Irreps(irreps).copies()
    if len(copies) != len(variance):
        raise ConfigError(
            f"{len(variance)} running variances do not fit {Irreps(irreps)}, which has {len(copies)} copies."
        )
    if second_moment == "norm":
        return variance.clone()
    return variance / torch.tensor([irrep.dimension for irrep in copies], dtype=variance.dtype, device=variance.device)


def _degree_basis(degree: int) -> Tensor:
    """Ours to se3cnn's components: pole z in place of y, and a sign."""
    turn = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=torch.float64)
    return (-1.0) ** degree * wigner_matrix(degree, turn)


def _sign(out: int, inner: int, degree: int, couplings: Couplings | None) -> float:
    """Sign of our coupling tensor, in se3cnn's components, against theirs."""
    ours = torch.einsum(
        "ijk,ai,bj,ck->cab",
        coupling_tensor(inner, degree, out),
        _degree_basis(inner),
        _degree_basis(degree),
        _degree_basis(out),
    )
    if couplings is not None:
        if (out, inner, degree) not in couplings:
            raise ConfigError(f"couplings lack the tensor of degrees {(out, inner, degree)} (out, in, filter); add it.")
        theirs = couplings[out, inner, degree].reshape(ours.shape).to(ours)
        overlap = float((ours * theirs).sum() / theirs.norm())
        if abs(abs(overlap) - float(ours.norm())) > 1e-4:
            raise ConfigError(
                f"the coupling tensor {(out, inner, degree)} is not se3cnn's up to a sign; check component order."
            )
    else:
        overlap = float(ours.sum())
        if abs(overlap) < AMBIGUOUS:
            raise ConfigError(
                f"the sign of se3cnn's coupling {(out, inner, degree)} (out, in, filter) cannot be known: its entries "
                f"sum to 0; pass couplings, the tensors that the weights were trained with."
            )
    return 1.0 if overlap > 0 else -1.0


def _entry(state: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor of a state dict."""
    if name not in state:
        raise ConfigError(f"the state dict lacks {name!r}; it has {', '.join(sorted(state)) or 'nothing'}.")
    return state[name]
