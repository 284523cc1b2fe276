"""ITK text transforms (``.tfm``, ``.txt``): what ANTs, SimpleITK and 3D Slicer read.

ITK counts in LPS and maps points of the fixed (reference) image to points of the moving one: the direction in which
images are resampled. With ``L = diag(-1, -1, 1, 1)`` the file holds ``L M L`` for the RAS matrix ``M =
moving_from_fixed``. For a head pose the fixed frame is the head and the moving one the scanner, so ``M`` is
``world_from_head`` as it is, and ``antsApplyTransforms -r HEAD_GRID -t pose.tfm`` brings the scan upright.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.atomic import write_text
from equivox.formats.transforms.grid import require_transform
from equivox.geometry.rotations import rotation_from_quaternion, rotation_from_vector

AFFINE = "AffineTransform_double_3_3"
HEADER = "#Insight Transform File V1.0"
LPS_FROM_RAS = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
PARAMETER_COUNTS = {
    "AffineTransform": 12,
    "MatrixOffsetTransformBase": 12,
    "Rigid3DTransform": 12,
    "Euler3DTransform": 6,
    "VersorRigid3DTransform": 6,
    "TranslationTransform": 3,
}


def write_itk(path: Path | str, moving_from_fixed: Float[Tensor, "4 4"]) -> None:
    """Write ``AffineTransform_double_3_3`` with 17 digits (every float64 comes back) and the centre at 0.

    Raises
    ------
    OutputError
        If the file cannot be written.
    ValueError
        If the matrix is not finite, affine and invertible.
    """
    parameters = " ".join(f"{number:.17g}" for number in itk_parameters(moving_from_fixed))
    lines = [
        HEADER,
        "#Transform 0",
        f"Transform: {AFFINE}",
        f"Parameters: {parameters}",
        "FixedParameters: 0 0 0",
    ]
    write_text(path, "\n".join(lines) + "\n")


def read_itk(path: Path | str) -> Float[Tensor, "4 4"]:
    """Read one linear transform from an ITK text file; return ``moving_from_fixed`` in RAS mm, float64.

    Affine, rigid (matrix, Euler angles, versor) and translation transforms in three dimensions are known.

    Raises
    ------
    InputError
        If the file is missing, no ITK text, holds none or several transforms, or one of another kind.
    """
    path = Path(path)
    return matrix_from_parameters(path, *_parse(path))


def itk_parameters(moving_from_fixed: Float[Tensor, "4 4"]) -> list[float]:
    """The 12 parameters (LPS, matrix row by row, then translation) of an affine transform about the centre 0.

    Raises
    ------
    ValueError
        If the matrix is not finite, affine and invertible.
    """
    stored = LPS_FROM_RAS @ require_transform(moving_from_fixed) @ LPS_FROM_RAS
    return [number + 0.0 for number in (*stored[:3, :3].flatten().tolist(), *stored[:3, 3].tolist())]


def matrix_from_parameters(
    path: Path, kind: str, parameters: Sequence[float], fixed: Sequence[float]
) -> Float[Tensor, "4 4"]:
    """``moving_from_fixed`` in RAS mm, float64, of the type and the numbers that ITK keeps (LPS) in any of its files.

    Raises
    ------
    InputError
        If the type is no linear 3D transform, or the numbers are too few, too many, not finite, or singular.
    """
    name, _, dimensions = kind.partition("_")
    if name not in PARAMETER_COUNTS or not dimensions.endswith("_3_3"):
        raise InputError(f"{path} holds a {kind}; give a linear 3D transform ({', '.join(PARAMETER_COUNTS)}).")
    if not bool(torch.isfinite(torch.tensor([*parameters, *fixed], dtype=torch.float64)).all()):
        raise InputError(f"{path} holds NaN or infinite numbers; write it again.")
    if len(parameters) != PARAMETER_COUNTS[name]:
        raise InputError(f"{path} has {len(parameters)} parameters where {name} has {PARAMETER_COUNTS[name]}.")
    matrix, shift = _matrix_and_shift(name, parameters, fixed)
    center = torch.tensor([*fixed[:3], 0.0, 0.0, 0.0][:3], dtype=torch.float64)
    stored = torch.eye(4, dtype=torch.float64)
    stored[:3, :3] = matrix
    stored[:3, 3] = shift + center - matrix @ center
    if abs(float(torch.linalg.det(matrix))) < 1e-12:
        raise InputError(f"{path} holds a singular matrix; a transform must be invertible.")
    return LPS_FROM_RAS @ stored @ LPS_FROM_RAS


def _parse(path: Path) -> tuple[str, list[float], list[float]]:
    """Type, parameters and fixed parameters of the only transform in the file."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; give an ITK transform file.")
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.lstrip().startswith("#Insight Transform File"):
        raise InputError(f"{path} is no ITK text transform (its first line must be {HEADER!r}).")
    fields: dict[str, list[str]] = {"Transform": [], "Parameters": [], "FixedParameters": []}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() in fields:
            fields[key.strip()].append(value.strip())
    if len(fields["Transform"]) != 1 or len(fields["Parameters"]) != 1:
        raise InputError(f"{path} holds {len(fields['Transform'])} transforms; give a file with exactly one.")
    numbers = []
    for key in ("Parameters", "FixedParameters"):
        try:
            numbers.append([float(word) for word in " ".join(fields[key]).split()])
        except ValueError as error:
            raise InputError(f"{path}, {key}: {error}; repair the line.") from error
    return fields["Transform"][0], numbers[0], numbers[1]


def _matrix_and_shift(
    name: str, parameters: Sequence[float], fixed: Sequence[float]
) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """Linear part (LPS) about the centre, and the translation that follows it."""
    numbers = torch.tensor(list(parameters), dtype=torch.float64)
    if name == "TranslationTransform":
        return torch.eye(3, dtype=torch.float64), numbers
    if name == "Euler3DTransform":
        axes = torch.eye(3, dtype=torch.float64)
        x, y, z = (rotation_from_vector(axes[axis] * numbers[axis]) for axis in range(3))
        zyx = len(fixed) > 3 and fixed[3] != 0
        return (z @ y @ x if zyx else z @ x @ y), numbers[3:]
    if name == "VersorRigid3DTransform":
        vector = numbers[:3]
        scalar = (1 - vector.square().sum()).clamp_min(0).sqrt()
        return rotation_from_quaternion(torch.cat([vector, scalar[None]])), numbers[3:]
    return numbers[:9].reshape(3, 3), numbers[9:]
