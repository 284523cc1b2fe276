"""What a mesh file promises, checked before a library reads it: counts, index ranges, lengths, finite numbers.

The library that builds the triangles forgives too much: a truncated OFF file loses faces, index 0 of an OBJ file
becomes the last vertex, a vertex that is not a number takes its faces along. Nothing of that passes here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

from equivox.errors import InputError

Lines = Iterator[tuple[int, str]]
PLY_SIZES = {"char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2, "int": 4,
             "uint": 4, "int32": 4, "uint32": 4, "float": 4, "float32": 4, "double": 8, "float64": 8}  # fmt: skip


def check_off(path: Path, data: bytes) -> None:
    """Check an OFF file: keyword, counts, finite vertices, every face there with indices in range.

    Raises
    ------
    InputError
        With the line where it goes wrong.
    """
    lines = _without_comments(data)
    number, first = next(lines, (0, ""))
    place = first.upper().find("OFF")
    if place < 0 or place > 4:
        raise InputError(f"{path} does not begin with the keyword OFF; give a text OFF file.")
    rest = first[place + 3 :].strip()  # some writers put the counts on the keyword's line, without a blank
    if rest.upper().startswith("BINARY"):
        raise InputError(f"{path} is a binary OFF file; convert it to text OFF, PLY or STL.")
    if not rest:
        number, rest = next(lines, (number, ""))
    vertices, faces = (*(_whole(text) for text in rest.split()[:2]), None, None)[:2]
    if vertices is None or faces is None or min(vertices, faces) < 0:
        raise InputError(f"{path}, line {number}, holds {rest!r} where the counts of vertices and faces belong.")
    for done in range(vertices):
        number, line = next(lines, (0, ""))
        if not number:
            raise InputError(f"{path} ends after {done} of {vertices} vertices; copy it again from its source.")
        _require_finite(path, number, line.split()[:3])
    for done in range(faces):
        number, line = next(lines, (0, ""))
        if not number:
            raise InputError(f"{path} ends after {done} of {faces} faces; copy it again from its source.")
        words = line.split()
        size = _whole(words[0])
        corners = [_whole(word) for word in words[1 : 1 + (size or 0)]]
        if size is None or size < 3 or len(corners) < size:
            raise InputError(f"{path}, line {number}, holds {line!r} where a face with at least 3 corners belongs.")
        for corner in corners:
            if corner is None or not 0 <= corner < vertices:
                raise InputError(f"{path}, line {number}: no vertex {corner}; indices run 0 to {vertices - 1}.")
    if not faces:
        raise InputError(f"{path} holds no faces; a mesh needs at least one triangle.")


def check_obj(path: Path, data: bytes) -> None:
    """Check an OBJ file: finite vertices, at least one face, every vertex index there (from 1, or negative).

    Raises
    ------
    InputError
        With the line where it goes wrong.
    """
    vertices, faces, highest, highest_line = 0, 0, 0, 0
    for number, line in _without_comments(data, continued=True):
        words = line.split()
        if words[0] == "v":
            _require_finite(path, number, words[1:4])
            vertices += 1
        elif words[0] == "f":
            faces += 1
            corners = [_whole(word.split("/")[0]) for word in words[1:]]
            if len(corners) < 3 or None in corners:
                raise InputError(f"{path}, line {number}, holds {line!r}; a face names at least 3 vertices.")
            for corner in corners:
                if corner == 0 or (corner or 0) < -vertices:
                    raise InputError(
                        f"{path}, line {number}: there is no vertex {corner}; OBJ counts from 1, or back from -1."
                    )
                if (corner or 0) > highest:
                    highest, highest_line = corner or 0, number
    if not vertices:
        raise InputError(f"{path} holds no vertices; copy it again from its source.")
    if not faces:
        raise InputError(f"{path} holds no faces; a mesh needs at least one triangle.")
    if highest > vertices:
        raise InputError(f"{path}, line {highest_line}: there is no vertex {highest}; the file has {vertices}.")


def check_stl(path: Path, data: bytes) -> bool:
    """Check an STL file and tell whether it is binary: by its length, since the word ``solid`` may begin both.

    Raises
    ------
    InputError
        If it is neither whole binary STL nor text STL with whole facets.
    """
    promised = struct.unpack_from("<I", data, 80)[0] if len(data) >= 84 else -1
    if promised >= 0 and len(data) == 84 + 50 * promised:
        if promised == 0:
            raise InputError(f"{path} holds no faces; a mesh needs at least one triangle.")
        return True
    text = data.decode("ascii", "replace").lower()
    if not text.lstrip().startswith("solid") or "\x00" in text:
        raise InputError(
            f"{path} has {len(data)} bytes where its header promises {84 + 50 * max(promised, 0)}; "
            f"copy it again from its source."
        )
    facets, corners = 0, 0
    for number, line in _without_comments(data):
        words = line.lower().split()
        if words[0] == "facet":
            facets += 1
        elif words[0] == "vertex":
            corners += 1
            _require_finite(path, number, words[1:4])
    if not facets:
        raise InputError(f"{path} holds no faces; a mesh needs at least one triangle.")
    if corners != 3 * facets or text.count("endfacet") != facets:
        raise InputError(f"{path} ends inside facet {facets}; copy it again from its source.")
    return False


def check_ply(path: Path, data: bytes) -> dict[str, int]:
    """Check a PLY header and, for fixed-size elements, the length of what follows; return the count of each element.

    Raises
    ------
    InputError
        If the header is broken or endless, there is no vertex, or the file ends before its vertices do.
    """
    end = data.find(b"end_header")
    if not data.startswith(b"ply") or end < 0:
        raise InputError(f"{path} has no whole PLY header (from 'ply' to 'end_header'); copy it again from its source.")
    counts: dict[str, int] = {}
    stride, form, element = 0, "", ""
    for line in data[:end].decode("ascii", "replace").splitlines()[1:]:
        words = line.split()
        if words[:1] == ["format"]:
            form = words[1] if len(words) > 1 else ""
        elif words[:1] == ["element"]:
            count = _whole(words[2]) if len(words) > 2 else None
            if count is None or count < 0:
                raise InputError(f"{path}: its header says {line.strip()!r}; a count is needed there.")
            element = words[1]
            counts[element] = count
        elif len(words) > 1 and words[0] == "property" and element == "vertex":
            stride += PLY_SIZES.get(words[1], 0)  # a list has no fixed size
    if form not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise InputError(f"{path} names the PLY format {form!r}; ascii and binary files are read.")
    if not counts.get("vertex"):
        raise InputError(f"{path} holds no vertices; copy it again from its source.")
    body = data[end + len(b"end_header") :].lstrip(b"\r\n") if form == "ascii" else data[end + len(b"end_header") + 1 :]
    needed = counts["vertex"] * stride
    if form == "ascii":
        rows = sum(1 for row in body.splitlines() if row.strip())
        if rows < sum(counts.values()):
            raise InputError(f"{path} ends after {rows} of {sum(counts.values())} rows; copy it again from its source.")
    elif len(body) < needed:
        raise InputError(f"{path} ends inside its vertices ({len(body)} of {needed} bytes); copy it again.")
    return counts


def _without_comments(data: bytes, *, continued: bool = False) -> Lines:
    """Lines with their numbers, without comments and blanks; with ``continued``, a backslash joins the next."""
    held, start = "", 0
    for number, raw in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        line = held + raw.split("#", 1)[0].strip()
        if continued and line.endswith("\\"):
            held, start = line[:-1] + " ", start or number
            continue
        if line:
            yield start or number, line
        held, start = "", 0


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _require_finite(path: Path, number: int, words: list[str]) -> None:
    """Three finite numbers, or InputError with the line."""
    try:
        good = len(words) == 3 and all(math.isfinite(float(word)) for word in words)
    except ValueError:
        good = False
    if not good:
        raise InputError(f"{path}, line {number}, holds {' '.join(words)!r} where three finite coordinates belong.")
