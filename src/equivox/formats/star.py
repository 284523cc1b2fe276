"""STAR files as RELION, crYOLO and others write them: read strictly, written back byte for byte where nothing changed.

A file is a row of blocks ``data_NAME`` (the name may be empty); a block holds ``_label value`` pairs and at most one
loop. A table keeps its rows as the text that they were, so that columns and comments which nobody here knows survive;
columns are parsed when they are asked for. Labels are given without their leading underscore.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from equivox.errors import InputError
from equivox.formats.archives import require_file
from equivox.formats.atomic import atomic_path
from equivox.formats.star_block import Cell, StarBlock, formatted
from equivox.formats.star_parser import parse_star

__all__ = ["Star", "StarBlock", "make_block", "make_pairs", "read_star", "star_text", "write_star"]


@dataclass(frozen=True, slots=True)
class Star:
    """A STAR file: its blocks in order, and the text before the first of them is in the first's ``head``."""

    path: Path
    blocks: tuple[StarBlock, ...]

    def names(self) -> tuple[str, ...]:
        """Names of the blocks."""
        return tuple(block.name for block in self.blocks)

    def find(self, name: str) -> StarBlock | None:
        """The block of this name, or None."""
        return next((block for block in self.blocks if block.name == name), None)

    def block(self, name: str) -> StarBlock:
        """The block of this name; InputError that lists the others without it."""
        found = self.find(name)
        if found is None:
            raise InputError(f"{self.path} has no block data_{name}; it has data_{', data_'.join(self.names())}.")
        return found

    def with_block(self, block: StarBlock) -> Star:
        """Replace the block of that name, or append it."""
        names = self.names()
        if block.name not in names:
            return replace(self, blocks=(*self.blocks, block))
        place = names.index(block.name)
        return replace(self, blocks=(*self.blocks[:place], block, *self.blocks[place + 1 :]))


def make_block(name: str, columns: Mapping[str, Sequence[Cell]], *, version: int | None = None) -> StarBlock:
    """A loop from columns of equal length, as RELION writes it.

    ``version`` is the number of the ``# version`` comment (30001 for RELION 3.1, 50001 for 5); None writes none.
    """
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"columns of data_{name} have different lengths {sorted(lengths)}")
    texts = [[formatted(value) for value in values] for values in columns.values()]
    head = f"\n# version {version}\n" if version is not None else ""
    head += f"\ndata_{name}\n\nloop_ \n"
    head += "".join(f"_{label} #{number} \n" for number, label in enumerate(columns, start=1))
    rows = tuple(" ".join(cells) + " \n" for cells in zip(*texts, strict=True))
    return StarBlock(name, {}, tuple(columns), rows, head=head, tail=" \n")


def make_pairs(name: str, values: Mapping[str, Cell], *, version: int | None = None) -> StarBlock:
    """A block of pairs without a loop."""
    head = f"\n# version {version}\n" if version is not None else ""
    head += f"\ndata_{name}\n\n" + "".join(f"_{label} {formatted(value)} \n" for label, value in values.items())
    return StarBlock(name, {label: str(value) for label, value in values.items()}, head=head, tail=" \n")


def star_text(star: Star) -> str:
    """The file's text: what was read where nothing changed."""
    parts: list[str] = []
    for block in star.blocks:
        if parts and parts[-1] and not parts[-1].endswith("\n"):
            parts.append("\n")
        parts.append(block.head)
        for index, row in enumerate(block.rows):
            parts.append(block.between.get(index, ""))
            if parts[-1] == "" and index and not block.rows[index - 1].endswith("\n"):
                parts.append("\n")
            parts.append(row)
        parts.append(block.tail)
    return "".join(parts)


def write_star(path: Path | str, star: Star | Sequence[StarBlock]) -> None:
    """Write blocks, whole or not at all; bytes that were no UTF-8 come back as they were."""
    path = Path(path)
    star = star if isinstance(star, Star) else Star(path, tuple(star))
    with atomic_path(path) as temporary:
        temporary.write_bytes(star_text(star).encode("utf-8", "surrogateescape"))


def read_star(path: Path | str) -> Star:
    """Read a STAR file.

    Raises
    ------
    InputError
        If it is missing, empty, not text, has no block, a loop outside a block, a label twice, a value without a
        label, or a row with more or fewer values than labels.

    Examples
    --------
    >>> import tempfile
    >>> name = Path(tempfile.mkdtemp()) / "a.star"
    >>> write_star(name, [make_block("", {"rlnMicrographName": ["a b.mrc"], "rlnCoordinateX": [1.5]})])
    >>> block = read_star(name).block("")
    >>> block.texts("rlnMicrographName"), float(block.numbers("rlnCoordinateX")[0])
    (['a b.mrc'], 1.5)
    """
    path = require_file(path)
    content = path.read_bytes()
    if b"\0" in content or content[:2] in (b"\x1f\x8b", b"PK"):
        raise InputError(f"{path} is no text; a STAR file is needed.")
    return Star(path, parse_star(path, content.decode("utf-8", "surrogateescape")))
