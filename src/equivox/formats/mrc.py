"""MRC and MRCS files: images, image stacks and maps, memory-mapped, in every variant that programs write.

Arrays come as ``[y, x]`` (image), ``[image, y, x]`` (stack) or ``[z, y, x]`` (volume), row 0 first in the file, never
flipped. A file is a stack if its name ends in ``.mrcs`` or ``.st``, or if it has several sections and space group 0.
"""

from __future__ import annotations

import bz2
import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

from equivox.errors import InputError
from equivox.formats.archives import require_file
from equivox.formats.atomic import atomic_path
from equivox.formats.mrc_header import HEADER_BYTES, MODES, PACKED_MODE, MrcHeader, pack_header, parse_header

MRC_ENDINGS = (".mrc", ".mrcs", ".map", ".ccp4", ".st", ".rec", ".ali")
STACK_ENDINGS = (".mrcs", ".st")
PACKINGS = (".gz", ".bz2")
ANISOTROPY = 0.01
"""Relative difference of the pixel sizes along x and y that is said."""
Kind = Literal["image", "stack", "volume"]
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class MrcImage:
    """An MRC file: its samples and what its header says about them.

    Parameters
    ----------
    data
        ``[y, x]``, ``[image, y, x]`` or ``[z, y, x]``, in the file's own type and byte order; read only, and
        memory-mapped unless the file is compressed or packed.
    pixel_size_angstrom
        Edge of a pixel; None where the header does not say or contradicts itself.
    voxel_size_angstrom
        The three edges (x, y, z); None where unknown.
    """

    path: Path
    data: Shaped[np.ndarray, "..."]
    kind: Kind
    mode: int
    pixel_size_angstrom: float | None
    voxel_size_angstrom: tuple[float, float, float] | None
    origin_angstrom: tuple[float, float, float]
    header: MrcHeader
    warnings: tuple[str, ...]


def read_mrc(path: Path | str, *, mmap: bool = True, check_finite: bool = True) -> MrcImage:
    """Open an MRC file (``.mrc``, ``.mrcs``, ``.map``; also ``.gz`` and ``.bz2``).

    Parameters
    ----------
    path
        The file.
    mmap
        Map the samples into memory instead of reading them; compressed and 4-bit files are read.
    check_finite
        Refuse NaN and infinite samples of an image or a volume. Stacks are not looked through: check what you take
        out of them with :func:`require_finite`.

    Raises
    ------
    InputError
        If the file is missing, empty, truncated, no MRC file, damaged, complex, or holds samples that are no numbers.

    Examples
    --------
    >>> import tempfile
    >>> name = Path(tempfile.mkdtemp()) / "a.mrc"
    >>> write_mrc(name, np.ones((4, 6), np.float32), pixel_size_angstrom=1.5)
    >>> image = read_mrc(name)
    >>> image.kind, image.data.shape, image.pixel_size_angstrom
    ('image', (4, 6), 1.5)
    """
    path = require_file(path)
    content = _decompressed(path)
    if content is None:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
        size = path.stat().st_size
    else:
        head, size = content[:HEADER_BYTES], len(content)
    header = parse_header(path, head, size=size)
    samples = _samples(path, header, content, mmap=mmap)
    kind = _kind(path, header)
    data = _in_order(samples, header, kind)
    if check_finite and kind != "stack":
        require_finite(data, str(path))
    voxel, warnings = header.voxel_size_angstrom(), list(header.warnings)
    pixel = _pixel_size(path, header, kind, voxel, warnings)
    return MrcImage(path, data, kind, header.mode, pixel, voxel, header.origin_angstrom, header, tuple(warnings))


