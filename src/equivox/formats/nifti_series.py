"""Writing a series frame by frame: no more than one frame is held at a time."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from equivox.formats.atomic import atomic_path
from equivox.formats.nifti import Scan, require_nibabel

SECONDS_PER_UNIT = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
LEVEL = 4
"""Compression: nearly as small as the default, in less than half of the time."""


def frame_seconds(scan: Scan) -> float:
    """Time from one frame to the next [s]; 0 where the file does not say."""
    header: Any = scan._image.header
    try:
        return float(header.get_zooms()[3]) * SECONDS_PER_UNIT[header.get_xyzt_units()[1]]
    except (AttributeError, IndexError, KeyError):
        return 0.0


def write_series(
    path: Path | str,
    frames: Iterable[Float[Tensor, "x y z"]],
    *,
    affine: Float[Tensor, "4 4"],
    shape: tuple[int, int, int],
    count: int,
    seconds: float = 0.0,
    dtype: Literal["float32", "uint8"] = "float32",
) -> None:
    """Write ``count`` frames as they come as NIfTI-1 (``.nii``, ``.nii.gz``), whole or not at all.

    ``sform`` and ``qform`` are set (code 1, scanner), units mm and s. One frame makes a 3D file. Values of a ``uint8``
    file are whole numbers from 0 to 255.

    Raises
    ------
    OutputError
        If the file cannot be written.
    ValueError
        If the ending is not NIfTI's, or frames are too few, too many, or of another shape.
    """
    nibabel = require_nibabel()
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"write_series writes .nii and .nii.gz, got {path.name}")
    header: Any = nibabel.Nifti1Header()
    header.set_data_dtype(np.dtype(dtype))
    header.set_data_shape((*shape, count) if count > 1 else shape)
    header.set_xyzt_units("mm", "sec")
    header.set_sform(affine.numpy(), code=1)
    header.set_qform(affine.numpy(), code=1, strip_shears=True)
    if count > 1:
        header.set_zooms((*header.get_zooms()[:3], seconds))
    header["magic"] = b"n+1"
    header.set_data_offset(352)
    with atomic_path(path) as temporary, _opened(temporary) as file:
        header.write_to(file)
        file.write(b"\0" * (352 - file.tell()))
        written = 0
        stored = np.dtype(dtype).newbyteorder("<")
        for frame in frames:
            if tuple(frame.shape) != shape:
                raise ValueError(f"frame {written} has the shape {tuple(frame.shape)}, not {shape}")
            file.write(frame.detach().cpu().numpy().astype(stored).tobytes(order="F"))
            written += 1
        if written != count:
            raise ValueError(f"{written} frames came, {count} were announced")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, open for writing; compressed, if its ending says so, without name and time: equal runs, equal bytes."""
    with path.open("wb") as raw:
        if path.suffix != ".gz":
            yield raw
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=raw, mtime=0) as packed:
            yield packed
