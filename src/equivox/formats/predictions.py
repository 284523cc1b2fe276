"""What is kept of every input of a prediction: rows of ``predictions.csv``, and a marker per input for ``--resume``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equivox.formats.atomic import write_text
from equivox.formats.markers import MarkedInput, head_of, marker_path, read_marker
from equivox.formats.tables import as_csv

SCHEMA = "equivox.predictions.item/1"


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One object or picture, or one input that could not be used.

    Parameters
    ----------
    input
        The file as the user named it, and after ``#`` the object or picture in it where there are several.
    status
        ``ok`` or ``failed``.
    reason
        Why there is no answer.
    label, probability, probabilities
        The answer; empty without one.
    """

    input: str
    status: str
    reason: str = ""
    label: str = ""
    probability: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "input": self.input, "status": self.status, "reason": self.reason, "label": self.label,
            "probability": self.probability, "probabilities": dict(self.probabilities),
        }  # fmt: skip


@dataclass(frozen=True)
class InputResult(MarkedInput):
    """Everything that is known about one input after it was worked on."""

    rows: tuple[PredictionRow, ...]

    def write(self, out: Path) -> None:
        """Write the marker that ``--resume`` trusts."""
        self.write_marker(out, SCHEMA, {"rows": [row.as_dict() for row in self.rows]})


def read_result(out: Path, stem: str) -> InputResult | None:
    """The marker of an input, or None if it is missing or cannot be read as one."""
    return read_marker(marker_path(out, stem), SCHEMA, _as_result)


def _as_result(found: Any) -> InputResult:
    return InputResult(**head_of(found), rows=tuple(PredictionRow(**row) for row in found["rows"]))


def write_predictions(path: Path, rows: Sequence[PredictionRow], classes: Sequence[str]) -> None:
    """``predictions.csv``: ``input,status,reason,label,probability,p_<class>...``, one row per object or picture."""
    header = ["input", "status", "reason", "label", "probability", *(f"p_{name}" for name in classes)]
    lines: list[list[str]] = []
    for row in rows:
        numbers = [row.probability, *(row.probabilities.get(name) for name in classes)]
        cells = ["" if number is None else f"{number:.6f}" for number in numbers]
        lines.append([row.input, row.status, row.reason, row.label, *cells])
    write_text(path, as_csv(header, lines))
