"""Real spherical harmonics as polynomials in (x, y, z), to any degree.

The polar axis is **y** and degree 1 is ordered (x, y, z), so a vector feature is literally (x, y, z)
(``docs/conventions``; e3nn uses the same order and signs). There is no Condon-Shortley phase.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError

Normalization = Literal["component", "norm", "integral"]


def spherical_harmonics(
    degree: int | Sequence[int],
    points: Float[Tensor, "*batch 3"],
    *,
    normalization: Normalization = "component",
    normalize: bool = True,
) -> Float[Tensor, "*batch dimension"]:
    """Evaluate real spherical harmonics at points.

    Parameters
    ----------
    degree
        One degree ``l >= 0``, or several, whose components are concatenated in the given order.
    points
        (x, y, z). The origin gives 1 for degree 0 (times the normalisation) and 0 above.
    normalization
        ``"component"``: the squares of the ``2 l + 1`` components add up to ``2 l + 1``; ``"norm"``: to 1;
        ``"integral"``: the integral of each component's square over the sphere is 1.
    normalize
        Whether points are first scaled to length 1. Without it the result is the homogeneous polynomial,
        proportional to ``|p|^l``.

    Returns
    -------
    Components ``m = -l ... l`` of each degree, in the dtype and on the device of ``points``.

    Raises
    ------
    ConfigError
        If a degree is negative.

    Examples
    --------
    >>> spherical_harmonics(1, torch.tensor([[0.0, 0.0, 2.0]]), normalization="norm")
    tensor([[0., 0., 1.]])
    """
    degrees = [degree] if isinstance(degree, int) else list(degree)
    if any(entry < 0 for entry in degrees):
        raise ConfigError(f"spherical harmonics of degree {min(degrees)} do not exist; degrees are 0, 1, 2 ...")
    if normalize:
        length = points.norm(dim=-1, keepdim=True)
        points = points / torch.where(length > 0, length, torch.ones_like(length))
    x, y, z = points.unbind(-1)
    pieces = {entry: _solid_harmonics(entry, x, y, z) for entry in set(degrees)}
    scale = {"component": 1.0, "integral": 1.0 / math.sqrt(4.0 * math.pi)}
    return torch.cat(
        [pieces[entry] * scale.get(normalization, 1.0 / math.sqrt(2 * entry + 1)) for entry in degrees], dim=-1
    )


def _solid_harmonics(degree: int, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Component-normalised homogeneous polynomials of one degree, shape (*batch, 2 l + 1).

    With pole Y and azimuth in the plane (z, x): ``N r^(l-a) P_l^(a)(y / r) Re or Im (z + i x)^a`` where ``P_l^(a)`` is
    the a-th derivative of the Legendre polynomial (research: real harmonics, pole on the last axis).
    """
    squared_radius = x * x + y * y + z * z
    cosine, sine = torch.ones_like(x), torch.zeros_like(x)
    components: list[Tensor] = [x] * (2 * degree + 1)
    for order in range(degree + 1):
        legendre = _solid_legendre(degree, order, y, squared_radius)
        ratio = math.factorial(degree - order) / math.factorial(degree + order)
        norm = math.sqrt((2 * degree + 1) * ratio * (2.0 if order else 1.0))
        components[degree + order] = norm * legendre * cosine
        if order:
            components[degree - order] = norm * legendre * sine
        cosine, sine = cosine * z - sine * x, cosine * x + sine * z
    return torch.stack(components, dim=-1)


def _solid_legendre(degree: int, order: int, pole: Tensor, squared_radius: Tensor) -> Tensor:
    """``r^(l - a)`` times the a-th derivative of the Legendre polynomial at ``pole / r``, by recursion in degree."""
    previous = torch.zeros_like(pole)
    current = torch.full_like(pole, math.prod(range(1, 2 * order, 2)))
    for step in range(order + 1, degree + 1):
        following = ((2 * step - 1) * pole * current - (step + order - 1) * squared_radius * previous) / (step - order)
        previous, current = current, following
    return current
