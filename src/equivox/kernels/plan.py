"""Which paths a layer has, where their weights lie, and which channels are convolved together.

A :class:`KernelPlan` lists the pairs of channel blocks that a layer connects, and sorts them into *groups* that one
convolution each computes. Channels that no path reaches or reads are in no group. Where parity forbids many pairs,
several smaller convolutions cost less than one with zeros in its kernel.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irreps
from equivox.kernels.basis3d import DEAD, filter_degrees, pair_basis
from equivox.kernels.one_hot import SoftOneHot
from equivox.kernels.radial import RadialFamily, SmoothFinite
from equivox.kernels.sampled import TapFamily
from equivox.kernels.taps import TapGrid

Scaling = Literal["published", "unit"]
PATH_FAMILIES = (SmoothFinite, SoftOneHot)
"""Families of e3nn: weights (radial functions, n_w) path by path; all others are flat, block by block."""

CHANNEL_BLOCK = 16
"""Convolutions round channel counts up to the width of a vector register; measured to predict their time within 5 %."""
COPY_COST = 64.0
"""Multiplications that cost as much as copying one channel's value to or from a group."""
_PLANS: dict[str, KernelPlan] = {}


@dataclass(frozen=True, slots=True)
class PairTerm:
    """One pair of blocks: where its weights lie, which basis it uses, where its kernel block goes."""

    block_in: int
    block_out: int
    weight_slices: tuple[slice, ...]
    degrees: tuple[int, ...]
    elements: int
    scale: float


@dataclass(frozen=True, slots=True)
class SelfTerm:
    """Point-wise mixing of two blocks of equal irrep, added to the centre tap."""

    block_in: int
    block_out: int
    weights: slice
    scale: float


@dataclass(frozen=True, slots=True)
class KernelGroup:
    """Blocks that one convolution joins: every output block of the group reads from its input blocks only."""

    blocks_in: tuple[int, ...]
    blocks_out: tuple[int, ...]


@dataclass(frozen=True)
class KernelPlan:
    """Everything that ``assembly.assemble`` needs, apart from the weights; immutable and shared between equal layers.

    ``weight_shape`` is (radial functions, n_w) path by path for e3nn's families (its layout, so published
    weights are copied as they are) and (n,) block by block for all others.
    """

    irreps_in: Irreps
    irreps_out: Irreps
    grid: TapGrid
    radial: RadialFamily | TapFamily
    pairs: tuple[PairTerm, ...]
    self_terms: tuple[SelfTerm, ...]
    weight_shape: tuple[int, ...]
    self_count: int
    by_shell: bool
    unit_norm: bool
    groups: tuple[KernelGroup, ...]
    made_of: tuple[Any, ...]
    key: str

    def __reduce__(self) -> tuple[Callable[..., KernelPlan], tuple[Any, ...]]:
        """Copies and pickles are made anew from what the plan was made of."""
        return (make_plan, self.made_of)

    @property
    def active_in(self) -> tuple[int, ...]:
        """Input blocks that some path reads."""
        return tuple(sorted({block for group in self.groups for block in group.blocks_in}))

    @property
    def active_out(self) -> tuple[int, ...]:
        """Output blocks that some path reaches."""
        return tuple(sorted({block for group in self.groups for block in group.blocks_out}))

    def kernel_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(out channels, in channels, taps) of every group's kernel."""
        return tuple(
            (_width(self.irreps_out, group.blocks_out), _width(self.irreps_in, group.blocks_in), self.grid.count)
            for group in self.groups
        )


