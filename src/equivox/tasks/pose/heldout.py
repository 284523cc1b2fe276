"""Beside an error on a stack that the model has seen: the error of a model that has not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from equivox.formats.tables import Row, read_table
from equivox.tasks.pose.evaluate import Evaluation

HELDOUT = "heldout.csv"
COLUMNS = ("id", "fold", "rotation_error_deg", "center_error_mm")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Errors of one stack under the model that was trained without its fold; None where that one found no head."""

    fold: str
    rotation_error_deg: float | None
    center_error_mm: float | None


@dataclass(frozen=True, slots=True)
class DemoRow:
    """One stack of the demo: what came out, beside what a model says that has not seen it. None: not known."""

    id: str
    status: str
    confidence: float
    rotation_error_deg: float | None
    center_error_mm: float | None
    heldout_rotation_error_deg: float | None
    heldout_center_error_mm: float | None
    flipped: bool

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def read_heldout(model_folder: Path) -> dict[str, HeldOut]:
    """Held-out errors by stack, from the model folder's ``heldout.csv``; empty where a model has none.

    Raises
    ------
    InputError
        If the table is damaged.
    """
    path = model_folder / HELDOUT
    if not path.is_file():
        return {}
    return {
        row.text("id"): HeldOut(
            row.text("fold"), *(_measured(row, column) for column in ("rotation_error_deg", "center_error_mm"))
        )
        for row in read_table(path, required=COLUMNS, unique=("id",))
    }


def demo_rows(evaluation: Evaluation, model_folder: Path) -> list[DemoRow]:
    """One row per stack of the evaluation."""
    heldout = read_heldout(model_folder)
    rows = []
    for index, (predicted, true) in enumerate(evaluation.pairs):
        angle, distance = float(evaluation.raw.rotation_deg[index]), float(evaluation.raw.center_mm[index])
        other = heldout.get(true.id)
        rows.append(
            DemoRow(
                id=true.id,
                status=predicted.status,
                confidence=round(predicted.confidence, 4),
                rotation_error_deg=_known(angle),
                center_error_mm=_known(distance),
                heldout_rotation_error_deg=None if other is None else other.rotation_error_deg,
                heldout_center_error_mm=None if other is None else other.center_error_mm,
                flipped=bool(evaluation.raw.confused_axis[index]),
            )
        )
    return rows


def demo_table(rows: Sequence[DemoRow]) -> list[str]:
    """The rows as lines for a terminal."""
    header = ("stack", "status", "confidence", "rotation error", "centre error", "held-out: rotation", "centre", "")
    cells = [
        (
            row.id, row.status, f"{row.confidence:.2f}", _with_unit(row.rotation_error_deg, "°"),
            _with_unit(row.center_error_mm, " mm"), _with_unit(row.heldout_rotation_error_deg, "°"),
            _with_unit(row.heldout_center_error_mm, " mm"), "FLIPPED" if row.flipped else "",
        )
        for row in rows
    ]  # fmt: skip
    widths = [max(len(line[column]) for line in [header, *cells]) for column in range(len(header))]
    lines = []
    for line in [header, *cells]:
        padded = [t.ljust(w) if i < 2 else t.rjust(w) for i, (t, w) in enumerate(zip(line, widths, strict=True))]
        lines.append("  ".join(padded).rstrip())
    return lines


def _measured(row: Row, column: str) -> float | None:
    return None if row.cells[column].strip().lower() in ("", "nan") else row.number(column)


def _known(value: float) -> float | None:
    return round(value, 4) if value == value else None


def _with_unit(value: float | None, unit: str) -> str:
    return "not known" if value is None else f"{value:.1f}{unit}"
