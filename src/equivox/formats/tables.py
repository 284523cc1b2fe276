"""CSV tables: read strictly (every mistake is one sentence with file, row and column), written plainly."""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from equivox.errors import InputError


@dataclass(frozen=True, slots=True)
class Row:
    """Cells of one row by column name, and where it stands, for messages."""

    cells: Mapping[str, str]
    where: str

    def text(self, column: str) -> str:
        """The cell without blanks around it; InputError if it is empty."""
        value = self.cells[column].strip()
        if not value:
            raise InputError(f"{self.where}, column {column}, is empty; fill it in.")
        return value

    def number(self, column: str) -> float:
        """The cell as a finite number."""
        value = self.text(column)
        try:
            number = float(value)
        except ValueError:
            raise InputError(f"{self.where}, column {column}, holds {value!r}; a number is needed.") from None
        if not math.isfinite(number):
            raise InputError(f"{self.where}, column {column}, holds {value!r}; a finite number is needed.")
        return number

    def integer(self, column: str) -> int:
        """The cell as a whole number."""
        number = self.number(column)
        if number != int(number):
            raise InputError(f"{self.where}, column {column}, holds {self.text(column)!r}; a whole number is needed.")
        return int(number)

    def choice(self, column: str, allowed: Sequence[str]) -> str:
        """The cell, one of ``allowed``."""
        value = self.text(column)
        if value not in allowed:
            raise InputError(f"{self.where}, column {column}, holds {value!r}; allowed are {', '.join(allowed)}.")
        return value


def read_table(
    path: Path | str, *, required: Sequence[str], unique: Sequence[str] = (), separator: str = ","
) -> list[Row]:
    """Read a comma-separated table with a header line.

    Parameters
    ----------
    path
        UTF-8 file; a byte-order mark is accepted.
    required
        Columns that must be there; others are kept.
    unique
        Columns whose cells, taken together, must differ from row to row (an id).
    separator
        Between cells; a tab for BIDS tables.

    Raises
    ------
    InputError
        If the file is missing, empty or no text; a required column is missing or a column appears twice; a row has
        another number of cells than the header; or an id appears twice.
    """
    path = Path(path)
    lines = _read_lines(path, separator)
    if not lines:
        raise InputError(f"{path} is empty; a header line with {', '.join(required)} is needed.")
    header = [cell.strip() for cell in lines[0][1]]
    _check_header(path, header, required, separator)
    rows: list[Row] = []
    first_seen: dict[tuple[str, ...], int] = {}
    for number, cells in lines[1:]:
        where = f"{path}, line {number}"
        if len(cells) != len(header):
            raise InputError(f"{where}, has {len(cells)} cells where the header has {len(header)}; repair the line.")
        row = Row(dict(zip(header, cells, strict=True)), where)
        if unique:
            key = tuple(row.text(column) for column in unique)
            if key in first_seen:
                raise InputError(
                    f"{where}: {', '.join(unique)} = {', '.join(key)} stood already in line {first_seen[key]}; "
                    f"keep one of them."
                )
            first_seen[key] = number
        rows.append(row)
    return rows


def read_header(path: Path | str, *, separator: str = ",") -> list[str]:
    """Column names of a table (empty for an empty file), to tell two kinds of table apart."""
    lines = _read_lines(Path(path), separator)
    return [cell.strip() for cell in lines[0][1]] if lines else []


def _read_lines(path: Path, separator: str) -> list[tuple[int, list[str]]]:
    """Cells of every line that is not blank, with the number of the line where it ends."""
    if not path.is_file():
        raise InputError(f"{path} {'is not a file' if path.exists() else 'does not exist'}; give a CSV file.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, delimiter=separator)
            return [(reader.line_num, cells) for cells in reader if cells]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text (byte {error.start}); save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise InputError(f"{path} is no CSV table ({error}); save it as comma-separated CSV.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its rights.") from error


def _check_header(path: Path, header: Sequence[str], required: Sequence[str], separator: str) -> None:
    """Refuse missing and repeated columns; name the likely cause."""
    if len(header) == 1 and len(required) > 1:
        wanted = {",": "commas", "\t": "tabs"}.get(separator, repr(separator))
        for other, name in ((";", "semicolons"), ("\t", "tabs"), (",", "commas")):
            if other != separator and other in header[0]:
                raise InputError(f"{path} is separated by {name}; save it with {wanted}.")
    twice = next((name for index, name in enumerate(header) if name in header[:index]), None)
    if twice is not None:
        raise InputError(f"{path} has the column {twice!r} twice; remove or rename one.")
    missing = [name for name in required if name not in header]
    if missing:
        near = [name for name in header if name.casefold() == missing[0].casefold()]
        near = near or difflib.get_close_matches(missing[0], header, n=1)
        advice = (
            f"is {near[0]!r} meant?"
            if near
            else f"it has {', '.join(header[:12])}{' ...' if len(header) > 12 else ''}."
        )
        raise InputError(f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; {advice}")


def as_csv(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Text of a table with commas and ``\\n`` line ends; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def records_as_csv(records: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> str:
    """The same of records by column; all columns of the first one unless ``columns`` chooses."""
    chosen = list(records[0]) if columns is None else columns
    return as_csv(chosen, ([record[name] for name in chosen] for record in records))