@lru_cache(maxsize=256)
def make_plan(
    irreps_in: Irreps,
    irreps_out: Irreps,
    grid: TapGrid,
    radial: RadialFamily | TapFamily,
    lmax: int | None,
    self_connection: bool,
    scaling: Scaling,
) -> KernelPlan:
    """Enumerate the paths of a layer (e3pose 5.5 for smooth-finite radials, steerable 1.6 for Gaussian shells).

    Raises
    ------
    ConfigError
        If SO(3) and O(3) layouts meet, or a self-connection is asked of a kernel without a centre tap.
    """
    if len(irreps_in) and len(irreps_out) and irreps_in.is_so3 != irreps_out.is_so3:
        raise ConfigError(
            f"a layer from {irreps_in} to {irreps_out} mixes SO(3) and O(3); give both sides parity or none."
        )
    if self_connection and grid.center is None:
        raise ConfigError(f"a self-connection needs a centre tap; kernel size {grid.taps} has an even axis.")
    by_shell = not isinstance(radial, PATH_FAMILIES)
    pairs, weight_shape = (_shell_pairs if by_shell else _path_pairs)(irreps_in, irreps_out, grid, radial, lmax)
    if scaling == "unit":
        pairs = _unit_scales(pairs, irreps_in, irreps_out, grid, radial)
    self_terms, self_count = _self_terms(irreps_in, irreps_out) if self_connection else ((), 0)
    terms: list[PairTerm | SelfTerm] = [*pairs, *self_terms]
    made_of = (irreps_in, irreps_out, grid, radial, lmax, self_connection, scaling)
    key = hashlib.sha256(repr((str(irreps_in), str(irreps_out), *made_of[2:])).encode()).hexdigest()
    plan = KernelPlan(
        irreps_in=irreps_in,
        irreps_out=irreps_out,
        grid=grid,
        radial=radial,
        pairs=tuple(pairs),
        self_terms=self_terms,
        weight_shape=weight_shape,
        self_count=self_count,
        by_shell=by_shell,
        unit_norm=by_shell or scaling == "unit",
        groups=_make_groups(terms, irreps_in, irreps_out, grid.count),
        made_of=made_of,
        key=key,
    )
    return _PLANS.setdefault(key, plan)


def plan_of(key: str) -> KernelPlan:
    """The plan of a key, among those made in this process."""
    return _PLANS[key]


def _width(layout: Irreps, blocks: Iterable[int]) -> int:
    """Channels of some blocks."""
    return sum(layout[block][0] * layout[block][1].dimension for block in blocks)


def _make_groups(
    terms: Sequence[PairTerm | SelfTerm], irreps_in: Irreps, irreps_out: Irreps, taps: int
) -> tuple[KernelGroup, ...]:
    """One group, or several if the model of cost says that they are at least 5 % cheaper.

    Output blocks with the same inputs start as a group; groups are merged while that lowers the cost.
    """
    reads: dict[int, set[int]] = {}
    for term in terms:
        reads.setdefault(term.block_out, set()).add(term.block_in)
    if not reads:
        return ()
    together = _group([(frozenset().union(*reads.values()), tuple(sorted(reads)))])
    by_reads: dict[frozenset[int], tuple[int, ...]] = {}
    for block_out in sorted(reads):
        key = frozenset(reads[block_out])
        by_reads[key] = (*by_reads.get(key, ()), block_out)
    parts = list(by_reads.items())

    def cost(candidate: Sequence[tuple[frozenset[int], tuple[int, ...]]]) -> float:
        total = 0.0
        for blocks_in, blocks_out in candidate:
            wide_in, wide_out = _width(irreps_in, blocks_in), _width(irreps_out, blocks_out)
            total += taps * math.ceil(wide_in / CHANNEL_BLOCK) * math.ceil(wide_out / CHANNEL_BLOCK) * CHANNEL_BLOCK**2
            total += COPY_COST * (wide_in + wide_out) if len(candidate) > 1 else 0.0
        return total

    while len(parts) > 1:
        merged = [
            [p for p in parts if p not in (one, two)] + [(one[0] | two[0], tuple(sorted(one[1] + two[1])))]
            for one, two in itertools.combinations(parts, 2)
        ]
        best = min(merged, key=cost)
        if cost(best) >= cost(parts):
            break
        parts = best
    single = [(frozenset(together[0].blocks_in), together[0].blocks_out)]
    return _group(parts) if cost(parts) < 0.95 * cost(single) else together


def _group(parts: Iterable[tuple[frozenset[int], tuple[int, ...]]]) -> tuple[KernelGroup, ...]:
    """Groups with their blocks in memory order."""
    return tuple(KernelGroup(tuple(sorted(blocks_in)), blocks_out) for blocks_in, blocks_out in parts)


