"""Irreducible representations of rotations, and the layouts of channels that they make.

A channel layout is written as in the field's literature: ``"16x0e + 8x1o"`` is 16 even scalars followed by 8 odd
vectors. ``e`` and ``o`` say how a component behaves under inversion (O(3)); without a letter (``"16x0 + 8x1"``) the
representation is one of SO(3), proper rotations only. Blocks lie one after another; within a block the copies lie one
after another, each with its ``2 l + 1`` components: ``channel = offset + copy (2 l + 1) + component``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

from equivox.errors import ConfigError

_PARITY_LETTER = {1: "e", -1: "o", 0: ""}
_LETTER_PARITY = {letter: parity for parity, letter in _PARITY_LETTER.items()}
_BLOCK = re.compile(r"(?:(\d+)\s*x\s*)?(\d+)\s*([eo]?)")


@dataclass(frozen=True, slots=True)
class Irrep:
    """One irreducible representation: degree ``l`` and what inversion does.

    Parameters
    ----------
    degree
        ``l >= 0``; the dimension is ``2 l + 1``.
    parity
        ``+1`` even (``e``), ``-1`` odd (``o``), ``0`` for an irrep of SO(3), which knows no inversion.

    Examples
    --------
    >>> Irrep(1, -1), Irrep.parse("2e").dimension
    (1o, 5)
    >>> Irrep(1, -1) * Irrep(1, -1)
    (0e, 1e, 2e)
    """

    degree: int
    parity: int

    def __post_init__(self) -> None:
        if self.degree < 0 or self.parity not in _PARITY_LETTER:
            raise ConfigError(
                f"no irrep has degree {self.degree} and parity {self.parity}; degree is 0, 1, 2 ... and parity "
                f"+1 (e), -1 (o) or 0 (SO(3))."
            )

    @classmethod
    def parse(cls, text: str | Irrep) -> Irrep:
        """Read ``"1o"``, ``"0e"`` or ``"2"``."""
        if isinstance(text, Irrep):
            return text
        match = re.fullmatch(r"(\d+)([eo]?)", text.strip())
        if match is None:
            raise ConfigError(f"{text!r} is not an irrep; write for example '0e', '1o' or, for SO(3), '1'.")
        return cls(int(match[1]), _LETTER_PARITY[match[2]])

    @property
    def dimension(self) -> int:
        """Number of components, ``2 l + 1``."""
        return 2 * self.degree + 1

    @property
    def is_so3(self) -> bool:
        """Whether this is an irrep of SO(3), without parity."""
        return self.parity == 0

    @property
    def is_scalar(self) -> bool:
        """Whether nothing at all changes it: ``0e``, or ``0`` of SO(3). A pseudoscalar ``0o`` is not one."""
        return self.degree == 0 and self.parity >= 0

    def without_parity(self) -> Irrep:
        """The SO(3) irrep of the same degree."""
        return Irrep(self.degree, 0)

    def __mul__(self, other: Irrep) -> tuple[Irrep, ...]:
        """Irreps in the tensor product, by ascending degree."""
        if self.is_so3 != other.is_so3:
            raise ConfigError(f"{self} and {other} belong to different groups; give both a parity or neither.")
        parity = self.parity * other.parity
        degrees = range(abs(self.degree - other.degree), self.degree + other.degree + 1)
        return tuple(Irrep(degree, parity) for degree in degrees)

    def __str__(self) -> str:
        return f"{self.degree}{_PARITY_LETTER[self.parity]}"

    __repr__ = __str__


class Irreps(Sequence[tuple[int, Irrep]]):
    """A channel layout: blocks of ``(multiplicity, Irrep)`` in memory order; immutable and hashable.

    Parameters
    ----------
    layout
        Text such as ``"16x0e + 8x1o"``, another ``Irreps``, an ``Irrep``, pairs ``(multiplicity, irrep)``, or any
        object whose ``str`` reads so (e3nn's class does).

    Raises
    ------
    ConfigError
        If the text cannot be read, or SO(3) and O(3) irreps are mixed.

    Examples
    --------
    >>> layout = Irreps("16x0e + 8x1o")
    >>> layout.dimension, layout.multiplicity, str(layout)
    (40, 24, '16x0e+8x1o')
    >>> layout.slices()
    (slice(0, 16, None), slice(16, 40, None))
    """

    __slots__ = ("_blocks",)

    def __init__(self, layout: object = "") -> None:
        blocks = tuple(_read_blocks(layout))
        if len({irrep.is_so3 for _, irrep in blocks}) > 1:
            raise ConfigError(
                f"{'+'.join(f'{m}x{i}' for m, i in blocks)} mixes irreps with and without parity; "
                f"give every block a letter e or o (O(3)) or none (SO(3))."
            )
        self._blocks = blocks

    @property
    def blocks(self) -> tuple[tuple[int, Irrep], ...]:
        """The ``(multiplicity, Irrep)`` pairs."""
        return self._blocks

    @property
    def dimension(self) -> int:
        """Number of channels."""
        return sum(multiplicity * irrep.dimension for multiplicity, irrep in self._blocks)

    @property
    def multiplicity(self) -> int:
        """Number of fields, all copies of all irreps."""
        return sum(multiplicity for multiplicity, _ in self._blocks)

    @property
    def is_so3(self) -> bool:
        """Whether the blocks are irreps of SO(3); an empty layout is not."""
        return bool(self._blocks) and self._blocks[0][1].is_so3

    def slices(self) -> tuple[slice, ...]:
        """Channels of each block."""
        edges = itertools.accumulate((m * irrep.dimension for m, irrep in self._blocks), initial=0)
        return tuple(slice(start, stop) for start, stop in itertools.pairwise(edges))

    def copies(self) -> tuple[Irrep, ...]:
        """One irrep per field, in memory order."""
        return tuple(irrep for multiplicity, irrep in self._blocks for _ in range(multiplicity))

    def count(self, irrep: object) -> int:
        """Copies of one irrep, over all blocks."""
        wanted = Irrep.parse(irrep) if isinstance(irrep, (str, Irrep)) else irrep
        return sum(multiplicity for multiplicity, own in self._blocks if own == wanted)

    def simplify(self) -> Irreps:
        """Merge neighbouring blocks of equal irrep and drop empty ones; the channels stay where they are."""
        merged: list[tuple[int, Irrep]] = []
        for multiplicity, irrep in self._blocks:
            if merged and merged[-1][1] == irrep:
                merged[-1] = (merged[-1][0] + multiplicity, irrep)
            elif multiplicity:
                merged.append((multiplicity, irrep))
        return Irreps(merged)

    def sort(self) -> Irreps:
        """Blocks by degree, odd before even, otherwise in their order (the layout a gate reads)."""
        return Irreps([self._blocks[index] for index in self.sort_order()])

    def sort_order(self) -> tuple[int, ...]:
        """Indices of the blocks in the order of :meth:`sort` (stable)."""
        keys = [(irrep.degree, irrep.parity) for _, irrep in self._blocks]
        return tuple(sorted(range(len(keys)), key=keys.__getitem__))

    def without_parity(self) -> Irreps:
        """The same layout with SO(3) irreps."""
        return Irreps([(multiplicity, irrep.without_parity()) for multiplicity, irrep in self._blocks])

    @overload
    def __getitem__(self, index: int) -> tuple[int, Irrep]: ...
    @overload
    def __getitem__(self, index: slice) -> Irreps: ...
    def __getitem__(self, index: int | slice) -> tuple[int, Irrep] | Irreps:
        return Irreps(self._blocks[index]) if isinstance(index, slice) else self._blocks[index]

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[tuple[int, Irrep]]:
        return iter(self._blocks)

    def __add__(self, other: object) -> Irreps:
        return Irreps([*self._blocks, *Irreps(other)])

    def __mul__(self, factor: int) -> Irreps:
        """Every multiplicity times ``factor``."""
        return Irreps([(multiplicity * factor, irrep) for multiplicity, irrep in self._blocks])

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            other = Irreps(other)
        return isinstance(other, Irreps) and self._blocks == other._blocks

    def __hash__(self) -> int:
        return hash(self._blocks)

    def __str__(self) -> str:
        return "+".join(f"{multiplicity}x{irrep}" for multiplicity, irrep in self._blocks)

    def __repr__(self) -> str:
        return str(self)

    def __reduce__(self) -> tuple[type[Irreps], tuple[tuple[tuple[int, Irrep], ...]]]:
        return (Irreps, (self._blocks,))


IrrepsLike: TypeAlias = Irreps | Irrep | str | Sequence[Any]
"""What :class:`Irreps` reads; e3nn's class is a sequence."""


def _read_blocks(layout: object) -> Iterable[tuple[int, Irrep]]:
    """Pairs from any of the forms that :class:`Irreps` accepts."""
    if isinstance(layout, Irreps):
        return layout.blocks
    if isinstance(layout, Irrep):
        return [(1, layout)]
    if isinstance(layout, (list, tuple)) and type(layout) in (list, tuple):
        pairs = []
        for entry in layout:
            multiplicity, irrep = entry if isinstance(entry, tuple) else (1, entry)
            if int(multiplicity) < 0:
                raise ConfigError(f"multiplicity {multiplicity} of {irrep} is negative; use 0 or more.")
            pairs.append((int(multiplicity), Irrep.parse(irrep if isinstance(irrep, Irrep) else str(irrep))))
        return pairs
    text = str(layout).strip()
    pairs = []
    for part in text.split("+") if text else []:
        match = _BLOCK.fullmatch(part.strip())
        if match is None:
            raise ConfigError(
                f"{part.strip()!r} in the irreps {text!r} cannot be read; write for example '16x0e + 8x1o' "
                f"(or '16x0 + 8x1' for SO(3))."
            )
        pairs.append((int(match[1] or 1), Irrep(int(match[2]), _LETTER_PARITY[match[3]])))
    return pairs
