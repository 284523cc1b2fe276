"""What can be promised of imported weights without data: equivariance under the symmetries of the cube."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

import equivox
from equivox.geometry.irreps import Irreps
from equivox.geometry.rotations import rotation_about
from equivox.geometry.wigner import irreps_matrix
from equivox.nets.pose import PoseNet

TOLERANCE = 1e-4
"""Largest relative error of a rotation, in float32 through the whole network."""


@torch.inference_mode()
def certify_cube(network: nn.Module) -> dict[str, Any]:
    """Measure a PoseNet's equivariance on white noise: three rotations that generate the cube's 24, and a mirror.

    Relative error ``max |f(g x) - g f(x)| / max |f(x)|`` of the feature map, and the same for a plain convolution of
    random weights, which must fail. Generic angles say nothing of an untrained network and need data for a trained
    one; they are not measured here.

    Raises
    ------
    TypeError
        If the network is not a PoseNet.
    """
    if not isinstance(network, PoseNet):
        raise TypeError(f"expected a PoseNet, got {type(network).__name__}")
    side = 2 ** (network.poolings + 1)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 1, side, side, side, generator=generator)
    control = torch.randn(network.irreps_out.dimension, 1, 3, 3, 3, generator=generator)
    elements = {
        "quarter turn about x": rotation_about("x", 90.0),
        "half turn about y": rotation_about("y", 180.0),
        "third of a turn about (1, 1, 1)": rotation_about("x", 90.0) @ rotation_about("y", 90.0),
        "mirror in x": torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)),
    }
    plain = torch.nn.functional.conv3d(image, control, padding=1)
    before = network(image)
    errors, plain_errors = {}, {}
    for name, element in elements.items():
        if network.irreps_out.is_so3 and float(torch.linalg.det(element)) < 0:
            continue
        turned = turn_field(image, Irreps("1x0" if network.irreps_out.is_so3 else "1x0e"), element)
        errors[name] = _relative(network(turned), turn_field(before, network.irreps_out, element))
        after = torch.nn.functional.conv3d(turned, control, padding=1)
        plain_errors[name] = _relative(after, turn_field(plain, network.irreps_out, element))
    rotations = [error for name, error in errors.items() if not name.startswith("mirror")]
    return {
        "equivox_version": equivox.__version__,
        "input": f"white noise, {side} voxels a side, float32",
        "network": "rotate",
        "relative_error": errors,
        "plain_convolution_relative_error": plain_errors,
        "tolerance": TOLERANCE,
        "rotations_hold": max(rotations) <= TOLERANCE,
        "mirror_holds": max(errors.values()) <= TOLERANCE,
        "generic_angles": "not measured: needs data",
    }


def turn_field(
    field: Float[Tensor, "batch channel x y z"], irreps: Irreps, element: Float[Tensor, "3 3"]
) -> Float[Tensor, "batch channel x2 y2 z2"]:
    """Turn a field by a symmetry of the cube, exactly: voxels are permuted and components mixed."""
    source = element.abs().argmax(dim=1).tolist()  # output axis a runs along input axis source[a]
    moved = field.permute(0, 1, *(2 + axis for axis in source))
    flips = [2 + axis for axis in range(3) if float(element[axis, source[axis]]) < 0]
    matrix = irreps_matrix(irreps, element).to(field)
    return torch.einsum("ij,bjxyz->bixyz", matrix, moved.flip(flips))


def _relative(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max() / second.abs().max().clamp_min(1e-30))
