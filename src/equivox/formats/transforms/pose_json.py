"""Our own transform file: a rigid pose between two named frames as JSON (schema ``equivox.pose/1``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from equivox.errors import GeometryError, InputError
from equivox.formats.atomic import write_json
from equivox.geometry.rotations import Pose

SCHEMA = "equivox.pose/1"


def write_pose_json(path: Path | str, pose: Pose, **facts: object) -> None:
    """Write ``p_target = rotation p_source + translation_mm``; ``facts`` are further JSON values beside it.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    document: dict[str, object] = {
        "schema": SCHEMA,
        "target": pose.target,
        "source": pose.source,
        "rotation": pose.rotation.double().tolist(),
        "translation_mm": pose.translation_mm.double().tolist(),
        "quaternion_xyzw": pose.quaternion_xyzw().double().tolist(),
        "euler_xyz_deg": pose.euler_xyz_deg().double().tolist(),
    }
    write_json(path, {**document, **facts})


def read_pose_json(path: Path | str) -> Pose:
    """Read a pose (float64).

    Raises
    ------
    InputError
        If the file is missing, no JSON of this schema, or its matrix is no rotation.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a pose as JSON.")
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}).") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise InputError(f"{path} has the schema {found!r}; {SCHEMA!r} can be read.")
    try:
        rotation = torch.tensor(document["rotation"], dtype=torch.float64).reshape(3, 3)
        translation = torch.tensor(document["translation_mm"], dtype=torch.float64).reshape(3)
        return Pose(rotation, translation, source=str(document["source"]), target=str(document["target"]))
    except KeyError as error:
        raise InputError(f"{path} lacks the key {error}.") from error
    except GeometryError as error:
        raise InputError(f"{path} holds no rigid pose: {error}") from error
    except (ValueError, TypeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} holds no rigid pose ({reason}); give a 3x3 rotation and 3 numbers.") from error