def _path_pairs(
    irreps_in: Irreps, irreps_out: Irreps, grid: TapGrid, radial: RadialFamily | TapFamily, lmax: int | None
) -> tuple[list[PairTerm], tuple[int, ...]]:
    """e3nn's order: input block, filter degree, output block; one (copies in, copies out) slice per path."""
    found: dict[tuple[int, int], list[tuple[int, slice]]] = {}
    fan_in = [0] * len(irreps_out)
    offset = 0
    highest = max((ir.degree for _, ir in irreps_in), default=0) + max((ir.degree for _, ir in irreps_out), default=0)
    for a, (mul_in, irrep_in) in enumerate(irreps_in):
        for degree in range((highest if lmax is None else lmax) + 1):
            for b, (mul_out, irrep_out) in enumerate(irreps_out):
                if degree in filter_degrees(irrep_in, irrep_out, lmax) and mul_in * mul_out:
                    found.setdefault((a, b), []).append((degree, slice(offset, offset + mul_in * mul_out)))
                    fan_in[b] += mul_in
                    offset += mul_in * mul_out
    pairs = []
    for (a, b), paths in found.items():
        scale = math.sqrt(irreps_out[b][1].dimension / fan_in[b]) / grid.count
        degrees, slices = zip(*paths, strict=True)
        pairs.append(PairTerm(a, b, slices, degrees, len(paths) * radial.count, scale))
    return pairs, (radial.count, offset)


def _shell_pairs(
    irreps_in: Irreps, irreps_out: Irreps, grid: TapGrid, radial: RadialFamily | TapFamily, lmax: int | None
) -> tuple[list[PairTerm], tuple[int, ...]]:
    """Order of 3D steerable CNNs: output block, input block, then (copies out, copies in, elements)."""
    pairs = []
    offset = 0
    total = irreps_in.multiplicity
    for b, (mul_out, irrep_out) in enumerate(irreps_out):
        for a, (mul_in, irrep_in) in enumerate(irreps_in):
            degrees = filter_degrees(irrep_in, irrep_out, lmax)
            count = len(pair_basis(irrep_in.degree, irrep_out.degree, degrees, grid, radial, True).labels)
            if count and mul_in * mul_out:
                size = mul_in * mul_out * count
                scale = math.sqrt(irrep_out.dimension / (count * total))
                pairs.append(PairTerm(a, b, (slice(offset, offset + size),), degrees, count, scale))
                offset += size
    return pairs, (offset,)


def _unit_scales(
    pairs: Sequence[PairTerm], irreps_in: Irreps, irreps_out: Irreps, grid: TapGrid, radial: RadialFamily | TapFamily
) -> list[PairTerm]:
    """Scales that give every reached output component unit variance for white unit-variance input.

    Functions that touch no tap (e3nn's innermost bump) do not count.
    """
    fan_in: dict[int, int] = {}
    for term in pairs:
        degree_in, degree_out = irreps_in[term.block_in][1].degree, irreps_out[term.block_out][1].degree
        elements = pair_basis(degree_in, degree_out, term.degrees, grid, radial, True).elements
        alive = int((elements.flatten(1).norm(dim=1) > DEAD).sum())
        fan_in[term.block_out] = fan_in.get(term.block_out, 0) + alive * irreps_in[term.block_in][0]
    return [
        PairTerm(
            t.block_in,
            t.block_out,
            t.weight_slices,
            t.degrees,
            t.elements,
            math.sqrt(irreps_out[t.block_out][1].dimension / max(fan_in[t.block_out], 1)),
        )
        for t in pairs
    ]


def _self_terms(irreps_in: Irreps, irreps_out: Irreps) -> tuple[tuple[SelfTerm, ...], int]:
    """Loop over input blocks, then output blocks; (copies in, copies out) each."""
    terms = []
    offset = 0
    for a, (mul_in, irrep_in) in enumerate(irreps_in):
        for b, (mul_out, irrep_out) in enumerate(irreps_out):
            if irrep_in == irrep_out and mul_in * mul_out:
                size = mul_in * mul_out
                scale = 1 / math.sqrt(irreps_in.count(irrep_in))
                terms.append(SelfTerm(a, b, slice(offset, offset + size), scale))
                offset += size
    return tuple(terms), offset
