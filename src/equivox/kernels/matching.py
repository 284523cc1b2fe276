"""Projection of sampled kernels onto those that are equivariant on smooth fields: moment matching.

A sampled kernel ``phi(|x|) Y^J(x / |x|)`` turns exactly with the symmetries of its grid and with no other rotation; for
``J = 2`` and above it is wrong even on the smoothest field. Matching replaces it by the nearest function that has the
symmetries of the grid and meets the moment conditions up to an order ``D``, which leaves an error ``~|w|^(D+2-J)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from equivox.errors import ConfigError
from equivox.kernels.moments import MatchedSpace, matched_space
from equivox.kernels.symmetry import symmetric_functions
from equivox.kernels.transfer import sphere_products

SMALLEST_KEEP = 0.3
"""An order is too high when matching keeps less than this of some function's norm."""
SMALLEST_SINGULAR_VALUE = 0.3
"""An order is too high when the matched functions come closer to linear dependence than this."""
HIGHEST_ORDER = 12
"""No order above it is tried; a single tap would meet every one."""
BAND_NODES = 10

Taps = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Matching:
    """Matched functions and how much they differ from the sampled ones.

    Parameters
    ----------
    functions
        Of unit norm, with positive overlap with the sampled ones.
    space
        The space that they were projected onto.
    keep
        Norm of each projection of a unit function.
    independence
        Smallest singular value of the matrix of matched functions: 1 if they are orthogonal, 0 if dependent.
    """

    functions: Float[np.ndarray, "functions dimension taps"]
    space: MatchedSpace
    keep: Float[np.ndarray, " functions"]
    independence: float

    @property
    def is_distinct(self) -> bool:
        """Whether the rule for orders accepts it."""
        return float(self.keep.min()) >= SMALLEST_KEEP and self.independence >= SMALLEST_SINGULAR_VALUE


@dataclass(frozen=True)
class BandPenalty:
    """Refinement: among matched functions, trade closeness to the sampled one for a small error in a whole band.

    Minimises ``|k - f|^2 + weight * integral_0^limit w^2 <|e(w)|^2> dw``, ``e`` as in :mod:`equivox.kernels.transfer`.

    Parameters
    ----------
    weight
        ``mu``.
    limit
        Highest frequency, radians per voxel of the finest axis.
    """

    weight: float = 1e4
    limit: float = 1.5

    def __post_init__(self) -> None:
        if not self.weight > 0 or not 0 < self.limit <= np.pi:
            raise ConfigError(
                f"a band penalty of weight {self.weight} up to {self.limit} rad/voxel does not exist; "
                f"give a positive weight and a limit up to pi, or None for no penalty."
            )


@dataclass(frozen=True)
class TapSpace:
    """Symmetric functions of one degree on some taps: where matching takes place; make it with :func:`tap_space`."""

    positions: Float[np.ndarray, "taps 3"]
    basis: Float[np.ndarray, "functions dimension taps"]

    @property
    def degree(self) -> int:
        """``J``."""
        return self.basis.shape[1] // 2

    def matched(self, order: int) -> MatchedSpace:
        """The part that meets the moment conditions up to ``order``."""
        return matched_space(self.basis, self.positions, order)

    def refusal(self, order: int) -> str | None:
        """Why no kernel of this order can be had, as one sentence, or ``None``."""
        space = self.matched(order)
        if space.useful:
            return None
        taps = len(self.positions)
        if not space.dimension:
            reason = f"no function on them meets the moment conditions of order {order}"
        else:
            reason = (
                f"all that the moment conditions of order {order} leave ({space.dimension}) have no moments at all: "
                f"they do not see smooth fields and do not turn with rough ones"
            )
        return (
            f"{taps} taps carry no equivariant kernel of degree {self.degree}, because {reason}; "
            f"take a kernel with more taps (on cubic voxels size 5 carries degree 3) or filters of lower degree (lmax)."
        )


