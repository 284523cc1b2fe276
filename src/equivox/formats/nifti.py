"""Scans on disk: NIfTI and MGH files, 3D and 4D, read as they are and never resampled.

Array axes (i, j, k) become tensor axes (X, Y, Z). The affine maps the index of a voxel's centre to RAS+ mm and stays
float64: the ``sform`` where its code is above 0, else the ``qform``, else the bare voxel sizes (with a warning).
Oblique, anisotropic and left-handed grids are normal.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import GeometryError, InputError, MissingExtraError
from equivox.formats.atomic import atomic_path
from equivox.geometry.space import Volume, require_affine

SCAN_ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh")
GZIP_MAGIC = b"\x1f\x8b"
MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 1e-3}
GRID_TOLERANCE_MM = 1e-2
"""How far apart the corners of two grids may be and still be called the same (headers hold float32)."""


@dataclass(frozen=True)
class Scan:
    """A file that holds one volume, or a series of volumes on one grid; values are read frame by frame.

    Parameters
    ----------
    path
        The file.
    shape
        Voxels along (i, j, k).
    frame_count
        1 for a 3D file.
    affine
        4x4 float64, voxel index to world mm (RAS+).
    affine_source
        Which header field the affine comes from.
    stored_dtype
        Type of the numbers in the file, before scaling.
    warnings
        Sentences about what had to be assumed.
    """

    path: Path
    shape: tuple[int, int, int]
    frame_count: int
    affine: Float[Tensor, "4 4"]
    affine_source: Literal["sform", "qform", "voxel sizes", "mgh"]
    stored_dtype: str
    warnings: tuple[str, ...]
    _image: Any = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.path.name

    @property
    def is_series(self) -> bool:
        """Whether the file holds more than one frame."""
        return self.frame_count > 1

    @property
    def voxel_size_mm(self) -> tuple[float, float, float]:
        """Length of a voxel along (i, j, k) in mm."""
        x, y, z = self.affine[:3, :3].norm(dim=0).tolist()
        return (x, y, z)

    def frame(self, index: int = 0) -> Volume:
        """Read one frame (0-based) as float32, scaled as the header says.

        Raises
        ------
        InputError
            If there is no such frame, the file is damaged, or the values are NaN, infinite or all equal.
        """
        values = self._values(index)
        where = self._where(index)
        if float(values.min()) == float(values.max()):
            raise InputError(
                f"{where} holds the same value {values.flat[0]:g} in every voxel; nothing can be seen in it."
            )
        return Volume(torch.from_numpy(values)[None], self.affine.clone(), name=self.name)

    def labels(self, index: int = 0) -> Int[Tensor, "x y z"]:
        """Read one frame of a label file, rounded to whole numbers; one label everywhere is fine here.

        Raises
        ------
        InputError
            If there is no such frame, the file is damaged, or a value is NaN or infinite.
        """
        return torch.from_numpy(self._values(index)).round().long()

    def _where(self, index: int) -> str:
        return f"{self.path}, frame {index}," if self.is_series else f"{self.path}"

    def _values(self, index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Finite float32 values (X, Y, Z) of one frame."""
        if not 0 <= index < self.frame_count:
            raise InputError(
                f"{self.path} has {self.frame_count} frame(s); there is no frame {index} (counted from 0)."
            )
        where = self._where(index)
        window = (slice(None),) * 3 + ((index,) if self.is_series else ())
        try:
            stored = np.asarray(self._image.dataobj[window])
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise InputError(
                f"{where} cannot be read ({_first_line(error)}); copy it again from its source."
            ) from error
        with np.errstate(over="ignore", invalid="ignore"):
            values = _in_rows(stored.reshape(self.shape))
        bad = int(values.size - np.isfinite(values).sum())
        if bad:
            raise InputError(
                f"{where} has {bad} voxels ({100 * bad / values.size:.2g} %) that are NaN, infinite or beyond "
                f"float32; replace them by numbers first."
            )
        return values


