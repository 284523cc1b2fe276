"""Grids of rotations: named sets of members of SO(3) with what is exact about them.

A grid knows its covering radius (exactly), which symmetries of the image plane permute its members, the member nearest
to a rotation, and the volume that each member stands for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import ConfigError, GeometryError, did_you_mean
from equivox.geometry.rotations import quaternion_from_rotation, rotation_about
from equivox.geometry.so3_grid_points import (
    fibonacci_grid,
    group_rotations,
    healpix_hopf_grid,
    mirrored_fibonacci_grid,
    optimised_grid,
    super_fibonacci_grid,
)

CLOSURE_TOLERANCE = 1e-9
"""How far two matrices may be apart, entry by entry, and still be the same member."""
PRODUCT_LIMIT = 4608
"""Up to here the nearest member is found by one matrix product, above by a tree over quaternions of both signs."""
SAMPLES_PER_MEMBER = 200
TREE_FROM = 256
"""For so many queries at once a tree is faster than the product from this size on."""
PATTERNS = "fibonacci-<directions>x<angles>, d4-fibonacci-<directions>x<angles>, superfibonacci-<n>, healpix-<nside>, "
PATTERNS += "d4opt-<n>, C<n>, D<n>, T, O, I"


@dataclass(frozen=True, eq=False)
class RotationGrid:
    """A set of rotations; image index ``r`` means pose ``matrices[r]``.

    Parameters
    ----------
    name
        What :func:`rotation_grid` calls it.
    matrices
        Members, float64, acting on column vectors from the left.
    symmetry
        Group that acts from the right and under which members count as equal (a symmetric particle); default: none.
    """

    name: str
    matrices: Float[Tensor, "rotation 3 3"]
    symmetry: Float[Tensor, "member 3 3"] | None = None

    def __len__(self) -> int:
        """Number of members."""
        return len(self.matrices)

    @cached_property
    def quaternions(self) -> Float[Tensor, "rotation 4"]:
        """Members as quaternions (x, y, z, w), ``w >= 0``."""
        return quaternion_from_rotation(self.matrices)

    @cached_property
    def weights(self) -> Float[Tensor, "rotation"]:
        """Share of SO(3) that each member is nearest to; they add up to 1.

        Exactly equal for groups; else counted over a spiral of 200 rotations per member and averaged over the
        symmetries of the image plane that the grid is closed under, so that those stay exact.
        """
        count = len(self)
        if self.symmetry is None and (count == 1 or self._is_group()):
            return torch.full((count,), 1.0 / count, dtype=torch.float64)
        samples = super_fibonacci_grid(max(SAMPLES_PER_MEMBER * count, 20_000))
        if count > TREE_FROM:
            nearest = self._nearest_by_tree(quaternion_from_rotation(samples)) % count
        else:
            nearest = self.nearest(samples)
        share = torch.bincount(nearest, minlength=count).double() / len(nearest)
        orders = [self.permutation(turn) for turn in self._plane_symmetries()]
        return torch.stack([share[order] for order in orders]).mean(dim=0) if orders else share

    def covering_radius_deg(self) -> float:
        """Largest distance [deg] of any rotation from its nearest member: exact, from the hull of ``{+q, -q}``."""
        from scipy.spatial import ConvexHull, QhullError

        members = self._with_symmetry()
        if len(members) < 4:
            return 180.0
        try:
            hull = ConvexHull(torch.cat([members, -members]).numpy())
        except QhullError:  # all members lie in a plane: a group of turns about one axis
            return 180.0
        return math.degrees(2.0 * math.acos(min(float((-hull.equations[:, -1]).min()), 1.0)))

    def permutation(self, element: Float[Tensor, "3 3"]) -> Int[Tensor, "rotation"]:
        """Where each member goes: ``element @ matrices[r]`` is ``matrices[permutation[r]]`` (up to :attr:`symmetry`).

        Raises
        ------
        GeometryError
            If the grid is not closed under this rotation.
        """
        moved = element.double() @ self.matrices
        order = self.nearest(moved)
        reached = self.matrices[order]
        copies = reached[:, None] if self.symmetry is None else reached[:, None] @ self.symmetry
        apart = float((copies - moved[:, None]).abs().amax(dim=(2, 3)).amin(dim=1).max())
        if apart > CLOSURE_TOLERANCE or len(order.unique()) != len(order):
            raise GeometryError(
                f"the grid {self.name} is not closed under this rotation (a member lands {apart:.2g} away from the "
                f"nearest one); take a d4opt or d4-fibonacci grid, or the group O."
            )
        return order

    def is_closed(self, elements: Float[Tensor, "element 3 3"]) -> bool:
        """Whether every one of these rotations permutes the members."""
        try:
            for element in elements:
                self.permutation(element)
        except GeometryError:
            return False
        return True

    def nearest(self, matrices: Float[Tensor, "query 3 3"]) -> Int[Tensor, "query"]:
        """Index of the member at the smallest distance from each rotation; of equal ones the lowest."""
        queries = quaternion_from_rotation(matrices.double())
        members = self._with_symmetry()
        if len(members) > PRODUCT_LIMIT:
            return self._nearest_by_tree(queries) % len(self)
        found = []
        for part in queries.split(max(2**24 // len(members), 1)):
            cosine = (part @ members.mT).abs().unflatten(1, (-1, len(self))).amax(dim=1)
            best = cosine.amax(dim=1, keepdim=True)
            found.append((cosine >= best - 1e-12).to(torch.uint8).argmax(dim=1))
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)

    def subset(self, indices: Sequence[int] | Int[Tensor, "kept"], name: str | None = None) -> RotationGrid:
        """Some members, in the order given."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return RotationGrid(
            f"{self.name}[{len(chosen)}]" if name is None else name, self.matrices[chosen], self.symmetry
        )

    def coset_reduce(self, group: Float[Tensor, "member 3 3"], name: str) -> RotationGrid:
        """Leave out members that a particle with this symmetry cannot tell apart: ``R`` and ``R h`` look the same.

        A grid that the group permutes from the right keeps one member per coset (and with it every symmetry of the
        image plane); of any other grid the members of one zone stay, which the symmetries of the image plane map to
        itself: about ``1 / |group|`` of them, twice that if the group turns views over.

        Parameters
        ----------
        group
            All members of the group.
        name
            Its name, for :attr:`name`.
        """
        group = group.double()
        inverted = RotationGrid(self.name, self.matrices.mT.contiguous())
        if inverted.is_closed(group.mT):
            orders = torch.stack([inverted.permutation(member) for member in group.mT])
            kept = torch.nonzero(orders.amin(dim=0) == torch.arange(len(self)))[:, 0]
        else:
            towards = torch.nn.functional.normalize(torch.tensor([0.31, 0.17, 0.93], dtype=torch.float64), dim=0)
            views = (self.matrices[:, None] @ group)[..., 2, :]  # seen from along the z axis, in the body's frame
            level = (views @ towards).abs()  # blind to in-plane turns and mirrors, so that they stay symmetries
            kept = torch.nonzero(level[:, _identity_index(group)] >= level.amax(dim=1) - 1e-9)[:, 0]
        return replace(self.subset(kept, f"{self.name}/{name}"), symmetry=group)

    def _is_group(self) -> bool:
        """Whether members permute each other."""
        return len(self) <= 120 and self.is_closed(self.matrices)

    def _plane_symmetries(self) -> list[Tensor]:
        """In-plane turns and mirrors, identity included, that permute the members."""
        flip = rotation_about("y", 180.0)
        turns = [torch.eye(3, dtype=torch.float64)]
        for count in (48, 24, 16, 12, 10, 8, 6, 5, 4, 3, 2):
            if self.is_closed(rotation_about("z", 360.0 / count)[None]):
                turns = [rotation_about("z", 360.0 * step / count) for step in range(count)]
                break
        return turns + [flip @ turn for turn in turns] if self.is_closed(flip[None]) else turns

    def _with_symmetry(self) -> Tensor:
        """Quaternions of all members times every element of the symmetry: element by element, members inside."""
        if self.symmetry is None:
            return self.quaternions
        return quaternion_from_rotation((self.matrices[None] @ self.symmetry[:, None]).flatten(0, 1))

    def _nearest_by_tree(self, queries: Tensor) -> Tensor:
        """Index into members (with symmetry), through a tree that holds both signs."""
        found = torch.from_numpy(self._tree.query(queries.numpy())[1]).long()
        return found % len(self._with_symmetry())

    @cached_property
    def _tree(self):  # type: ignore[no-untyped-def]
        from scipy.spatial import cKDTree

        members = self._with_symmetry()
        return cKDTree(torch.cat([members, -members]).numpy())

    def __deepcopy__(self, memo: dict[int, object]) -> RotationGrid:
        """Itself: a grid never changes, and what is computed for it is kept by identity."""
        return self

    def __repr__(self) -> str:
        """Name and size."""
        return f"RotationGrid({self.name!r}, rotations={len(self)})"