def write_mrc(
    path: Path | str,
    data: Shaped[np.ndarray, "..."],
    *,
    pixel_size_angstrom: float | tuple[float, float, float],
    kind: Kind | None = None,
    origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0),
    labels: tuple[str, ...] = ("equivox",),
) -> None:
    """Write an MRC2014 file whose intervals and cell fit its samples, whole or not at all.

    Parameters
    ----------
    data
        int8 (mode 0), int16 (1), float32 (2), uint16 (6) or float16 (12); other floats are written as float32.
    pixel_size_angstrom
        Edge of a pixel, or of a voxel along (x, y, z).
    kind
        What three axes mean; by default a stack if the name ends in ``.mrcs``, else a volume.

    Raises
    ------
    InputError
        If the array's type has no mode.
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    kind = kind or ("image" if data.ndim == 2 else "stack" if _plain_name(path).endswith(STACK_ENDINGS) else "volume")
    if data.dtype.kind == "f" and data.dtype.itemsize > 4:
        data = data.astype(np.float32)
    little = np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("<"))
    modes = {text: mode for mode, text in MODES.items()}
    code = f"{little.dtype.kind}{little.dtype.itemsize}"
    if code not in modes or little.ndim not in (2, 3):
        raise InputError(f"{path}: an array of {data.dtype} with {data.ndim} axes has no MRC mode; write float32.")
    sections, rows, columns = (1, *little.shape) if little.ndim == 2 else little.shape
    edges = pixel_size_angstrom if isinstance(pixel_size_angstrom, tuple) else (pixel_size_angstrom,) * 3
    deep = sections if kind == "volume" else 1
    statistics = (0.0, -1.0, -2.0, -1.0)
    if little.size:
        mean, rms = float(little.mean(dtype="f8")), float(little.std(dtype="f8"))
        statistics = (float(little.min()), float(little.max()), mean, rms)
    head = pack_header(
        (columns, rows, sections), modes[code], intervals=(columns, rows, deep),
        cell_angstrom=(columns * edges[0], rows * edges[1], deep * edges[2]), space_group=1 if kind == "volume" else 0,
        origin_angstrom=origin_angstrom, statistics=statistics, labels=labels,
    )  # fmt: skip
    opener = gzip.open if path.name.endswith(".gz") else open
    with atomic_path(path) as temporary, opener(temporary, "wb") as file:
        file.write(head)
        file.write(little.data)


def require_finite(data: Shaped[np.ndarray, "..."], where: str) -> None:
    """Refuse NaN and infinite samples; InputError with their number and the place of the first."""
    if data.dtype.kind != "f":
        return
    rows = data.reshape(-1, data.shape[-1])
    step = max(1, (1 << 24) // max(rows.shape[1], 1))
    count, first = 0, None
    for start in range(0, len(rows), step):
        bad = _not_finite(rows[start : start + step])
        if bad.any():
            count += int(bad.sum())
            if first is None:
                row, column = (int(v) for v in np.argwhere(bad)[0])
                first = (*(int(v) for v in np.unravel_index(start + row, data.shape[:-1])), column)
    if first is not None:
        some = f"{count} samples that are" if count > 1 else "a sample that is"
        raise InputError(
            f"{where} holds {some} no finite number, the first at {list(first)} "
            f"({float(data[first])}); repair the image or leave it out."
        )


def _not_finite(block: Array) -> Array:
    """Where samples are NaN or infinite; half floats by their bits, which is ten times faster."""
    if block.dtype == np.float16 and block.dtype.isnative and block.flags.c_contiguous:
        return (block.view(np.uint16) & 0x7C00) == 0x7C00
    return ~np.isfinite(block)


def is_mrc_name(path: Path | str) -> bool:
    """Whether a name ends as MRC files do, packed ones included."""
    return _plain_name(Path(path)).endswith(MRC_ENDINGS)


def _plain_name(path: Path) -> str:
    name = path.name.lower()
    for packing in PACKINGS:
        name = name.removesuffix(packing)
    return name


def _decompressed(path: Path) -> bytes | None:
    """Content of a packed file (by its first bytes); None for a plain one."""
    with path.open("rb") as file:
        magic = file.read(3)
    if not (magic[:2] == b"\x1f\x8b" or magic == b"BZh"):
        return None
    try:
        with gzip.open(path, "rb") if magic[:2] == b"\x1f\x8b" else bz2.open(path, "rb") as packed:
            return packed.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is truncated or damaged ({error}); copy it again from its source.") from error


def _samples(path: Path, header: MrcHeader, content: bytes | None, *, mmap: bool) -> Array:
    """Samples as (section, row, column)."""
    columns, rows, sections = header.counts
    packed = header.mode == PACKED_MODE
    shape = (sections, rows, (columns + 1) // 2 if packed else columns)
    try:
        if content is not None:
            count = sections * rows * shape[2]
            flat = np.frombuffer(content, header.sample_type, count=count, offset=header.data_offset)
            samples = flat.reshape(shape)
        elif mmap and not packed:
            samples = np.memmap(path, header.sample_type, mode="r", offset=header.data_offset, shape=shape)
        else:
            samples = np.fromfile(
                path, header.sample_type, count=sections * rows * shape[2], offset=header.data_offset
            ).reshape(shape)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the disk and its rights.") from error
    if packed:
        both = np.stack([samples & 15, samples >> 4], axis=-1)
        return both.reshape(sections, rows, -1)[:, :, :columns]
    return samples


def _kind(path: Path, header: MrcHeader) -> Kind:
    """What the sections are."""
    if _plain_name(path).endswith(STACK_ENDINGS):
        return "stack"
    if header.counts[2] == 1:
        return "image"
    return "stack" if header.space_group == 0 else "volume"


def _in_order(samples: Array, header: MrcHeader, kind: Kind) -> Array:
    """Axes as z, y, x whatever the file's columns, rows and sections run along."""
    if header.axes != (1, 2, 3):
        column, row, section = header.axes
        place = {section: 0, row: 1, column: 2}
        samples = samples.transpose(place[3], place[2], place[1])
    return samples[0] if kind == "image" and samples.shape[0] == 1 else samples


def _pixel_size(
    path: Path, header: MrcHeader, kind: Kind, voxel: tuple[float, float, float] | None, warnings: list[str]
) -> float | None:
    """One pixel size, with what is doubtful about it said in ``warnings``."""
    if voxel is None:
        cell, counts = header.cell_angstrom[:2], header.intervals[:2]
        warnings.append(
            f"{path} has no usable pixel size (cell {cell[0]:g} x {cell[1]:g} Å over {counts[0]} x {counts[1]}); "
            f"give it in Å, for example --pixel-size-angstrom 1.5."
        )
        return None
    x, y, _ = voxel
    if abs(x - y) > ANISOTROPY * max(x, y):
        warnings.append(
            f"{path} has pixels of {x:.4g} x {y:.4g} Å by its header; square ones are needed: give their size "
            f"(--pixel-size-angstrom) or resample the image."
        )
        return None
    counts = header.counts[header.axes.index(1)], header.counts[header.axes.index(2)]
    if kind != "volume" and counts != header.intervals[:2]:
        warnings.append(
            f"{path} has {counts[0]} x {counts[1]} pixels, its header counts {header.intervals[0]} x "
            f"{header.intervals[1]} (mx, my): the pixel size may be {x:.4g} Å as read or "
            f"{header.cell_angstrom[0] / counts[0]:.4g} Å if the image was binned; give it (--pixel-size-angstrom)."
        )
    return x