def _in_rows(stored: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Contiguous float32 values; files run along x first, so plane by plane, each of which stays in the cache."""
    values = np.empty(stored.shape, dtype=np.float32)
    for row in range(stored.shape[1]):
        values[:, row] = stored[:, row]
    return values


def open_scan(path: Path | str) -> Scan:
    """Open a NIfTI (``.nii``, ``.nii.gz``) or FreeSurfer (``.mgh``, ``.mgz``) file and check all but its values.

    Raises
    ------
    InputError
        If the file is missing, empty, truncated, of another format, 2D or 5D, has one slice, or holds colours or
        complex numbers.
    GeometryError
        If its affine is not finite, singular or sheared.
    MissingExtraError
        If nibabel is not installed.
    """
    nibabel = require_nibabel()
    path = Path(path)
    content_size = _check_file(path)
    try:
        image = _load(nibabel, path)
    except MemoryError:
        raise
    except Exception as error:  # nibabel meets broken headers with many kinds of exception
        raise InputError(
            f"{path} is not a NIfTI or MGH file, or its header is broken ({_first_line(error)}); "
            f"give a whole .nii, .nii.gz, .mgh or .mgz file."
        ) from error
    if not isinstance(image, (nibabel.Nifti1Image, nibabel.Nifti2Image, nibabel.MGHImage)):
        raise InputError(f"{path} is a {type(image).__name__} file; convert it to .nii.gz.")
    shape, frame_count = _grid_shape(path, tuple(int(size) for size in image.shape))
    stored = image.header.get_data_dtype()
    if stored.names is not None or stored.kind not in "iufb":
        kind = "colours" if stored.names is not None else f"values of type {stored}"
        raise InputError(f"{path} holds {kind}; give a scan with one real number per voxel.")
    expected = int(image.dataobj.offset) + stored.itemsize * int(np.prod(image.shape))
    if content_size < expected:
        raise InputError(f"{path} is truncated ({content_size} of {expected} bytes); copy it again from its source.")
    warnings: list[str] = []
    if isinstance(image, nibabel.MGHImage):
        affine, source = np.asarray(image.affine, dtype=np.float64), "mgh"
        if not int(image.header["goodRASFlag"]):
            warnings.append(f"{path} says nothing of its orientation; FreeSurfer's default (coronal) is assumed.")
    else:
        affine, source = _nifti_affine(path, image.header, warnings)
    world = torch.from_numpy(affine.copy())
    require_affine(world, name=str(path))
    return Scan(path, shape, frame_count, world, source, str(stored), tuple(warnings), image)  # type: ignore[arg-type]


def read_volume(path: Path | str, name: str | None = None) -> Volume:
    """Read a file that holds one 3D volume; everything that :func:`open_scan` and :meth:`Scan.frame` check holds.

    Raises
    ------
    InputError
        Also if the file is a series.
    """
    scan = open_scan(path)
    if scan.is_series:
        raise InputError(f"{path} holds {scan.frame_count} frames; open it with open_scan and take one frame.")
    volume = scan.frame(0)
    return volume if name is None else Volume(volume.data, volume.affine, name=name)


def read_mask(path: Path | str, volume: Volume, *, frame: int = 0) -> Volume:
    """Read the mask of ``volume``: 1 where the file is not 0. A 3D mask serves every frame of a series.

    Raises
    ------
    InputError
        If the mask lies on another grid, is empty, or covers every voxel.
    """
    scan = open_scan(path)
    index = frame if scan.is_series else 0
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64) * (
        torch.tensor(volume.shape, dtype=torch.float64) - 1
    )
    moved = (corners @ (scan.affine - volume.affine)[:3, :3].mT + (scan.affine - volume.affine)[:3, 3]).norm(dim=-1)
    if scan.shape != volume.shape or float(moved.max()) > GRID_TOLERANCE_MM:
        raise InputError(
            f"The mask {path} lies on another grid ({_described(scan.shape, scan.affine)}) than {volume.name} "
            f"({_described(volume.shape, volume.affine)}); resample it to the scan's grid."
        )
    inside = torch.from_numpy(scan._values(index)) != 0
    count = int(inside.sum())
    if count == 0:
        raise InputError(f"The mask {path} is empty; mark the object with a number other than 0.")
    if count == inside.numel():
        raise InputError(f"The mask {path} covers every voxel; the outside of the object must be 0.")
    return Volume(inside[None].float(), scan.affine.clone(), name=scan.name)


def write_volume(
    path: Path | str, volume: Volume | Sequence[Volume], *, dtype: Literal["float32", "int16", "uint8"] = "float32"
) -> None:
    """Write one volume, or a series of volumes on one grid, as NIfTI-1 (``.nii`` or ``.nii.gz``), whole or not at all.

    Channels or frames lie along the fourth axis. Both ``sform`` and ``qform`` are set (code 1, scanner), unit mm. The
    file holds the affine in float32.

    Raises
    ------
    OutputError
        If the file cannot be written.
    GeometryError
        If the volumes of a series lie on different grids.
    ValueError
        If the values do not fit the integer type, or the file ending is not NIfTI's.
    """
    nibabel = require_nibabel()
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"write_volume writes .nii and .nii.gz, got {path.name}")
    volumes = [volume] if isinstance(volume, Volume) else list(volume)
    first = volumes[0]
    for other in volumes[1:]:
        if other.shape != first.shape or not torch.allclose(other.affine, first.affine):
            raise GeometryError(f"{other.name} and {first.name} lie on different grids; a series has one.")
    data = torch.cat([one.data for one in volumes]).detach().cpu()
    if dtype != "float32":
        limit = torch.iinfo(torch.uint8 if dtype == "uint8" else torch.int16)
        if float(data.min()) < limit.min - 0.5 or float(data.max()) > limit.max + 0.5:
            raise ValueError(f"values from {float(data.min()):g} to {float(data.max()):g} do not fit {dtype}")
        data = data.round()
    values = data.permute(1, 2, 3, 0).numpy().astype(dtype)
    image: Any = nibabel.Nifti1Image(values[..., 0] if values.shape[-1] == 1 else values, first.affine.numpy())
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(first.affine.numpy(), code=1)
    image.set_qform(first.affine.numpy(), code=1, strip_shears=True)
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


def without_ending(name: str) -> str:
    """File name without ``.nii``, ``.nii.gz``, ``.mgh`` or ``.mgz``; other names stay whole."""
    for ending in SCAN_ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def require_nibabel() -> Any:
    """Import nibabel; raise MissingExtraError, which names the extra that brings it, if it is not installed."""
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtraError("nibabel", "mri", "reading and writing NIfTI and MGH files") from error
    nibabel.imageglobals.logger.disabled = True  # its header checks print; ours speak instead
    return nibabel


def _load(nibabel: Any, path: Path) -> Any:
    """Header and lazy values; a compressed series stays open, so that reading its frames in order decompresses once."""
    if path.suffix.lower() in (".mgh", ".mgz"):  # nibabel leaves the file open when it loads one by name
        raw = path.read_bytes()
        return nibabel.MGHImage.from_bytes(gzip.decompress(raw) if raw[:2] == GZIP_MAGIC else raw)
    return nibabel.load(path, mmap=False, keep_file_open=True)


def _check_file(path: Path) -> int:
    """Bytes of content (after decompression) of a file that exists and is what its name says."""
    lower = path.name.lower()
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a file; give the file itself.")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its rights.") from error
    if size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy it again from its source.")
    if head[128:132] == b"DICM" or lower.endswith((".dcm", ".ima")):
        raise InputError(f"{path} is a DICOM file; convert its series with dcm2niix and give the .nii.gz file.")
    if not lower.endswith(SCAN_ENDINGS):
        raise InputError(f"{path} is not a NIfTI or MGH file; give a .nii, .nii.gz, .mgh or .mgz file.")
    packed = head[:2] == GZIP_MAGIC
    if packed != lower.endswith((".gz", ".mgz")):
        state, ending = (
            ("is", {".nii": ".nii.gz", ".mgh": ".mgz"}) if packed else ("is not", {".gz": "", ".mgz": ".mgh"})
        )
        right = next(path.name[: -len(old)] + new for old, new in ending.items() if lower.endswith(old))
        raise InputError(f"{path} {state} gzip-compressed although its name says otherwise; rename it to {right}.")
    if not packed:
        return size
    content = 0
    try:
        with gzip.open(path) as stream:
            while block := stream.read(1 << 20):
                content += len(block)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is truncated or damaged ({_first_line(error)}, after {content} bytes); "
            f"copy it again from its source."
        ) from error
    return content


def _grid_shape(path: Path, shape: tuple[int, ...]) -> tuple[tuple[int, int, int], int]:
    """Split a header's shape into the grid and the number of frames."""
    shown = " x ".join(str(size) for size in shape) or "0"
    if not shape or min(shape) < 1:
        raise InputError(f"{path} holds no voxels (its header says {shown}); copy it again from its source.")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) < 3:
        raise InputError(f"{path} is {len(shape)}D ({shown}); give a 3D volume or a 4D series.")
    if len(shape) > 4:
        raise InputError(f"{path} is {len(shape)}D ({shown}); give a 3D volume or a 4D series, one file per channel.")
    x, y, z = shape[:3]
    if min(x, y, z) < 2:
        raise InputError(f"{path} has one slice ({shown} voxels); a position in space needs a volume.")
    return (x, y, z), shape[3] if len(shape) == 4 else 1


