"""What is kept of every input: one JSON file, written last, that says what was found and which files are whole.

``DIR/items/<stem>.json`` is the marker that `--resume` trusts: the input's checksum, a digest of everything that
decides the result (options, model, version), and the checksum of every file written for the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from equivox.formats.markers import ITEMS, MarkedInput, head_of, marker_path, read_marker
from equivox.formats.poses import PoseRow
from equivox.geometry.rotations import Pose
from equivox.run.record import file_sha256

SCHEMA = "equivox.pose.item/1"


@dataclass(frozen=True)
class InputResult(MarkedInput):
    """Everything that is known about one input after it was worked on.

    Parameters
    ----------
    frames
        One table per frame: what :meth:`PoseEstimate.as_dict` gives, and ``frame``.
    files
        Name relative to the output folder -> checksum.
    warnings
        Sentences about what had to be assumed.
    pictures
        For the page: (kind, caption, file) in order.
    """

    frames: tuple[Mapping[str, Any], ...]
    files: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    pictures: tuple[tuple[str, str, str], ...] = ()

    def pose_rows(self) -> list[PoseRow]:
        """Rows of ``poses.csv``, one per frame."""
        return [
            PoseRow(
                input=self.input,
                frame=int(frame["frame"]),
                status=str(frame["status"]),
                reason=str(frame["reason"]),
                world_from_head=pose_of(frame),
                confidence=float(frame["confidence"]),
                mask_volume_ml=float(frame["mask_volume_ml"]),
                seconds=float(frame["seconds"]),
            )
            for frame in self.frames
        ]

    def write(self, out: Path) -> None:
        """Write the marker; call this last."""
        found = {
            "frames": [dict(frame) for frame in self.frames],
            "files": dict(sorted(self.files.items())),
            "warnings": list(self.warnings),
            "pictures": [list(picture) for picture in self.pictures],
        }
        self.write_marker(out, SCHEMA, found)


def pose_of(frame: Mapping[str, Any]) -> Pose | None:
    """The pose in a frame's table, None where there is none."""
    matrix = frame["world_from_head"]
    if matrix is None:
        return None
    return Pose.from_matrix(torch.tensor(matrix, dtype=torch.float64), source="head", target="world")


def read_result(out: Path, stem: str) -> InputResult | None:
    """The marker of an input, or None if it is missing or cannot be read as one."""
    return read_marker(marker_path(out, stem), SCHEMA, _as_result)


def _as_result(found: Any) -> InputResult:
    return InputResult(
        **head_of(found),
        frames=tuple(found["frames"]),
        files={str(name): str(digest) for name, digest in found["files"].items()},
        warnings=tuple(str(text) for text in found["warnings"]),
        pictures=tuple((str(a), str(b), str(c)) for a, b, c in found["pictures"]),
    )


def is_whole(out: Path, result: InputResult) -> bool:
    """Whether every file of a result is there and unchanged."""
    for name, expected in result.files.items():
        path = _inside(out, name)
        if path is None or not path.is_file() or file_sha256(path) != expected:
            return False
    return True


def clear_results(out: Path) -> None:
    """Remove the files of an earlier run: only those that its markers name."""
    for marker in sorted((out / ITEMS).glob("*.json")):
        result = read_result(out, marker.stem)
        for name in () if result is None else result.files:
            path = _inside(out, name)
            if path is not None:
                path.unlink(missing_ok=True)


def file_digests(out: Path, names: Sequence[str]) -> dict[str, str]:
    """Checksum of each written file by its name relative to ``out``."""
    return {name: file_sha256(out / name) for name in names}


def _inside(out: Path, name: str) -> Path | None:
    """The path of a relative name, None if it would leave the folder."""
    pure = PurePosixPath(name)
    return None if pure.is_absolute() or ".." in pure.parts else out / name
