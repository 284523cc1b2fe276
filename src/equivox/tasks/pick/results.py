"""What is kept of every micrograph of a run: a marker per micrograph for ``--resume``, with all its candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equivox.formats.atomic import write_json
from equivox.formats.markers import ITEMS, marker_path, read_marker
from equivox.formats.micrographs import MicrographInput
from equivox.tasks.pick.picker import Picks

SCHEMA = "equivox.pick.item/1"
COLUMNS = ("x_px", "y_px", "log_odds", "rot_deg", "tilt_deg", "psi_deg", "pose_confidence")
DIGITS = {"x_px": 3, "y_px": 3, "log_odds": 4, "rot_deg": 3, "tilt_deg": 3, "psi_deg": 3, "pose_confidence": 4}
LEAST_PROBABILITY = 0.02
"""Candidates below this are not kept."""


@dataclass(frozen=True, slots=True)
class ItemResult:
    """Everything that is known about one micrograph after it was picked.

    Parameters
    ----------
    stem
        Name of its files in the results' folder.
    picks
        All candidates that were kept, the surest first.
    input_sha256, digest
        Of the file, and of everything else that decided the result.
    """

    stem: str
    picks: Picks
    input_sha256: str
    digest: str

    def write(self, out: Path) -> None:
        """Write the marker that ``--resume`` trusts."""
        picks = self.picks
        document: dict[str, Any] = {
            "schema": SCHEMA, "name": picks.name, "stem": self.stem, "input_sha256": self.input_sha256,
            "digest": self.digest, "file_size_px": list(picks.file_size_px),
            "pixel_size_angstrom": picks.pixel_size_angstrom, "contrast": picks.contrast,
            "warnings": list(picks.warnings),
        }  # fmt: skip
        for name in COLUMNS:
            values = getattr(picks, name)
            document[name] = None if np.isnan(values).any() else np.round(values, DIGITS[name]).tolist()
        write_json(marker_path(out, self.stem), document)


def picture_path(out: Path, stem: str) -> Path:
    """Where the small picture of a micrograph lies, for the page."""
    return out / ITEMS / f"{stem}.webp"


def read_result(out: Path, stem: str) -> ItemResult | None:
    """The marker of a micrograph, or None if it is missing or cannot be read as one."""
    return read_marker(marker_path(out, stem), SCHEMA, _as_result)


def _as_result(found: Any) -> ItemResult | None:
    count = len(found["x_px"])
    columns = {
        name: np.full(count, np.nan) if found[name] is None else np.array(found[name], dtype=np.float64)
        for name in COLUMNS
    }
    if any(len(values) != count for values in columns.values()):
        return None
    picks = Picks(
        name=str(found["name"]),
        file_size_px=(int(found["file_size_px"][0]), int(found["file_size_px"][1])),
        pixel_size_angstrom=float(found["pixel_size_angstrom"]),
        contrast=str(found["contrast"]),
        warnings=tuple(str(text) for text in found["warnings"]),
        **columns,
    )
    return ItemResult(str(found["stem"]), picks, str(found["input_sha256"]), str(found["digest"]))


def stems_of(entries: Sequence[MicrographInput]) -> list[str]:
    """Names of markers: unique, below one folder, telling where the file was."""
    stems: list[str] = []
    seen: dict[str, int] = {}
    for entry in entries:
        stem = entry.below.strip("/").replace("/", "__") or "micrograph"
        count = seen.get(stem, 0)
        seen[stem] = count + 1
        stems.append(f"{stem}__{count}" if count else stem)
    return stems
