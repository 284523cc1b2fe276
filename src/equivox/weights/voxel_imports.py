"""Single layers of two other libraries as ours: e3nn's voxel convolution and se3cnn's convolution.

What carries over exactly, and what has to be said:

* e3nn: channel order and components are ours. Harmonics must be ``0e+1o+2e...`` (O(3)) or all even between even
  layouts (SO(3)). Its older form divides by the root of the tap count and multiplies by 0.1; weights are scaled.
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
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irrep, Irreps, IrrepsLike
from equivox.geometry.wigner import coupling_tensor, wigner_matrix
from equivox.kernels.basis3d import pair_basis
from equivox.kernels.one_hot import SoftOneHot
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
        As it was made; harmonics each once, from degree 0 upwards.
    diameter, num_radial_basis, steps
        As it was made (mm). For version 2103: ``diameter`` is the number of taps along an axis, steps are equal.
    radial
        Another family than its smooth-finite bumps with cutoff.
    version
        ``"2103"``: the older form, with 0.1 before the convolution.

    Raises
    ------
    ConfigError
        If harmonics or parities are such that no layer of ours has the same paths, or weights do not fit.
    """
    layouts = [Irreps(irreps_in), Irreps(irreps_out)]
    harmonics = Irreps(irreps_sh)
    lmax = _highest(harmonics)
    if harmonics.is_so3 or all(irrep.parity == (-1) ** irrep.degree for _, irrep in harmonics):
        pass
    elif all(irrep.parity == 1 for layout in (*layouts, harmonics) for _, irrep in layout):
        layouts = [Irreps([(count, Irrep(irrep.degree, 0)) for count, irrep in layout]) for layout in layouts]
    else:
        raise ConfigError(
            f"harmonics {harmonics} between {layouts[0]} and {layouts[1]} have parities that no layer here has; only "
            f"0e+1o+2e... , or even harmonics between even layouts, can be imported."
        )
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
        lmax=lmax,
        self_connection=True,
        dtype=state["weight"].dtype if "weight" in state else None,
    )
    weight, mixing = _entry(state, "weight"), _entry(state, "sc.weight")
    assert layer.self_connection is not None
    if weight.shape != layer.weight.shape or mixing.numel() != layer.self_connection.numel():
        raise ConfigError(
            f"e3nn weights {tuple(weight.shape)} and {tuple(mixing.shape)} do not fit {layouts[0]} -> {layouts[1]} "
            f"with {num_radial_basis} radial functions, which has {tuple(layer.weight.shape)} and "
            f"{tuple(layer.self_connection.shape)}; check irreps, harmonics and num_radial_basis."
        )
    with torch.no_grad():
        layer.weight.copy_(weight * (0.1 * layer.grid.count**0.5 if version == "2103" else 1.0))
        layer.self_connection.copy_(mixing.reshape(-1))
    return layer


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


def _highest(harmonics: Irreps) -> int:
    """Highest degree of harmonics that are one of each degree, ascending."""
    degrees = [irrep.degree for _, irrep in harmonics]
    if degrees != list(range(len(degrees))) or any(count != 1 for count, _ in harmonics):
        raise ConfigError(
            f"harmonics {harmonics} are not one of each degree from 0 upwards, the only order that is read."
        )
    return len(degrees) - 1


def _entry(state: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor of a state dict."""
    if name not in state:
        raise ConfigError(f"the state dict lacks {name!r}; it has {', '.join(sorted(state)) or 'nothing'}.")
    return state[name]
