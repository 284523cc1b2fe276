"""One block of a STAR file: its loop kept as text, its columns parsed when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from equivox.errors import InputError

Cell = str | int | float | np.integer | np.floating
_TOKEN = re.compile(r"""'[^']*'(?=\s|$)|"[^"]*"(?=\s|$)|\S+""")


@dataclass(frozen=True, slots=True)
class StarBlock:
    """One ``data_`` block.

    Parameters
    ----------
    name
        What follows ``data_``; may be empty.
    pairs
        Values outside the loop by label, without quotes.
    labels
        Column names of the loop; empty without a loop.
    rows
        Text of each row, as in the file.
    path, lines
        Where it was read: the file and the line number of each row.
    head, between, tail
        Text of the file before the first row, before other rows (comments), and after the last.
    """

    name: str
    pairs: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    path: Path = Path()
    lines: tuple[int, ...] = ()
    head: str = ""
    between: Mapping[int, str] = field(default_factory=dict)
    tail: str = "\n"

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def where(self) -> str:
        """The file and the block, for messages."""
        return f"{self.path}, block data_{self.name}"

    def has(self, *labels: str) -> bool:
        """Whether all of these are columns of the loop."""
        return set(labels) <= set(self.labels)

    def require(self, *labels: str) -> None:
        """InputError that names the first missing column."""
        for label in labels:
            if label not in self.labels:
                raise InputError(f"{self.where}, has no column _{label}; it has {', '.join(self.labels[:12])}.")

    def texts(self, label: str) -> list[str]:
        """A column without quotes."""
        return self.columns(label)[0]

    def columns(self, *labels: str) -> list[list[str]]:
        """Several columns in one pass over the rows, without quotes.

        Raises
        ------
        InputError
            If a column is missing.
        """
        self.require(*labels)
        places = [self.labels.index(label) for label in labels]
        found: list[list[str]] = [[] for _ in labels]
        for row in self.rows:
            cells = split_row(row)
            for column, place in zip(found, places, strict=True):
                column.append(unquoted(cells[place]))
        return found

    def numbers(self, label: str) -> Float64[np.ndarray, " row"]:
        """A column as finite numbers; InputError with row, line and value otherwise."""
        return self._as_numbers(label, self.texts(label))

    def many_numbers(self, labels: Iterable[str]) -> dict[str, Float64[np.ndarray, " row"]]:
        """Those of these columns that are there, as finite numbers, in one pass over the rows.

        Raises
        ------
        InputError
            As :meth:`numbers`.
        """
        present = [label for label in labels if label in self.labels]
        found = self.columns(*present) if present else []
        return {label: self._as_numbers(label, texts) for label, texts in zip(present, found, strict=True)}

    def _as_numbers(self, label: str, texts: list[str]) -> Float64[np.ndarray, " row"]:
        try:
            values = np.array(texts, dtype=np.float64)
            if bool(np.isfinite(values).all()):
                return values
        except ValueError:
            pass
        for index, text in enumerate(texts):
            try:
                good = bool(np.isfinite(float(text)))
            except ValueError:
                good = False
            if not good:
                raise InputError(f"{self.place(index)}: _{label} is {text!r}; a finite number is needed.")
        return np.array([float(text) for text in texts], dtype=np.float64)

    def integers(self, label: str) -> Int64[np.ndarray, " row"]:
        """A column as whole numbers; InputError otherwise."""
        return self.whole(label, self.numbers(label))

    def whole(self, label: str, values: Float64[np.ndarray, " row"]) -> Int64[np.ndarray, " row"]:
        """Numbers of a column as integers; InputError with row and value if one is not whole."""
        odd = np.flatnonzero(values != np.round(values))
        if odd.size:
            raise InputError(f"{self.place(int(odd[0]))}: _{label} is {values[odd[0]]:g}; a whole number is needed.")
        return values.astype(np.int64)

    def place(self, index: int) -> str:
        """Where a row stands, for messages (rows are counted from 1)."""
        line = f" (line {self.lines[index]})" if index < len(self.lines) else ""
        return f"{self.where}, row {index + 1}{line}"

    def with_columns(self, columns: Mapping[str, Sequence[Cell]]) -> StarBlock:
        """Replace or append columns; the other cells keep their text, quotes included."""
        labels = [*self.labels, *(label for label in columns if label not in self.labels)]
        texts = {labels.index(label): [formatted(value) for value in values] for label, values in columns.items()}
        rows = []
        for index, row in enumerate(self.rows):
            cells = split_row(row) + [""] * (len(labels) - len(self.labels))
            for place, values in texts.items():
                cells[place] = values[index]
            rows.append(" ".join(cells) + " \n")
        return replace(self, labels=tuple(labels), rows=tuple(rows), head=self._head_with(labels))

    def without_columns(self, *labels: str) -> StarBlock:
        """Leave columns out."""
        kept = [place for place, label in enumerate(self.labels) if label not in labels]
        rows = []
        for row in self.rows:
            cells = split_row(row)
            rows.append(" ".join(cells[place] for place in kept) + " \n")
        names = [self.labels[place] for place in kept]
        return replace(self, labels=tuple(names), rows=tuple(rows), head=self._head_with(names))

    def select(self, indices: Iterable[int]) -> StarBlock:
        """Rows by index, in the order given; comments between rows are left out."""
        chosen = [int(index) for index in indices]
        rows = tuple(_ended(self.rows[index]) for index in chosen)
        lines = tuple(self.lines[index] for index in chosen) if self.lines else ()
        return replace(self, rows=rows, lines=lines, between={})

    def _head_with(self, labels: Sequence[str]) -> str:
        """The head with new label lines; what stood before ``loop_`` stays."""
        before = self.head[: _loop_place(self.head)] if self.labels else self.head
        return before + "loop_ \n" + "".join(f"_{label} #{number} \n" for number, label in enumerate(labels, start=1))


def split_row(row: str) -> list[str]:
    """Cells of a row with their quotes; a comment at its end is left out."""
    if "'" not in row and '"' not in row and "#" not in row:
        return row.split()
    cells = []
    for match in _TOKEN.finditer(row):
        if match[0].startswith("#"):
            break
        cells.append(match[0])
    return cells


def unquoted(cell: str) -> str:
    """A cell without the quotes around it."""
    return cell[1:-1] if len(cell) >= 2 and cell[0] == cell[-1] and cell[0] in "'\"" else cell


def formatted(value: Cell) -> str:
    """A cell as text: numbers with up to six decimals as RELION writes them, text in quotes where it needs them."""
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.6f}" if abs(float(value)) >= 1e-4 or value == 0 else f"{float(value):.6g}"
    if value == "" or value[0] in "#_;'\"" or any(character.isspace() for character in value):
        return f'"{value}"' if '"' not in value else f"'{value}'"
    return value


def _ended(row: str) -> str:
    return row if row.endswith("\n") else row + "\n"


def _loop_place(head: str) -> int:
    """Where the line with ``loop_`` begins."""
    place = 0
    for line in head.splitlines(keepends=True):
        if line.strip().startswith("loop_"):
            return place
        place += len(line)
    return len(head)
