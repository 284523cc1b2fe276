"""The rotations under which a particle looks the same: C, D, T, O, I, with the settings of RELION.

A group ``G`` of a volume acts on the right: the poses ``R`` and ``R h``, ``h`` in ``G``, give the same picture.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.rotations import geodesic_angle, rotation_about, rotation_from_vector

GOLDEN = (1.0 + math.sqrt(5.0)) / 2.0
KNOWN = "C1, C2 ..., D1, D2 ..., T, T-relion, O, I, I1, I2, I3, I4"
_LARGEST = 720
"""More elements than any group here (C and D up to 360)."""
_SAME = 1e-6
_GENERATORS: dict[str, tuple[tuple[int, tuple[float, float, float]], ...]] = {
    "T": ((2, (0.0, 0.0, 1.0)), (3, (1.0, 1.0, 1.0))),
    "T-RELION": ((3, (0.0, 0.0, 1.0)), (2, (0.0, math.sqrt(2.0), 1.0))),
    "O": ((4, (0.0, 0.0, 1.0)), (3, (1.0, 1.0, 1.0))),
    "I1": ((2, (1.0, 0.0, 0.0)), (5, (GOLDEN, 0.0, -1.0))),
    "I2": ((2, (0.0, 0.0, 1.0)), (5, (1.0, 0.0, GOLDEN))),
    "I3": ((5, (0.0, 0.0, 1.0)), (2, (-1.0, 0.0, GOLDEN))),
    "I4": ((5, (0.0, 0.0, 1.0)), (2, (1.0, 0.0, GOLDEN))),
}
"""Order and axis of rotations that generate a group."""


def point_group(name: str) -> Float[Tensor, "element 3 3"]:
    """Rotations of a point group, identity first, float64.

    C and D have their main axis along z, D a two-fold axis along x. T and O have their two- and four-fold axes along
    x, y, z. ``I`` is ``I2``: two-fold axes along x, y, z and a five-fold one in the plane of x and z, 31.7 degrees from
    z. ``I1`` is that turned by 90 degrees; ``I3`` and ``I4`` have a five-fold axis along z. RELION writes its
    tetrahedral group with a three-fold axis along z: ``T-relion``.

    Raises
    ------
    ConfigError
        If the name is unknown.

    Examples
    --------
    >>> [len(point_group(name)) for name in ("C1", "C7", "D2", "T", "O", "I1")]
    [1, 7, 4, 12, 24, 60]
    """
    return _elements(canonical_name(name)).clone()


def canonical_name(name: str) -> str:
    """The name as it is written in tables: capital letters, ``I`` as ``I2``.

    Raises
    ------
    ConfigError
        If no such group is known.
    """
    plain = name.strip().upper()
    plain = "I2" if plain == "I" else plain
    cyclic = re.fullmatch(r"([CD])0*([1-9]\d{0,2})", plain)
    if cyclic and int(cyclic[2]) <= 360:
        return f"{cyclic[1]}{int(cyclic[2])}"
    if plain not in _GENERATORS:
        raise ConfigError(f"the symmetry {name!r} is unknown; known are {KNOWN}.")
    return plain


def turn_between(first: str, second: str) -> Float[Tensor, "3 3"]:
    """Smallest rotation ``S`` that brings the axes of one setting onto those of another: ``second = S first S^T``.

    Found by matching axes, never by name: a volume in the setting ``first``, turned by ``S``, is in ``second``; a pose
    ``R`` of the first is the pose ``R S^T`` of the second.

    Raises
    ------
    ConfigError
        If a group is unknown, or the two are not the same group in two settings.
    """
    one, other = point_group(first), point_group(second)
    if len(one) != len(other):
        raise ConfigError(f"{first} has {len(one)} rotations and {second} {len(other)}; no turn makes one the other.")
    best, smallest = None, math.inf
    for candidate in _matchings(one, other):
        angle = float(geodesic_angle(candidate, torch.eye(3, dtype=torch.float64)))
        if angle < smallest - 1e-9 and _same_set(candidate @ one @ candidate.mT, other):
            best, smallest = candidate, angle
    if best is None:
        raise ConfigError(f"the axes of {first} and {second} do not match; they are different groups.")
    return best


def symmetric_angle(
    truth: Float[Tensor, "*batch 3 3"], predicted: Float[Tensor, "*batch 3 3"], group: Float[Tensor, "element 3 3"]
) -> Float[Tensor, "*batch"]:
    """Smallest angle [rad] between a pose and the poses ``truth h`` that a symmetric particle cannot tell from it."""
    variants = truth[..., None, :, :] @ group.to(truth)
    return geodesic_angle(variants, predicted[..., None, :, :].expand_as(variants)).amin(-1)


@lru_cache(maxsize=32)
def _elements(name: str) -> Tensor:
    """Closure of the generators, sorted by angle."""
    if name[0] in "CD" and name not in _GENERATORS:
        count = int(name[1:])
        turns = torch.stack([rotation_about("z", 360.0 * step / count) for step in range(count)])
        return turns if name[0] == "C" else torch.cat([turns, turns @ rotation_about("x", 180.0)])
    found = torch.eye(3, dtype=torch.float64)[None]
    generators = [_about(axis, order) for order, axis in _GENERATORS[name]]
    fresh = found
    while len(fresh) and len(found) <= _LARGEST:
        products = torch.cat([fresh @ generator for generator in generators])
        new = _new_ones(found, products)
        fresh = torch.stack(new) if new else products[:0]
        found = torch.cat([found, fresh])
    order = found.diagonal(dim1=-2, dim2=-1).sum(-1).argsort(descending=True, stable=True)
    return found[order]


def _new_ones(found: Tensor, products: Tensor) -> list[Tensor]:
    """Products that are no member yet, each once."""
    kept: list[Tensor] = []
    for product in products:
        known = torch.cat([found, torch.stack(kept)]) if kept else found
        if float((known - product).abs().amax((-2, -1)).min()) > _SAME:
            kept.append(product)
    return kept


def _about(axis: tuple[float, float, float], order: int) -> Tensor:
    direction = torch.tensor(axis, dtype=torch.float64)
    return rotation_from_vector(direction / direction.norm() * (2.0 * math.pi / order))


def _axes(group: Tensor) -> dict[int, Tensor]:
    """Unit axes (both directions) of every order in a group."""
    found: dict[int, list[Tensor]] = {}
    for element in group[1:]:
        angle = float(geodesic_angle(element, torch.eye(3, dtype=torch.float64)))
        order = round(2.0 * math.pi / angle)
        if order < 2 or abs(angle * order - 2.0 * math.pi) > 1e-6:
            continue
        values, vectors = torch.linalg.eigh(element + element.mT)
        axis = vectors[:, int(values.argmax())]
        for one in (axis, -axis):
            if not any(float((one - other).abs().max()) < _SAME for other in found.get(order, [])):
                found.setdefault(order, []).append(one)
    return {order: torch.stack(axes) for order, axes in found.items()}


def _matchings(one: Tensor, other: Tensor) -> list[Tensor]:
    """Rotations that bring two axes of a group onto two axes of the same orders of the other."""
    axes, targets = _axes(one), _axes(other)
    if not axes or set(axes) != set(targets):
        return [torch.eye(3, dtype=torch.float64)]
    orders = sorted(axes, reverse=True)
    first = axes[orders[0]][0]
    pairs = [(order, axis) for order in orders for axis in axes[order] if abs(float(axis @ first)) < 1.0 - 1e-6]
    if not pairs:
        second_order, second = 0, _perpendicular(first)
    else:
        second_order, second = pairs[0]
    frame = _frame(first, second)
    found = []
    for target in targets[orders[0]]:
        seconds = targets[second_order] if second_order else _perpendicular(target)[None]
        for partner in seconds:
            if abs(float(partner @ target) - float(second @ first)) < 1e-6:
                found.append(_frame(target, partner) @ frame.mT)
    return found


def _perpendicular(axis: Tensor) -> Tensor:
    least = torch.zeros(3, dtype=torch.float64)
    least[int(axis.abs().argmin())] = 1.0
    across = torch.linalg.cross(axis, least)
    return across / across.norm()


def _frame(first: Tensor, second: Tensor) -> Tensor:
    """Right-handed frame whose first axis is ``first`` and whose second lies in the plane of both."""
    across = second - (second @ first) * first
    across = across / across.norm()
    return torch.stack([first, across, torch.linalg.cross(first, across)], dim=1)


def _same_set(one: Tensor, other: Tensor) -> bool:
    distance = (one[:, None] - other[None]).abs().amax((-2, -1))
    return float(distance.amin(0).max()) < _SAME and float(distance.amin(1).max()) < _SAME
