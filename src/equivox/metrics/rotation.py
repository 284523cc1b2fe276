"""How far two rotations are apart: the geodesic angle, and an older number that only looks like one.

The geodesic angle is the metric of this project. The mean of absolute Euler angles is kept to compare with published
training curves; it depends on the axis and is about three times smaller for a small turn about one axis.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotations import geodesic_angle


def geodesic_error_deg(
    truth: Float[Tensor, "*batch 3 3"], predicted: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch"]:
    """Angle in degrees, in [0, 180], of the rotation between the two; computed in float64.

    Examples
    --------
    >>> from equivox.geometry.rotations import rotation_about
    >>> geodesic_error_deg(torch.eye(3), rotation_about("x", 90.0).float())
    tensor(90., dtype=torch.float64)
    """
    return torch.rad2deg(geodesic_angle(truth.double(), predicted.double()))


def euler_mean_error_deg(
    truth: Float[Tensor, "*batch 3 3"], predicted: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch"]:
    """Mean of absolute intrinsic XYZ Euler angles in degrees, averaged over both directions: not an angle.

    ``mean_i (|e_i(T P^T)| + |e_i(P T^T)|) / 2`` with ``R = Rx(e_1) Ry(e_2) Rz(e_3)``. A turn by 10 degrees gives 3.3
    to 5.8, one by 180 degrees gives 60 to 90; use :func:`geodesic_error_deg` to judge, this one to compare.
    """
    truth, predicted = truth.double(), predicted.double()
    forth = _euler_intrinsic_xyz(truth @ predicted.mT)
    back = _euler_intrinsic_xyz(predicted @ truth.mT)
    return torch.rad2deg(0.5 * (forth.abs() + back.abs())).mean(-1)


def _euler_intrinsic_xyz(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Angles [rad] with ``R = Rx(a) Ry(b) Rz(c)``."""
    a = torch.atan2(-rotation[..., 1, 2], rotation[..., 2, 2])
    b = torch.asin(rotation[..., 0, 2].clamp(-1.0, 1.0))
    c = torch.atan2(-rotation[..., 0, 1], rotation[..., 0, 0])
    return torch.stack([a, b, c], dim=-1)
