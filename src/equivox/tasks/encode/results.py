"""What `encode embed` keeps: a marker per input that `--resume` trusts, and the table of all, as CSV or npz.

Columns of ``embeddings.csv``: ``input, status, reason, confidence``, invariants ``s000...``, polar vectors in world RAS
axes ``v00_x, v00_y, v00_z, ...`` and along the file's voxel axes ``v00_i, v00_j, v00_k, ...``, axial vectors
``a00_...`` the same way. A scan that failed has its reason and empty cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equivox.errors import InputError
from equivox.formats.atomic import atomic_path, write_text
from equivox.formats.markers import MarkedInput, head_of, marker_path, read_marker
from equivox.formats.tables import as_csv, read_table
from equivox.tasks.encode.model import LOW_CONFIDENCE, Embedding
from equivox.tasks.encode.verify import Verified

SCHEMA = "equivox.encode.item/1"
FIRST_COLUMNS = ("input", "status", "reason", "confidence")
Array = np.ndarray[tuple[int, ...], np.dtype[Any]]


@dataclass(frozen=True)
class InputResult(MarkedInput):
    """Everything that is known about one input after it was encoded."""

    embedding: Embedding
    verified: Verified | None = None
    seconds: float = 0.0
    loading_s: float = 0.0
    histogram: tuple[float, ...] = ()
    volume_ml: float = 0.0
    tissues: tuple[float, ...] = ()

    @property
    def status(self) -> str:
        """``ok``, or ``low_confidence`` where the vectors do not fix an orientation."""
        return "ok" if self.embedding.confidence >= LOW_CONFIDENCE else "low_confidence"

    @property
    def reason(self) -> str:
        """Why the confidence is low; empty else."""
        if self.status == "ok":
            return ""
        return f"the vectors lie along one line (ratio of singular values {self.embedding.confidence:.3f})"

    def write(self, out: Path) -> None:
        """Write the marker; call this last."""
        one = self.embedding
        found = {
            "polar": one.polar.tolist(),
            "axial": one.axial.tolist(),
            "scalars": one.scalars.tolist(),
            "pseudoscalars": one.pseudoscalars.tolist(),
            "direction": one.direction.tolist(),
            "confidence": one.confidence,
            "warnings": list(one.warnings),
            "verified": None if self.verified is None else self.verified.as_dict(),
            "seconds": round(self.seconds, 4),
            "loading_s": round(self.loading_s, 4),
            "histogram": list(self.histogram),
            "volume_ml": self.volume_ml,
            "tissues": [round(share, 9) for share in self.tissues],
        }
        self.write_marker(out, SCHEMA, found)


def read_result(out: Path, stem: str) -> InputResult | None:
    """The marker of an input, or None if it is missing or cannot be read as one."""
    return read_marker(marker_path(out, stem), SCHEMA, _as_result)


def _as_result(found: Any) -> InputResult:
    embedding = Embedding(
        polar=torch.tensor(found["polar"]).reshape(-1, 3),
        axial=torch.tensor(found["axial"]).reshape(-1, 3),
        scalars=torch.tensor(found["scalars"]),
        pseudoscalars=torch.tensor(found["pseudoscalars"]),
        direction=torch.tensor(found["direction"], dtype=torch.float64).reshape(3, 3),
        confidence=float(found["confidence"]),
        warnings=tuple(str(text) for text in found["warnings"]),
    )
    verified = None if found["verified"] is None else Verified(**found["verified"])
    return InputResult(
        **head_of(found), embedding=embedding, verified=verified, seconds=float(found["seconds"]),
        loading_s=float(found["loading_s"]), histogram=tuple(float(share) for share in found["histogram"]),
        volume_ml=float(found["volume_ml"]), tissues=tuple(float(share) for share in found.get("tissues", ())),
    )  # fmt: skip


@dataclass(frozen=True)
class EmbeddingRow:
    """One line of the table: a result, or why there is none."""

    input: str
    result: InputResult | None
    reason: str = ""

    @property
    def status(self) -> str:
        """``ok``, ``low_confidence`` or ``failed``."""
        return "failed" if self.result is None else self.result.status


def columns_of(scalars: int, polar: int, axial: int) -> list[str]:
    """Header of ``embeddings.csv`` for an encoder of these sizes."""
    names = [*FIRST_COLUMNS, *(f"s{index:03d}" for index in range(scalars))]
    for letter, count in (("v", polar), ("a", axial)):
        width = max(2, len(str(count - 1)))
        for axes in ("xyz", "ijk"):
            names += [f"{letter}{index:0{width}d}_{axis}" for index in range(count) for axis in axes]
    return names


def write_embeddings_csv(path: Path, rows: Sequence[EmbeddingRow], sizes: tuple[int, int, int]) -> None:
    """Write the table; ``sizes`` are scalars, polar and axial vectors, for the header where every scan failed."""
    header = columns_of(*sizes)
    lines: list[list[str]] = []
    for row in rows:
        if row.result is None:
            lines.append([row.input, row.status, row.reason, *[""] * (len(header) - 3)])
            continue
        one = row.result.embedding
        numbers = [one.scalars, one.polar, one.polar_voxel, one.axial, one.axial_voxel]
        cells = [f"{value:.9g}" for part in numbers for value in part.flatten().tolist()]
        lines.append([row.input, row.status, row.result.reason, f"{one.confidence:.6f}", *cells])
    write_text(path, as_csv(header, lines))


def write_embeddings_npz(path: Path, rows: Sequence[EmbeddingRow], sizes: tuple[int, int, int]) -> None:
    """Write ``embeddings.npz``: one array per block, NaN in the rows of scans that failed; nothing is pickled."""
    scalars, polar, axial = sizes
    good = [row.result.embedding for row in rows if row.result is not None]
    pseudo = len(good[0].pseudoscalars) if good else 0

    def block(shape: tuple[int, ...], parts: list[torch.Tensor]) -> Array:
        full = np.full((len(rows), *shape), np.nan, dtype=np.float32)
        places = [index for index, row in enumerate(rows) if row.result is not None]
        for place, part in zip(places, parts, strict=True):
            full[place] = part.numpy()
        return full

    arrays = {
        "input": np.array([row.input for row in rows], dtype=np.str_),
        "status": np.array([row.status for row in rows], dtype=np.str_),
        "reason": np.array([row.reason or (row.result.reason if row.result else "") for row in rows], dtype=np.str_),
        "confidence": block((), [torch.tensor(one.confidence) for one in good]),
        "scalars": block((scalars,), [one.scalars for one in good]),
        "polar_world": block((polar, 3), [one.polar for one in good]),
        "polar_voxel": block((polar, 3), [one.polar_voxel for one in good]),
        "axial_world": block((axial, 3), [one.axial for one in good]),
        "axial_voxel": block((axial, 3), [one.axial_voxel for one in good]),
        "pseudoscalars": block((pseudo,), [one.pseudoscalars for one in good]),
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_embeddings(path: Path | str) -> tuple[list[str], list[str], Array]:
    """Inputs, statuses and invariants (count, scalars; NaN where failed) of an ``embeddings.csv`` or ``.npz``.

    Raises
    ------
    InputError
        If the file is missing or no table of embeddings.
    """
    path = Path(path)
    if path.is_dir():
        path = next((path / name for name in ("embeddings.csv", "embeddings.npz") if (path / name).is_file()), path)
    if not path.is_file():
        raise InputError(f"{path} holds no embeddings.csv or embeddings.npz; run equivox encode embed first.")
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as stored:
                return stored["input"].tolist(), stored["status"].tolist(), stored["scalars"].astype(np.float64)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is no table of embeddings ({error}); write it again.") from error

    rows = read_table(path, required=[*FIRST_COLUMNS, "s000"], unique=["input"])
    names = [name for name in rows[0].cells if name[0] == "s" and name[1:].isdigit()] if rows else []
    values = np.full((len(rows), len(names)), np.nan)
    for index, row in enumerate(rows):
        if row.cells["status"] != "failed":
            values[index] = [row.number(name) for name in names]
    return [row.cells["input"] for row in rows], [row.cells["status"] for row in rows], values