def square_group() -> Float[Tensor, "8 3 3"]:
    """The square's symmetries as rotations: turns by 0, 90, 180, 270 degrees, then each after a half turn about y.

    ``Ry(180)`` shows an object from behind, which mirrors its projection: x goes to -x.
    """
    turns = [rotation_about("z", 90.0 * step) for step in range(4)]
    return torch.stack([*turns, *(rotation_about("y", 180.0) @ turn for turn in turns)])


@lru_cache(maxsize=64)
def rotation_grid(name: str) -> RotationGrid:
    """A grid by name.

    Parameters
    ----------
    name
        ``"fibonacci-32x8"`` (directions x in-plane angles; closed under in-plane turns by 1/8), ``"d4-fibonacci-8x8"``
        (closed under mirrors too), ``"superfibonacci-64"``, ``"healpix-1"`` (nside 1, 2, 4 …: 72, 576, 4608 …
        rotations), ``"d4opt-64"`` (optimised tables of 16, 24, 32, 64, 72, 128, 256, 576, closed under the square's
        symmetries), or a group: ``"C4"``, ``"D4"``, ``"T"``, ``"O"``, ``"I"``. Fibonacci grids may be named by their
        size alone (``"fibonacci-64"``); the number of in-plane angles is then a multiple of 4 near ``(pi n)^(1/3)``.

    Raises
    ------
    ConfigError
        If no grid has this name.

    Examples
    --------
    >>> grid = rotation_grid("O")
    >>> len(grid), round(grid.covering_radius_deg(), 1)
    (24, 62.8)
    """
    family, _, size = name.rpartition("-")
    numbers = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", size)
    if name in ("T", "O", "I") or re.fullmatch(r"[CD][1-9]\d*", name):
        return RotationGrid(name, group_rotations(name).clone())
    if numbers and family in ("fibonacci", "d4-fibonacci"):
        points, steps = (int(numbers[1]), int(numbers[2])) if numbers[2] else _split(int(numbers[1]), family)
        make = fibonacci_grid if family == "fibonacci" else mirrored_fibonacci_grid
        return RotationGrid(name, make(points, steps))
    if numbers and not numbers[2]:
        count = int(numbers[1])
        for known, make_one in (
            ("superfibonacci", super_fibonacci_grid),
            ("healpix", healpix_hopf_grid),
            ("d4opt", optimised_grid),
        ):
            if family == known:
                return RotationGrid(name, make_one(count))
    hint = did_you_mean(name, ("fibonacci-8x8", "d4-fibonacci-8x8", "superfibonacci-64", "healpix-1", "d4opt-64"))
    raise ConfigError(f"there is no grid of rotations named {name!r}{hint}; known are {PATTERNS}.")


def _split(count: int, family: str) -> tuple[int, int]:
    """Directions and in-plane angles whose product is ``count``; angles a multiple of 4 near the best number."""
    best = (math.pi * count) ** (1.0 / 3.0)
    choices = [
        steps
        for steps in range(4, count + 1, 4)
        if count % steps == 0 and (family == "fibonacci" or (count // steps) % 2 == 0)
    ]
    if not choices:
        raise ConfigError(f"{family}-{count} cannot be split into directions and a multiple of 4 angles; try 16, 64.")
    steps = min(choices, key=lambda choice: abs(math.log(choice / best)))
    return count // steps, steps


def _identity_index(group: Tensor) -> int:
    """Which member is the identity."""
    return int((group - torch.eye(3, dtype=torch.float64)).abs().amax(dim=(1, 2)).argmin())
