"""The grammar of STAR files, line by line; every fault is one sentence with its line."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

from equivox.errors import InputError
from equivox.formats.star_block import StarBlock, split_row, unquoted


@dataclass
class _Open:
    """A block that is being read."""

    name: str
    line: int
    pairs: dict[str, str] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    head: list[str] = field(default_factory=list)
    between: dict[int, str] = field(default_factory=dict)
    looping: bool = False

    def close(self, path: Path, tail: str) -> StarBlock:
        return StarBlock(
            self.name, self.pairs, tuple(self.labels), tuple(self.rows), path, tuple(self.lines), "".join(self.head),
            self.between, tail,
        )  # fmt: skip


def parse_star(path: Path, text: str) -> tuple[StarBlock, ...]:
    """Blocks of a text that is kept whole: joining heads, rows and tails gives it back.

    Raises
    ------
    InputError
        See :func:`equivox.formats.star.read_star`.
    """
    lines = list(io.StringIO(text, newline=""))  # cut at line ends alone, which are kept
    blocks: list[StarBlock] = []
    block: _Open | None = None
    waiting: list[str] = []  # comments and blank lines whose place is not known yet
    at = 0
    while at < len(lines):
        line, number = lines[at], at + 1
        at += 1
        words = split_row(line.lstrip("\ufeff"))
        if not words:
            waiting.append(line)
            continue
        first = words[0]
        names_row = block is not None and len(words) > 1 and len(words) == len(block.labels)
        if first.startswith("data_") and not names_row:  # a row may begin with the name of a file data_1.mrc
            if len(words) > 1:
                raise InputError(f"{path}, line {number}: {words[1]!r} follows {first}; a block's line holds its name.")
            if block is not None:
                tail, lead = _parted(waiting)
                blocks.append(block.close(path, tail))
            else:
                lead = "".join(waiting)
            block = _Open(first[5:], number)
            block.head += [lead, line]
            waiting = []
        elif first == "loop_":
            if block is None:
                raise InputError(f"{path}, line {number}: loop_ before any data_ block; the file's head is missing.")
            if block.labels:
                raise InputError(f"{path}, line {number}: a second loop_ in data_{block.name}; give it its own block.")
            block.head += [*waiting, line]
            block.looping, waiting = True, []
        elif first.startswith("_") and not (block is not None and block.rows):
            at = _label(path, block, lines, at, words, waiting)
            waiting = []
        else:
            _row(path, block, lines, number, words, waiting)
            waiting = []
    if block is None:
        raise InputError(f"{path} has no data_ block; it is no STAR file.")
    blocks.append(block.close(path, "".join(waiting)))
    _check_names(path, blocks)
    return tuple(blocks)


def _label(path: Path, block: _Open | None, lines: list[str], at: int, words: list[str], waiting: list[str]) -> int:
    """A column of the open loop, or a pair; returns the next line to read."""
    number, label = at, words[0][1:]
    if block is None:
        raise InputError(f"{path}, line {number}: {words[0]} before any data_ block; the file's head is missing.")
    if label in block.labels or label in block.pairs:
        raise InputError(f"{path}, line {number}: the label _{label} stands twice in data_{block.name}; remove one.")
    block.head += [*waiting, lines[at - 1]]
    if block.looping:
        if len(words) > 1:
            raise InputError(f"{path}, line {number}: {words[1]!r} follows the column _{label}; begin the row below.")
        block.labels.append(label)
        return at
    if len(words) == 2:
        block.pairs[label] = unquoted(words[1])
        return at
    if len(words) == 1 and at < len(lines) and lines[at].startswith(";"):
        return _long_value(path, block, lines, at, label)
    what = "has no value" if len(words) == 1 else f"has {len(words) - 1} values"
    raise InputError(f"{path}, line {number}: _{label} {what}; a table needs loop_ before its labels.")


def _long_value(path: Path, block: _Open, lines: list[str], at: int, label: str) -> int:
    """A value between lines that begin with a semicolon."""
    value = [lines[at][1:]]
    block.head.append(lines[at])
    for index in range(at + 1, len(lines)):
        block.head.append(lines[index])
        if lines[index].startswith(";"):
            block.pairs[label] = "".join(value).strip("\r\n").replace("\r\n", "\n")
            return index + 1
        value.append(lines[index])
    raise InputError(f"{path}, line {at + 1}: the text of _{label} has no end (a line with ; alone); it is cut off.")


def _row(path: Path, block: _Open | None, lines: list[str], number: int, words: list[str], waiting: list[str]) -> None:
    """A row of the open loop."""
    if block is None or not block.looping:
        raise InputError(f"{path}, line {number}: {words[0]!r} stands outside a loop_; it is no STAR file or damaged.")
    if not block.labels:
        raise InputError(f"{path}, line {number}: a row before the labels of the loop_ in data_{block.name}.")
    if words[0].startswith(("_rln", "_cryolo")) or (words[0].startswith("_") and len(words) != len(block.labels)):
        raise InputError(f"{path}, line {number}: the label {words[0]} follows rows; a new table needs its own data_.")
    if len(words) != len(block.labels):
        cut = number == len(lines) and not lines[-1].endswith("\n")
        ending = "the file ends inside the row; copy it again." if cut else "repair the row."
        raise InputError(
            f"{path}, line {number}: row {len(block.rows) + 1} of data_{block.name} has {len(words)} values for "
            f"{len(block.labels)} labels; {ending}"
        )
    if waiting:
        if block.rows:
            block.between[len(block.rows)] = "".join(waiting)
        else:
            block.head += waiting
    block.rows.append(lines[number - 1])
    block.lines.append(number)


def _parted(waiting: list[str]) -> tuple[str, str]:
    """What belongs to the block that ends (blank lines), and to the one that begins (from its first comment on)."""
    for index, line in enumerate(waiting):
        if line.strip():
            return "".join(waiting[:index]), "".join(waiting[index:])
    return "".join(waiting), ""


def _check_names(path: Path, blocks: list[StarBlock]) -> None:
    names = [block.name for block in blocks]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise InputError(f"{path} has the block data_{twice} twice; give each its own file.")