@lru_cache(maxsize=64)
def tap_space(taps: Taps, degree: int) -> TapSpace:
    """Symmetric functions of one degree, cached by the value of the taps (in voxels of the finest axis)."""
    positions = np.array(taps, dtype=np.float64).reshape(-1, 3)
    return TapSpace(positions, symmetric_functions(positions, degree))


def match(
    sampled: Float[np.ndarray, "functions dimension taps"],
    space: TapSpace,
    order: int,
    penalty: BandPenalty | None = None,
) -> Matching:
    """Project sampled functions onto the matched ones.

    Parameters
    ----------
    sampled
        Linearly independent functions of the space's degree on its taps, of any norm.
    space
        From :func:`tap_space`.
    order
        Highest degree ``D`` of the moment conditions, ``J`` or ``J + 2`` or ...
    penalty
        Refinement; ``None`` is the orthogonal projection, the smallest change in the least-squares sense.

    Raises
    ------
    ConfigError
        If no useful function of that order exists.
    """
    _require_order(space.degree, order)
    refusal = space.refusal(order)
    if refusal is not None:
        raise ConfigError(refusal)
    unit = sampled / np.linalg.norm(sampled, axis=(1, 2), keepdims=True)
    start = np.einsum("dmt,fmt->df", space.basis, unit)
    matched = space.matched(order)
    rows = matched.combinations
    inside = rows @ start
    if penalty is not None:
        gram = rows @ _band_gram(space, penalty) @ rows.T
        inside = np.linalg.solve(np.eye(len(rows)) + penalty.weight * gram, inside)
    functions = np.einsum("df,dmt->fmt", rows.T @ inside, space.basis)
    keep = np.linalg.norm(functions, axis=(1, 2))
    functions = functions / np.maximum(keep, 1e-300)[:, None, None]
    functions = functions * np.where(np.einsum("fmt,fmt->f", functions, unit) < 0, -1.0, 1.0)[:, None, None]
    independence = float(np.linalg.svd(functions.reshape(len(functions), -1), compute_uv=False).min())
    return Matching(functions, matched, keep, independence)


def choose_order(sampled: Float[np.ndarray, "functions dimension taps"], space: TapSpace) -> int:
    """The highest order whose matched functions are useful, kept (0.3) and distinct (0.3).

    Raises
    ------
    ConfigError
        If not even order ``J`` has a useful function.
    """
    order = space.degree
    if space.refusal(order) is not None:
        raise ConfigError(str(space.refusal(order)))
    while (
        order + 2 <= HIGHEST_ORDER and space.refusal(order + 2) is None and match(sampled, space, order + 2).is_distinct
    ):
        order += 2
    return order


def orthonormal(
    functions: Float[np.ndarray, "functions dimension taps"],
) -> Float[np.ndarray, "functions dimension taps"]:
    """Gram-Schmidt in the given order (QR with a positive diagonal): the same span, orthonormal, portable."""
    rows: list[np.ndarray] = []
    for function in functions:
        rest = function.copy()
        for _ in range(2):  # twice is enough
            for row in rows:
                rest = rest - row * (row * rest).sum()
        rows.append(rest / np.sqrt((rest * rest).sum()))
    return np.array(rows).reshape(functions.shape)


def _band_gram(space: TapSpace, penalty: BandPenalty) -> np.ndarray:
    """Products ``integral_0^limit w^2 <e_a . e_b> dw`` of the symmetric functions."""
    nodes, weights = np.polynomial.legendre.leggauss(BAND_NODES)
    frequencies = 0.5 * penalty.limit * (nodes + 1)
    residual, _ = sphere_products(space.basis, space.positions, [float(w) for w in frequencies])
    return np.einsum("w,wab->ab", 0.5 * penalty.limit * weights * frequencies**2, residual)


def _require_order(degree: int, order: int) -> None:
    """Orders go ``J, J + 2, ...``."""
    if order < degree or (order - degree) % 2:
        raise ConfigError(
            f"moments of a kernel of degree {degree} are matched up to order {degree}, {degree + 2} ...; got {order}."
        )
