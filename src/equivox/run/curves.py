"""Training curves as a CSV file: one row per epoch, written as it ends."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from equivox.errors import OutputError


@dataclass(frozen=True, slots=True)
class Curves:
    """A file of rows ``epoch, name, ...``; cells of epochs without validation are empty.

    Parameters
    ----------
    path
        The CSV file.
    """

    path: Path

    def start(self, columns: list[str], *, epochs_done: int = 0) -> None:
        """Write the header and keep the rows of the first ``epochs_done`` epochs: what came later never happened."""
        kept = [row for row in self.rows() if int(row["epoch"]) < epochs_done]
        try:
            with self.path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, ["epoch", *columns], lineterminator="\n", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(kept)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written ({error.strerror}); choose another folder.") from error

    def append(self, epoch: int, values: Mapping[str, float]) -> None:
        """Add one row; every value must be a column of the header."""
        with self.path.open(newline="", encoding="utf-8") as file:
            header = next(csv.reader(file))
        unknown = set(values) - set(header)
        if unknown:
            raise ValueError(f"{sorted(unknown)} are no columns of {self.path}")
        with self.path.open("a", newline="", encoding="utf-8") as file:
            row = {"epoch": str(epoch), **{name: f"{value:.9g}" for name, value in values.items()}}
            csv.DictWriter(file, header, lineterminator="\n").writerow(row)

    def rows(self) -> list[dict[str, str]]:
        """All rows as text; none where there is no file yet."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