def _nifti_affine(path: Path, header: Any, warnings: list[str]) -> tuple[np.ndarray[Any, np.dtype[np.float64]], str]:
    """Affine in mm by the rule sform, qform, voxel sizes; what was assumed goes to ``warnings``."""
    if int(header["sform_code"]) > 0:
        affine, source = header.get_sform(), "sform"
    elif int(header["qform_code"]) > 0:
        affine, source = header.get_qform(), "qform"
    else:
        affine, source = np.diag([*(float(size) for size in header["pixdim"][1:4]), 1.0]), "voxel sizes"
        warnings.append(
            f"{path} says nothing of its orientation; its voxel axes are taken as right, anterior, superior."
        )
    affine = np.array(affine, dtype=np.float64)
    try:
        unit = header.get_xyzt_units()[0]
    except KeyError:
        unit = "unknown"
    if unit == "unknown":
        warnings.append(f"{path} does not name its unit of length; millimetres are assumed.")
    elif unit != "mm":
        affine[:3] *= MM_PER_UNIT[unit]
        warnings.append(f"{path} is in the unit {unit}; it was converted to millimetres.")
    return affine, source


def _described(shape: Sequence[int], affine: Float[Tensor, "4 4"]) -> str:
    """Shape, voxel size and origin for a message."""
    size = " x ".join(f"{float(v):.4g}" for v in affine[:3, :3].norm(dim=0))
    origin = ", ".join(f"{float(v):.1f}" for v in affine[:3, 3])
    return f"{' x '.join(str(s) for s in shape)} voxels of {size} mm, first voxel at ({origin})"


def _first_line(error: BaseException) -> str:
    """First line of an exception's text, without a final full stop."""
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(". ")
