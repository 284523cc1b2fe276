"""The 1024-byte header of MRC2014 files: parsed, checked against the file's size, and made.

Byte offsets are those of the MRC2014 description (Cheng et al., J. Struct. Biol. 192:146, 2015). Nothing of the
statistics (dmin, dmax, dmean, rms) is trusted: programs leave them unset or stale.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from equivox.errors import InputError

HEADER_BYTES = 1024
MODES: dict[int, str] = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
"""Sample types by mode; mode 101 (4 bits) is unpacked to bytes."""
PACKED_MODE = 101
LARGEST_BYTES = 1 << 42
LONGEST_AXIS = 1 << 20
SMALLEST_ANGSTROM, LARGEST_ANGSTROM = 0.05, 200.0
"""Pixel sizes beyond these are no pixel sizes."""
IMOD_STAMP = 1146047817
ByteOrder = Literal["<", ">"]


@dataclass(frozen=True, slots=True)
class MrcHeader:
    """What a header says; triples are in the order (x, y, z) of the header, ``counts`` (columns, rows, sections).

    ``axes`` tells which of x (1), y (2), z (3) columns, rows and sections run along. ``signed_bytes`` is False for
    old IMOD files of mode 0. ``warnings`` are sentences about what had to be assumed.
    """

    counts: tuple[int, int, int]
    mode: int
    byte_order: ByteOrder
    intervals: tuple[int, int, int]
    cell_angstrom: tuple[float, float, float]
    axes: tuple[int, int, int]
    space_group: int
    extended_bytes: int
    extended_type: str
    origin_angstrom: tuple[float, float, float]
    labels: tuple[str, ...]
    signed_bytes: bool
    warnings: tuple[str, ...]

    @property
    def data_offset(self) -> int:
        """Where the samples begin [bytes]."""
        return HEADER_BYTES + self.extended_bytes

    @property
    def data_bytes(self) -> int:
        """How many bytes the samples take."""
        columns, rows, sections = self.counts
        if self.mode == PACKED_MODE:
            return (columns + 1) // 2 * rows * sections
        return columns * rows * sections * np.dtype(MODES[self.mode]).itemsize

    @property
    def sample_type(self) -> np.dtype:
        """NumPy type of the samples in the file."""
        if self.mode == 0 and not self.signed_bytes:
            return np.dtype("u1")
        return np.dtype("u1") if self.mode == PACKED_MODE else np.dtype(MODES[self.mode]).newbyteorder(self.byte_order)

    def voxel_size_angstrom(self) -> tuple[float, float, float] | None:
        """Cell over intervals along (x, y, z); None unless x and y are plausible lengths.

        Where z makes no sense (images, stacks) it is taken as x.
        """
        sizes = [
            float(f"{cell / count:.7g}") if count > 0 else math.nan  # the header's float32 carries no more
            for cell, count in zip(self.cell_angstrom, self.intervals, strict=True)
        ]
        if not all(_plausible(size) for size in sizes[:2]):
            return None
        return sizes[0], sizes[1], sizes[2] if _plausible(sizes[2]) else sizes[0]


def parse_header(path: Path, head: bytes, *, size: int) -> MrcHeader:
    """Read a header.

    Parameters
    ----------
    path
        For messages.
    head
        The first 1024 bytes (fewer if the file is shorter).
    size
        Bytes of the whole (decompressed) file.

    Raises
    ------
    InputError
        If this is no MRC header, a number in it is impossible, the samples are complex or of an unknown mode, or
        the file is shorter than it says.
    """
    if len(head) < HEADER_BYTES:
        raise InputError(
            f"{path} is no MRC file: it has {len(head)} bytes, the header alone takes {HEADER_BYTES}; copy it again."
        )
    if head[208:211] != b"MAP":
        raise InputError(
            f"{path} is no MRC file: bytes 209 to 212 are {head[208:212]!r} instead of 'MAP '; give a .mrc file."
        )
    warnings: list[str] = []
    order = _byte_order(path, head, warnings)
    ints = struct.unpack(f"{order}10i", head[:40])
    counts, mode, intervals = ints[0:3], ints[3], ints[7:10]
    cell = struct.unpack(f"{order}3f", head[40:52])
    axes = struct.unpack(f"{order}3i", head[64:76])
    space_group, extended = struct.unpack(f"{order}2i", head[88:96])
    origin = struct.unpack(f"{order}3f", head[196:208])
    if not all(0 < count <= LONGEST_AXIS for count in counts):
        raise InputError(
            f"{path} has {counts[0]} x {counts[1]} x {counts[2]} samples by its header; the file is damaged."
        )
    if mode in (3, 4):
        raise InputError(f"{path} is of mode {mode} (complex): a Fourier transform, no image; give the image itself.")
    if mode not in (*MODES, PACKED_MODE):
        raise InputError(
            f"{path} is of mode {mode}; readable are the modes {', '.join(map(str, MODES))} and {PACKED_MODE}."
        )
    if extended < 0:
        raise InputError(f"{path} has an extended header of {extended} bytes by its header; the file is damaged.")
    if sorted(axes) != [1, 2, 3]:
        warnings.append(f"{path} names the axes {axes} (mapc, mapr, maps); columns = x, rows = y, sections = z taken.")
        axes = (1, 2, 3)
    stamp, flags = struct.unpack(f"{order}2i", head[152:160])
    signed = not (mode == 0 and stamp == IMOD_STAMP and not flags & 1)
    if not signed:
        warnings.append(f"{path} is an older IMOD file whose bytes are unsigned; read as 0 to 255.")
    header = MrcHeader(
        counts, mode, order, intervals, cell, axes, space_group, extended,
        head[104:108].decode("ascii", "replace").strip("\0 "),
        origin if all(map(math.isfinite, origin)) else (0.0, 0.0, 0.0), _labels(head), signed, tuple(warnings),
    )  # fmt: skip
    _check_size(path, header, size)
    if size > header.data_offset + header.data_bytes:
        surplus = size - header.data_offset - header.data_bytes
        header = _with_warning(header, f"{path} is {surplus} bytes longer than its header says; they are ignored.")
    return header


def pack_header(
    counts: tuple[int, int, int],
    mode: int,
    *,
    intervals: tuple[int, int, int],
    cell_angstrom: tuple[float, float, float],
    space_group: int,
    origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0),
    statistics: tuple[float, float, float, float] = (0.0, -1.0, -2.0, -1.0),
    labels: tuple[str, ...] = (),
) -> bytes:
    """A little-endian MRC2014 header; ``statistics`` are min, max, mean, rms (the default says "not computed")."""
    head = bytearray(HEADER_BYTES)
    struct.pack_into("<10i", head, 0, *counts, mode, 0, 0, 0, *intervals)
    struct.pack_into("<6f", head, 40, *cell_angstrom, 90.0, 90.0, 90.0)
    struct.pack_into("<3i3f2i", head, 64, 1, 2, 3, *statistics[:3], space_group, 0)
    struct.pack_into("<i", head, 108, 20140)
    struct.pack_into("<3f", head, 196, *origin_angstrom)
    head[208:216] = b"MAP \x44\x44\x00\x00"
    struct.pack_into("<fi", head, 216, statistics[3], min(len(labels), 10))
    for index, label in enumerate(labels[:10]):
        text = label.encode("ascii", "replace")[:80].ljust(80)
        head[224 + 80 * index : 304 + 80 * index] = text
    return bytes(head)


def _byte_order(path: Path, head: bytes, warnings: list[str]) -> ByteOrder:
    """From the machine stamp; from mode and sizes where the stamp says nothing."""
    stamp = head[212:214]
    if stamp in (b"\x44\x44", b"\x44\x41"):
        return "<"
    if stamp == b"\x11\x11":
        return ">"
    orders: tuple[ByteOrder, ByteOrder] = ("<", ">")
    for order in orders:
        *counts, mode = struct.unpack(f"{order}4i", head[:16])
        if mode in (*MODES, 3, 4, PACKED_MODE) and all(0 < count <= LONGEST_AXIS for count in counts):
            name = "little" if order == "<" else "big"
            warnings.append(
                f"{path} has the machine stamp {head[212:216].hex(' ')}; taken as {name}-endian by its other numbers."
            )
            return order
    return "<"


def _check_size(path: Path, header: MrcHeader, size: int) -> None:
    """The file must hold what the header promises."""
    columns, rows, sections = header.counts
    if header.data_bytes > LARGEST_BYTES:
        raise InputError(
            f"{path} would take {header.data_bytes:.3g} bytes by its header ({columns} x {rows} x {sections}); "
            f"the file is damaged."
        )
    if header.data_offset > size:
        raise InputError(
            f"{path} has an extended header of {header.extended_bytes} bytes, which runs past the end of the file "
            f"({size} bytes); the file is damaged."
        )
    missing = header.data_offset + header.data_bytes - size
    if missing > 0:
        raise InputError(
            f"{path} is truncated: {columns} x {rows} x {sections} samples of mode {header.mode} take "
            f"{header.data_bytes} bytes and {missing} of them are missing; copy it again."
        )


def _plausible(size: float) -> bool:
    return math.isfinite(size) and SMALLEST_ANGSTROM <= size <= LARGEST_ANGSTROM


def _labels(head: bytes) -> tuple[str, ...]:
    """Text labels without blanks at their end; empty ones left out."""
    texts = [head[224 + 80 * index : 304 + 80 * index].decode("ascii", "replace").strip("\0 ") for index in range(10)]
    return tuple(text for text in texts if text)


def _with_warning(header: MrcHeader, text: str) -> MrcHeader:
    return replace(header, warnings=(*header.warnings, text))
